"""The rows of an epoch: which pieces of documents each one holds, from the seed and the epoch alone.

A document is BOS, its ids and EOS. A row reads `row` ids and predicts the one after each, so it holds one more, which
the next row reads. `sizes` are the ids of each document of a corpus, BOS and EOS among them.
"""

from abc import ABC, abstractmethod
from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from aunet_lightning.data.token_ids import Ids
from aunet_lightning.reader.levels import AROUND

Rows = Literal["stream", "documents"]


class Piece(NamedTuple):
    """A part of a document: its ids from `since` to `until`, where BOS is 0."""

    document: int
    since: int
    until: int


class Order(ABC):
    """The rows of each epoch; as many in each."""

    @property
    @abstractmethod
    def n_rows(self) -> int:
        """Rows of an epoch."""

    @abstractmethod
    def pieces(self, epoch: int, r: int) -> list[Piece]:
        """Returns the pieces of documents in row r, the last target among them."""

    @abstractmethod
    def predicted(self, epoch: int, spans: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
        """Returns documents, and how many of each one's ids (without BOS and EOS) rows in these spans predict.

        A document may come more than once.
        """

    @abstractmethod
    def inside(self) -> float:
        """Returns the share of an epoch's rows that begin inside a document, of which they do not see what comes
        before."""


class Laid(Order):
    """Documents one after the other in a stream of ids, which rows cut at every `row` ids."""

    whole = False  # whether a document that would begin at a row's last target begins in the next row instead

    def __init__(self, sizes: np.ndarray, row: int) -> None:
        self.sizes, self.row = sizes, row
        self._last: tuple[int, tuple[np.ndarray, np.ndarray]] | None = None

    @abstractmethod
    def _lay(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns an epoch's documents in order, and the place of each one's BOS in the stream, int64 [n]."""

    def laid(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns what `_lay` does, which is kept for an epoch."""
        if self._last is None or self._last[0] != epoch:
            self._last = (epoch, self._lay(epoch))
        return self._last[1]

    def pieces(self, epoch: int, r: int) -> list[Piece]:
        documents, starts = self.laid(epoch)
        begin, end = r * self.row, (r + 1) * self.row + 1  # one more, for the last target
        first = int(np.searchsorted(starts, begin, side="right")) - 1
        found = []
        for place in range(first, len(documents)):
            start = int(starts[place])
            if start >= end - self.whole:
                break
            document = int(documents[place])
            found.append(Piece(document, max(begin - start, 0), min(end - start, int(self.sizes[document]))))
        return found

    def predicted(self, epoch: int, spans: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
        documents, starts = self.laid(epoch)
        first, ids = starts + 1, self.sizes[documents] - AROUND
        found = np.zeros(len(documents), np.int64)
        for begin, end in spans:
            since, until = begin * self.row + 1, end * self.row + 1  # targets: one further
            found += np.clip(until - first, 0, ids) - np.clip(since - first, 0, ids)
        return documents, found

    def inside(self) -> float:
        _, starts = self.laid(0)
        begins = np.arange(self.n_rows) * self.row
        return 1 - float(np.isin(begins, starts).mean())


class InTurn(Laid):
    """All documents once an epoch, shuffled by the seed (None: as they are).

    With `whole`, a document begins in a row that has room for all of it, or else at the beginning of one.
    """

    def __init__(
        self, documents: np.ndarray, sizes: np.ndarray, row: int, seed: int | None = None, whole: bool = False
    ) -> None:
        super().__init__(sizes, row)
        self.documents, self.seed, self.whole = documents, seed, whole

    @cached_property
    def n_rows(self) -> int:
        if not len(self.documents):
            return 0
        sizes = self.sizes[self.documents]
        stream = int(self._starts(sizes)[-1] + sizes[-1]) if self.whole else int(sizes.sum())
        return -(-(stream - 1) // self.row)

    def _lay(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        documents = self.documents
        if self.seed is not None:
            documents = np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(documents)
        return documents, self._starts(self.sizes[documents])

    def _starts(self, sizes: np.ndarray) -> np.ndarray:
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


class Interleaved(Laid):
    """Groups of documents in given shares, without end: each is read from its beginning to its end, in a new order
    each time.

    Of group g, the document that begins at id x of the group's own stream is due at x ÷ share; what is due first comes
    first. So after any number of ids each group has had its share of them but for one document, an epoch continues
    where the last one stopped, and a document comes again only when all others of its group have come.

    groups: the documents of each; shares: of each, sum 1; epoch: ids of an epoch, rounded to batches of `batch` rows,
    at least one.
    """

    def __init__(
        self, groups: Sequence[np.ndarray], shares: Sequence[float], sizes: np.ndarray, row: int, batch: int,
        epoch: float, seed: int,
    ) -> None:  # fmt: skip
        super().__init__(sizes, row)
        self.groups, self.shares, self.seed = groups, shares, seed
        self._rows = max(round(epoch / (row * batch)), 1) * batch
        self._longest = sum(int(sizes[group].max()) for group in groups)

    @property
    def n_rows(self) -> int:
        return self._rows

    def _lay(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        length = self.n_rows * self.row
        begin, end = epoch * length, (epoch + 1) * length + 1  # one more, for the last target
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


class Fitted(Order):
    """All documents once an epoch, in rows that fit them: the longest first, each into the row in which it leaves the
    least room (best fit, decreasing).

    A longer document fills rows of its own, one after the other, and its rest is fitted. `cut` (document, id) returns
    the last id, up to that one, after which it may be cut. What a row holds is the same in each epoch; the order of
    rows is drawn from the seed.
    """

    def __init__(
        self, documents: np.ndarray, sizes: np.ndarray, row: int, seed: int, cut: Callable[[int, int], int]
    ) -> None:
        self.sizes, self.row, self.seed = sizes, row, seed
        shuffled = np.random.Generator(np.random.Philox(seed)).permutation(documents)
        rows, chains = self._fitted(shuffled, cut)
        self._pieces = np.array([piece for pieces in rows for piece in pieces], np.int64).reshape(-1, 3)
        self._begins = np.cumsum([0, *map(len, rows)])  # of rows, among pieces
        self._chained = np.array([r for chain in chains for r in chain], np.int64)
        self._chains = np.cumsum([0, *map(len, chains)])  # of chains, among _chained
        self._last: tuple[int, np.ndarray] | None = None

    def _fitted(
        self, documents: np.ndarray, cut: Callable[[int, int], int]
    ) -> tuple[list[list[Piece]], list[list[int]]]:
        """Returns rows, and chains of those that follow each other."""
        rows, chains, most = list[list[Piece]](), list[list[int]](), self.row + 1
        rests: list[tuple[Piece, list[int]]] = []  # with the rows before it
        for document, size in zip(documents.tolist(), self.sizes[documents].tolist(), strict=True):
            since, chain = 0, list[int]()
            while size - since > most:
                until = cut(document, since + self.row) + 1
                chain.append(len(rows))
                rows.append([Piece(document, since, until)])
                since = until - 1  # its last target, which the next row reads
            rests.append((Piece(document, since, size), chain))
        rests.sort(key=lambda rest: rest[0].since - rest[0].until)
        free, rooms = dict[int, list[int]](), list[int]()  # rows by the room that is left; the rooms there are, sorted
        for piece, chain in rests:
            size = piece.until - piece.since
            at = len(rooms) if chain else bisect_left(rooms, size)  # a chain's end comes first in its row
            if at == len(rooms):
                r, room = len(rows), most
                rows.append([])
                chains.append([*chain, r])
            else:
                room = rooms[at]
                r = free[room].pop()
                if not free[room]:
                    del rooms[at], free[room]
            rows[r].append(piece)
            room -= size
            if room not in free:
                insort(rooms, room)
            free.setdefault(room, []).append(r)
        return rows, chains

    @property
    def n_rows(self) -> int:
        return len(self._begins) - 1

    def _placed(self, epoch: int) -> np.ndarray:
        """Returns the rows of an epoch in order."""
        if self._last is None or self._last[0] != epoch:
            chains = np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(len(self._chains) - 1)
            self._last = epoch, self._chained[_joined(self._chains, chains)]
        return self._last[1]

    def pieces(self, epoch: int, r: int) -> list[Piece]:
        row = self._placed(epoch)[r]
        return [Piece(*piece) for piece in self._pieces[self._begins[row] : self._begins[row + 1]].tolist()]

    def predicted(self, epoch: int, spans: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
        rows = self._placed(epoch)
        chosen = np.concatenate([rows[begin:end] for begin, end in spans])
        documents, since, until = self._pieces[_joined(self._begins, chosen)].T
        return documents, np.minimum(until - 1, self.sizes[documents] - AROUND) - since

    def inside(self) -> float:
        return float((self._pieces[self._begins[:-1], 1] > 0).mean())


def shuffled(rows: Rows, ids: Ids, documents: np.ndarray, row: int, seed: int, of_bytes: bool) -> Order:
    """Returns all documents once an epoch, one after the other ("stream") or fitted into rows ("documents").

    of_bytes: whether ids are bytes, so that a long document is cut between characters.
    """
    sizes = ids.lengths + AROUND
    if rows == "stream":
        return InTurn(documents, sizes, row, seed)

    def cut(document: int, at: int) -> int:
        text = ids.ids(document)  # id 1 is its first byte
        if not of_bytes or at >= len(text):
            return at
        return next((one for one in range(at, at - min(row, 4), -1) if text[one] & 0xC0 != 0x80), at)

    return Fitted(documents, sizes, row, seed, cut)


def _joined(begins: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Returns the indices of all members of the chosen groups, of which group g has begins[g] … begins[g + 1] - 1."""
    lengths = begins[chosen + 1] - begins[chosen]
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(begins[chosen] - (ends - lengths), lengths)
