"""Documents as flat memory-mapped bytes, made once per source file and found again by its stamp."""

import hashlib
import json
import os
import shutil
import tempfile
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aunet_lightning.data.documents import Report, read_documents, stem

FORMAT = 1  # changes when the stored form does


@dataclass(frozen=True)
class Source:
    """A JSON-lines file, and how to read it."""

    path: Path
    language: str  # for lines that name none
    text_key: str = "text"
    language_key: str = "lang"

    def folder(self, cache: Path) -> Path:
        """Where its flat form belongs: a name that changes with the file."""
        status = self.path.stat()
        key = [FORMAT, str(self.path.resolve()), status.st_size, status.st_mtime_ns]
        key += [self.language, self.text_key, self.language_key]
        return cache / f"{stem(self.path)}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}"


def expand(entries: Sequence[str | dict[str, str]], what: str, **keys: str) -> list[Source]:
    """Returns the sources that paths, globs and `{path: …, lang: …}` entries name, in a fixed order.

    Raises ValueError where an entry matches no file.
    """
    sources = []
    for entry in entries:
        wanted = entry if isinstance(entry, dict) else {"path": entry}
        if "path" not in wanted or wanted.keys() - {"path", "lang"}:
            raise ValueError(f"{what}: {entry!r} is neither a path nor {{path: …, lang: …}}")
        pattern = Path(wanted["path"]).expanduser()
        anchor = Path(pattern.anchor) if pattern.anchor else Path()
        parts = pattern.relative_to(pattern.anchor) if pattern.anchor else pattern
        paths = [pattern] if pattern.is_file() else sorted(p for p in anchor.glob(str(parts)) if p.is_file())
        if not paths:
            raise ValueError(f"{what}: no file matches {wanted['path']!r} (looked from {Path.cwd()})")
        sources += [Source(path, wanted.get("lang", stem(path)), **keys) for path in paths]
    return sources


def prepare(source: Source, cache: Path) -> Path:
    """Writes the flat form of `source` unless it is there, and returns its folder. A folder appears whole."""
    folder = source.folder(cache)
    if folder.is_dir():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=cache))
    except OSError as error:
        raise ValueError(
            f"data.cache_dir: cannot write to {cache} ({error}): name a folder that can be written"
        ) from None
    try:
        _write(source, part)
        try:
            os.replace(part, folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was first, with the same content
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _write(source: Source, folder: Path) -> None:
    report, lengths, languages = Report(), array("q"), array("l")
    names: list[str] = []
    known: dict[str, int] = {}
    with (folder / "text.bin").open("wb") as text:
        for document in read_documents(source.path, source.text_key, source.language_key, source.language, report):
            text.write(document.text)
            lengths.append(len(document.text))
            languages.append(known.setdefault(document.language, len(known)))
            names.append(document.name)
    np.savez(folder / "index.npz", lengths=np.array(lengths, np.int64), languages=np.array(languages, np.int32))
    meta = {"languages": list(known), "report": asdict(report), "path": str(source.path)}
    (folder / "meta.json").write_text(json.dumps(meta, ensure_ascii=False), encoding="utf-8")
    (folder / "names.json").write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")


class Corpus:
    """All documents of some prepared sources, by number.

    `lengths` int64 [n], `languages` int32 [n] (an index into `language_names`), `within` int64 [n]
    (the number of the document inside its file).
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = list(folders)
        self.language_names: list[str] = []
        self.report = Report()
        known: dict[str, int] = {}
        lengths, languages, starts, files, within = [], [], [], [], []
        for number, folder in enumerate(self.folders):
            meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
            index = np.load(folder / "index.npz")
            ours = np.array([known.setdefault(name, len(known)) for name in meta["languages"]], np.int32)
            lengths.append(index["lengths"])
            languages.append(ours[index["languages"]] if len(ours) else index["languages"])
            starts.append(np.cumsum(index["lengths"]) - index["lengths"])
            files.append(np.full(len(index["lengths"]), number, np.int32))
            within.append(np.arange(len(index["lengths"])))
            self.report.add(Report(**meta["report"]))
        self.language_names = list(known)
        self.lengths: np.ndarray = np.concatenate(lengths) if lengths else np.zeros(0, np.int64)
        self.languages: np.ndarray = np.concatenate(languages) if lengths else np.zeros(0, np.int32)
        self.within: np.ndarray = np.concatenate(within) if lengths else np.zeros(0, np.int64)
        self._starts: np.ndarray = np.concatenate(starts) if lengths else np.zeros(0, np.int64)
        self._files: np.ndarray = np.concatenate(files) if lengths else np.zeros(0, np.int32)
        self._texts: dict[int, np.ndarray] = {}
        self._names: dict[int, list[str]] = {}

    def __len__(self) -> int:
        return len(self.lengths)

    def text(self, document: int) -> np.ndarray:
        """Returns the bytes of a document, uint8."""
        file, start = int(self._files[document]), int(self._starts[document])
        if file not in self._texts:
            path = self.folders[file] / "text.bin"
            self._texts[file] = np.memmap(path, np.uint8, "r")
        return self._texts[file][start : start + int(self.lengths[document])]

    def name(self, document: int) -> str:
        """Returns the `id` of a document's line, or its line number."""
        file = int(self._files[document])
        if file not in self._names:
            self._names[file] = json.loads((self.folders[file] / "names.json").read_text(encoding="utf-8"))
        return self._names[file][int(self.within[document])]

    def language(self, document: int) -> str:
        return self.language_names[int(self.languages[document])]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_texts": {}, "_names": {}}  # each worker maps the files for itself
