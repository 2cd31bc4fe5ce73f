"""Which arms of a language are told apart, from the results of their cells."""

import math
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from aunet_lightning.reports.study.inference import Judgement, Runs, judge, resample
from aunet_lightning.study.results import CellResult

NEAR = 0.01  # by which measures of units that are nearly the same may differ
# Metrics of held-out text that depend on units alone (val/NAME, val/NAME_stage2, val_stage2/NAME_en), and the odds of a
# learned splitter's.
_OF_UNITS = re.compile(
    r"val(_stage\d+)?/(bytes_per_(unit|token)|refreshes_per_byte|boundary_share|past_last_offset|longest_unit|dropped|"
    r"agreement|length|word_kappa|one_word|mean_p)_?.*"
)


DRAWS = 6000
Draws = Mapping[Hashable, np.ndarray]  # of each arm; the first is what was measured


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
    """The differences of a language's arms, from the cells of each that have a BPB.

    Of arms at several budgets, `families` has what each shares with those that branch from the same runs, and `budgets`
    its budget.
    """

    def __init__(
        self,
        cells: Mapping[Hashable, Sequence[CellResult]],
        families: Sequence[Hashable] | None = None,
        budgets: Sequence[float] | None = None,
    ) -> None:
        self._place = {arm: i for i, arm in enumerate(cells)}
        of_arms = [{cell.seed: cell for cell in reversed(of_arm)} for of_arm in cells.values()]
        seeds = sorted({seed for of_arm in of_arms for seed in of_arm})
        bpb = [[_bpb(of_arm.get(seed)) for seed in seeds] for of_arm in of_arms]
        units = [_units(list(of_arm.values())) for of_arm in of_arms]
        self.runs = Runs(
            np.array(bpb).reshape(len(of_arms), len(seeds)),
            _first(units, _Units.__eq__),
            *_documents(of_arms),
            near_to=_first(units, _Units.near),
            families=_numbered(families),
            blocks=_numbered(budgets),
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

    @property
    def largest_document(self) -> float:
        """The share of the text that its largest document has; 0 where documents are not known."""
        known = self.runs.bytes
        return 0.0 if known is None or not len(known) else float(known.max() / known.sum())

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


def drawn(verdicts: Verdicts, measured: Mapping[Hashable, float]) -> Draws:
    """Returns draws of each arm's mean BPB after its measured one, which is alone where its spread is unknown."""
    try:
        draws = verdicts.resample(DRAWS, np.random.default_rng(0))
    except ValueError:
        draws = {arm: np.zeros(0) for arm in measured}
    return {arm: np.append(value, draws[arm]) for arm, value in measured.items()}


def _numbered(names: Sequence[Hashable] | None) -> np.ndarray | None:
    """Returns the place of the first name that equals each, [A]."""
    return None if names is None else np.array([names.index(name) for name in names], int)


def _bpb(cell: CellResult | None) -> float:
    return np.nan if cell is None or cell.bpb is None else cell.bpb


class _Units(NamedTuple):
    """What arms with the same units have in common, and the same settings but for the splitter."""

    settings: tuple[object, ...]
    measures: dict[str, float]
    examples: tuple[object, ...]

    def near(self, other: "_Units") -> bool:
        """Returns whether the units differ at few places: each measure by a hundredth at most."""
        if self.settings != other.settings or self.measures.keys() != other.measures.keys():
            return False
        names = [name for name in self.measures if "longest" not in name]
        return all(math.isclose(self.measures[k], other.measures[k], rel_tol=NEAR, abs_tol=NEAR) for k in names)


def _units(cells: Sequence[CellResult]) -> _Units | None:
    """Returns the units of an arm's cells; None where they differ (as learned ones do), or settings are not known."""
    found = [
        _Units(
            (cell.stages, cell.parameters, cell.other_settings),
            {name: value for name, value in cell.metrics.items() if _OF_UNITS.fullmatch(name)},
            tuple((example.text, tuple(example.levels)) for example in cell.examples),
        )
        for cell in cells
    ]
    return (
        found[0]
        if all(cell.other_settings and one == found[0] for cell, one in zip(cells, found, strict=True))
        else None
    )


def _first(units: Sequence[_Units | None], alike: Callable[[_Units, _Units], bool]) -> np.ndarray:
    """Returns for each arm the first one that is alike, [A]."""
    places = range(len(units))
    return np.array(
        [next(i for i in places if i == j or ((a := units[i]) and (b := units[j]) and alike(a, b))) for j in places],
        int,
    )


def _documents(of_arms: Sequence[Mapping[int, CellResult]]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Returns the bits [A, N] (means over seeds) and bytes [N] of each document; None where not all cells have them
    for the same text."""
    known = [[cell.document_bits for cell in of_arm.values() if cell.document_bits] for of_arm in of_arms]
    whole = all(len(of_arm) == len(found) for of_arm, found in zip(of_arms, known, strict=True))
    if not whole or len({one.text for found in known for one in found}) != 1:
        return None, None
    return np.stack([np.mean([one.bits for one in found], 0) for found in known]), known[0][0].bytes
