"""A trained model as something that has levels, for pictures and statistics beside rules."""

import numpy as np
import torch

from aunet_lightning.model.aunet import AUNet
from aunet_lightning.vocabulary import BOS
from splitters import Stack

CHUNK = 512  # bytes read at once


class ModelStack:
    """The boundaries that a network pools at, its learned splitters' and its rules'.

    Like `splitters.Stack` it has `depth` and `levels`. Texts are read as documents of their own.
    """

    timed_bytes = 20_000  # enough to measure its speed

    def __init__(self, net: AUNet, stack: Stack) -> None:
        self.net, self.stack = net, stack

    @property
    def depth(self) -> int:
        return self.stack.depth

    @torch.no_grad()
    def levels(self, data: bytes) -> np.ndarray:
        """Returns uint8 [len(data)]: per byte, how many stages up its vector goes."""
        ids = torch.tensor([[BOS, *data]], device=self.net.head.weight.device)
        state, found = self.net.initial_state(1, self.stack), []
        for chunk in ids.split(CHUNK, 1):
            output = self.net(chunk, state=state)
            state = output.state
            found.append(output.levels[0])
        return torch.cat(found)[1:].cpu().numpy()
