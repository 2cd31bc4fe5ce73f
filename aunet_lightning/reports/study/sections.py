"""The sections of a study's report, as blocks in reading order."""

import itertools
import math
from collections.abc import Callable, Sequence
from statistics import fmean

from aunet_lightning.reader.levels import FixedLevels
from aunet_lightning.reports import figures, pictures
from aunet_lightning.reports.overfitting import Measured, overfit
from aunet_lightning.reports.page import (
    Block,
    Heading,
    Items,
    Key,
    Pictures,
    Sentence,
    Table,
    TableCell,
    Text,
    Verbatim,
)
from aunet_lightning.reports.study import sentences
from aunet_lightning.reports.study.columns import BOUNDARIES, OFF_BUDGET, columns_of, known
from aunet_lightning.reports.study.sentences import percent
from aunet_lightning.reports.study.statistics import (
    Arm,
    Comparison,
    Group,
    finished,
    mean_curve,
    relative,
)  # fmt: skip
from aunet_lightning.study.results import Example, StudyResult

PER_TABLE = 10  # languages side by side: what fits on A4
TOLERANCE = 2.0  # % that a cell may be off its budget without a warning


def most(comparison: Comparison) -> float:
    """Returns the difference to the best, in %, at which the colour scale ends."""
    rankings = [comparison.ranking(language) for language in comparison.languages]
    return figures.scale([relative(group.mean, ranking[0].mean) for ranking in rankings for group in ranking[1:]])


def heat_cell(comparison: Comparison, group: Group, most: float) -> TableCell:
    """Returns a cell of the heat map; `most` is where the colour scale ends, in %."""
    if not group.values:
        return TableCell([group.trouble], missing=True)
    best = comparison.ranking(group.language)[0]
    above = relative(group.mean, best.mean)
    half = f"±{group.range / 2:.3f} n={len(group.values)}" if group.range is not None else "n=1"
    lines = [
        sentences.bpb(group.mean),
        half,
        "best" if group is best else _marked(comparison, percent(above), group, best),
    ]
    reference = comparison.reference(group)
    if reference is group:
        lines.append("ref")
    elif reference is not None:
        against = percent(relative(group.mean, reference.mean))
        lines.append(_marked(comparison, f"{against} ref", group, reference))
    return TableCell([*lines, *filter(None, [group.trouble])], figures.shade(above, most), best=group is best)


def _marked(comparison: Comparison, text: str, a: Group, b: Group) -> str:
    difference = comparison.difference(a, b)
    sign = sentences.SAME if difference.same_units else sentences.NOT_APART if difference.apart is False else ""
    return f"{text} {sign}".rstrip()


def heat(comparison: Comparison) -> list[Block]:
    """Returns the heat map as tables, with the key to its signs."""
    end = most(comparison)
    blocks: list[Block] = [Heading("BPB by splitter and language")]
    for languages in chunks(comparison.languages):
        rows: list[list[str | TableCell]] = [
            [comparison.label(arm), *(heat_cell(comparison, comparison.groups[arm, lang], end) for lang in languages)]
            for arm in comparison.arms
        ]
        blocks.append(Table(["splitter", *languages], rows, "heat"))
    steps = [(figures.shade(end * part, end), percent(end * part)) for part in (0.25, 0.5, 0.75)]
    key = Key(
        [
            (figures.shade(0, end), "0 %"),
            *steps,
            (figures.shade(end, end), f"{percent(end)} or more"),
            (figures.NO_RESULT, "no result"),
        ]
    )
    notes = [Text(sentence, "note") for sentence in sentences.rule(comparison)]
    return [*blocks, key, *_overfitting(comparison), *notes, *_mixes(comparison)]


def _overfitting(comparison: Comparison) -> list[Block]:
    """Which rows overfit, each with the seed whose BPB rose most."""
    found = []
    for language, arm in itertools.product(comparison.languages, comparison.arms):
        curves = (
            [Measured(p.step, p.bpb, p.training_bpb) for p in c.curve] for c in comparison.groups[arm, language].done
        )
        if rises := [one.rise for curve in curves if (one := overfit(curve))]:
            found.append(f"{comparison.label(arm)} in {language} ({percent(100 * max(rises))})")
    if not found:
        return []
    lead = "Overfits, as validation BPB rose since its lowest while that of the training text fell"
    return [Text(f"{lead}: {sentences.listed(found)}.", "warning")]


def _mixes(comparison: Comparison) -> list[Block]:
    """The BPB of each language, for cells whose text has several."""
    rows: list[list[str | TableCell]] = []
    mixed = {c.language for c in comparison.study.cells if finished(c) and len(c.bpb_by_language) > 1}
    inside = sorted({name for c in comparison.study.cells if c.language in mixed for name in c.bpb_by_language})
    for mix in (language for language in comparison.languages if language in mixed):
        rows.append([mix])
        for arm in comparison.arms:
            done = comparison.groups[arm, mix].done
            values = [[c.bpb_by_language[name] for c in done if name in c.bpb_by_language] for name in inside]
            rows.append([comparison.label(arm), *map(spread, values)])
    if not rows:
        return []
    tables = []
    for names in chunks(inside):
        columns = [0, *(1 + inside.index(name) for name in names)]
        tables.append(
            Table(["splitter", *names], [row if len(row) == 1 else [row[i] for i in columns] for row in rows])
        )
    return [Heading("BPB by language in mixed text", 3), *tables]


def chunks(languages: Sequence[str]) -> list[Sequence[str]]:
    """Returns the columns of each of several tables."""
    return [languages[i : i + PER_TABLE] for i in range(0, len(languages), PER_TABLE)]


def spread(values: Sequence[float]) -> TableCell:
    """The mean over seeds, and half of the range."""
    if not values:
        return TableCell(["–"], missing=True)
    half = f"±{(max(values) - min(values)) / 2:.3f} n={len(values)}" if len(values) > 1 else "n=1"
    return TableCell([f"{fmean(values):.3f}", half])


def scatter(comparison: Comparison) -> list[Block]:
    """Returns BPB against bytes per unit, a panel per language."""

    def series(k: int, arm: Arm, group: Group) -> figures.Series:
        measured = [cell.bytes_per_unit[0] for cell in group.done if cell.bytes_per_unit]
        x = fmean(measured) if measured else math.nan
        main = [(x, group.mean)] if math.isfinite(x) else []
        seeds = [[(x, value)] for value in group.values]
        return figures.Series(k, comparison.label(arm), main, seeds, comparison.is_reference(arm))

    note = (
        "Bytes per unit of stage 2, on validation text; of a BPE model, bytes per token. Models without units are left "
        "out. Bars extend from the lowest to the highest seed."
    )
    panels = _panels(comparison, "units", series, figures.scatter, "bytes per unit")
    return [Heading("BPB against bytes per unit"), panels, Text(note, "note")]


def curves(comparison: Comparison) -> list[Block]:
    """Returns BPB over FLOPs, a panel per language."""

    def series(k: int, arm: Arm, group: Group) -> figures.Series:
        found = [cell.curve for cell in group.done if cell.curve]
        thin = [[(point.flops, point.bpb) for point in curve] for curve in found] if len(found) > 1 else []
        return figures.Series(k, comparison.label(arm), mean_curve(found), thin, comparison.is_reference(arm))

    note = (
        "BPB on validation text over training FLOPs. Thick: mean over seeds, at equal shares of what they spent; thin: "
        "each seed. Unfinished cells are left out. The y axis ends at the highest BPB after a fifth of the FLOPs; "
        "values above are cut off."
    )
    panels = _panels(comparison, "curve", series, figures.curves, "FLOPs")
    return [Heading("Learning curves"), panels, Text(note, "note")]


def _panels(
    comparison: Comparison,
    name: str,
    series: Callable[[int, Arm, Group], figures.Series],
    draw: Callable[[str, Sequence[figures.Series], str, str], figures.Picture | None],
    x: str,
) -> Pictures:
    def panel(name: str, language: str) -> figures.Picture | None:
        groups = [(k, arm, comparison.groups[arm, language]) for k, arm in enumerate(comparison.arms)]
        return draw(name, [series(k, arm, group) for k, arm, group in groups if group.values], x, "BPB")

    return Pictures(name, comparison.languages, panel)


def cost(comparison: Comparison) -> list[Block]:
    """Returns the cost of each splitter in each language, and which cells are off their budget."""
    study = comparison.study
    columns = columns_of(study.columns)
    rows: list[list[str]] = []
    far = []
    for language in comparison.languages:
        rows.append([language])
        for arm in comparison.arms:
            group, label = comparison.groups[arm, language], comparison.label(arm)
            if not group.values:
                rows.append([label, group.trouble, *["–"] * (len(columns) - 1)])
                continue
            rows.append([label, *(column.shown(known(column, group.done, study)) for column in columns)])
            off = OFF_BUDGET.farthest(known(OFF_BUDGET, group.done, study))
            if abs(off) > max(TOLERANCE, group.step):
                far.append(f"{label} in {language} ({percent(off)})")
    blocks: list[Block] = [Heading("Cost"), Text(sentences.matching(comparison))]
    if far:
        warning = (
            f"More than {TOLERANCE:.0f} % off the budget: {sentences.listed(far)}. Their BPB is not at the same cost."
        )
        blocks.append(Text(warning, "warning"))
    note = " ".join(filter(None, ["Means over seeds.", *(column.note(study) for column in columns)]))
    return [*blocks, Table(["splitter", *(column.title for column in columns)], rows), Text(note, "note")]


def boundaries(comparison: Comparison) -> list[Block]:
    """Returns where boundaries fall and what comes out, by language and splitter; nothing where no run measured it."""
    study = comparison.study
    columns = [column for column in BOUNDARIES if known(column, study.cells, study)]
    rows: list[list[str]] = []
    for language in comparison.languages:
        groups = [(arm, comparison.groups[arm, language]) for arm in comparison.arms]
        done = [(comparison.label(arm), group.done) for arm, group in groups if group.values]
        rows += [[language]] if done else []
        rows += [[label, *(column.shown(known(column, cells, study)) for column in columns)] for label, cells in done]
    if not columns:
        return []
    note = Text(" ".join(["Means over seeds, of stage 2.", *(column.note(study) for column in columns)]), "note")
    return [Heading("Boundaries"), Table(["splitter", *(column.title for column in columns)], rows), note]


def examples(comparison: Comparison) -> list[Block]:
    """Returns the sentences of each language, with a line per splitter."""
    blocks: list[Block] = []
    for language in comparison.languages:
        groups = [comparison.groups[arm, language] for arm in comparison.arms]
        found = {
            (group.arm, example.text): example
            for group in groups
            for cell in reversed(group.cells)  # of the lowest seed that has it
            for example in cell.examples
        }
        sentences: list[Block] = []
        for text in dict.fromkeys(text for _, text in found):
            drawn = [(group.arm, found[group.arm, text]) for group in groups if (group.arm, text) in found]
            sentences.append(Sentence(language, [_drawn(comparison, arm, example) for arm, example in drawn]))
        blocks += [Heading(language, 3), *sentences] if sentences else []
    note = (
        "Each unit of stage 2 has a tint, two in turn; lines under the text join them to units of stage 3 and above "
        f"(in Markdown, marks before units: {' '.join(pictures.MARKS)}). A unit begins at the character whose last "
        "byte carries its boundary. The numbers are bytes per unit in this sentence, by stage; what stands before its "
        "first boundary counts as a unit here. Of several seeds, "
        "the lowest is shown."
    )
    return [
        Heading("Example sentences"),
        *(blocks or [Text("No cell has any.")]),
        *([Text(note, "note")] if blocks else []),
    ]


def _drawn(comparison: Comparison, arm: Arm, example: Example) -> tuple[str, str, str, str]:
    data, depth = example.text.encode("utf-8", "surrogateescape"), max(arm.stages - 1, *example.levels, 1)
    stack = FixedLevels(depth, {example.text: example.levels})
    if len(example.levels) != len(data):
        wrong = f"{len(example.levels)} levels do not fit a text of {len(data)} bytes"
        return comparison.label(arm), "", wrong, wrong
    per_unit = " · ".join(f"{value:.1f}" for value in pictures.bytes_per_unit(data, stack))
    return comparison.label(arm), per_unit, pictures.as_spans(data, stack), pictures.as_line(data, stack)


def making(comparison: Comparison) -> list[Block]:
    """Returns what was held equal, which cells have no result, and the provenance of the numbers."""
    study = comparison.study
    equal = Items([("", sentence) for sentence in study.equal or [sentences.matching(comparison)]])
    blocks: list[Block] = [
        Heading("Method"),
        *([Text(study.plan)] if study.plan else []),
        Heading("What was held equal, and what varied", 3),
        equal,
    ]
    blocks += _texts(study)
    blocks.append(Heading("Cells without a result", 3))
    rows: list[list[str | TableCell]] = []
    for cell in study.cells:
        if not finished(cell):
            status = cell.status if cell.status != "done" else "no BPB"
            where = [cell.name, cell.splitter, cell.language, str(cell.stages), str(cell.seed), status]
            rows.append([*where, cell.error, cell.folder])
    header = ["cell", "splitter", "language", "stages", "seed", "status", "error", "folder"]
    blocks.append(Table(header, rows, "wordy") if rows else Text("None."))
    if again := comparison.repeated():
        warning = f"{again} cells repeat the splitter, language, stages and seed of another one; each counts as a seed."
        blocks.append(Text(warning, "warning"))
    facts = (
        ("Command:", study.command),
        ("Commit:", study.commit),
        ("Hardware:", study.hardware),
        ("Date:", study.date),
    )
    blocks += [Heading("Where and when", 3), Items([(name, text or "not recorded") for name, text in facts])]
    return [*blocks, *([Verbatim(study.grid, "The grid (YAML)")] if study.grid.strip() else [])]


def _texts(study: StudyResult) -> list[Block]:
    if not study.texts:
        return []
    rows: list[list[str | TableCell]] = [
        [
            text.language,
            text.part,
            f"{text.documents:,}",
            f"{text.bytes:,}",
            sentences.listed(text.licences) or "–",
            sentences.listed(text.files),
        ]
        for text in study.texts
    ]
    note = "Licence: what lines of the files say under `license`. Bytes are those of text; documents are counted once."
    table = Table(["language", "part", "documents", "bytes", "licence", "files"], rows, "wordy")
    return [Heading("Text", 3), table, Text(note, "note")]
