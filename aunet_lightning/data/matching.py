"""The files that a path, a glob or a folder names, and the languages that paths tell."""

import json
import os
import re
from collections.abc import Iterator
from fnmatch import fnmatch, fnmatchcase
from pathlib import Path
from typing import NamedTuple

from aunet_lightning.data.documents import ENDINGS, stem, told_format
from aunet_lightning.paths import user_path

LANGUAGE = "{language}"  # in a glob: any text, which is the language
SPLITS, TABLE = "dataset_dict.json", "state.json"  # what `datasets` writes into folders


class Match(NamedTuple):
    path: Path
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
        found = [] if is_folder else _globbed(Path(*map(_as_glob, path.parts)))
    except (OSError, ValueError, NotImplementedError) as error:
        problem = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{what}: {pattern[:80]!r} is not a path or a glob ({problem})") from None
    if is_folder:
        language = stem(path.resolve())
        return [Match(file, language, False) for file in _of_folder(path, what, any_ending)]
    if LANGUAGE not in pattern:
        return [Match(file, stem(file), False) for file in found]
    part = _part(path, what)
    return [Match(file, _language(file.parts[part], path.parts[part], what), True) for file in found]


def _as_glob(part: str) -> str:
    return re.sub(r"\*+", "*", part.replace(LANGUAGE, "*")) if LANGUAGE in part else part  # ** would be folders


def _globbed(path: Path) -> list[Path]:
    anchor = Path(path.anchor) if path.anchor else Path()
    parts = path.relative_to(path.anchor) if path.anchor else path
    found = sorted(match for match in anchor.glob(str(parts)) if match.is_file()) if parts.parts else []
    dotted = [part for part in parts.parts if part.startswith(".")]

    def hidden(part: str) -> bool:
        return part.startswith(".") and not any(fnmatch(part, pattern) for pattern in dotted)

    return [match for match in found if not any(map(hidden, match.parts))]


def _part(path: Path, what: str) -> int:
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
    found = sorted(file for file in _inside(folder, what, any_ending) if file.is_file())
    if not found:
        endings = "no file" if any_ending else f"no file that ends in {', '.join(ENDINGS)} (name a format, or a glob)"
        raise ValueError(f"{what}: the folder {str(folder)!r} holds {endings}")
    return found


def _inside(folder: Path, what: str, any_ending: bool) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise ValueError(f"{what}: the folder {error.filename!r} cannot be read ({error.strerror})") from None

    for here, folders, names in os.walk(folder, onerror=fail):
        place = Path(here)
        folders[:] = [name for name in folders if not name.startswith(".")]
        if SPLITS in names and len(folders):
            raise ValueError(
                f"{what}: the folder {here!r} holds splits of a dataset, {', '.join(sorted(folders))}: name one, such "
                f"as {str(place / min(folders))!r}"
            )
        if TABLE in names and (files := _of_table(place / TABLE)):
            yield from files
        else:
            shown = (place / name for name in names if not name.startswith("."))
            yield from (file for file in shown if any_ending or told_format(file))


def _of_table(state: Path) -> list[Path]:
    """Returns the files of a table that `datasets` saved; none where the file is something else."""
    try:
        return [state.with_name(of["filename"]) for of in json.loads(state.read_bytes())["_data_files"]]
    except (ValueError, TypeError, KeyError):
        return []
