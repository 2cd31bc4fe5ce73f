"""Bits of several texts after the same context, which is read once: its state is where each of them begins.

Shapes: R rows of a batch, L ids of the longest text, V ids of the vocabulary.
"""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

from aunet_lightning.evaluation.items import Item
from aunet_lightning.generation.reading import padded, read
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.reader.reader import Reader
from aunet_lightning.scoring import BATCH
from aunet_lightning.vocabulary import BOS, EOS, IGNORE


def can_share(net: AUNet, reader: Reader, item: Item, row_ids: int) -> bool:
    """Returns whether the context of an item can be read before its choices are known: a token may have bytes of both,
    and a context that a row has no room for is cut by the length of the choice."""
    longest = max(map(len, item.choices))
    return reader.tokenizer is None and not net.sharded and len(item.context) + longest <= row_ids


def bits_of_choices(net: AUNet, reader: Reader, items: Sequence[Item]) -> list[tuple[float, ...]]:
    """Returns the bits of each choice of items that `can_share`, as `score` counts them: given BOS and the context."""
    found: dict[int, tuple[float, ...]] = {}
    for numbers in _batches(items):
        some = [items[i] for i in numbers]
        with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
            state = net.initial_state(len(some), reader.stack)
            first, state = read(net, [[BOS, *one.context] for one in some], state)
            bits: list[list[float]] = [[] for _ in some]
            for choice in range(max(len(one.choices) for one in some)):
                rows = [one.choices[choice] if choice < len(one.choices) else b"" for one in some]
                ids, lengths = padded([[*row] for row in rows], first.device)
                after = net(ids, state=state, lengths=lengths).logits  # [R, L, V] of what follows each
                logits = torch.cat([first[:, None], after[:, :-1]], 1).float()
                nats = F.cross_entropy(
                    logits.flatten(0, 1), ids.masked_fill(ids == EOS, IGNORE).flatten(), ignore_index=IGNORE,
                    reduction="none",
                ).view(ids.shape)  # fmt: skip
                for of, row, total in zip(bits, rows, nats.double().sum(1).tolist(), strict=True):
                    of.extend([total / math.log(2)] if row else [])
        found |= zip(numbers, map(tuple, bits), strict=True)
    return [found[i] for i in range(len(items))]


def _batches(items: Sequence[Item]) -> Iterator[list[int]]:
    """Yields numbers of items with contexts of similar length, as many as make a batch with their padding."""
    some: list[int] = []
    for i in sorted(range(len(items)), key=lambda i: -len(items[i].context)):
        if some and (len(some) + 1) * (len(items[some[0]].context) + 1) > BATCH:
            yield some
            some = []
        some.append(i)
    if some:
        yield some
