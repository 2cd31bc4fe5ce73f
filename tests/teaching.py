"""Teachers by name, with options that a test may use, and their boundaries as places in a text."""

import numpy as np
import pytest

from splitters.registry import resolve_teacher
from splitters.rules.trie import SHIPPED

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SPECS = {
    "words": {},
    "zero_width_space": {},
    "regex": {"patterns": GPT2},
    "tokenizer": {"file": str(SHIPPED)},
    "unicode_words": {},
    "bpe_merged": {"bytes_per_unit": 6},
}

THAI = "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกัน 中国人民 中国 " * 4


def teacher(name, **options):
    if name == "words":
        pytest.importorskip("icu4py")
    return resolve_teacher({"name": name, **SPECS.get(name, {}), **options})


def last_bytes(text):
    return np.cumsum([len(character.encode()) for character in text], dtype=int) - 1


def places(subject, text):
    """Boundaries as indices of characters."""
    boundary = subject.split(text.encode())
    ends = last_bytes(text)
    assert boundary.sum() == boundary[ends].sum(), "a boundary inside a character"
    return set(np.flatnonzero(boundary[ends]).tolist())


def marked(subject, text):
    """The text with a bar at each boundary: before the character that begins a stretch, or after the one that ends it."""
    found = places(subject, text)
    bars = ("│{}", "{}") if subject.at == "start" else ("{}│", "{}")
    return "".join(bars[index not in found].format(character) for index, character in enumerate(text))
