"""Runs of several processes on this machine, as torchrun starts them, forked from a server that has imported everything."""

import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from multiprocessing.forkserver import ensure_running
from pathlib import Path

import pytest
import torch

from aunet_lightning.study.fork_server import REHEARSED, SERVER


class Ranks:
    """`aunet` with the same arguments in n processes, whose output is in out-RANK.txt of the folder `place`.

    slurm: whether they find each other by srun's environment variables in place of torchrun's.
    session: whether they are a session of their own, so that Ctrl-C reaches them and their workers alone.
    """

    def __init__(self, n, place, *arguments, env=None, slurm=False, session=False):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([*SERVER, "tests.ranks"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(REHEARSED, str(place))  # by the server, if it does not run yet: the settings there
            ensure_running()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.place = Path(place)
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "AUNET_CACHE": str(self.place / "cache")}
        if slurm:
            common |= {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "aunet", "SLURM_JOB_NUM_NODES": "1", "SLURM_NODEID": "0",
                       "SLURM_NTASKS": str(n), "SLURM_NTASKS_PER_NODE": str(n), "SLURM_NODELIST": "here"}  # fmt: skip
            names = ("SLURM_PROCID", "SLURM_LOCALID")
        else:
            common |= {
                "WORLD_SIZE": str(n),
                "LOCAL_WORLD_SIZE": str(n),
                "GROUP_RANK": "0",
                "TORCHELASTIC_RUN_ID": "test",
            }
            names = ("RANK", "LOCAL_RANK")
        arguments = [str(argument) for argument in arguments]
        if n > 1 and arguments[0] != "generate":
            arguments += ["--trainer.devices", str(n)]
        self.processes = []
        for rank in range(n):
            own = {} if n == 1 else common | dict.fromkeys(names, str(rank))
            own |= {"AUNET_CACHE": common["AUNET_CACHE"]} | (env or {})
            process = context.Process(target=_one, args=(rank, self.place, own, arguments, session))
            process.start()
            self.processes.append(process)

    def wait(self, timeout=120):
        """Returns the exit codes."""
        deadline = time.monotonic() + timeout
        for process in self.processes:
            process.join(max(deadline - time.monotonic(), 0.1))
        codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
        return codes

    def output(self, rank=0):
        return (self.place / f"out-{rank}.txt").read_text(errors="replace")

    def kill(self, rank, number=signal.SIGKILL):
        os.kill(self.processes[rank].pid, number)

    def kill_all(self):
        for rank in range(len(self.processes)):
            self.kill(rank)
        self.wait(10)


def until(seen, run, seconds=120):
    """Waits until something is seen of a run that goes on."""
    deadline = time.monotonic() + seconds
    while not seen():
        assert all(process.exitcode is None for process in run.processes), run.output()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def logged(folder, step):
    """Whether a run has logged a step, as a question."""
    metrics = folder / "metrics.jsonl"
    return lambda: metrics.exists() and f'"step": {step},' in metrics.read_text(encoding="utf-8")


def ranks(n, place, *arguments, code=0, timeout=120, env=None):
    """Runs `aunet` in n processes to the end; returns what rank 0 printed."""
    run = Ranks(n, place, *arguments, env=env)
    codes = run.wait(timeout)
    shown = "\n".join(run.output(rank) for rank in range(n))
    assert codes == [code] * n, f"{codes}\n{shown[-6000:]}"
    return run.output()


def _one(rank, place, env, arguments, session):
    if session:
        os.setsid()
    log = (place / f"out-{rank}.txt").open("w", buffering=1)
    shown = log.fileno()
    if "AUNET_TEST_LIMIT" in env:  # output is not limited
        shown = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=log).stdin.fileno()
    os.dup2(shown, 1)
    os.dup2(shown, 2)
    os.chdir(place)
    multiprocessing.set_start_method(None, force=True)  # as in any `aunet fit`, for the workers that read
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RUN_ID", "MLFLOW_TRACKING_URI"):
        os.environ.pop(name, None)
    os.environ.update(env)
    torch.set_num_threads(1)
    if limit := env.get("AUNET_TEST_LIMIT"):
        threading.Thread(target=_fill_disk, args=limit.split(), daemon=True).start()
    from aunet_lightning.cli.main import main

    try:
        code = main(arguments)
    except SystemExit as error:
        code = error.code
    raise SystemExit(code)


def _fill_disk(metrics, step, most):
    """Once a step is logged, limits every file of this process to so many bytes."""
    path = Path(metrics)
    while not (path.exists() and f'"step": {step},' in path.read_text(encoding="utf-8")):
        time.sleep(0.01)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most), int(most)))


def killed_at(step, place, arguments):
    """Starts a run, and kills it once this step is logged."""
    run = Ranks(1, place, *arguments)
    until(logged(place / "killed", step), run)
    run.kill_all()
