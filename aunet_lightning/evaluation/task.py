"""What a task is: a rule that makes items of a language's text."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from itertools import islice

from aunet_lightning.evaluation.items import ANSWER, Item
from aunet_lightning.evaluation.language_text import TRIES, LanguageText
from aunet_lightning.registry import Registry

_AT = "aunet_lightning.evaluation"
TASKS = Registry(
    "task",
    f"{_AT}.task:Task",
    {
        "spell": f"{_AT}.spelling:Spell",
        "spell_made_up": f"{_AT}.spelling:SpellMadeUp",
        "unspell": f"{_AT}.spelling:Unspell",
        "unspell_made_up": f"{_AT}.spelling:UnspellMadeUp",
        "contains_character": f"{_AT}.spelling:ContainsCharacter",
        "contains_character_made_up": f"{_AT}.spelling:ContainsCharacterMadeUp",
        "contains_word": f"{_AT}.spelling:ContainsWord",
        "insert_character": f"{_AT}.edits:InsertCharacter",
        "insert_character_made_up": f"{_AT}.edits:InsertCharacterMadeUp",
        "insert_word": f"{_AT}.edits:InsertWord",
        "delete_character": f"{_AT}.edits:DeleteCharacter",
        "delete_character_made_up": f"{_AT}.edits:DeleteCharacterMadeUp",
        "delete_word": f"{_AT}.edits:DeleteWord",
        "substitute_character": f"{_AT}.edits:SubstituteCharacter",
        "substitute_character_made_up": f"{_AT}.edits:SubstituteCharacterMadeUp",
        "substitute_word": f"{_AT}.edits:SubstituteWord",
        "swap_characters": f"{_AT}.edits:SwapCharacters",
        "swap_characters_made_up": f"{_AT}.edits:SwapCharactersMadeUp",
        "swap_words": f"{_AT}.edits:SwapWords",
        "jamo": f"{_AT}.parts:Jamo",
        "components": f"{_AT}.parts:Components",
        "characters_exchanged": f"{_AT}.pairs:CharactersExchanged",
        "character_dropped": f"{_AT}.pairs:CharacterDropped",
        "look_alike": f"{_AT}.pairs:LookAlike",
        "words_exchanged": f"{_AT}.pairs:WordsExchanged",
        "blank_moved": f"{_AT}.pairs:BlankMoved",
        "blank_missing": f"{_AT}.pairs:BlankMissing",
        "broken_bytes": f"{_AT}.pairs:BrokenBytes",
    },
)


def group_of(task: str) -> str:
    """Returns the group of a task; of one that is not known here (translation) its own name."""
    try:
        return str(TASKS.get(task).group)
    except ValueError:
        return task


class Question:
    """A context, the right continuation, and others by kind, of which those that are equal to one before are left out.

    key: what tells it from other questions of its task (None: context and answer).
    """

    def __init__(
        self, context: str, answer: str | bytes, others: Mapping[str, str | bytes], key: object = None
    ) -> None:
        self.context, self.answer = context.encode(), _bytes(answer)
        self.key = key if key is not None else (context, answer)
        kinds = {self.answer: ANSWER}
        for kind, other in others.items():
            kinds.setdefault(_bytes(other), kind)
        self.others = [(kind, other) for other, kind in kinds.items() if kind != ANSWER]


class Task(ABC):
    """Items of one kind. group: the name under which reports count it with others; choices: of an item."""

    group: str
    choices: int = 4

    @abstractmethod
    def question(self, text: LanguageText, rng: random.Random, number: int) -> Question | None:
        """Returns a question that is drawn; None where what was drawn does not make one. number: of the item, by which
        what comes in kinds (yes and no) takes turns."""

    def left_out(self, text: LanguageText) -> str:
        """Returns why a text has no items of this task, as a sentence; empty where it has."""
        return ""

    def items(self, name: str, text: LanguageText, n: int, seed: int) -> Iterator[Item]:
        """Yields up to n different items; fewer where the text has no more."""
        if self.left_out(text):
            return
        rng = random.Random(f"{seed}/{name}/{text.language}")
        seen, missed = set[object](), 0
        while missed < TRIES and len(seen) < n:
            question = self.question(text, rng, len(seen))
            if question is None or question.key in seen or len(question.others) < self.choices - 1:
                missed += 1
                continue
            seen.add(question.key)
            missed = 0
            choices = [(ANSWER, question.answer), *islice(question.others, self.choices - 1)]
            rng.shuffle(choices)
            yield Item(
                name, text.language, str(len(seen)), question.context, tuple(one for _, one in choices),
                tuple(kind for kind, _ in choices),
            )  # fmt: skip


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
