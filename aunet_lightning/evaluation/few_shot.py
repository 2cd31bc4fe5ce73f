"""Questions after solved examples, in a notation without words, which is the same in every language."""

import random
from abc import abstractmethod
from typing import NamedTuple

from aunet_lightning.evaluation.language_text import TRIES, LanguageText, Parts
from aunet_lightning.evaluation.task import Question, Task
from aunet_lightning.numbers import Range, check


class Line(NamedTuple):
    """A solved line: what is asked, the answer, and what else could stand there, by kind."""

    of: str  # the text that it is about, which no two lines of a prompt share
    asked: str
    answer: str
    others: dict[str, str]


class FewShot(Task):
    """Lines `ASKED =`, each with its answer in a line below; the last one's answer is asked for.

    examples: solved ones before it.
    """

    group = "spelling"

    def __init__(self, examples: int = 4) -> None:
        check("examples", examples, Range(least=1), whole=True)
        self.examples = examples

    @abstractmethod
    def line(self, text: LanguageText, rng: random.Random, number: int) -> Line | None:
        """Returns a line that is drawn; None where what was drawn does not make one."""

    def question(self, text: LanguageText, rng: random.Random, number: int) -> Question | None:
        last = self.line(text, rng, number)
        if last is None:
            return None
        lines = {last.of: last}
        for _ in range(TRIES):
            if len(lines) > self.examples:
                break
            if (one := self.line(text, rng, len(lines))) is not None:
                lines.setdefault(one.of, one)
        else:
            return None
        _, *examples = lines.values()
        rng.shuffle(examples)
        context = "".join(f"{one.asked} =\n{one.answer}\n" for one in examples) + f"{last.asked} =\n"
        others = {kind: f"{other}\n" for kind, other in last.others.items()}
        return Question(context, f"{last.answer}\n", others, key=(last.asked, last.answer))


class Source(FewShot):
    """What lines are about."""

    @abstractmethod
    def drawn(self, text: LanguageText, rng: random.Random) -> Parts | None:
        """Returns a text that is drawn."""


class OfCharacters(Source):
    """Lines about words and their characters."""

    def drawn(self, text: LanguageText, rng: random.Random) -> Parts | None:
        return rng.choice(text.spelled) if text.spelled else None


class OfMadeUpWords(OfCharacters):
    """Lines about words that the text does not have, as long as those that it has."""

    def drawn(self, text: LanguageText, rng: random.Random) -> Parts | None:
        word = super().drawn(text, rng)
        return None if word is None else text.made_up(len(word.of), rng)


class OfWords(Source):
    """Lines about phrases and their words."""

    def drawn(self, text: LanguageText, rng: random.Random) -> Parts | None:
        return rng.choice(text.phrases) if text.phrases else None


def exchanged(parts: Parts, i: int) -> Parts:
    """Returns the same with part i and the next one exchanged."""
    return Parts((*parts.of[:i], parts.of[i + 1], parts.of[i], *parts.of[i + 2 :]), parts.joint)


def alone(parts: Parts, part: str) -> bool:
    """Returns whether a part stands nowhere in a text but as a part, so that it is plain what is asked for."""
    return bool(parts.joint) or str(parts).count(part) == parts.of.count(part)
