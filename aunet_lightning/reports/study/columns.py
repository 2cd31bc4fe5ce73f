"""The columns of a study's report: numbers of each cell, in the cost table of the page and in table.csv.

A new column is a class here (or a `Measured` of a metric that runs log) and its entry in COLUMNS; a study's YAML adds
one of its own under `columns`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from aunet_lightning.registry import Registry
from aunet_lightning.reports.study import sentences
from aunet_lightning.reports.study.sentences import number, percent
from aunet_lightning.reports.study.statistics import off_budget
from aunet_lightning.study.results import CellResult, StudyResult


class Column(ABC):
    """A number of each cell, and its summary over the seeds of an arm in a language."""

    name: str  # in table.csv
    title: str  # in the page

    @abstractmethod
    def value(self, cell: CellResult, study: StudyResult) -> Any:
        """Returns the number of one cell; None where it is unknown."""

    def as_csv(self, value: Any) -> Any:
        """Returns the number as written to table.csv: at full precision."""
        return value

    def shown(self, values: Sequence[Any]) -> str:
        """Returns the entry of the page, from the known values of the seeds."""
        return number(fmean(values) if values else None)

    def note(self, study: StudyResult) -> str:
        """Returns the sentences below the table that explain this column."""
        return ""


class Measured(Column):
    """A field of `CellResult`, or else the last value of a metric that the run logged."""

    def __init__(self, name: str, title: str) -> None:
        self.name, self.title = name, title

    def value(self, cell: CellResult, study: StudyResult) -> float | None:
        return getattr(cell, self.name, cell.metrics.get(self.name))


class Speed(Measured):
    """Bytes of training per second, of the runs that had their cores alone."""

    def shown(self, values: Sequence[float]) -> str:
        if not values:
            return "–"
        half = (max(values) - min(values)) / 2
        return f"{number(fmean(values))} ±{number(half)}" if len(values) > 1 else number(values[0])

    def note(self, study: StudyResult) -> str:
        return (
            "bytes/s: mean ± half of the range, of the seeds that did not wait for cores which others used; – where "
            "all waited, or the run was too short to measure."
        )


class Steps(Column):
    name, title = "steps", "steps"

    def value(self, cell: CellResult, study: StudyResult) -> int | None:
        return cell.curve[-1].step if cell.curve else None

    def shown(self, values: Sequence[int]) -> str:
        return f"{fmean(values):,.0f}" if values else "–"


class BytesPerUnit(Column):
    name, title = "bytes_per_unit", "bytes per unit"

    def value(self, cell: CellResult, study: StudyResult) -> Sequence[float]:
        return cell.bytes_per_unit

    def as_csv(self, value: Sequence[float]) -> str:
        return " ".join(map(str, value))

    def shown(self, values: Sequence[Sequence[float]]) -> str:
        stages = [list(map(float, stage)) for stage in zip(*values, strict=False)]
        return " · ".join(f"{fmean(stage):.2f}" for stage in stages) or "–"

    def note(self, study: StudyResult) -> str:
        return (
            "Bytes per unit: bytes of text ÷ units that begin on it (those of BOS are left out), for each stage above "
            "the first; of BPE, which has no units, bytes per token."
        )


class EmbeddingShare(Column):
    """How many % of the parameters are looked up and not multiplied with."""

    name, title = "embedding_percent", "of which embeddings"

    def value(self, cell: CellResult, study: StudyResult) -> float | None:
        if not cell.parameters or cell.embedding_parameters is None:
            return None
        return 100 * cell.embedding_parameters / cell.parameters

    def shown(self, values: Sequence[float]) -> str:
        return f"{fmean(values):.0f} %" if values else "–"

    def note(self, study: StudyResult) -> str:
        return (
            "Embeddings: vectors of bytes, tokens or n-grams, which are looked up, so that no FLOPs are paid for them. "
            "The head, which multiplies with a vector for each id, is not among them."
        )


class OffBudget(Column):
    """By how many % a cell's cost is above its budget."""

    name, title = "off_budget_percent", "off budget"

    def value(self, cell: CellResult, study: StudyResult) -> float | None:
        return off_budget(cell, study)

    def shown(self, values: Sequence[float]) -> str:
        return percent(self.farthest(values))

    def farthest(self, values: Sequence[float]) -> float:
        """Returns the value of the seed farthest off; nan without one."""
        return max(values, key=abs, default=math.nan)

    def note(self, study: StudyResult) -> str:
        text = (
            f"Off budget: cost relative to the budget of {sentences.budget(study.match_by, study.budget)}, of the seed "
            "farthest off."
        )
        if study.match_by == "seconds":
            text += " Seconds are bytes seen ÷ bytes per second, so without validation."
        return text


OFF_BUDGET = OffBudget()
COLUMNS: list[Column] = [
    Speed("bytes_per_second", "bytes/s"),
    Measured("parameters", "parameters"),
    EmbeddingShare(),
    Measured("flops_per_byte", "FLOPs per byte"),
    Measured("flops", "FLOPs"),
    Measured("bytes_seen", "bytes seen"),
    Steps(),
    BytesPerUnit(),
    OFF_BUDGET,
]


class OfUnits(Column):
    """A measure of the units of stage 2, or of a BPE's tokens where they have it, on validation text."""

    def __init__(self, name: str, title: str, form: str, note: str) -> None:
        self.name, self.title, self.form, self.sentence = name, title, form, note

    def value(self, cell: CellResult, study: StudyResult) -> float | None:
        kinds = (cell.metrics.get(f"val/{self.name}_{kind}") for kind in ("stage2", "token"))
        return next((value for value in kinds if value is not None), None)

    def shown(self, values: Sequence[float]) -> str:
        return self.form.format(fmean(values)) if values else "–"

    def note(self, study: StudyResult) -> str:
        return self.sentence


class ValidText(OfUnits):
    """The share of generated bytes that are valid UTF-8."""

    def value(self, cell: CellResult, study: StudyResult) -> float | None:
        return cell.metrics.get("generated/valid_utf8")


BOUNDARIES: list[Column] = [
    OfUnits(
        "start_surprisal", "bits at starts", "{:+.2f}",
        "Bits at starts: of the byte after a boundary, minus the mean over random places at the same rate (of bytes at "
        "the same place in their character); BPE has no bits of single bytes.",
    ),
    OfUnits(
        "word_kappa", "words (κ)", "{:.2f}",
        "Words: Cohen's kappa of units with ICU's words, which is their F1 corrected for chance at the same rate: 0 "
        "for random letters, 1 for words; tokens are not compared with words.",
    ),
    OfUnits("one_word", "one word", "{:.0%}", "One word: the share of units with a letter that are exactly one word."),
    OfUnits(
        "length_cv", "spread", "{:.2f}",
        "Spread: standard deviation of the bytes of a unit ÷ their mean (of tokens: of a token).",
    ),
    ValidText(
        "valid_utf8", "valid UTF-8", "{:.1%}",
        "Valid UTF-8: the share of the bytes that a model generates at the end.",
    ),
]  # fmt: skip
FURTHER = Registry("columns", "aunet_lightning.reports.study.columns:Column", {})


def columns_of(further: Sequence[str], boundaries: bool = False) -> list[Column]:
    """Returns the columns of a report's cost table, with those that a study adds: a module:Class, or a metric (with a
    slash in its name) that runs log. boundaries: with those of the table of boundaries, as in table.csv. Raises
    ValueError for what is neither."""
    return [*COLUMNS, *(BOUNDARIES if boundaries else [])] + [
        Measured(name, name) if "/" in name and ":" not in name else FURTHER.get(name)() for name in further
    ]


def known(column: Column, cells: Sequence[CellResult], study: StudyResult) -> list[Any]:
    """Returns the column's values of those cells that have one."""
    return [value for cell in cells if (value := column.value(cell, study)) is not None]
