"""The logger: every point once, through resumes, a server that goes away, refused names and damaged files."""

import json
import math
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.tracking import MlflowClient

from aunet_lightning.errors import UserError
from aunet_lightning.tracking.mlflow_logger import commit, ui_path
from aunet_lightning.tracking.names import metric_name
from aunet_lightning.tracking.points import read_points
from tests.mlflow_runs import history, logger


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


def test_a_text_is_replaced_at_once(tmp_path, uri, monkeypatch):
    """Other ranks may read config.yaml while the first writes it again."""
    ours, path = logger(tmp_path, uri), tmp_path / "run" / "config.yaml"
    ours.log_text("model: old", path.name)
    write, seen = Path.write_text, []

    def written(self, text, **options):
        n = write(self, text[:3], **options)  # half-way
        seen.append(path.read_text())
        return n

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", written)
        ours.log_text("model: new", path.name)
    assert seen == ["model: old"]


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


def test_the_note_of_an_experiment_links_to_its_charts(tmp_path, uri):
    made = logger(tmp_path, uri)
    note = MlflowClient(uri).get_experiment(made.experiment_id).tags["mlflow.note.content"]
    assert f"[Charts of all runs]({ui_path(made.experiment_id).removeprefix('/')})" in note
    made.finalize("success")


def test_an_experiment_keeps_its_artifacts_beside_the_store(tmp_path, uri):
    ours = logger(tmp_path, uri)
    ours.log_text("hello", "note.md")
    assert ours.send()
    assert (tmp_path / "run" / "note.md").read_text() == "hello"
    assert [p.read_text() for p in (tmp_path / "store" / "mlartifacts").rglob("note.md")] == ["hello"]


def test_a_server_that_never_answers_stops_the_run_before_it_begins(tmp_path):
    with pytest.raises(UserError, match=r"run\.tracking_uri: MLflow at http://127\.0\.0\.1:9 does not answer"):
        logger(tmp_path, "http://127.0.0.1:9")


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
