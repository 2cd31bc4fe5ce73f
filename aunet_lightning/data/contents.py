"""Contents of files, known by a digest of what they hold and not by name, size or time.

A note beside a file (or in a cache) has its digest and its stamp. Where the stamp is still the same the digest is
believed; where it differs the file is read again. `touch` and `cp --preserve` set every time of a file but one: that
of its last change (ctime), so a stamp has that one.
"""

import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

SETTLED = 2_000_000_000  # ns from a file's last change after which no other can have the same time, on any file system


def digest(path: Path) -> str:
    """Returns the sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(path: Path) -> list[int]:
    """Returns size, inode and time of the last change of a file: another stamp, perhaps other contents."""
    status = path.stat()
    return [status.st_size, status.st_ino, status.st_ctime_ns]


def known_digest(path: Path, note: Path) -> str:
    """Returns the digest of a file, from its `note` where the stamp in it is still the file's; else notes it anew."""
    known = _read(note)
    if not _is_current(known, path):
        known = {"sha256": digest(path)} | _now(path)
        _write(note, known)
    return str(known["sha256"])


def seal(folder: Path, *names: str) -> None:
    """Notes what files of a folder hold, beside each. Raises OSError where that cannot be written."""
    for name in names:
        path = folder / name
        _write(_seal(path), {"sha256": digest(path)} | _now(path), must=True)


def is_whole(folder: Path, name: str) -> bool:
    """Returns whether a file of a folder holds what was sealed: by its stamp, else by its digest."""
    path = folder / name
    sealed = _read(_seal(path))
    if "sha256" not in sealed or not path.is_file():
        return False
    if _is_current(sealed, path):
        return True
    now = _now(path)
    if digest(path) != sealed["sha256"]:
        return False
    _write(_seal(path), sealed | now)
    return True


def _seal(path: Path) -> Path:
    return path.with_name(path.name + ".seal")


def _now(path: Path) -> dict[str, Any]:
    return {"at": time.time_ns(), "stamp": stamp(path)}


def _is_current(known: dict[str, Any], path: Path) -> bool:
    there = known.get("stamp")
    return bool(there) and there == stamp(path) and known["at"] - there[-1] > SETTLED


def _read(note: Path) -> dict[str, Any]:
    try:
        known = json.loads(note.read_bytes())
        return known if isinstance(known, dict) and isinstance(known.get("at"), int) and "sha256" in known else {}
    except (OSError, ValueError):  # not there, or damaged
        return {}


def _write(note: Path, known: dict[str, Any], must: bool = False) -> None:
    """Writes a note atomically; where nothing can be written, files are only read more often."""
    part = ""
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=note.parent, delete=False, encoding="utf-8") as file:
            part = file.name
            json.dump(known, file)
        os.replace(part, note)
    except OSError:
        Path(part).unlink(missing_ok=True) if part else None
        if must:
            raise
