"""The command `aunet init`: a small experiment to begin with."""

import argparse
import shutil
from importlib.resources import as_file, files
from pathlib import Path

from aunet_lightning.errors import UserError
from aunet_lightning.terminal import printable


def init(arguments: list[str]) -> int:
    """Copies the starter into a new or empty folder. Raises UserError where something is in its place."""
    parser = argparse.ArgumentParser(
        "aunet init",
        description="Write a small experiment into a folder: settings to read and edit, a sample of text in three "
        "languages, a rule in a file, and a study. It runs at once.",
    )
    parser.add_argument("folder", type=Path, help="a folder that is new or empty; . for this one")
    folder = parser.parse_args(arguments).folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there and not empty: name a new folder")
    with as_file(files("aunet_lightning") / "starter") as starter:
        try:
            shutil.copytree(starter, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        except OSError as error:
            raise UserError(f"{folder} cannot be written ({error.strerror or error}): name another folder") from None
    names = sorted(path.name for path in folder.iterdir())
    print(printable(f"{folder}: {', '.join(names)}"))
    enter = "" if folder.resolve() == Path.cwd() else f"cd {folder} && "
    print(printable(f"Begin with: {enter}aunet fit -c train.yaml   (README.md has more)"))
    return 0
