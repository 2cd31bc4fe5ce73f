"""What the same content costs in each language: bits, positions of the trunk and FLOPs, relative to English."""

from statistics import fmean

from aunet_lightning.reports.page import Block, Heading, Table, TableCell, Text
from aunet_lightning.reports.study.sections import chunks, spread
from aunet_lightning.reports.study.sentences import number
from aunet_lightning.reports.study.statistics import ENGLISH, Comparison, parallel

QUANTITIES = (  # title, field of CellResult, unit
    ("Parallel bits", "parallel_bits", "bit"),
    ("Trunk steps", "parallel_steps", ""),
    ("FLOPs of reading", "parallel_flops", "FLOPs"),
)


def meaning(comparison: Comparison) -> list[Block]:
    """Returns what a parallel text takes relative to English, or a sentence on why that is unknown."""
    blocks: list[Block] = [Heading("What a meaning costs")]
    for title, what, unit in QUANTITIES:
        if tables := _tables(comparison, what, unit):
            blocks += [Heading(title, 3), *tables]
    if len(blocks) == 1:
        why = "at least two languages, English (en) one of them, with the bits of the same documents and the same seed"
        return [*blocks, Text(f"None: they need {why}.")]
    note = (
        "Totals for the same content, relative to English under the same splitter and seed: 1.20 means 20 % more than "
        "in English. Trunk steps are units of the highest stage, or tokens; FLOPs are those of one forward pass. Mean "
        "over seeds, ± half of the range. Documents: those present in every language of that splitter and seed; where "
        "their number differs between splitters, so does the text. The English column is what the row is divided by."
    )
    return [*blocks, Text(note, "note")]


def _tables(comparison: Comparison, what: str, unit: str) -> list[Block]:
    rows = parallel(comparison, what)
    languages = [language for language in comparison.languages if any(language in row.ratios for row in rows)]
    tables: list[Block] = []
    for some in chunks([language for language in languages if language != ENGLISH]):
        body: list[list[str | TableCell]] = []
        for row in rows:
            span = sorted({min(row.documents), max(row.documents)})
            english = [number(fmean(row.english), unit), "–".join(map(str, span))]
            body.append(
                [comparison.label(row.arm), *english, *(spread(row.ratios.get(language, [])) for language in some)]
            )
        tables.append(Table(["splitter", "English", "documents", *some], body))
    return tables
