"""Lines of files, plain or compressed: told by how they begin, whatever their names."""

import bz2
import codecs
import gzip
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import zstandard

from aunet_lightning.data.documents import COMPRESSED, MAGIC

OTHER_UNICODE = {  # the longer mark first: the shorter one begins it
    codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32", codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}  # fmt: skip
WINDOW = 1 << 31  # bytes that a zstd frame may look back: what --long=31 writes


def lines_of(path: Path) -> Iterator[bytes]:
    """Yields the lines of a file with their ends. Raises ValueError for one that cannot be read to its end, and for
    UTF-16 and UTF-32."""
    try:
        with path.open("rb") as file:
            yield from _lines(file, path)
    except (EOFError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        raise ValueError(
            f"{path} cannot be read to its end ({error}): is it complete, and of the format its name says?"
        ) from error


def _lines(file: IO[bytes], path: Path) -> Iterator[bytes]:
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
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest
