"""Documents as flat memory-mapped bytes, made once per source file and found again by what it holds."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from lightning_utilities.core.rank_zero import rank_zero_warn  # Lightning's, without loading all of it

from aunet_lightning.data.contents import is_whole, seal
from aunet_lightning.data.documents import Document, Report, hash_of
from aunet_lightning.data.places import Place
from aunet_lightning.data.sources import Source
from aunet_lightning.paths import temporary_folder

FILES = ("text.bin", "index.npz", "meta.json", "names.json")


def prepare(source: Source, cache: Path) -> Path:
    """Writes the flat form of `source` unless it is there, and returns its folder. A folder appears complete.

    Raises ValueError where the file cannot be read, or the cache not be written.
    """

    def documents(report: Report) -> Iterator[Document]:
        before = source.place.stamp()
        yield from source.documents(report, "")
        if source.place.stamp() != before:
            raise ValueError(f"{source.path} has changed while it was read: start again once it is complete")

    return keep(source.folder(cache), documents, str(source.path))


def keep(folder: Path, documents: Callable[[Report], Iterable[Document]], what: str) -> Path:
    """Writes the flat form of documents into `folder` unless it is there; `what` they are is for messages.

    A folder appears complete. Raises ValueError where it cannot be written, and what reading documents raises.
    """
    if folder.is_dir():
        if all(is_whole(folder, name) for name in FILES):
            return folder
        rank_zero_warn(f"{folder}, the cached form of {what}, is damaged: it is made again")
        _discard(folder)
    with temporary_folder(folder.parent, f".{folder.name}-", "data.cache_dir") as part:
        try:
            _write(documents, part)
            seal(part, *FILES)
            try:
                os.replace(part, folder)
            except OSError:
                if not folder.is_dir():  # otherwise another process was first, with the same content
                    raise
        except OSError as error:
            raise ValueError(
                f"data.cache_dir: the flat form of {what} cannot be written to {folder.parent} ({error.strerror}): "
                "make room, or name another folder"
            ) from None
    return folder


def _discard(folder: Path) -> None:
    gone = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    with contextlib.suppress(FileNotFoundError):  # another process was first
        os.replace(folder, gone / "old")
    shutil.rmtree(gone, ignore_errors=True)


def _write(documents: Callable[[Report], Iterable[Document]], folder: Path) -> None:
    report, lengths, languages, hashes = Report(), array("q"), array("l"), array("Q")
    names: list[str] = []
    known: dict[str, int] = {}
    whole = hashlib.sha256()
    with (folder / "text.bin").open("wb") as text:
        for document in documents(report):
            text.write(document.text)
            whole.update(document.text)
            lengths.append(len(document.text))
            languages.append(known.setdefault(document.language, len(known)))
            hashes.append(hash_of(document.text))
            names.append(document.name)
    sizes, labels = np.array(lengths, np.int64), np.array(languages, np.int32)
    whole.update(sizes.tobytes() + labels.tobytes())
    whole.update(json.dumps(list(known)).encode())
    np.savez(folder / "index.npz", lengths=sizes, languages=labels, hashes=np.array(hashes, np.uint64))
    meta = {"languages": list(known), "report": asdict(report), "digest": whole.hexdigest()}
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    (folder / "names.json").write_text(json.dumps(names), encoding="utf-8")


class Corpus:
    """All documents of some prepared sources, by number.

    `lengths` int64 [n], `languages` int32 [n] (an index into `language_names`), `hashes` uint64 [n] of the texts,
    `files` int32 [n] (which file), `digests` of each file's contents. `paths` are the files, for messages; `joined`
    says which of them `places` takes for one file.
    """

    def __init__(
        self, folders: Sequence[Path], paths: Sequence[Path | Place] = (), joined: Sequence[bool] = ()
    ) -> None:
        self.folders = list(folders)
        self.paths: list[Path | Place] = [*(paths or self.folders)]
        self._joined = np.array([*joined] or [False] * len(self.folders), bool)
        self.digests: list[str] = []
        self.language_names: list[str] = []
        self.report, self.reports = Report(), list[Report]()
        known: dict[str, int] = {}
        lengths, languages, starts, files, within, hashes = [], [], [], [], [], []
        for number, folder in enumerate(self.folders):
            meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
            index = np.load(folder / "index.npz")
            ours = np.array([known.setdefault(name, len(known)) for name in meta["languages"]], np.int32)
            lengths.append(index["lengths"])
            hashes.append(index["hashes"])
            languages.append(ours[index["languages"]] if len(ours) else index["languages"])
            starts.append(np.cumsum(index["lengths"]) - index["lengths"])
            files.append(np.full(len(index["lengths"]), number, np.int32))
            within.append(np.arange(len(index["lengths"])))
            self.digests.append(meta["digest"])
            self.reports.append(Report(**meta["report"]))
            self.report.add(self.reports[-1], str(self.paths[number]))
        self.language_names = list(known)
        self.lengths: np.ndarray = np.concatenate(lengths) if lengths else np.zeros(0, np.int64)
        self.languages: np.ndarray = np.concatenate(languages) if lengths else np.zeros(0, np.int32)
        self.hashes: np.ndarray = np.concatenate(hashes) if lengths else np.zeros(0, np.uint64)
        self._within: np.ndarray = np.concatenate(within) if lengths else np.zeros(0, np.int64)
        self._starts: np.ndarray = np.concatenate(starts) if lengths else np.zeros(0, np.int64)
        self.files: np.ndarray = np.concatenate(files) if lengths else np.zeros(0, np.int32)
        self._texts: dict[int, np.ndarray] = {}
        self._names: dict[int, list[str]] = {}

    @property
    def places(self) -> np.ndarray:
        """int64 [n]: which document of its language each one is in its file, or in all that are joined, from 0."""
        file = np.where(self._joined, len(self.folders), np.arange(len(self.folders)))[self.files]
        groups = file * max(len(self.language_names), 1) + self.languages
        order = np.argsort(groups, kind="stable")
        begins = np.flatnonzero(np.diff(groups[order], prepend=-1))
        counts = np.diff(np.append(begins, len(order)))
        places = np.empty(len(order), np.int64)
        places[order] = np.arange(len(order)) - np.repeat(begins, counts)
        return places

    def digest(self, documents: np.ndarray) -> str:
        """Returns a digest of some documents in their order: of texts and languages, not of names."""
        whole = hashlib.sha256("\n".join(self.digests).encode())
        whole.update(documents.astype(np.int64).tobytes())
        return whole.hexdigest()

    def __len__(self) -> int:
        return len(self.lengths)

    def of_languages(self, names: Sequence[str] | None) -> np.ndarray:
        """Returns the documents in these languages (None: all). Raises ValueError for a language of which none is."""
        if names is None:
            return np.arange(len(self))
        if unknown := set(names) - set(self.language_names):
            raise ValueError(
                f"data.languages: {', '.join(sorted(unknown))} not in the files; "
                f"they hold {', '.join(self.language_names)}"
            )
        return np.flatnonzero(np.isin(self.languages, [self.language_names.index(name) for name in names]))

    def file_of(self, document: int) -> int:
        """Returns the number of the file that a document is in."""
        return int(self.files[document])

    def ids(self, document: int) -> np.ndarray:
        """Returns the bytes of a document, which are ids as they are (see `data.token_ids.Ids`)."""
        return self.text(document)

    def text(self, document: int) -> np.ndarray:
        """Returns the bytes of a document, uint8."""
        file, start = int(self.files[document]), int(self._starts[document])
        if file not in self._texts:
            path = self.folders[file] / "text.bin"
            self._texts[file] = np.memmap(path, np.uint8, "r").view(np.ndarray)
        return self._texts[file][start : start + int(self.lengths[document])]

    def name(self, document: int) -> str:
        """Returns the `id` of a document's line, or its line number."""
        file = int(self.files[document])
        if file not in self._names:
            self._names[file] = json.loads((self.folders[file] / "names.json").read_text(encoding="utf-8"))
        return self._names[file][int(self._within[document])]

    def language(self, document: int) -> str:
        return self.language_names[int(self.languages[document])]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_texts": {}, "_names": {}}  # each worker maps the files for itself
