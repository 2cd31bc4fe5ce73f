"""Answers to files of items, kept in a file line by line, so that a stopped evaluation continues."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from aunet_lightning.checkpoints.contents import Contents
from aunet_lightning.checkpoints.forms import weights_digest
from aunet_lightning.evaluation.answers import Answered, answers
from aunet_lightning.evaluation.items import Item
from aunet_lightning.evaluation.kept import Kept, key_of
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

    Raises ValueError where the file has answers of another model, or with other rows.
    """
    with Kept(out, {"model": asked.model, "row_ids": asked.row_ids}) as kept:
        yield from kept_answers(asked.net, asked.reader, items, asked.row_ids, kept)


def kept_answers(net: AUNet, reader: Reader, items: Sequence[Item], row_ids: int, kept: Kept) -> Iterator[Answered]:
    """Yields all items with the bits of their choices, as `answered`."""
    known = {line["item"]: tuple(line["bits"]) for line in kept.lines if "item" in line}
    for begin in range(0, len(items), AT_ONCE):
        some = items[begin : begin + AT_ONCE]
        new = [item for item in some if item_key(item) not in known]
        for one in answers(net, reader, new, row_ids):
            known[item_key(one.item)] = one.bits
            line = {"task": one.item.task, "language": one.item.language, "id": one.item.id}
            chosen = {"chosen": one.item.kinds[one.chosen], "right": one.chosen == one.item.answer}
            kept.add(line | chosen | {"bits": one.bits, "item": item_key(one.item)})
        kept.flush()
        yield from (Answered(item, known[item_key(item)]) for item in some)


def item_key(item: Item) -> str:
    """A digest of an item's contents."""
    return key_of(item.as_json().encode())
