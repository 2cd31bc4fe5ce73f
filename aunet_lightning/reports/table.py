"""The table of bits per byte by language, as text, Markdown and CSV."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aunet_lightning.terminal import one_line

TOTAL = "(all)"  # the row of all text


def row_of(language: str) -> str:
    """Returns the name of a language's row: the language, quoted if it could be mistaken for the total."""
    return f'"{language}"' if language.strip('"') == TOTAL else language


@dataclass(frozen=True)
class BpbTable:
    """One row per language and one for all text (first); one column per model."""

    columns: Mapping[str, Mapping[str, float]]  # model → TOTAL or row of a language → BPB

    def rows(self) -> list[tuple[str, list[float]]]:
        languages = sorted({language for column in self.columns.values() for language in column} - {TOTAL})
        return [
            (language, [column.get(language, math.nan) for column in self.columns.values()])
            for language in [TOTAL, *languages]
        ]

    def as_text(self, title: str) -> str:
        """Returns aligned columns under a title; the lowest value of each row is starred."""
        header = ["language", *self.columns]
        body = [[language, *_starred(values)] for language, values in self.rows()]
        return "\n".join([title, *aligned([header, *body], left=("language",))])

    def as_markdown(self) -> str:
        lines = ["| language | " + " | ".join(self.columns) + " |", "|---|" + "---:|" * len(self.columns)]
        lines += [f"| {one_line(language)} | " + " | ".join(_cells(values)) + " |" for language, values in self.rows()]
        return "\n".join(lines) + "\n"

    def as_csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["language", *self.columns])
        writer.writerows([language, *values] for language, values in self.rows())
        return text.getvalue()


def aligned(rows: Sequence[Sequence[str]], left: Sequence[str]) -> list[str]:
    """Returns a line per row, the first of which is the header; columns headed by `left` are aligned on the left."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if title in left else cell.rjust(width)
            for cell, width, title in zip(row, widths, rows[0], strict=True)
        )
        for row in rows
    ]


def _cells(values: Sequence[float]) -> list[str]:
    return ["–" if math.isnan(value) else f"{value:.3f}" for value in values]


def _starred(values: Sequence[float]) -> list[str]:
    best = min((value for value in values if not math.isnan(value)), default=math.nan)
    return [
        cell + ("*" if value == best and len(values) > 1 else " ")
        for cell, value in zip(_cells(values), values, strict=True)
    ]
