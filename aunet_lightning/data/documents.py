"""Documents, how a format of files gives them, and what of a file was skipped."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import NamedTuple

from aunet_lightning.data.places import Place

EXAMPLES = 3  # places remembered per reason
MAGIC = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst", b"BZh": ".bz2", b"\xfd7zXZ\0": ".xz"}  # how files begin
COMPRESSED = tuple(MAGIC.values())
JSONL = "jsonl"
ENDINGS = {  # of names, and the formats that they tell
    ".jsonl": JSONL, ".ndjson": JSONL, ".json": "json", ".txt": "text", ".csv": "csv", ".tsv": "tsv",
    ".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow",
}  # fmt: skip


class Document(NamedTuple):
    text: bytes  # UTF-8
    language: str  # "": that of its file
    name: str  # an id, or its number in the file
    context: bytes = b""  # what comes before the text, where it was asked for


def hash_of(text: bytes) -> int:
    """Returns 64 bits by which equal texts are found."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


@dataclass
class Report:
    """Counts of what was read and what was skipped, with reasons."""

    documents: int = 0
    bytes: int = 0
    unnamed: int = 0  # documents that name no language, and have the file's
    skipped: dict[str, int] = field(default_factory=dict)  # reason → lines
    examples: dict[str, list[str]] = field(default_factory=dict)  # reason → the first places
    keys: dict[str, int] = field(default_factory=dict)  # key → lines that have it (of the first keys met)

    def skip(self, reason: str, place: str) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append(place)

    def of_file(self, path: str, text_key: str) -> "Report":
        """Returns an empty report for a file, which is added to this one once the file is read."""
        return Report()

    def add(self, other: "Report", path: str = "") -> None:
        """Adds the counts of another file; `path` prefixes its places."""
        self.documents += other.documents
        self.bytes += other.bytes
        self.unnamed += other.unnamed
        for reason, count in other.skipped.items():
            self.skipped[reason] = self.skipped.get(reason, 0) + count
            places = [path + place for place in other.examples[reason]]
            self.examples[reason] = (self.examples.get(reason, []) + places)[:EXAMPLES]
        for key, count in other.keys.items():
            self.keys[key] = self.keys.get(key, 0) + count

    def warning(self) -> str | None:
        """Returns one sentence about skipped lines, or None."""
        if not self.skipped:
            return None
        reasons = "; ".join(
            f"{count} × {reason} ({', '.join(self.examples[reason])}{', …' if count > EXAMPLES else ''})"
            for reason, count in sorted(self.skipped.items(), key=lambda item: -item[1])
        )
        total = sum(self.skipped.values())
        return f"{total} of {self.documents + total} lines hold no usable document: {reasons}"

    def has_no(self, key: str, setting: str) -> str | None:
        """Returns a sentence where lines were read and none has `key`, which `setting` names; else None."""
        if not self.keys or key in self.keys:
            return None
        return f"no line has the key {key!r} ({setting}); lines have {', '.join(map(repr, self.keys))}"


class Format(ABC):
    """How documents come out of a file.

    context_key: the key of a text that comes before, which is not read without it
    """

    version: int = 1  # another one where the documents of a file become others: cached copies are then made again
    whole_files: bool = False  # whether a file is one document: held-out ones are then counted over files
    options: tuple[str, ...] = ()  # keys that its entries may have beside those of all: what `place` takes

    def __init__(self, text_key: str = "text", language_key: str = "lang", context_key: str | None = None) -> None:
        self.text_key, self.language_key, self.context_key = text_key, language_key, context_key

    @classmethod
    def place(cls, path: str, what: str, options: Mapping[str, str]) -> Place | None:
        """Returns what the path of an entry names where that is something else than files; `documents` then gets what
        the place's `opened` gives. `what` is the setting, for errors."""
        return None

    @abstractmethod
    def documents(self, path: Path, report: Report) -> Iterator[Document]:
        """Yields the documents of a file in their order, the same each time.

        What holds no usable text is left out and counted: `report.skip(reason, ":12")`, with its place in the file.
        Keys that documents have may be counted in `report.keys`, which explains a wrong `text_key`. Raises ValueError
        for a file that cannot be read to its end.
        """


def stem(path: PurePath | Place) -> str:
    """Returns the file's name without `.jsonl`, `.gz` and the like: the language of a file that names none."""
    name = os.fsencode(path.name).decode("utf-8", "backslashreplace")  # in any locale, and of any bytes
    return name.lstrip(".").split(".")[0] or name


def told_format(path: PurePath | Place) -> str | None:
    """Returns the format that a file's name tells, compressed or not; None where it tells none."""
    endings = [ending.lower() for ending in PurePath(path.name).suffixes]
    if any(ENDINGS.get(ending) == JSONL for ending in endings):  # a.jsonl.2024
        return JSONL
    while endings and endings[-1] in COMPRESSED:
        endings.pop()
    return ENDINGS.get(endings[-1]) if endings else None


def bare_name(path: PurePath | Place) -> str:
    """Returns the file's name without the suffixes of its format: `en.2024` of en.2024.jsonl.gz."""
    name = path.name
    while PurePath(name).suffix.lower() in (*COMPRESSED, *ENDINGS):
        name = name[: -len(PurePath(name).suffix)]
    return name
