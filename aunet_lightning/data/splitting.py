"""Documents dealt to training, validation and test, so that no near-duplicates are in two of them."""

import hashlib
import json
import re
import tempfile
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aunet_lightning.data.documents import Document, Report, hash_of
from aunet_lightning.data.duplicates import Sketches
from aunet_lightning.data.progress import each_file
from aunet_lightning.data.skipped import why_nothing
from aunet_lightning.data.sources import Source
from aunet_lightning.paths import PART, remove

PARTS = ("train", "valid", "test")
HELD = 1 << 16  # compressed bytes of a file that are kept before they are written
LONGEST_NAME = 60  # characters of a file's name


class Shares(NamedTuple):
    valid: float
    test: float
    seed: int = 0

    def part(self, cluster: int) -> str:
        """Returns the part of a cluster, known by the smallest hash of its texts. (That hash itself would not do: the
        smallest of many is small.)"""
        drawn = hashlib.blake2b(f"{self.seed} {cluster}".encode(), digest_size=8).digest()
        at = int.from_bytes(drawn) / 2**64
        return "valid" if at < self.valid else "test" if at >= 1 - self.test else "train"


@dataclass
class Written:
    """What was written of a language to a part."""

    documents: int = 0
    bytes: int = 0
    alike: int = 0  # documents that have duplicates or near-duplicates


class Split(NamedTuple):
    written: dict[tuple[str, str], Written]  # by part and language
    clusters: int  # of several documents
    dropped: int  # documents
    report: Report  # of what was read


def split(
    sources: Sequence[Source], out: Path, shares: Shares, jaccard: float = 0.8, drop_duplicates: bool = False
) -> Split:
    """Writes each document to OUT/PART/LANGUAGE.jsonl.gz, as lines with text, lang and id; OUT appears complete.

    The part depends on the text and the seed, not on other documents; but documents of a cluster, which pairs with a
    Jaccard index of `jaccard` or more connect, all have the part of the one with the smallest hash. (1: equal texts
    alone.) Of each cluster, `drop_duplicates` keeps that one.

    Files are read twice, a document at a time. Memory grows by about 150 bytes a document, and by 0.3 MB for each file
    that is written; disk by 512 bytes a document, for a while. Raises ValueError where OUT holds files, a file cannot
    be read to its end or changes meanwhile, no document is found, or datasketch is missing.
    """
    out = out.resolve()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(f"--out {out} is there already, and not empty: name a new folder")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        hidden = Path(tempfile.mkdtemp(PART, f".{out.name}-", out.parent))
    except OSError as error:
        raise ValueError(f"--out {out} cannot be written ({error.strerror}): name another folder") from None
    try:
        report = Report()
        clusters = _clusters(sources, hidden, jaccard, report)
        (hidden / "made").mkdir()  # with the usual permissions
        written, dropped = _write(sources, hidden / "made", shares, clusters, drop_duplicates)
        (hidden / "made").replace(out)
    finally:
        remove(hidden)
    return Split(written, int((clusters.sizes > 1).sum()), dropped, report)


class _Clusters:
    """The clusters of n documents: `of` int64 [n], the first document of each one's. By that document: `smallest`
    uint64 [n], the smallest hash, and `sizes` int64 [n]. `hashes` uint64 [n] are of the documents' texts."""

    def __init__(self, hashes: np.ndarray, of: np.ndarray) -> None:
        self.hashes, self.of = hashes, of
        self.smallest = np.full(len(of), ~np.uint64(0))
        np.minimum.at(self.smallest, of, hashes)
        self.sizes = np.bincount(of, minlength=len(of))


def _clusters(sources: Sequence[Source], folder: Path, jaccard: float, report: Report) -> _Clusters:
    hashes = array("Q")
    with tempfile.TemporaryFile(dir=folder) as file:
        sketches = Sketches(file) if jaccard < 1 else None
        for source in each_file(sources):
            for document in source.documents(report):
                hashes.append(hash_of(document.text))
                if sketches is not None:
                    sketches.add(document.text)
        if not hashes:
            why = report.has_no(sources[0].text_key, "text_key")
            raise ValueError(f"there is no document: {why or why_nothing(report, [source.path for source in sources])}")
        known = np.array(hashes, np.uint64)
        if sketches is not None:
            return _Clusters(known, sketches.clusters(jaccard))
    _, first, equal = np.unique(known, return_index=True, return_inverse=True)
    return _Clusters(known, first[equal])


def _write(
    sources: Sequence[Source], folder: Path, shares: Shares, clusters: _Clusters, drop: bool
) -> tuple[dict[tuple[str, str], Written], int]:
    files, written = _Files(folder), dict[tuple[str, str], Written]()
    kept = np.zeros(len(clusters.of), bool)  # clusters
    number = dropped = 0
    for source in each_file(sources):
        for document in source.documents(Report()):
            if number == len(kept) or hash_of(document.text) != int(clusters.hashes[number]):
                raise ValueError(f"{source.path} has changed while it was read: start again once it is complete")
            cluster = clusters.of[number]
            chosen = clusters.hashes[number] == clusters.smallest[cluster] and not kept[cluster]
            kept[cluster] |= chosen
            number += 1
            if drop and not chosen:
                dropped += 1
                continue
            part, language = shares.part(int(clusters.smallest[cluster])), document.language
            files.of(part, language).write(document)
            row = written.setdefault((part, language), Written())
            row.documents += 1
            row.bytes += len(document.text)
            row.alike += int(clusters.sizes[cluster] > 1)
    if number < len(kept):
        raise ValueError("a file has become shorter while it was read: start again once all are complete")
    files.close()
    return written, dropped


class _Files:
    """Compressed JSON lines, by part and language. Languages share a file whose names differ by what a file's cannot
    hold, or by case, which some file systems ignore: lines say the language."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._by_language: dict[tuple[str, str], _File] = {}
        self._by_name: dict[tuple[str, str], _File] = {}

    def of(self, part: str, language: str) -> "_File":
        if (part, language) not in self._by_language:
            name = re.sub(r"[^\w-]", "_", language)[:LONGEST_NAME] or "_"
            if (part, name.casefold()) not in self._by_name:
                (self._folder / part).mkdir(exist_ok=True)
                self._by_name[part, name.casefold()] = _File(self._folder / part / f"{name}.jsonl.gz")
            self._by_language[part, language] = self._by_name[part, name.casefold()]
        return self._by_language[part, language]

    def close(self) -> None:
        for file in self._by_name.values():
            file.close()


class _File:
    """It is open only while it is written to: there may be thousands."""

    def __init__(self, path: Path) -> None:
        self._path, self._gzip, self._held = path, zlib.compressobj(wbits=31), bytearray()

    def write(self, document: Document) -> None:
        line = {"text": document.text.decode(), "lang": document.language, "id": document.name}
        self._held += self._gzip.compress(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        if len(self._held) > HELD:
            self._flush()

    def close(self) -> None:
        self._held += self._gzip.flush()
        self._flush()

    def _flush(self) -> None:
        with self._path.open("ab") as file:
            file.write(self._held)
        self._held.clear()
