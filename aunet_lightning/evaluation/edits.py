"""Edits of a word's characters, and of a phrase's words.

The choices are the right edit or not, times a wrong one or not: so a model that knows nothing of the rule finds each of
the four as likely, whatever an edit does to the bits of a text.
"""

import random
from abc import abstractmethod

from aunet_lightning.evaluation.few_shot import Line, OfCharacters, OfMadeUpWords, OfWords, Source, alone, exchanged
from aunet_lightning.evaluation.items import COPY
from aunet_lightning.evaluation.language_text import LanguageText, Parts


class Edit(Source):
    """`TEXT | RULE =`, `EDITED`. kinds: of the wrong edit, in turns: the same with another argument, or two neighbours
    exchanged (not where the right edit changes the length: it would be likely or not in all items alike)."""

    kinds: tuple[str, ...] = ("argument",)

    @abstractmethod
    def rule(self, x: str, y: str, joint: str) -> str:
        """Returns how the edit is written."""

    @abstractmethod
    def part(self, part: str, x: str, y: str) -> tuple[str, ...]:
        """Returns what a part of the text becomes."""

    def arguments(self, parts: Parts, text: LanguageText, rng: random.Random) -> list[tuple[str, str]]:
        """Returns x and y, and others in their places, where there are some: x of the text, y of another one."""
        known = [part for part in dict.fromkeys(parts.of) if alone(parts, part)]
        other = self.drawn(text, rng)
        new = [part for part in dict.fromkeys(other.of if other else ()) if part not in str(parts)]
        rng.shuffle(known)
        return list(zip(known, new, strict=False))[:2]

    def line(self, text: LanguageText, rng: random.Random, number: int) -> Line | None:
        parts = self.drawn(text, rng)
        if parts is None or len(arguments := self.arguments(parts, text, rng)) < 2:
            return None
        (x, y), other = arguments
        if self.kinds[number % len(self.kinds)] == "argument":
            kind, wrong = "argument", self.edited(parts, *other)
        else:
            kind, wrong = "exchanged", exchanged(parts, rng.randrange(len(parts.of) - 1))
        right, both = self.edited(parts, x, y), self.edited(wrong, x, y)
        if not all(one.of and one.intact for one in (right, wrong, both)):
            return None
        others = {COPY: str(parts), kind: str(wrong), "both": str(both)}
        return Line(str(parts), f"{parts} | {self.rule(x, y, parts.joint)}", str(right), others)

    def edited(self, parts: Parts, x: str, y: str) -> Parts:
        """Returns the text edited."""
        return Parts(tuple(new for part in parts.of for new in self.part(part, x, y)), parts.joint)


class Insert(Edit):
    """`word | o > ox =`, `woxrd`: after each o an x."""

    def rule(self, x: str, y: str, joint: str) -> str:
        return f"{x} > {x}{joint}{y}"

    def part(self, part: str, x: str, y: str) -> tuple[str, ...]:
        return (part, y) if part == x else (part,)


class Delete(Edit):
    """`word | o > =`, `wrd`: without each o."""

    def rule(self, x: str, y: str, joint: str) -> str:
        return f"{x} >"

    def part(self, part: str, x: str, y: str) -> tuple[str, ...]:
        return () if part == x else (part,)


class Substitute(Edit):
    """`word | o > x =`, `wxrd`: for each o an x."""

    kinds = "argument", "exchanged"

    def rule(self, x: str, y: str, joint: str) -> str:
        return f"{x} > {y}"

    def part(self, part: str, x: str, y: str) -> tuple[str, ...]:
        return (y,) if part == x else (part,)


class Swap(Edit):
    """`word | o <> r =`, `wrod`: two that are there once change places."""

    kinds = "argument", "exchanged"

    def rule(self, x: str, y: str, joint: str) -> str:
        return f"{x} <> {y}"

    def part(self, part: str, x: str, y: str) -> tuple[str, ...]:
        return ({x: y, y: x}.get(part, part),)

    def arguments(self, parts: Parts, text: LanguageText, rng: random.Random) -> list[tuple[str, str]]:
        once = [part for part in parts.of if parts.of.count(part) == 1 and alone(parts, part)]
        rng.shuffle(once)
        return [(once[0], once[1]), (once[2], once[1])] if len(once) > 2 else []


class InsertCharacter(Insert, OfCharacters):
    """A character after another."""


class InsertCharacterMadeUp(Insert, OfMadeUpWords):
    """A character after another, in a word that the text does not have."""


class InsertWord(Insert, OfWords):
    """A word after another."""


class DeleteCharacter(Delete, OfCharacters):
    """Without a character."""


class DeleteCharacterMadeUp(Delete, OfMadeUpWords):
    """Without a character, of a word that the text does not have."""


class DeleteWord(Delete, OfWords):
    """Without a word."""


class SubstituteCharacter(Substitute, OfCharacters):
    """A character for another."""


class SubstituteCharacterMadeUp(Substitute, OfMadeUpWords):
    """A character for another, in a word that the text does not have."""


class SubstituteWord(Substitute, OfWords):
    """A word for another."""


class SwapCharacters(Swap, OfCharacters):
    """Two characters change places."""


class SwapCharactersMadeUp(Swap, OfMadeUpWords):
    """Two characters change places, in a word that the text does not have."""


class SwapWords(Swap, OfWords):
    """Two words change places."""
