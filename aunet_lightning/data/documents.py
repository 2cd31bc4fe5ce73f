"""Reading JSON lines (plain, .gz, .zst): one document a line, nothing skipped without a count."""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import zstandard

EXAMPLES = 3  # places remembered per reason


class Document(NamedTuple):
    text: bytes  # UTF-8
    language: str
    name: str  # the line's `id`, or its number


@dataclass
class Report:
    """What was read and what was not, and why."""

    documents: int = 0
    bytes: int = 0
    skipped: dict[str, int] = field(default_factory=dict)  # reason → lines
    examples: dict[str, list[str]] = field(default_factory=dict)  # reason → the first places

    def skip(self, reason: str, place: str) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append(place)

    def add(self, other: "Report") -> None:
        self.documents += other.documents
        self.bytes += other.bytes
        for reason, count in other.skipped.items():
            self.skipped[reason] = self.skipped.get(reason, 0) + count
            self.examples[reason] = (self.examples.get(reason, []) + other.examples[reason])[:EXAMPLES]

    def warning(self) -> str | None:
        """Returns one sentence on what was skipped, or None."""
        if not self.skipped:
            return None
        reasons = "; ".join(
            f"{count} × {reason} ({', '.join(self.examples[reason])}{', …' if count > EXAMPLES else ''})"
            for reason, count in sorted(self.skipped.items(), key=lambda item: -item[1])
        )
        total = sum(self.skipped.values())
        return f"{total} of {self.documents + total} lines hold no usable document: {reasons}"


def read_documents(path: Path, text_key: str, language_key: str, language: str, report: Report) -> Iterator[Document]:
    """Yields the documents of one file, and counts in `report` what it read and what it skipped.

    `language` serves lines without a `language_key`. Raises ValueError for a file that cannot be
    decompressed to its end.
    """
    try:
        for number, line in enumerate(_lines(path), 1):
            document = _parse(line, text_key, language_key, language, report, f"{path}:{number}")
            if document is not None:
                report.documents += 1
                report.bytes += len(document.text)
                yield document
    except (EOFError, OSError, zlib.error, zstandard.ZstdError) as error:
        raise ValueError(
            f"{path} cannot be read to its end ({error}): is it whole, and of the kind its name says?"
        ) from error


def _parse(line: bytes, text_key: str, language_key: str, language: str, report: Report, place: str) -> Document | None:
    if not line.strip():
        report.skip("empty line", place)
        return None
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):  # not JSON, not UTF-8, or nested without end
        report.skip("invalid JSON", place)
        return None
    text = fields.get(text_key) if isinstance(fields, dict) else None
    if not isinstance(text, str):
        report.skip(f"no string under {text_key!r}", place)
        return None
    if not text:
        report.skip("empty text", place)
        return None
    try:
        data = text.encode()
    except UnicodeEncodeError:
        report.skip("lone surrogate in text", place)
        return None
    of_line = fields.get(language_key, language)
    if not isinstance(of_line, str):
        report.skip(f"{language_key!r} is not a string", place)
        return None
    return Document(data, of_line, str(fields.get("id", place.rpartition(":")[2])))


def _lines(path: Path) -> Iterator[bytes]:
    if path.suffix == ".zst":
        yield from _split_lines(_zst_chunks(path))
        return
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        yield from file


def _zst_chunks(path: Path) -> Iterator[bytes]:
    """Yields decompressed chunks. (zstandard's own reader ends a file cut short as if it were whole.)"""
    frame, unfinished = zstandard.ZstdDecompressor().decompressobj(), False
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            while chunk:
                yield frame.decompress(chunk)
                chunk, unfinished = frame.unused_data, not frame.eof
                if frame.eof:
                    frame = zstandard.ZstdDecompressor().decompressobj()
    if unfinished:
        raise EOFError("the compressed stream ends early")


def _split_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        yield rest


def stem(path: Path) -> str:
    """Returns the file's name without `.jsonl`, `.gz` and the like: the language of a file that names none."""
    return path.name.split(".")[0]
