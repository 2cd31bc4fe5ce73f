"""The report of a study: a self-contained page, the same as Markdown, a row per cell as CSV, and the heat map."""

import csv
import io
from dataclasses import fields
from pathlib import Path

from aunet_lightning.reports.study import axes, figures, page, sections, sentences
from aunet_lightning.reports.study.columns import columns_of
from aunet_lightning.reports.study.differences import differences
from aunet_lightning.reports.study.meaning import meaning
from aunet_lightning.reports.study.page import Block, Items, Text
from aunet_lightning.reports.study.statistics import Comparison
from aunet_lightning.study.results import CellResult, StudyResult
from aunet_lightning.study.study_folder import StudyFolder

_NOT_SCALAR = (  # of a CellResult
    "levels", "bpb_by_language", "curve", "bytes_per_unit", "document_bits", "parallel_bits", "parallel_steps",
    "parallel_flops", "examples", "metrics", "other_settings",
)  # fmt: skip


def write_report(study: StudyResult, folder: Path) -> None:
    """Writes report.html, report.md, table.csv and heatmap.png into a folder, which is created if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    files = StudyFolder(folder)
    for path, text in (
        (files.page, as_html(study)), (files.markdown, as_markdown(study)), (files.table, as_csv(study))
    ):  # fmt: skip
        path.write_text(text, encoding="utf-8", errors="replace", newline="\n")
    files.heatmap.write_bytes(heatmap_png(study))


def as_html(study: StudyResult) -> str:
    """Returns the report as one page that loads nothing else."""
    return page.as_html(study.name, _blocks(study, pictures=True))


def as_markdown(study: StudyResult) -> str:
    """Returns the report as Markdown, without the pictures."""
    return page.as_markdown(study.name, _blocks(study, pictures=False))


def as_csv(study: StudyResult) -> str:
    """Returns a row per cell: its scalar fields, then the report's other columns. Unknown values are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(CellResult) if field.name not in _NOT_SCALAR]
    columns = [column for column in columns_of(study.columns, boundaries=True) if column.name not in names]
    writer.writerow([*names, *(column.name for column in columns)])
    for cell in study.cells:
        further = (column.as_csv(column.value(cell, study)) for column in columns)
        writer.writerow([*(getattr(cell, name) for name in names), *further])
    return text.getvalue()


def heatmap_png(study: StudyResult) -> bytes:
    """Returns the heat map of BPB, splitters by languages, as PNG."""
    comparison = Comparison(study.at(study.budget))
    most, languages = sections.most(comparison), comparison.languages
    tiles = []
    for arm in comparison.arms:
        cells = [sections.heat_cell(comparison, comparison.groups[arm, language], most) for language in languages]
        tiles.append([figures.Tile(cell.lines, cell.colour or figures.NO_RESULT, cell.best) for cell in cells])
    note = "BPB, lower is better; ± half of the range over n seeds; colour: % above the best of the language"
    note += f"\n{sentences.NOT_APART} not told apart; {sentences.SAME} same units, not compared"
    if study.reference:
        note += f"; ref: to {study.reference}"
    return figures.heatmap(study.name, note, [comparison.label(arm) for arm in comparison.arms], languages, tiles)


def _blocks(whole: StudyResult, pictures: bool) -> list[Block]:
    comparison = Comparison(whole.at(whole.budget))
    study = comparison.study
    return [
        *(Text(text) for text in (study.question, study.description) if text),
        Text(f"{sentences.headline(comparison)} {sentences.caveats(comparison)}".strip(), "answer"),
        Items([(f"{language}:", sentences.in_language(comparison, language)) for language in comparison.languages]),
        *sections.heat(comparison),
        *differences(comparison),
        *axes.rates(comparison, pictures),
        *axes.budgets(whole, pictures),
        *axes.factors(comparison),
        *meaning(comparison),
        *sections.scatter(comparison, pictures),
        *sections.curves(comparison, pictures),
        *axes.learning_rates(whole),
        *sections.cost(comparison),
        *sections.boundaries(comparison),
        *sections.examples(comparison),
        *sections.making(comparison),
    ]
