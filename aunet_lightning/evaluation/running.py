"""Answers to files of items, kept in a file line by line, so that a stopped evaluation continues."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple, TextIO

from aunet_lightning.checkpoints.contents import Contents
from aunet_lightning.checkpoints.forms import weights_digest
from aunet_lightning.evaluation.answers import Answered, answers
from aunet_lightning.evaluation.items import Item
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.reader.reader import Reader

AT_ONCE = 256  # items between writes


class Asked(NamedTuple):
    """What is asked of which model: a file of answers belongs to one model and one length of rows."""

    net: AUNet
    reader: Reader
    model: str  # see `model_digest`
    row_ids: int


def model_digest(net: AUNet, contents: Contents) -> str:
    """Returns a digest of weights, and of how they read text: equal for all files that hold this model, as a run that
    has ended writes its checkpoint anew where it is continued."""
    reads = json.dumps([asdict(net.config), list(contents.splitters), contents.tokenizer], sort_keys=True, default=str)
    weights = weights_digest({name: weight.cpu() for name, weight in net.state_dict().items()})
    return hashlib.sha256(f"{reads} {weights}".encode()).hexdigest()


def answered(asked: Asked, items: Sequence[Item], out: Path | None) -> Iterator[Answered]:
    """Yields all items with the bits of their choices; what `out` has of them is read from there, the others are added.

    Raises ValueError where the file has answers of another model.
    """
    known = _known(asked, out) if out is not None else {}
    with _lines(asked, out) as file:
        for begin in range(0, len(items), AT_ONCE):
            some = items[begin : begin + AT_ONCE]
            new = [item for item in some if item_key(item) not in known]
            for one in answers(asked.net, asked.reader, new, asked.row_ids):
                known[item_key(one.item)] = one.bits
                if file is not None:
                    line = {"task": one.item.task, "language": one.item.language, "id": one.item.id}
                    chosen = {"chosen": one.item.kinds[one.chosen], "right": one.chosen == one.item.answer}
                    file.write(json.dumps(line | chosen | {"bits": one.bits, "item": item_key(one.item)}) + "\n")
            if file is not None:
                file.flush()
            yield from (Answered(item, known[item_key(item)]) for item in some)


def item_key(item: Item) -> str:
    """A digest of an item's contents."""
    return hashlib.sha256(item.as_json().encode()).hexdigest()[:16]


def _header(asked: Asked) -> dict[str, object]:
    return {"model": asked.model, "row_ids": asked.row_ids}


def _known(asked: Asked, out: Path) -> dict[str, tuple[float, ...]]:
    if not out.exists():
        return {}
    first, *lines = out.read_text(encoding="utf-8").splitlines() or [""]
    try:
        header = json.loads(first)
    except ValueError:
        header = None
    if header != _header(asked):
        raise ValueError(f"{out} has answers of another model, or with other rows: name another --out, or delete it")
    found = {}
    for line in lines:
        try:
            one = json.loads(line)
            found[one["item"]] = tuple(one["bits"])
        except (ValueError, KeyError):  # cut where a process was killed
            continue
    return found


@contextmanager
def _lines(asked: Asked, out: Path | None) -> Iterator[TextIO | None]:
    """The open file of answers, begun where it is new and mended where its last line was cut."""
    if out is None:
        yield None
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    text = out.read_text(encoding="utf-8") if out.exists() else json.dumps(_header(asked)) + "\n"
    whole = text[: text.rfind("\n") + 1]
    if not out.exists() or whole != text:
        out.write_text(whole, encoding="utf-8")
    with out.open("a", encoding="utf-8") as file:
        yield file
