"""The runs of this machine, read from the files in their folders: no run is loaded, and none is disturbed."""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from aunet_lightning.errors import UserError
from aunet_lightning.paths import PART
from aunet_lightning.study.cell_folder import CellFolder
from aunet_lightning.tracking.known_runs import KnownRun
from aunet_lightning.tracking.lock import LOCK, holder, host, last_holder
from aunet_lightning.tracking.names import units_name

DEPTH = 6  # folders below the one that is searched
NOT_SEARCHED = {"mlartifacts", "mlruns", "set_aside"}  # artifacts of MLflow; what runs went back on
OF_A_RUN = ("config.yaml", "metrics.jsonl", "mlflow.json", "checkpoints/last.ckpt")  # one of them is enough
OF_A_STUDY = ("grid.yaml", "rates.json", "plan.json")
FRESH = 600.0  # seconds: a run of another machine that wrote since then is running
BLOCK = 1 << 16  # bytes of metrics.jsonl that are read first, from its end
BPB, BEST = "val/bpb", "best/val_bpb"
SPENT = {"flops": "flops", "bytes": "bytes_seen", "seconds": "perf/training_seconds"}  # budget: the metric


class State(StrEnum):
    """What became of a run."""

    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"  # by a signal, once it was saved
    FAILED = "failed"  # with an error
    DIED = "died"  # without a word: it was killed, or its machine went down
    WAITING = "waiting"  # a cell of a study that has not begun
    DAMAGED = "damaged"  # its files cannot be read


class Points(NamedTuple):
    """What metrics.jsonl tells of a run."""

    step: int | None = None
    latest: Mapping[str, float] = {}  # BPB, BEST and what was spent, as far as they were logged


class Run(NamedTuple):
    """A run's folder, and what it tells."""

    files: CellFolder
    state: State
    splitter: str = "–"
    step: int | None = None
    bpb: float = math.nan  # of the last validation
    best: float = math.nan
    changed: float = math.nan  # when the folder last changed, in seconds since 1970
    settings: Mapping[str, Any] = {}
    problem: str = ""  # why it is damaged

    @property
    def is_cell(self) -> bool:
        """Whether it is a cell of a study."""
        return self.files.path.parent.name == "cells"


class Found(NamedTuple):
    """The folders in a place."""

    runs: list[Path]
    others: list[Path]  # the topmost ones without a run


def find(root: Path) -> Found:
    """Returns the folders of runs below a folder (or itself), and the folders that hold none."""
    found = Found([], [])
    _search(root, DEPTH, found, {os.path.realpath(root)})
    return found


def _search(folder: Path, depth: int, found: Found, seen: set[str]) -> bool:
    """Adds what is in a folder; returns whether it is a run, holds one, or belongs to a study."""
    if is_run(folder):
        found.runs.append(folder)
        return True
    try:
        names = sorted(name for name in os.listdir(folder) if os.path.isdir(folder / name))
    except OSError:
        return False
    of_ours = any((folder / name).exists() for name in OF_A_STUDY)
    others = []
    for name in names if depth else ():
        inner = folder / name
        real = os.path.realpath(inner)
        if name.startswith(".") or name in NOT_SEARCHED or name.endswith(PART) or real in seen:
            continue
        seen.add(real)
        if _search(inner, depth - 1, found, seen):
            of_ours = True
        else:
            others.append(inner)
    if of_ours or depth == DEPTH:
        others = [] if any((folder / name).exists() for name in OF_A_STUDY) else others
        found.others.extend(others)
    return of_ours


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's, or a cell's that has not begun."""
    try:
        if any((folder / name).exists() for name in OF_A_RUN):
            return True
        return folder.parent.name == "cells" and CellFolder(folder).given.exists()
    except OSError:
        return False


def read(folder: Path, known: Mapping[str, KnownRun]) -> Run:
    """Returns what a run's folder tells. Raises nothing: a folder that cannot be read is damaged.

    known: the runs in MLflow, by id.
    """
    files = CellFolder(folder)
    try:
        changed = _changed(files)
        if not files.config.exists() and files.given.exists() and not files.metrics.exists():
            given = yaml.safe_load(files.given.read_text(encoding="utf-8"))
            return Run(files, _of_cell(files), _splitter(given), changed=changed, settings=given)
        settings = files.settings()
        points = _points(files.metrics)
        step = max([*files.saved(), *([] if points.step is None else [points.step])], default=None)
        state = _state(files, settings, points, known.get(_run_id(files)), changed)
        bpb, best = (points.latest.get(key, math.nan) for key in (BPB, BEST))
        return Run(files, state, _splitter(settings), step, bpb, best, changed, settings)
    except UserError as error:
        return Run(files, State.DAMAGED, problem=str(error))
    except OSError as error:
        problem = f"{error.filename or folder}: {error.strerror or 'it cannot be read'}"
        return Run(files, State.DAMAGED, problem=problem)
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Run(files, State.DAMAGED, problem=f"{folder}: its config.yaml or its checkpoints are not a run's")


def _splitter(settings: Mapping[str, Any]) -> str:
    """Returns the splitter as MLflow shows it: a study has names of its own."""
    tags = (settings.get("run") or {}).get("tags") or {}
    return str(tags.get("splitter") or units_name(settings))


def _of_cell(files: CellFolder) -> State:
    """Returns the state of a cell that has no run yet."""
    return State.FAILED if files.failed.exists() else State.RUNNING if holder(files.path) else State.WAITING


def _state(
    files: CellFolder, settings: Mapping[str, Any], points: Points, known: KnownRun | None, changed: float
) -> State:
    if holder(files.path) is not None:
        return State.RUNNING
    left = last_holder(files.path)  # only by one that did not release the lock
    if left and f" on {host()} " not in left and time.time() - changed < FRESH:
        return State.RUNNING  # on a machine whose locks are not seen here
    status = "" if known is None or left else known.status
    if files.failed.exists() or status == "FAILED":
        return State.DIED if known is not None and known.died else State.FAILED
    ended = _has_ended(settings, points, max(files.saved(), default=0))
    if ended is None:  # its end is not in its settings: what is written last tells
        ended = not status and files.units.exists() and _time(files.units) >= _time(files.config)
    if files.done.exists() or status == "FINISHED" or ended:
        return State.FINISHED
    return State.DIED if left or status == "RUNNING" else State.STOPPED


def _has_ended(settings: Mapping[str, Any], points: Points, saved: int) -> bool | None:
    """Whether a run has come to the end that its settings name; None where they name none that can be told here."""
    trainer, budget = settings.get("trainer") or {}, settings["model"].get("budget") or {}
    if any(limit and points.latest.get(SPENT[name], 0) >= limit for name, limit in budget.items() if name in SPENT):
        return True
    steps = trainer.get("max_steps") or -1
    if 0 < steps <= saved:
        return True
    others = (trainer.get("max_epochs") or -1) > 0 or trainer.get("max_time") or trainer.get("callbacks")
    return None if others else False


def _run_id(files: CellFolder) -> str:
    try:
        return str(json.loads(files.mlflow.read_text(encoding="utf-8"))["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _points(path: Path) -> Points:
    """Returns the latest of what a run has logged, which may be writing: incomplete lines are skipped."""
    step, latest, lowest = None, dict[str, float](), math.inf
    for line in _backwards(path) if path.exists() else ():
        is_validation = BPB.encode() in line
        if step is not None and not is_validation and latest.keys() & {*SPENT.values()}:
            continue
        try:
            point = json.loads(line)
            at, metrics = point["step"], point["metrics"]
            logged = {key: float(metrics[key]) for key in (BPB, BEST, *SPENT.values()) if key in metrics}
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        step = at if step is None and type(at) is int else step
        latest = logged | latest
        lowest = min(lowest, logged.get(BPB, math.inf))
        if BEST in latest and latest.keys() & {*SPENT.values()}:
            break
    if BPB in latest and math.isfinite(lowest):
        latest.setdefault(BEST, lowest)
    return Points(step, latest)


def _backwards(path: Path) -> Iterator[bytes]:
    """Yields the lines of a file, the last one first."""
    with path.open("rb") as file:
        end, cut, size = file.seek(0, os.SEEK_END), b"", BLOCK
        while end > 0:
            begin, size = max(end - size, 0), 2 * size
            file.seek(begin)
            first, *lines = (file.read(end - begin) + cut).split(b"\n")
            yield from reversed(lines)
            end, cut = begin, first
        yield cut


def _changed(files: CellFolder) -> float:
    """Returns when a run last wrote to its folder."""
    paths = (
        files.path, files.config, files.metrics, files.checkpoints, files.given, files.done, files.failed,
        files.path / LOCK,
    )  # fmt: skip
    return max(_time(path) for path in paths)


def _time(path: Path) -> float:
    """Returns when a file was last changed, in seconds since 1970; 0 where it does not exist."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
