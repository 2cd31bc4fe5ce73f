"""Cells as jobs, by submitit's local executor: the same numbers, nothing twice, and what is wrong is said first."""

import sys

import pytest

from aunet_lightning.cli.main import main
from aunet_lightning.errors import UserError
from aunet_lightning.study import cluster
from aunet_lightning.study.fitting import Fitter
from aunet_lightning.study.grid import cells, load
from aunet_lightning.study.running import run_cells
from aunet_lightning.study.sizing import Sizer
from tests.test_compare import GRID, _here, study_of  # noqa: F401 (a fixture)

JOBS = {"cluster": "local", "timeout_min": 5}


def sized_of(tmp_path, **changes):
    study, _ = load([study_of(tmp_path, languages=["en"], threads=1, **changes)])
    study.splitters = {"whitespace": GRID["splitters"]["whitespace"]}
    return study, [Sizer(study).sized(cell) for cell in cells(study, Fitter(study))]


@pytest.mark.slow
def test_a_job_finds_what_a_process_finds_and_is_not_submitted_again(tmp_path):
    study, (process,) = sized_of(tmp_path)
    told = []
    run_cells([process], study, main, told.append)
    study, (job,) = sized_of(tmp_path, study="jobs", submitit=JOBS)
    run_cells([job], study, main, told.append)
    assert job.is_done, (told, job.files.log().read_text())
    assert job.folder != process.folder
    one, two = (cell.files.last_metrics() for cell in (process, job))
    assert {one["val/bpb"], one["flops"]} == {two["val/bpb"], two["flops"]}
    finished = job.files.done.stat().st_mtime_ns
    jobs = sorted(job.files.jobs.iterdir())
    run_cells([job], study, main, told.append)
    assert job.files.done.stat().st_mtime_ns == finished
    assert sorted(job.files.jobs.iterdir()) == jobs
    assert cluster.running_job(job.files) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cluster": "slrum"}, "submitit.cluster is 'slrum': choose one of slurm, local"),
        ({"timeout_min": "long"}, '"timeout_min" expected type .*; valid are cluster, timeout_min'),
        ({"slurm_partitio": "gpu"}, "'slurm_partitio'.*Valid arguments: .*partition"),
        ({"colour": "red"}, "'colour' need to be prefixed.*slurm_partition"),
        ({"tasks_per_node": 2}, "submitit.tasks_per_node is set by the study: .*gpus_per_cell"),
        ({"slurm_nodes": 2}, "submitit.slurm_nodes is set by the study: a cell runs on one host"),
    ],
    ids=str,
)
def test_what_submitit_does_not_know_is_said_first(tmp_path, change, words):
    study, _ = load([study_of(tmp_path, submitit=JOBS | change)])
    with pytest.raises(UserError, match=words):
        cluster.check(study)


def test_without_the_package_or_a_limit_of_time_nothing_begins(tmp_path, monkeypatch):
    study, _ = load([study_of(tmp_path, submitit={"cluster": "local"})])
    with pytest.raises(UserError, match="submitit has no timeout_min"):
        cluster.check(study)
    monkeypatch.setitem(sys.modules, "submitit.core.plugins", None)
    with pytest.raises(UserError, match=r"pip install 'aunet-lightning\[submitit\]'"):
        cluster.check(study)
    with pytest.raises(UserError, match="submitit is 'slurm': it must be a mapping"):
        load([study_of(tmp_path, submitit="slurm")])
