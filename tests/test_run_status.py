"""Runs in MLflow: their status, deleted and dead ones, runs gone back on, and how they end."""

import math
import shutil
import threading
import time

import pytest
from mlflow.tracking import MlflowClient

from aunet_lightning.errors import UserError
from aunet_lightning.tracking import mlflow_logger
from aunet_lightning.tracking.lock import RunLock, process
from aunet_lightning.tracking.mlflow_logger import MLflowRunLogger, abandon, settle_dead_runs
from aunet_lightning.tracking.run_folder import RunFolder
from tests.mlflow_runs import history, logger, status


def test_deleted_runs_have_a_way_back(tmp_path, uri):
    first = logger(tmp_path, uri)
    first.log_metrics({"train/bpb": 1.0}, 0)
    first.finalize("success")
    client = MlflowClient(uri)
    client.delete_run(first.run_id)
    with pytest.raises(UserError, match=f"mlflow runs restore --run-id {first.run_id}.*or remove .*mlflow.json"):
        logger(tmp_path, uri)
    client.restore_run(first.run_id)
    client.delete_experiment(first.experiment_id)
    with pytest.raises(UserError, match=f"mlflow experiments restore --experiment-id {first.experiment_id}"):
        logger(tmp_path, uri)
    client.restore_experiment(first.experiment_id)
    logger(tmp_path, uri).finalize("success")
    state = tmp_path / "run" / "mlflow.json"
    state.write_text(state.read_text().replace(first.run_id, "0" * 32))
    with pytest.raises(UserError, match=r"is not in MLflow at .*: name the right store, or remove .*mlflow\.json"):
        logger(tmp_path, uri)
    state.unlink()
    second = logger(tmp_path, uri)
    assert second.run_id != first.run_id
    assert second.send()
    assert history(uri, second.run_id, "train/bpb") == [(0, 1.0)]


def test_names_that_mlflow_refuses_for_a_run_are_a_sentence(tmp_path, uri):
    ours = MLflowRunLogger(RunFolder(tmp_path), "x" * 600, "a run", uri, {}, {})
    with pytest.raises(UserError, match=r"^run\.experiment, run\.name or run\.tags: MLflow at .* refuses"):
        ours.start()


@pytest.mark.parametrize("ended", ["FINISHED", "FAILED", "KILLED"])
def test_validation_keeps_the_status_of_a_run(ended, tmp_path, uri):
    first = logger(tmp_path, uri)
    first.ends_as = ended
    first.finalize("success" if ended == "FINISHED" else "failed")
    for outcome in ("success", "failed"):
        second = logger(tmp_path, uri, training=False, lr=0.2)
        assert status(uri, first.run_id) == ended
        second.log_metrics({"test/bpb": 1.0}, 5)
        second.finalize(outcome)
        assert second.run_id == first.run_id
        assert status(uri, first.run_id) == ended
    assert history(uri, first.run_id, "test/bpb") == [(5, 1.0)]
    assert "changed.lr" not in MlflowClient(uri).get_run(first.run_id).data.tags


def test_validation_of_another_run_ends(tmp_path, uri):
    ours = logger(tmp_path, uri, training=False)
    assert status(uri, ours.run_id) == "RUNNING"
    ours.finalize("success")
    assert status(uri, ours.run_id) == "FINISHED"


def begin_and_die(tmp_path, uri):
    """A run whose process is gone, as far as MLflow knows."""
    ours = logger(tmp_path, uri)
    ours.log_metrics({"train/bpb": 1.0}, 0)
    assert ours.send()
    MlflowClient(uri).set_tag(ours.run_id, "process", "1/0")
    return ours


def test_a_run_that_died_is_shown_as_failed_by_the_next(tmp_path, uri):
    died = begin_and_die(tmp_path, uri)
    other = tmp_path / "other"
    other.mkdir()
    logger(other, uri).finalize("success")
    run = MlflowClient(uri).get_run(died.run_id)
    assert run.info.status == "FAILED"
    assert "ended without setting a status" in run.data.tags["died"]
    again = logger(tmp_path, uri)
    run = MlflowClient(uri).get_run(died.run_id)
    assert (again.run_id, run.info.status) == (died.run_id, "RUNNING")
    assert "died" not in run.data.tags
    assert run.data.tags["process"] == process()


def test_validation_shows_its_own_dead_run_as_failed(tmp_path, uri):
    died = begin_and_die(tmp_path, uri)
    validated = logger(tmp_path, uri, training=False)
    validated.finalize("success")
    assert status(uri, died.run_id) == "FAILED"


@pytest.mark.parametrize(
    "why",
    [
        "another host",
        "an older version",
        "its process lives",
        "its folder is locked",
        "its folder is another's",
        "its folder is gone",
    ],
)
def test_runs_that_may_live_are_left_alone(why, tmp_path, uri):
    ours, client = begin_and_die(tmp_path, uri), MlflowClient(uri)
    folder, lock = tmp_path / "run", RunLock()
    if why == "another host":
        client.set_tag(ours.run_id, "host", "elsewhere")
    elif why == "an older version":
        client.delete_tag(ours.run_id, "process")
    elif why == "its process lives":
        client.set_tag(ours.run_id, "process", process())
    elif why == "its folder is locked":
        assert lock.acquire(folder)
    elif why == "its folder is another's":
        (folder / "mlflow.json").write_text('{"run_id": "b"}')
    else:
        shutil.rmtree(folder)
    assert settle_dead_runs(client, ours.experiment_id) == []
    assert status(uri, ours.run_id) == "RUNNING"
    lock.release()
    if why == "its folder is locked":
        assert settle_dead_runs(client, ours.experiment_id, ours.run_id) == []
        assert settle_dead_runs(client, ours.experiment_id) == ["a run"]


def test_settling_costs_no_run(tmp_path):
    with pytest.warns(UserWarning, match="cannot be asked"):
        assert settle_dead_runs(None, "1") == []


def test_a_run_that_was_gone_back_on(tmp_path, uri):
    first = logger(tmp_path, uri)
    for step in range(4):
        first.log_metrics({"train/bpb": float(step)}, step)
    first.finalize("success")
    file = tmp_path / "run" / "metrics.jsonl"
    file.write_text("".join(line + "\n" for line in file.read_text().splitlines()[:2]))
    (tmp_path / "run" / "mlflow.json").unlink()
    abandon(uri, first.run_id, 2, "set_aside/01")
    second = logger(tmp_path, uri, tags={"continues": first.run_id})
    second.log_metrics({"train/bpb": 9.0}, 2)
    second.finalize("success")
    assert history(uri, second.run_id, "train/bpb") == [(0, 0.0), (1, 1.0), (2, 9.0)]
    old = MlflowClient(uri).get_run(first.run_id)
    assert old.info.status == "KILLED"
    assert {
        "abandoned_after_step": "2",
        "set_aside_in": "set_aside/01",
        "continued_by": second.run_id,
    }.items() <= old.data.tags.items()


def test_a_store_that_is_gone_lets_a_run_be_left(tmp_path):
    with pytest.warns(UserWarning, match="could not be marked as abandoned"):
        abandon("http://127.0.0.1:9", "0" * 32, 2, "there")


def test_the_end_of_a_run_waits_for_no_server(tmp_path, uri, monkeypatch):
    monkeypatch.setattr(mlflow_logger, "LAST_SEND", 0.3)
    ours = logger(tmp_path, uri)
    ours._next_send = math.inf
    ours.log_metrics({"train/bpb": 1.0}, 0)
    hangs = threading.Event()
    monkeypatch.setattr(ours._client, "log_batch", lambda *a, **k: hangs.wait(60))
    begin = time.monotonic()
    with pytest.warns(UserWarning, match="did not reach MLflow"):
        ours.finalize("success")
    ours.finalize("failed")
    assert time.monotonic() - begin < 3
    hangs.set()


def test_the_end_of_a_run_raises_nothing(tmp_path, uri, monkeypatch):
    ours = logger(tmp_path, uri)

    def gone(*args, **kwargs):
        raise RuntimeError("worse")

    monkeypatch.setattr(ours._client, "set_terminated", gone)
    with pytest.warns(UserWarning, match="worse"):
        ours.finalize("success")
