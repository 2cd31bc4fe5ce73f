"""Reads texts from a command's arguments: files, the text itself, or standard input."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple

from aunet_lightning.numbers import Range
from aunet_lightning.paths import is_remote, user_path
from aunet_lightning.reports.table import TOTAL, row_of
from aunet_lightning.terminal import one_line

if TYPE_CHECKING:
    from aunet_lightning.data.places import Place

STDIN = "-"  # in place of a file or a text
FORMATS = (  # in each command's help
    "Files are JSON lines (.jsonl, .gz, .zst: a document per line), .json, .csv, .tsv, .parquet, .arrow or plain text, "
    "of this machine or by URL (s3://…, hf://…, https://…)"
)
MEGABYTES = 2.0  # of a language, where statistics need no more
MEGABYTES_RANGE = Range(above=0, most=1e12)
SUFFIXES = (  # an argument with one of these endings is a file, not a text
    ".jsonl", ".ndjson", ".json", ".txt", ".md", ".csv", ".tsv", ".parquet", ".arrow", ".feather", ".gz", ".zst",
    ".bz2", ".xz",
)  # fmt: skip
SAMPLE, MOSTLY = 1 << 16, 0.1  # bytes of a file that are examined, and the share of them that may be invalid UTF-8


class Text(NamedTuple):
    language: str
    source: str  # the argument it came from
    name: str
    data: bytes


def add_texts(parser: argparse.ArgumentParser) -> None:
    """Adds what `split` and `entropy` share: the texts, and how much of them."""
    parser.add_argument("text", nargs="*", help="files, or the text itself; - or none: standard input")
    add_megabytes(parser)


def add_megabytes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--megabytes", type=float, default=MEGABYTES, help=f"at most this much of each language (default {MEGABYTES})"
    )


def measured_texts(arguments: Sequence[str], megabytes: float, must_exist: bool = False) -> list[Text]:
    """Returns the documents of `read_texts` that are not empty, at most `megabytes` of each language. Raises ValueError
    where there is none."""
    given = list(read_texts(arguments, must_exist))
    if texts := [text for text in up_to(given, int(megabytes * 1e6)) if text.data]:
        return texts
    raise ValueError(f"there is no text in {', '.join(arguments) or 'standard input'}")


def by_language(texts: Sequence[Text]) -> Iterator[tuple[str, list[int]]]:
    """Yields all of the texts and then each language, by the name of its row in a table, with the texts' places."""
    for row in (TOTAL, *sorted({row_of(text.language) for text in texts})):
        yield row, [i for i, text in enumerate(texts) if row in (TOTAL, row_of(text.language))]


def read_texts(arguments: Sequence[str], must_exist: bool = False) -> Iterator[Text]:
    """Yields the documents of each argument; `-`, or no argument, is standard input. Raises ValueError for a file that
    does not exist or is not text."""
    for argument in arguments or [STDIN]:
        if argument == STDIN:
            yield Text("text", STDIN, "standard input", standard_input())
            continue
        must = must_exist or _names_a_file(argument)
        if found := files_of(argument, must):
            for path, language in found:
                yield from _of_file(path, language)
        elif must:
            raise ValueError(f"{argument!r} is not a file (looked from {Path.cwd()})")
        else:
            yield Text("text", argument, "text", argument.encode("utf-8", "surrogateescape"))


def files_of(argument: str, must_exist: bool = True) -> list[tuple[Path | Place, str]]:
    """Returns the file, or those of a URL, that an argument names, with languages; none where it may be a text."""
    if is_remote(argument):
        from aunet_lightning.data.remote import matches

        return [match[:2] for match in matches(argument, "text")] if must_exist else []
    from aunet_lightning.data.documents import stem

    path = user_path(argument, "text") if argument.startswith("~") else Path(argument)
    return [(path, stem(path))] if is_file(path) else []


def standard_input() -> bytes:
    """Returns all of standard input. Raises ValueError where there is none."""
    if sys.stdin is None:  # closed by who started this process
        raise ValueError("standard input is closed: pipe a text into the command, or name a file")
    if sys.stdin.isatty():
        print("aunet: reading from the terminal; Ctrl-D at the beginning of a line ends the text", file=sys.stderr)
    return sys.stdin.buffer.read()


def _names_a_file(argument: str) -> bool:
    """Returns whether an argument that names no existing file was meant as a file rather than a text."""
    named = Path(argument).suffix.lower() in SUFFIXES and " " not in argument
    return named or argument.startswith(("/", "./", "../", "~"))


def is_file(path: Path) -> bool:
    """Returns whether a path is that of a file."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text too long for a file name, or with a NUL
        return False


def _of_file(path: Path | Place, language: str) -> Iterator[Text]:
    from aunet_lightning.data.documents import Report
    from aunet_lightning.data.places import place_of
    from aunet_lightning.data.sources import Source

    format = format_of(path)
    if format is None:
        with place_of(path).opened() as copy:
            yield Text(language, str(path), str(path), plain(copy))
        return
    report = Report()
    for document in Source(path, language, format=format).documents(report):
        yield Text(document.language, str(path), f"{path}, {document.name}", document.text)
    if warning := report.warning():
        print(f"aunet: warning: {path}: {warning}", file=sys.stderr)


def format_of(path: Path | Place) -> str | None:
    """Returns the format of documents that a file's name tells; None for plain text, which is not compressed."""
    from aunet_lightning.data.documents import COMPRESSED, JSONL, told_format

    format, packed = told_format(path), {*COMPRESSED} & {suffix.lower() for suffix in PurePath(path.name).suffixes}
    return (None if format == "text" else format) if not packed else format or JSONL


def plain(path: Path) -> bytes:
    """Returns the bytes of a plain-text file. Raises ValueError if it has NULs or hardly any valid UTF-8."""
    data = path.read_bytes()
    head = data[:SAMPLE]
    lost = head.decode("utf-8", "replace").count("\ufffd") - head.count("\ufffd".encode())
    if b"\0" in head or lost > max(MOSTLY * len(head), 3):
        raise ValueError(f"{path} is not text in UTF-8: name JSON lines (.jsonl) or plain text")
    if lost:
        print(f"aunet: warning: {path}: {lost} of its first {len(head)} bytes are not UTF-8", file=sys.stderr)
    return data


def up_to(texts: Sequence[Text], most: int) -> Iterator[Text]:
    """Yields complete documents until a language has `most` bytes, and reports on stderr what it left out."""
    so_far: dict[str, int] = {}
    left: dict[str, int] = {}
    for text in texts:
        if so_far.get(text.language, 0) < most:
            so_far[text.language] = so_far.get(text.language, 0) + len(text.data)
            yield text
        else:
            left[text.language] = left.get(text.language, 0) + 1
    if left:
        named = ", ".join(f"{one_line(language)} {count}" for language, count in left.items())
        print(f"aunet: --megabytes {most / 1e6:g} left out documents: {named}", file=sys.stderr)
