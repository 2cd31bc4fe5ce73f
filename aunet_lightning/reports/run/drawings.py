"""Drawings of a run's page: lengths of units by language as one panel, and a matrix of attention."""

import csv
import html
import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from aunet_lightning.reports.figures import OPTIONS, Picture, inline, short
from aunet_lightning.reports.run.kept import Attended

LONGEST_NAME = 14
COVERED = 0.99  # of the units; longer ones are beyond the panel
SHADES = 10
CELL, LETTER = 14, 7.5  # sizes in a matrix, in px: of a cell, and of a letter
PANEL = 400  # px: a matrix that is wider has a row of panels for itself


def ridges(name: str, lengths: Mapping[str, Sequence[int]], unit: str) -> Picture | None:
    """Returns a row per language with its units by length, each row as high as its highest bar, the median marked; None
    without any."""
    counts = {language: np.array(of, float) for language, of in lengths.items() if sum(of)}
    if not counts:
        return None
    most = max(int(np.searchsorted(np.cumsum(of), COVERED * of.sum())) for of in counts.values()) + 1
    wide, high, left = 4.2, 0.2 * len(counts) + 0.3, 0.15 + 0.073 * min(max(map(len, counts)), LONGEST_NAME)
    with matplotlib.rc_context({**OPTIONS, "svg.hashsalt": name}):
        figure = Figure(figsize=(wide, high + 0.5))
        axes = figure.add_axes((left / wide, 0.42 / (high + 0.5), 1 - (left + 0.15) / wide, high / (high + 0.5)))
        axes.set(xlim=(0.4, most + 0.6), ylim=(-len(counts) + 0.9, 1.35), yticks=[], xlabel=f"bytes of a {unit}")
        bases = -np.arange(len(counts))
        outlines = []  # of the bars of a row, as one: matplotlib takes long over each
        for base, (language, of) in zip(bases, counts.items(), strict=True):
            shares = of[1 : most + 1]
            heights = 0.85 * shares / max(float(shares.max(initial=0)), 1.0)
            edges = np.repeat(np.arange(len(shares) + 1) + 0.5, 2)
            outlines.append(np.stack([edges, base + np.concatenate([[0], np.repeat(heights, 2), [0]])], 1))
            axes.text(-0.06 / (wide - left), base + 0.08, short(language, LONGEST_NAME), ha="right",
                      transform=axes.get_yaxis_transform())  # fmt: skip
        axes.add_collection(PolyCollection(outlines, facecolors="#56b4e9", alpha=0.85, linewidths=0))
        axes.hlines(bases, 0, most + 1, color="#c8c8c8", lw=0.5, zorder=0)
        medians = [int(np.searchsorted(np.cumsum(of), of.sum() / 2)) for of in counts.values()]
        axes.vlines(medians, bases, bases + 0.85, color="#000000", lw=1.2)
        for base, median in zip(bases, medians, strict=True):
            axes.text(0.995, base + 0.08, str(median), ha="right", transform=axes.get_yaxis_transform())
        axes.spines["left"].set_visible(False)
        figure.canvas = canvas = FigureCanvasSVG(figure)
        out = io.StringIO()
        canvas.print_svg(out)
    rows = [(language, n, int(count)) for language, of in counts.items() for n, count in enumerate(of) if count]
    return Picture(inline(out.getvalue(), name), _csv(("language", "bytes", "units"), rows))


def matrix(attended: Attended) -> Picture:
    """Returns the weights as a matrix: what reads down, what is read across, dark where most is read."""
    names = [[short(text.replace(" ", "␣"), LONGEST_NAME) for text in of] for of in (attended.rows, attended.columns)]
    left, top = (8 + LETTER * max(map(_width, of), default=0) for of in names)
    wide, high = CELL * len(names[1]), CELL * len(names[0])
    shades: dict[int, list[str]] = {}
    for i, of in enumerate(attended.weights):
        for j, weight in enumerate(of):
            if shade := min(round(SHADES * weight**0.5), SHADES):
                place = f"M{left + CELL * j:.0f} {top + CELL * i:.0f}h{CELL}v{CELL}h-{CELL}z"
                shades.setdefault(shade, []).append(place)
    parts = [f'<rect x="{left:.0f}" y="{top:.0f}" width="{wide}" height="{high}" class="frame"/>']
    for shade, places in sorted(shades.items()):
        parts.append(f'<path d="{"".join(places)}" fill="#0b4f8a" fill-opacity="{shade / SHADES:g}"/>')
    for i, text in enumerate(names[0]):
        at = f'x="{left - 4:.0f}" y="{top + CELL * (i + 0.75):.0f}"'
        parts.append(f'<text {at} text-anchor="end">{html.escape(text)}</text>')
    for j, text in enumerate(names[1]):
        at = f"{left + CELL * (j + 0.75):.0f} {top - 4:.0f}"
        parts.append(f'<text transform="translate({at}) rotate(-90)">{html.escape(text)}</text>')
    size, kind = (left + wide + 4, top + high + 4), "matrix wide" if left + wide > PANEL else "matrix"
    given = f'viewBox="0 0 {size[0]:.0f} {size[1]:.0f}" style="width:{size[0]:.0f}px"'
    table = [(name, *of) for name, of in zip(attended.rows, attended.weights, strict=True)]
    svg = f'<svg role="img" class="{kind}" {given}>{"".join(parts)}</svg>'
    return Picture(f'<div class="scroll" tabindex="0">{svg}</div>', _csv(("", *attended.columns), table))


def _width(text: str) -> float:
    """Letters that a text is as wide as: those of East Asia are as wide as two."""
    return sum(1.7 if ord(letter) >= 0x1100 else 1.0 for letter in text)


def _csv(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


STYLE = """
 figure .matrix { max-width: none; } figure:has(.wide) { grid-column: 1 / -1; }
 .matrix text { font-size: 12px; fill: #1c1c1c; } .matrix .frame { fill: #fff; stroke: #c8c8c8; }
 @media print { figure .matrix { max-width: 100%; } }
"""
