"""Reading JSON lines, plain or compressed: one document a line, nothing skipped without a count."""

import bz2
import codecs
import gzip
import json
import lzma
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import zstandard

EXAMPLES = 3  # places remembered per reason
KEYS = 40  # keys of lines remembered
MAGIC = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst", b"BZh": ".bz2", b"\xfd7zXZ\0": ".xz"}  # how files begin
COMPRESSED = tuple(MAGIC.values())
OTHER_UNICODE = {  # the longer mark first: the shorter one begins it
    codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32", codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}  # fmt: skip
WINDOW = 1 << 31  # bytes that a zstd frame may look back: what --long=31 writes


class Document(NamedTuple):
    text: bytes  # UTF-8
    language: str
    name: str  # the line's `id`, or its number


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


def read_documents(
    path: Path, text_key: str, language_key: str, language: str, report: Report, name: str | None = None
) -> Iterator[Document]:
    """Yields the documents of one file, and counts in `report` what it read and what it skipped.

    `language` is that of lines without a `language_key`; `name` (None: the path) prefixes line numbers in places.
    Raises ValueError for a file that cannot be decompressed to its end, or is UTF-16 or UTF-32.
    """
    shown = str(path) if name is None else name
    try:
        with path.open("rb") as file:
            for number, line in enumerate(_lines(file, path), 1):
                document = _parse(line, text_key, language_key, language, report, f"{shown}:{number}")
                if document is not None:
                    report.documents += 1
                    report.bytes += len(document.text)
                    yield document
    except (EOFError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        raise ValueError(
            f"{path} cannot be read to its end ({error}): is it complete, and of the format its name says?"
        ) from error


def _parse(line: bytes, text_key: str, language_key: str, language: str, report: Report, place: str) -> Document | None:
    line = line.removeprefix(codecs.BOM_UTF8)
    if not line.strip():
        report.skip("empty line", place)
        return None
    try:
        fields = json.loads(line.decode("utf-8"))  # bytes would be decoded by a guess
    except UnicodeDecodeError:
        report.skip("not UTF-8", place)
        return None
    except (ValueError, RecursionError):  # not JSON, or nested without end
        report.skip("invalid JSON", place)
        return None
    if isinstance(fields, dict):
        for key in fields:
            if key in report.keys or len(report.keys) < KEYS:
                report.keys[key] = report.keys.get(key, 0) + 1
    text = fields.get(text_key) if isinstance(fields, dict) else None
    if not isinstance(text, str):
        report.skip(f"no string under {text_key!r}", place)
        return None
    if not text:
        report.skip("empty text", place)
        return None
    of_line, id_ = fields.get(language_key), fields.get("id")  # null is as good as missing
    if of_line is not None and not isinstance(of_line, str):
        report.skip(f"{language_key!r} is not a string", place)
        return None
    name = place.rpartition(":")[2] if id_ is None else str(id_)
    for where, value in (("text", text), (repr(language_key), of_line or ""), ("'id'", name)):
        if not _is_unicode(value):
            report.skip(f"lone surrogate in {where}", place)
            return None
    report.unnamed += not of_line
    return Document(text.encode(), of_line or language, name)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _lines(file: IO[bytes], path: Path) -> Iterator[bytes]:
    """Yields the lines of a file, decompressed by its first bytes, whatever its name."""
    head = file.read(8)
    file.seek(0)
    suffix = path.suffix.lower()
    kind = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None)
    if kind is None and suffix in COMPRESSED and head:
        raise EOFError(f"it does not begin as {suffix} files do")
    plain: Any = file
    if kind == ".zst":
        plain = _split_lines(_zst_chunks(file))
    elif kind is not None:
        unpack: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
        plain = unpack[kind](file, "rb")
    for number, line in enumerate(plain):
        other = next((other for mark, other in OTHER_UNICODE.items() if line.startswith(mark)), None)
        if number == 0 and other is not None:
            raise ValueError(f"{path} is {other}, not UTF-8: convert it, iconv -f {other} -t UTF-8 FILE > NEW")
        yield line


def _zst_chunks(file: IO[bytes]) -> Iterator[bytes]:
    """Yields decompressed chunks. (zstandard's own reader ends a truncated file as if it were complete.)"""
    decompressor, unfinished = zstandard.ZstdDecompressor(max_window_size=WINDOW), False
    frame = decompressor.decompressobj()
    while chunk := file.read(1 << 20):
        while chunk:
            yield frame.decompress(chunk)
            chunk, unfinished = frame.unused_data, not frame.eof
            if frame.eof:
                frame = decompressor.decompressobj()
    if unfinished:
        raise EOFError("the compressed stream ends early")


def _split_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest


def stem(path: Path) -> str:
    """Returns the file's name without `.jsonl`, `.gz` and the like: the language of a file that names none."""
    name = os.fsencode(path.name).decode("utf-8", "backslashreplace")  # in any locale, and of any bytes
    return name.lstrip(".").split(".")[0] or name


def bare_name(path: Path) -> str:
    """Returns the file's name without the suffixes of its format: `en.2024` of en.2024.jsonl.gz."""
    name = path.name
    while Path(name).suffix.lower() in (*COMPRESSED, ".jsonl", ".json", ".ndjson", ".txt"):
        name = name[: -len(Path(name).suffix)]
    return name
