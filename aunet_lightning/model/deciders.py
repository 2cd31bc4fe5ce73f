"""Deciders: where units begin among the positions of a stage.

Where rules read bytes, the data carries the boundaries; a learned splitter reads hidden states; a rule above a
learned splitter selects among units that only the model knows. Training may pass deciders of its own for a call.
Shapes: B rows, L bytes of the call, N positions of a stage, D its width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from aunet_lightning.model.state import StageState
from aunet_lightning.model.steppers import Track, read
from aunet_lightning.model.units import Stream
from aunet_lightning.vocabulary import BOS, N_BYTES
from splitters import Splitter
from splitters.learned.predictor import Predictor


class Proposal(NamedTuple):
    """The boundaries that a decider wants."""

    boundary: Tensor  # bool [B, N], before any cap
    log_odds: Tensor | None = None  # float32 [B, N] of a boundary, of a learned splitter
    steppers: tuple[Track, ...] = ()  # one per row of the state, after this call, of a rule above a learned splitter


class Decider(ABC):
    """Decides where units begin among the positions of one stage."""

    @abstractmethod
    def propose(self, h: Tensor, stream: Stream, past: StageState | None) -> Proposal:
        """Returns the boundaries among the positions of `stream`, with encoder output h [B, N, D]."""

    def known(self, stream: Stream) -> list[bool] | None:
        """Returns the boundaries of one position per row [R], where the host knows them without reading the device."""
        return None


class FromData(Decider):
    """Boundaries that came with the data, as levels."""

    def __init__(self, s: int) -> None:
        self.s = s

    def propose(self, h: Tensor, stream: Stream, past: StageState | None) -> Proposal:
        return Proposal((stream.levels > self.s) & stream.valid)

    def known(self, stream: Stream) -> list[bool] | None:
        return None if stream.known is None else [level > self.s for level in stream.known]


class Learned(Decider):
    """Boundaries where a predictor's log-odds are above 0."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def propose(self, h: Tensor, stream: Stream, past: StageState | None) -> Proposal:
        log_odds = self.log_odds(h, stream, past)
        return Proposal(self.boundary(log_odds, stream) & stream.valid, log_odds)

    def log_odds(self, h: Tensor, stream: Stream, past: StageState | None) -> Tensor:
        """Returns the log-odds [B, N] of a boundary."""
        last = past.unit.hidden if past is not None else None
        first = torch.zeros_like(h[:, :1]) if last is None else last[:, None]
        return self.predictor(h, torch.cat([first, h[:, :-1]], 1))

    def boundary(self, log_odds: Tensor, stream: Stream) -> Tensor:
        """Returns bool [B, N]."""
        return ((log_odds > 0) & stream.open) | stream.forced


class RuleAbove(Decider):
    """A rule above a learned splitter, which selects among that splitter's units."""

    def __init__(self, rule: Splitter) -> None:
        self.rule = rule

    def propose(self, h: Tensor, stream: Stream, past: StageState | None) -> Proposal:
        found = torch.zeros_like(stream.ids, dtype=torch.uint8)
        has_unit = found.scatter_add(1, stream.at, stream.valid.to(torch.uint8)) > 0
        if past is None:
            selected, steppers = select_in_rows(self.rule, stream.ids, has_unit), None
        else:
            selected, steppers = select_in_stream(past.steppers, stream.rows, stream.ids, has_unit)
        return Proposal((selected.gather(1, stream.at) | stream.forced) & stream.valid, None, steppers or ())


def select_in_rows(rule: Splitter, ids: Tensor, units: Tensor) -> Tensor:
    """Lets a rule select among units, bool [B, L] on the bytes of rows; each BOS begins a document."""
    selected = np.zeros(ids.shape, bool)
    for row, (bytes_of_row, has_unit) in enumerate(zip(ids.cpu().numpy(), units.cpu().numpy(), strict=True)):
        edges = np.flatnonzero(bytes_of_row == BOS)
        for piece in np.split(np.arange(len(bytes_of_row)), edges):
            text = piece[bytes_of_row[piece] < N_BYTES]
            selected[row, text] = rule.select(bytes_of_row[text].astype(np.uint8).tobytes(), has_unit[text])
    return torch.from_numpy(selected).to(ids.device)


def select_in_stream(
    steppers: tuple[Track, ...], rows: Sequence[int], ids: Tensor, units: Tensor
) -> tuple[Tensor, tuple[Track, ...]]:
    """The same for a stream, ids [R, L] of `rows` of a state, that continues from its steppers; returns those after as
    well."""
    pushes = (zip(*row, strict=True) for row in zip(ids.tolist(), units.tolist(), strict=True))
    selected, after = read(steppers, rows, pushes)
    return torch.tensor(selected, dtype=torch.bool, device=ids.device), after
