"""Parts of characters: the jamo of a Hangul syllable, the components of a Han character."""

import random
from abc import abstractmethod
from collections.abc import Sequence
from unicodedata import normalize

import regex

from aunet_lightning.evaluation.few_shot import FewShot, Line
from aunet_lightning.evaluation.han import HAN, cannot_read, components
from aunet_lightning.evaluation.language_text import LanguageText

SYLLABLE = regex.compile(r"[가-힣]")


class PartsOfCharacters(FewShot):
    """`CHARACTER =`, and its parts, set apart. Other choices have the first part, the last one, or both, of another
    character that has as many."""

    group = "parts"

    @abstractmethod
    def parts(self, character: str) -> Sequence[str]:
        """Returns the parts of a character; fewer than two where it has none."""

    def line(self, text: LanguageText, rng: random.Random, number: int) -> Line | None:
        one, other = (rng.choice(list(text.alphabet)) for _ in range(2))
        parts, others = self.parts(one), self.parts(other)
        if len(parts) < 2 or len(parts) != len(others):
            return None
        mixed = {
            "first": [others[0], *parts[1:]],
            "last": [*parts[:-1], others[-1]],
            "both": [others[0], *parts[1:-1], others[-1]],
        }
        return Line(one, one, " ".join(parts), {kind: " ".join(of) for kind, of in mixed.items()})


class Jamo(PartsOfCharacters):
    """A Hangul syllable and its jamo, as NFD has them."""

    def parts(self, character: str) -> Sequence[str]:
        return normalize("NFD", character) if SYLLABLE.fullmatch(character) else ""

    def left_out(self, text: LanguageText) -> str:
        return "" if any(map(SYLLABLE.match, text.alphabet)) else "the text has no Hangul syllables"


class Components(PartsOfCharacters):
    """A Han character and its components, where these are two or three and not single strokes."""

    def parts(self, character: str) -> Sequence[str]:
        return components(character)

    def left_out(self, text: LanguageText) -> str:
        return cannot_read(text.alphabet) if any(map(HAN.match, text.alphabet)) else "the text has no Han characters"
