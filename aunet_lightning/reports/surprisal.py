"""A page of scored texts: each character in a colour by its bits, over lines that join it to its units."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from aunet_lightning.reader.levels import FixedLevels
from aunet_lightning.reports import pictures
from aunet_lightning.reports.figures import ink, shade
from aunet_lightning.reports.page import Block, Heading, Key, Sentence, Table, Text, as_html
from aunet_lightning.scoring import Score

DOCUMENTS, BYTES = 20, 2000  # shown at most: documents, and bytes of each
FULL, SHADES = 8.0, 10  # bits per byte of the darkest colour (what 256 equally likely bytes cost), and colours


class Scored(NamedTuple):
    """A document with its score."""

    name: str
    language: str
    text: bytes
    score: Score
    context: int  # bytes that came before


def page(title: str, total: Sequence[Sequence[str]], scored: Sequence[Scored], of: int, tokens: bool) -> str:
    """Returns the page: a table `total`, the first row its header, and the first documents `of` so many.

    tokens: whether the model reads tokens, whose bits are then shown in equal parts on their bytes.
    """
    shown = scored[:DOCUMENTS]
    header, *rows = total
    blocks: list[Block] = [Table(header, rows), Heading("Surprisal")]
    first = f"The first {len(shown)} of {of} documents" if of > len(shown) else "All documents"
    cut = any(len(one.text) > BYTES for one in shown)
    units = "Lines under the text join it to its tokens, two colours in turn." if tokens else _UNITS
    spread = " The bits of a token are in equal parts on its bytes." if tokens else ""
    blocks += [
        Text(f"{first}{f', of each at most {BYTES} bytes' if cut else ''}.", "note"),
        Text(
            "The darker a character, the more bits per byte the model needs for it, given the text before; point at "
            f"one to read the bits of each of its bytes.{spread} {units}",
            "note",
        ),
        Key([(_colour(i), f"{FULL * i / SHADES:g}{_WORDS.get(i, '')}") for i in range(0, SHADES + 1, 2)]),
    ]
    blocks += [Sentence(one.language, [_line(one, tokens)]) for one in shown]
    return as_html(title, blocks, STYLE)


_WORDS = {0: " bits per byte", SHADES: " or more"}
_UNITS = (
    "Lines under the text join it to its units: of stage 2 next to it, of higher stages below, two colours in turn. A "
    "unit begins at the character whose last byte carries its boundary."
)


def _line(one: Scored, tokens: bool) -> tuple[str, str, str, str]:
    data = _beginning(one.text)
    levels = one.score.levels[: len(data)]
    bits = one.score.surprisal.astype(np.float64)
    bits = (_spread(bits, one.score.levels) if tokens else bits)[: len(data)]
    fixed = FixedLevels(int(levels.max(initial=0)), {data.decode("utf-8", "surrogateescape"): levels.tolist()})
    per_unit = " · ".join(f"{value:.1f}" for value in pictures.bytes_per_unit(data, fixed))
    number = f"{one.score.bpb:.2f} bits per byte" + (f", {per_unit} bytes per unit" if per_unit else "")
    number += f", after {one.context} bytes of context" if one.context else ""
    text = pictures.as_spans(data, fixed, _Coloured(bits))
    return one.name, number, f'<span class="heated">{text}</span>', data.decode("utf-8", "replace")


def _beginning(text: bytes) -> bytes:
    """Returns the first bytes of a text, up to the end of a character."""
    most = min(len(text), BYTES)
    ends = (at for at in range(most, most - 4, -1) if at == len(text) or text[at] & 0xC0 != 0x80)
    return text[: next(ends, most)]


def _spread(bits: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """bits [n] on the first byte of each token → in equal parts on all of its bytes."""
    first = np.flatnonzero(begins)
    sizes = np.diff(np.append(first, len(bits)))
    return np.repeat(bits[first] / sizes, sizes)


class _Coloured:
    """Draws the clusters of a text, each in a colour by its bits per byte."""

    def __init__(self, bits: np.ndarray) -> None:
        self.bits = iter(bits.tolist())

    def __call__(self, run: list[pictures.Cluster]) -> str:
        spans = []
        for cluster in run:
            bits = list(itertools.islice(self.bits, cluster.bytes))
            number = min(round(SHADES * sum(bits) / len(bits) / FULL), SHADES)
            told = " + ".join(f"{value:.1f}" for value in bits)
            spans.append(f'<span class="h{number}" title="{told} bits">{pictures.escaped([cluster])}</span>')
        return "".join(spans)


def _colour(i: int) -> str:
    return shade(i, SHADES)


STYLE = """
 .heated .u1, .heated .u1.b { background: none; border-bottom: 2px solid #1c6fb5; padding-bottom: 1px; }
 .heated .u1.b { border-color: #8fc3ee; }
 .heated .u2 { padding-bottom: 5px; } .heated .u3 { padding-bottom: 10px; } .heated .u4 { padding-bottom: 15px; }
""" + "".join(f" .h{i} {{ background: {_colour(i)}; color: {ink(_colour(i))}; }}\n" for i in range(SHADES + 1))
