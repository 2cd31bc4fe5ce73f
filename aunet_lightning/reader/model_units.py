"""Levels of a trained model, for pictures and statistics beside those of rules."""

from collections.abc import Mapping

import numpy as np
import torch

from aunet_lightning.model.aunet import AUNet
from aunet_lightning.model.deciders import Decider
from aunet_lightning.reader.levels import Levels
from aunet_lightning.reader.reader import Reader
from aunet_lightning.vocabulary import BOS

CHUNK = 512  # bytes read at once


def units_of(net: AUNet, reader: Reader) -> Levels:
    """Returns the units that a network pools, or those of its reader where it pools none."""
    return ModelUnits(net, reader) if net.config.depth else reader


class ModelUnits:
    """The boundaries that a network pools at, its learned splitters' and its rules'.

    It has `depth` and `levels` as a stack of rules does. Each text is read as a document of its own.
    """

    timed_bytes = 20_000  # enough to measure its speed

    def __init__(self, net: AUNet, reader: Reader, deciders: Mapping[int, Decider] | None = None) -> None:
        """deciders: by transition, in place of the network's own."""
        self.net, self.reader, self.deciders = net, reader, deciders

    @property
    def depth(self) -> int:
        return self.reader.stack.depth

    @torch.no_grad()
    def levels(self, data: bytes) -> np.ndarray:
        """Returns uint8 [len(data)]: per byte, how many stages up its vector goes."""
        ids = torch.tensor([[BOS, *data]], device=self.net.head.weight.device)
        state, found = self.net.initial_state(1, self.reader.stack), []
        for chunk in ids.split(CHUNK, 1):
            output = self.net(chunk, state=state, deciders=self.deciders)
            state = output.state
            found.append(output.levels[0])
        return torch.cat(found)[1:].cpu().numpy()
