"""Marks of letters and of the words that ICU finds, which boundaries are compared with on held-out text."""

from __future__ import annotations

import numpy as np

from aunet_lightning.data.corpus import Corpus
from splitters import CharacterRule
from splitters.contract import defer
from splitters.teachers import Teacher

WORDS, LETTERS = 13, 12  # bits of `marks`: the first letter of a word, any letter (each at its last byte)
WORD_BYTES = 100_000  # of each language that are marked, as ICU is slow


class Letters(CharacterRule):
    """A mark at each letter, digit and combining mark: where a word can begin."""

    classes = (("letter", r"[\p{L}\p{M}\p{N}]"),)
    start = 0

    def step(self, state, kind):
        return state, kind == "letter"


class WordMarks:
    """The marks of documents, found when asked for and kept: every validation asks again.

    Marked is the beginning of the text: of each language the first WORD_BYTES bytes.
    """

    def __init__(self, corpus: Corpus, documents: np.ndarray, words: Teacher) -> None:
        self.corpus, self.words, self.letters = corpus, words, Letters()
        self.sizes = _sizes(corpus, documents)
        self.kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # document → bits of letters and of words

    def marks(self, document: int, n: int) -> np.ndarray:
        """Returns int16 [n], the bits WORDS and LETTERS of a document of n bytes."""
        size = self.sizes.get(document, 0)
        if size and document not in self.kept:
            text = self.corpus.text(document)[:size].tobytes()
            letters = self.letters.split(text)
            self.kept[document] = np.packbits(letters), np.packbits(defer(self.words.split(text), letters))
        marks = np.zeros(n, np.int16)
        if size:
            letters, words = (np.unpackbits(bits, count=size).astype(np.int16) for bits in self.kept[document])
            marks[:size] = letters << LETTERS | words << WORDS
        return marks


def _sizes(corpus: Corpus, documents: np.ndarray) -> dict[int, int]:
    """Returns how many bytes of each document are marked, if any."""
    left: dict[int, int] = {}
    found = {}
    for document in documents.tolist():
        language = int(corpus.languages[document])
        size = min(int(corpus.lengths[document]), left.setdefault(language, WORD_BYTES))
        left[language] -= size
        if size:
            found[document] = size
    return found


def word_teacher() -> Teacher | None:
    """Returns the teacher `words`, or None where its optional package icu4py is missing."""
    from splitters.registry import TEACHERS

    try:
        made = TEACHERS.build("words", {})
    except ValueError:
        return None
    assert isinstance(made, Teacher)
    return made
