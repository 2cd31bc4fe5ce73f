"""How long a study takes here: some of its cells are trained for a minute in all, as many at once as in the study."""

import json
import math
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from aunet_lightning.errors import UserError
from aunet_lightning.study.cell_process import Main
from aunet_lightning.study.fork_server import kinds
from aunet_lightning.study.grid import Study
from aunet_lightning.study.running import run_cells
from aunet_lightning.study.settings import merge
from aunet_lightning.study.sizing import Sized

MINUTE = 60.0  # seconds of training in all
LEAST = 5.0  # seconds of a cell: shorter ones are mostly their first steps
NEVER = 10**9  # steps


@dataclass(frozen=True)
class Speed:
    """What was measured of a cell."""

    flops_per_byte: float
    flops_per_second: float
    beside: float  # seconds of start-up, the last validation and the report


def measure(sized: Sequence[Sized], study: Study, main: Main, say: Callable[[str], None]) -> list[Speed]:
    """Trains cells of different cost, and returns how fast they were. Raises UserError where none could be trained."""
    by_cost = sorted(kinds(sized), key=lambda one: one.flops_per_byte)
    n = min(len(by_cost), max(int(MINUTE / LEAST), 1))
    chosen = [by_cost[round(i * (len(by_cost) - 1) / max(n - 1, 1))] for i in range(n)]
    shared = study.folder if study.submitit else None  # jobs do not see this machine's temporary files
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        tried = [_short(one, study, Path(folder), max(MINUTE / n, LEAST)) for one in chosen]
        run_cells(tried, study, main, say)
        found = [speed for one in tried if (speed := _speed(one)) is not None]
    if not found:
        raise UserError(
            "the time of this study cannot be measured, as no cell of it can be trained: see the errors above"
        )
    return found


def _short(one: Sized, study: Study, folder: Path, seconds: float) -> Sized:
    over = {
        "model": {"budget": {study.match.by: None, "seconds": seconds}},
        "trainer": {"val_check_interval": NEVER},
        "run": {
            "folder": str(folder / one.cell.name), "tracking_uri": f"sqlite:///{folder}/mlflow.db",
            "checkpoint_every": NEVER, "keep_at": [],
        },
    }  # fmt: skip
    cell = replace(one.cell, parallel=None, branch=None)
    return replace(one, cell=cell, settings=merge(one.settings, over))


def _speed(one: Sized) -> Speed | None:
    if not one.files.done.exists():
        return None
    last = one.files.last_metrics()
    seconds, whole = last["perf/training_seconds"], json.loads(one.files.done.read_text(encoding="utf-8"))["seconds"]
    return Speed(one.flops_per_byte, last["flops"] / seconds, whole - seconds) if seconds else None


def seconds_of(one: Sized, study: Study, speeds: Sequence[Speed], by_name: dict[str, Sized]) -> float:
    """Returns how long a cell will take, at the speed of the measured one that is nearest in cost; one that branches
    is trained from there."""
    speed = min(speeds, key=lambda speed: abs(math.log(speed.flops_per_byte / one.flops_per_byte)))
    trained = 1.0
    if one.cell.branch is not None:
        trained -= one.cell.branch.share * by_name[one.cell.branch.cell].cell.budget / one.cell.budget
    if study.match.by == "seconds":
        return one.cell.budget + speed.beside
    flops = one.cell.budget if study.match.by == "flops" else one.cell.budget * one.flops_per_byte
    return trained * flops / speed.flops_per_second + speed.beside


def share_of_step(one: Sized) -> float:
    """Returns the share of its budget that one step of a cell spends; nan where the budget is time."""
    return math.nan if one.steps is None else 1 / one.steps


def hardware() -> str:
    """Returns the processors of this machine, in words."""
    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text(encoding="utf-8").splitlines()
            if "model name" in line
        ]
        model = names[0] if names else model
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"{os.cpu_count()} cores of {model}{', ' + ', '.join(gpus) if gpus else ''}; torch {torch.__version__}"
