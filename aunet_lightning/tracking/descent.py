"""The line of descent of a run: checkpoints and points past the checkpoint it continues from are set aside, not lost.

Otherwise abandoned steps would count as "the newest checkpoint" and as "already logged". They move to `set_aside/` in
the run's folder. A note lists what is to move until it has moved, so a kill in between does no harm.
"""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from aunet_lightning.checkpoints.forms import point_link, rename_into_place
from aunet_lightning.paths import PART
from aunet_lightning.tracking.run_folder import RunFolder


class SetAside(NamedTuple):
    """The checkpoints and points set aside."""

    folder: Path
    checkpoints: int
    points: int
    run: dict[str, Any]  # the former mlflow.json, {} where there was none

    def __str__(self) -> str:
        return f"{self.checkpoints} checkpoints and {self.points} logged points"


def set_aside(folder: RunFolder, step: int, everything: bool = False) -> SetAside | None:
    """Moves checkpoints after `step`, and points logged from there on, out of the way of a run that continues from
    `step`; `everything`: all of them, where it continues from another run's checkpoint.

    The MLflow run stays with what was set aside, since MLflow cannot take points back. Returns what was moved, or None
    where there was nothing to move.
    """
    finish(folder)
    later = sorted(at for at in folder.saved() if everything or at > step)
    points = sum(_is_later(line, step, everything) for line in _lines(folder))
    if not later and not points:
        return None
    home = folder.set_aside
    number = 1
    while (home / f"{number:02}").exists():
        number += 1
    note = {"number": number, "step": step, "whole": everything, "checkpoints": len(later), "points": points}
    home.mkdir(exist_ok=True)
    part = home / (folder.moving.name + PART)
    part.write_text(json.dumps(note), encoding="utf-8")
    os.replace(part, folder.moving)
    return finish(folder)


def finish(folder: RunFolder) -> SetAside | None:
    """Moves what a note lists and is not yet moved; returns what the note lists, or None without one."""
    note = folder.moving
    if not note.exists():
        return None
    noted = json.loads(note.read_text(encoding="utf-8"))
    step, everything = noted["step"], noted["whole"]
    to = note.parent / f"{noted['number']:02}"
    to.mkdir(exist_ok=True)
    lines = _lines(folder)
    kept, gone = (
        b"".join(line for line in lines if _is_later(line, step, everything) == later) for later in (False, True)
    )
    if gone:
        (to / folder.metrics.name).write_bytes(gone)
        part = folder.metrics.with_name(folder.metrics.name + PART)
        part.write_bytes(kept)
        os.replace(part, folder.metrics)
    if folder.mlflow.exists():
        os.replace(folder.mlflow, to / folder.mlflow.name)
    for at, path in folder.saved().items():
        if everything or at > step:
            rename_into_place(path, to / path.name)
    _point(folder)
    note.unlink()
    try:
        known = json.loads((to / folder.mlflow.name).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there was none, or it is damaged
        known = {}
    return SetAside(to, noted["checkpoints"], noted["points"], known)


def _point(folder: RunFolder) -> None:
    """Points `last` at the newest remaining checkpoint, and removes links to checkpoints that are gone."""
    there = folder.saved()
    if there:
        point_link(folder.last, there[max(there)])
    for link in (folder.last, folder.best):
        if link.is_symlink() and not link.exists():
            link.unlink()


def _lines(folder: RunFolder) -> list[bytes]:
    return folder.metrics.read_bytes().splitlines(keepends=True) if folder.metrics.exists() else []


def _is_later(line: bytes, step: int, everything: bool) -> bool:
    """Returns whether a line of metrics.jsonl is a point of a step that will be trained again. (Step 0 also holds what
    is logged before the first, such as a model's cost.)"""
    try:
        at = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return False  # damaged: reported by the reader of points
    return bool(everything or at >= step)
