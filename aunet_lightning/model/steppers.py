"""Steppers of splitters as values: the one that a state holds stays valid, though steppers move as they are pushed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from aunet_lightning.vocabulary import BOS, N_BYTES

COPY_EVERY = 64  # pushes that are repeated at most, where two texts go on from one state


@dataclass(frozen=True)
class Track:
    """A row's stepper after some pushes. Going on from the latest value pushes the stepper that all values share; going
    on from an earlier one copies the one that was kept and repeats what was pushed since."""

    begin: Callable[[], Any]  # makes the stepper of a document
    kept: Any  # a stepper of some pushes ago, never pushed
    stepper: Any  # the shared one, after all of `pushed`
    pushed: list[tuple[int, ...]]  # since `kept`, shared: what each push was given
    n: int  # how many of these this value has seen

    @classmethod
    def of(cls, begin: Callable[[], Any]) -> Track:
        return cls(begin, begin(), begin(), [], 0)

    def read(self, pushes: Iterable[tuple[int, ...]]) -> tuple[list[int], Track]:
        """Returns what each push found, and the value after. The first of a push is an id: BOS begins a document with a
        fresh stepper, and other ids that are no byte move nothing; both find 0."""
        kept, stepper, pushed = self.kept, self.stepper, self.pushed
        if len(pushed) != self.n:
            pushed, stepper = pushed[: self.n], copy.deepcopy(kept)
            for push in pushed:
                stepper.push(*push)
        found = []
        for push in pushes:
            if push[0] < N_BYTES:
                pushed.append(push)
                found.append(stepper.push(*push))
                continue
            if push[0] == BOS:
                kept, stepper, pushed = self.begin(), self.begin(), []
            found.append(0)
        if len(pushed) > COPY_EVERY:
            kept, pushed = copy.deepcopy(stepper), []
        return found, Track(self.begin, kept, stepper, pushed, len(pushed))


def read(
    tracks: tuple[Track, ...], rows: Sequence[int], pushes: Iterable[Iterable[tuple[int, ...]]]
) -> tuple[list[list[int]], tuple[Track, ...]]:
    """Reads pushes of some rows; returns what each found, and all tracks after."""
    found, after = [], list(tracks)
    for row, ones in zip(rows, pushes, strict=True):
        here, after[row] = tracks[row].read(ones)
        found.append(here)
    return found, tuple(after)
