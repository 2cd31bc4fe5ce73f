"""JSON lines, plain or compressed: one document a line, nothing skipped without a count."""

import bz2
import codecs
import contextlib
import gzip
import json
import lzma
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import zstandard

from aunet_lightning.data.documents import COMPRESSED, MAGIC, Document, Format, Report

KEYS = 40  # keys of lines remembered
OTHER_UNICODE = {  # the longer mark first: the shorter one begins it
    codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32", codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}  # fmt: skip
WINDOW = 1 << 31  # bytes that a zstd frame may look back: what --long=31 writes


class JsonLines(Format):
    """An object a line, with the text and perhaps the language under the settings' keys, and a name under `id`.

    context_key: the key of a text that comes before, which is not read without it.
    """

    def __init__(self, text_key: str = "text", language_key: str = "lang", context_key: str | None = None) -> None:
        super().__init__(text_key, language_key)
        self.context_key = context_key

    def documents(self, path: Path, report: Report) -> Iterator[Document]:
        """Raises ValueError also for a file in UTF-16 or UTF-32."""
        try:
            with path.open("rb") as file:
                yield from self.of_lines(_lines(file, path), report)
        except (EOFError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
            raise ValueError(
                f"{path} cannot be read to its end ({error}): is it complete, and of the format its name says?"
            ) from error

    def of_lines(self, lines: Iterable[bytes], report: Report) -> Iterator[Document]:
        """Yields the documents of some lines."""
        for number, line in enumerate(lines, 1):
            document = _parse(line, self.text_key, self.language_key, self.context_key, report, f":{number}")
            if document is not None:
                yield document


def licences(path: Path) -> set[str]:
    """Returns what lines of a file say under `license` or `licence`; nothing of a file that has moved, or has no such
    lines."""
    found: set[str] = set()
    with contextlib.suppress(OSError, ValueError, EOFError), path.open("rb") as file:
        for line in _lines(file, path):
            if b'"licen' in line:
                with contextlib.suppress(ValueError):
                    fields = json.loads(line)
                    found |= {str(fields[key]) for key in ("license", "licence") if fields.get(key)}
    return found


def _parse(
    line: bytes, text_key: str, language_key: str, context_key: str | None, report: Report, place: str
) -> Document | None:
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
    context = fields.get(context_key) if context_key is not None else None
    for key, value in ((language_key, of_line), (context_key, context)):
        if value is not None and not isinstance(value, str):
            report.skip(f"{key!r} is not a string", place)
            return None
    name = place.rpartition(":")[2] if id_ is None else str(id_)
    held = (("text", text), (repr(language_key), of_line), ("'id'", name), (repr(context_key), context))
    for where, value in held:
        if not _is_unicode(value or ""):
            report.skip(f"lone surrogate in {where}", place)
            return None
    return Document(text.encode(), of_line or "", name, (context or "").encode())


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
