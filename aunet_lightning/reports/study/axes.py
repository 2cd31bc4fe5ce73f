"""The sections of a study's report on its axes: the rate of units, the budget, and factors that cross all rows."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial

import numpy as np

from aunet_lightning.reports import figures
from aunet_lightning.reports.page import Block, Heading, Pictures, Table, TableCell, Text
from aunet_lightning.reports.study import scaling, sentences
from aunet_lightning.reports.study.contrasts import Curve, Growth, Rule, at_equal_rates, ranged, rate_curves
from aunet_lightning.reports.study.statistics import Comparison, Group
from aunet_lightning.reports.study.verdicts import Draws
from aunet_lightning.study.results import StudyResult


def _shown(values: np.ndarray, form: Callable[[float], str], comparisons: int = 1) -> list[str]:
    """What was measured, and the interval of the draws."""
    found = ranged(values, comparisons)
    return [form(found.value), *([" to ".join(map(form, found.interval))] if found.interval else [])]


def multiple(value: float) -> str:
    """Returns a multiple of the compute, without a sign."""
    return "–" if math.isnan(value) else "never" if math.isinf(value) else f"{value:.2f}"


def _times(value: float) -> str:
    return f"{multiple(value)} ×" if math.isfinite(value) else multiple(value)


def _rate(value: float) -> str:
    return f"{value:.2f}"


# Rates


def rates(comparison: Comparison) -> list[Block]:
    """Returns the best rate of each rule that was run at several, and rules at equal rates; nothing without such."""
    rows: list[list[str | TableCell]] = []
    equal: list[list[str | TableCell]] = []
    found = {language: curves for language in comparison.languages if (curves := rate_curves(comparison, language))}
    for language, curves in found.items():
        rows.append([language])
        rows += [_best(rule, curve) for rule, curve in curves.items() if len(curve.rates) > 1]
        equal += _at_equal_rates(comparison, language, curves)
    if not rows:
        return []

    def draw(name: str, language: str) -> figures.Picture | None:
        curves = found.get(language, {}).items()
        series = [
            figures.Series(
                k, rule.label, sorted(zip(curve.rates.tolist(), curve.bpb[:, 0].tolist(), strict=True)),
                reference=rule.name == comparison.study.reference,
            )
            for k, (rule, curve) in enumerate(curves)
        ]  # fmt: skip
        return figures.lines(name, series, "bytes per unit", "BPB")

    blocks: list[Block] = [
        Heading("Rates"),
        Pictures("rates", comparison.languages, draw),
        Table(["rule", "bytes per unit: BPB", "best rate", "BPB there"], rows),
        Text(
            "Best rate: the lowest point of a parabola over the logarithm of bytes per unit, through the lowest BPB "
            "and its neighbours; at the shortest or longest rate tried it only says on which side the best is. Bytes "
            "per unit are those on validation text; rates were fitted on training text, and a row that came nowhere "
            "near one (25 %) was not run at it. Intervals of a row's own BPB leave out what a seed does to all rows.",
            "note",
        ),
    ]
    if equal:
        header = ["rule", "bytes per unit", "BPB minus the reference's"]
        note = (
            "Between two of its rates a rule's BPB is read off a line over the logarithm of the rate; where only one "
            "of the two comes to a rate, they are compared at the nearest one that both have. Rules with one rate are "
            "left out. Intervals are of 95 %, for all lines of a language together (Bonferroni's correction)."
        )
        blocks += [Heading("At equal rates", 3), Table(header, equal), Text(note, "note")]
    return blocks


def _best(rule: Rule, curve: Curve) -> list[str | TableCell]:
    best, order = scaling.best_rate(curve.rates, curve.bpb.T), np.argsort(curve.rates)
    tried = TableCell([f"{curve.rates[k]:.2f}: {sentences.bpb(float(curve.bpb[k, 0]))}" for k in order])
    shown = _shown(best.rate, _rate)[: 1 if best.at_edge.all() else 2]
    if best.at_edge[0]:
        shown[0] += ", the " + ("shortest" if best.rate[0] == curve.rates.min() else "longest") + " tried"
    return [rule.label, tried, TableCell(shown), TableCell(_shown(best.bpb, sentences.bpb))]


def _at_equal_rates(comparison: Comparison, language: str, curves: dict[Rule, Curve]) -> list[list[str | TableCell]]:
    found = at_equal_rates(comparison, curves)
    rows: list[list[str | TableCell]] = [[language]] if found else []
    for one in found:
        shown = _shown(one.difference, sentences.bits, len(found))
        apart = ranged(one.difference, len(found)).leaves_out(0.0)
        verdict = [] if apart is None else ["told apart" if apart else "not told apart"]
        rows.append([one.rule.label, f"{one.rate:.3g}", TableCell([*shown, *verdict])])
    return rows


# Budgets


def budgets(study: StudyResult, comparison: Comparison, found: Mapping[str, Growth]) -> list[Block]:
    """Returns how BPB falls with the budget, and how much compute each row needs for the reference's BPB; nothing for
    one budget. comparison: that of the largest; found: by language."""
    rows: list[list[str | TableCell]] = []
    for language, grown in found.items():
        rows += [[language]] if grown.laws else []
        rows += [_scaled(study, comparison, comparison.groups[arm, language], grown) for arm in grown.laws]
    if not rows:
        return []

    def draw(name: str, language: str) -> figures.Picture | None:
        series = [
            figures.Series(
                k, comparison.label(arm), [(b, float(values[0])) for b, values in found[language].points[arm]],
                reference=comparison.is_reference(arm),
            )
            for k, arm in enumerate(comparison.arms)
            if arm in found[language].laws
        ]  # fmt: skip
        return figures.lines(name, series, study.match_by, "BPB", logarithmic=True)

    header = ["splitter", *(sentences.budget(study.match_by, b) for b in study.budgets), "compute needed", "crosses"]
    law = "a power law that falls to a floor" if len(study.budgets) > 2 else "a power law (without a floor)"
    note = (
        f"Over budgets BPB follows {law}, fitted to each draw. Compute needed: how many times the largest budget, for "
        "the BPB that the reference has there, at the same rate or else at its best one; above the largest budget it "
        "is extrapolated. Crosses: the budget at which the curves of the two meet, up to "
        f"{scaling.AHEAD:.0f} times the largest. Smaller budgets may share a run with the largest, and one learning "
        "rate. Intervals are of 95 %, each by itself: what a seed does to all rows of a budget drops out, and budgets "
        "of one run vary together as much as those of all rows do."
    )
    pictured = Pictures("budgets", comparison.languages, draw)
    return [Heading("As compute grows"), pictured, Table(header, rows), Text(note, "note")]


def _scaled(study: StudyResult, comparison: Comparison, group: Group, grown: Growth) -> list[str | TableCell]:
    """A row's BPB at each budget, and what it needs against the reference that is most like it, or else its lowest."""
    other = comparison.reference(group) or comparison.lowest_reference(group.language)
    at, label = dict(grown.points[group.arm]), comparison.label(group.arm)
    measured = [TableCell(_shown(at[b], sentences.bpb)) if b in at else TableCell(["–"]) for b in study.budgets]
    needed = grown.needed(group, other)
    if needed is None or other is None:
        return [label, *measured, "reference" if other is group else "–", "–"]
    where = scaling.crossing(grown.laws[group.arm], grown.laws[other.arm], study.budgets[0])
    return [label, *measured, TableCell(_shown(needed, _times)), TableCell(_crossing(where, study))]


def _crossing(where: np.ndarray, study: StudyResult) -> list[str]:
    """Where two curves cross, in how many of the draws, and whether that is beyond what was run."""
    share = float(np.mean(~np.isnan(where[1:]))) if len(where) > 1 else float(not np.isnan(where[0]))
    if np.isnan(where[0]):
        return ["no", f"in {share:.0%} of draws"]
    lines = _shown(where, partial(sentences.budget, study.match_by))
    beyond = ", extrapolated" if where[0] > study.budget else ""
    return [lines[0] + beyond, *lines[1:], f"in {share:.0%} of draws"]


# Factors


def factors(comparison: Comparison) -> list[Block]:
    """Returns what each value of a factor changes, on average over the rows that it crosses; nothing without one."""
    names = list(dict.fromkeys(name for cell in comparison.study.cells for name in cell.levels))
    rows: list[list[str | TableCell]] = []
    for language in comparison.languages if names else ():
        groups = comparison.with_results(language)
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
