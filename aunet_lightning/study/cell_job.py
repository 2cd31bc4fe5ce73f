"""What each task of a submitit job runs: one process of a cell, as a child.

submitit's signals come to the task. Before a job is put back into the queue, the child finishes its step and saves,
which a handler inside its own process could not wait for.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from aunet_lightning.study.cell_process import CellTask, Main, cell_process, rank_environment
from aunet_lightning.tracking.lock import is_alive

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

LOOK = 1.0  # seconds between looks at the study's process
LINGER = 600.0  # seconds, see `_leave`
BY_SIGTERM = (128 + signal.SIGTERM, -signal.SIGTERM)  # exit codes of a run that was stopped


@dataclass
class CellJob:
    """A call of it runs one process of a cell, and returns its exit code. submitit pickles it."""

    task: CellTask
    main: Main
    name: str
    threads: int | None
    """of each process; None: the cores that the cluster gives it"""
    gpus: str | None
    """CUDA_VISIBLE_DEVICES; None: as the cluster sets it"""
    owner: str | None
    """the process of this machine (as `tracking.lock` names it) with which the job ends; None: it outlives it"""
    grace: float
    """seconds to save in, from the signal to the end"""

    def __post_init__(self) -> None:
        self._child: BaseProcess | None = None

    def __call__(self) -> int:
        from submitit import JobEnvironment
        from submitit.helpers import TorchDistributedEnvironment

        there = TorchDistributedEnvironment()
        env = rank_environment(self.name, there.rank, there.world_size, there.master_port)
        env |= {"OMP_NUM_THREADS": str(self.threads or _cores())}
        env |= {} if self.gpus is None else {"CUDA_VISIBLE_DEVICES": self.gpus}
        # Forked, it shares what was imported. SLURM signals all processes of a task: the child leaves this one to us.
        notice = getattr(signal, f"SIG{JobEnvironment.USR_SIG}")
        ours = signal.signal(notice, signal.SIG_IGN)
        context = multiprocessing.get_context("fork")
        self._child = context.Process(target=_child, args=(self.task, self.main, there.rank, env))
        self._child.start()
        signal.signal(notice, ours)
        try:
            return self._wait(self._child)
        finally:
            if self._child.exitcode is None:
                self._child.terminate()

    def checkpoint(self) -> DelayedSubmission:
        """Lets the cell save, and returns what continues it. submitit calls it in the first task of a job that is
        preempted or out of time; where one process of a cell stops, all do."""
        from submitit.core.utils import DelayedSubmission

        self._save()
        return DelayedSubmission(replace(self))

    def _wait(self, child: BaseProcess) -> int:
        while (code := child.exitcode) is None:
            child.join(LOOK)
            if self.owner is not None and not is_alive(self.owner):
                self._save()
        return code if code not in BY_SIGTERM else self._leave()

    def _save(self) -> None:
        if self._child is not None and self._child.exitcode is None:
            self._child.terminate()
            self._child.join(self.grace)
            self._child.kill()

    def _leave(self) -> int:
        """Ends without a result, which would mean that the job is over: it was cancelled, or it is to continue. A
        cluster that preempts a job puts it back itself only if it has not ended before the cluster ends it."""
        if self.owner is None:
            time.sleep(LINGER)
        sys.exit(128 + signal.SIGTERM)


def _child(task: CellTask, main: Main, rank: int, env: Mapping[str, str]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # which submitit ignores
    cell_process(task, main, rank, env)


def _cores() -> int:
    return int(os.environ.get("SLURM_CPUS_PER_TASK") or len(os.sched_getaffinity(0)))
