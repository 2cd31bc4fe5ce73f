"""The sections of a study's report on its axes: the rate of units, the budget, and factors that cross all rows.

What has no formula (a best rate, a ratio of FLOPs) is worked out for each of many draws of the results, which vary as
the differences' intervals say (`inference.resample`); intervals are those of the draws.
"""

import itertools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np

from aunet_lightning.reports.study import figures, scaling, sentences
from aunet_lightning.reports.study.page import Block, Heading, Pictures, Table, TableCell, Text
from aunet_lightning.reports.study.statistics import Arm, Comparison, Group, finished
from aunet_lightning.reports.study.verdicts import Draws, Verdicts, drawn
from aunet_lightning.study.results import CellResult, StudyResult


def _shown(values: np.ndarray, form: Callable[[float], str]) -> list[str]:
    """The measured value (the first), and the interval of the others."""
    if len(values) == 1:
        return [form(float(values[0]))]
    low, high = scaling.interval(values[1:])
    return [form(float(values[0])), f"{form(low)} to {form(high)}"]


def _times(value: float) -> str:
    return "–" if math.isnan(value) else "never" if math.isinf(value) else f"{value:.2f} ×"


def _rate(value: float) -> str:
    return f"{value:.2f}"


# Rates


def rates(comparison: Comparison, pictures: bool) -> list[Block]:
    """Returns the best rate of each rule that was run at several, and rules at equal rates; nothing without such."""
    rows: list[list[str | TableCell]] = []
    equal: list[list[str | TableCell]] = []
    panels = []
    for i, language in enumerate(comparison.languages):
        groups = [group for arm in comparison.arms if (group := comparison.groups[arm, language]).values]
        rules = _by_rule(groups)
        if not any(len(of_rule) > 1 for of_rule in rules.values()):
            continue
        draws = comparison.draws(language)
        curves = {rule: _curve(of_rule, draws) for rule, of_rule in rules.items()}
        rows.append([language])
        rows += [_best(rule, *curve) for rule, curve in curves.items() if len(curve[0]) > 1]
        equal += _at_equal_rates(comparison, language, curves)
        series = [
            figures.Series(
                k, rule.label, sorted(zip(x.tolist(), bpb[:, 0].tolist(), strict=True)),
                reference=rule.name == comparison.study.reference,
            )
            for k, (rule, (x, bpb)) in enumerate(curves.items())
        ]  # fmt: skip
        if picture := figures.lines(f"rate{i}", series, "bytes per unit", "BPB"):
            panels.append((language, picture))
    if not rows:
        return []
    blocks: list[Block] = [
        Heading("Rates"),
        *([Pictures("rates", panels)] if pictures else []),
        Table(["rule", "bytes per unit: BPB", "best rate", "BPB there"], rows),
        Text(
            "Best rate: the lowest point of a parabola over the logarithm of bytes per unit, through the lowest BPB "
            "and its neighbours; at the shortest or longest rate tried it only says on which side the best is. Bytes "
            "per unit are those on validation text; rates were fitted on training text.",
            "note",
        ),
    ]  # fmt: skip
    if equal:
        header = ["rule", "bytes per unit", "BPB minus the reference's"]
        note = (
            "Between two of its rates a rule's BPB is read off a line over the logarithm of the rate. Intervals are of "
            "95 %, for all lines of a language together (Bonferroni's correction)."
        )
        blocks += [Heading("At equal rates", 3), Table(header, equal), Text(note, "note")]
    return blocks


class Rule(NamedTuple):
    """What a row is but its rate."""

    name: str  # its entry of `splitters`
    stages: int
    levels: tuple[tuple[str, str], ...]

    @property
    def label(self) -> str:
        return " ".join([self.name, *(part for level in self.levels for part in level)])


def _by_rule(groups: Sequence[Group]) -> dict[Rule, list[Group]]:
    """Groups of which each rule has one per rate; those whose units have none are left out."""
    found: dict[Rule, list[Group]] = {}
    for group in groups:
        cell = group.done[0]
        if cell.bytes_per_unit:
            rule = Rule(cell.rule or cell.splitter, cell.stages, tuple(cell.levels.items()))
            found.setdefault(rule, []).append(group)
    return found


def _curve(groups: Sequence[Group], draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """Returns rates [K] and BPB [K, draws]."""
    x = [fmean(cell.bytes_per_unit[0] for cell in group.done if cell.bytes_per_unit) for group in groups]
    return np.array(x), np.stack([draws[group.arm] for group in groups])


def _best(rule: Rule, x: np.ndarray, bpb: np.ndarray) -> list[str | TableCell]:
    best = scaling.best_rate(x, bpb.T)
    order = np.argsort(x)
    tried = TableCell([f"{x[k]:.2f}: {sentences.bpb(float(bpb[k, 0]))}" for k in order])
    shown = _shown(best.rate, _rate)
    if best.at_edge[0]:
        shown[0] += ", the " + ("shortest" if best.rate[0] == x.min() else "longest") + " tried"
    return [rule.label, tried, TableCell(shown), TableCell(_shown(best.bpb, sentences.bpb))]


def _at_equal_rates(
    comparison: Comparison, language: str, curves: Mapping[Rule, tuple[np.ndarray, np.ndarray]]
) -> list[list[str | TableCell]]:
    wanted = sorted({cell.rate for cell in comparison.study.cells if cell.rate is not None})
    named, found = comparison.study.reference, []
    for rule, curve in curves.items():
        alike = [other for other in curves if other.name == named != rule.name and other.levels == rule.levels]
        for rate, other in itertools.product(wanted, alike if len(alike) == 1 else ()):
            pair = [scaling.at_rate(x, bpb.T, rate) for x, bpb in (curve, curves[other])]
            if pair[0] is not None and pair[1] is not None:
                found.append((rule, rate, pair[0] - pair[1]))
    rows: list[list[str | TableCell]] = [[language]] if found else []
    for rule, rate, difference in found:
        shown = [sentences.bits(float(difference[0]))]
        if len(difference) > 1:
            low, high = scaling.interval(difference[1:], comparisons=len(found))
            apart = "apart" if low > 0 or high < 0 else "not told apart"
            shown += [f"{sentences.bits(low)} to {sentences.bits(high)}", apart]
        rows.append([rule.label, f"{rate:g}", TableCell(shown)])
    return rows


# Budgets


def budgets(study: StudyResult, pictures: bool) -> list[Block]:
    """Returns how BPB falls with the budget, and how much compute each row needs for the reference's BPB; nothing for
    one budget."""
    if len(study.budgets) < 2:
        return []
    comparison, panels, rows = Comparison(study.at(study.budget)), [], list[list[str | TableCell]]()
    for i, language in enumerate(comparison.languages):
        cells: dict[Hashable, list[CellResult]] = {}
        for cell in study.cells:
            if cell.language == language and finished(cell):
                cells.setdefault((Arm(cell.splitter, cell.stages), cell.budget or study.budget), []).append(cell)
        if not cells:
            continue
        measured = {key: fmean(cell.bpb or math.nan for cell in of) for key, of in cells.items()}
        draws = drawn(Verdicts(cells), measured)
        points = {arm: [(b, draws[arm, b]) for b in study.budgets if (arm, b) in draws] for arm in comparison.arms}
        laws = {arm: _laws(of) for arm, of in points.items() if len(of) > 1}
        rows += [[language]] if laws else []
        rows += [_scaled(comparison, comparison.groups[arm, language], points[arm], laws, study) for arm in laws]
        series = [
            figures.Series(
                k,
                comparison.label(arm),
                [(b, float(values[0])) for b, values in points[arm]],
                (),
                comparison.is_reference(arm),
            )
            for k, arm in enumerate(comparison.arms)
            if arm in laws
        ]
        if picture := figures.lines(f"budget{i}", series, study.match_by, "BPB", logarithmic=True):
            panels.append((language, picture))
    if not rows:
        return []
    header = ["splitter", *(sentences.budget(study.match_by, b) for b in study.budgets), "compute needed", "crosses"]
    law = "a power law that falls to a floor" if len(study.budgets) > 2 else "a power law (without a floor)"
    note = (
        f"Over budgets BPB follows {law}, fitted to each draw. Compute needed: how many times the largest budget, for "
        "the BPB that the reference has there; above the largest budget it is extrapolated. Crosses: the budget at "
        f"which the curves of the two meet, up to {scaling.AHEAD:.0f} times the largest. Smaller budgets may share a "
        "run with the largest, and one learning rate."
    )
    pictured = [Pictures("budgets", panels)] if pictures else []
    return [Heading("As compute grows"), *pictured, Table(header, rows), Text(note, "note")]


def _laws(points: Sequence[tuple[float, np.ndarray]]) -> scaling.Laws:
    return scaling.fit_laws(np.array([b for b, _ in points]), np.stack([values for _, values in points], 1))


def _scaled(
    comparison: Comparison,
    group: Group,
    points: Sequence[tuple[float, np.ndarray]],
    laws: Mapping[Arm, scaling.Laws],
    study: StudyResult,
) -> list[str | TableCell]:
    """A row's BPB at each budget, and what it needs against the reference that is most like it."""
    at, other, label = dict(points), comparison.reference(group), comparison.label(group.arm)
    measured = [TableCell(_shown(at[b], sentences.bpb)) if b in at else TableCell(["–"]) for b in study.budgets]
    if other is None or other is group or other.arm not in laws:
        return [label, *measured, "reference" if other is group else "–", "–"]
    needed = scaling.multiplier(laws[group.arm], laws[other.arm])
    where = scaling.crossing(laws[group.arm], laws[other.arm], study.budgets[0])
    return [label, *measured, TableCell(_shown(needed, _times)), TableCell(_crossing(where, study))]


def _crossing(where: np.ndarray, study: StudyResult) -> list[str]:
    """Where two curves cross, in how many of the draws, and whether that is beyond what was run."""
    share = float(np.mean(~np.isnan(where[1:]))) if len(where) > 1 else float(not np.isnan(where[0]))
    if np.isnan(where[0]):
        return ["no", f"in {share:.0%} of draws"]
    lines = _shown(where, lambda value: sentences.budget(study.match_by, value))
    beyond = ", extrapolated" if where[0] > study.budget else ""
    return [lines[0] + beyond, *lines[1:], f"in {share:.0%} of draws"]


# Factors


def factors(comparison: Comparison) -> list[Block]:
    """Returns what each value of a factor changes, on average over the rows that it crosses; nothing without one."""
    names = list(dict.fromkeys(name for cell in comparison.study.cells for name in cell.levels))
    rows: list[list[str | TableCell]] = []
    for language in comparison.languages if names else ():
        groups = [group for arm in comparison.arms if (group := comparison.groups[arm, language]).values]
        if not groups:
            continue
        draws = comparison.draws(language)
        rows.append([language])
        for name in names:
            rows += _effects(name, groups, draws)
    if not rows:
        return []
    note = (
        "Mean difference over all rows that are otherwise equal, to the factor's first value; below zero, it pays. "
        "Intervals are of 95 %, each by itself."
    )
    return [Heading("Factors"), Table(["factor", "value", "BPB", "rows"], rows), Text(note, "note")]


def _effects(name: str, groups: Sequence[Group], draws: Draws) -> list[list[str | TableCell]]:
    by_rest: dict[Hashable, dict[str, np.ndarray]] = {}
    for group in groups:
        cell = group.done[0]
        if name in cell.levels:
            rest = tuple((key, level) for key, level in cell.levels.items() if key != name)
            by_rest.setdefault((cell.rule, cell.rate, cell.stages, rest), {})[cell.levels[name]] = draws[group.arm]
    levels = list(dict.fromkeys(level for of in by_rest.values() for level in of))
    found: list[list[str | TableCell]] = []
    for level in levels[1:]:
        pairs = [of[level] - of[levels[0]] for of in by_rest.values() if level in of and levels[0] in of]
        if pairs:
            shown = _shown(np.mean(pairs, 0), sentences.bits)
            found.append([name, f"{level}, not {levels[0]}", TableCell(shown), str(len(pairs))])
    return found


# Learning rates


def learning_rates(study: StudyResult) -> list[Block]:
    """Returns the search of each row's learning rates; nothing without one."""
    if not study.tuned:
        return []
    tried = sorted({multiple for one in study.tuned for multiple in one.bpb})
    rows: list[list[str | TableCell]] = [
        [one.splitter, *(TableCell([_tried(one.bpb.get(m))], best=m == one.best) for m in tried)] for one in study.tuned
    ]
    note = (
        "BPB of held-out training text at the smallest budget, by multiples of the row's own learning rates; the "
        "lowest is what its cells were run with."
    )
    return [Heading("Learning rates"), Table(["splitter", *(f"× {m:g}" for m in tried)], rows), Text(note, "note")]


def _tried(value: float | None) -> str:
    return "–" if value is None else sentences.bpb(value)
