"""A run's model in MLflow, and over HTTP: real servers and requests, whose answers are those of this package's functions."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import fields

import mlflow
import pytest
import torch
import yaml
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from aunet_lightning.checkpoints.load import load
from aunet_lightning.generation import Request, Sampling, texts
from aunet_lightning.scoring import Continuation, score
from aunet_lightning.serving import logged
from aunet_lightning.serving.logged import log_model, save_model
from aunet_lightning.serving.model import PARAMS
from aunet_lightning.study.sizing import BESIDE
from aunet_lightning.tracking.run_folder import RunConfig
from tests.helpers import ROOT, aunet, error_of

KEPT, ROW = ROOT / "tests" / "kept_run" / "checkpoints" / "last.ckpt", 128
PROMPTS = ["All human beings ", "人人生而自由", ""]
TEXTS = ["All human beings are born free", "ทุกคนมีสิทธิ"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """That of a run, as of a version that records its rows."""
    path = tmp_path_factory.mktemp("run") / "checkpoints" / "last.ckpt"
    path.parent.mkdir()
    torch.save(torch.load(KEPT, weights_only=True) | {"row_ids": ROW}, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory, checkpoint):
    """The model of a checkpoint, moved after it was written."""
    place = tmp_path_factory.mktemp("served")
    save_model(checkpoint, place / "made")
    return shutil.move(place / "made", place / "moved")


@pytest.fixture(scope="module")
def loaded(folder):
    return mlflow.pyfunc.load_model(str(folder))


@pytest.fixture(scope="module")
def net():
    return load(KEPT)[0]


def continued(net, prompts, samples=1, seed=0, **options):
    requests = [Request(prompt.encode(), seed, n) for prompt in prompts for n in range(samples)]
    return texts(net, net.reader, requests, Sampling(**options))


def decoded(text):
    return text.decode("utf-8", "surrogateescape")


# The model


def test_prompts_are_continued_as_in_python(loaded, net):
    params = {
        "max_bytes": 40,
        "temperature": 1.1,
        "top_p": 0.9,
        "repetition_penalty": 1.2,
        "seed": 5,
        "stop": ["e"],
        "valid_utf8": False,
    }
    given = [{"prompt": prompt} for prompt in PROMPTS]
    expected = continued(net, PROMPTS, 3, **{**params, "stop": (b"e",)})
    found = loaded.predict(given, params={**params, "samples": 3}).to_dict("records")
    assert [one["text"] for one in found] == [decoded(text.text) for text in expected]
    assert [one["finish"] for one in found] == [text.finish for text in expected]
    assert [one["sample"] for one in found] == [0, 1, 2] * 3
    assert {one["finish"] for one in found} > {"stop"}
    valid = loaded.predict(given, params={"max_units": 3, "top_k": None}).to_dict("records")
    assert [one["removed"] for one in valid] == [text.removed for text in continued(net, PROMPTS, max_units=3)]


def test_the_params_are_those_of_sampling():
    given = {param.name: tuple(value) if isinstance(value := param.default, list) else value for param in PARAMS}
    assert {field.name: given[field.name] for field in fields(Sampling)} == vars(Sampling())


def test_texts_are_scored_as_in_python(loaded, net):
    given = [{"text": TEXTS[0]}, {"text": TEXTS[1], "context": "มนุษย์ " * 40}]
    documents = [Continuation(one.get("context", "").encode(), one["text"].encode()) for one in given]
    expected = list(score(net, net.reader, documents, row_ids=ROW))
    found = loaded.predict(given, params={"per_byte": True}).to_dict("records")
    for one, by_hand in zip(found, expected, strict=True):
        assert (one["bytes"], one["bits"], one["bpb"]) == (len(by_hand.surprisal), by_hand.bits, by_hand.bpb)
        assert (one["greedy"], one["unread"]) == (by_hand.greedy.all(), by_hand.unread)
        assert (one["surprisal"], one["levels"]) == (by_hand.surprisal.tolist(), by_hand.levels.tolist())
    assert found[1]["unread"] > 0
    assert "surprisal" not in loaded.predict(given).columns


def test_a_stream_is_the_text_in_whole_characters(loaded, net):
    for prompt in PROMPTS:
        pieces = list(loaded.predict_stream({"prompt": prompt}, params={"max_bytes": 60, "seed": 2}))
        assert "".join(pieces) == decoded(continued(net, [prompt], seed=2, max_bytes=60)[0].text)
        assert len(pieces) > 5
    raw = loaded.predict_stream({"prompt": "x"}, params={"max_bytes": 60, "valid_utf8": False})
    assert "".join(raw) == decoded(continued(net, ["x"], max_bytes=60, valid_utf8=False)[0].text)


@pytest.mark.parametrize(
    ("records", "params", "says"),
    [
        ([{"prompt": "x"}], {"max_bytes": -1}, "max_bytes is -1"),
        ([{"prompt": "x"}], {"max_bytes": 1.5}, "'max_bytes'"),
        ([{"prompt": "x"}], {"max_units": 0}, "max_units is 0"),
        ([{"prompt": "x"}], {"temperature": -1.0}, "temperature is -1"),
        ([{"prompt": "x"}], {"top_k": 0}, "top_k is 0"),
        ([{"prompt": "x"}], {"top_p": 1.5}, "top_p is 1.5"),
        ([{"prompt": "x"}], {"min_p": 2.0}, "min_p is 2"),
        ([{"prompt": "x"}], {"repetition_penalty": 0.0}, "repetition_penalty is 0"),
        ([{"prompt": "x"}], {"stop": ["a", ""]}, "stop: an empty string"),
        ([{"prompt": "x"}], {"stop": [None]}, "stop: an empty string"),
        ([{"prompt": "x"}], {"stop": "a"}, "'stop'"),
        ([{"prompt": "x"}], {"samples": 0}, "samples is 0"),
        ([{"prompt": "x"}], {"samples": 10**9}, "samples is 1000000000"),
        ([{"prompt": "x"}], {"per_byte": "yes"}, "'per_byte'"),
        ([{"prompt": 3}], {}, "prompt"),
        ([{"prompt": "x"}, {"prompt": ["x"]}], {}, "prompt of record 1 is ['x']"),
        ([{"prompt": "x", "text": "y"}], {}, "record 0 has both"),
        ([{"prompt": "x"}, {"prompt": None}], {}, "record 1 has neither"),
        ([{"prompt": "x"}, {"text": "y"}], {}, "record 1 is to be scored (`text`), record 0 continued (`prompt`)"),
        ([{"text": "x"}, {"text": ""}], {}, "text of record 1 is empty"),
        ([{"prompt": "x", "context": "y"}], {}, "context of record 0"),
        ([{"context": "y"}], {}, "record 0 has neither"),
        ([{"promt": "x"}], {}, "no record with a `prompt`"),
        ([], {}, "no record with a `prompt`"),
    ],
)  # fmt: skip
def test_a_bad_request_is_refused_with_the_field(loaded, records, params, says):
    with pytest.raises(MlflowException) as refused:
        loaded.predict(records, params=params)
    assert says in refused.value.message
    assert refused.value.get_http_status_code() == 400


@pytest.mark.parametrize(
    ("record", "params", "says"), [({"text": "x"}, {}, "text: "), ({"prompt": "x"}, {"samples": 2}, "samples is 2")]
)
def test_what_does_not_stream_is_refused(loaded, record, params, says):
    with pytest.raises(MlflowException, match=says):
        next(loaded.predict_stream(record, params=params))


def test_requests_of_several_threads_are_answered_as_if_alone(loaded):
    def ask(number):
        if number % 3 == 0:
            return loaded.predict([{"text": TEXTS[0] * (number + 1)}]).to_dict("records")
        if number % 3 == 1:
            return "".join(loaded.predict_stream({"prompt": str(number)}, params={"max_bytes": 30, "seed": number}))
        return loaded.predict([{"prompt": "a"}], params={"max_bytes": 30, "seed": number}).to_dict("records")

    alone = [ask(number) for number in range(6)]
    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(ask, range(6))) == alone
    assert torch.get_num_threads() == 1


def test_a_folder_in_mlflow_says_what_it_is_and_needs(folder):
    about = yaml.safe_load((folder / "MLmodel").read_text())
    assert about["flavors"]["python_function"]["streamable"]
    needs = (folder / "requirements.txt").read_text().split()
    assert [line.partition("==")[0] for line in needs] == ["aunet-lightning", "mlflow", "numpy", "safetensors", "torch"]
    assert all("==" in line and "+" not in line for line in needs)
    assert about["model_size_bytes"] > (folder / "model" / "model.safetensors").stat().st_size
    assert not [*folder.rglob("*.pkl")]
    example = json.loads((folder / "serving_input_example.json").read_text())
    assert example["params"] == {"max_bytes": 50}


# Servers


@contextmanager
def served(command, log, **environment):
    """A server's port, once it answers."""
    scripts = sysconfig.get_path("scripts")  # of an environment that need not be activated: mlflow calls uvicorn
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *map(str, command), "--port", str(port)],
            env=os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"} | environment,
            stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 60
            while ask(port, "GET", "/ping")[0] != 200:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield port
        finally:
            with suppress(ProcessLookupError):  # it has ended
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(20)


def ask(port, method, path, body=None):
    """The status and the text of an answer; 0 of none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(
            method, path, None if body is None else json.dumps(body), {"content-type": "application/json"}
        )
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except ConnectionError:
        return 0, ""
    finally:
        connection.close()


def check_invocations(port, net):
    """What every server of a model answers."""
    expected = continued(net, PROMPTS, seed=4, max_bytes=30)
    body = {"dataframe_records": [{"prompt": prompt} for prompt in PROMPTS], "params": {"max_bytes": 30, "seed": 4}}
    status, text = ask(port, "POST", "/invocations", body)
    assert status == 200, text
    assert [one["text"] for one in json.loads(text)["predictions"]] == [decoded(one.text) for one in expected]
    status, text = ask(port, "POST", "/invocations", {"prompt": PROMPTS[0], "max_bytes": 30, "seed": 4})
    assert (status, json.loads(text)[0]["text"]) == (200, decoded(expected[0].text))
    status, text = ask(port, "POST", "/invocations", {"dataframe_records": [{"text": one} for one in TEXTS]})
    bits = [one.bits for one in score(net, net.reader, [one.encode() for one in TEXTS], row_ids=ROW)]
    assert [one["bits"] for one in json.loads(text)["predictions"]] == pytest.approx(bits, rel=1e-6)
    status, text = ask(port, "POST", "/invocations", {"prompt": "x", "top_p": 2.0})
    assert (status, "top_p is 2" in json.loads(text)["message"]) == (400, True)


@pytest.mark.slow
def test_mlflow_models_serve_answers_for_a_run_that_registered_its_model(here, net, checkpoint):
    """From a run to an answer: the model is found by its name in the registry."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    client = MlflowClient(uri)
    experiment = client.create_experiment("kept", (here / "artifacts").as_uri())
    run = client.create_run(experiment)
    log_model(checkpoint, run.info.run_id, experiment, uri, here, "kept")
    command = ["mlflow", "models", "serve", "-m", "models:/kept/1", "--env-manager", "local"]
    with served(command, here / "log", MLFLOW_TRACKING_URI=uri) as port:
        check_invocations(port, net)
        assert ask(port, "POST", "/stream", {"prompt": "x"})[0] == 404  # which `aunet serve` has


@pytest.mark.slow
def test_aunet_serve_answers_and_streams(tmp_path, net, checkpoint):
    with served(["aunet_lightning.cli.main", "serve", checkpoint], tmp_path / "log") as port:
        check_invocations(port, net)
        status, text = ask(port, "POST", "/stream", {"prompt": PROMPTS[1], "max_bytes": 60, "seed": 3})
        *events, done, after = text.split("\n\n")
        pieces = [json.loads(event.removeprefix("data: "))["text"] for event in events]
        assert (status, done, after) == (200, "data: [DONE]", "")
        assert "".join(pieces) == decoded(continued(net, [PROMPTS[1]], seed=3, max_bytes=60)[0].text)
        assert len(pieces) > 5
        for body, says in (
            ({"prompt": "x", "max_bytes": -1}, "max_bytes is -1"), ({"prompt": "x", "max": 3}, "max is unknown"),
            ({"prompt": "x", "text": "y"}, "both"), ({"text": "x"}, "prompt is missing"), (["x"], "prompt is missing"), ({"prompt": "x", "seed": "y"}, "'seed'"),
        ):  # fmt: skip
            status, text = ask(port, "POST", "/stream", body)
            assert (status, says in json.loads(text)["message"]) == (400, True), text


def test_what_cannot_be_served_is_told_in_a_sentence(here, monkeypatch, capsys):
    monkeypatch.setattr(mlflow, "set_tracking_uri", lambda _: None)  # of the whole process; `here` has set it
    for model in ("models:/none/1", "models:/m-none", "none.ckpt", "en.jsonl"):
        assert aunet("serve", model) == 1
        assert model in error_of(capsys)
    assert aunet("serve", "none.ckpt", "--port", "0") == 1
    assert "--port is 0" in error_of(capsys)


# Runs


def models_of(uri, folder):
    """The models of a run by step, and the run's status."""
    state = json.loads((folder / "mlflow.json").read_text())
    client = MlflowClient(uri)
    there = client.search_logged_models([state["experiment_id"]])
    run = client.get_run(state["run_id"])
    assert all(model.source_run_id == state["run_id"] and model.status == "READY" for model in there)
    return {int(model.params["step"]): model for model in there}, run


def test_a_finished_run_logs_its_best_weights_once(here, capsys):
    uri, client = os.environ["MLFLOW_TRACKING_URI"], MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    fit = ["fit", "-c", "tiny.yaml", "--run.folder", "r", "--trainer.max_steps", "4"]
    assert aunet(*fit) == 0
    assert models_of(uri, here / "r")[0] == {}  # not where it is not wanted
    assert aunet(*fit, "--run.log_model", "true") == 0
    (step,), run = (found := models_of(uri, here / "r"))[0], found[1]
    model = found[0][step]
    assert f"-m models:/{model.model_id} " in capsys.readouterr().out
    assert [(one.model_id, one.step) for one in run.outputs.model_outputs] == [(model.model_id, step)]
    assert run.info.status == "FINISHED"
    best = (here / "r" / "checkpoints" / "best.ckpt").resolve()
    assert best.name == f"step-{step:08}.ckpt"
    net = load(best)[0]
    served = mlflow.pyfunc.load_model(model.artifact_location).predict({"prompt": "the "}, params={"max_bytes": 20})
    assert served["text"][0] == decoded(continued(net, ["the "], max_bytes=20)[0].text)
    assert client.search_registered_models() == []
    for _ in range(2):  # the same command adds nothing
        assert aunet(*fit, "--run.log_model", "true", "--run.register_as", "a name") == 0
        assert models_of(uri, here / "r")[0].keys() == {step}
        (version,) = client.search_model_versions("name = 'a name'")
        assert (version.source, version.run_id, str(version.version)) == (model.artifact_location, run.info.run_id, "1")
        assert json.loads(client.get_logged_model(model.model_id).tags["mlflow.modelVersions"]) == [
            {"name": "a name", "version": 1}
        ]
    assert not [*(here / "r").glob("*.part")]


def test_a_better_checkpoint_replaces_the_model_unless_that_is_registered(here):
    uri = os.environ["MLFLOW_TRACKING_URI"]
    assert aunet("fit", "-c", "tiny.yaml", "--run.folder", "r", "--run.keep_last", "9") == 0
    state = json.loads((here / "r" / "mlflow.json").read_text())
    for step, name, left in ((2, None, {2}), (4, None, {4}), (4, "m", {4}), (6, "m", {4, 6}), (2, None, {2, 4, 6})):
        checkpoint = here / "r" / "checkpoints" / f"step-{step:08}.ckpt"
        log_model(checkpoint, state["run_id"], state["experiment_id"], uri, here / "r", name)
        assert models_of(uri, here / "r")[0].keys() == left
    versions = MlflowClient(uri).search_model_versions("name = 'm'")
    assert {str(version.version): version.source for version in versions} == {
        str(i): models_of(uri, here / "r")[0][step].artifact_location for i, step in ((1, 4), (2, 6))
    }


def test_what_a_killed_run_left_goes_and_a_users_own_model_stays(here, checkpoint):
    uri = os.environ["MLFLOW_TRACKING_URI"]
    client = MlflowClient(uri)
    experiment = client.create_experiment("e", (here / "artifacts").as_uri())
    run_id = client.create_run(experiment).info.run_id
    client.create_logged_model(experiment, "model", run_id, params={"step": "4"})  # pending
    own = client.create_logged_model(experiment, "own", run_id).model_id
    (here / "model.part").mkdir()
    (here / "model.part" / "half").touch()
    model = log_model(checkpoint, run_id, experiment, uri, here)
    assert {one.model_id for one in client.search_logged_models([experiment])} == {own, model}


@pytest.mark.parametrize("fails", ["store", "disk"])
def test_a_run_ends_well_whatever_becomes_of_its_model(here, monkeypatch, recwarn, fails):
    def fail(*_, **__):
        raise OSError(28, "No space left on device") if fails == "disk" else MlflowException("down")

    if fails == "store":
        monkeypatch.setattr(logged, "open_store", fail)
    else:
        monkeypatch.setattr(logged, "export_folder", fail)
    assert aunet("fit", "-c", "tiny.yaml", "--run.folder", "r", "--run.log_model", "true") == 0
    assert any("has not got the run's model" in str(warning.message) for warning in recwarn)
    found, run = models_of(os.environ["MLFLOW_TRACKING_URI"], here / "r")
    assert (found, run.info.status) == ({}, "FINISHED")
    assert not [*(here / "r").glob("*.part")]


def test_a_name_that_nothing_gets_is_told(here, recwarn):
    name = ["--run.log_model", "true", "--run.register_as", "m", "--trainer.logger", "false"]
    assert aunet("fit", "-c", "tiny.yaml", *name) == 0
    assert "run.register_as: the run has no MLflow run" in [str(warning.message) for warning in recwarn]


def test_a_model_is_logged_by_default_and_not_in_cells_of_a_study():
    assert RunConfig().log_model
    assert BESIDE["run"] == {"log_model": False}
