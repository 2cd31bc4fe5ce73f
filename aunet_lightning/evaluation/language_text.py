"""Text of one language as tasks need it: its sentences, phrases, words and characters.

Characters are grapheme clusters (Unicode, UAX #29), words those that ICU finds (its dictionaries in languages without
blanks; in Tibetan syllables, which is what its script marks).
"""

import random
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import NamedTuple

import regex

ZERO_WIDTH_SPACE = "\u200b"
CLUSTER = regex.compile(r"\X")
WORD = regex.compile(r"[\p{L}\p{M}\p{N}]")  # what a word has and a piece of punctuation has not
LETTERS = regex.compile(r"[\p{L}\p{M}]+")
SENTENCE = regex.compile(r"[^.!?。！？।။៕\n]+[.!?。！？।။៕]*")
JOINT = regex.compile(r" |[་༌፡]?")  # between words of a phrase; Tibetan and Amharic have signs for it
PHRASE = 3, 6  # words, so that a prompt with several stays short
SPELLED = 3  # characters of a word that can be spelled, at least
FEW = 0.25  # of the words of a language
TRIES = 50


class Parts(NamedTuple):
    """A text of parts: a word of characters, or a phrase of words."""

    of: tuple[str, ...]
    joint: str = ""  # between any two

    def __str__(self) -> str:
        return self.joint.join(self.of)

    @property
    def intact(self) -> bool:
        """Whether each grapheme cluster of the text is in one part, or in a joint."""
        sizes = [len(characters(part)) for part in (*self.of, self.joint)]
        return len(characters(str(self))) == sum(sizes) + sizes[-1] * (len(self.of) - 2)


def characters(text: str) -> list[str]:
    """Returns the grapheme clusters of a text."""
    return CLUSTER.findall(text)


def is_word(piece: str) -> bool:
    """Returns whether a piece of text is a word, and not blanks or punctuation."""
    return WORD.search(piece) is not None


class Evenly:
    """Documents of a stream, of at most `most` bytes: all of them, or every 2nd, 4th, 8th … from the first on.

    A document that is longer alone is cut, between characters.
    """

    def __init__(self, most: int) -> None:
        self.most, self.every, self.seen = most, 1, 0
        self.documents: list[str] = []
        self.bytes = 0

    def add(self, document: bytes) -> None:
        """Takes a document (UTF-8), or leaves it out."""
        if self.seen % self.every == 0:
            self.documents.append(document[: self.most].decode("utf-8", "ignore"))
            self.bytes += min(len(document), self.most)
            while self.bytes > self.most and len(self.documents) > 1:
                self.every, self.documents = 2 * self.every, self.documents[::2]
                self.bytes = sum(len(one.encode()) for one in self.documents)
        self.seen += 1


class LanguageText:
    """Documents of a language. Raises ModuleNotFoundError where words are asked for and icu4py is missing."""

    def __init__(self, language: str, documents: Sequence[str]) -> None:
        self.language = language
        self.documents = [document.replace(ZERO_WIDTH_SPACE, "") for document in documents]  # which marks words

    def pieces(self, text: str) -> list[str]:
        """Returns a text cut where words begin and end: words, and what is between them."""
        try:
            from icu4py.breakers import WordBreaker
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "words come from icu4py, which is not installed: pip install 'aunet-lightning[evaluation]'",
                name="icu4py",
            ) from None
        begins = {0, *accumulate(map(len, characters(text)))}
        pieces, at = list[str](), 0
        for piece in WordBreaker(text, "root"):  # it chooses dictionaries by script, whatever the locale
            if at in begins:
                pieces.append(piece)
            else:  # ICU tears a few clusters of Burmese and Khmer
                pieces[-1] += piece
            at += len(piece)
        return pieces

    @cached_property
    def sentences(self) -> list[list[str]]:
        """Sentences, each as its pieces, in the order of the documents, none twice."""
        matches = (match for document in self.documents for match in SENTENCE.finditer(document))
        return [self.pieces(sentence) for sentence in dict.fromkeys(match[0].strip() for match in matches) if sentence]

    @cached_property
    def phrases(self) -> list[Parts]:
        """Sentences and parts of sentences as words with the same joint between any two, none twice."""
        found: dict[Parts, None] = {}
        for pieces in self.sentences:
            at = [i for i, piece in enumerate(pieces) if is_word(piece)]
            joints = ["".join(pieces[i + 1 : j]) for i, j in pairwise(at)]
            begin = 0
            for end in range(1, len(at) + 1):
                same = end < len(at) and joints[end - 1] == joints[begin] and JOINT.fullmatch(joints[begin])
                if not same:
                    if end - begin >= PHRASE[0]:
                        found |= dict.fromkeys(_cut([pieces[i] for i in at[begin:end]], joints[begin]))
                    begin = end
        return list(found)

    @cached_property
    def joint(self) -> str:
        """What most phrases have between words: a blank, a sign, or nothing."""
        counts = Counter(phrase.joint for phrase in self.phrases)
        return counts.most_common(1)[0][0] if counts else ""

    @cached_property
    def words(self) -> Counter[str]:
        """How often each word of letters comes, those of digits left out."""
        pieces = (piece for document in self.documents for piece in self.pieces(document))
        return Counter(piece for piece in pieces if LETTERS.fullmatch(piece))

    @cached_property
    def least(self) -> int:
        """How many characters a word has that is changed: SPELLED, or 2 where few words have as many (Chinese)."""
        long = sum(len(characters(word)) >= SPELLED for word in self.words)
        return SPELLED if long >= FEW * len(self.words) else 2

    @cached_property
    def spelled(self) -> list[Parts]:
        """Words of at least SPELLED characters; where few words are that long, neighbours that are together."""
        found = dict.fromkeys(Parts(tuple(characters(word))) for word in self.words)
        if self.least < SPELLED:
            for phrase in self.phrases:
                if not phrase.joint and LETTERS.fullmatch(str(phrase)):
                    both = (Parts(tuple(characters(one + other))) for one, other in pairwise(phrase.of))
                    found |= dict.fromkeys(both)
        return [word for word in found if len(word.of) >= SPELLED]

    @cached_property
    def alphabet(self) -> Counter[str]:
        """How often each character comes in words."""
        counts = Counter[str]()
        for word, n in self.words.items():
            for character in characters(word):
                counts[character] += n
        return counts

    def made_up(self, length: int, rng: random.Random) -> Parts | None:
        """Returns a word of so many characters that the text does not have, drawn from its characters; None where
        these make none."""
        for _ in range(TRIES):
            word = Parts(tuple(rng.choices(list(self.alphabet), [*self.alphabet.values()], k=length)))
            if word.intact and not any(str(word) in document for document in self.documents):
                return word
        return None


def _cut(words: Sequence[str], joint: str) -> list[Parts]:
    """Returns words as phrases of about equal length."""
    n = -(-len(words) // PHRASE[1])
    ends = [round(len(words) * i / n) for i in range(n + 1)]
    return [Parts(tuple(words[i:j]), joint) for i, j in pairwise(ends)]
