"""Runs cells side by side, each a normal `aunet fit` in a process of its own, or in one per device.

Processes come from a server that has imported everything once, so that a cell starts in a second. A cell ends with
whoever started it. What is finished says so in its folder, and is not run again.
"""

import contextlib
import fcntl
import json
import math
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from tqdm import tqdm

from aunet_lightning.processes import end_with_parent
from aunet_lightning.study.sizing import Sized
from aunet_lightning.tracking.mlflow_logger import commit
from aunet_lightning.tracking.run_folder import RunFolder
from aunet_lightning.training.definition import differences

SETTINGS = "settings.yaml"  # of a cell, as `aunet fit -c` takes them
DONE = "cell.json"  # in the folder of a cell that is finished: how long it took, and with which code
FAILED = "failed"  # in that of one that ended otherwise by itself
GRACE = 20.0  # seconds that cells have to end
POLL = 1.0  # seconds between looks at the cells
SERVER = [  # what its processes have imported
    "aunet_lightning.cli.training", "aunet_lightning.study.running", "splitters.engine.compiled",
    "mlflow.store.tracking.sqlalchemy_store",
]  # fmt: skip


def is_done(cell: Sized) -> bool:
    """Whether a cell has been trained to its end, and has read its parallel text."""
    parallel = cell.cell.parallel is None or (cell.folder / "predictions.jsonl").exists()
    return parallel and (cell.folder / DONE).exists()


def changed(cell: Sized) -> str | None:
    """Returns in what a cell's folder differs from it, where it holds another run."""
    kept = cell.folder / SETTINGS
    if not kept.exists():
        return None
    return "; ".join(differences(yaml.safe_load(kept.read_text(encoding="utf-8")), cell.settings)[:3]) or None


def run_cells(
    sized: Sequence[Sized], jobs: int, threads: int | None, gpus_per_cell: int, say: Callable[[str], None]
) -> None:
    """Runs the cells that are not done, `jobs` at once; failed ones are told and the rest go on."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SERVER)
    threads = threads or max((os.cpu_count() or 1) // jobs, 1)
    waiting = [cell for cell in sized if not is_done(cell)]
    free, running, done = list(range(jobs)), list[_Running](), len(sized) - len(waiting)
    mininterval = 0 if sys.stderr.isatty() else 60  # a log file gets a line now and then
    bar = tqdm(total=len(sized), initial=done, bar_format=_FORMAT, mininterval=mininterval, leave=False)
    numbers = ",".join(map(str, range(jobs * gpus_per_cell)))
    gpus_there = (os.environ.get("CUDA_VISIBLE_DEVICES") or numbers).split(",")
    try:
        while waiting or running:
            while waiting and free:
                cell, slot = waiting.pop(0), free.pop(0)
                gpus = gpus_there[slot * gpus_per_cell : (slot + 1) * gpus_per_cell]
                running.append(_Running(_start(context, cell, threads, gpus), cell, slot))
            wait([process.sentinel for one in running for process in one.processes if process.is_alive()], timeout=POLL)
            for one in [one for one in running if one.codes is not None]:
                running.remove(one)
                free.append(one.slot)
                done += 1
                finished = not any(one.codes or ())
                if not finished:
                    (one.cell.folder / FAILED).touch()
                say(_told(one.cell, finished))
            now = done + sum(one.cell.progress(last_metrics(one.cell.folder)) for one in running)
            bar.set_postfix_str(", ".join(one.cell.cell.name for one in running), refresh=False)
            bar.update(now - bar.n)
    finally:
        left = [process for one in running for process in one.processes]
        for process in left:
            process.terminate()
        deadline = time.monotonic() + GRACE
        for process in left:
            process.join(max(deadline - time.monotonic(), 0))
            if process.exitcode is None:
                process.kill()
        bar.close()


class _Running(NamedTuple):
    processes: list[Any]
    cell: Sized
    slot: int  # which of the jobs, and of the GPUs

    @property
    def codes(self) -> list[int] | None:
        """The exit codes, once all have ended."""
        codes = [process.exitcode for process in self.processes]
        return None if None in codes else codes


def _start(context: Any, cell: Sized, threads: int, gpus: Sequence[str]) -> list[Any]:
    """Starts the processes of a cell, one per device; several find each other as torchrun's do."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    (cell.folder / FAILED).unlink(missing_ok=True)
    settings = yaml.safe_dump(cell.settings, sort_keys=False, allow_unicode=True)
    (cell.folder / SETTINGS).write_text(settings, encoding="utf-8")
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
        processes.append(context.Process(target=_cell_process, args=(cell.folder, cell.cell.parallel, rank, env)))
        processes[-1].start()
    return processes


_FORMAT = "{percentage:3.0f}%|{bar:20}| {n:.1f}/{total} cells [{elapsed}, {remaining} left] {postfix}"


def log_of(folder: Path, rank: int = 0) -> Path:
    """What a cell printed; its further processes have files of their own."""
    return folder / (f"log-{rank}.txt" if rank else "log.txt")


def last_error(folder: Path) -> str:
    """Returns the last line that a cell printed."""
    log = log_of(folder)
    lines = (
        [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        if log.exists()
        else []
    )
    return lines[-1].strip()[:300] if lines else "it printed nothing"


def last_metrics(folder: Path) -> dict[str, float]:
    """Returns the metrics of a run's last point that is whole."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return {}
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 20_000, 0))
        lines = file.read().decode(errors="ignore").split("\n")
    found: dict[str, float] = {}
    for line in lines[1:-1] if len(lines) > 2 else lines[:-1]:
        with contextlib.suppress(ValueError):
            found |= json.loads(line)["metrics"]
    return found


def _told(cell: Sized, finished: bool) -> str:
    if finished:
        return f"{cell.cell.name}: {last_metrics(cell.folder).get('val/bpb', math.nan):.3f} bits per byte"
    return f"{cell.cell.name} FAILED: {last_error(cell.folder)}  (log: {log_of(cell.folder)})"


def _cell_process(folder: Path, parallel: str | None, rank: int, env: dict[str, str]) -> None:
    """One process of a cell: fit, and predict on parallel text."""
    log = log_of(folder, rank).open("a", buffering=1, encoding="utf-8")
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    end_with_parent()
    # As in any `aunet fit`: a child of a server would start one of its own for its workers, which imports all again.
    multiprocessing.set_start_method(None, force=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the study's, which ends its cells
    if env["WORLD_SIZE"] == "1":  # or Lightning takes it for one of many
        env = {name: env[name] for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
    os.environ.update(env)
    import torch

    torch.set_num_threads(int(env["OMP_NUM_THREADS"]))
    with (folder / "lock").open("w", encoding="utf-8") as lock:
        if rank == 0:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a cell of a study that was killed just now may still be ending
        sys.exit(_run(folder, parallel, rank))


def _run(folder: Path, parallel: str | None, rank: int) -> int:
    from aunet_lightning.cli.main import main

    begin = time.time()
    given = str(folder / SETTINGS)
    try:
        code = main(["fit", "-c", given])
        if code == 0 and parallel is not None:
            last = RunFolder(folder).last
            test = ["--data.test_files", json.dumps([parallel]), "--ckpt_path", str(last)]
            code = main(["predict", "-c", given, *test])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    if code == 0 and rank == 0:
        part = folder / f"{DONE}.part"
        part.write_text(json.dumps({"seconds": time.time() - begin, "commit": commit()}), encoding="utf-8")
        part.replace(folder / DONE)
    return code
