"""The logger: every point once, through resumes, a server that goes away, refused names and damaged files."""

import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.tracking import MlflowClient
from mlflow.utils.validation import _validate_metric

from aunet_lightning.errors import UserError
from aunet_lightning.tracking import lock as locks
from aunet_lightning.tracking import mlflow_logger
from aunet_lightning.tracking.lock import LOCK, RunLock, holder, is_alive, process
from aunet_lightning.tracking.mlflow_logger import MLflowRunLogger, abandon, commit, settle_dead_runs
from aunet_lightning.tracking.names import LONGEST, metric_name, rule_name
from aunet_lightning.tracking.points import read_points
from aunet_lightning.tracking.run_folder import RunFolder
from tests.helpers import place_store

ROOT = Path(__file__).parent.parent


@pytest.fixture
def uri(tmp_path, store_template):
    return place_store(store_template, tmp_path / "store" / "mlflow.db")


def logger(tmp_path, uri, training=True, tags=None, **params):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir(exist_ok=True)
    made = MLflowRunLogger(folder, "test", "a run", uri, {"lr": 0.1, **params}, {"splitter": "fixed"} | (tags or {}))
    made.start(training)
    return made


def status(uri, run_id):
    return MlflowClient(uri).get_run(run_id).info.status


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


def test_labels_that_look_alike_are_two_metrics(tmp_path, uri):
    ours = logger(tmp_path, uri)
    ours.log_metrics({f"val/bpb_{metric_name(label)}": float(at) for at, label in enumerate(["a@b", "a_b"])}, 0)
    assert ours.send()
    assert history(uri, ours.run_id, "val/bpb_a_b") == [(0, 1.0)]
    assert history(uri, ours.run_id, "val/bpb_a:40:b") == [(0, 0.0)]


ORDINARY = ["en", "zh-Hans", "zh-hans", "sr_latin", "quz", "ру́с"[:2], "日本語", "x.y", "v2"]
ODD = [
    "zh//x",
    "en/",
    "a/../b",
    "x" * 260,
    "a@b",
    "a_b",
    "",
    "..",
    ".",
    "/",
    "a\n",
    "\n",
    "\0",
    "😀" * 90,
    "a:b",
    ":61:",
    " a",
    "a ",
    "x" * 100,
    "x" * 101,
    "x" * 99 + ":",
    "\u200b",
    "e\u0301",
    "é",
]
PREFIXES = ["val/bpb_", "val_stage2/agreement_script_aware_"]


def accepted(name):
    for prefix in PREFIXES:
        _validate_metric(prefix + name, 1.0, 0, 0)
    return len(name) <= LONGEST


@pytest.mark.parametrize("label", ORDINARY)
def test_ordinary_labels_stay_as_they_are(label):
    assert metric_name(label) == label


@given(st.text(st.characters(), max_size=300))
@example("x" * 260)
@example("/" * 260)
def test_every_label_has_a_name_that_mlflow_takes(label):
    assert accepted(metric_name(label))


@given(st.text("a:/\n é4061f", max_size=12), st.text("a:/\n é4061f", max_size=12))
def test_no_two_labels_have_one_name(one, other):
    assert (metric_name(one) == metric_name(other)) == (one == other)


@given(st.text(st.characters(), max_size=40), st.integers(0, 39), st.sampled_from("/:@a \n"))
def test_a_changed_label_has_another_name(label, at, change):
    changed = label[:at] + change + label[at + 1 :]
    assert (metric_name(label) == metric_name(changed)) == (label == changed)


def test_odd_labels_have_names_of_their_own():
    names = [metric_name(label) for label in ODD + ORDINARY]
    assert len(set(names)) == len(names)
    assert all(map(accepted, names))
    assert metric_name("\ud800") == ":eda080:"


def test_a_refused_name_costs_one_metric_and_a_word(tmp_path, uri):
    ours = logger(tmp_path, uri)
    ours._next_send = math.inf
    for step in range(3):
        ours.log_metrics({"val/a(b": 1.0, "train/bpb": 2.0, "x/" + "y" * 300: 1.0}, step)
    with pytest.warns(UserWarning, match="refuses the metric") as warned:
        assert ours.send()
    assert sorted(str(one.message).split("'")[1][:7] for one in warned) == ["val/a(b", "x/yyyyy"]
    ours.log_metrics({"val/a(b": 1.0, "train/bpb": 2.0}, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ours.send()
    assert history(uri, ours.run_id, "train/bpb") == [(step, 2.0) for step in range(4)]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert all(json.loads(line)["metrics"]["val/a(b"] == 1.0 for line in lines)


def test_a_database_that_refuses_everything_loses_nothing(tmp_path, uri, monkeypatch):
    ours = logger(tmp_path, uri)
    ours._next_send = math.inf
    ours.log_metrics({"train/bpb": 1.0, "val/bpb": 2.0}, 0)

    def refuse(*args, **kwargs):
        raise MlflowException("malformed", BAD_REQUEST)

    with monkeypatch.context() as patch:
        patch.setattr(ours._client, "log_batch", refuse)
        with pytest.warns(UserWarning, match="metrics wait"):
            assert not ours.send()
    assert ours.send()
    assert history(uri, ours.run_id, "train/bpb") == [(0, 1.0)]


@pytest.mark.parametrize("name", ["x" * 300 + ".md", "a\0b.md", "../../out.md"])
def test_a_refused_artifact_holds_up_no_other(name, tmp_path, uri):
    ours = logger(tmp_path, uri)
    ours._texts[name] = "hello"
    ours.log_text("text", "fine.md")
    with pytest.warns(UserWarning, match="refuses the artifact"):
        assert ours.send()
    assert [path.read_text() for path in (tmp_path / "store" / "mlartifacts").rglob("fine.md")] == ["text"]
    assert not ours._texts


def test_a_text_that_is_no_utf8_is_a_word(tmp_path, uri):
    ours = logger(tmp_path, uri)
    with pytest.warns(UserWarning, match="surrogates"):
        ours.log_text("\ud800", "odd.md")
    with pytest.warns(UserWarning, match=r"refuses the artifact 'odd\.md'"):
        assert ours.send()


def test_the_best_is_the_lowest_also_after_a_resume(tmp_path, uri):
    first = logger(tmp_path, uri)
    for step, value in enumerate([3.0, 2.0, 2.5]):
        first.log_metrics({"val/bpb": value}, step)
    second = logger(tmp_path, uri)
    second.log_metrics({"val/bpb": 2.2}, 3)
    second.finalize("success")
    assert history(uri, second.run_id, "best/val_bpb") == [(0, 3.0), (1, 2.0), (2, 2.0), (3, 2.0)]


def test_a_value_that_is_not_finite_is_never_the_best(tmp_path, uri):
    first = logger(tmp_path, uri)
    for step, value in enumerate([math.nan, math.inf, 3.0, math.nan, -math.inf]):
        first.log_metrics({"val/bpb": value}, step)
    first.finalize("success")
    second = logger(tmp_path, uri)
    second.log_metrics({"val/bpb": 3.5}, 5)
    second.finalize("success")
    assert history(uri, second.run_id, "best/val_bpb") == [(2, 3.0), (3, 3.0), (4, 3.0), (5, 3.0)]


def test_points_wait_for_a_server_that_went_away(tmp_path, uri, monkeypatch):
    ours = logger(tmp_path, uri)
    ours._next_send = math.inf
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


POINT = b'{"step": 7, "time": 5, "metrics": {"train/bpb": 1.5}}'


@pytest.mark.parametrize(
    ("line", "recovered"),
    [
        (b"garbage", False),
        (b"\xff\xfe\x80 not UTF-8", False),
        (b'{"step": 1, "metr', False),
        (b"\0" * 2000, False),
        (b"\0" * 2000 + POINT, True),
        (b"[1, 2]", False),
        (b"17", False),
        (b"null", False),
        (b"{}", False),
        (b'{"step": "1", "time": 5, "metrics": {}}', False),
        (b'{"step": 1, "time": 5, "metrics": {"a/b": "c"}}', False),
        (b'{"step": true, "time": 5, "metrics": {"a/b": 1}}', False),
        (b'{"step": 1, "time": 5, "metrics": [1]}', False),
        (b"[" * 100_000, False),
        (POINT[:20] + POINT, False),
    ],
)
def test_a_damaged_line_is_set_aside_and_the_rest_is_used(line, recovered, tmp_path):
    file = tmp_path / "metrics.jsonl"
    whole = [b'{"step": %d, "time": 5, "metrics": {"train/bpb": NaN}}' % step for step in range(4)]
    file.write_bytes(b"\n".join([*whole[:2], line, *whole[2:]]) + b"\n" + b'{"step": 9')
    before = file.read_bytes()
    steps = [0, 1, 7, 2, 3] if recovered else [0, 1, 2, 3]
    with pytest.warns(UserWarning, match=r"metrics\.jsonl, line 3: damaged.* left as it is"):
        assert [point["step"] for point in read_points(file, mend=False).points] == steps
    assert file.read_bytes() == before
    with pytest.warns(UserWarning, match=r"metrics\.jsonl, line 3: damaged.* kept in metrics\.jsonl\.damaged"):
        read = read_points(file, mend=True)
    assert [point["step"] for point in read.points] == steps
    assert read.sure == 2
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == line + b"\n"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [point["step"] for point in read_points(file, mend=True).points] == steps


@given(st.binary(max_size=60))
def test_any_bytes_can_be_read(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("any") / "metrics.jsonl"
    file.write_bytes(POINT + b"\n" + data + b"\n" + POINT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(read_points(file, mend=True).points) >= 2
    assert file.read_bytes().startswith(POINT + b"\n")
    assert file.read_bytes().endswith(POINT + b"\n")


def test_points_after_a_damaged_line_arrive(tmp_path, uri):
    first = logger(tmp_path, uri)
    for step in range(3):
        first.log_metrics({"train/bpb": 1.0}, step)
    first.send()
    first._next_send = math.inf
    for step in range(3, 6):
        first.log_metrics({"train/bpb": 1.0}, step)
    file = tmp_path / "run" / "metrics.jsonl"
    lines = file.read_bytes().split(b"\n")
    file.write_bytes(b"\n".join([b"\0" * 9 + lines[0][:9] + lines[1], *lines[2:]]))  # 0 and 1 are one, and lost
    with pytest.warns(UserWarning, match="line 1: damaged"):
        second = logger(tmp_path, uri)
    assert second.send()
    assert [step for step, _ in history(uri, second.run_id, "train/bpb")] == list(range(6))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0\0",
        "{",
        "[]",
        "null",
        '{"run_id": "a"}',
        '{"run_id": 1, "experiment_id": "1", "tracking_uri": "x"}',
        '{"run_id": "a", "experiment_id": "1", "tracking_uri": "x", "sent": "2"}',
        '{"run_id": "a", "experiment_id": "1", "tracking_uri": "x", "sent": -2}',
        "\udcff",
    ],
)
def test_a_damaged_mlflow_json_is_a_sentence(text, tmp_path, uri):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mlflow.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"run/mlflow\.json is damaged: restore it, or remove it"):
        logger(tmp_path, uri)


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


def holding(folder):
    """Starts another process that holds a folder's lock until it is killed."""
    code = f"from pathlib import Path\nfrom aunet_lightning.tracking.lock import RunLock\nlock = RunLock()\nprint(lock.acquire(Path({str(folder)!r})), flush=True)\ninput()"
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=-1, stdout=-1, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert other.stdout.readline() == "True\n"
    return other


def test_one_process_trains_in_a_folder(tmp_path):
    with holding(tmp_path) as other:
        assert holder(tmp_path) is not None
        assert RunLock.holder(tmp_path).startswith(f"process {other.pid} on ")
        lock = RunLock()
        assert not lock.acquire(tmp_path)
        assert f"process {other.pid} on " in (tmp_path / LOCK).read_text()
        other.kill()
    assert holder(tmp_path) is None  # though its text is still there
    assert lock.acquire(tmp_path)
    assert lock.acquire(tmp_path)
    assert not RunLock().acquire(tmp_path)
    assert str(os.getpid()) in holder(tmp_path)
    check = f"from pathlib import Path\nfrom aunet_lightning.tracking.lock import holder\nprint(holder(Path({str(tmp_path)!r})))"
    asked = subprocess.run(
        [sys.executable, "-c", check],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert asked.stdout.startswith(f"process {os.getpid()} on ")
    lock.release()
    lock.release()
    assert holder(tmp_path) is None
    assert RunLock().acquire(tmp_path)
    locks._held[tmp_path.resolve()].release()


def test_a_folder_that_cannot_be_locked_is_a_word(tmp_path, monkeypatch):
    def without(*args):
        raise OSError(locks.errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr(locks.fcntl, "lockf", without)
        lock = RunLock()
        with pytest.warns(UserWarning, match="cannot be locked"):
            assert lock.acquire(tmp_path)
        del locks._held[tmp_path.resolve()]  # as another process sees it
        assert str(os.getpid()) in holder(tmp_path)
        (tmp_path / LOCK).write_text((tmp_path / LOCK).read_text().replace(str(os.getpid()), "999999999"))
        assert holder(tmp_path) is None
        (tmp_path / LOCK).write_text("process 1 on elsewhere since then")
        assert holder(tmp_path) == "process 1 on elsewhere since then"
        locks._held[tmp_path.resolve()] = lock
        lock.release()
    with pytest.warns(UserWarning, match="cannot be locked"):
        assert RunLock().acquire(tmp_path / "not there")
    assert holder(tmp_path / "not there") is None


def test_processes_are_known_until_another_has_their_number():
    assert is_alive(process())
    assert not is_alive(f"{os.getpid()}/0")
    assert not is_alive("999999999/0")
    assert not is_alive("")
    assert not is_alive("x/y")
