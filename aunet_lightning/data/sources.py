"""The files of text that settings name, each with its language and its format."""

import hashlib
import json
import os
import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_warn  # Lightning's, without loading all of it

from aunet_lightning.data import remote
from aunet_lightning.data.documents import JSONL, Document, Report, stem, told_format
from aunet_lightning.data.matching import LANGUAGE, Match, matches
from aunet_lightning.data.places import Place, place_of
from aunet_lightning.data.progress import each_document
from aunet_lightning.numbers import show
from aunet_lightning.paths import is_remote
from aunet_lightning.registry import Registry

STORED = 2  # changes when the stored form of documents does
FORMATS = Registry(
    "format",
    "aunet_lightning.data.documents:Format",
    {
        JSONL: "aunet_lightning.data.json_lines:JsonLines",
        "json": "aunet_lightning.data.json_lines:Json",
        "text": "aunet_lightning.data.plain_text:Text",
        "text_lines": "aunet_lightning.data.plain_text:TextLines",
        "text_paragraphs": "aunet_lightning.data.plain_text:TextParagraphs",
        "csv": "aunet_lightning.data.csv_files:Csv",
        "tsv": "aunet_lightning.data.csv_files:Tsv",
        "tsv_unquoted": "aunet_lightning.data.csv_files:TsvUnquoted",
        "tsv_parallel": "aunet_lightning.data.csv_files:TsvParallel",
        "parquet": "aunet_lightning.data.arrow_files:Parquet",
        "arrow": "aunet_lightning.data.arrow_files:Arrow",
        "datasets": "aunet_lightning.data.hub_datasets:Datasets",
    },
)
KEYS = ("text_key", "language_key")
LANGUAGE_KEY = "lang"  # by default
HEAVIEST = 1e9
# bool, which is refused: without it, jsonargparse takes `[{path: p, lang: no}]` for a string
Entry = str | dict[str, str | float | bool]


@dataclass(frozen=True)
class Source:
    """A file, or another place of text, and how to read it. It travels to workers, and reads the same in each."""

    path: Path | Place
    language: str  # for lines that name none
    text_key: str = "text"
    language_key: str = "lang"
    named: bool = False  # whether the language was given, and is not the file's name
    format: str = JSONL
    entry: str = ""  # the path, glob or folder that names it
    weight: float | None = None  # of the entry's text in a mix
    downloads: Path | None = None  # a folder for copies of remote files while they are read; None: the user's cache

    def documents(self, report: Report, shown: str | None = None) -> Iterator[Document]:
        """Yields the documents of the file, and counts in `report` what was read and what was skipped.

        `shown` (null: the path) stands before the places of what was skipped. Raises ValueError for a file that cannot
        be read to its end.
        """
        name = str(self.path) if shown is None else shown
        of_file = report.of_file(name, self.text_key)
        format = FORMATS.get(self.format)(self.text_key, self.language_key)
        try:
            with self.place.opened(self.downloads) as path:
                for document in each_document(format.documents(path, of_file), self.place.name):
                    of_file.documents += 1
                    of_file.bytes += len(document.text)
                    of_file.unnamed += not document.language
                    yield document if document.language else document._replace(language=self.language)
        finally:
            report.add(of_file, name)

    @property
    def place(self) -> Place:
        return place_of(self.path)

    @property
    def is_document(self) -> bool:
        """Whether the file is one document."""
        return bool(FORMATS.get(self.format).whole_files)

    def folder(self, cache: Path) -> Path:
        """Where its flat form belongs: a name that changes with what the file holds.

        Raises ValueError where the file cannot be read.
        """
        key = [STORED, self.place.contents(cache), self.language, self.text_key, self.language_key]
        if self.format != JSONL:
            key += [self.format, FORMATS.get(self.format).version]
        name = re.sub(r"[^\w.-]", "_", stem(self.path))[:40]
        return cache / f"{name}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}"


def expand(entries: str | Sequence[Entry], what: str, downloads: Path | None = None, **keys: str) -> list[Source]:
    """Returns the sources that paths, globs, folders and `{path: …, lang: …, format: …}` entries name, in a fixed
    order, each file once.

    An entry may have `keys` of its own. A format that is not given is that of the file's name, else JSON lines. Globs
    and folders match no hidden files. Of entries that name one file, also by links, the one with a `lang` counts.
    Raises ValueError where an entry matches no file or names no format, or two give one file different languages,
    formats or keys.
    """
    found: dict[Hashable, Source] = {}
    listed = [entries] if isinstance(entries, str) else entries
    remote.refresh([_as_mapping(entry, what)["path"] for entry in listed], what)
    for entry in listed:
        wanted = _as_mapping(entry, what)
        if (weight := wanted.get("weight")) is not None:
            check_weight(weight, f"{what}: the weight of {wanted['path']}")
        own = keys | {key: wanted[key] for key in KEYS if key in wanted}
        for path, language, by_path in _found(entry, wanted, what):
            if by_path and "lang" in wanted:
                raise ValueError(f"{what}: {entry!r} names the language as lang and as {{language}}: leave out one")
            one = Source(
                path, wanted.get("lang", language), named=by_path or "lang" in wanted,
                format=wanted.get("format") or told_format(path) or JSONL, entry=wanted["path"], weight=weight,
                downloads=downloads, **own,
            )  # fmt: skip
            other = found.setdefault(one.place.key, one)
            if other is not one:
                _check_same(other, one, what)
                if one.named:
                    found[one.place.key] = one
    return list(found.values())


def _as_mapping(entry: Entry, what: str) -> dict[str, Any]:
    """Returns an entry as a mapping. Raises ValueError for keys that it cannot have and values that are not text."""
    wanted: dict[str, Any] = {**entry} if isinstance(entry, dict) else {"path": entry}
    known = ["path", "lang", "format", "weight", *KEYS]
    if isinstance(wanted.get("format"), str):
        try:
            known += FORMATS.get(wanted["format"]).options
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from None
    if "path" not in wanted or wanted.keys() - {*known}:
        keys = ", ".join(f"{key}: …" for key in known)
        raise ValueError(f"{what}: {entry!r} is neither a path nor {{{keys}}}")
    if any(not isinstance(value, str) for key, value in wanted.items() if key != "weight"):
        raise ValueError(
            f"{what}: {entry!r} has a value that is not text: put quotes around it (YAML reads no as false)"
        )
    return wanted


def _found(entry: Entry, wanted: dict[str, Any], what: str) -> list[Match]:
    """Returns what an entry names. Raises ValueError where that is nothing."""
    pattern, format = wanted["path"], wanted.get("format")
    if format is not None:
        of = FORMATS.get(format)
        place = of.place(pattern, what, {key: wanted[key] for key in of.options if key in wanted})
        if place is not None:
            return [Match(place, place.language or stem(place), False)]
    found = (remote.matches if is_remote(pattern) else matches)(pattern, what, any_ending=format is not None)
    is_yaml = isinstance(entry, str) and entry.lstrip()[:1] in ("[", "{") and not entry.startswith(LANGUAGE)
    if not found and is_yaml:  # but not a list
        raise ValueError(
            f"{what} is {entry!r}: give paths, or {{path: …, lang: …}}, with quotes around words such as no "
            "(YAML reads no as false)"
        )
    if not found and os.path.exists(pattern):
        raise ValueError(f"{what}: {pattern!r} is not a regular file: text is read more than once")
    if not found:
        raise ValueError(f"{what}: no file matches {pattern!r} (looked from {Path.cwd()})")
    return found


def _check_same(other: Source, one: Source, what: str) -> None:
    """Warns of a place that is named twice. Raises ValueError where it is to be read in two ways."""
    for of in ("format", "weight", *KEYS):
        first, second = getattr(other, of), getattr(one, of)
        if first != second:
            raise ValueError(f"{what}: {one.path} is given the {of}s {first!r} and {second!r}: name it once")
    if other.named and one.named and other.language != one.language:
        raise ValueError(
            f"{what}: {one.path} is given the languages {other.language!r} and {one.language!r}: name it once"
        )
    same = "" if other.path == one.path else f" (as {other.path} too)"
    rank_zero_warn(f"{what} names {one.path} more than once{same}: it is read once")


def check_weight(weight: Any, what: str, most: float = HEAVIEST) -> None:
    """Raises ValueError for a weight in a mix that is not a number above 0 and at most `most`."""
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not is_number or not 0 < weight <= most:
        remedy = "leave its text out" if is_number and weight == 0 else f"give a number above 0, at most {most:g}"
        raise ValueError(f"{what} is {show(weight)}: {remedy}")
