"""Expands paths as users write them; writes and deletes files as a whole."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # how URLs begin
PART = ".part"  # ends the name of what is being written or deleted
GONE = ".gone" + PART  # that of a folder which is being deleted


def user_path(path: str | Path, what: str) -> Path:
    """Returns a path with `~` expanded. Raises ValueError, naming the setting `what`, where that fails."""
    text = str(path)
    if not text or "\0" in text:
        raise ValueError(f"{what} is {text!r}, which is not a path")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        whose = text[1:].partition("/")[0]
        problem = f"no user {whose}" if whose else "no home folder (set HOME)"
        raise ValueError(f"{what} is {text!r}, but there is {problem}: write the path in full") from None


def is_remote(path: str) -> bool:
    """Returns whether a path is a URL, such as s3://bucket/a.jsonl."""
    return REMOTE.match(path) is not None


def default_cache() -> Path:
    """Returns the folder of cached text where no setting names one."""
    if named := os.environ.get("AUNET_CACHE"):
        return user_path(named, "$AUNET_CACHE")
    return user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "data.cache_dir (by default)") / "aunet-lightning"


@contextmanager
def temporary_folder(parent: Path, prefix: str, what: str) -> Iterator[Path]:
    """A context whose value is a new folder, deleted at the end unless it has another name by then. Raises ValueError,
    naming the setting `what`, where `parent` cannot be written."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    except OSError as error:
        raise ValueError(
            f"{what}: cannot write to {parent} ({error.strerror}): name a folder that can be written"
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def replace_text(path: Path, text: str) -> None:
    """Writes a file as a whole: who reads it finds the text before or this one, also where the process is killed."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, contents: bytes) -> None:
    """Writes a file as a whole, as `replace_text` does."""
    part = path.with_name(path.name + PART)
    part.write_bytes(contents)
    part.replace(path)


def remove(path: Path) -> None:
    """Deletes a file or folder; a folder loses its name first, so that no incomplete one has it."""
    if path.is_dir() and not path.is_symlink():
        if not path.name.endswith(PART):
            gone = path.with_name(path.name + GONE)
            shutil.rmtree(gone, ignore_errors=True)
            path = path.rename(gone)
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
