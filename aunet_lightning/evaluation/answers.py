"""How a model answers items: it chooses the text with the fewest bits per byte after the context."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import not_
from typing import NamedTuple

from aunet_lightning.evaluation.items import COPY, Item
from aunet_lightning.evaluation.shared_context import bits_of_choices, can_share
from aunet_lightning.evaluation.task import group_of
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.reader.reader import Reader
from aunet_lightning.scoring import ROW, Continuation, score
from aunet_lightning.tracking.names import metric_name

Z = 1.959964  # of a 95 % interval
AT_ONCE = 256  # items that are sorted by length together


class Answered(NamedTuple):
    """An item, and the bits of each choice."""

    item: Item
    bits: tuple[float, ...]

    @property
    def chosen(self) -> int:
        """The index of the choice with the fewest bits per byte; of equal ones the last that is not the answer."""
        rates = [bits / len(choice) for bits, choice in zip(self.bits, self.item.choices, strict=True)]
        return self._lowest(rates)

    @property
    def chosen_by_bits(self) -> int:
        """The same by all bits of a choice, which favours short ones."""
        return self._lowest(self.bits)

    def _lowest(self, values: Sequence[float]) -> int:
        return min(range(len(values)), key=lambda i: (values[i], i == self.item.answer, -i))


def answers(net: AUNet, reader: Reader, items: Sequence[Item], row_ids: int = ROW) -> Iterator[Answered]:
    """Yields each item with the bits of its choices after its context, as `aunet score` counts them.

    net: in evaluation mode. Raises ValueError where a BPE model cannot read a choice.
    """
    for begin in range(0, len(items), AT_ONCE):
        some = items[begin : begin + AT_ONCE]
        sharing = [can_share(net, reader, item, row_ids) for item in some]
        known = iter(bits_of_choices(net, reader, [*compress(some, sharing)]))
        others = compress(some, map(not_, sharing))
        apart = (Continuation(one.context, choice) for one in others for choice in one.choices)
        scores = score(net, reader, apart, row_ids)
        for item, shares in zip(some, sharing, strict=True):
            yield Answered(item, next(known) if shares else tuple(next(scores).bits for _ in item.choices))


def shortened(reader: Reader, items: Sequence[Item], row_ids: int) -> int:
    """Returns how many items have no room in a row, which then has the end of their context alone."""
    whole = reader.encode([item.context + max(item.choices, key=len) for item in items])
    return sum(len(ids) > row_ids + 1 for ids in whole)  # which it reads beside BOS


@dataclass
class Tally:
    """Counts over items of a task in a language."""

    n: int = 0
    right: int = 0
    right_by_bits: int = 0
    copies: int = 0  # the input as it is was chosen
    chance: float = 0.0  # sum over items

    def add(self, one: Answered) -> None:
        item = one.item
        self.n += 1
        self.right += one.chosen == item.answer
        self.right_by_bits += one.chosen_by_bits == item.answer
        self.copies += item.kinds[one.chosen] == COPY
        self.chance += 1 / len(item.choices)

    @property
    def accuracy(self) -> float:
        return self.right / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy (Wilson's)."""
        n, p = self.n, self.accuracy
        middle, width = p + Z * Z / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
        return (middle - width) / (1 + Z * Z / n), (middle + width) / (1 + Z * Z / n)


def as_metrics(tallies: Mapping[tuple[str, str], Tally]) -> dict[str, float]:
    """Returns the share of right answers of each group of tasks in each language as a metric."""
    groups: dict[tuple[str, str], list[Tally]] = {}
    for (task, language), one in tallies.items():
        groups.setdefault((group_of(task), language), []).append(one)
    return {
        f"eval/{metric_name(group)}_{metric_name(language)}": sum(one.right for one in of) / sum(one.n for one in of)
        for (group, language), of in groups.items()
    }


def table(tallies: Mapping[tuple[str, str], Tally]) -> list[list[str]]:
    """Returns a row for each task in each language, under a header."""
    rows = [["task", "language", "items", "right", "95 %", "chance", "copies", "by all bits"]]
    for (task, language), one in sorted(tallies.items()):
        low, high = one.interval
        rows.append([
            task, language, f"{one.n}", f"{one.accuracy:.1%}", f"{low:.1%} to {high:.1%}", f"{one.chance / one.n:.1%}",
            f"{one.copies / one.n:.1%}", f"{one.right_by_bits / one.n:.1%}",
        ])  # fmt: skip
    return rows


def tallied(answered: Iterable[Answered]) -> dict[tuple[str, str], Tally]:
    """Returns the counts by (task, language)."""
    found: dict[tuple[str, str], Tally] = {}
    for one in answered:
        found.setdefault((one.item.task, one.item.language), Tally()).add(one)
    return found
