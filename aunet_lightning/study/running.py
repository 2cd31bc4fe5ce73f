"""Runs cells side by side, each an ordinary `aunet fit` in a process of its own, or in one process per device.

A server that has imported everything and rehearsed a cell of each kind (`cli/server.py`) forks the processes, so a cell
trains within seconds. Cells end with the process that started them. A finished cell leaves a file in its folder, and is
not run again.
"""

import fcntl
import json
import math
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import NamedTuple

import yaml
from tqdm import tqdm

from aunet_lightning.processes import end_with_parent
from aunet_lightning.study.branching import beginning, waits
from aunet_lightning.study.cell_folder import CellFolder
from aunet_lightning.study.grid import Study
from aunet_lightning.study.settings import Settings
from aunet_lightning.study.sizing import Sized
from aunet_lightning.tracking.mlflow_logger import commit
from aunet_lightning.training.definition import differences

GRACE = 20.0  # seconds that cells have to end
POLL = 1.0  # seconds between looks at the cells
LOG_EVERY = 60.0  # seconds between lines of progress in a log file
FORMAT = "{percentage:3.0f}%|{bar:20}| {n:.1f}/{total} cells [{elapsed}, {remaining} left] {postfix}"
SERVER = ["aunet_lightning.cli.server"]  # modules that the server imports before it forks
REHEARSED = "AUNET_REHEARSED"  # the environment variable that names a folder of settings, which the server rehearses

Main = Callable[[list[str]], int]  # runs an `aunet` command, and returns its exit code


def changed(cell: Sized) -> str | None:
    """Returns how the run in a cell's folder differs from the cell; None if it does not, or there is none."""
    given = cell.files.given
    if not given.exists():
        return None
    return "; ".join(differences(yaml.safe_load(given.read_text(encoding="utf-8")), cell.settings)[:3]) or None


class _Running(NamedTuple):
    processes: list[ForkServerProcess]
    cell: Sized
    slot: int  # which of the jobs, and of the GPUs

    @property
    def codes(self) -> list[int] | None:
        """The exit codes, once all processes have ended."""
        codes = [process.exitcode for process in self.processes if process.exitcode is not None]
        return codes if len(codes) == len(self.processes) else None


def kinds(cells: Sequence[Sized]) -> list[Sized]:
    """Returns the first of the cells that differ only in language or seed."""
    return [*{(one.cell.splitter, one.cell.stages): one for one in reversed(cells)}.values()]


@contextmanager
def _server(cells: Sequence[Sized]) -> Iterator[ForkServerContext]:
    """The server of the processes of cells, which starts with the first one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SERVER)
    with tempfile.TemporaryDirectory() as folder:
        for one in kinds(cells):
            _write(Path(folder) / f"{one.cell.name}.yaml", one.settings)
        os.environ[REHEARSED] = folder
        try:
            yield context
        finally:
            del os.environ[REHEARSED]


def _write(path: Path, settings: Settings) -> None:
    path.write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8")


def run_cells(sized: Sequence[Sized], study: Study, main: Main, say: Callable[[str], None]) -> None:
    """Runs the cells that are not done, `study.jobs` at once; reports failed ones and continues with the rest."""
    with _server([cell for cell in sized if not cell.is_done]) as context:
        _run_cells(context, sized, study, main, say)


def _run_cells(
    context: ForkServerContext, sized: Sequence[Sized], study: Study, main: Main, say: Callable[[str], None]
) -> None:
    threads = study.threads or max((os.cpu_count() or 1) // study.jobs, 1)
    waiting = [cell for cell in sized if not cell.is_done]
    free, running, done = list(range(study.jobs)), list[_Running](), len(sized) - len(waiting)
    interval = 0 if sys.stderr.isatty() else LOG_EVERY
    bar = tqdm(total=len(sized), initial=done, bar_format=FORMAT, mininterval=interval, leave=False)
    try:
        while waiting or running:
            while free and (cell := next((one for one in waiting if not _waits(one)), None)):
                waiting.remove(cell)
                slot = free.pop(0)
                processes = _start(context, cell, main, threads, _gpus(slot, study))
                running.append(_Running(processes, cell, slot))
            wait([process.sentinel for one in running for process in one.processes if process.is_alive()], timeout=POLL)
            for one in [one for one in running if one.codes is not None]:
                running.remove(one)
                free.append(one.slot)
                done += 1
                say(_outcome(one.cell, failed=any(one.codes or ())))
            now = done + sum(one.cell.progress(one.cell.files.last_metrics()) for one in running)
            bar.set_postfix_str(", ".join(one.cell.cell.name for one in running), refresh=False)
            bar.update(now - bar.n)
    finally:
        _end([process for one in running for process in one.processes])
        bar.close()


def _waits(cell: Sized) -> bool:
    """Whether a cell branches from one that is not there yet."""
    branch = cell.cell.branch
    return branch is not None and waits(branch, CellFolder(cell.folder.with_name(branch.cell)))


def _gpus(slot: int, study: Study) -> Sequence[str]:
    """Returns the GPUs of a slot, among those that this process may use."""
    numbers = ",".join(map(str, range(study.jobs * study.gpus_per_cell)))
    visible = (os.environ.get("CUDA_VISIBLE_DEVICES") or numbers).split(",")
    return visible[slot * study.gpus_per_cell : (slot + 1) * study.gpus_per_cell]


def _end(processes: Sequence[ForkServerProcess]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + GRACE
    for process in processes:
        process.join(max(deadline - time.monotonic(), 0))
        if process.exitcode is None:
            process.kill()


def _outcome(cell: Sized, failed: bool) -> str:
    """Marks a cell that failed, and returns a line about how a cell ended."""
    files = cell.files
    if failed:
        files.failed.touch()
        return f"{cell.cell.name} FAILED: {files.last_error()}  (log: {files.log()})"
    return f"{cell.cell.name}: {files.last_metrics().get('val/bpb', math.nan):.3f} bits per byte"


def _start(
    context: ForkServerContext, cell: Sized, main: Main, threads: int, gpus: Sequence[str]
) -> list[ForkServerProcess]:
    """Starts the processes of a cell, one per device; several find each other as under torchrun."""
    files = cell.files
    files.path.mkdir(parents=True, exist_ok=True)
    files.failed.unlink(missing_ok=True)
    _write(files.given, cell.settings)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = str(cell.devices)
    common = {
        "OMP_NUM_THREADS": str(max(threads // cell.devices, 1)), "CUDA_VISIBLE_DEVICES": ",".join(gpus),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world,
        "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": cell.cell.name,
    }  # fmt: skip
    processes = []
    for rank in range(cell.devices):
        env = common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        arguments = (files.path, cell.cell.parallel, _beginning(cell), main, rank, env)
        processes.append(context.Process(target=_cell_process, args=arguments))
        processes[-1].start()
    return processes


def _beginning(cell: Sized) -> Path | None:
    """Returns the checkpoint of another cell that a cell which has none of its own begins with."""
    branch = cell.cell.branch
    if branch is None or cell.files.newest() is not None:
        return None
    return beginning(branch, CellFolder(cell.folder.with_name(branch.cell)))


def _cell_process(
    folder: Path, parallel: str | None, begins: Path | None, main: Main, rank: int, env: dict[str, str]
) -> None:
    """One process of a cell: fit, then predict on parallel text."""
    files = CellFolder(folder)
    log = files.log(rank).open("a", buffering=1, encoding="utf-8")
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    end_with_parent()
    # As in any `aunet fit`: otherwise its workers would come from a server of its own, which imports all again.
    multiprocessing.set_start_method(None, force=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the study, which ends its cells
    if env["WORLD_SIZE"] == "1":  # else Lightning would take it for one of many
        env = {name: env[name] for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
    os.environ.update(env)
    import torch

    torch.set_num_threads(int(env["OMP_NUM_THREADS"]))
    with files.lock.open("w", encoding="utf-8") as lock:
        if rank == 0:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a cell of a study that was just killed may still be ending
        sys.exit(_run(files, parallel, begins, main, rank))


def _run(files: CellFolder, parallel: str | None, begins: Path | None, main: Main, rank: int) -> int:
    begin = time.time()
    given = str(files.given)
    try:
        code = main(["fit", "-c", given, *(["--ckpt_path", str(begins)] if begins else [])])
        if code == 0 and parallel is not None:
            test = ["--data.test_files", json.dumps([parallel]), "--ckpt_path", str(files.last)]
            code = main(["predict", "-c", given, *test])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    if code == 0 and rank == 0:
        part = files.done.with_name(f"{files.done.name}.part")
        done = {"seconds": time.time() - begin, "commit": commit(), "waited": _waited()}
        part.write_text(json.dumps(done), encoding="utf-8")
        part.replace(files.done)
    return code


def _waited() -> float | None:
    """Returns the share of its time that this thread waited for a core which others had; None where nobody tells."""
    try:
        running, waiting, *_ = (int(number) for number in Path("/proc/self/schedstat").read_text().split())
    except (OSError, ValueError):
        return None
    return waiting / max(running + waiting, 1)
