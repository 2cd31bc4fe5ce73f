"""Items: a context, and texts of which one is the right one to follow it."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aunet_lightning.data.records import is_unicode

ANSWER, COPY = "answer", "copy"  # kinds of choices: the right one; the input as it is
ERRORS = "surrogateescape"  # how bytes that are not UTF-8 stand in JSON


@dataclass(frozen=True)
class Item:
    """A question with one right answer.

    choices: texts, all different; kinds: what each is, ANSWER once. Both in an order drawn from the seed.
    """

    task: str
    language: str
    id: str  # of its task and language
    context: bytes
    choices: tuple[bytes, ...]
    kinds: tuple[str, ...]

    @property
    def answer(self) -> int:
        """The index of the right choice."""
        return self.kinds.index(ANSWER)

    def as_json(self) -> str:
        """Returns the item as a line of JSON, which `answer` and texts as strings make readable to other programs."""
        fields = asdict(self) | {"answer": self.answer, "context": _shown(self.context)}
        fields["choices"] = [_shown(choice) for choice in self.choices]
        text = json.dumps(fields, ensure_ascii=False)
        return text if is_unicode(text) else json.dumps(fields)  # escapes of what is not UTF-8


def read_items(path: Path) -> Iterator[Item]:
    """Yields the items of a file. Raises ValueError with the line of what is no item."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield _item(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{path}:{number} is not an item of aunet eval make ({type(error).__name__}: {error}): make the "
                    "file again"
                ) from None


def _item(fields: dict[str, Any]) -> Item:
    choices = tuple(choice.encode("utf-8", ERRORS) for choice in fields["choices"])
    item = Item(
        fields["task"], fields["language"], fields["id"], fields["context"].encode("utf-8", ERRORS), choices,
        tuple(fields["kinds"]),
    )  # fmt: skip
    if len(item.kinds) != len(choices) or item.kinds.count(ANSWER) != 1 or len({*choices}) < max(len(choices), 2):
        raise ValueError("it needs two different choices or more, one of which is the answer")
    return item


def write_items(path: Path, items: Iterable[Item]) -> int:
    """Writes a line for each item; returns how many there are."""
    lines = [item.as_json() for item in items]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return len(lines)


def _shown(text: bytes) -> str:
    return text.decode("utf-8", ERRORS)
