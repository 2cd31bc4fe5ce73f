"""What a word is made of: its characters set apart, or put together, and whether it has one; the same of phrases."""

import random

from aunet_lightning.evaluation.few_shot import Line, OfCharacters, OfMadeUpWords, OfWords, Source, exchanged
from aunet_lightning.evaluation.language_text import LanguageText, Parts

YES, NO = "+", "-"


class Spell(OfCharacters):
    """`word =`, `w o r d`. Other choices have two neighbours exchanged, a character of another word, or both.

    None is the word as it is: it has no blanks, and a model with random weights would take it always or never.
    """

    joints = "", " "  # of what is asked, and of what is answered

    def line(self, text: LanguageText, rng: random.Random, number: int) -> Line | None:
        word, other = self.drawn(text, rng), self.drawn(text, rng)
        if word is None or other is None:
            return None
        i, j = rng.randrange(len(word.of)), rng.randrange(len(word.of) - 1)
        replaced = Parts((*word.of[:i], rng.choice(other.of), *word.of[i + 1 :]))
        choices = [word, exchanged(word, j), replaced, exchanged(replaced, j)]
        asked, answered = ([Parts(one.of, joint) for one in choices] for joint in self.joints)
        if not all(one.intact for one in asked + answered):
            return None
        answer, *others = map(str, answered)
        return Line(str(word), str(asked[0]), answer, dict(zip(("exchanged", "replaced", "both"), others, strict=True)))


class Unspell(Spell):
    """`w o r d =`, `word`."""

    joints = " ", ""


class SpellMadeUp(OfMadeUpWords, Spell):
    """`dorw =`, `d o r w`."""


class UnspellMadeUp(OfMadeUpWords, Unspell):
    """`d o r w =`, `dorw`."""


class Contains(Source):
    """`word | o =`, `+`; `word | x =`, `-`. Half of the items are no.

    A part is drawn that one of two texts has and the other has not, and the line is about one of them: so what is asked
    for says nothing about the answer.
    """

    choices = 2

    def line(self, text: LanguageText, rng: random.Random, number: int) -> Line | None:
        one, other = self.drawn(text, rng), self.drawn(text, rng)
        if one is None or other is None:
            return None
        part = rng.choice(one.of)
        if part.lower() in str(other).lower():
            return None
        if number % 2:
            return Line(str(other), f"{other} | {part}", NO, {"yes": YES})
        return Line(str(one), f"{one} | {part}", YES, {"no": NO})


class ContainsCharacter(Contains, OfCharacters):
    """Whether a word has a character."""


class ContainsCharacterMadeUp(Contains, OfMadeUpWords):
    """Whether a word that the text does not have has a character."""


class ContainsWord(Contains, OfWords):
    """Whether a phrase has a word."""
