"""The section of a study's report on which splitters are told apart."""

from aunet_lightning.reports.page import Block, Heading, Table, TableCell, Text
from aunet_lightning.reports.study import sentences
from aunet_lightning.reports.study.statistics import Comparison, Group

LARGE, TIMES = 0.02, 10  # share of the text that one document may have without a word; times the mean document


def differences(comparison: Comparison) -> list[Block]:
    """Returns the difference of each splitter to the best of its language and to the reference, with intervals and
    verdicts; nothing where no language has two results."""
    named = comparison.study.reference
    rows: list[list[str | TableCell]] = []
    for language in comparison.languages:
        ranking = comparison.ranking(language)
        if len(ranking) < 2:
            continue
        rows.append([f"{language}: {_scope(comparison, language)}"])
        for group in ranking:
            same = [comparison.label(twin.arm) for twin in comparison.twins(group)]
            bpb = TableCell([sentences.bpb(group.mean), *([f"same units as {sentences.listed(same)}"] if same else [])])
            to_best = _entry(comparison, group, ranking[0], "best")
            to_reference = [_entry(comparison, group, comparison.reference(group), "reference")] if named else []
            rows.append([comparison.label(group.arm), bpb, to_best, *to_reference])
    if not rows:
        return []
    header = ["splitter", "BPB", "to the best", *([f"to {named}"] if named else [])]
    notes = [Text(text, "note") for text in sentences.of_intervals(comparison)]
    return [Heading("Differences"), Table(header, rows), *notes]


def _scope(comparison: Comparison, language: str) -> str:
    """What the intervals of a language are over, and what they are corrected for."""
    verdicts = comparison.verdicts(language)
    if not verdicts.comparisons:
        return "nothing is judged"
    n_documents = verdicts.documents
    over = sentences.plural(n_documents, "document") if n_documents else "seeds alone"
    if (largest := verdicts.largest_document) > max(LARGE, TIMES / max(n_documents, 1)):
        over += f" (one of them {largest:.0%} of the text, so in fact over few)"
    return f"intervals over {over}{' and seeds' if n_documents else ''}, corrected for " + sentences.plural(
        verdicts.comparisons, "comparison"
    )


def _entry(comparison: Comparison, group: Group, other: Group | None, role: str) -> TableCell:
    if other is None:
        return TableCell(["–"], missing=True)
    if other is group:
        return TableCell([role])
    difference = comparison.difference(group, other)
    if difference.apart is None:
        return TableCell([sentences.bits(difference.value), sentences.verdict(difference)])
    return TableCell([sentences.bits(difference.value), sentences.interval(difference), sentences.verdict(difference)])
