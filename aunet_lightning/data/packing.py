"""Documents packed into rows, rows into batches: batch k of an epoch is a pure function of the seed and k.

Which pieces of documents a row holds is the order's business (`data.order`). Documents are BOS bytes EOS, and a row
predicts the L ids that follow its own, so that every byte is predicted exactly once an epoch. Batches read the rows in
parallel lanes, so that the rows of one batch come from different documents, and a lane's next row continues where its
last one stopped. A row that begins inside a document may read a context: ids before it, which it predicts nothing of.

Where documents are kept whole, the part of a document in a row does not depend on its neighbours, and where documents
do not see each other, nor does its score.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from aunet_lightning.data.order import Order, Piece
from aunet_lightning.data.token_ids import Ids
from aunet_lightning.data.words import WordMarks
from aunet_lightning.reader.levels import AROUND
from aunet_lightning.reader.reader import Reader
from aunet_lightning.vocabulary import BOS, EOS, IGNORE
from splitters import Splitter
from splitters.teachers import Teacher

Batch = dict[str, Any]
KEYS = ("ids", "levels", "marks", "targets", "documents", "languages", "sizes")
# Bits of `marks`: s is the teacher of transition s; 12 and 13 are those of `words`.
REFERENCE = 14  # the rule that units are compared with
Marks = Mapping[int, Splitter | Teacher]  # by bit
REFRESH = 11  # bytes that make the vector of their unit anew


class Texts(Protocol):
    """Documents by number, as a corpus has them."""

    lengths: np.ndarray
    """int64 [n], bytes"""
    languages: np.ndarray
    """int32 [n], an index into language_names"""
    language_names: list[str]

    def text(self, document: int) -> np.ndarray:
        """Returns the bytes of a document, uint8."""


class PackedBatches(Dataset[Batch]):
    """Batch k of epoch e is `self[e, k]`:

    `ids` int64 [B, L]; `levels` uint8 [B, L]; `marks` int16 [B, L], bit k where `marks[k]` has a
    boundary, and those of `words`; `targets` int64 [B, L], IGNORE where nothing is to be predicted (BOS, padding);
    `documents` int64 [B, L], the number of the document that the target belongs to, -1 where ignored;
    `languages` int64 [B, L] likewise; `sizes` int16 [B, L], the bytes of text that the target is: 1, of a token
    as many as it has, of EOS and where nothing is to be predicted 0;
    `n_units`, a list of ints per transition whose rule reads bytes: the units that begin in each row there, as the
    network counts them where no cap leaves any out. (Ints stay on the host, so that shapes are known without a read.)
    `n_refreshes`, where the splitter refreshes units: the list of how often it does in each row.
    `n_context`, where rows read contexts: the list of the positions that each row begins with and that predict nothing.

    context_ids: at most so many; of bytes, a context begins where a character does.
    """

    def __init__(
        self,
        corpus: Texts,
        ids: Ids,
        order: Order,
        reader: Reader,
        row_bytes: int,
        batch_rows: int,
        rank: int = 0,
        world: int = 1,
        marks: Marks | None = None,
        words: WordMarks | None = None,
        context_ids: int = 0,
    ) -> None:
        self.words, self.context_ids = words, context_ids
        self.marks = dict(marks or {})
        if reader.stack.refreshes is not None:
            self.marks[REFRESH] = reader.stack.refreshes
        self.corpus, self.order, self.reader = corpus, order, reader
        self.ids, self.sizes = ids, reader.sizes
        self.row_bytes, self.batch_rows = row_bytes, batch_rows
        self.rank, self.world = rank, world
        self._split: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()

    @property
    def n_rows(self) -> int:
        """Rows per epoch."""
        return self.order.n_rows

    def __len__(self) -> int:
        """Batches per epoch."""
        return -(-self.n_rows // self.batch_rows)

    def __getitem__(self, index: tuple[int, int]) -> Batch:
        epoch, k = index
        lanes = range(self.rank, self.batch_rows, self.world)
        rows = [r for r in (lane * len(self) + k for lane in lanes) if r < self.n_rows]
        # Every rank needs a row, if only of padding.
        pieces = [self.order.pieces(epoch, r) for r in rows] or [[]]
        arrays = self._arrays(pieces)
        batch: Batch = {key: torch.from_numpy(array) for key, array in arrays.items()}
        batch["n_units"] = [_units(arrays["levels"], s) for s in range(self.reader.stack.n_byte_rules)]
        if REFRESH in self.marks:  # never the first byte, which begins a unit
            batch["n_refreshes"] = np.count_nonzero(arrays["marks"][:, 1:] >> REFRESH & 1, axis=1).tolist()
        if self.context_ids:
            batch["n_context"] = [self._context(row) for row in pieces]
        return batch

    def row(self, epoch: int, r: int) -> dict[str, np.ndarray]:
        """Returns row r unpadded: ids, levels, marks, targets, documents, languages and sizes, each [≤ L]."""
        return {key: array[0] for key, array in self._arrays([self.order.pieces(epoch, r)]).items()}

    def _arrays(self, rows: Sequence[Sequence[Piece]]) -> dict[str, np.ndarray]:
        """Returns the arrays of a batch, each [B, L], rows padded to the longest.

        What a row ends with is only predicted.
        """
        contexts = [self._context(row) for row in rows]
        ends = [n + sum(until - since for _, since, until in row) for n, row in zip(contexts, rows, strict=True)]
        shape = len(rows), max([2, *ends])
        stream, documents = np.full(shape, EOS, np.int64), np.full(shape, -1, np.int64)
        levels, marks = np.zeros(shape, np.uint8), np.zeros(shape, np.int16)
        for i, (n, row) in enumerate(zip(contexts, rows, strict=True)):
            at, before = 0, n
            for document, first, until in row:
                since, before = first - before, 0
                here = i, slice(at, at := at + until - since)
                self._read(document, since, until, stream[here])
                level, mark = self._boundaries(document)
                levels[here], marks[here], documents[here] = level[since:until], mark[since:until], document
            documents[i, : n + 1] = -1  # the first id after a context is the last target of the row before
        targets, document_of = stream[:, 1:].copy(), documents[:, 1:]
        ignored = (targets == BOS) | (document_of < 0)
        sizes, languages = self.sizes[targets], self.corpus.languages[document_of].astype(np.int64)
        targets[ignored] = IGNORE
        sizes[ignored], languages[ignored] = 0, -1
        for i, end in enumerate(ends):
            stream[i, max(end - 1, 0) :], levels[i, max(end - 1, 0) :], marks[i, max(end - 1, 0) :] = EOS, 0, 0
        read = (np.ascontiguousarray(array[:, :-1]) for array in (stream, levels, marks))
        predicted = targets, np.where(ignored, -1, document_of), languages, sizes
        return dict(zip(KEYS, (*read, *predicted), strict=True))

    def _context(self, row: Sequence[Piece]) -> int:
        """Returns how many ids a row reads before its first piece."""
        if not self.context_ids or not row or row[0].until - row[0].since < 2:  # of which it predicts nothing
            return 0
        document, since, _ = row[0]
        begin = max(since - self.context_ids, 0)
        if self.reader.tokenizer is None and begin:
            text = self.ids.ids(document)  # id 1 is its first byte
            while begin < since and text[begin - 1] & 0xC0 == 0x80:
                begin += 1
        return since - begin

    def _read(self, document: int, since: int, until: int, into: np.ndarray) -> None:
        """Puts BOS, the ids and EOS of a document, from `since` to `until` (BOS is 0), into an array of that length. No
        more of it is read."""
        ids = self.ids.ids(document)
        if since == 0:
            into[0] = BOS
        if until == len(ids) + AROUND:
            into[-1] = EOS
        into[max(1 - since, 0) : len(ids) + 1 - since] = ids[max(since - 1, 0) : until - 1]

    def _boundaries(self, document: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns levels and marks of a complete document, with BOS and EOS."""
        if document not in self._split:
            ids = self.ids.ids(document)
            marks = np.zeros(len(ids) + AROUND, np.int16)
            for bit, marker in self.marks.items():
                marks[1:-1] |= marker.split(self.corpus.text(document).tobytes()).astype(bool).astype(np.int16) << bit
            self._split[document] = self.reader.document_levels(ids), marks
            if self.words is not None:
                marks[1:-1] |= self.words.marks(document, len(ids))
            # One open document per lane, so that a long one is split once and not once per row.
            if len(self._split) > 2 * self.batch_rows:
                self._split.popitem(last=False)
        self._split.move_to_end(document)
        return self._split[document]

    def drawn(self, epoch: int, k: int) -> np.ndarray:
        """Returns the bytes of text of each language that the first k batches of an epoch predict, all ranks together.

        int64 [languages]. Of a document whose ids are tokens, bytes are counted in proportion.
        """
        lanes = [min(lane * len(self), self.n_rows) for lane in range(self.batch_rows)]
        documents, ids = self.order.predicted(epoch, [(begin, min(begin + k, self.n_rows)) for begin in lanes])
        of_text = ids * self.corpus.lengths[documents] / np.maximum(self.ids.lengths[documents], 1)
        names = len(self.corpus.language_names)
        return np.rint(np.bincount(self.corpus.languages[documents], of_text, names)).astype(np.int64)


def _units(levels: np.ndarray, s: int) -> list[int]:
    """levels [B, L] → the units that begin at transition s in each row: the first position begins one at any level."""
    return [1 + n for n in np.count_nonzero(levels[:, 1:] > s, axis=1).tolist()]


def refreshes_of(batch: Batch) -> Tensor | None:
    """Returns where the splitter refreshes units, bool [B, L]; None where it has none."""
    return marked(batch, REFRESH) if "n_refreshes" in batch else None


def context_of(batch: Batch) -> Tensor | None:
    """Returns where a row reads its context, bool [B, L]; None where no row has one."""
    if not any(n_context := batch.get("n_context", ())):
        return None
    ids = batch["ids"]
    return torch.arange(ids.shape[1], device=ids.device) < torch.tensor(n_context, device=ids.device)[:, None]


def marked(batch: Batch, bit: int) -> Tensor:
    """Returns where the marker of this bit has a boundary, bool [B, L]."""
    return (batch["marks"] >> bit) & 1 == 1
