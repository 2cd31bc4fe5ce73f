"""The files that a path, a glob or a folder names, and the languages that paths tell."""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatch, fnmatchcase
from pathlib import Path, PurePath
from typing import NamedTuple

from aunet_lightning.data.documents import ENDINGS, stem, told_format
from aunet_lightning.data.places import Place
from aunet_lightning.paths import user_path

LANGUAGE = "{language}"  # in a glob: any text, which is the language
SPLITS, TABLE = "dataset_dict.json", "state.json"  # what `datasets` writes into folders


class Match(NamedTuple):
    path: Path | Place
    language: str
    named: bool  # whether `{language}` in the path names it


def matches(pattern: str, what: str, any_ending: bool = False) -> list[Match]:
    """Returns the file of this name, the files of a folder, or those that a glob matches; hidden ones only where the
    glob names them.

    Of a folder, those of known endings, or all (`any_ending`), also in folders inside; its name is their language.
    `{language}` in a glob names the language. Raises ValueError for a folder without files and for what is no path.
    """
    path = user_path(pattern, what)
    try:
        if path.is_file():
            return [Match(path, stem(path), False)]
        is_folder = path.is_dir()
        found = [] if is_folder else _globbed(Path(*map(as_glob, path.parts)))
    except (OSError, ValueError, NotImplementedError) as error:
        problem = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{what}: {pattern[:80]!r} is not a path or a glob ({problem})") from None
    if is_folder:
        language = stem(path.resolve())
        return [Match(file, language, False) for file in _of_folder(path, what, any_ending)]
    of = languages(path, found, what)
    return [Match(file, language or stem(file), language is not None) for file, language in zip(found, of, strict=True)]


def as_glob(part: str) -> str:
    return re.sub(r"\*+", "*", part.replace(LANGUAGE, "*")) if LANGUAGE in part else part  # ** would be folders


def languages(pattern: PurePath, found: Sequence[PurePath], what: str) -> list[str | None]:
    """Returns what `{language}` stands for in each path that a glob matches; None where the glob does not have it."""
    if LANGUAGE not in str(pattern):
        return [None] * len(found)
    part = _part(pattern, what)
    return [_language(file.parts[part], pattern.parts[part], what) for file in found]


def is_hidden(path: PurePath, pattern: PurePath) -> bool:
    """Whether a part of a path begins with a dot, and none of a glob's parts that do matches it."""
    dotted = [part for part in pattern.parts if part.startswith(".")]
    return any(part.startswith(".") and not any(fnmatch(part, of) for of in dotted) for part in path.parts)


def _globbed(path: Path) -> list[Path]:
    anchor = Path(path.anchor) if path.anchor else Path()
    parts = path.relative_to(path.anchor) if path.anchor else path
    found = sorted(match for match in anchor.glob(str(parts)) if match.is_file()) if parts.parts else []
    return [match for match in found if not is_hidden(match, parts)]


def _part(path: PurePath, what: str) -> int:
    """Returns which part of a path `{language}` is in, from the end where `**` comes before."""
    if str(path).count(LANGUAGE) != 1:
        raise ValueError(f"{what}: {str(path)!r} has {LANGUAGE} more than once")
    part = next(number for number, name in enumerate(path.parts) if LANGUAGE in name)
    if "**" not in path.parts[:part]:
        return part
    if "**" in path.parts[part:]:
        raise ValueError(f"{what}: {str(path)!r} has {LANGUAGE} between two **: which part it is cannot be told")
    return part - len(path.parts)


def _language(name: str, pattern: str, what: str) -> str:
    """Returns the shortest text that `{language}` can stand for."""
    before, _, after = pattern.partition(LANGUAGE)
    for start in range(len(name)):
        for end in range(start + 1, len(name) + 1):
            if fnmatchcase(name[:start], before) and fnmatchcase(name[end:], after):
                return name[start:end]
    raise ValueError(f"{what}: {name!r} has nothing for {LANGUAGE} of {pattern!r}")


def _of_folder(folder: Path, what: str, any_ending: bool) -> list[Path]:
    def fail(error: OSError) -> None:
        raise ValueError(f"{what}: the folder {error.filename!r} cannot be read ({error.strerror})") from None

    walk = os.walk(folder, onerror=fail)
    inside = map(Path, files_inside(walk, lambda file: Path(file).read_bytes(), what, any_ending))
    found = sorted(file for file in inside if file.is_file())
    if not found:
        raise no_files(str(folder), what, any_ending)
    return found


def no_files(folder: str, what: str, any_ending: bool) -> ValueError:
    """Returns the error for a folder without files to read."""
    endings = "no file" if any_ending else f"no file that ends in {', '.join(ENDINGS)} (name a format, or a glob)"
    return ValueError(f"{what}: the folder {folder!r} holds {endings}")


def files_inside(
    walk: Iterable[tuple[str, list[str], list[str]]], read: Callable[[str], bytes], what: str, any_ending: bool
) -> Iterator[str]:
    """Yields the files of a folder and of those inside that are read: by their endings, or all.

    walk: as `os.walk` gives them: folders that are taken out of its lists are not walked
    """
    for here, folders, names in walk:
        folders[:] = [name for name in folders if not name.startswith(".")]
        if SPLITS in names and len(folders):
            raise ValueError(
                f"{what}: the folder {here!r} holds splits of a dataset, {', '.join(sorted(folders))}: name one, such "
                f"as {os.path.join(here, min(folders))!r}"
            )
        if TABLE in names and (table := _of_table(read(os.path.join(here, TABLE)))):
            yield from (os.path.join(here, name) for name in table)
        else:
            shown = (name for name in names if not name.startswith("."))
            yield from (os.path.join(here, name) for name in shown if any_ending or told_format(PurePath(name)))


def _of_table(state: bytes) -> list[str]:
    """Returns the files of a table that `datasets` saved; none where its state is something else."""
    try:
        return [of["filename"] for of in json.loads(state)["_data_files"]]
    except (ValueError, TypeError, KeyError):
        return []
