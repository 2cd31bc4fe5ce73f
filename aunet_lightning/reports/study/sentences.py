"""A study in sentences: numbers as text, and conclusions, none beyond what the numbers support."""

import math
from collections.abc import Sequence

from aunet_lightning.reports.study.statistics import Comparison, Group, relative
from aunet_lightning.reports.study.verdicts import Difference

NOT_APART, SAME = "≈", "="  # mark a difference: not told apart; not compared, as the units are the same
_WINNERS = 6  # splitters named in the headline
_UNITS = {"flops": "FLOPs", "bytes": "B"}


def number(value: float | None, unit: str = "") -> str:
    """Returns three digits with a prefix, as `1.23 P`, and the unit; a dash for an unknown value."""
    if value is None or not math.isfinite(value):
        return "–"
    for power, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * power:
            return f"{_three(value / power)} {prefix}{unit}"
    return f"{_three(value)} {unit}".rstrip()


def _three(value: float) -> str:
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{digits}f}"


def bpb(value: float) -> str:
    """Returns a BPB with three decimals."""
    return f"{value:.3f}"


def bits(value: float, digits: int = 4) -> str:
    """Returns a signed difference of BPB; a dash for nan."""
    return f"{value:+.{digits}f}".replace("-", "−") if math.isfinite(value) else "–"


def interval(difference: Difference) -> str:
    """Returns the interval of a difference, as `−0.0012 to +0.0034`; a dash where it is unknown."""
    return " to ".join(map(bits, difference.interval)) if difference.interval else "–"


def percent(value: float) -> str:
    """Returns a signed %, with two decimals below one; a dash for nan."""
    if not math.isfinite(value):
        return "–"
    size = f"{abs(value):.{2 if abs(value) < 0.995 else 1}f}"
    sign = "" if not float(size) else "−" if value < 0 else "+"
    return f"{sign}{size} %"


def listed(names: Sequence[str], most: int = 8) -> str:
    """Returns `a, b and c`; beyond `most`, how many more."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def plural(count: int, word: str) -> str:
    """Returns `1 seed` or `2 seeds`."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def budget(match_by: str, value: float) -> str:
    """Returns a budget with its unit, as `1.20 PFLOPs`."""
    return f"{value:,.0f} seconds" if match_by == "seconds" else number(value, _UNITS.get(match_by, match_by))


def matching(comparison: Comparison) -> str:
    """Returns a sentence on the budget of every cell, and on what differs between cells."""
    study = comparison.study
    differs = {"flops": "how much text they read", "bytes": "what they cost", "seconds": "how much text they read"}
    of_model = {"trunk_layers": "the number of blocks in the trunk", "trunk_dim": "the width of the trunk"}
    what = of_model.get(study.adjust, differs.get(study.match_by, study.adjust))
    shown = "Every cell" if study.alone else "Every cell shown here"
    return f"{shown} may spend {budget(study.match_by, study.budget)} on training; cells differ in {what}."


def headline(comparison: Comparison) -> str:
    """Returns the splitters with the lowest mean BPB, their languages, and whether the second is told apart."""
    wins: dict[str, list[tuple[str, bool | None]]] = {}
    for language in comparison.languages:
        ranking = comparison.ranking(language)
        if len(ranking) > 1:
            rivals = _rivals(comparison, ranking[0])
            lead = comparison.difference(ranking[0], rivals[0]).apart if rivals else None
            wins.setdefault(comparison.label(ranking[0].arm), []).append((language, lead))
    if not wins:
        return "No language has results of two splitters: there is nothing to compare yet."
    ordered = sorted(wins.items(), key=lambda item: -len(item[1]))
    parts = [_won(label, won) for label, won in ordered[:_WINNERS]]
    if rest := ordered[_WINNERS:]:
        languages = sum(len(won) for _, won in rest)
        parts.append(f"{plural(len(rest), 'other splitter')} in {plural(languages, 'language')} (listed below)")
    return f"Lowest mean BPB: {'; '.join(parts)}."


def _rivals(comparison: Comparison, best: Group) -> list[Group]:
    """The other groups of the language with other units, the lowest mean first."""
    same = comparison.twins(best)
    return [group for group in comparison.ranking(best.language) if group is not best and group not in same]


def _won(label: str, won: Sequence[tuple[str, bool | None]]) -> str:
    clear = [language for language, lead in won if lead]
    if clear:
        detail = "told apart from the second" + (f" in {listed(clear)}" if len(clear) < len(won) else "")
    else:
        known = any(lead is not None for _, lead in won)
        detail = "not told apart from the second" if known else "not judged"
    return f"{label} in {listed([language for language, _ in won])} ({detail})"


def caveats(comparison: Comparison) -> str:
    """Returns how far the number of seeds supports conclusions, and how many cells have no result."""
    seeds, sentences = comparison.seeds(), []
    if seeds and seeds[-1] < 2:
        sentences.append("With one seed per cell the spread is unknown: any difference here may be chance.")
    elif seeds:
        known = ", ".join(map(str, seeds[:-1])) + " or " + str(seeds[-1]) if len(seeds) > 1 else str(seeds[0])
        sentences.append(f"Means are over {known} seeds.")
        if seeds[0] < 2:
            sentences.append("With one seed the spread is unknown, and no difference is judged.")
    missing = sum(len(group.cells) - len(group.values) for group in comparison.groups.values())
    if missing:
        total = len(comparison.study.cells)
        sentences.append(f"{missing} of {total} cells have no result and are left out of the comparison.")
    return " ".join(sentences)


def in_language(comparison: Comparison, language: str) -> str:
    """Returns the best of a language against the second and the reference, and the splitters without a result."""
    ranking = comparison.ranking(language)
    missing = [comparison.label(arm) for arm in comparison.arms if not comparison.groups[arm, language].values]
    no_result = f" No result: {listed(missing)}." if missing else ""
    if not ranking:
        return "no splitter has a result."
    best = ranking[0]
    rivals, same = _rivals(comparison, best), comparison.twins(best)
    found = f"{comparison.label(best.arm)}, {bpb(best.mean)} BPB."
    if same:
        found += f" Same units, so not compared with it: {listed([comparison.label(group.arm) for group in same])}."
    if not rivals:
        return f"{found} It is the only one with a result.{no_result}" if not same else found + no_result
    second = rivals[0]
    above = percent(relative(second.mean, best.mean)).lstrip("+")
    found += f" The second, {comparison.label(second.arm)}, is {above} above it{_judged(comparison, second, best)}."
    near = [comparison.label(group.arm) for group in rivals[1:] if comparison.difference(group, best).apart is False]
    if near:
        also = "Also not" if comparison.difference(second, best).apart is False else "Not"
        found += f" {also} told apart from it: {listed(near)}."
    reference = comparison.reference(best) or comparison.lowest_reference(language)
    if reference is best:
        found += " It is the reference itself."
    elif reference is not None:
        against = percent(relative(best.mean, reference.mean))
        found += f" Against {comparison.label(reference.arm)}: {against}{_judged(comparison, best, reference)}."
    elif comparison.study.reference:
        found += f" There is no result of {comparison.study.reference} to compare it with."
    return found + no_result


def _judged(comparison: Comparison, a: Group, b: Group) -> str:
    difference = comparison.difference(a, b)
    known = f" ({bits(difference.value)} BPB, {interval(difference)})" if difference.interval else ""
    return f"{known}: {verdict(difference)}"


def verdict(difference: Difference) -> str:
    """Returns what is known of a difference, in words."""
    if difference.same_units:
        return "same units, not compared"
    if difference.apart is None:
        return "not judged, as both need two seeds"
    return "told apart" if difference.apart else "not told apart"


def rule(comparison: Comparison) -> list[str]:
    """Returns what the entries of the heat map and its signs mean."""
    reference = f" to {comparison.study.reference} (ref)" if comparison.study.reference else ""
    return [
        "Each cell: the mean BPB over seeds (lower is better); ± half of the range (max − min) over seeds and their "
        f"number n; the difference to the best of the language in %{f', and{reference}' if reference else ''}. The "
        "best is bold and framed. The colour is the difference to the best.",
        f"{NOT_APART}: not told apart: zero lies inside the interval of the difference (in the table below). "
        f"{SAME}: the same units, so not compared. With fewer than 2 seeds on either side nothing is judged and no "
        "sign is shown, which does not mean that the two differ.",
    ]


def of_intervals(comparison: Comparison) -> list[str]:
    """Returns what the intervals of differences are, and what they do not cover."""
    sentences = [
        "Differences are in BPB, over the seeds that both have, which read the same documents in the same order. Their "
        "intervals are for other seeds and other documents of the same kind: the spread over seeds is pooled over the "
        "splitters of the language (one that varies more has its own), and the documents count as a random sample. "
        "Other corpora, learning rates and budgets are not covered.",
        "Intervals are of 95 %, widened by Holm's correction for the number of comparisons in the language: all pairs, "
        "as the best is known only from the results. So at most 5 % of studies tell any two apart in a language that "
        "are equally good. Where zero lies inside, two are not told apart, which does not mean that they are equal.",
    ]
    judged = [comparison.verdicts(language) for language in comparison.languages]
    if any(verdicts.comparisons and not verdicts.documents for verdicts in judged):
        sentences.append(
            "Seeds alone: not all runs have the bits of single documents (those of an earlier version have none), so "
            "these intervals do not cover other documents."
        )
    return sentences
