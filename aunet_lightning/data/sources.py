"""The files of text that settings name, each with its language and its format."""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from lightning_utilities.core.rank_zero import rank_zero_warn  # Lightning's, without loading all of it

from aunet_lightning.data.contents import known_digest
from aunet_lightning.data.documents import Document, Report, stem
from aunet_lightning.paths import user_path
from aunet_lightning.registry import Registry

STORED = 2  # changes when the stored form of documents does
JSONL = "jsonl"
FORMATS = Registry(
    "format", "aunet_lightning.data.documents:Format", {JSONL: "aunet_lightning.data.json_lines:JsonLines"}
)


@dataclass(frozen=True)
class Source:
    """A file, and how to read it."""

    path: Path
    language: str  # for lines that name none
    text_key: str = "text"
    language_key: str = "lang"
    named: bool = False  # whether the language was given, and is not the file's name
    format: str = JSONL

    def documents(self, report: Report, shown: str | None = None) -> Iterator[Document]:
        """Yields the documents of the file, and counts in `report` what was read and what was skipped.

        `shown` (null: the path) stands before the places of what was skipped. Raises ValueError for a file that cannot
        be read to its end.
        """
        of_file = Report()
        try:
            for document in FORMATS.get(self.format)(self.text_key, self.language_key).documents(self.path, of_file):
                of_file.documents += 1
                of_file.bytes += len(document.text)
                of_file.unnamed += not document.language
                yield document if document.language else document._replace(language=self.language)
        finally:
            report.add(of_file, str(self.path) if shown is None else shown)

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


def expand(entries: str | Sequence[str | dict[str, str]], what: str, **keys: str) -> list[Source]:
    """Returns the sources that paths, globs and `{path: …, lang: …, format: …}` entries name, in a fixed order, each
    file once.

    Globs match no hidden files. Of entries that name one file, also by links, the one with a `lang` counts. Raises
    ValueError where an entry matches no file or names no format, or two give one file different languages or formats.
    """
    found: dict[tuple[int, int], Source] = {}
    for entry in [entries] if isinstance(entries, str) else entries:
        wanted = entry if isinstance(entry, dict) else {"path": entry}
        if "path" not in wanted or wanted.keys() - {"path", "lang", "format"}:
            raise ValueError(f"{what}: {entry!r} is neither a path nor {{path: …, lang: …, format: …}}")
        if any(not isinstance(value, str) for value in wanted.values()):
            raise ValueError(
                f"{what}: {entry!r} has a value that is not text: put quotes around it (YAML reads no as false)"
            )
        format = _known_format(wanted.get("format", JSONL), what)
        paths = _matches(str(wanted["path"]), what)
        if not paths and isinstance(entry, str) and entry.lstrip()[:1] in ("[", "{"):  # YAML, but not a list
            raise ValueError(
                f"{what} is {entry!r}: give paths, or {{path: …, lang: …}}, with quotes around words such as no "
                "(YAML reads no as false)"
            )
        if not paths and os.path.exists(wanted["path"]):
            raise ValueError(f"{what}: {wanted['path']!r} is not a regular file: text is read more than once")
        if not paths:
            raise ValueError(f"{what}: no file matches {wanted['path']!r} (looked from {Path.cwd()})")
        for path in paths:
            status = path.stat()
            one = Source(path, wanted.get("lang", stem(path)), named="lang" in wanted, format=format, **keys)
            other = found.setdefault((status.st_dev, status.st_ino), one)
            if other is one:
                continue
            if other.format != one.format:
                raise ValueError(
                    f"{what}: {path} is given the formats {other.format!r} and {one.format!r}: name it once"
                )
            if other.named and one.named and other.language != one.language:
                raise ValueError(
                    f"{what}: {path} is given the languages {other.language!r} and {one.language!r}: name it once"
                )
            same = "" if other.path == path else f" (as {other.path} too)"
            rank_zero_warn(f"{what} names {path} more than once{same}: it is read once")
            if one.named:
                found[status.st_dev, status.st_ino] = one
    return list(found.values())


def _known_format(name: str, what: str) -> str:
    try:
        FORMATS.check(name)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
    return name


def _matches(pattern: str, what: str) -> list[Path]:
    """Returns the file of this name, or those that a glob matches; hidden ones only where the glob names them."""
    path = user_path(pattern, what)
    try:
        if path.is_file():
            return [path]
        anchor = Path(path.anchor) if path.anchor else Path()
        parts = path.relative_to(path.anchor) if path.anchor else path
        found = sorted(match for match in anchor.glob(str(parts)) if match.is_file()) if parts.parts else []
    except (OSError, ValueError, NotImplementedError) as error:
        raise ValueError(f"{what}: {pattern[:80]!r} is not a path or a glob ({error})") from None
    dotted = [part for part in parts.parts if part.startswith(".")]

    def hidden(part: str) -> bool:
        return part.startswith(".") and not any(fnmatch(part, pattern) for pattern in dotted)

    return [match for match in found if not any(map(hidden, match.parts))]
