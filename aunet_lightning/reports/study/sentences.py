"""A study in sentences: numbers as text, and conclusions, none beyond what the numbers support."""

import math
from collections.abc import Sequence

from aunet_lightning.reports.study.statistics import FALSE_ALARMS, Comparison, Group, relative, separated

WITHIN = "≈"  # marks a difference within the seeds' spread
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
    return f"Every cell may spend {budget(study.match_by, study.budget)} on training; cells differ in {what}."


def headline(comparison: Comparison) -> str:
    """Returns the splitters with the lowest mean BPB, their languages, and whether the seeds support the lead."""
    wins: dict[str, list[tuple[str, bool | None]]] = {}
    for language in comparison.languages:
        ranking = comparison.ranking(language)
        if len(ranking) > 1:
            lead = separated(ranking[0], ranking[1])
            wins.setdefault(comparison.label(ranking[0].arm), []).append((language, lead))
    if not wins:
        return "No language has results of two splitters: there is nothing to compare yet."
    ordered = sorted(wins.items(), key=lambda item: -len(item[1]))
    parts = [_won(label, won) for label, won in ordered[:_WINNERS]]
    if rest := ordered[_WINNERS:]:
        languages = sum(len(won) for _, won in rest)
        parts.append(f"{plural(len(rest), 'other splitter')} in {plural(languages, 'language')} (listed below)")
    return f"Lowest mean BPB: {'; '.join(parts)}."


def _won(label: str, won: Sequence[tuple[str, bool | None]]) -> str:
    clear = [language for language, lead in won if lead]
    if clear:
        detail = "by more than the seeds' spread" + (f" in {listed(clear)}" if len(clear) < len(won) else "")
    else:
        known = any(lead is not None for _, lead in won)
        detail = "within the seeds' spread of the second" if known else "spread unknown"
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
    best, *others = ranking
    found = f"{comparison.label(best.arm)}, {bpb(best.mean)} BPB."
    if not others:
        return f"{found} It is the only one with a result.{no_result}"
    second = others[0]
    above = percent(relative(second.mean, best.mean)).lstrip("+")
    found += f" The second, {comparison.label(second.arm)}, is {above} above it: {verdict(best, second)}."
    near = [comparison.label(group.arm) for group in others[1:] if separated(best, group) is False]
    if near:
        within = "Also within" if separated(best, second) is False else "Within"
        found += f" {within} the seeds' spread: {listed(near)}."
    reference = comparison.reference(best)
    if reference is best:
        found += " It is the reference itself."
    elif reference is not None:
        found += (
            f" Against {comparison.label(reference.arm)}: {percent(relative(best.mean, reference.mean))}, "
            f"{verdict(best, reference)}."
        )
    elif comparison.study.reference:
        found += f" There is no result of {comparison.study.reference} to compare it with."
    return found + no_result


def verdict(a: Group, b: Group) -> str:
    """Returns how the difference of two groups compares with the seeds' spread, in words."""
    clear = separated(a, b)
    if clear is None:
        return "with fewer than 2 seeds the spread is unknown"
    return "more than the seeds' spread" if clear else "within the seeds' spread"


def rule(comparison: Comparison) -> list[str]:
    """Returns the definition of the spread and of ≈, and the error rate of the rule."""
    reference = f" to {comparison.study.reference} (ref)" if comparison.study.reference else ""
    sentences = [
        "Each cell: the mean BPB over seeds (lower is better); ± half of the range (max − min) over seeds and their "
        f"number n; the difference to the best of the language in %{f', and{reference}' if reference else ''}. The "
        "best is bold and framed. The colour is the difference to the best.",
        f"{WITHIN}: within the seeds' spread: the two means differ by at most half the sum of their ranges over seeds. "
        "With fewer than 2 seeds on either side the spread is unknown and the mark is absent, which does not mean that "
        "the two differ.",
    ]
    fewest = next((n for n in comparison.seeds() if n > 1), 0)
    if fewest:
        errs = FALSE_ALARMS.get(fewest)
        rate = f"in {100 * errs:.0f} % of pairs" if errs and errs >= 0.01 else "in fewer than 1 % of pairs"
        sentences.append(
            f"This is a rule of thumb, not a test: with {fewest} seeds, two equally good splitters would still differ "
            f"by more than the spread {rate}, and the more splitters are compared, the more often some will. Seeds "
            "show how much training varies, not how much other text would change the result."
        )
    return sentences
