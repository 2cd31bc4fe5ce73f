"""The results of a study: plain data, from the folders of its runs to the report."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np


class Point(NamedTuple):
    """One validation of a run."""

    step: int
    bytes: float  # of text trained on by then
    flops: float  # spent on training by then
    bpb: float  # of the validation text
    training_bpb: float = math.nan  # mean over the logged steps since the validation before


class Example(NamedTuple):
    """A sentence with its units."""

    text: str
    levels: Sequence[int]  # per UTF-8 byte: how many stages up its vector goes


class DocumentBits(NamedTuple):
    """What each document of a text took."""

    text: str  # a digest of their ids, languages and lengths, equal for the same documents in the same order
    bits: np.ndarray  # float64 [N]
    bytes: np.ndarray  # float64 [N]


@dataclass(frozen=True)
class CellResult:
    """One run of the study. Numbers are those at the end of training; None or empty for a run that did not finish."""

    name: str
    splitter: str  # its name in the study: a row of the YAML's `splitters`
    language: str
    stages: int
    seed: int
    status: str  # done, failed, stopped or waiting
    error: str = ""  # the last line of a failed run
    folder: str = ""
    budget: float | None = None  # of this cell; None: the study's
    rule: str = ""  # the entry of `splitters` that the row comes from; empty: that of its name
    rate: float | None = None  # bytes per unit that were asked for; None: its own
    levels: Mapping[str, str] = field(default_factory=dict)  # of the study's factors
    bpb: float | None = None  # of all validation text
    bpb_by_language: Mapping[str, float] = field(default_factory=dict)
    curve: Sequence[Point] = ()
    bytes_per_unit: Sequence[float] = ()  # per stage transition, on validation text; of a BPE model: bytes per token
    bytes_per_second: float | None = None  # of training; None, too, where the run did not have its cores alone
    bytes_seen: float | None = None
    flops: float | None = None
    flops_per_byte: float | None = None
    parameters: int | None = None
    embedding_parameters: int | None = None  # of these, looked up: no FLOPs are paid for them
    document_bits: DocumentBits | None = field(default=None, compare=False)  # of validation text; None: not known
    parallel_bits: Mapping[str, float] = field(default_factory=dict)  # document id → bits of it, in parallel text
    parallel_steps: Mapping[str, float] = field(default_factory=dict)  # likewise, positions of the trunk
    parallel_flops: Mapping[str, float] = field(default_factory=dict)  # likewise, FLOPs of reading it
    evaluations: Mapping[str, DocumentBits] = field(default_factory=dict, compare=False)  # see study.evaluating
    examples: Sequence[Example] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)  # the last value of each that the run logged
    other_settings: str = ""  # a digest of all settings but splitter and seed; empty: not known
    definition: str = ""  # a digest of what defines the cell: see study.sizing


class StudyText(NamedTuple):
    """A part of a language's text."""

    language: str
    part: str  # train or val
    files: Sequence[str]
    documents: int
    bytes: int
    licences: Sequence[str]  # that its lines name


class Tuned(NamedTuple):
    """The search of a row's learning rates."""

    splitter: str
    stages: int
    bpb: Mapping[float, float]  # by multiple of its own: of held-out training text, mean over languages

    @property
    def best(self) -> float:
        return min(self.bpb, key=lambda multiple: self.bpb[multiple])

    @property
    def at_edge(self) -> bool:
        return self.best in (min(self.bpb), max(self.bpb))


@dataclass(frozen=True)
class StudyResult:
    """All cells, and how they were run."""

    name: str
    description: str  # a sentence or two from the YAML
    cells: Sequence[CellResult]
    splitters: Sequence[str]  # in the YAML's order
    languages: Sequence[str]
    match_by: str  # flops, bytes or seconds
    budget: float  # of each cell, in FLOPs, bytes or seconds; of several the largest
    adjust: str  # what varies instead: bytes, trunk_layers or trunk_dim
    reference: str = ""  # the splitter that others are compared with (BPE), or empty
    equal: Sequence[str] = ()  # sentences: what was held equal
    command: str = ""
    commit: str = ""
    hardware: str = ""
    date: str = ""
    grid: str = ""  # the YAML
    columns: Sequence[str] = ()  # further columns of the report
    texts: Sequence[StudyText] = ()
    tuned: Sequence[Tuned] = ()  # searches of learning rates
    question: str = ""
    plan: str = ""  # when it was planned, and what was changed after
    alone: bool = True  # whether `budget` is the only one of the study

    @property
    def budgets(self) -> list[float]:
        """All budgets, the smallest first."""
        return sorted({self.budget, *(cell.budget for cell in self.cells if cell.budget is not None)})

    def evaluated(self, name: str) -> "StudyResult":
        """Returns the study in which cells have an evaluation in place of the validation text."""
        return replace(self, cells=[_evaluated(cell, cell.evaluations.get(name)) for cell in self.cells])

    def at(self, budget: float) -> "StudyResult":
        """Returns the cells of one budget."""
        cells = [cell for cell in self.cells if cell.budget in (None, budget)]
        return replace(self, budget=budget, alone=len(self.budgets) == 1, cells=cells)


def _evaluated(cell: CellResult, of: DocumentBits | None) -> CellResult:
    if of is None:
        return replace(cell, bpb=None, document_bits=None)
    return replace(cell, bpb=float(of.bits.sum() / of.bytes.sum()), document_bits=of)
