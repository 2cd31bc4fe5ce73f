"""Reads prompts with a state."""

from collections.abc import Sequence

import torch
from torch import Tensor

from aunet_lightning.model.aunet import AUNet
from aunet_lightning.model.state import State
from aunet_lightning.vocabulary import EOS

PART = 4096  # ids of each prompt that are read at once


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, list[int] | None]:
    """Returns ids of R rows as [R, N], padded to the longest, and their lengths; None where all are as long."""
    lengths = [len(row) for row in rows]
    most = max(lengths)
    ids = torch.tensor([[*row, *[EOS] * (most - len(row))] for row in rows], device=device)
    return ids, lengths if min(lengths) < most else None


def read(net: AUNet, rows: Sequence[Sequence[int]], state: State) -> tuple[Tensor, State]:
    """Reads ids of different lengths at once, in parts; returns the logits [R, V] after each row's last id (anything
    for a row without ids), and the state."""
    device, last = net.head.weight.device, None
    for at in range(0, max(map(len, rows)), PART):
        parts = [row[at : at + PART] for row in rows]
        ids, lengths = padded(parts, device)
        output = net(ids, state=state, lengths=lengths)
        assert output.state is not None
        state, ends = output.state, torch.tensor([len(part) for part in parts], device=device)
        found = output.logits[torch.arange(len(rows), device=device), (ends - 1).clamp(min=0)]
        last = found if last is None else torch.where(ends[:, None] > 0, found, last)
    assert last is not None
    return last, state
