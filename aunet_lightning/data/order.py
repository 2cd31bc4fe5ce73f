"""The order of documents in an epoch's stream of ids, from the seed and the epoch alone.

Each class has `n_rows`, the rows of an epoch, and returns for an epoch its documents in order, with the place of each
one's BOS in the stream (int64, both [n]). The last document may have come to its end only in the next epoch, and the
first have begun in the one before: its place is then below 0.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import numpy as np

Placed = tuple[np.ndarray, np.ndarray]  # documents, and where each begins


class Order(Protocol):
    """Documents of each epoch, and where they begin."""

    whole: bool  # whether a document that would begin at a row's last target begins in the next row instead

    @property
    def n_rows(self) -> int:
        """Rows of an epoch."""

    def __call__(self, epoch: int) -> Placed:
        """Returns the epoch's documents in order, and the places of their BOS."""


class InTurn:
    """All documents once an epoch, shuffled by the seed (None: as they are).

    sizes: ids of each document of the corpus, BOS and EOS among them; row: ids of a row. With `whole`, a document
    begins in a row that has room for all of it, or else at the beginning of one.
    """

    def __init__(
        self, documents: np.ndarray, sizes: np.ndarray, row: int, seed: int | None = None, whole: bool = False
    ) -> None:
        self.documents, self.sizes, self.row, self.seed, self.whole = documents, sizes, row, seed, whole

    @cached_property
    def n_rows(self) -> int:
        if not len(self.documents):
            return 0
        sizes = self.sizes[self.documents]
        stream = int(self._starts(sizes)[-1] + sizes[-1]) if self.whole else int(sizes.sum())
        return -(-(stream - 1) // self.row)

    def __call__(self, epoch: int) -> Placed:
        documents = self.documents
        if self.seed is not None:
            documents = np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(documents)
        return documents, self._starts(self.sizes[documents])

    def _starts(self, sizes: np.ndarray) -> np.ndarray:
        """Returns where in the stream documents of these sizes begin, int64 [n]."""
        if not self.whole:
            return np.cumsum(sizes) - sizes
        starts, at, row = np.empty(len(sizes), np.int64), 0, self.row
        for i, size in enumerate(sizes.tolist()):
            if at % row + size - 1 > row:  # its EOS is only predicted
                at = -(-at // row) * row
            starts[i] = at
            at += size
            if (at - 1) % row == 0:  # its EOS is the last target of the row before
                at -= 1
        return starts


class Interleaved:
    """Groups of documents in given shares, without end: each is read from its beginning to its end, in a new order
    each time.

    Of group g, the document that begins at id x of the group's own stream is due at x ÷ share; what is due first comes
    first. So after any number of ids each group has had its share of them but for one document, an epoch goes on where
    the last one stopped, and a document comes again only when all others of its group have come.

    groups: the documents of each; shares: of each, sum 1; sizes: as `InTurn`; epoch: ids of an epoch, rounded to
    batches of `batch` rows of `row` ids, at least one.
    """

    whole = False

    def __init__(
        self, groups: Sequence[np.ndarray], shares: Sequence[float], sizes: np.ndarray, row: int, batch: int,
        epoch: float, seed: int,
    ) -> None:  # fmt: skip
        self.groups, self.shares, self.sizes, self.seed = groups, shares, sizes, seed
        self.n_rows = max(round(epoch / (row * batch)), 1) * batch
        self._length = self.n_rows * row
        self._longest = sum(int(sizes[group].max()) for group in groups)

    def __call__(self, epoch: int) -> Placed:
        begin, end = epoch * self._length, (epoch + 1) * self._length + 1  # one more, for the last target
        since = max(begin - self._longest, 0)  # all ids of what is due before then come before this epoch
        before, due, documents = 0, [], []
        for number in range(len(self.groups)):
            earlier, when, found = self._due(number, since, end)
            before += earlier
            due.append(when)
            documents.append(found)
        order = np.argsort(np.concatenate(due), kind="stable")
        placed = np.concatenate(documents)[order]
        sizes = self.sizes[placed]
        return placed, before - begin + np.cumsum(sizes) - sizes

    def _due(self, number: int, since: int, end: int) -> tuple[int, np.ndarray, np.ndarray]:
        """Returns the ids of a group's documents that are due before `since`, and when those up to `end` are due."""
        group, share = self.groups[number], self.shares[number]
        total = int(self.sizes[group].sum())
        first = max(int(since * share / total) - 1, 0)  # one less: of rounding
        before, due, documents = first * total, [], []
        for turn in range(first, int(end * share / total) + 2):
            seed = np.random.SeedSequence([self.seed, number, turn])
            shuffled = np.random.Generator(np.random.Philox(seed)).permutation(group)
            sizes = self.sizes[shuffled]
            when = (turn * total + np.cumsum(sizes) - sizes) / share
            before += int(sizes[when < since].sum())
            here = (when >= since) & (when < end)
            due.append(when[here])
            documents.append(shuffled[here])
        return before, np.concatenate(due), np.concatenate(documents)
