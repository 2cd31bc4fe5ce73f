"""Configuration files by name: `-c quickstart` is experiments/quickstart.yaml, `-c fsdp` trainer/fsdp.yaml there."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from aunet_lightning.errors import UserError

FLAGS = ("-c", "--config")
HOMES = (Path("experiments"), Path(__file__).parents[2] / "experiments")  # of the working folder; of a checkout


def with_paths(arguments: Sequence[str]) -> list[str]:
    """Returns a command's arguments with the path of each configuration file that is named without one.

    Raises UserError for a name that several files have, or none.
    """
    found = list(arguments)
    for i, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag in FLAGS and equals:
            found[i] = f"{flag}={_path(value)}"
        elif i and arguments[i - 1] in FLAGS:
            found[i] = _path(argument)
    return found


def _path(value: str) -> str:
    if not re.fullmatch(r"\w[\w/-]*", value) or Path(value).exists():
        return value
    home = next((home for home in HOMES if home.is_dir()), None)
    if home is None:
        return value
    known = {path.relative_to(home).with_suffix("").as_posix(): path for path in sorted(home.rglob("*.yaml"))}
    matching = [path for name, path in known.items() if name == value or name.endswith(f"/{value}")]
    if len(matching) == 1:
        return str(matching[0])
    if matching:
        names = ", ".join(path.relative_to(home).with_suffix("").as_posix() for path in matching)
        raise UserError(f"-c {value}: several files in {home} have this name; give one of {names}")
    near = get_close_matches(value, [*known, *(name.rpartition("/")[2] for name in known)], 1)
    meant = f". Did you mean {near[0]}?" if near else ""
    raise UserError(f"-c {value}: there is no such file, and none of this name in {home}{meant}")
