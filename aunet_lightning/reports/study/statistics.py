"""Statistics of a study: means over seeds, rankings, and what arms are compared with."""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import NamedTuple

import numpy as np

from aunet_lightning.reports.study.verdicts import Difference, Draws, Verdicts, drawn
from aunet_lightning.study.results import CellResult, Point, StudyResult

ENGLISH = "en"  # what parallel bits are relative to


class Arm(NamedTuple):
    """What is compared in a language: a splitter at a number of stages."""

    splitter: str
    stages: int


@dataclass(frozen=True)
class Group:
    """The cells of an arm in a language, one per seed."""

    arm: Arm
    language: str
    cells: Sequence[CellResult]  # by seed

    @cached_property
    def done(self) -> list[CellResult]:
        """Returns the cells that have a BPB."""
        return [cell for cell in self.cells if finished(cell)]

    @cached_property
    def values(self) -> list[float]:
        """Returns the BPB of each such cell."""
        return [cell.bpb for cell in self.done if cell.bpb is not None]

    @property
    def mean(self) -> float:
        """Returns the mean BPB over seeds; nan without one."""
        return fmean(self.values) if self.values else math.nan

    @property
    def step(self) -> float:
        """Returns what one step spends of the budget, in %: of the cell with the fewest; 0 where it is unknown."""
        steps = [cell.curve[-1].step for cell in self.done if cell.curve and cell.curve[-1].step]
        return 100 / min(steps) if steps else 0.0

    @property
    def range(self) -> float | None:
        """Returns max − min of the BPB over seeds; None with fewer than two."""
        return max(self.values) - min(self.values) if len(self.values) > 1 else None

    @property
    def trouble(self) -> str:
        """Returns which cells lack a result, as `failed` or `1 of 2 failed`; empty if none does."""
        if not self.cells:
            return "not run"
        words = [cell.status if cell.status != "done" else "no BPB" for cell in self.cells if not finished(cell)]
        parts = []
        for word in dict.fromkeys(words):
            count = words.count(word)
            parts.append(word if count == len(self.cells) else f"{count} of {len(self.cells)} {word}")
        return ", ".join(parts)


def finished(cell: CellResult) -> bool:
    """Returns whether the cell was trained to its end and has a finite BPB."""
    return cell.status == "done" and cell.bpb is not None and math.isfinite(cell.bpb)


def relative(value: float, to: float) -> float:
    """Returns by how many % `value` is above `to`; nan where that is undefined."""
    return 100 * (value / to - 1) if to > 0 else math.nan


class Comparison:
    """A study's cells, grouped: arms and languages in the YAML's order, each splitter by stages."""

    def __init__(self, study: StudyResult) -> None:
        self.study = study
        splitters = list(dict.fromkeys([*study.splitters, *(cell.splitter for cell in study.cells)]))
        run = {Arm(cell.splitter, cell.stages) for cell in study.cells}
        idle = {Arm(splitter, 0) for splitter in splitters} - {Arm(arm.splitter, 0) for arm in run}  # without any cell
        self.arms = sorted(run | idle, key=lambda arm: (splitters.index(arm.splitter), arm.stages))
        self._several = {splitter for splitter in splitters if sum(arm.splitter == splitter for arm in self.arms) > 1}
        self.languages = list(dict.fromkeys([*study.languages, *(cell.language for cell in study.cells)]))
        found: dict[tuple[Arm, str], list[CellResult]] = {(a, lang): [] for a in self.arms for lang in self.languages}
        for cell in study.cells:
            found[Arm(cell.splitter, cell.stages), cell.language].append(cell)
        self.groups: Mapping[tuple[Arm, str], Group] = {
            (arm, language): Group(arm, language, sorted(cells, key=lambda cell: cell.seed))
            for (arm, language), cells in found.items()
        }
        self._verdicts: dict[str, Verdicts] = {}
        self._draws: dict[str, Draws] = {}
        self._rows = {Arm(cell.splitter, cell.stages): (cell.rule, cell.rate, cell.levels) for cell in study.cells}

    def label(self, arm: Arm) -> str:
        """Returns the splitter's name, with the number of stages where it has several."""
        return f"{arm.splitter} · {arm.stages} stages" if arm.splitter in self._several else arm.splitter

    def with_results(self, language: str) -> list[Group]:
        """Returns the groups of a language that have a BPB, in the YAML's order."""
        return [group for arm in self.arms if (group := self.groups[arm, language]).values]

    def ranking(self, language: str) -> list[Group]:
        """Returns the groups of a language that have a BPB, the lowest mean first."""
        return sorted(self.with_results(language), key=lambda group: group.mean)

    def verdicts(self, language: str) -> Verdicts:
        """Returns which arms of a language are told apart, of those that have a BPB."""
        if language not in self._verdicts:
            self._verdicts[language] = Verdicts({group.arm: group.done for group in self.with_results(language)})
        return self._verdicts[language]

    def draws(self, language: str) -> Draws:
        """Returns draws of the mean BPB of each arm of a language that has one."""
        if language not in self._draws:
            measured: dict[Hashable, float] = {group.arm: group.mean for group in self.ranking(language)}
            self._draws[language] = drawn(self.verdicts(language), measured)
        return self._draws[language]

    def difference(self, a: Group, b: Group) -> Difference:
        """Returns the difference of two groups of a language that have a BPB."""
        return self.verdicts(a.language).difference(a.arm, b.arm)

    def twins(self, group: Group) -> list[Group]:
        """Returns the other groups of the language with the same units, the lowest mean first."""
        others = (other for other in self.ranking(group.language) if other is not group)
        return [other for other in others if self.difference(group, other).same_units]

    def is_reference(self, arm: Arm) -> bool:
        """Returns whether an arm is the reference, or the reference at a rate or with a value of a factor."""
        return bool(self.study.reference) and self.study.reference in (
            arm.splitter,
            self._rows.get(arm, (arm.splitter,))[0],
        )

    def reference(self, group: Group) -> Group | None:
        """Returns the reference's group in that language, of those with a BPB: that which is most like the group in
        stages, rate and factors; None where none is as like as another."""
        found = [self.groups[arm, group.language] for arm in self.arms if self.is_reference(arm)]
        found = [one for one in found if one.values]
        alike = [sum(a == b for a, b in zip(self._traits(group), self._traits(one), strict=True)) for one in found]
        best = [one for one, count in zip(found, alike, strict=True) if count == max(alike)]
        return best[0] if len(best) == 1 else None

    def lowest_reference(self, language: str) -> Group | None:
        """Returns the reference's group with the lowest BPB, of its rates and factors; None without a result."""
        return next((group for group in self.ranking(language) if self.is_reference(group.arm)), None)

    def _traits(self, group: Group) -> tuple[object, ...]:
        """What a row is but its rule: its stages, rate and factors."""
        return (group.arm.stages, *self._rows.get(group.arm, ("", None, {}))[1:])

    def seeds(self) -> list[int]:
        """Returns the distinct numbers of seeds of groups with a BPB, the fewest first."""
        return sorted({len(group.values) for group in self.groups.values() if group.values})

    def repeated(self) -> int:
        """Returns how many cells repeat the splitter, stages, language and seed of another one."""
        return len(self.study.cells) - len({(c.splitter, c.stages, c.language, c.seed) for c in self.study.cells})


def off_budget(cell: CellResult, study: StudyResult) -> float | None:
    """Returns by how many % a cell's cost is above its budget; None where it is unknown. Seconds are bytes seen ÷ bytes
    per second, so without validation."""
    spent: float | None = None
    if study.match_by == "flops":
        spent = cell.flops
    elif study.match_by == "bytes":
        spent = cell.bytes_seen
    elif study.match_by == "seconds" and cell.bytes_seen is not None and cell.bytes_per_second:
        spent = cell.bytes_seen / cell.bytes_per_second
    budget = cell.budget or study.budget
    if spent is None or not math.isfinite(spent) or not budget > 0:
        return None
    return relative(spent, budget)


def mean_curve(curves: Iterable[Sequence[Point]]) -> list[tuple[float, float]]:
    """Returns the mean (FLOPs, BPB) over seeds at equal shares of what each spent, as many as the shortest curve has
    points. Between points a curve is a line over the logarithm of the FLOPs."""
    known = [[point for point in curve if math.isfinite(point.bpb) and point.flops > 0] for curve in curves]
    if not known or not all(known):
        return []
    shortest = min(known, key=len)
    shares = np.array([point.flops for point in shortest]) / shortest[-1].flops
    found = []
    for curve in known:
        flops, bpb = np.array([point.flops for point in curve]), [point.bpb for point in curve]
        at = shares * flops[-1]
        found.append((at, np.interp(np.log(at), np.log(flops), bpb)))
    return [(float(x), float(y)) for x, y in zip(*np.mean(found, 0), strict=True)]


class Parallel(NamedTuple):
    """What an arm spends on parallel text; lists have a value per seed."""

    arm: Arm
    documents: list[int]  # that every language has
    english: list[float]  # total of them in English
    ratios: dict[str, list[float]]  # language → total ÷ English's


def parallel(comparison: Comparison, what: str = "parallel_bits") -> list[Parallel]:
    """Returns what (a field of `CellResult`, by document) each arm spends that has it in English and another language,
    for the same seed and the same documents."""
    rows = []
    for arm in comparison.arms:
        row = Parallel(arm, [], [], {})
        cells = [cell for language in comparison.languages for cell in comparison.groups[arm, language].done]
        for seed in sorted({cell.seed for cell in cells}):
            spent = {cell.language: of for cell in cells if cell.seed == seed and (of := getattr(cell, what))}
            shared = set.intersection(*(set(of) for of in spent.values())) if spent else set()
            common = [document for document in shared if all(math.isfinite(of[document]) for of in spent.values())]
            totals = {language: math.fsum(of[document] for document in common) for language, of in spent.items()}
            if len(spent) < 2 or not totals.get(ENGLISH, 0) > 0:
                continue
            row.documents.append(len(common))
            row.english.append(totals[ENGLISH])
            for language, total in totals.items():
                row.ratios.setdefault(language, []).append(total / totals[ENGLISH])
        if row.english:
            rows.append(row)
    return rows
