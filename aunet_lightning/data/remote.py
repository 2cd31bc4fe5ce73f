"""Files of other machines, by URL: found through fsspec, and copied to this machine for as long as they are read."""

import multiprocessing
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from lightning_utilities.core.rank_zero import rank_zero_only

from aunet_lightning.data.contents import digest
from aunet_lightning.data.documents import stem
from aunet_lightning.data.matching import Match, as_glob, files_inside, is_hidden, languages, no_files
from aunet_lightning.data.places import Place
from aunet_lightning.errors import is_disk_full
from aunet_lightning.paths import default_cache, is_remote, temporary_folder

# What filesystems tell of a file that changes with its contents; where there is none of it, what changes in time.
OF_CONTENTS = ("ETag", "etag", "Content-MD5", "md5Hash", "xet_hash", "blob_id", "sha")
OF_TIMES = ("Last-Modified", "LastModified", "last_modified", "mtime", "modify", "created")
CHECK = "check the name, the network, and how one signs in there (docs/data.md)"
LONGEST = 200  # characters of others' messages, whose remedies may be on a second line
SILENT = 300.0  # seconds without a byte after which a web server is given up


@dataclass(frozen=True)
class RemoteFile(Place):
    """A file of another machine.

    token: what its filesystem said about its contents when it was found; empty: nothing
    size: bytes; None where it is not known
    """

    url: str
    token: str = ""
    size: int | None = None

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        path = unquote(urlsplit(self.url).path) if _is_web(self.url) else self.url
        return PurePosixPath(path).name

    @property
    def key(self) -> Hashable:
        return self.url

    def contents(self, cache: Path) -> str:
        """A file of which its filesystem tells nothing is copied for a digest, each time."""
        if self.token:
            return f"{self.url} {self.token}"
        with self.opened(cache) as copy:
            return digest(copy)

    def stamp(self) -> object:
        return self.token  # `opened` looks whether it is still the same

    @contextmanager
    def opened(self, downloads: Path | None = None) -> Iterator[Path]:
        """A context whose value is a copy of the file. Raises ValueError where it is another one than was found."""
        with temporary_folder(downloads or default_cache(), ".download-", "data.cache_dir") as folder:
            copy = folder / self.name
            filesystem = _Filesystem(self.url)
            filesystem.copy(copy)
            if self.token and filesystem.file(self.url).token != self.token:
                raise ValueError(f"{self.url} has changed since it was found: start again once it is complete")
            if self.size is not None and copy.stat().st_size != self.size:
                raise ValueError(
                    f"{self.url} was cut short: {copy.stat().st_size} of {self.size} bytes have come: start again"
                )
            try:
                yield copy
            except ValueError as error:  # of the format, which names the copy
                if str(copy) not in str(error):
                    raise
                raise ValueError(str(error).replace(str(copy), self.url)) from error


def matches(pattern: str, what: str, any_ending: bool = False) -> list[Match]:
    """Returns the file of this URL, those of a folder, or those that a glob matches, as `matching.matches` does.

    A folder of a web server, which gives a list of its files, ends in /. Raises ValueError also where there is none.
    """
    filesystem = _Filesystem("/".join(map(as_glob, pattern.split("/"))), f"{what}: ")
    found = filesystem.globbed()
    kind = None if found else filesystem.kind()
    if kind == "directory":
        inside = files_inside(filesystem.walk(filesystem.path), filesystem.read, what, any_ending)
        found, language = sorted(inside, key=lambda path: path.split("/")), stem(RemoteFile(pattern.rstrip("/")))
        if not found:
            raise no_files(pattern, what, any_ending)
        return [Match(filesystem.file(path), language, False) for path in found]
    if not found and kind is None:
        raise ValueError(f"{what}: no file matches {pattern!r}")
    files = [filesystem.file(path) for path in found or [filesystem.path]]
    of = languages(PurePosixPath(filesystem.url_of(pattern)), [PurePosixPath(file.url) for file in files], what)
    return [Match(file, language or stem(file), language is not None) for file, language in zip(files, of, strict=True)]


def refresh(paths: Iterable[str], what: str) -> None:
    """Forgets what this process has listed of other machines, which may have more by now."""
    for url in filter(is_remote, paths):
        _Filesystem(url, f"{what}: ").fs.invalidate_cache()


@contextmanager
def reached(name: str, remedy: str = CHECK) -> Iterator[None]:
    """Makes one sentence of what a filesystem or a hub raises; `name` says of what. Missing packages pass."""
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # each has errors of its own
        if is_disk_full(error):
            raise ValueError(f"no space left for a copy of {name}: make room, or name another data.cache_dir") from None
        cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
        problem = " ".join(f"{type(cause).__name__}: {cause}".split())[:LONGEST]
        raise ValueError(f"{name} cannot be read ({problem}): {remedy}") from error


class _Filesystem:
    """The filesystem of a URL. `setting` begins what it says of faults."""

    def __init__(self, url: str, setting: str = "") -> None:
        from fsspec.core import url_to_fs

        self.name, self.is_web = setting + url, _is_web(url)
        if "::" in url:
            raise ValueError(f"{self.name} is a filesystem inside another, which is not read: copy its files first")
        try:
            with reached(self.name):
                self.fs, self.path = url_to_fs(url, **(_patience(url) if self.is_web else {}))
        except ImportError as error:
            raise ValueError(f"{self.name} needs a package: {_install(url) or error}") from None

    def url_of(self, path: str) -> str:
        """Returns the URL of a path, or a URL as it is written for paths that were found."""
        return str(self.fs.unstrip_protocol(self.fs._strip_protocol(path)))

    def file(self, path: str) -> RemoteFile:
        with reached(self.name):
            info = self.fs.info(path)
        return RemoteFile(self.url_of(path), _token(info), info.get("size"))

    def kind(self) -> str | None:
        """Returns whether the URL is that of a "file" or a "directory"; None where there is nothing."""
        info = self._ask(self.fs.info, self.path)
        return "directory" if info and self.is_web and self.name.endswith("/") else info and info["type"]

    def _ask(self, question: Callable[..., Any], path: str, **options: Any) -> Any:
        """Returns the answer of the filesystem about a path; None where there is nothing."""
        try:
            with reached(self.name):
                return question(path, **options)
        except ValueError as error:
            missing, why = error.__cause__, error.__cause__ and error.__cause__.__cause__
            if isinstance(missing, FileNotFoundError) and (why is None or getattr(why, "status", None) == 404):
                return None
            raise

    def read(self, path: str) -> bytes:
        with reached(self.name):
            return bytes(self.fs.cat_file(path))

    def copy(self, to: Path) -> None:
        """Copies the file to this machine, with a bar in a terminal."""
        from fsspec.callbacks import TqdmCallback

        here = multiprocessing.parent_process() is None and not getattr(rank_zero_only, "rank", 0)
        bar = {"desc": to.name, "unit": "B", "unit_scale": True, "leave": False, "disable": None if here else True}
        with reached(self.name):
            self.fs.get_file(self.path, str(to), callback=TqdmCallback(bar))
            self.fs.invalidate_cache()

    def listed(self, folder: str) -> tuple[list[str], list[str]]:
        """Returns the names of folders and of files in a folder, both in order; none where it is not there.

        (`fsspec` has `walk` and `glob`, which leave out what cannot be listed.)
        """
        folders, names = set[str](), set[str]()
        for info in self._ask(self.fs.ls, folder, detail=True) or ():
            path = info["name"].rstrip("/")
            if path.strip("/") != folder.strip("/"):
                (folders if info["type"] == "directory" else names).add(path.rpartition("/")[2])
        return sorted(folders), sorted(name for name in names if not name.startswith("?"))  # ways to sort a list

    def walk(self, folder: str) -> Iterator[tuple[str, list[str], list[str]]]:
        """Yields what `os.walk` does."""
        folders, names = self.listed(folder)
        yield folder, folders, names
        for name in folders:
            yield from self.walk(f"{folder.rstrip('/')}/{name}")

    def globbed(self) -> list[str]:
        """Returns the files that the URL matches as a glob, in order; none where it is not a glob."""
        parts = self.path.split("/")
        first = next((i for i, part in enumerate(parts) if self._is_glob(part)), None)
        if first is None:
            return []
        root, pattern = "/".join(parts[:first]), PurePosixPath(*parts[first:])
        found = sorted(set(self._matching(root, parts[first:])), key=lambda path: path.split("/"))
        return [path for path in found if not is_hidden(PurePosixPath(path[len(root) :].strip("/")), pattern)]

    def _is_glob(self, part: str) -> bool:
        return any(character in part for character in ("*[" if self.is_web else "*?["))

    def _matching(self, folder: str, parts: list[str]) -> Iterator[str]:
        part, *rest = parts
        if rest and part != "**" and not self._is_glob(part):
            yield from self._matching(f"{folder}/{part}", rest)
            return
        if part == "**" and rest:
            yield from self._matching(folder, rest)
        folders, names = self.listed(folder)
        for name in folders if rest or part == "**" else names:
            if part == "**":
                yield from self._matching(f"{folder}/{name}", parts)
            elif fnmatchcase(unquote(name) if self.is_web else name, part):
                yield from self._matching(f"{folder}/{name}", rest) if rest else [f"{folder}/{name}"]


def _token(info: dict[str, Any]) -> str:
    """Returns what a filesystem tells of a file's contents; empty where that is nothing."""
    known = next(([key] for key in OF_CONTENTS if info.get(key)), [key for key in OF_TIMES if info.get(key)])
    return " ".join(f"{key}={info[key]}" for key in (*known, "size")) if known else ""


def _is_web(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _patience(url: str) -> dict[str, Any]:
    """Returns options for copies from a web server, which aiohttp would end after 5 minutes."""
    from aiohttp import ClientTimeout
    from fsspec.config import conf

    own = conf.get(url.partition("://")[0], {}).get("client_kwargs", {})
    return {"client_kwargs": {"timeout": ClientTimeout(total=None, sock_connect=SILENT, sock_read=SILENT)} | own}


def _install(url: str) -> str | None:
    """Returns how to install the filesystem of a URL, where a package has it."""
    from fsspec.registry import known_implementations

    package = known_implementations.get(url.partition("://")[0], {}).get("class", "fsspec").partition(".")[0]
    return None if package == "fsspec" else f"pip install {package}"
