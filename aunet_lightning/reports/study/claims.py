"""The first screen of a study's report: the answer in two sentences, and a picture for each thing that they claim.

Of each language the claims name the row with the lowest BPB among those in question; all others are in the tables.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from aunet_lightning.reports import figures
from aunet_lightning.reports.page import Block, Pictures, Text
from aunet_lightning.reports.study import sentences
from aunet_lightning.reports.study.axes import multiple
from aunet_lightning.reports.study.contrasts import Growth, Range, Rule, at_equal_rates, ranged, rate_curves
from aunet_lightning.reports.study.statistics import Comparison, Group

ROWS = 24  # of a picture
LANGUAGES = 6  # named in a sentence
BITS = partial(sentences.bits, digits=3)


class Claim(NamedTuple):
    """One thing that the results say, in each language where they do."""

    key: str
    caption: str  # of the picture
    x: str  # what its numbers are
    bars: Sequence[figures.Bar]
    clause: str = ""  # of the second sentence
    same: float = 0.0  # the number that means no difference
    logarithmic: bool = False


def first_screen(comparison: Comparison, grown: Mapping[str, Growth]) -> list[Block]:
    """Returns the answer, and a picture per claim. comparison: that of the largest budget; grown: by language."""
    claims = [*_against(comparison), *_at_equal_rates(comparison), *_growth(comparison, grown)]
    clauses = "; ".join(claim.clause for claim in claims if claim.clause)
    second = f" Against {comparison.study.reference}: {clauses}." if clauses else ""
    answer = f"{sentences.headline(comparison)}{second} {sentences.caveats(comparison)}"
    by_key = {claim.key: claim for claim in claims}

    def draw(name: str, key: str) -> figures.Picture | None:
        claim = by_key[key]
        return figures.intervals(name, claim.bars, claim.x, claim.same, claim.logarithmic)

    pictures = Pictures("claims", list(by_key), draw, {claim.key: claim.caption for claim in claims})
    note = (
        "Bars: intervals of 95 % for all rows of a language together. A full point is told apart from the black line, "
        "a hollow one is not, or not judged."
    )
    judged = any(bar.interval for claim in claims for bar in claim.bars)
    shown: list[Block] = [*([pictures] if claims else []), *([Text(note, "note")] if judged else [])]
    return [Text(answer.strip(), "answer"), *shown]


def _against(comparison: Comparison) -> list[Claim]:
    """The rows with the lowest BPB of each language against the reference, each at its best rate; where there is none,
    against the lowest."""
    bars, found = list[figures.Bar](), list[tuple[str, str]]()
    most = max(ROWS // max(len(comparison.languages), 1), 1)
    for language in comparison.languages:
        rows = _best_rows(comparison, language)
        reference = comparison.lowest_reference(language)
        other = reference or next(iter(rows), None)
        bars += [_bar(comparison, row, other) for row in rows if other is not None and row is not other][:most]
        if rows and reference is not None:
            found.append((language, _difference(comparison, rows[0], reference)))
    if not bars:
        return []
    rated = any(cell.rate is not None for cell in comparison.study.cells)
    caption = f"BPB minus that of {comparison.study.reference if found else 'the lowest'}"
    clause = (
        f"{'each at its best rate, ' if rated else ''}the lowest, in BPB, is {_by_language(found)}" if found else ""
    )
    return [Claim("reference", caption + ", each at its best rate" * rated, "BPB, left is better", bars, clause)]


def _best_rows(comparison: Comparison, language: str) -> list[Group]:
    """The row of each rule that has the lowest BPB of its rates, the lowest first."""
    rows: dict[Rule, Group] = {}
    for group in comparison.ranking(language):
        rows.setdefault(Rule.of(group.done[0]), group)
    return [*rows.values()]


def _bar(comparison: Comparison, group: Group, other: Group) -> figures.Bar:
    difference = comparison.difference(group, other)
    label = comparison.label(group.arm)
    return figures.Bar(group.language, label, difference.value, difference.interval, difference.apart)


def _difference(comparison: Comparison, group: Group, reference: Group) -> str:
    if group is reference:
        return "itself"
    difference = comparison.difference(group, reference)
    if difference.same_units:
        return "one with the same units"
    return _told(Range(difference.value, difference.interval), BITS)


def _told(found: Range, form: Callable[[float], str], unit: str = "", same: float = 0.0) -> str:
    """Returns a number with its interval, and whether it is told apart from `same`."""
    text = f"{form(found.value)} {unit}".rstrip()
    if found.interval is None:
        return text
    low, high = map(form, found.interval)
    return f"{text} ({low} to {high}{'' if found.leaves_out(same) else ', not told apart'})"


def _by_language(found: Sequence[tuple[str, str]]) -> str:
    alike: dict[str, list[str]] = {}
    for language, text in found:
        alike.setdefault(text, []).append(language)
    named = [f"{text} in {sentences.listed(languages)}" for text, languages in alike.items()]
    more = [f"{len(named) - LANGUAGES} more below"] if len(named) > LANGUAGES else []
    return ", ".join([*named[:LANGUAGES], *more])


def _at_equal_rates(comparison: Comparison) -> list[Claim]:
    """Each rule against the reference, in the mean of the rates that both have."""
    bars, found, rates = list[figures.Bar](), list[tuple[str, str]](), set[str]()
    for language in comparison.languages:
        rules: dict[str, list[np.ndarray]] = {}
        for one in at_equal_rates(comparison, rate_curves(comparison, language)):
            rules.setdefault(one.rule.label, []).append(one.difference)
            rates.add(f"{one.rate:.2g}")
        ranges = {label: ranged(np.mean(of, 0), len(rules)) for label, of in rules.items()}
        ordered = sorted(ranges.items(), key=lambda item: item[1].value)
        bars += [
            figures.Bar(language, label, mean.value, mean.interval, mean.leaves_out(0.0)) for label, mean in ordered
        ]
        if ordered:
            label, lowest = ordered[0]
            found.append((language, f"{label} {_told(lowest, BITS)}"))
    caption = f"BPB minus that of {comparison.study.reference}, in the mean of equal rates"
    clause = f"at equal rates ({', '.join(sorted(rates, key=float))} B), in the mean: {_by_language(found)}"
    return [Claim("rates", caption, "BPB, left is better", bars, clause)] if bars else []


def _growth(comparison: Comparison, grown: Mapping[str, Growth]) -> list[Claim]:
    """The compute that a language's lowest row, other than the reference, needs for the reference's lowest BPB."""
    bars, found = list[figures.Bar](), list[tuple[str, str]]()
    for language in comparison.languages:
        rows = _best_rows(comparison, language)
        for group in rows:
            needed = grown[language].needed(group, comparison.lowest_reference(language))
            if needed is not None:
                one, label = ranged(needed, len(rows) - 1), comparison.label(group.arm)
                bars.append(figures.Bar(language, label, one.value, one.interval, one.leaves_out(1.0)))
                found.append((language, f"{label} {_told(one, multiple, '×', same=1.0)}"))
                break
    if not bars:
        return []
    caption = f"Compute needed for the BPB of {comparison.study.reference}"
    clause = f"compute for its BPB: {_by_language(found)}"
    return [Claim("compute", caption, "times its compute, left is better", bars, clause, 1.0, logarithmic=True)]
