"""Starts cells as jobs through the package submitit: of SLURM, or of this machine (its local executor).

A cell's job is recorded in its folder, so that a study which is started again waits for a job that still runs.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aunet_lightning.errors import UserError, describe, first_line
from aunet_lightning.paths import replace_text
from aunet_lightning.study.cell_folder import CellFolder
from aunet_lightning.study.cell_job import CellJob
from aunet_lightning.study.cell_process import Main, prepare
from aunet_lightning.study.grid import Study
from aunet_lightning.study.settings import Settings
from aunet_lightning.study.sizing import Sized
from aunet_lightning.study.starting import Started, Starter, gpus_of, threads_of
from aunet_lightning.tracking.lock import process

if TYPE_CHECKING:
    from submitit import AutoExecutor, Job

LOCAL = "local"
OF_EXECUTOR = ("max_num_timeout", "max_pickle_size_gb", "python")  # what submitit takes where an executor is made
OURS = {  # what a study sets itself, and how
    "nodes": "a cell runs on one host",
    "tasks_per_node": "it is the number of a cell's devices: set gpus_per_cell, or settings.trainer.devices",
    "ntasks_per_node": "it is the number of a cell's devices: set gpus_per_cell, or settings.trainer.devices",
}
LATE = 15.0  # seconds in which the result of a job that has ended comes through the file system
SAVING = 0.7  # of the time between a job's signal and its end
SIGNAL_DELAY = 90.0  # seconds of this, submitit's own; its local executor has 30
LOCAL_GRACE = 20.0


def check(study: Study) -> None:
    """Raises UserError where the study's jobs could not be submitted, because of what its YAML says of them or because
    the package or the cluster is not there."""
    settings = study.submitit or {}
    try:
        from submitit.core.plugins import get_executors
    except ImportError as error:
        raise UserError(
            f"submitit: the package submitit cannot be imported ({error}): pip install 'aunet-lightning[submitit]', "
            "or leave submitit out to run the cells on this machine"
        ) from None
    clusters, name = [one for one in get_executors() if one != "debug"], settings.get("cluster")
    if name is not None and name not in clusters:
        raise UserError(f"submitit.cluster is {name!r}: choose one of {', '.join(clusters)}")
    if "timeout_min" not in settings:
        raise UserError("submitit has no timeout_min: set the minutes after which a job is saved and put back in line")
    for key in settings:
        if why := next((why for ours, why in OURS.items() if key == ours or key.endswith(f"_{ours}")), None):
            raise UserError(f"submitit.{key} is set by the study: {why}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            _executor(settings, Path(folder))
    except RuntimeError as error:
        raise UserError(
            f"submitit: {first_line(error)} Run aunet compare on a machine that submits jobs, or set cluster: local"
        ) from None
    except (AssertionError, NameError, TypeError, ValueError) as error:
        raise UserError(
            f"submitit: {first_line(error, 2000)}; valid are cluster, timeout_min, mem_gb, cpus_per_task, "
            "gpus_per_node, stderr_to_stdout, name, and for one cluster alone CLUSTER_NAME, such as slurm_partition"
        ) from None


def _executor(settings: Settings, folder: Path, **ours: Any) -> AutoExecutor:
    from submitit import AutoExecutor

    given = dict(settings)
    cluster = given.pop("cluster", None)
    made = {key: given.pop(key) for key in [*given] if key.partition("_")[2] in OF_EXECUTOR}
    executor = AutoExecutor(folder, cluster=cluster, **made)
    executor.update_parameters(**(ours | given))
    return executor


class Cluster(Starter):
    """Submits cells, one job each with a task per device."""

    def __init__(self, study: Study, main: Main) -> None:
        self.study, self.main, self.settings = study, main, dict(study.submitit or {})

    def start(self, cell: Sized, slot: int) -> Started:
        earlier = running_job(cell.files)
        return _Job(earlier or self._submit(cell, slot), cell.files)

    def _submit(self, cell: Sized, slot: int) -> Job[int] | None:
        from submitit.helpers import clean_env

        task, files = prepare(cell), cell.files
        threads = max(self.study.threads // cell.devices, 1) if self.study.threads else None
        executor = _executor(
            self.settings, files.jobs, name=cell.cell.name, tasks_per_node=cell.devices, cpus_per_task=threads,
            gpus_per_node=self.study.gpus_per_cell or None,
        )  # fmt: skip
        of_cluster: tuple[int | None, str | None, str | None, float]
        if executor.cluster == LOCAL:
            of_cluster = threads_of(cell, self.study), gpus_of(slot, self.study), process(), LOCAL_GRACE
        else:
            delay = self.settings.get(f"{executor.cluster}_signal_delay_s", SIGNAL_DELAY)
            of_cluster = threads, None, None, SAVING * delay
        try:
            with clean_env():  # the study may be a job itself
                job = executor.submit(CellJob(task, self.main, cell.cell.name, *of_cluster))
        except Exception as error:  # what sbatch says: this cell fails, and the next start tries again
            _log(files, f"aunet compare: the job could not be submitted: {_last_line(error)}")
            return None
        kept = {"cluster": executor.cluster, "id": job.job_id, "tasks": cell.devices}
        replace_text(files.job, json.dumps(kept))
        return job


def running_job(files: CellFolder) -> Job[int] | None:
    """Returns the job that an earlier study started in a cell's folder, if it waits in line or runs.

    Where the cluster does not know, the answer is None: the cell's lock then lets the new job wait for the old one.
    """
    from submitit.core.plugins import get_executors

    try:
        kept = json.loads(files.job.read_text(encoding="utf-8"))
        job_class = get_executors()[kept["cluster"]].job_class
        job = job_class(files.jobs.absolute(), kept["id"], range(kept["tasks"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    over = job.done(force_check=True) or job.state.upper() in ("UNKNOWN", "PREEMPTED")
    return None if over else job


class _Job(Started):
    def __init__(self, job: Job[int] | None, files: CellFolder) -> None:
        self.job, self.files = job, files
        self._codes: Sequence[int] | None = [1] if job is None else None
        self._stopped = False
        self._ended: float | None = None  # when its end was first seen

    @property
    def codes(self) -> Sequence[int] | None:
        if self._codes is None and self.job is not None and self.job.done():
            self._codes = self._results(self.job)
        return self._codes

    def _results(self, job: Job[int]) -> Sequence[int] | None:
        tasks = [job.task(i) for i in range(job.num_tasks)]
        if all(task.paths.result_pickle.exists() for task in tasks):
            try:
                return [int(code) for code in job.results()]
            except Exception:  # what the task raised, which is in its log
                return self._lost(job)
        self._ended = self._ended or time.monotonic()
        return self._lost(job) if self._stopped or time.monotonic() - self._ended > LATE else None

    def _lost(self, job: Job[int]) -> Sequence[int]:
        if not self._stopped:
            where = job.task(0).paths.stderr
            _log(self.files, f"aunet compare: job {job.job_id} ended without a result ({job.state}): see {where}")
        return [1]

    def stop(self) -> None:
        """Cancels it: the same study continues from its last checkpoint."""
        if self.job is not None and self.codes is None:
            self._stopped = True
            self.files.job.unlink(missing_ok=True)
            self.job.cancel(check=False)

    def kill(self) -> None:
        """Does nothing more: who cancels a job kills it when its time to end is over."""


def _log(files: CellFolder, line: str) -> None:
    with files.log().open("a", encoding="utf-8") as log:
        log.write(f"{line}\n")


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else describe(error)
