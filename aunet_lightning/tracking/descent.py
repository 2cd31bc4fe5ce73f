"""The line of descent of a run: what lies past the checkpoint that it continues from is set aside, and not lost.

Without this "the newest checkpoint" and "already logged" would be said of steps that the run has gone back on. What
is set aside lies in the run's folder under `set_aside/`; a note says what is to be moved until it has been, so that a
kill in between does no harm.
"""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from aunet_lightning.checkpoints.forms import PART, point_link, rename_into_place
from aunet_lightning.tracking.run_folder import RunFolder

NOTE = "moving.json"


class SetAside(NamedTuple):
    """What was set aside."""

    folder: Path
    checkpoints: int
    points: int
    run: dict[str, Any]  # mlflow.json as it was, {} where there was none

    def __str__(self) -> str:
        return f"{self.checkpoints} checkpoints and {self.points} logged points"


def set_aside(folder: RunFolder, step: int, whole: bool = False) -> SetAside | None:
    """Moves checkpoints after `step`, and points that were logged from there on, out of the way of a run that
    continues from `step`; `whole`: all of them, where it continues from another run's.

    The MLflow run is left to what was set aside: points cannot be taken back there. Returns what was moved, or None
    where there is nothing of the kind.
    """
    finish(folder)
    later = sorted(at for at in folder.saved() if whole or at > step)
    points = sum(_is_later(line, step, whole) for line in _lines(folder))
    if not later and not points:
        return None
    home = folder.path / "set_aside"
    number = 1
    while (home / f"{number:02}").exists():
        number += 1
    note = {"number": number, "step": step, "whole": whole, "checkpoints": len(later), "points": points}
    home.mkdir(exist_ok=True)
    part = home / (NOTE + PART)
    part.write_text(json.dumps(note), encoding="utf-8")
    os.replace(part, home / NOTE)
    return finish(folder)


def finish(folder: RunFolder) -> SetAside | None:
    """Moves what is noted and not yet moved; returns what the note says, or None without one."""
    note = folder.path / "set_aside" / NOTE
    if not note.exists():
        return None
    told = json.loads(note.read_text(encoding="utf-8"))
    step, whole = told["step"], told["whole"]
    to = note.parent / f"{told['number']:02}"
    to.mkdir(exist_ok=True)
    lines = _lines(folder)
    kept, gone = (b"".join(line for line in lines if _is_later(line, step, whole) == later) for later in (False, True))
    if gone:
        (to / folder.metrics.name).write_bytes(gone)
        part = folder.metrics.with_name(folder.metrics.name + PART)
        part.write_bytes(kept)
        os.replace(part, folder.metrics)
    if folder.mlflow.exists():
        os.replace(folder.mlflow, to / folder.mlflow.name)
    for at, path in folder.saved().items():
        if whole or at > step:
            rename_into_place(path, to / path.name)
    _point(folder)
    note.unlink()
    try:
        known = json.loads((to / folder.mlflow.name).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there was none, or it is damaged
        known = {}
    return SetAside(to, told["checkpoints"], told["points"], known)


def _point(folder: RunFolder) -> None:
    """Lets `last` be the newest that is left, and `best` nothing that is gone."""
    there = folder.saved()
    if there:
        point_link(folder.last, there[max(there)])
    for link in (folder.last, folder.best):
        if link.is_symlink() and not link.exists():
            link.unlink()


def _lines(folder: RunFolder) -> list[bytes]:
    return folder.metrics.read_bytes().splitlines(keepends=True) if folder.metrics.exists() else []


def _is_later(line: bytes, step: int, whole: bool) -> bool:
    """Whether a line of metrics.jsonl is a point of a step that is to be trained again. (Step 0 is that before the
    first, too, when what a model costs is logged.)"""
    try:
        at = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return False  # damaged: whoever reads points says so
    return bool(whole or at >= step)
