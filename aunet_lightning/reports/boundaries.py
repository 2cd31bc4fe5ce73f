"""Pictures of boundaries: a line of text per script with its units made visible."""

import html
from collections import Counter
from collections.abc import Sequence

import regex

from splitters import Stack

MARKS = ("│", "║", "┃", "█")  # after the last character of a unit that begins stage 2, 3, 4, 5 anew
CHARACTERS = 56  # of each text

_LETTER = regex.compile(r"[\p{L}\p{M}]")
_SCRIPTS = (
    "Latin", "Cyrillic", "Greek", "Arabic", "Hebrew", "Devanagari", "Bengali", "Tamil", "Telugu", "Thai", "Lao",
    "Khmer", "Myanmar", "Tibetan", "Han", "Hiragana", "Katakana", "Hangul", "Ethiopic", "Georgian", "Armenian",
    "Cherokee", "Sinhala", "Gujarati", "Gurmukhi", "Kannada", "Malayalam", "Oriya", "Mongolian", "Syriac", "Thaana",
    "Javanese", "Balinese", "Yi",
)  # fmt: skip
_BY_SCRIPT = [(script, regex.compile(rf"\p{{Script={script}}}")) for script in _SCRIPTS]


def script_of(text: str) -> str:
    """Returns the script of most letters in the text; kana makes it Japanese, whatever the number of Han."""
    counts: Counter[str] = Counter()
    for letter in _LETTER.findall(text[:500]):
        counts[next((script for script, one in _BY_SCRIPT if one.match(letter)), "other")] += 1
    if counts["Hiragana"]:
        return "Japanese"
    return counts.most_common(1)[0][0] if counts else "other"


def one_per_script(texts: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Returns (script, beginning of a text) for each script among (language, text) pairs, in their order."""
    found: dict[str, bytes] = {}
    for _, data in texts:
        text = data.decode("utf-8", "replace")
        found.setdefault(script_of(text), " ".join(text.split())[:CHARACTERS].encode())
    return list(found.items())


def pieces(data: bytes, stack: Stack) -> list[tuple[str, int]]:
    """Returns characters with the highest level among their bytes. Bytes of no character become U+FFFD."""
    levels = stack.levels(data)
    result, at = [], 0
    for character in data.decode("utf-8", "surrogateescape"):
        size = 1 if "\udc80" <= character <= "\udcff" else len(character.encode())
        shown = "\ufffd" if size == 1 and character > "\x7f" else character
        result.append((shown, int(levels[at : at + size].max())))
        at += size
    return result


def as_line(data: bytes, stack: Stack) -> str:
    """Returns the text with a mark after each character that carries a boundary, stronger for higher stages."""
    shown = {"\n": "⏎", "\t": "⇥"}
    marks = ("", *MARKS)
    return "".join(shown.get(c, c) + marks[min(level, len(MARKS))] for c, level in pieces(data, stack))


def as_html(texts: Sequence[tuple[str, bytes]], stack: Stack) -> str:
    """Returns a page with a row per text; units of stage 2 are tinted, higher ones boxed."""
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{_nested(pieces(data, stack), stack.depth)}</td></tr>"
        for name, data in texts
    )
    return _PAGE.format(rows=rows, depth=stack.depth + 1)


def _nested(run: list[tuple[str, int]], level: int) -> str:
    """Boxes of the units at `level`, each holding those of the level below."""
    if level == 0:
        return html.escape("".join(character for character, _ in run)).replace("\n", "⏎")
    units: list[list[tuple[str, int]]] = [[]]
    for character in run:
        units[-1].append(character)
        if character[1] >= level:
            units.append([])
    return "".join(f'<span class="u{level}">{_nested(unit, level - 1)}</span>' for unit in units if unit)


_PAGE = """<!doctype html><meta charset="utf-8"><title>Stage boundaries</title>
<style>
 body {{ font: 16px/2.4 system-ui, sans-serif; margin: 1.5rem; color: #222; background: #fff;
         overflow-wrap: anywhere; }}
 th {{ text-align: left; padding-right: 1rem; font-weight: 600; color: #666; vertical-align: top; }}
 .u1 {{ background: #cfe3fb; border-radius: 3px; margin-right: 1px; white-space: pre-wrap; }}
 .u1:nth-child(even) {{ background: #fbe5c6; }}
 .u2, .u3, .u4 {{ border: 1px solid #777; border-radius: 5px; padding: 2px; margin-right: 3px; }}
 .u3 {{ border-color: #1a6b3c; padding: 3px; }} .u4 {{ border-color: #a0203c; padding: 4px; }}
</style>
<p>Units of {depth} stages: tints are units of stage 2; boxes, inside out, those of the stages above.
A unit is shown with the character that carries its boundary at its end.</p>
<table>{rows}</table>
"""
