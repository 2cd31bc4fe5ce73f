"""Records with named fields, and which of them make a document."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aunet_lightning.data.documents import Document, Format, Report

KEYS = 40  # keys of records remembered


class Records(Format):
    """A file of records, with the text and perhaps the language under the settings' keys, and a name under `id`."""

    def document(self, fields: Any, report: Report, place: str, number: str) -> Document | None:
        """Returns the document of a record; None where it has no usable text, which is counted."""
        text = fields.get(self.text_key) if isinstance(fields, dict) else None
        if not isinstance(text, str):
            report.skip(f"no string under {self.text_key!r}", place)
            return None
        if not text:
            report.skip("empty text", place)
            return None
        language, id_ = fields.get(self.language_key), fields.get("id")  # null is as good as missing
        context = fields.get(self.context_key) if self.context_key is not None else None
        for key, value in ((self.language_key, language), (self.context_key, context)):
            if value is not None and not isinstance(value, str):
                report.skip(f"{key!r} is not a string", place)
                return None
        name = number if id_ is None else str(id_)
        held = (
            ("text", text), (repr(self.language_key), language), ("'id'", name), (repr(self.context_key), context)
        )  # fmt: skip
        for where, value in held:
            if not is_unicode(value or ""):
                report.skip(f"lone surrogate in {where}", place)
                return None
        return Document(text.encode(), language or "", name, (context or "").encode())


class Table(Records):
    """A file of records with the same columns throughout."""

    def columns(self, names: Sequence[str], path: Path) -> list[str]:
        """Returns the columns that are read, of those that a file has. Raises ValueError where there is no text among
        them."""
        if self.text_key not in names:
            raise ValueError(
                f"{path} has no column {self.text_key!r}, which text_key names; it has {', '.join(map(repr, names))}"
            )
        wanted = {self.text_key, self.language_key, "id", self.context_key}
        for name in wanted:
            if name is not None and names.count(name) > 1:
                raise ValueError(f"{path} has the column {name!r} more than once: rename all but one")
        return [name for name in names if name in wanted]

    def row(self, fields: Mapping[str, str | None], report: Report, place: str, number: str) -> Document | None:
        """Returns the document of a row, whose fields were decoded with `surrogateescape`."""
        if not all(is_unicode(value) for value in fields.values() if value):
            report.skip("not UTF-8", place)
            return None
        return self.document(fields, report, place, number)


def count_keys(names: Iterable[str], report: Report, records: int = 1) -> None:
    """Counts keys that records have."""
    for key in names:
        if key in report.keys or len(report.keys) < KEYS:
            report.keys[key] = report.keys.get(key, 0) + records


def is_unicode(text: str) -> bool:
    """Returns whether a text has no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
