"""Scores of text: the bits of each byte given those before it in its document, as `aunet predict` counts them.

A document is read as BOS and its ids, alone in its row. What is counted is its text: EOS is not, nor are BOS and what a
context holds. A document longer than a row continues in further rows, and each of its ids is scored once.
Shapes: B rows of a batch, L ids, V ids of the vocabulary, n bytes of a text.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from aunet_lightning.model.aunet import AUNet
from aunet_lightning.numbers import Range, check
from aunet_lightning.reader.reader import Reader
from aunet_lightning.vocabulary import BOS, EOS, IGNORE

ROW = 1024  # ids of a row where training is not known to have read others
BATCH, LOGITS = 16_384, 1 << 26  # ids of a batch, and logits of one, at most
WINDOW = 16  # batches whose rows are sorted by length together


class Continuation(NamedTuple):
    """A text with what comes before it: `context` is read and not scored, `text` is scored given it."""

    context: bytes
    text: bytes


@dataclass(frozen=True)
class Score:
    """The score of a text of n bytes."""

    surprisal: np.ndarray
    """float32 [n], the bits of each byte; of a token, all of them on its first byte"""
    levels: np.ndarray
    """uint8 [n], how many stages up the model hands each byte's vector (where rows begin does not count); of tokens 1
    where one begins"""
    greedy: np.ndarray
    """bool [ids], whether each id is the one that `generate` takes at temperature 0"""
    unread: int = 0
    """ids at the beginning of the context that its row had no room for"""

    @property
    def bits(self) -> float:
        """The bits of the text."""
        return float(self.surprisal.sum(dtype=np.float64))

    @property
    def bpb(self) -> float:
        """Bits per byte; nan of no text."""
        return self.bits / len(self.surprisal) if len(self.surprisal) else math.nan


def score(
    net: AUNet,
    reader: Reader,
    documents: Iterable[bytes | Continuation],
    row_ids: int = ROW,
    context_ids: int = 0,
    batch_ids: int | None = None,
) -> Iterator[Score]:
    """Yields the score of each document, in the order given. It depends on no other document.

    net: in evaluation mode; its device is used. reader: that of the model.
    row_ids: ids (bytes; of a BPE model tokens) that a row reads. With those of the training, and no context_ids, scores
    are those of `aunet predict` (but of a model without document masking, whose documents see their neighbours there).
    context_ids: how many ids earlier a further row of a document begins; with 0 it begins at the last id of the row
    before, which every row reads again.
    batch_ids: ids of a batch, padding included (None: as many as memory is likely to hold).

    A context and its text are encoded as one, and the text's bits are those of the tokens that are in it; where a token
    would have bytes of both, they are encoded apart, so that the bits are of exactly the text's bytes. A context that
    does not fit into a row with its text keeps its end: as much as there is room for, at least half a row.

    Raises ValueError for numbers that are out of range, and for text that a BPE's vocabulary cannot spell.
    """
    check_rows(row_ids, context_ids, batch_ids)
    most = min(BATCH, LOGITS // net.config.vocabulary) if batch_ids is None else batch_ids
    return _scores(net, reader, documents, row_ids, context_ids, max(most, 1))


def check_rows(row_ids: int, context_ids: int, batch_ids: int | None, prefix: str = "") -> None:
    """Raises ValueError for rows that cannot be, with `prefix` before the names of the settings."""
    check(f"{prefix}row_ids", row_ids, Range(least=1), whole=True)
    check(f"{prefix}context_ids", context_ids, Range(least=0), whole=True)
    check(f"{prefix}batch_ids", batch_ids, Range(least=1), whole=True)
    if context_ids >= row_ids:
        raise ValueError(
            f"{prefix}context_ids is {context_ids} and {prefix}row_ids {row_ids}, which leaves a row no new ids to "
            f"score: give less context, such as {row_ids // 2}, or longer rows"
        )


class _Row(NamedTuple):
    """A row: it reads from position `begin` of a document (BOS is 0) and scores the ids from `since` to `until`."""

    document: int
    begin: int
    since: int
    until: int

    @property
    def length(self) -> int:
        return self.until - self.begin + 1  # the last id is read for its level alone


@dataclass
class _Open:
    """A document that is being scored."""

    stream: np.ndarray  # int64, BOS and the ids of context and text
    levels: np.ndarray  # uint8 of these, as far as bytes determine them
    refreshes: np.ndarray | None  # bool of these
    before: int  # ids of the context
    nats: np.ndarray  # float32 [ids of the text], and so the two below
    used: np.ndarray  # uint8, levels as the network used them
    greedy: np.ndarray
    unread: int = 0

    def score(self, reader: Reader) -> Score:
        """Returns the score, once all rows are read."""
        sizes = reader.sizes[self.stream[1 + self.before :]].astype(np.int64)
        first, n = np.cumsum(sizes) - sizes, int(sizes.sum())
        surprisal, levels = np.zeros(n, np.float32), np.zeros(n, np.uint8)
        surprisal[first] = self.nats / math.log(2)
        levels[first] = self.used if reader.tokenizer is None else 1
        return Score(surprisal, levels, self.greedy, self.unread)


def _scores(
    net: AUNet, reader: Reader, documents: Iterable[bytes | Continuation], row: int, context: int, batch: int
) -> Iterator[Score]:
    for window in _windows(documents, WINDOW * batch):
        opened = _opened(reader, window)
        rows: list[_Row] = []
        for number, document in enumerate(opened):
            mine = list(_rows(number, document.before, len(document.nats), row, context))
            document.unread = max(mine[0].begin - 1, 0) if mine else 0
            rows += mine
        for some in _batches(rows, batch):
            _read(net, len(reader.bytes_of), opened, some)
        yield from (document.score(reader) for document in opened)


def _windows(documents: Iterable[bytes | Continuation], most: int) -> Iterator[list[Continuation]]:
    """Yields documents in stretches of about `most` bytes."""
    window: list[Continuation] = []
    n_bytes = 0
    for document in documents:
        window.append(document if isinstance(document, Continuation) else Continuation(b"", document))
        n_bytes += len(window[-1].context) + len(window[-1].text)
        if n_bytes >= most:
            yield window
            window, n_bytes = [], 0
    if window:
        yield window


def _opened(reader: Reader, documents: Sequence[Continuation]) -> list[_Open]:
    wholes = reader.encode([document.context + document.text for document in documents])
    found = []
    for (context, text), ids in zip(documents, wholes, strict=True):
        ends = np.cumsum(reader.sizes[ids], dtype=np.int64)
        before = int(np.searchsorted(ends, len(context), side="right")) if context else 0
        if context and len(context) not in ends[:before]:  # a token has bytes of both
            parts = reader.encode([context, text])
            before, ids = len(parts[0]), np.concatenate(parts)
        rule, n = reader.stack.refreshes, len(ids) - before
        inside = None if rule is None else np.concatenate([[False], rule.split(context + text)]).astype(bool)
        stream = np.concatenate([[BOS], ids]).astype(np.int64)
        nats, used, greedy = np.zeros(n, np.float32), np.zeros(n, np.uint8), np.zeros(n, bool)
        found.append(_Open(stream, reader.document_levels(ids)[:-1], inside, before, nats, used, greedy))
    return found


def _rows(document: int, before: int, ids: int, row: int, context: int) -> Iterator[_Row]:
    """Yields the rows of a document of `ids` ids after a context of `before`."""
    since, end = before, before + ids
    begin = max(before - max(row - ids, context, row // 2), 0)
    while since < end:
        until = min(begin + row, end)
        yield _Row(document, begin, since, until)
        since, begin = until, until - context


def _batches(rows: Sequence[_Row], most: int) -> Iterator[list[_Row]]:
    """Yields rows of similar length, as many as make `most` ids with their padding, one at least."""
    some: list[_Row] = []
    for row in sorted(rows, key=lambda row: -row.length):
        if some and (len(some) + 1) * some[0].length > most:
            yield some
            some = []
        some.append(row)
    if some:
        yield some


def _read(net: AUNet, known: int, documents: Sequence[_Open], rows: Sequence[_Row]) -> None:
    """Reads rows at once, and adds to their documents what is found. known: ids that have a meaning, of V."""
    shape, device = (len(rows), rows[0].length), net.head.weight.device
    ids, levels = np.full(shape, EOS, np.int64), np.zeros(shape, np.uint8)
    targets = np.full(shape, IGNORE, np.int64)
    refreshes = np.zeros(shape, bool) if net.refreshes else None
    for i, row in enumerate(rows):
        document, here = documents[row.document], slice(row.begin, row.until + 1)
        ids[i, : row.length], levels[i, : row.length] = document.stream[here], document.levels[here]
        targets[i, : row.length - 1] = document.stream[row.begin + 1 : row.until + 1]
        if refreshes is not None and document.refreshes is not None:
            refreshes[i, : row.length] = document.refreshes[here]

    def on_device(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    wanted = on_device(targets)
    with torch.inference_mode(not net.sharded), torch.no_grad(), torch.compiler.set_stance("force_eager"):
        inside = None if refreshes is None else on_device(refreshes)
        output = net(on_device(ids), on_device(levels), refreshes=inside)
        logits = output.logits.float()
        loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORE, reduction="none")
        nats = loss.view(shape).cpu().numpy()
        logits[..., BOS] = -torch.inf  # a document has one beginning
        greedy = (logits[..., :known].argmax(-1) == wanted).cpu().numpy()
        used = output.levels.cpu().numpy()
    for i, row in enumerate(rows):
        document = documents[row.document]
        to = slice(row.since - document.before, row.until - document.before)
        at, after = slice(row.since - row.begin, row.length - 1), slice(row.since - row.begin + 1, row.length)
        document.nats[to], document.greedy[to], document.used[to] = nats[i, at], greedy[i, at], used[i, after]
