"""Reading JSON lines (plain, .gz, .zst): one document a line, nothing skipped without a count."""

import gzip
import io
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

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
    skipped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def skip(self, reason: str, place: str) -> None:
        self.skipped[reason] += 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append(place)

    def add(self, other: "Report") -> None:
        self.documents += other.documents
        self.bytes += other.bytes
        self.skipped.update(other.skipped)
        for reason, examples in other.examples.items():
            self.examples[reason] = (self.examples.get(reason, []) + examples)[:EXAMPLES]

    def warning(self) -> str | None:
        """Returns one sentence on what was skipped, or None."""
        if not self.skipped:
            return None
        reasons = "; ".join(
            f"{count} × {reason} ({', '.join(self.examples[reason])}{', …' if count > EXAMPLES else ''})"
            for reason, count in self.skipped.most_common()
        )
        return f"{self.skipped.total()} of {self.documents + self.skipped.total()} lines hold no usable document: {reasons}"


def read_documents(path: Path, text_key: str, language_key: str, language: str, report: Report) -> Iterator[Document]:
    """Yields the documents of one file, and counts in `report` what it read and what it skipped.

    `language` serves lines without a `language_key`. Raises ValueError for a file that cannot be
    decompressed to its end.
    """
    with _open(path) as lines:
        try:
            for number, line in enumerate(lines, 1):
                document = _parse(line, text_key, language_key, language, report, f"{path}:{number}")
                if document is not None:
                    report.documents += 1
                    report.bytes += len(document.text)
                    yield document
        except (EOFError, OSError, _zstd_error()) as error:
            raise ValueError(f"{path} cannot be read to its end ({error}): is it whole, and of the kind its name says?") from error


def _parse(line: bytes, text_key: str, language_key: str, language: str, report: Report, place: str) -> Document | None:
    if not line.strip():
        report.skip("empty line", place)
        return None
    try:
        fields = json.loads(line)
    except ValueError:  # not JSON, or not UTF-8
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


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    if path.suffix == ".gz":
        with gzip.open(path, "rb") as file:
            yield file  # type: ignore[misc]
    elif path.suffix == ".zst":
        import zstandard

        with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as file:
            yield io.BufferedReader(file)  # type: ignore[type-var]
    else:
        with path.open("rb") as file:
            yield file


def _zstd_error() -> type[Exception]:
    import zstandard

    return zstandard.ZstdError


def stem(path: Path) -> str:
    """Returns the file's name without `.jsonl`, `.gz` and the like: the language of a file that names none."""
    return path.name.split(".")[0]
