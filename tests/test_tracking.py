"""The logger: every point once, through resumes, a server that goes away, and a line cut short."""

import json

import pytest
from mlflow.tracking import MlflowClient

from aunet_lightning.errors import UserError
from aunet_lightning.tracking.mlflow_logger import MLflowRunLogger, commit, tracking_uri
from aunet_lightning.tracking.run_folder import RunConfig, RunFolder, defining, rule_name


@pytest.fixture
def uri(tmp_path):
    return f"sqlite:///{tmp_path}/store/mlflow.db"


def logger(tmp_path, uri, **params):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir(exist_ok=True)
    made = MLflowRunLogger(folder, "test", "a run", uri, {"lr": 0.1, **params}, {"splitter": "fixed"})
    made.start()
    return made


def history(uri, run_id, key):
    return [(point.step, point.value) for point in MlflowClient(uri).get_metric_history(run_id, key)]


def test_a_resumed_run_has_every_point_once(tmp_path, uri):
    first = logger(tmp_path, uri)
    for step in range(5):
        first.log_metrics({"train/bpb": 8.0 - step, "epoch": 0}, step)
    first.send()
    second = logger(tmp_path, uri, lr=0.2)
    assert second.run_id == first.run_id
    assert MlflowClient(uri).get_run(second.run_id).info.status == "RUNNING"
    for step in range(3, 8):  # 3 and 4 are repeated
        second.log_metrics({"train/bpb": 8.0 - step}, step)
    second.finalize("success")
    assert history(uri, second.run_id, "train/bpb") == [(step, 8.0 - step) for step in range(8)]
    run = MlflowClient(uri).get_run(second.run_id)
    assert run.info.status == "FINISHED"
    assert (run.data.params["lr"], run.data.tags["changed.lr"]) == ("0.1", "0.2")
    assert "epoch" not in run.data.metrics


def test_a_name_that_mlflow_refuses_is_put_right(tmp_path, uri):
    ours = logger(tmp_path, uri)
    ours.log_metrics({"val/bpb_sr@latin": 2.0, "val/bpb": 1.0}, 0)
    assert ours.send()
    assert history(uri, ours.run_id, "val/bpb_sr_latin") == [(0, 2.0)]


def test_the_best_is_the_lowest_also_after_a_resume(tmp_path, uri):
    first = logger(tmp_path, uri)
    for step, value in enumerate([3.0, 2.0, 2.5]):
        first.log_metrics({"val/bpb": value}, step)
    second = logger(tmp_path, uri)
    second.log_metrics({"val/bpb": 2.2}, 3)
    second.finalize("success")
    assert history(uri, second.run_id, "best/val_bpb") == [(0, 3.0), (1, 2.0), (2, 2.0), (3, 2.0)]


def test_points_wait_for_a_server_that_went_away(tmp_path, uri, monkeypatch):
    ours = logger(tmp_path, uri)
    ours.log_metrics({"train/bpb": 1.0}, 0)

    def gone(*args, **kwargs):
        raise ConnectionError("refused")

    with monkeypatch.context() as patch:
        patch.setattr(ours._client, "log_batch", gone)
        patch.setattr(ours._client, "log_text", gone)
        ours.log_metrics({"train/bpb": 2.0}, 1)
        with pytest.warns(UserWarning, match="does not answer"):
            assert not ours.send()
        for step in range(2, 6):
            ours.log_metrics({"train/bpb": 3.0}, step)
        ours.log_text("hello", "note.md")
        assert not ours.send()
    assert ours.send()
    assert [p.read_text() for p in (tmp_path / "store" / "mlartifacts").rglob("note.md")] == ["hello"]
    assert [step for step, _ in history(uri, ours.run_id, "train/bpb")] == list(range(6))


def test_points_unsent_when_a_run_dies_are_sent_by_the_next(tmp_path, uri):
    first = logger(tmp_path, uri)
    first._next_send = float("inf")
    first.log_metrics({"train/bpb": 1.0}, 0)
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "metr')  # killed in the middle of a line
    second = logger(tmp_path, uri)
    second.log_metrics({"train/bpb": 2.0}, 1)
    second.finalize("success")
    assert history(uri, second.run_id, "train/bpb") == [(0, 1.0), (1, 2.0)]
    assert [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()] == [
        0,
        1,
    ]


def test_an_experiment_keeps_its_artifacts_beside_the_store(tmp_path, uri):
    ours = logger(tmp_path, uri)
    ours.log_text("hello", "note.md")
    assert ours.send()
    assert (tmp_path / "run" / "note.md").read_text() == "hello"
    assert [p.read_text() for p in (tmp_path / "store" / "mlartifacts").rglob("note.md")] == ["hello"]


def test_a_server_that_never_answers_stops_the_run_before_it_begins(tmp_path):
    with pytest.raises(UserError, match=r"run\.tracking_uri: MLflow at http://127\.0\.0\.1:9 does not answer"):
        logger(tmp_path, "http://127.0.0.1:9")


def test_where_runs_are_tracked(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(None) == "sqlite:///runs/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there")
    assert tracking_uri(None) == "http://there"
    assert tracking_uri("http://here") == "http://here"


def test_what_defines_a_run_names_its_folder():
    settings = {
        "splitter": "fixed", "data": {"row_bytes": 5, "workers": 1}, "model": {"net": {"stages": [{"dim": 8}]}},
        "trainer": {"max_steps": 5, "precision": "32-true", "devices": 1},
    }  # fmt: skip
    assert defining(settings) == {
        "splitter": "fixed", "data.row_bytes": 5, "model.net.stages[0].dim": 8, "trainer.precision": "32-true"
    }  # fmt: skip

    def folder(**changes):
        changed = {
            key: ({**settings[key], **value} if isinstance(value, dict) else value) for key, value in changes.items()
        }
        return RunFolder.of(RunConfig(experiment="e"), "name", settings | changed).path

    assert folder().parent.as_posix() == "runs/e"
    assert folder(trainer={"devices": 2}, data={"workers": 7}) == folder()
    for change in (
        {"splitter": "whitespace"},
        {"data": {"row_bytes": 6}},
        {"trainer": {"precision": "bf16-true"}},
        {"trainer": {"max_steps": 9}},
    ):
        assert folder(**change) != folder()


def test_a_named_folder_may_go_on_longer_but_not_as_another_run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    settings = {"splitter": "fixed", "trainer": {"max_steps": 5}}
    folder.begin(settings, json.dumps(settings))
    with pytest.warns(UserWarning, match=r"trainer\.max_steps \(there 5, here 9\)"):
        folder.begin(settings | {"trainer": {"max_steps": 9}}, "")
    folder.config.write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"splitter \(there 'fixed', here 'whitespace'\)"):
        folder.begin(settings | {"splitter": "whitespace"}, "")


def test_rules_have_readable_names():
    assert rule_name({"name": "fixed", "n": 4}) == "fixed-n4"
    assert rule_name("my_rules:Vowels") == "Vowels"
    assert rule_name(None) == "bytes"
    assert rule_name({"name": "cap", "of": {"name": "fixed", "n": 4}, "max_bytes": 9}) == "cap-of-fixed-n4-max_bytes9"
    assert rule_name({"name": "union", "of": ["whitespace", "trie"]}) == "union-ofwhitespace+trie"
    assert rule_name({"name": "trie", "vocabulary": "/data/a/th-8k.json"}) == "trie-vocabularyth_8k"
    assert "/" not in rule_name({"name": "pattern", "patterns": [r"a/b\s" * 50]})
    assert len(rule_name({"name": "pattern", "patterns": [r"a/b\s" * 50]})) < 60


def test_the_commit_is_known():
    assert commit()
