"""Places of text: what a format reads, and what tells its contents from others."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aunet_lightning.data.contents import known_digest, stamp


class Place(ABC):
    """A file of this machine or of another, or something else that a format reads. `str` of it is for messages.

    It travels to workers, so it holds no connection.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The last part of its path, which may tell language and format."""

    @property
    def language(self) -> str:
        """The language of documents that name none, where the place tells it; else empty."""
        return ""

    @property
    @abstractmethod
    def key(self) -> Hashable:
        """The same for all names of one place."""

    @property
    def size(self) -> int | None:
        """Bytes as they are stored; None where they are not known."""
        return None

    @abstractmethod
    def contents(self, cache: Path) -> str:
        """Returns what is the same for the same contents only: a digest, or what stands for one where it is.

        `cache` may keep notes. Raises ValueError where it cannot be read.
        """

    @abstractmethod
    def stamp(self) -> object:
        """Returns what is another one if the contents have changed since; a place may look after that in `opened`."""

    @abstractmethod
    def opened(self, downloads: Path | None = None) -> AbstractContextManager[Any]:
        """Returns a context whose value is what the format reads: of files, a path on this machine.

        downloads: a folder for what has to be copied to this machine; None: that of the user's cache. Raises ValueError
        where that fails.
        """


@dataclass(frozen=True)
class File(Place):
    """A file of this machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def key(self) -> Hashable:
        status = self.path.stat()
        return status.st_dev, status.st_ino

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def contents(self, cache: Path) -> str:
        return file_digest(self.path, cache)

    def stamp(self) -> object:
        return stamp(self.path)

    def opened(self, downloads: Path | None = None) -> AbstractContextManager[Path]:
        return nullcontext(self.path)


def place_of(path: Path | Place) -> Place:
    """Returns a place as it is, and a path as that of a file of this machine."""
    return path if isinstance(path, Place) else File(path)


def file_digest(path: Path, cache: Path) -> str:
    """Returns the digest of a file, from a note in `cache` where it has not changed. Raises ValueError."""
    where = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    try:
        return known_digest(path, cache / "digests" / f"{where}.json")
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from None
