"""What may be deleted of runs: what none of them continues from, is reported by, or is named by another.

Kept in any case: the last and the best checkpoints (as many as `run.keep_last` and `run.keep_best` say), those kept for
a share of the run, from which the cells of a study branch, and whatever the settings of any run name.
"""

import contextlib
import errno
import fcntl
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from aunet_lightning.paths import GONE, PART, remove
from aunet_lightning.reports.run_list import BPB, Run, State
from aunet_lightning.study.cell_folder import CellFolder
from aunet_lightning.study.study_folder import StudyFolder
from aunet_lightning.tracking.lock import kept_out
from aunet_lightning.tracking.run_folder import RunConfig

ENDED = (State.FINISHED, State.STOPPED, State.FAILED, State.DIED)  # others are left alone
WRITTEN = (  # by a run without a checkpoint, in its folder
    "config.yaml", "metrics.jsonl*", "mlflow.json", "data.json", "run.lock", "checkpoints", "*.part", "val_bpb.*",
    "val_documents.jsonl", "boundaries", "boundaries.*", "units.json", "samples.txt",
    "report.html", "looks.jsonl", "close_look.json", "failed",
)  # fmt: skip
IN_CHECKPOINTS = ("kept.json", f"*{PART}")


class Leftover(NamedTuple):
    """A file or folder that may go."""

    path: Path
    size: int  # bytes
    why: str
    run: Run


def leftovers(runs: Sequence[Run], named: set[Path]) -> list[Leftover]:
    """Returns what may be deleted of these runs; `named`: paths that may not."""
    found = []
    for run in runs:
        if run.state in ENDED and not _study_runs(run):
            with contextlib.suppress(OSError, ValueError):  # what cannot be read stays
                found += [one for one in _of_run(run) if not _is_named(one.path, named)]
    return found


def named_by(runs: Sequence[Run]) -> set[Path]:
    """Returns the paths that the settings of runs name, such as a checkpoint of another run that they began with."""
    return {
        Path(os.path.realpath(text))
        for run in runs
        for text in _texts({key: part for key, part in run.settings.items() if key != "run"})
        if "/" in text or text.endswith(".ckpt")
    }


def delete(leftover: Leftover) -> str | None:
    """Deletes it; returns why it could not be, or None."""
    with kept_out(leftover.run.files.path) as free:
        if not free:
            return "its run has begun again"
        try:
            remove(leftover.path)
        except OSError as error:
            return error.strerror or str(error)
        left = (leftover.path, leftover.path.with_name(leftover.path.name + GONE))
        return "not all of its files can be deleted" if any(map(os.path.lexists, left)) else None


def _of_run(run: Run) -> Iterator[Leftover]:
    files = run.files
    saved = files.saved()
    aside = sorted(one for one in _listed(files.set_aside) if one.is_dir())
    if run.state in (State.FAILED, State.DIED) and not run.is_cell and not saved and not aside and _is_bare(files):
        yield Leftover(files.path, _size(files.path), f"{run.state}, without a checkpoint", run)
        return
    kept = _kept(run, saved)
    for step in sorted(saved.keys() - kept):
        yield Leftover(saved[step], _size(saved[step]), "neither last nor best", run)
    for part in sorted(_listed(files.checkpoints)):
        if part.name.endswith(PART):
            yield Leftover(part, _size(part), "not written to its end", run)
    if not (files.moving).exists():
        for one in aside:
            yield Leftover(one, _size(one), "set aside when the run went back", run)


def _kept(run: Run, saved: Mapping[int, Path]) -> set[int]:
    """Returns the steps whose checkpoints the run keeps. Raises ValueError or OSError where that cannot be told."""
    files, options = run.files, run.settings.get("run") or {}
    last, best = (int(options.get(name) or getattr(RunConfig, name)) for name in ("keep_last", "keep_best"))
    links = {Path(os.path.realpath(link)) for link in (files.last, files.best)}
    linked = {step for step, path in saved.items() if Path(os.path.realpath(path)) in links}
    scores = _scores(files, saved) if best > 1 else {}
    lowest = sorted(scores, key=lambda step: (scores[step], step))[:best]
    return {*sorted(saved)[-max(last, 1) :], *linked, *lowest, *files.kept().values()}


def _scores(files: CellFolder, saved: Mapping[int, Path]) -> dict[int, float]:
    """Returns the BPB of validations after steps with a checkpoint. (A point has the number of the step before.)"""
    found = {}
    for step, metrics in files.points() if files.metrics.exists() else ():
        if step + 1 in saved and math.isfinite(metrics.get(BPB, math.nan)):
            found[step + 1] = metrics[BPB]
    return found


def _is_bare(files: CellFolder) -> bool:
    """Whether a folder holds only what a run without a checkpoint writes: nothing that somebody put there."""
    own = [
        *((one, WRITTEN) for one in _listed(files.path)),
        *((one, IN_CHECKPOINTS) for one in _listed(files.checkpoints) if one.exists()),  # links may point at nothing
    ]
    known = all(any(fnmatchcase(one.name, pattern) for pattern in patterns) for one, patterns in own)
    return known and not files.path.is_symlink() and not files.checkpoints.is_symlink()


def _study_runs(run: Run) -> bool:
    """Whether the cell's study, or a process of the cell, is at work."""
    if not run.is_cell:
        return False
    return any(map(_is_locked, (run.files.lock, StudyFolder(run.files.path.parent.parent).lock)))


def _is_locked(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
    finally:
        os.close(file)


def _is_named(path: Path, named: set[Path]) -> bool:
    real = Path(os.path.realpath(path))
    return any(one == real or real in one.parents for one in named)


def _texts(value: Any) -> Iterator[str]:
    """Yields every text in settings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def _listed(folder: Path) -> list[Path]:
    return [*folder.iterdir()] if folder.is_dir() else []


def _size(path: Path) -> int:
    """Returns the bytes of a file, or of all files in a folder."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum((Path(folder) / name).lstat().st_size for folder, _, names in os.walk(path) for name in names)
