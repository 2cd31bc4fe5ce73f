"""Runs cells side by side, as processes of this machine or as jobs of a cluster. A finished cell is not run again."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from multiprocessing.connection import wait
from typing import NamedTuple

import yaml

from aunet_lightning.study.branching import release, waits
from aunet_lightning.study.cell_folder import CellFolder
from aunet_lightning.study.cell_process import Main
from aunet_lightning.study.cluster import Cluster
from aunet_lightning.study.fork_server import fork_server
from aunet_lightning.study.grid import Branch, Study
from aunet_lightning.study.progress import CellProgress
from aunet_lightning.study.sizing import Sized
from aunet_lightning.study.starting import Started, Starter
from aunet_lightning.training.definition import differences

GRACE = 20.0  # seconds that cells have to end
POLL = 1.0  # seconds between looks at the cells


def changed(cell: Sized) -> str | None:
    """Returns how the run in a cell's folder differs from the cell; None if it does not, or there is none."""
    given = cell.files.given
    if not given.exists():
        return None
    return "; ".join(differences(yaml.safe_load(given.read_text(encoding="utf-8")), cell.settings)[:3]) or None


class _Running(NamedTuple):
    started: Started
    cell: Sized
    slot: int  # which of the jobs, and of the GPUs


def run_cells(sized: Sequence[Sized], study: Study, main: Main, say: Callable[[str], None]) -> None:
    """Runs the cells that are not done, `study.jobs` at once; reports failed ones and continues with the rest."""
    with _starter([cell for cell in sized if not cell.is_done], study, main) as starter:
        _run_cells(starter, sized, study, say)


def _starter(cells: Sequence[Sized], study: Study, main: Main) -> AbstractContextManager[Starter]:
    return fork_server(cells, study, main) if study.submitit is None else nullcontext(Cluster(study, main))


def _run_cells(starter: Starter, sized: Sequence[Sized], study: Study, say: Callable[[str], None]) -> None:
    waiting = [cell for cell in sized if not cell.is_done]
    free, running, done = list(range(study.jobs)), list[_Running](), len(sized) - len(waiting)
    progress = CellProgress(len(sized), done)
    try:
        while waiting or running:
            while free and (cell := next((one for one in waiting if not _waits(one)), None)):
                waiting.remove(cell)
                slot = free.pop(0)
                running.append(_Running(starter.start(cell, slot), cell, slot))
            _wait(running, POLL)
            for one, codes in [(one, codes) for one in running if (codes := one.started.codes) is not None]:
                running.remove(one)
                free.append(one.slot)
                done += 1
                _release(one.cell, sized)
                say(_outcome(one.cell, failed=any(codes)))
            now = done + sum(one.cell.progress(one.cell.files.last_metrics()) for one in running)
            progress.show(now, [one.cell.cell.name for one in running])
    finally:
        _end(running)
        progress.close()


def _wait(running: Sequence[_Running], seconds: float) -> None:
    """Waits until a cell may have ended, at most some seconds."""
    wait([sentinel for one in running for sentinel in one.started.sentinels], timeout=seconds)


def _waits(cell: Sized) -> bool:
    """Whether a cell branches from one that is not there yet."""
    branch = cell.cell.branch
    return branch is not None and waits(branch, _trunk(cell, branch))


def _release(ended: Sized, sized: Sequence[Sized]) -> None:
    """Frees the room of checkpoints that no cell needs any more, now that one has ended."""
    for one in sized:
        branch = one.cell.branch
        if branch is not None and ended.cell.name in (one.cell.name, branch.cell) and one.is_done:
            release(branch, _trunk(one, branch))


def _trunk(cell: Sized, branch: Branch) -> CellFolder:
    """Returns the folder of the run that a cell branches from."""
    return CellFolder(cell.folder.with_name(branch.cell))


def _end(running: Sequence[_Running]) -> None:
    for one in running:
        one.started.stop()
    deadline = time.monotonic() + GRACE
    while (left := [one for one in running if one.started.codes is None]) and time.monotonic() < deadline:
        _wait(left, POLL / 5)
    for one in left:
        one.started.kill()


def _outcome(cell: Sized, failed: bool) -> str:
    """Marks a cell that failed, and returns a line about how a cell ended."""
    files = cell.files
    if failed:
        files.failed.touch()  # a process that was killed has not written why
        return f"{cell.cell.name} FAILED: {files.last_error()}  (log: {files.log()})"
    return f"{cell.cell.name}: {files.last_metrics().get('val/bpb', math.nan):.3f} bits per byte"
