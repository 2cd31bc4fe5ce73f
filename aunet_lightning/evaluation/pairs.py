"""Minimal pairs: a text as it is, and the same with one thing wrong.

The context is the beginning of the sentence, up to the word with the first difference; a choice is the rest, up to a
few words after the last one. (That word is in the choice as a whole: a context that ends inside of a word is foreign to
models of tokens.) Both have as many characters and blanks, and what is wrong differs from item to item: so a model with
random weights finds both as likely.
"""

import random
from abc import abstractmethod
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from aunet_lightning.evaluation.han import cannot_read
from aunet_lightning.evaluation.language_text import LETTERS, LanguageText, Parts, characters, is_word
from aunet_lightning.evaluation.look_alikes import look_alikes
from aunet_lightning.evaluation.task import Question, Task

BEFORE, AFTER = 12, 3  # words of a context, and after what is wrong
BLANK = " "
LONG = 10  # letters of several bytes: of fewer, single ones would decide
NO_CONTINUATION = [*range(0x20, 0x7F), *range(0xC2, 0xF5)]

_look_alikes = cache(look_alikes)


class Place(NamedTuple):
    """A word in its sentence."""

    pieces: list[str]  # of the sentence
    words: list[int]  # where words are among them
    at: int  # among the words

    def word(self, ahead: int = 0) -> str:
        """Returns the word, or one that follows; empty after the last one."""
        return self.pieces[self.words[self.at + ahead]] if self.at + ahead < len(self.words) else ""

    def between(self, ahead: int = 1) -> str:
        """Returns what stands between the word and one that follows."""
        return "".join(self.pieces[self.words[self.at] + 1 : self.words[self.at + ahead]])

    def question(
        self, others: Mapping[str, str | bytes], n_words: int = 1, rng: random.Random | None = None
    ) -> Question | None:
        """Returns the question whether the word and those that follow it, n_words in all, stand here, or what `others`
        have in their place, by kind.

        rng: where others lack a character, draws between which letters the text as it is ends; others have one more.
        None at the end of a sentence, where nothing would tell that a text is over.
        """
        first, last = self.words[self.at], self.words[self.at + n_words - 1]
        end = [*self.words, *[len(self.pieces) - 1] * AFTER][self.at + n_words - 1 + AFTER]
        begin = first - self.pieces[first - 1].isspace()  # a blank is read with the word after it
        since = self.words[self.at - BEFORE] if self.at > BEFORE else 0
        before, right = ("".join(self.pieces[i:j]).encode() for i, j in ((begin, first), (first, last + 1)))
        after = characters("".join(self.pieces[last + 1 : end + 1]))
        at, more = len(after), 0
        if rng is not None:
            inside = [i for i in range(1, len(after)) if all(map(LETTERS.fullmatch, after[i - 1 : i + 1]))]
            at, more = rng.choice(inside or [0]), 1
        if not at:
            return None
        following = "".join(after[: at + more]).encode()
        texts = {kind: other if isinstance(other, bytes) else other.encode() for kind, other in others.items()}
        return Question(
            "".join(self.pieces[since:begin]), before + right + "".join(after[:at]).encode(),
            {kind: before + text + following for kind, text in texts.items()},
        )  # fmt: skip


class Pair(Task):
    """A text, and the same with one thing wrong."""

    group = "minimal_pairs"
    choices = 2

    @abstractmethod
    def asked(self, place: Place, text: LanguageText, rng: random.Random) -> Question | None:
        """Returns a question about a place that is drawn; None where nothing can be wrong there."""

    def question(self, text: LanguageText, rng: random.Random, number: int) -> Question | None:
        pieces = rng.choice(text.sentences or [[]])
        words = [i for i, piece in enumerate(pieces) if is_word(piece)]
        return self.asked(Place(pieces, words, rng.randrange(1, len(words))), text, rng) if len(words) > 1 else None


class WordPair(Pair):
    """A word of letters, against one that the text does not have. kind: of that one; shorter: by a character."""

    kind: str
    shorter = False

    @abstractmethod
    def changed(self, word: list[str], text: LanguageText, rng: random.Random) -> list[str]:
        """Returns the characters of another word; the same ones where there is none."""

    def asked(self, place: Place, text: LanguageText, rng: random.Random) -> Question | None:
        word = characters(place.word())
        if not LETTERS.fullmatch(place.word()) or len(word) < text.least:
            return None
        other = Parts(tuple(self.changed(word, text, rng)))
        if str(other) in text.words or not other.intact:
            return None
        return place.question({self.kind: str(other)}, rng=rng if self.shorter else None)


class CharactersExchanged(WordPair):
    """Two neighbouring characters exchanged."""

    kind = "exchanged"

    def changed(self, word: list[str], text: LanguageText, rng: random.Random) -> list[str]:
        i = rng.randrange(len(word) - 1)
        return [*word[:i], word[i + 1], word[i], *word[i + 2 :]]


class CharacterDropped(WordPair):
    """A character missing; where there are three or more, none at an end, where endings would make other words."""

    kind = "dropped"
    shorter = True

    def changed(self, word: list[str], text: LanguageText, rng: random.Random) -> list[str]:
        i = rng.randrange(1, len(word) - 1) if len(word) > 2 else rng.randrange(len(word))
        return [*word[:i], *word[i + 1 :]]


class LookAlike(WordPair):
    """A character replaced by one that looks like it and has as many bytes, of those that the text has."""

    kind = "look_alike"

    def changed(self, word: list[str], text: LanguageText, rng: random.Random) -> list[str]:
        known = _look_alikes(tuple(text.alphabet))
        pairs = [(i, other) for i, character in enumerate(word) for other in known.get(character, [])]
        as_long = [(i, other) for i, other in pairs if len(other.encode()) == len(word[i].encode())]
        i, other = rng.choice(as_long or [(0, word[0])])
        return [*word[:i], other, *word[i + 1 :]]

    def left_out(self, text: LanguageText) -> str:
        known = _look_alikes(tuple(text.alphabet))
        return cannot_read(text.alphabet) or ("" if known else "no rule says which of its letters look alike")


class WordsExchanged(Pair):
    """Two words exchanged, AFTER words apart at most."""

    def asked(self, place: Place, text: LanguageText, rng: random.Random) -> Question | None:
        ahead = rng.randint(1, AFTER)
        one, other = place.word(), place.word(ahead)
        if not other or one.lower() == other.lower():
            return None
        return place.question({"exchanged": other + place.between(ahead) + one}, ahead + 1)


class BlankPair(Pair):
    """A blank in a wrong place.

    (Not the signs of Tibetan and Amharic: all their characters begin with the same byte, as the sign does, so that both
    choices have the same pairs of bytes, and a random model takes one or the other by its place.)
    """

    def left_out(self, text: LanguageText) -> str:
        return "" if text.joint == BLANK else "there are no blanks between its words"

    def asked(self, place: Place, text: LanguageText, rng: random.Random) -> Question | None:
        one, other = characters(place.word()), characters(place.word(1))
        if not other or place.between() != BLANK:
            return None
        both = [*one, *other]
        others = {}
        for kind, at in self.wrong(len(one), len(both), rng).items():
            if 0 < at < len(both):
                others[kind] = "".join([*both[:at], BLANK, *both[at:]])
        return place.question(others, 2)

    @abstractmethod
    def wrong(self, at: int, n: int, rng: random.Random) -> dict[str, int]:
        """Returns by kind before which of the n characters of two words the blank comes, instead of before `at`; places
        that are not between two characters are left out."""


class BlankMoved(BlankPair):
    """A blank between two words, against one that comes a character earlier or later."""

    choices = 3

    def wrong(self, at: int, n: int, rng: random.Random) -> dict[str, int]:
        return {"earlier": at - 1, "later": at + 1}


class BlankMissing(BlankPair):
    """A blank missing between two words, and one too many inside of one of them."""

    def wrong(self, at: int, n: int, rng: random.Random) -> dict[str, int]:
        inside = [i for i in range(1, n) if abs(i - at) > 1]
        return {"missing": rng.choice(inside)} if inside else {}


class BrokenBytes(Pair):
    """A letter whose last byte is one that cannot be there, so that the text is not UTF-8."""

    def asked(self, place: Place, text: LanguageText, rng: random.Random) -> Question | None:
        word = place.word()
        long = [i for i, letter in enumerate(word) if len(letter.encode()) > 1]
        if not long:
            return None
        i = rng.choice(long)
        broken = word[: i + 1].encode()[:-1] + bytes([rng.choice(NO_CONTINUATION)]) + word[i + 1 :].encode()
        return place.question({"broken": broken})

    def left_out(self, text: LanguageText) -> str:
        long = {letter for character in text.alphabet for letter in character if len(letter.encode()) > 1}
        return "" if len(long) >= LONG else f"fewer than {LONG} of its letters have several bytes"
