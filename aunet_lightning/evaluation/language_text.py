"""Text of one language as tasks need it: its sentences, words and characters.

Characters are grapheme clusters (Unicode, UAX #29), words those that ICU finds (its dictionaries in languages without
blanks).
"""

import random
from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import regex

ZERO_WIDTH_SPACE = "\u200b"
CLUSTER = regex.compile(r"\X")
WORD = regex.compile(r"[\p{L}\p{M}\p{N}]")  # what a word has and a piece of punctuation has not
LETTERS = regex.compile(r"[\p{L}\p{M}]+")
SENTENCE = regex.compile(r"[^.!?。!?।။៕\n]+[.!?。!?।။៕]*")
WORDS = 3, 10  # of a sentence in tasks


def characters(text: str) -> list[str]:
    """Returns the grapheme clusters of a text."""
    return CLUSTER.findall(text)


class LanguageText:
    """Documents of a language. Raises ModuleNotFoundError where words are asked for and icu4py is missing."""

    def __init__(self, language: str, documents: Sequence[str]) -> None:
        self.language = language
        self.documents = [document.replace(ZERO_WIDTH_SPACE, "") for document in documents]  # which marks words

    def pieces(self, text: str) -> list[str]:
        """Returns a text cut where words begin and end: words, and what is between them."""
        from icu4py.breakers import WordBreaker

        units = text.encode("utf-16-le")  # in which ICU counts
        segments = WordBreaker(text, self.language.replace("_", "-").split("-")[0]).segments()
        return [units[2 * begin : 2 * end].decode("utf-16-le") for begin, end in segments]

    @cached_property
    def sentences(self) -> list[list[str]]:
        """Sentences of a few words, each as its pieces, in the order of the documents, none twice."""
        found: dict[str, list[str]] = {}
        for document in self.documents:
            for match in SENTENCE.finditer(document):
                text = match[0].strip()
                if text and text not in found:
                    pieces = self.pieces(text)
                    if WORDS[0] <= sum(map(is_word, pieces)) <= WORDS[1]:
                        found[text] = pieces
        return list(found.values())

    @cached_property
    def words(self) -> Counter[str]:
        """How often each word of letters comes, those of digits left out."""
        return Counter(
            piece for document in self.documents for piece in self.pieces(document) if LETTERS.fullmatch(piece)
        )

    @cached_property
    def alphabet(self) -> list[str]:
        """The characters of words, the most frequent first."""
        counts = Counter[str]()
        for word, n in self.words.items():
            for character in characters(word):
                counts[character] += n
        return [character for character, _ in counts.most_common()]

    def made_up(self, length: int, rng: random.Random) -> str:
        """Returns a word of so many characters that the text does not have, drawn from its characters."""
        while True:
            word = "".join(rng.choices(self.alphabet[:200], k=length))
            if word not in self.words and len(characters(word)) == length:
                return word


def is_word(piece: str) -> bool:
    """Returns whether a piece of text is a word, and not blanks or punctuation."""
    return WORD.search(piece) is not None
