"""What a study's axes show, as draws of numbers: rules at equal rates, and the compute that each row needs.

What has no formula (a best rate, a ratio of FLOPs) is worked out for each of many draws of the results, which vary as
the differences' intervals say (`inference.resample`); intervals are those of the draws. The first draw is what was
measured.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

import numpy as np

from aunet_lightning.reports.study import scaling
from aunet_lightning.reports.study.statistics import Arm, Comparison, Group, finished
from aunet_lightning.reports.study.verdicts import Draws, Verdicts, drawn
from aunet_lightning.study.results import CellResult, StudyResult


class Range(NamedTuple):
    """A number and its interval; None where that is unknown."""

    value: float
    interval: tuple[float, float] | None

    def leaves_out(self, same: float) -> bool | None:
        """Returns whether a number lies outside of the interval."""
        return None if self.interval is None else not self.interval[0] <= same <= self.interval[1]


def ranged(values: np.ndarray, comparisons: int = 1) -> Range:
    """Returns what was measured (the first) and the interval of the draws, of several comparisons for all together."""
    found = scaling.interval(values[1:], comparisons) if len(values) > 1 else None
    return Range(float(values[0]), found)


class Rule(NamedTuple):
    """What a row is but its rate."""

    name: str  # its entry of `splitters`
    stages: int
    levels: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, cell: CellResult) -> "Rule":
        return cls(cell.rule or cell.splitter, cell.stages, tuple(cell.levels.items()))

    @property
    def label(self) -> str:
        return " ".join([self.name, *(part for level in self.levels for part in level)])


class Curve(NamedTuple):
    """BPB of a rule over its rates."""

    rates: np.ndarray  # [K], bytes per unit
    bpb: np.ndarray  # [K, draws]


def rate_curves(comparison: Comparison, language: str) -> dict[Rule, Curve]:
    """Returns a curve per rule, of one point for a rule with one rate; nothing where no rule was run at several.
    Rows whose units have no rate are left out."""
    rules: dict[Rule, list[Group]] = {}
    for group in comparison.with_results(language):
        cell = group.done[0]
        if cell.bytes_per_unit:
            rules.setdefault(Rule.of(cell), []).append(group)
    if not any(len(groups) > 1 for groups in rules.values()):
        return {}
    draws = comparison.draws(language)
    return {rule: _curve(groups, draws) for rule, groups in rules.items()}


def _curve(groups: Sequence[Group], draws: Draws) -> Curve:
    rates = [fmean(cell.bytes_per_unit[0] for cell in group.done if cell.bytes_per_unit) for group in groups]
    return Curve(np.array(rates), np.stack([draws[group.arm] for group in groups]))


class AtRate(NamedTuple):
    """A rule against the reference at an equal rate."""

    rule: Rule
    rate: float
    difference: np.ndarray  # BPB, [draws]


def at_equal_rates(comparison: Comparison, curves: Mapping[Rule, Curve]) -> list[AtRate]:
    """Returns the difference of each rule to the reference with the same values of factors, at the rates of the study;
    where only one of the two comes to a rate, at the nearest one that both have."""
    wanted = sorted({cell.rate for cell in comparison.study.cells if cell.rate is not None})
    named, found = comparison.study.reference, []
    for rule, curve in curves.items():
        alike = [other for other in curves if other.name == named != rule.name and other.levels == rule.levels]
        if len(alike) != 1:
            continue
        other = curves[alike[0]]
        low, high = max(curve.rates.min(), other.rates.min()), min(curve.rates.max(), other.rates.max())
        for rate in np.unique(np.clip(wanted, low, high)) if low <= high else ():
            pair = [scaling.at_rate(one.rates, one.bpb.T, float(rate)) for one in (curve, other)]
            if pair[0] is not None and pair[1] is not None:
                found.append(AtRate(rule, float(rate), pair[0] - pair[1]))
    return found


@dataclass(frozen=True)
class Growth:
    """How BPB falls with the budget in a language."""

    points: Mapping[Arm, Sequence[tuple[float, np.ndarray]]]  # budget, BPB [draws]
    laws: Mapping[Arm, scaling.Laws]  # of the arms with several points

    def needed(self, group: Group, reference: Group | None) -> np.ndarray | None:
        """Returns how many times the largest budget a row needs for the BPB that the reference has there, [draws];
        None for the reference itself, and where either has no law."""
        if reference is None or reference is group or not {group.arm, reference.arm} <= self.laws.keys():
            return None
        return scaling.multiplier(self.laws[group.arm], self.laws[reference.arm])


def growth(study: StudyResult, comparison: Comparison, language: str) -> Growth:
    """Returns the curves over the budgets of a whole study; `comparison` is that of the largest budget."""
    cells: dict[Hashable, list[CellResult]] = {}
    rows, budgets = list[Arm](), list[float]()  # of `cells`
    for cell in study.cells:
        if cell.language == language and finished(cell):
            arm, budget = Arm(cell.splitter, cell.stages), cell.budget or study.budget
            if (arm, budget) not in cells:
                rows, budgets = [*rows, arm], [*budgets, budget]
            cells.setdefault((arm, budget), []).append(cell)
    if len(study.budgets) < 2 or not cells:
        return Growth({}, {})
    means = {key: fmean(cell.bpb or math.nan for cell in of) for key, of in cells.items()}
    draws = drawn(Verdicts(cells, rows, budgets), means)
    points = {arm: [(b, draws[arm, b]) for b in study.budgets if (arm, b) in draws] for arm in comparison.arms}
    return Growth(points, {arm: _laws(of) for arm, of in points.items() if len(of) > 1})


def _laws(points: Sequence[tuple[float, np.ndarray]]) -> scaling.Laws:
    return scaling.fit_laws(np.array([b for b, _ in points]), np.stack([values for _, values in points], 1))
