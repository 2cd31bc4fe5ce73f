"""Text that is read as it comes, without a copy: documents of files in sequence, shuffled within a buffer.

Each group of files is a stream without end: its files in an order drawn from the seed and the turn, the documents of
each in their order. Of several groups the next document comes from the one that is furthest behind its share (the rule
of `data.order.Interleaved`, which knows all documents before). Documents that follow each other make a buffer of about
so many bytes; a buffer is packed into batches as an epoch is, in an order drawn from the seed and the buffer's number.
So batch k of a buffer is a function of the files, the seed and the place at which the buffer begins: a few integers,
which a checkpoint keeps.

Every worker, and every rank, reads all files, and packs its own batches.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lightning_utilities.core.rank_zero import rank_zero_warn  # Lightning's, without loading all of it
from torch.utils.data import IterableDataset, get_worker_info

from aunet_lightning.data.corpus import keep
from aunet_lightning.data.documents import Document, Report, hash_of
from aunet_lightning.data.loader import ResumableLoader
from aunet_lightning.data.mixture import MixConfig, shares_of, shares_of_entries
from aunet_lightning.data.order import Rows, shuffled
from aunet_lightning.data.packing import Batch, Marks, PackedBatches
from aunet_lightning.data.skipped import HELD_OUT, Watched
from aunet_lightning.data.sources import STORED, Source
from aunet_lightning.data.token_ids import Ids
from aunet_lightning.reader.levels import AROUND
from aunet_lightning.reader.reader import Reader

OTHER = "(other)"  # language of documents in none of the known languages
ENDLESS = 2**40  # batches of a stream, as its length


class Cursor(NamedTuple):
    """Where a group is: the next document is `document` of file `file` in its order of this turn."""

    turn: int = 0
    file: int = 0
    document: int = 0
    size: int = 0  # bytes of all documents before, BOS and EOS among them


@dataclass(frozen=True)
class Group:
    """Files that are read one after the other, and the share of their text."""

    name: str
    sources: tuple[Source, ...]
    share: float


@dataclass(frozen=True)
class Stream:
    """The text of groups of files.

    names: the languages, as batches index them. `only` (None: all of them) are read; what is in no known language is
    OTHER. held_out: `hashes` of texts that are left out. skipped_limit: see `Watched`.
    """

    groups: tuple[Group, ...]
    names: tuple[str, ...]
    seed: int
    buffer_bytes: float
    only: frozenset[str] | None = None
    held_out: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    skipped_limit: float | None = None

    def documents(self, number: int, cursor: Cursor, report: Report) -> Iterator[tuple[Document, Cursor]]:
        """Yields the documents of a group from a place on, each with the place after it. Counts in `report` what was
        read and skipped of each file that was read to its end. Raises ValueError where none can be used, or too
        many cannot."""
        sources, (turn, begin, skip, size) = self.groups[number].sources, cursor
        held_out, found = set(self.held_out.tolist()), False
        while True:
            complete = begin == skip == 0
            philox = np.random.Philox(np.random.SeedSequence([self.seed, number, turn]))
            order = np.random.Generator(philox).permutation(len(sources))
            for place in range(begin, len(sources)):
                of_file = Watched(before=report, limit=self.skipped_limit)
                for count, document in enumerate(sources[order[place]].documents(of_file), 1):
                    if held_out and hash_of(document.text) in held_out:
                        of_file.skip(HELD_OUT, f"{sources[order[place]].path}, document {document.name}")
                        continue
                    if count <= skip or (self.only is not None and document.language not in self.only):
                        continue
                    size, found = size + len(document.text) + AROUND, True
                    yield document, Cursor(turn, place, count, size)
                report.add(of_file)
                if not found and (missing := of_file.has_no(sources[order[place]].text_key, "data.text_key")):
                    raise ValueError(f"data.train_files: {sources[order[place]].path}: {missing}")
                skip = 0
            if complete and not found:
                raise ValueError(
                    f"data.train_files: {self.groups[number].name} has no document that can be used: "
                    f"{report.warning() or 'its files are empty, or hold other languages'}"
                )
            turn, begin = turn + 1, 0

    def buffers(self, cursors: Sequence[Cursor], report: Report) -> Iterator[tuple[list[Document], list[Cursor]]]:
        """Yields the documents of each buffer, and the places at which the next one begins."""
        cursors = list(cursors)
        streams = [self.documents(number, cursor, report) for number, cursor in enumerate(cursors)]
        while True:
            held, n_bytes = list[Document](), 0
            while n_bytes < self.buffer_bytes:
                number = min(range(len(streams)), key=lambda g: (cursors[g].size / self.groups[g].share, g))
                document, cursors[number] = next(streams[number])
                n_bytes += len(document.text)
                held.append(document)
            yield held, list(cursors)

    @property
    def files(self) -> list[Source]:
        """All files, group by group."""
        return [source for group in self.groups for source in group.sources]

    def digest(self, first: str) -> str:
        """Returns a digest of the text as far as it is known before it is read: of its `first` buffer, and of how
        large the files are."""
        sizes = [[source.path.name, source.place.size or 1] for source in self.files]
        return hashlib.sha256(f"{first} {json.dumps(sizes)}".encode()).hexdigest()

    def language(self, name: str) -> int:
        """Returns the index of a language."""
        return self.names.index(name) if name in self.names else self.names.index(OTHER)


def stream_of(
    sources: Sequence[Source], mix: MixConfig | None, languages: Sequence[str] | None, seed: int, buffer_bytes: float,
    held_out: np.ndarray, skipped_limit: float | None = None,
) -> Stream:  # fmt: skip
    """Returns the stream of some files, grouped by entry where entries have weights, else by language.

    Shares without weights are those of the files' sizes as they are stored. Raises ValueError for a mix that needs
    more than that.
    """
    config = mix or MixConfig()
    if config.bytes is not None or config.until != "text_size":
        raise ValueError(
            "data.mix: bytes and until need the size of the text, which a stream does not know: leave out "
            "data.shuffle_buffer_bytes, or give weights or a temperature"
        )
    shares = shares_of_entries(config, sources)
    by_entry = shares is not None
    groups: dict[str, list[Source]] = {}
    sizes: dict[str, int] = {}
    wanted = _wanted(sources, languages)
    for source, size in zip(wanted, sizes_of(wanted), strict=True):
        name = source.entry if by_entry else source.language
        groups.setdefault(name, []).append(source)
        sizes[name] = sizes.get(name, 0) + size
    shares = shares or shares_of(config, {name: max(size, 1) for name, size in sizes.items()})
    names = [*languages] if languages is not None else [*sorted({source.language for source in sources}), OTHER]
    return Stream(
        tuple(Group(name, tuple(of), shares[name]) for name, of in groups.items()), tuple(names), seed, buffer_bytes,
        frozenset(languages) if languages is not None else None, held_out, skipped_limit,
    )  # fmt: skip


def _wanted(sources: Sequence[Source], languages: Sequence[str] | None) -> Sequence[Source]:
    """Returns the files whose language is wanted; all where there is none, as lines may name others."""
    if languages is None:
        return sources
    found = [source for source in sources if source.language in languages]
    left = [source for source in sources if source.language not in languages and not source.named]
    if found and left:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        rank_zero_warn(
            f"data.train_files: {left[0].path}{more} is not read, as its name tells the language {left[0].language!r}, "
            f"and data.languages has {', '.join(languages)}: where its lines name one of these, give it, "
            "{path: …, lang: …}"
        )
    return found or sources


def kept_sample(stream: Stream, cache: Path) -> Path:
    """Returns the folder with the flat form of a stream's first buffer: what is known of it before it is read."""

    def documents(report: Report) -> Iterator[Document]:
        held, _ = next(stream.buffers([Cursor()] * len(stream.groups), report))
        yield from held

    files = [[str(source), str(source.place.stamp())] for source in stream.files]
    key = json.dumps([STORED, files, [*stream.names], stream.seed, stream.buffer_bytes, sorted(stream.only or ())])
    digest = hashlib.sha256(key.encode() + stream.held_out.tobytes())
    return keep(cache / f"stream-{digest.hexdigest()[:16]}", documents, "the first of the training files")


def sizes_of(sources: Sequence[Source]) -> list[int]:
    """Returns the bytes of files as they are stored; where that is not known, the mean of others (1 without any)."""
    sizes = [source.place.size for source in sources]
    known = [size for size in sizes if size is not None]
    typical = round(sum(known) / len(known)) if known else 1
    return [typical if size is None else size for size in sizes]


class Held:
    """Documents in memory, as `PackedBatches` reads a corpus."""

    def __init__(self, documents: Sequence[Document], stream: Stream) -> None:
        self.lengths = np.array([len(document.text) for document in documents], np.int64)
        self.languages = np.array([stream.language(document.language) for document in documents], np.int32)
        self.language_names = list(stream.names)
        self._starts = np.cumsum(self.lengths) - self.lengths
        self._bytes = np.frombuffer(b"".join(document.text for document in documents), np.uint8)

    def text(self, document: int) -> np.ndarray:
        start = self._starts[document]
        return self._bytes[start : start + self.lengths[document]]

    def ids(self, document: int) -> np.ndarray:
        return self.text(document)


class HeldTokens:
    """Tokens of documents in memory."""

    def __init__(self, documents: Sequence[Document], reader: Reader) -> None:
        assert reader.tokenizer is not None
        self._ids = reader.tokenizer.encode([document.text for document in documents])
        self.lengths = np.array([len(ids) for ids in self._ids], np.int64)

    def ids(self, document: int) -> np.ndarray:
        return self._ids[document]


@dataclass(frozen=True)
class Place:
    """The next batch of a stream, and what was read before its buffer. Plain data: a checkpoint has it as a dict."""

    cursors: list[list[int]]  # at which the buffer begins
    buffer: int = 0
    batch: int = 0
    report: dict[str, Any] = field(default_factory=dict)  # of files that were complete before the buffer
    drawn: list[float] = field(default_factory=list)  # bytes of each language up to the batch


class StreamedBatches(IterableDataset[Batch]):
    """The batches of a stream from `place` on, each with the `Place` after it (a dict) as its `place`."""

    def __init__(
        self, stream: Stream, reader: Reader, rows: Rows, row_ids: int, batch_rows: int, rank: int = 0, world: int = 1,
        marks: Marks | None = None, context_ids: int = 0,
    ) -> None:  # fmt: skip
        self.stream, self.reader, self.rows, self.context_ids = stream, reader, rows, context_ids
        self.row_ids, self.batch_rows, self.rank, self.world, self.marks = row_ids, batch_rows, rank, world, marks
        self.place = Place([list(Cursor())] * len(stream.groups))

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info is not None else (0, 1)
        at, number = self.place, 0
        report, then = Report(**at.report), at.report
        cursors = [Cursor(*cursor) for cursor in at.cursors]
        before = np.array(at.drawn or [0.0] * len(self.stream.names))
        first, buffer = at.batch, at.buffer
        for documents, following, known in ahead(self._buffers(cursors, report)):
            held = Held(documents, self.stream)
            packed = self._packed(held, documents)
            sizes = np.bincount(held.languages, held.lengths, len(self.stream.names))
            done = before - sizes * first / len(packed) if first else before
            for k in range(first, len(packed)):
                if number % workers == worker:
                    last = k + 1 == len(packed)
                    drawn = (done + sizes * (k + 1) / len(packed)).tolist()
                    after = (following, buffer + 1, 0, known) if last else (cursors, buffer, k + 1, then)
                    place = Place([list(cursor) for cursor in after[0]], after[1], after[2], after[3], drawn)
                    yield packed[buffer, k] | {"place": asdict(place)}
                number += 1
            before, cursors, buffer, first, then = done + sizes, following, buffer + 1, 0, known

    def _buffers(
        self, cursors: Sequence[Cursor], report: Report
    ) -> Iterator[tuple[list[Document], list[Cursor], dict[str, Any]]]:
        for documents, following in self.stream.buffers(cursors, report):
            yield documents, following, asdict(report)

    def _packed(self, held: Held, documents: Sequence[Document]) -> PackedBatches:
        ids: Ids = held if self.reader.tokenizer is None else HeldTokens(documents, self.reader)
        of_bytes = self.reader.tokenizer is None
        order = shuffled(self.rows, ids, np.arange(len(documents)), self.row_ids, self.stream.seed, of_bytes)
        return PackedBatches(
            held, ids, order, self.reader, self.row_ids, self.batch_rows, self.rank, self.world, self.marks,
            context_ids=self.context_ids,
        )  # fmt: skip


def ahead(items: Iterable[Any]) -> Iterator[Any]:
    """Yields items, the next of which is made in a thread meanwhile."""
    iterator = iter(items)
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, iterator)
        while True:
            item = coming.result()
            coming = thread.submit(next, iterator)
            yield item


class StreamLoader(ResumableLoader):
    """Batches of a stream, without end; the state is the place of the next."""

    def __init__(self, batches: StreamedBatches, workers: int) -> None:
        self.batches = batches
        self._told = False  # of what is skipped
        super().__init__(batches, workers)

    def __len__(self) -> int:
        return ENDLESS

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._given():
            self.batches.place = place = Place(**batch.pop("place"))
            if place.batch == 0 and not self._told and (warning := self.report.warning()):
                self._told = True
                rank_zero_warn(f"train files, so far: {warning}")
            yield batch

    @property
    def report(self) -> Report:
        """What was read and skipped of all files that were read to their end."""
        return Report(**self.batches.place.report)

    def drawn(self) -> np.ndarray:
        return np.rint(self.batches.place.drawn or [0] * len(self.batches.stream.names)).astype(np.int64)

    def state_dict(self) -> dict[str, Any]:
        return asdict(self.batches.place)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches.place = Place(**state)
