"""Unit lengths per language and splitter: the numbers of `aunet split --stats`, as a table, CSV and a plot."""

import csv
import io
import math
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np

from aunet_lightning.reader.levels import Levels
from aunet_lightning.reports.table import TOTAL, aligned, row_of
from aunet_lightning.reports.word_agreement import Agreement

N_OFFSETS = 16  # matrices of the multi-linear upsampling (AU-Net); bytes past them share the last
PLOTS = (".png", ".svg", ".pdf")
TIMED_BYTES = 1_000_000  # of joined texts, on which the speed is measured


@dataclass(frozen=True)
class UnitRow:
    """Units of one language at one stage, under one stack of splitters. Lengths are in bytes.

    A unit extends from its boundary to the next; the beginning of a document is a boundary too.
    """

    language: str
    splitter: str
    stage: int  # the first splitter makes stage 2
    documents: int
    bytes: int
    units: int
    bytes_per_unit: float
    p50: float
    p90: float
    p99: float
    longest: int
    units_per_character: float
    past_offset_16: float  # share of positions of the finer stage at offset 16 or more from their boundary
    mb_per_second: float  # of the whole stack, on one core
    precision: float = math.nan  # against `marked_words`, nan where no words are marked
    recall: float = math.nan
    f1: float = math.nan


class _Counts:
    def __init__(self) -> None:
        self.lengths: list[np.ndarray] = []
        self.documents = self.bytes = self.characters = self.past = self.positions = 0

    def add(self, data: bytes, boundary: np.ndarray, finer: np.ndarray) -> None:
        # As in the model, BOS precedes the text and begins the unit of the bytes before the first boundary.
        begins = np.concatenate([[-1], np.flatnonzero(boundary)])
        positions = np.concatenate([[-1], np.flatnonzero(finer)])  # of the stage below, BOS among them
        sizes = np.diff(np.searchsorted(positions, begins), append=len(positions))
        self.past += int(np.maximum(sizes - N_OFFSETS, 0).sum())
        self.positions += len(positions) - 1
        lengths = np.diff(begins, append=len(data))
        lengths[0] -= 1  # BOS is not a byte of text
        self.lengths.append(lengths[lengths > 0])
        self.documents += 1
        self.bytes += len(data)
        self.characters += len(data.decode("utf-8", "surrogateescape"))


def measure(
    texts: Iterable[tuple[str, bytes]],
    stacks: Mapping[str, Levels],
    agreement: Mapping[tuple[str, str], Agreement] | None = None,
) -> list[UnitRow]:
    """Returns one row per language, splitter and stage of (language, text) pairs, and rows for all text first."""
    by_language: dict[str, list[bytes]] = {}
    for language, data in texts:
        by_language.setdefault(row_of(language), []).append(data)
    rows: list[UnitRow] = []
    for label, stack in stacks.items():
        total = [_Counts() for _ in range(stack.depth)]
        speeds = []
        for language, documents in by_language.items():
            counts = [_Counts() for _ in range(stack.depth)]
            for data in documents:
                levels = stack.levels(data)
                for s in range(stack.depth):
                    counts[s].add(data, levels > s, levels >= s)
                    total[s].add(data, levels > s, levels >= s)
            speeds.append(speed(stack, documents))
            found = (agreement or {}).get((language, label))
            rows += [
                _row(language, label, s, counts[s], speeds[-1], found if s == 0 else None) for s in range(stack.depth)
            ]
        mean_speed = len(speeds) / sum(1 / speed for speed in speeds) if speeds else math.nan
        rows += [_row(TOTAL, label, s, total[s], mean_speed, None) for s in range(stack.depth)]
    order = {label: place for place, label in enumerate(stacks)}
    return sorted(rows, key=lambda row: (row.language != TOTAL, row.language, row.stage, order[row.splitter]))


def speed(stack: Levels, documents: Sequence[bytes]) -> float:
    """Returns the speed of splitting in MB/s, the best of three."""
    cut = b"\n".join(documents)[: getattr(stack, "timed_bytes", TIMED_BYTES)]
    data = cut.decode("utf-8", "ignore").encode()  # a cut may fall inside a character
    best = math.inf
    for _ in range(3):
        begin = time.perf_counter()
        stack.levels(data)
        best = min(best, time.perf_counter() - begin)
    return len(data) / best / 1e6


def _row(language: str, label: str, s: int, counts: _Counts, speed: float, found: Agreement | None) -> UnitRow:
    lengths = np.concatenate([np.zeros(0, int), *counts.lengths])
    p50, p90, p99 = np.percentile(lengths, [50, 90, 99]).tolist() if len(lengths) else [math.nan] * 3
    return UnitRow(
        language=language,
        splitter=label,
        stage=s + 2,
        documents=counts.documents,
        bytes=counts.bytes,
        units=len(lengths),
        bytes_per_unit=counts.bytes / len(lengths) if len(lengths) else math.nan,
        p50=p50,
        p90=p90,
        p99=p99,
        longest=int(lengths.max(initial=0)),
        units_per_character=len(lengths) / counts.characters if counts.characters else math.nan,
        past_offset_16=counts.past / counts.positions if counts.positions else math.nan,
        mb_per_second=speed,
        **(found._asdict() if found else {}),
    )


def as_text(rows: Sequence[UnitRow]) -> str:
    """Returns aligned columns; those on words only if a row has them."""
    columns: list[tuple[str, Callable[[UnitRow], str]]] = [
        ("language", lambda row: row.language), ("stage", lambda row: str(row.stage)),
        ("splitter", lambda row: row.splitter), ("bytes/unit", lambda row: f"{row.bytes_per_unit:.2f}"),
        ("50 %", lambda row: f"{row.p50:.0f}"), ("90 %", lambda row: f"{row.p90:.0f}"),
        ("99 %", lambda row: f"{row.p99:.0f}"), ("longest", lambda row: str(row.longest)),
        ("units/char", lambda row: f"{row.units_per_character:.3f}"),
        ("past 16", lambda row: f"{row.past_offset_16:.1%}"), ("MB/s", lambda row: f"{row.mb_per_second:.0f}"),
    ]  # fmt: skip
    if any(not math.isnan(row.f1) for row in rows):
        columns += [(name, partial(_score, name)) for name in ("precision", "recall", "f1")]
    if all(row.stage == 2 for row in rows):
        columns = [column for column in columns if column[0] != "stage"]
    table = [[title for title, _ in columns], *([cell(row) for _, cell in columns] for row in rows)]
    return "\n".join(line.rstrip() for line in aligned(table, left=("language", "splitter")))


def _score(name: str, row: UnitRow) -> str:
    value = getattr(row, name)
    return "–" if math.isnan(value) else f"{value:.2f}"


def as_csv(rows: Sequence[UnitRow]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(UnitRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v != v else v for k, v in asdict(row).items()} for row in rows)
    return text.getvalue()


def plot(rows: Sequence[UnitRow], path: Path) -> None:
    """Draws bytes per unit and the share past offset 16 (units of stage 2) as two maps, language by splitter.

    The suffix of the path sets the format: .png, .svg or .pdf. Raises ValueError for others.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    if path.suffix not in PLOTS:
        raise ValueError(f"the plot {str(path)!r} ends in {path.suffix!r}, it must end in {', '.join(PLOTS)}")
    rows = [row for row in rows if row.stage == 2]
    languages = list(dict.fromkeys(row.language for row in rows))
    names = list(dict.fromkeys(row.splitter for row in rows))
    size = (4 + 1.3 * len(names), 1.6 + 0.32 * len(languages))
    figure, axes = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
    for axis, title, column, shown in (
        (axes[0], "bytes per unit", "bytes_per_unit", "{:.1f}"),
        (axes[1], "share of bytes past offset 16", "past_offset_16", "{:.0%}"),
    ):
        grid = np.full((len(languages), len(names)), math.nan)
        for row in rows:
            grid[languages.index(row.language), names.index(row.splitter)] = getattr(row, column)
        shades = np.log(grid) if column == "bytes_per_unit" else grid
        image = axis.imshow(shades, aspect="auto", cmap="YlOrBr")
        for (y, x), number in np.ndenumerate(grid):
            dark = image.norm(shades[y, x]) > 0.6
            axis.text(x, y, shown.format(number), ha="center", va="center", fontsize=8, color="w" if dark else "k")
        axis.set_xticks(range(len(names)), map(_label, names), rotation=35, ha="right", fontsize=8)
        axis.set_yticks(range(len(languages)), languages, fontsize=8)
        axis.set_title(title, fontsize=10)
    try:
        figure.savefig(path, dpi=150)
    finally:
        plt.close(figure)


def _label(name: str) -> str:
    """Returns a name wrapped over several lines, for a plot."""
    return "\n".join(textwrap.wrap(name, 24))
