"""What a task is: a rule that makes items of a language's text."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice

from aunet_lightning.evaluation.items import ANSWER, Item
from aunet_lightning.evaluation.language_text import LanguageText
from aunet_lightning.registry import Registry

TRIES = 50  # of an item, before the text is said to have no more
TASKS = Registry("task", "aunet_lightning.evaluation.task:Task", {})


class Question:
    """A context, the right continuation, and others by kind; equal ones count once."""

    def __init__(
        self, context: str | bytes, answer: str | bytes, **others: str | bytes | Sequence[str | bytes]
    ) -> None:
        self.context, self.answer = _bytes(context), _bytes(answer)
        self.others: list[tuple[str, bytes]] = []
        for kind, texts in others.items():
            for text in [texts] if isinstance(texts, str | bytes) else texts:
                known = {self.answer, *(other for _, other in self.others)}
                if (encoded := _bytes(text)) not in known:
                    self.others.append((kind, encoded))


class Task(ABC):
    """Items of one kind. group: the name under which reports count it with others; choices: of an item."""

    group: str
    choices: int = 4

    @abstractmethod
    def question(self, text: LanguageText, rng: random.Random) -> Question | None:
        """Returns a question that is drawn; None where what was drawn does not make one."""

    def items(self, name: str, text: LanguageText, n: int, seed: int) -> Iterator[Item]:
        """Yields up to n different items; fewer where the text has no more."""
        rng = random.Random(f"{seed}/{name}/{text.language}")
        seen, missed = set[tuple[bytes, bytes]](), 0
        while missed < TRIES and len(seen) < n:
            question = self.question(text, rng)
            key = (question.context, question.answer) if question is not None else None
            if question is None or key is None or key in seen or len(question.others) < self.choices - 1:
                missed += 1
                continue
            seen.add(key)
            missed = 0
            others = list(islice(question.others, self.choices - 1))
            choices = [(ANSWER, question.answer), *others]
            rng.shuffle(choices)
            yield Item(
                name, text.language, str(len(seen)), question.context, tuple(one for _, one in choices),
                tuple(kind for kind, _ in choices),
            )  # fmt: skip


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
