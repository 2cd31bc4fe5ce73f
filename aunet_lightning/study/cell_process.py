"""What a process of a cell does, whoever started it: `aunet fit`, then `aunet predict` on parallel text.

A finished cell leaves a file in its folder, by which it is known not to be run again.
"""

import fcntl
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

from aunet_lightning.paths import replace_text
from aunet_lightning.processes import end_with_parent
from aunet_lightning.study.branching import beginning
from aunet_lightning.study.cell_folder import CellFolder
from aunet_lightning.study.evaluating import commands
from aunet_lightning.study.grid import Branch, StudyCell
from aunet_lightning.study.settings import Settings
from aunet_lightning.study.sizing import Sized
from aunet_lightning.tracking.mlflow_logger import commit

Main = Callable[[list[str]], int]  # runs an `aunet` command, and returns its exit code


class CellTask(NamedTuple):
    """What the processes of a cell have to know; its settings are in its folder."""

    folder: Path
    cell: StudyCell


def prepare(cell: Sized) -> CellTask:
    """Makes a cell's folder ready for its processes."""
    files = cell.files
    files.path.mkdir(parents=True, exist_ok=True)
    files.failed.unlink(missing_ok=True)
    write(files.given, cell.settings)
    return CellTask(files.path, cell.cell)


def write(path: Path, settings: Settings) -> None:
    path.write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8")


def rank_environment(name: str, rank: int, devices: int, port: int) -> dict[str, str]:
    """Returns the variables by which the processes of a cell find each other, those of torchrun on one host; none for a
    single one, which Lightning would take for one of many."""
    if devices == 1:
        return {}
    return {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(devices),
        "LOCAL_WORLD_SIZE": str(devices), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": name, "RANK": str(rank),
        "LOCAL_RANK": str(rank),
    }  # fmt: skip


def cell_process(task: CellTask, main: Main, rank: int, env: Mapping[str, str]) -> None:
    """One process of a cell, in an environment that has OMP_NUM_THREADS. Exits with the code of its last command."""
    files = CellFolder(task.folder)
    log = files.log(rank).open("a", buffering=1, encoding="utf-8")
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    end_with_parent()
    # As in any `aunet fit`: otherwise its workers would come from a server of its own, which imports all again.
    multiprocessing.set_start_method(None, force=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the study, which ends its cells
    os.environ.update(env)
    import torch

    torch.set_num_threads(int(env["OMP_NUM_THREADS"]))
    with files.lock.open("w", encoding="utf-8") as lock:
        if rank == 0:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a cell of a study that was just killed may still be ending
        sys.exit(_run(files, task, main, rank))


def _run(files: CellFolder, task: CellTask, main: Main, rank: int) -> int:
    begin = time.time()
    given, begins = str(files.given), _beginning(files, task.cell.branch)
    try:
        code = main(["fit", "-c", given, *(["--ckpt_path", str(begins)] if begins else [])])
        if code == 0 and task.cell.parallel is not None:
            test = ["--data.test_files", json.dumps([task.cell.parallel]), "--ckpt_path", str(files.last)]
            code = main(["predict", "-c", given, *test])
        if rank == 0:
            for command in commands(task.cell, files):
                code = code or main(command)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    if code == 0 and rank == 0:
        done = {"seconds": time.time() - begin, "commit": commit(), "waited": _waited(), "evaluate": task.cell.asked}
        if files.done.exists():  # trained before, and only asked now
            done = json.loads(files.done.read_text(encoding="utf-8")) | {"evaluate": done["evaluate"]}
        replace_text(files.done, json.dumps(done))
    return code


def _beginning(files: CellFolder, branch: Branch | None) -> Path | None:
    """Returns the checkpoint of another cell that a cell which has none of its own begins with."""
    if branch is None or files.newest() is not None:
        return None
    return beginning(branch, CellFolder(files.path.with_name(branch.cell)))


def _waited() -> float | None:
    """Returns the share of its time that this thread waited for a core which others had; None where nobody tells."""
    try:
        running, waiting, *_ = (int(number) for number in Path("/proc/self/schedstat").read_text().split())
    except (OSError, ValueError):
        return None
    return waiting / max(running + waiting, 1)
