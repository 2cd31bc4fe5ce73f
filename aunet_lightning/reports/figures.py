"""Figures of reports: a heat map as PNG, and small panels as inline SVG."""

import csv
import io
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, FixedLocator, LogLocator, MaxNLocator

# Lightness falls with every stop, so the order survives greyscale printing and colour blindness.
_STOPS = ((255, 255, 255), (254, 232, 200), (253, 190, 133), (236, 122, 60), (166, 54, 3))
NO_RESULT = "#e6e6e6"
# Okabe and Ito's colours without yellow; the ninth series reuses the first with the next line style and marker.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f5a3c", "#666666")
_LINES = ("-", "--", ":", "-.")
_POINTS = ("o", "s", "^", "D")
OPTIONS: dict[Any, Any] = {
    "text.parse_math": False,  # a name may hold dollar signs
    "svg.fonttype": "none",  # the browser has fonts for every script
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 8.5,
    "path.simplify": True,
}
_LETTER, _LABEL = 0.073, 0.15  # width of a letter and height of a label, in inches
_LONGEST = 22  # letters of a label
_TICKS = 5  # of an axis, at most


def shade(difference: float, most: float) -> str:
    """Returns the colour of a difference in % between 0 and `most`, as #rrggbb; that of `most` above it."""
    if not math.isfinite(difference):
        return NO_RESULT
    place = min(max(difference / most, 0.0), 1.0) * (len(_STOPS) - 1)
    low = min(int(place), len(_STOPS) - 2)
    mixed = [round(a + (b - a) * (place - low)) for a, b in zip(_STOPS[low], _STOPS[low + 1], strict=True)]
    return "#" + "".join(f"{value:02x}" for value in mixed)


def ink(background: str) -> str:
    """Returns black or white, whichever has the higher contrast on a #rrggbb: 4.5 or more on any."""
    parts = [int(background[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "#ffffff"


def scale(differences: Sequence[float]) -> float:
    """Returns where the colour scale ends, in %: the 90th percentile of the differences, rounded up to 1, 2, 5, 10, …,
    so that one bad cell does not wash out the others."""
    found = [value for value in differences if math.isfinite(value)]
    most = float(np.quantile(found, 0.9)) if found else 1.0
    return next((step for step in (1.0, 2.0, 5.0, 10.0, 20.0, 50.0) if most <= step), 100.0)


class Tile(NamedTuple):
    """A cell of the heat map."""

    lines: Sequence[str]
    colour: str
    best: bool = False


def heatmap(
    title: str, note: str, rows: Sequence[str], columns: Sequence[str], tiles: Sequence[Sequence[Tile]]
) -> bytes:
    """Returns the heat map as PNG: `tiles[row][column]`, with a title above and a note below."""
    left, width = 0.3 + 0.085 * max((len(short(row, 30)) for row in rows), default=1), 0.95
    height = 0.18 + 0.125 * max((len(tile.lines) for row in tiles for tile in row), default=1)
    size = (max(left + width * len(columns) + 0.2, 6.5), 1.35 + height * len(rows))
    with matplotlib.rc_context(OPTIONS):
        figure = Figure(figsize=size, dpi=150)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, size[0]), ylim=(size[1], 0))
        axes.axis("off")
        axes.text(0.15, 0.3, short(title, int(size[0] / 0.1)), fontsize=12, fontweight="bold", va="center")
        axes.text(0.15, size[1] - 0.22, note, fontsize=7.5, va="center", color="#333333")
        for j, column in enumerate(columns):
            axes.text(left + width * (j + 0.5), 0.7, short(column, 11), ha="center", va="center", fontweight="bold")
        for i, row in enumerate(rows):
            y = 0.85 + height * i
            axes.text(left - 0.1, y + height / 2, short(row, 30), ha="right", va="center", fontsize=9)
            for j, tile in enumerate(tiles[i]):
                x = left + width * j
                hatch = "///" if tile.colour == NO_RESULT else None
                axes.add_patch(Rectangle((x, y), width, height, fc=tile.colour, ec="#ffffff", hatch=hatch))
                if tile.best:
                    axes.add_patch(
                        Rectangle((x + 0.025, y + 0.025), width - 0.05, height - 0.05, fc="none", ec="#000000", lw=1.6)
                    )
                for k, line in enumerate(tile.lines):
                    at = y + height / 2 + 0.125 * (k - (len(tile.lines) - 1) / 2) - (0.02 if k == 0 else 0)
                    bold, points = ("bold" if tile.best else "normal", 9) if k == 0 else ("normal", 6.5)
                    place: dict[str, Any] = {"ha": "center", "va": "center", "color": ink(tile.colour)}
                    axes.text(x + width / 2, at, short(line, 17), fontsize=points, fontweight=bold, **place)
        out = io.BytesIO()
        FigureCanvasAgg(figure).print_png(out)
    return out.getvalue()


class Picture(NamedTuple):
    """A panel, and the numbers that it shows."""

    svg: str
    csv: str


class Series(NamedTuple):
    """An arm in a panel."""

    number: int  # selects its colour, line style and marker
    label: str
    main: Sequence[tuple[float, float]]  # one point, or a line
    thin: Sequence[Sequence[tuple[float, float]]] = ()  # of each seed
    reference: bool = False  # drawn black


def scatter(name: str, series: Sequence[Series], x: str, y: str) -> Picture | None:
    """Returns a labelled point per series, and a bar from the lowest to the highest seed; None without any. `name`
    makes its ids unique in the page."""

    def draw(axes: Axes, one: Series, colour: str) -> tuple[float, float]:
        seeds = sorted(point for seed in one.thin for point in seed)
        axes.plot(*zip(*seeds, strict=True), "-", color=colour, lw=1)
        axes.plot(*zip(*one.main, strict=True), _POINTS[one.number // len(_COLOURS) % 4], color=colour, ms=5)
        return one.main[0]

    return _panel(name, [one for one in series if one.main], x, y, draw)


def curves(name: str, series: Sequence[Series], x: str, y: str) -> Picture | None:
    """Returns a labelled line per series, and a thin one per seed; None without any. The y axis ends at
    the highest value after a fifth of the largest x, since curves begin at 8 bits."""

    def draw(axes: Axes, one: Series, colour: str) -> tuple[float, float]:
        for seed in one.thin:
            axes.plot(*zip(*seed, strict=True), color=colour, lw=0.5, alpha=0.6)
        style = "-" if one.reference else _LINES[one.number // len(_COLOURS) % 4]
        axes.plot(*zip(*one.main, strict=True), style, color=colour, lw=1.5, marker="." if len(one.main) == 1 else "")
        return one.main[-1]

    def known(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(a, b) for a, b in points if math.isfinite(a) and math.isfinite(b)]

    kept = [one._replace(main=known(one.main), thin=[*filter(None, map(known, one.thin))]) for one in series]
    kept = [one for one in kept if one.main]
    points = [point for one in kept for line in (one.main, *one.thin) for point in line]
    begin = max((a for a, _ in points), default=0.0) / 5
    late = [b for a, b in points if a >= begin]
    room = (max(late) - min(late) or 1) if late else 1
    limits = (min(late) - 0.05 * room, max(late) + 0.03 * room) if late else None
    return _panel(name, kept, x, y, draw, limits)


def lines(name: str, series: Sequence[Series], x: str, y: str, logarithmic: bool = False) -> Picture | None:
    """Returns a labelled line per series through its points; None without any. logarithmic: x is."""

    def draw(axes: Axes, one: Series, colour: str) -> tuple[float, float]:
        style, point = _LINES[one.number // len(_COLOURS) % 4], _POINTS[one.number // len(_COLOURS) % 4]
        axes.plot(*zip(*one.main, strict=True), style, color=colour, lw=1.2, marker=point, ms=4)
        return one.main[-1]

    return _panel(name, [one for one in series if one.main], x, y, draw, logarithmic=logarithmic)


class Bar(NamedTuple):
    """A number and its interval, in a row of its own."""

    lead: str  # shown bold where it differs from that of the row above
    label: str
    value: float
    interval: tuple[float, float] | None
    apart: bool | None  # whether the interval leaves out the line at `same`; None: unknown


def intervals(name: str, bars: Sequence[Bar], x: str, same: float, logarithmic: bool = False) -> Picture | None:
    """Returns a row per bar, a point with its interval, and a line at `same`; None without any. Full points are told
    apart from it, hollow ones are not."""
    bars = [bar for bar in bars if math.isfinite(bar.value)]
    if not bars:
        return None
    leads = [bar.lead if not i or bars[i - 1].lead != bar.lead else "" for i, bar in enumerate(bars)]
    longest = max(len(short(bar.label, _LONGEST)) for bar in bars)
    left = 0.15 + _LETTER * (longest + 2 + max(map(len, leads)))
    high = 0.19 * len(bars) + 0.1
    with matplotlib.rc_context({**OPTIONS, "svg.hashsalt": name}):
        figure = Figure(figsize=(4.2, high + 0.5))
        axes = figure.add_axes((left / 4.2, 0.45 / (high + 0.5), 1 - (left + 0.15) / 4.2, high / (high + 0.5)))
        if logarithmic:
            axes.set_xscale("log")
        axes.axvline(same, color="#000000", lw=0.8)
        for i, (bar, lead) in enumerate(zip(bars, leads, strict=True)):
            colour = _COLOURS[0] if bar.apart else "#666666"
            if lead and i:
                axes.axhline(i - 0.5, color="#c8c8c8", lw=0.6)
            if known := [end for end in bar.interval or () if math.isfinite(end)]:
                axes.plot([min(known), max(known)], [i, i], color=colour, lw=1.6, solid_capstyle="butt")
            axes.plot(bar.value, i, "o", ms=5, color=colour, mfc=colour if bar.apart else "#ffffff")
            place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "clip_on": False}
            wide = 4.2 - left - 0.15
            axes.text(-0.1 / wide, i, short(bar.label, _LONGEST), ha="right", **place)
            axes.text((0.08 - left) / wide, i, lead, fontweight="bold", **place)
        axes.set(ylim=(len(bars) - 0.5, -0.5), yticks=[], xlabel=x)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.grid(axis="x", color="#e3e3e3", lw=0.6)
        axes.set_axisbelow(True)
        figure.canvas = canvas = FigureCanvasSVG(figure)
        out, text = io.StringIO(), io.StringIO()
        canvas.print_svg(out)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["language", "row", x, "low", "high", "told apart"])
    writer.writerows(
        [b.lead, b.label, b.value, *(b.interval or ("", "")), "" if b.apart is None else b.apart] for b in bars
    )
    return Picture(inline(out.getvalue(), name), text.getvalue())


def _panel(
    name: str,
    series: Sequence[Series],
    x: str,
    y: str,
    draw: Callable[[Axes, Series, str], tuple[float, float]],
    limits: tuple[float, float] | None = None,
    logarithmic: bool = False,
) -> Picture | None:
    """A panel; None without series. `draw` draws one and returns the point that its label, on the right, belongs to."""
    if not series:
        return None
    labels = [short(one.label, _LONGEST) for one in series]
    wide = 4.2 - 0.62 - _LETTER * max(map(len, labels)) - 0.3  # of the axes, in inches
    high = max(2.0, _LABEL * len(series))
    with matplotlib.rc_context({**OPTIONS, "svg.hashsalt": name}):
        figure = Figure(figsize=(4.2, high + 0.6))
        axes = figure.add_axes((0.62 / 4.2, 0.48 / (high + 0.6), wide / 4.2, high / (high + 0.6)))
        axes.xaxis.set_major_locator(MaxNLocator(_TICKS))
        if logarithmic:
            places = sorted({place for one in series for place, _ in one.main})
            axes.set_xscale("log")
            axes.minorticks_off()  # their labels would be TeX
            axes.xaxis.set_major_locator(FixedLocator(places) if len(places) <= _TICKS else LogLocator())
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        colours = ["#000000" if one.reference else _COLOURS[one.number % len(_COLOURS)] for one in series]
        ends = [draw(axes, one, colour) for one, colour in zip(series, colours, strict=True)]
        axes.set(xlabel=x, ylabel=y, ylim=limits)
        axes.margins(x=0.08)
        axes.grid(color="#e3e3e3", lw=0.6)
        axes.set_axisbelow(True)
        figure.canvas = canvas = FigureCanvasSVG(figure)
        inside = axes.transAxes.inverted().transform(axes.transData.transform(ends))  # from 0 to 1
        places = spread([place * high for place in inside[:, 1]], high, _LABEL)
        for (at_x, at_y), place, label, colour in zip(inside, places, labels, colours, strict=True):
            to_y, inch = place / high, 1 / wide
            way = ([at_x, 1 + 0.02 * inch, 1 + 0.16 * inch], [at_y, at_y, to_y])
            axes.plot(*way, transform=axes.transAxes, clip_on=False, color=colour, lw=0.5, alpha=0.8)
            axes.text(1 + 0.19 * inch, to_y, label, transform=axes.transAxes, va="center")
        out = io.StringIO()
        canvas.print_svg(out)
    return Picture(inline(out.getvalue(), name), _as_csv(series, x, y))


def _as_csv(series: Sequence[Series], x: str, y: str) -> str:
    """Returns a row per point; the last column is the number of a thin line, empty for the main one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", x, y, "seed"])
    for one in series:
        for seed, points in enumerate([one.main, *one.thin]):
            writer.writerows([one.label, *point, seed or ""] for point in points)
    return text.getvalue()


def spread(wanted: Sequence[float] | np.ndarray, room: float, gap: float) -> list[float]:
    """Returns the places of labels: in the order of the wanted ones, at least `gap` apart, between 0 and `room`, at
    the least squared distance from the wanted ones. There must be room for all."""
    order = np.argsort(wanted, kind="stable")
    blocks: list[list[float]] = []  # of labels that touch: [sum of wanted places minus the gaps, count]
    for rank, i in enumerate(order):
        blocks.append([float(wanted[i]) - rank * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, number = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + number]
    flat = [total / number for total, number in blocks for _ in range(int(number))]
    places = [0.0] * len(flat)
    for rank, i in enumerate(order):
        places[i] = min(max(flat[rank], 0.0), room - (len(flat) - 1) * gap) + rank * gap
    return places


def short(text: str, most: int) -> str:
    """Returns the text, its middle elided if it is longer than `most`: names often differ at their ends."""
    text = " ".join(text.split())
    if len(text) <= most:
        return text
    keep = most - 1
    return text[: keep - keep // 2] + "…" + text[len(text) - keep // 2 :]


def inline(svg: str, name: str) -> str:
    """The <svg> element alone, with ids that are unique in the page."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return svg.replace("<svg ", '<svg role="img" ', 1).strip()
