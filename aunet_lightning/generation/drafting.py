"""Texts whose next bytes stage 1 drafts alone, and one call of all stages verifies (BLT-S, arXiv 2605.08044).

A draft continues past boundaries on the vector of the unit before. It is verified against what would have been chosen
without it: each byte has a draw of its own, with which both are chosen, so that texts are the same, sampled ones too.
Shapes: B rows, K ids of a draft, V ids.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from aunet_lightning.generation.batch import Batch, Choice
from aunet_lightning.generation.text import Growing
from aunet_lightning.model.deciders import Decider, Proposal
from aunet_lightning.model.state import StageState, State
from aunet_lightning.model.units import Stream
from aunet_lightning.vocabulary import EOS

LENGTHS = (1, 4, 8, 16)  # of drafts that `Pace` tries; 1: none
TRIAL = 48  # ids of each
AGAIN = 4096  # ids until they are tried again


@dataclass
class Pace:
    """Chooses how long drafts are: of LENGTHS the one that takes the least time an id, or a given one."""

    fixed: int | None = None
    seconds: dict[int, tuple[float, int]] = field(default_factory=dict)  # and ids, of each length
    since: int = 0  # ids since they were tried

    def length(self) -> int:
        """Returns how many ids to draft at once."""
        if self.fixed is not None:
            return self.fixed
        untried = (length for length in LENGTHS if self.seconds.get(length, (0.0, 0))[1] < TRIAL)
        return next(untried, None) or min(LENGTHS, key=lambda length: self.seconds[length][0] / self.seconds[length][1])

    def tell(self, length: int, seconds: float, ids: int) -> None:
        """Tells how long a round with this length took, and how many ids a row got from it."""
        if length not in self.seconds:  # the first of its kind makes what others find made
            self.seconds[length] = 0.0, 0
            return
        before = self.seconds[length]
        self.seconds[length] = before[0] + seconds, before[1] + ids
        self.since += ids
        if self.since > AGAIN:
            self.seconds, self.since = {}, 0


@dataclass
class Drafts:
    """What drafts have cost and saved so far."""

    passes: list[int]  # calls that reached each stage
    made: int = 0  # ids that were drafted beyond the first of a draft, which is known
    accepted: int = 0  # of these
    ids: int = 0  # that texts got

    def __str__(self) -> str:
        if not self.made:
            return "no drafts were made"
        share = f"{self.accepted / self.made:.0%} of {self.made} drafted bytes were right"
        passes = ", ".join(f"{100 * n / max(self.ids, 1):.0f}" for n in self.passes)
        return f"{share}; calls per 100 bytes, by stage: {passes}"


class DraftingBatch(Batch):
    """A `Batch` that drafts. draft: ids of a draft at most; None: what is fastest, which may be none. Raises ValueError
    for a model of one stage, and for compiled steps."""

    def __init__(self, *given: Any, draft: int | None = None, **options: Any) -> None:
        super().__init__(*given, **options)
        if self._net.config.depth == 0:
            raise ValueError("draft: a model of one stage has no cheaper stage to draft with: leave it out")
        if self._compiled:
            raise ValueError("draft: a compiled step reads one byte: leave out compile, or draft")
        self.pace, self.drafts = Pace(draft), Drafts([0] * len(self._net.stages))

    def _advance(self, going: dict[int, Growing]) -> None:
        begin, before = time.perf_counter(), sum(text.ids for text in going.values())
        length = self.pace.length()
        if length > 1:
            self._draft_and_verify(going, length)
        else:
            super()._advance(going)
        ids = sum(text.ids for text in going.values()) - before
        self.drafts.ids += ids
        self.pace.tell(length, time.perf_counter() - begin, -(-ids // len(going)))

    def _draft_and_verify(self, going: Mapping[int, Growing], length: int) -> None:
        drafted = self._draft(going, length)
        self._state.rewind()
        ids = [[choice.id for choice in drafted.get(row, [])] for row in range(len(self._rows))]
        output = self._call(ids)
        kept = self._verify(going, drafted, self._host(output.logits), output.levels)
        if kept != ids:  # the stream takes the other way, from where it was
            self._state.rewind()
            output = self._call(kept)  # never nothing: the first id of a draft is known
        self._state = cast(State, output.state)

    def _draft(self, going: Mapping[int, Growing], length: int) -> dict[int, list[Choice]]:
        """Returns what stage 1 would write, up to `length` ids of each text."""
        drafted: dict[int, list[Choice]] = {row: [] for row in going}
        seen = None if self._seen is None else self._seen.copy()
        states, logits, state = {row: text.state for row, text in going.items()}, self._logits.copy(), self._state
        for ahead in range(length):
            rows = [row for row in going if not drafted[row] or drafted[row][-1].id != EOS]
            if not rows:
                break
            draws = [going[row].draw(ahead) for row in rows]
            picked = self._pick(
                logits[rows], [states[row] for row in rows], draws, None if seen is None else seen[rows]
            )
            for row, choice in zip(rows, picked, strict=True):
                drafted[row].append(choice)
                states[row] = choice.state
                if seen is not None:
                    seen[row, choice.id] = True
            if ahead < length - 1:
                ids = [[drafted[row][-1].id] if row in rows else [] for row in range(len(self._rows))]
                more: dict[str, Any] = {"levels": [[0]] * len(ids), "deciders": NOWHERE, "state": state}
                more |= {"refreshes": [[False]] * len(ids)} if self._net.refreshes else {}
                output = self._call(ids, **more)
                state = cast(State, output.state)
                logits[rows] = self._host(output.logits[:, -1])[rows]
        return drafted

    def _verify(
        self, going: Mapping[int, Growing], drafted: Mapping[int, list[Choice]], logits: np.ndarray, levels: Tensor
    ) -> list[list[int]]:
        """Gives texts what was drafted as long as it is what all stages choose; logits [B, K, V]: of what follows each
        drafted id, levels [B, K]: of these. Returns the ids that each row has read so."""
        kept: list[list[int]] = [[] for _ in self._rows]
        right = dict(going)  # texts whose drafts were right so far
        for at in range(logits.shape[1]):
            right = {row: text for row, text in right.items() if len(drafted[row]) > at and not text.finish}
            if not right:
                break
            rows = [*right]
            states, draws = [text.state for text in right.values()], [text.draw() for text in right.values()]
            picked = self._pick(self._logits[rows], states, draws, None if self._seen is None else self._seen[rows])
            for row, choice in zip(rows, picked, strict=True):
                if at:
                    self.drafts.made += 1
                if choice.id != drafted[row][at].id:
                    del right[row]
                    continue
                if at:
                    self.drafts.accepted += 1
                self._add(row, going[row], choice)
                kept[row].append(choice.id)
                self._logits[row] = logits[row, at]
                self._tell_levels({row: choice.id}, levels[:, at])
        return kept

    def _call(self, *given: Any, **options: Any) -> Any:
        output = super()._call(*given, **options)
        for stage in range(1 + min(int(output.levels.max()), self._net.config.depth)):
            self.drafts.passes[stage] += 1
        return output


class _Nowhere(Decider):
    """No unit begins."""

    def propose(self, h: Tensor, stream: Stream, past: StageState | None) -> Proposal:
        return Proposal(torch.zeros_like(stream.valid), None, past.steppers if past is not None else ())

    def known(self, stream: Stream) -> list[bool] | None:
        return [False] * len(stream.valid)


NOWHERE = {0: _Nowhere()}  # between stages 1 and 2
