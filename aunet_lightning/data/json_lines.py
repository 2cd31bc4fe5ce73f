"""JSON, plain or compressed: a document a line, or an array of them. Nothing is skipped without a count."""

import codecs
import contextlib
import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from aunet_lightning.data.decompressed import lines_of
from aunet_lightning.data.documents import Document, Report
from aunet_lightning.data.records import Records, count_keys


class JsonLines(Records):
    """An object a line."""

    def documents(self, path: Path, report: Report) -> Iterator[Document]:
        """Raises ValueError also for a file in UTF-16 or UTF-32."""
        yield from self.of_lines(lines_of(path), report)

    def of_lines(self, lines: Iterable[bytes], report: Report) -> Iterator[Document]:
        """Yields the documents of some lines."""
        for number, line in enumerate(lines, 1):
            document = self._of_line(line.removeprefix(codecs.BOM_UTF8), report, number)
            if document is not None:
                yield document

    def _of_line(self, line: bytes, report: Report, number: int) -> Document | None:
        place = f":{number}"
        if not line.strip():
            report.skip("empty line", place)
            return None
        if b"\0" in line:  # which JSON writes as \u0000
            report.skip("NUL byte", place)
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
            count_keys(fields, report)
        return self.document(fields, report, place, str(number))


class Json(JsonLines):
    """One array of objects, or of texts, held in memory as a whole. A file that does not begin with [ is JSON lines,
    which many files named .json are."""

    def documents(self, path: Path, report: Report) -> Iterator[Document]:
        lines, blank = lines_of(path), []
        for first in lines:
            if text := first.removeprefix(codecs.BOM_UTF8).lstrip():
                break
            blank.append(first)
        else:
            return
        if not text.startswith(b"["):
            yield from self.of_lines(chain(blank, [first], lines), report)
            return
        for number, item in enumerate(_array(b"".join([*blank, first, *lines]), path), 1):
            fields = {self.text_key: item} if isinstance(item, str) else item
            if isinstance(item, dict):
                count_keys(item, report)
            document = self.document(fields, report, f", item {number}", str(number))
            if document is not None:
                yield document


def _array(data: bytes, path: Path) -> list[object]:
    """Raises ValueError, with the place, for what is not JSON."""
    try:
        items: list[object] = json.loads(data.removeprefix(codecs.BOM_UTF8).decode("utf-8"))
        return items
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{line} is not UTF-8: correct or convert the file") from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}:{error.lineno} is not JSON ({error.msg} at column {error.colno}): is it complete? JSON lines are "
            "format: jsonl"
        ) from None
    except RecursionError:
        raise ValueError(f"{path} is nested too deep") from None


def licences(path: Path) -> set[str]:
    """Returns what lines of a file say under `license` or `licence`; nothing of a file that has moved, or has no such
    lines."""
    found: set[str] = set()
    with contextlib.suppress(ValueError):
        for line in lines_of(path):
            if b'"licen' in line:
                with contextlib.suppress(ValueError):
                    fields = json.loads(line)
                    found |= {str(fields[key]) for key in ("license", "licence") if fields.get(key)}
    return found
