"""Plain text, perhaps compressed: a document is a file, a line, or what blank lines separate."""

import codecs
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from aunet_lightning.data.decompressed import lines_of
from aunet_lightning.data.documents import Document, Format, Report


class Text(Format):
    """A file is a document, as it is, held in memory as a whole."""

    whole_files = True

    def documents(self, path: Path, report: Report) -> Iterator[Document]:
        text = b"".join(_marked(path))
        if not text:
            report.skip("empty text", "")
        elif _is_text(text, report, 1):
            yield Document(text, "", "1")


class TextLines(Format):
    """A line is a document, without its end."""

    def documents(self, path: Path, report: Report) -> Iterator[Document]:
        for number, line in enumerate(map(_ended, _marked(path)), 1):
            if not line.strip():
                report.skip("empty line", f":{number}")
            elif _is_text(line, report, number):
                yield Document(line, "", str(number))


class TextParagraphs(Format):
    """Lines up to a blank one, or more of these, are a document; its name is the number of its first line."""

    def documents(self, path: Path, report: Report) -> Iterator[Document]:
        lines: list[bytes] = []
        for number, line in enumerate(chain(map(_ended, _marked(path)), [b""]), 1):
            if line.strip():
                lines.append(line)
            elif lines:
                text, first = b"\n".join(lines), number - len(lines)
                if _is_text(text, report, first):
                    yield Document(text, "", str(first))
                lines = []


def _marked(path: Path) -> Iterator[bytes]:
    """Yields lines with their ends, without a byte-order mark."""
    lines = lines_of(path)
    yield from (line.removeprefix(codecs.BOM_UTF8) for line in (next(lines, b""),) if line)
    yield from lines


def _ended(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _is_text(text: bytes, report: Report, first: int) -> bool:
    """Counts what is not text with the line, of those from `first` on, where it is not."""
    reason, where = "NUL byte", text.find(b"\0")
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        reason, where = ("not UTF-8", error.start) if where < 0 else (reason, where)
    if where < 0:
        return True
    line = first + text.count(b"\n", 0, where)
    report.skip(reason, f":{line}")
    return False
