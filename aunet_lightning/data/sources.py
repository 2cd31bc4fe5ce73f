"""The files of text that settings name, each with its language and its format."""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_warn  # Lightning's, without loading all of it

from aunet_lightning.data.contents import known_digest
from aunet_lightning.data.documents import JSONL, Document, Report, stem, told_format
from aunet_lightning.data.matching import LANGUAGE, matches
from aunet_lightning.data.progress import each_document
from aunet_lightning.numbers import show
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
    },
)
KEYS = ("text_key", "language_key")
LANGUAGE_KEY = "lang"  # by default
HEAVIEST = 1e9


@dataclass(frozen=True)
class Source:
    """A file, and how to read it."""

    path: Path
    language: str  # for lines that name none
    text_key: str = "text"
    language_key: str = "lang"
    named: bool = False  # whether the language was given, and is not the file's name
    format: str = JSONL
    entry: str = ""  # the path, glob or folder that names it
    weight: float | None = None  # of the entry's text in a mix

    def documents(self, report: Report, shown: str | None = None) -> Iterator[Document]:
        """Yields the documents of the file, and counts in `report` what was read and what was skipped.

        `shown` (null: the path) stands before the places of what was skipped. Raises ValueError for a file that cannot
        be read to its end.
        """
        of_file = Report()
        try:
            read = FORMATS.get(self.format)(self.text_key, self.language_key).documents(self.path, of_file)
            for document in each_document(read, self.path.name):
                of_file.documents += 1
                of_file.bytes += len(document.text)
                of_file.unnamed += not document.language
                yield document if document.language else document._replace(language=self.language)
        finally:
            report.add(of_file, str(self.path) if shown is None else shown)

    @property
    def is_document(self) -> bool:
        """Whether the file is one document."""
        return bool(FORMATS.get(self.format).whole_files)

    def folder(self, cache: Path) -> Path:
        """Where its flat form belongs: a name that changes with what the file holds.

        Raises ValueError where the file cannot be read.
        """
        where = hashlib.sha256(os.fsencode(self.path.resolve())).hexdigest()[:32]
        try:
            digest = known_digest(self.path, cache / "digests" / f"{where}.json")
        except OSError as error:
            raise ValueError(f"{self.path} cannot be read ({error.strerror})") from None
        key = [STORED, digest, self.language, self.text_key, self.language_key]
        if self.format != JSONL:
            key += [self.format, FORMATS.get(self.format).version]
        name = re.sub(r"[^\w.-]", "_", stem(self.path))[:40]
        return cache / f"{name}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}"


def expand(entries: str | Sequence[str | dict[str, str | float]], what: str, **keys: str) -> list[Source]:
    """Returns the sources that paths, globs, folders and `{path: …, lang: …, format: …}` entries name, in a fixed
    order, each file once.

    An entry may have `keys` of its own. A format that is not given is that of the file's name, else JSON lines. Globs
    and folders match no hidden files. Of entries that name one file, also by links, the one with a `lang` counts.
    Raises ValueError where an entry matches no file or names no format, or two give one file different languages,
    formats or keys.
    """
    found: dict[tuple[int, int], Source] = {}
    for entry in [entries] if isinstance(entries, str) else entries:
        wanted: dict[str, Any] = {**entry} if isinstance(entry, dict) else {"path": entry}
        if "path" not in wanted or wanted.keys() - {"path", "lang", "format", "weight", *KEYS}:
            raise ValueError(
                f"{what}: {entry!r} is neither a path nor {{path: …, lang: …, format: …, weight: …, text_key: …, "
                "language_key: …}"
            )
        if (weight := wanted.pop("weight", None)) is not None:
            check_weight(weight, f"{what}: the weight of {wanted['path']}")
        if any(not isinstance(value, str) for value in wanted.values()):
            raise ValueError(
                f"{what}: {entry!r} has a value that is not text: put quotes around it (YAML reads no as false)"
            )
        format = _known_format(wanted["format"], what) if "format" in wanted else None
        found_here = matches(str(wanted["path"]), what, any_ending=format is not None)
        is_yaml = isinstance(entry, str) and entry.lstrip()[:1] in ("[", "{") and not entry.startswith(LANGUAGE)
        if not found_here and is_yaml:  # but not a list
            raise ValueError(
                f"{what} is {entry!r}: give paths, or {{path: …, lang: …}}, with quotes around words such as no "
                "(YAML reads no as false)"
            )
        if not found_here and os.path.exists(wanted["path"]):
            raise ValueError(f"{what}: {wanted['path']!r} is not a regular file: text is read more than once")
        if not found_here:
            raise ValueError(f"{what}: no file matches {wanted['path']!r} (looked from {Path.cwd()})")
        own = keys | {key: wanted[key] for key in KEYS if key in wanted}
        for path, language, by_path in found_here:
            if by_path and "lang" in wanted:
                raise ValueError(f"{what}: {entry!r} names the language as lang and as {{language}}: leave out one")
            status = path.stat()
            one = Source(
                path, wanted.get("lang", language), named=by_path or "lang" in wanted,
                format=format or told_format(path) or JSONL, entry=wanted["path"], weight=weight, **own,
            )  # fmt: skip
            other = found.setdefault((status.st_dev, status.st_ino), one)
            if other is one:
                continue
            for of in ("format", "weight", *KEYS):
                first, second = getattr(other, of), getattr(one, of)
                if first != second:
                    raise ValueError(f"{what}: {path} is given the {of}s {first!r} and {second!r}: name it once")
            if other.named and one.named and other.language != one.language:
                raise ValueError(
                    f"{what}: {path} is given the languages {other.language!r} and {one.language!r}: name it once"
                )
            same = "" if other.path == path else f" (as {other.path} too)"
            rank_zero_warn(f"{what} names {path} more than once{same}: it is read once")
            if one.named:
                found[status.st_dev, status.st_ino] = one
    return list(found.values())


def check_weight(weight: Any, what: str, most: float = HEAVIEST) -> None:
    """Raises ValueError for a weight in a mix that is not a number above 0 and at most `most`."""
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not is_number or not 0 < weight <= most:
        remedy = "leave its text out" if is_number and weight == 0 else f"give a number above 0, at most {most:g}"
        raise ValueError(f"{what} is {show(weight)}: {remedy}")


def _known_format(name: str, what: str) -> str:
    try:
        FORMATS.check(name)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
    return name
