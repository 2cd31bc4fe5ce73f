"""A file of results, line by line, so that a stopped evaluation continues."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aunet_lightning.paths import replace_text


class Kept:
    """Results in a file, a JSON object a line, under a header that says of what.

    path: None keeps nothing. of: what the results belong to. `lines` are those that the file had; one that was cut
    where a process was killed is left out. Raises ValueError where the file has another header.
    """

    def __init__(self, path: Path | None, of: Mapping[str, object]) -> None:
        self.path, self.of, self.lines = path, of, list[dict[str, Any]]()
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1] if text else json.dumps(of) + "\n"
        first, *lines = whole.splitlines() or [""]
        if _object(first) != of:
            what = " or ".join(f"another {name.replace('_', ' ')}" for name in of)
            raise ValueError(f"{path} has results of {what}: name another --out, or delete it")
        self.lines = [one for line in lines if (one := _object(line)) is not None]
        if whole != text:
            replace_text(path, whole)
        self._file = path.open("a", encoding="utf-8")

    def add(self, line: Mapping[str, object]) -> None:
        """Adds a result."""
        if self.path is not None:
            self._file.write(json.dumps(line) + "\n")

    def flush(self) -> None:
        """Writes what was added so far."""
        if self.path is not None:
            self._file.flush()

    def only(self, lines: Sequence[Mapping[str, object]]) -> None:
        """Leaves these results in the file alone: those of what is asked now, and not of what once was."""
        if self.path is not None:
            self._file.close()
            replace_text(self.path, "".join(json.dumps(line) + "\n" for line in [self.of, *lines]))
            self._file = self.path.open("a", encoding="utf-8")

    def __enter__(self) -> "Kept":
        return self

    def __exit__(self, *_: object) -> None:
        if self.path is not None:
            self._file.close()


NOTHING = Kept(None, {})


def key_of(text: bytes) -> str:
    """A digest of what is read, by which its result is found."""
    return hashlib.sha256(text).hexdigest()[:16]


def _object(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
