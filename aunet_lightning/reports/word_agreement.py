"""Agreement of units with human-marked words, in scripts without blanks between words.

Two sources: zero-width spaces in the text itself (Khmer, from user interfaces), and ICU's dictionaries (Chinese,
Japanese, Thai, Lao, Khmer, Burmese; the optional package `icu4py`). This describes a rule; it is not an objective.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import regex

from aunet_lightning.reader.levels import Levels

ZERO_WIDTH_SPACE = "\u200b"
DICTIONARY_LANGUAGES = ("zh", "ja", "th", "lo", "km", "my")  # in ICU
FEWEST = 3  # zero-width spaces between letters, for a text to count as marked

_LETTER = regex.compile(r"[\p{L}\p{M}\p{N}]")
_MARKED = regex.compile(rf"(?<=[\p{{L}}\p{{M}}]){ZERO_WIDTH_SPACE}(?=\p{{L}})")


class Agreement(NamedTuple):
    """Precision: the share of unit starts that start a word. Recall: the share of word starts that start a unit."""

    precision: float
    recall: float
    f1: float


class MarkedWords(NamedTuple):
    text: str
    begins: frozenset[int]  # of words, as indices of characters


def marked_words(text: str, language: str) -> MarkedWords | None:
    """Returns the text without zero-width spaces, and where its words begin; None if nothing marks them.

    Raises ModuleNotFoundError if the language needs icu4py and it is not installed.
    """
    if len(_MARKED.findall(text)) >= FEWEST:
        return _from_zero_width_spaces(text)
    locale = language.replace("_", "-").split("-")[0]
    if locale in DICTIONARY_LANGUAGES:
        return _from_dictionary(text.replace(ZERO_WIDTH_SPACE, ""), locale)
    return None


def _from_zero_width_spaces(text: str) -> MarkedWords:
    plain: list[str] = []
    begins: set[int] = set()
    for part in text.split(ZERO_WIDTH_SPACE):
        begins.add(len(plain))
        plain += part
    begins |= {place + 1 for place, character in enumerate(plain) if character.isspace()}
    return MarkedWords("".join(plain), _at_letters(plain, begins))


def _from_dictionary(text: str, locale: str) -> MarkedWords:
    from icu4py.breakers import WordBreaker

    units = np.cumsum([0, *(len(character.encode("utf-16-le")) // 2 for character in text)])  # ICU counts in UTF-16
    begins = np.searchsorted(units, [begin for begin, _ in WordBreaker(text, locale).segments()])
    return MarkedWords(text, _at_letters(text, begins.tolist()))


def _at_letters(text: Sequence[str], begins: Iterable[int]) -> frozenset[int]:
    """Moves each start past blanks and punctuation to the next letter or digit, and drops the first word, which every
    rule gets right."""
    letters = np.array([_LETTER.match(character) is not None for character in text], bool)
    places = np.append(np.flatnonzero(letters), len(letters))
    moved = {int(places[np.searchsorted(places, begin)]) for begin in begins if begin <= len(letters)}
    return frozenset(moved - {int(places[0]), len(letters)})


def agreement(documents: Iterable[MarkedWords], stack: Levels) -> Agreement | None:
    """Returns the agreement of stage-2 units with the words of all documents together; None without words."""
    hits = found = wanted = 0
    for text, begins in documents:
        ends = np.cumsum([len(character.encode()) for character in text], dtype=int) - 1
        boundary = stack.levels(text.encode()) > 0
        # A unit begins at the character that carries its boundary, also if that is not on its last byte.
        units = _at_letters(text, np.searchsorted(ends, np.flatnonzero(boundary)).tolist())
        hits, found, wanted = hits + len(units & begins), found + len(units), wanted + len(begins)
    if not wanted:
        return None
    precision, recall = hits / max(found, 1), hits / wanted
    return Agreement(precision, recall, 2 * hits / (found + wanted))
