"""The report of a study: a self-contained page, the same as Markdown, a row per cell as CSV, and the heat map."""

import csv
import io
import re
from dataclasses import fields
from pathlib import Path

from aunet_lightning.reports import figures, page
from aunet_lightning.reports.page import Block, Items, Pictures, Text
from aunet_lightning.reports.study import axes, sections, sentences
from aunet_lightning.reports.study.claims import first_screen
from aunet_lightning.reports.study.columns import columns_of
from aunet_lightning.reports.study.contrasts import growth
from aunet_lightning.reports.study.differences import differences
from aunet_lightning.reports.study.evaluation import evaluation
from aunet_lightning.reports.study.meaning import meaning
from aunet_lightning.reports.study.statistics import Comparison, Group
from aunet_lightning.study.results import CellResult, StudyResult
from aunet_lightning.study.study_folder import StudyFolder

_NOT_SCALAR = (  # of a CellResult
    "levels", "bpb_by_language", "curve", "bytes_per_unit", "document_bits", "parallel_bits", "parallel_steps",
    "parallel_flops", "evaluations", "examples", "metrics", "other_settings", "definition",
)  # fmt: skip


def write_report(study: StudyResult, folder: Path) -> None:
    """Writes report.html, report.md, table.csv, table.tex, heatmap.png and the page's figures into a folder, which is
    created if missing."""
    files = StudyFolder(folder)
    files.figures.mkdir(parents=True, exist_ok=True)
    blocks = _blocks(study)
    texts = {
        files.page: page.as_html(study.name, blocks), files.markdown: page.as_markdown(study.name, blocks),
        files.table: as_csv(study), files.latex: as_latex(study),
    }  # fmt: skip
    for one in (block for block in blocks if isinstance(block, Pictures)):
        for key, picture in one.panels.items():
            texts[files.figures / f"{one.name}-{key}.svg"] = picture.svg
            texts[files.figures / f"{one.name}-{key}.csv"] = picture.csv
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8", errors="replace", newline="\n")
    files.heatmap.write_bytes(heatmap_png(study))


def as_html(study: StudyResult) -> str:
    """Returns the report as one page that loads nothing else."""
    return page.as_html(study.name, _blocks(study))


def as_markdown(study: StudyResult) -> str:
    """Returns the report as Markdown, without the pictures."""
    return page.as_markdown(study.name, _blocks(study))


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


def as_latex(study: StudyResult) -> str:
    """Returns the mean BPB as a table for LaTeX, with booktabs: bold where nothing is told apart from the best."""
    comparison = Comparison(study.at(study.budget))
    lines = [
        "% BPB, mean over seeds; bold: the lowest of a language, and those that are not told apart from it",
        rf"\begin{{tabular}}{{l{'r' * len(comparison.languages)}}}",
        r"\toprule",
        " & ".join(["", *map(_escaped, comparison.languages)]) + r" \\",
        r"\midrule",
    ]
    for arm in comparison.arms:
        cells = [_in_latex(comparison, comparison.groups[arm, language]) for language in comparison.languages]
        lines.append(" & ".join([_escaped(comparison.label(arm)), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _in_latex(comparison: Comparison, group: Group) -> str:
    if not group.values:
        return "--"
    best = comparison.ranking(group.language)[0]
    is_best = group is best or comparison.difference(group, best).apart is False
    return rf"\textbf{{{group.mean:.3f}}}" if is_best else f"{group.mean:.3f}"


def _escaped(text: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", text).replace("~", r"\textasciitilde{}").replace("^", r"\textasciicircum{}")


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


def _blocks(whole: StudyResult) -> list[Block]:
    comparison = Comparison(whole.at(whole.budget))
    study = comparison.study
    grown = {language: growth(whole, comparison, language) for language in comparison.languages}
    return [
        *([Text(study.question)] if study.question else []),
        *first_screen(comparison, grown),
        *([Text(study.description)] if study.description else []),
        Items([(f"{language}:", sentences.in_language(comparison, language)) for language in comparison.languages]),
        *sections.heat(comparison),
        *differences(comparison),
        *axes.rates(comparison),
        *axes.budgets(whole, comparison, grown),
        *axes.factors(comparison),
        *meaning(comparison),
        *evaluation(comparison),
        *sections.scatter(comparison),
        *sections.curves(comparison),
        *axes.learning_rates(whole),
        *sections.cost(comparison),
        *sections.boundaries(comparison),
        *sections.examples(comparison),
        *sections.making(comparison),
    ]
