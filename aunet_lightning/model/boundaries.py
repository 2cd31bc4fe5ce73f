"""Where the units of a stage begin, when not the data says it: learned splitters, and rules above them.

Shapes: B rows, L bytes of the call, N positions of a stage.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aunet_lightning.vocabulary import BOS, N_BYTES
from splitters import Splitter, UnitStepper


@dataclass(frozen=True)
class Transition:
    """What was decided between two stages, for each position of the lower one."""

    at: Tensor  # [B, N] the byte of this call on which the position stands
    valid: Tensor  # bool [B, N], False past a row's last position
    forced: Tensor  # bool [B, N], where every stage begins a unit: a stream, or a document
    open: Tensor  # bool [B, N], where the splitter had a say: neither forced, nor padding, nor EOS
    boundary: Tensor  # bool [B, N]
    offset: Tensor  # [B, N] distance from the last boundary, in positions
    log_odds: Tensor | None  # float32 [B, N], of a learned splitter


def deferred(fires: Tensor, at: Tensor, valid: Tensor) -> Tensor:
    """bool [B, L] on bytes → bool [B, N]: units with a firing since the unit before, themselves included."""
    fired = fires.cumsum(1).gather(1, at)
    return (fired > F.pad(fired, (1, 0))[:, :-1]) & valid


def select_in_rows(rule: Splitter, ids: Tensor, units: Tensor) -> Tensor:
    """Lets a rule select among units, bool [B, L] on the bytes of whole rows; each BOS begins a document."""
    selected = np.zeros(ids.shape, bool)
    for row, (bytes_of_row, has_unit) in enumerate(zip(ids.cpu().numpy(), units.cpu().numpy(), strict=True)):
        edges = np.flatnonzero(bytes_of_row == BOS)
        for piece in np.split(np.arange(len(bytes_of_row)), edges):
            text = piece[bytes_of_row[piece] < N_BYTES]
            selected[row, text] = rule.select(bytes_of_row[text].astype(np.uint8).tobytes(), has_unit[text])
    return torch.from_numpy(selected).to(ids.device)


def select_in_stream(
    rule: Splitter, steppers: tuple[UnitStepper, ...], ids: Tensor, units: Tensor
) -> tuple[Tensor, tuple[UnitStepper, ...]]:
    """The same for a stream that goes on from its rows' steppers; returns the steppers after as well."""
    selected, after = np.zeros(ids.shape, bool), list(copy.deepcopy(steppers))
    for row, (bytes_of_row, has_unit) in enumerate(zip(ids.tolist(), units.tolist(), strict=True)):
        for position, (byte, unit) in enumerate(zip(bytes_of_row, has_unit, strict=True)):
            if byte == BOS:
                after[row] = rule.unit_stepper()
            elif byte < N_BYTES:
                selected[row, position] = after[row].push(byte, unit)
    return torch.from_numpy(selected).to(ids.device), tuple(after)
