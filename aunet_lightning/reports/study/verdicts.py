"""Which arms of a language are told apart, from the results of their cells."""

import re
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from aunet_lightning.reports.study.inference import Judgement, Runs, judge, resample
from aunet_lightning.study.results import CellResult

# Metrics of held-out text that depend on units alone (val/NAME, val/NAME_stage2, val_stage2/NAME_en), and the odds of a
# learned splitter's.
_OF_UNITS = re.compile(
    r"val(_stage\d+)?/(bytes_per_(unit|token)|refreshes_per_byte|boundary_share|past_last_offset|longest_unit|dropped|"
    r"agreement|length|word_kappa|one_word|mean_p)_?.*"
)


class Difference(NamedTuple):
    """The BPB of an arm minus that of another, over the seeds that both have."""

    value: float
    interval: tuple[float, float] | None  # as wide as the correction for the number of comparisons asks; None: unknown
    same_units: bool = False  # so that the two are not compared

    @property
    def apart(self) -> bool | None:
        """Whether zero lies outside of the interval; None where nothing is judged."""
        return None if self.interval is None else self.interval[0] > 0 or self.interval[1] < 0


class Verdicts:
    """The differences of a language's arms, from the cells of each that have a BPB."""

    def __init__(self, cells: Mapping[Hashable, Sequence[CellResult]]) -> None:
        self._place = {arm: i for i, arm in enumerate(cells)}
        of_arms = [{cell.seed: cell for cell in reversed(of_arm)} for of_arm in cells.values()]
        seeds = sorted({seed for of_arm in of_arms for seed in of_arm})
        bpb = [[_bpb(of_arm.get(seed)) for seed in seeds] for of_arm in of_arms]
        units = [_units(list(of_arm.values()), i) for i, of_arm in enumerate(of_arms)]
        self.runs = Runs(
            np.array(bpb).reshape(len(of_arms), len(seeds)),
            np.array([units.index(of_arm) for of_arm in units], dtype=int),
            *_documents(of_arms),
        )
        self.judgement: Judgement = judge(self.runs)
        pairs = zip(self.judgement.first.tolist(), self.judgement.second.tolist(), strict=True)
        self._pairs = {pair: k for k, pair in enumerate(pairs)}

    @property
    def comparisons(self) -> int:
        """How many pairs are judged, which their intervals are corrected for."""
        return len(self._pairs)

    @property
    def documents(self) -> int:
        """How many documents the intervals are over; 0 where they are over seeds alone."""
        return 0 if self.runs.bytes is None else len(self.runs.bytes)

    def same_units(self, a: Hashable, b: Hashable) -> bool:
        """Returns whether two arms have the same units, and otherwise the same settings."""
        return bool(self.runs.same_as[self._place[a]] == self.runs.same_as[self._place[b]])

    def difference(self, a: Hashable, b: Hashable) -> Difference:
        """Returns how much higher the BPB of `a` is than that of `b`; nan without a common seed."""
        i, j = self._place[a], self._place[b]
        value = float(self.runs.differences[i, j])
        pair = self._pairs.get((min(i, j), max(i, j)))
        if pair is None:
            return Difference(value, None, i != j and self.same_units(a, b))
        half = float(self.judgement.half_width[pair])
        return Difference(value, (value - half, value + half))

    def resample(self, n: int, generator: np.random.Generator) -> dict[Hashable, np.ndarray]:
        """Returns n draws of each arm's mean BPB, as `inference.resample`."""
        return dict(zip(self._place, resample(self.runs, n, generator).T, strict=True))


def _bpb(cell: CellResult | None) -> float:
    return np.nan if cell is None or cell.bpb is None else cell.bpb


def _units(cells: Sequence[CellResult], number: int) -> object:
    """Returns what is equal for arms whose cells have the same units, and the same settings but for the splitter."""
    found = {
        (
            cell.stages,
            cell.parameters,
            cell.other_settings,
            tuple(sorted((name, value) for name, value in cell.metrics.items() if _OF_UNITS.fullmatch(name))),
            tuple((example.text, tuple(example.levels)) for example in cell.examples),
        )
        for cell in cells
    }
    return found if len(found) == 1 and all(cell.other_settings for cell in cells) else number


def _documents(of_arms: Sequence[Mapping[int, CellResult]]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Returns the bits [A, N] (means over seeds) and bytes [N] of each document; None where not all cells have them
    for the same text."""
    known = [[cell.document_bits for cell in of_arm.values() if cell.document_bits] for of_arm in of_arms]
    whole = all(len(of_arm) == len(found) for of_arm, found in zip(of_arms, known, strict=True))
    if not whole or len({one.text for found in known for one in found}) != 1:
        return None, None
    return np.stack([np.mean([one.bits for one in found], 0) for found in known]), known[0][0].bytes
