"""Pictures of boundaries: text with its units marked, as lines, in terminal colours, and as a page.

A unit is shown from the character that carries its boundary to the one before the next boundary; the vector pooled
there has read that character and those before it. Grapheme clusters are never split.
"""

import html
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import cycle, groupby
from typing import NamedTuple

import numpy as np
import regex

from aunet_lightning.reader.levels import Levels
from aunet_lightning.terminal import CONTROLS

MARKS = ("│", "║", "┃", "█")  # before a unit of stage 2, 3, 4, 5
CHARACTERS = 56  # of each text in the pictures of a run

_LETTER = regex.compile(r"[\p{L}\p{M}]")
_SCRIPTS = (
    "Latin", "Cyrillic", "Greek", "Arabic", "Hebrew", "Devanagari", "Bengali", "Tamil", "Telugu", "Thai", "Lao",
    "Khmer", "Myanmar", "Tibetan", "Han", "Hiragana", "Katakana", "Hangul", "Ethiopic", "Georgian", "Armenian",
    "Cherokee", "Sinhala", "Gujarati", "Gurmukhi", "Kannada", "Malayalam", "Oriya", "Mongolian", "Syriac", "Thaana",
    "Javanese", "Balinese", "Yi",
)  # fmt: skip
_BY_SCRIPT = [(script, regex.compile(rf"\p{{Script={script}}}")) for script in _SCRIPTS]


def script_of(text: str) -> str:
    """Returns the script of most letters in the text; kana make it Japanese, whatever the number of Han."""
    counts: Counter[str] = Counter()
    for letter in _LETTER.findall(text[:500]):
        counts[next((script for script, one in _BY_SCRIPT if one.match(letter)), "other")] += 1
    if counts["Hiragana"]:
        return "Japanese"
    return counts.most_common(1)[0][0] if counts else "other"


def one_per_script(
    texts: Sequence[tuple[str, bytes]], each: int = 1, characters: int = CHARACTERS
) -> list[tuple[str, bytes]]:
    """Returns (script, beginning of a text) for each script among (language, text) pairs, in their order; with `each`,
    up to that many per script, the second one named `Thai 2`."""
    found: dict[str, bytes] = {}
    counts: Counter[str] = Counter()
    for _, data in texts:
        text = data.decode("utf-8", "replace")
        script = script_of(text)
        counts[script] += 1
        if counts[script] <= each:
            name = f"{script} {counts[script]}" if counts[script] > 1 else script
            found[name] = " ".join(text.split())[:characters].encode()
    return list(found.items())


_CONTROLS = {code: shown for code, shown in CONTROLS.items() if chr(code) != "\r"}  # a line may end with one


class Cluster(NamedTuple):
    """A grapheme cluster."""

    text: str  # invalid bytes become U+FFFD, control characters visible symbols (except line breaks)
    level: int  # the highest of its bytes
    boundaries: int  # on its bytes
    bytes: int


class Given:
    """The levels of one text, where they are known."""

    def __init__(self, levels: Sequence[int], depth: int) -> None:
        self.depth, self._levels = depth, np.array(levels, np.uint8)

    def levels(self, data: bytes) -> np.ndarray:
        """Returns uint8 [len(data)], of that text."""
        return self._levels


def clusters(data: bytes, stack: Levels) -> list[Cluster]:
    """Returns the text as grapheme clusters with their levels."""
    levels, at = stack.levels(data), 0
    found = []
    for cluster in regex.findall(r"\X", data.decode("utf-8", "surrogateescape")):
        here = levels[at : at + len(cluster.encode("utf-8", "surrogateescape"))]
        at += len(here)
        shown = "".join("\ufffd" if "\udc80" <= c <= "\udcff" else c for c in cluster).translate(_CONTROLS)
        found.append(Cluster(shown, int(here.max()), int(np.count_nonzero(here)), len(here)))
    return found


def inside_clusters(data: bytes, stack: Levels) -> int:
    """Returns how many boundaries a picture cannot show, because they share a cluster with another."""
    return sum(max(cluster.boundaries - 1, 0) for cluster in clusters(data, stack))


def as_line(data: bytes, stack: Levels) -> str:
    """Returns the text with a mark before each unit, stronger for higher stages."""
    shown = {"\n": "⏎\n", "\r\n": "⏎\n", "\r": "␍", "\t": "⇥"}
    marks = ("", *MARKS)
    return "".join(marks[min(level, len(MARKS))] + shown.get(text, text) for text, level, *_ in clusters(data, stack))


# Backgrounds of a terminal's 256 colours: two hues for units of stage 3 in turn, two shades of each for stage 2.
_BACKGROUNDS = ((153, 189), (222, 230))
_BLACK, _UNDERLINE, _RESET = "38;5;16", "4", "\x1b[0m"


def as_colours(data: bytes, stack: Levels, begun: list[int] | None = None) -> str:
    """Returns the text for a terminal: units of stage 2 differ in shade, of stage 3 in hue, and every second one
    of stage 4 is underlined. No colour changes inside a cluster or extends past the end of a line.

    begun [5]: units begun before, by level, to which those of this text are added."""
    counts = [0] * 5 if begun is None else begun
    out = []
    for text, level, *_ in clusters(data, stack):
        for passed in range(1, min(level, 4) + 1):
            counts[passed] += 1
        hue, shade = (counts[2], counts[1]) if stack.depth > 1 else (counts[1], 0)
        style = f"48;5;{_BACKGROUNDS[hue % 2][shade % 2]};{_BLACK}" + (f";{_UNDERLINE}" if counts[3] % 2 else "")
        out.append((style, {"\r\n": "\n", "\r": "␍"}.get(text, text)))
    lines: list[str] = []
    for style, run in groupby(out, key=lambda item: item[0]):
        together = "".join(text for _, text in run)
        for piece in regex.split(r"(\n)", together):
            lines.append(piece if not piece.strip("\n") else f"\x1b[{style}m{piece}{_RESET}")
    return "".join(lines)


def as_html(texts: Sequence[tuple[str, bytes]], stacks: Mapping[str, Levels]) -> str:
    """Returns a page with a row per text and stack. Units of stage 2 are tinted, those of higher stages underlined."""
    blocks = []
    for name, data in texts:
        rows = "".join(
            f"<tr><th>{html.escape(label)}</th><td class=number>{_numbers(data, stack)}</td>"
            f"<td><div class=text dir=auto>{as_spans(data, stack)}</div></td></tr>"
            for label, stack in stacks.items()
        )
        blocks.append(f"<h2>{html.escape(name)}</h2><table>{rows}</table>")
    return _PAGE.format(blocks="".join(blocks), units=UNIT_STYLE)


def bytes_per_unit(data: bytes, stack: Levels) -> list[float]:
    """Returns the mean length of units per stage above the first; the text before the first boundary is one."""
    levels = stack.levels(data)
    begins = [np.flatnonzero(levels >= s) for s in range(1, stack.depth + 1)]
    return [len(data) / max(len(begin) + (not len(begin) or begin[0] > 0), 1) for begin in begins]


def _numbers(data: bytes, stack: Levels) -> str:
    return " · ".join(f"{number:.1f}" for number in bytes_per_unit(data, stack))


def as_spans(data: bytes, stack: Levels, drawn: Callable[[list[Cluster]], str] | None = None) -> str:
    """Returns HTML: a span for each unit, nested by stage, which UNIT_STYLE tints and underlines.

    drawn: gives the HTML of the clusters inside a unit, from the beginning of the text to its end.
    """
    turns = {level: cycle(("a", "b")) for level in range(1, stack.depth + 1)}
    return _nested(clusters(data, stack), stack.depth, turns, drawn or escaped)


def escaped(run: Iterable[Cluster]) -> str:
    """Returns clusters as HTML, with a mark where a line ends."""
    return html.escape("".join(cluster.text for cluster in run)).replace("\n", "⏎\n")


def _nested(
    run: list[Cluster], level: int, turns: Mapping[int, Iterator[str]], drawn: Callable[[list[Cluster]], str]
) -> str:
    """Spans of the units at `level`, each containing those of the level below; `turns` yields the next of two tints."""
    if level == 0:
        return drawn(run)
    units: list[list[Cluster]] = [[]]
    for cluster in run:
        if cluster.level >= level:
            units.append([])
        units[-1].append(cluster)
    return "".join(
        f'<span class="u{level} {next(turns[level])}"{_title(unit) if level == 1 else ""}>'
        f"{_nested(unit, level - 1, turns, drawn)}</span>"
        for unit in units
        if unit
    )


def _title(unit: list[Cluster]) -> str:
    text = "".join(cluster.text for cluster in unit)
    more = f", {unit[0].boundaries} boundaries on its first character" if unit[0].boundaries > 1 else ""
    size = sum(cluster.bytes for cluster in unit)
    return f' title="{len(text)} characters, {size} bytes{more}"'


# For the spans of `as_spans`. No margin, padding or border beside a span: it would part Arabic letters that join.
UNIT_STYLE = """\
 .u1 { background: #cfe3fb; } .u1.b { background: #fbe0b5; }
 .u2 { border-bottom: 3px solid #1a6b3c; padding-bottom: 1px; } .u2.b { border-color: #d1495b; }
 .u3 { border-bottom: 3px solid #5b3a8e; padding-bottom: 6px; } .u3.b { border-color: #c98a00; }
 .u4 { border-bottom: 3px solid #222; padding-bottom: 11px; } .u4.b { border-color: #999; }
"""

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Units of text</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
 body {{ font: 16px/1.5 system-ui, "Noto Sans", "Noto Sans CJK SC", "Noto Sans Thai", sans-serif; margin: 1.5rem;
         max-width: 75rem; color: #222; background: #fff; }}
 h2 {{ font-size: 1rem; margin: 1.5rem 0 .3rem; }}
 table {{ border-collapse: collapse; width: 100%; table-layout: fixed; }}
 td, th {{ vertical-align: top; padding: .25rem .8rem .25rem 0; border-top: 1px solid #ddd; }}
 th {{ text-align: left; font-weight: 600; color: #555; width: 9rem; font-size: .85rem; overflow-wrap: anywhere; }}
 .number {{ color: #777; width: 8rem; font-size: .85rem; white-space: nowrap; }}
 .text {{ line-height: 2.4; overflow-wrap: anywhere; white-space: pre-wrap; }}
 span {{ box-decoration-break: clone; -webkit-box-decoration-break: clone; }}
{units} @media (max-width: 40rem) {{ td, th {{ display: block; border: 0; padding: 0; }} th {{ margin-top: .6rem; }} }}
 @media print {{ span {{ print-color-adjust: exact; -webkit-print-color-adjust: exact; }} }}
</style>
<p>Each unit of stage 2 has a tint, two in turn; lines under the text join them to units of stage 3 and above.
A unit begins at the character whose last byte carries its boundary. The numbers are bytes per unit, by stage.</p>
{blocks}</html>
"""
