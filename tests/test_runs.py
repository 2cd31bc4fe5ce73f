"""Whole runs through the command line: they finish, continue, repeat, and say what is wrong with a wrong one."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mlflow.tracking import MlflowClient

import splitters
from aunet_lightning.effects import Effect
from aunet_lightning.reader.bpe import train_bpe
from aunet_lightning.training.definition import definition
from tests.helpers import ROOT, UDHR, assert_same, aunet, points
from tests.ranks import killed_at, ranks

pytestmark = pytest.mark.usefixtures("_in_place")


@pytest.fixture(scope="module")
def finished(place):
    """What a finished run printed, and its folder."""
    return aunet_process(place, "fit", "-c", "tiny.yaml"), next((place / "runs" / "tests").iterdir())


def aunet_process(place, *arguments, **options):
    command = [sys.executable, "-m", "aunet_lightning.cli.main", *arguments]
    environment = os.environ | {"AUNET_CACHE": str(place / "cache"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_run_shows_and_keeps_what_it_should(finished):
    shown, folder = finished
    assert re.search(r"^\(all\) +\d\.\d{3}", shown, re.M)
    assert "3-gram" in shown
    assert re.search(r"^Thai .*│", shown, re.M)
    assert "» All " in shown
    assert "make ui" in shown
    assert {p.name for p in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "step-00000040.ckpt"}
    logged = points(folder)
    steps = [step for step, key in logged if key == "train/bpb"]
    assert steps == list(range(40))
    assert logged[39, "train/bpb"] < logged[0, "train/bpb"] - 2
    documents = [json.loads(line) for line in (folder / "val_documents.jsonl").read_text().splitlines()]
    bits, n_bytes = (sum(line[key] for line in documents) for key in ("bits", "bytes"))
    assert bits / n_bytes == pytest.approx(logged[39, "val/bpb"], abs=1e-6)
    assert min(logged[step, "val/bpb"] for step in (19, 39)) == logged[39, "best/val_bpb"]


@pytest.mark.slow
def test_mlflow_has_the_run(finished, place):
    _, folder = finished
    known = json.loads((folder / "mlflow.json").read_text())
    client = MlflowClient(f"sqlite:///{place}/runs/mlflow.db")
    run = client.get_run(known["run_id"])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "whitespace-3stages-16-16-16-seed3"
    assert run.data.tags["splitter"] == "whitespace"
    assert re.match(r"[0-9a-f]{40}|unknown", run.data.tags["commit"])
    assert run.data.params["stages"] == "3"
    assert {"splitter", "languages", "widths", "parameters", "lr", "seed"} <= run.data.params.keys()
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    for key, value in definition(settings, Effect.LENGTH).items():  # all that is not a default
        shown = re.sub(r"\[(\d+)\]", r".\1", key)
        names = {shown, shown.partition(".")[0], shown.rpartition(".")[2]}
        assert names & run.data.params.keys(), key
        assert run.data.params.get(shown, str(value)) == str(value)
    by_stage = {f"val_stage{s}" for s in (2, 3)}
    sections = {"train", "val", "perf", "best", "data", "cost", "bytes_seen", "flops", "generated", *by_stage}
    assert {key.split("/")[0] for key in run.data.metrics} - {"system"} == sections
    history = [(m.step, m.value) for m in client.get_metric_history(known["run_id"], "train/bpb")]
    assert history == [(s, v) for (s, key), v in points(folder).items() if key == "train/bpb"]
    artifacts = {artifact.path for artifact in client.list_artifacts(known["run_id"])}
    assert {"config.yaml", "val_bpb.md", "val_bpb.csv", "boundaries.html", "samples.txt"} <= artifacts


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_very_same_losses(finished, place):
    _, straight = finished
    arguments = ["fit", "-c", "tiny.yaml", "--run.folder", "killed"]
    for step in (9, 25):  # checkpoints are at 7, 14, 21, …; an epoch has 17 batches
        killed_at(step, place, arguments)
    ranks(1, place, *arguments)
    assert_same(straight, place / "killed")


@pytest.mark.slow
def test_epochs_read_every_byte_once_each(place):
    options = [
        "--trainer.max_steps",
        "-1",
        "--trainer.max_epochs",
        "3",
        "--data.batch_rows",
        "48",
        "--run.folder",
        "epochs",
    ]
    assert aunet("fit", "-c", "tiny.yaml", *options) == 0
    logged = points(place / "epochs")
    texts = [json.loads(line)["text"] for name in ("en", "th") for line in (UDHR / f"{name}.jsonl").open()]
    trained = sum(len(text.encode()) for i, text in enumerate(texts) if i % 31 % 10 != 9)
    seen = [value for (_, key), value in logged.items() if key == "bytes_seen"]
    assert seen[-1] == 3 * trained


@pytest.mark.slow
def test_two_devices_learn_what_one_does(finished, place):
    """One command, whose further processes Lightning starts."""
    devices = ["--trainer.devices", "2", "--trainer.strategy", "fsdp2", "--run.folder", "two"]
    aunet_process(place, "fit", "-c", "tiny.yaml", "--report.sample_prompts", "[]", *devices, timeout=300)
    expected, got = points(finished[1]), points(place / "two")
    assert got.keys() == expected.keys()
    for key in expected:
        assert got[key] == pytest.approx(expected[key], rel=2e-4), key


@pytest.mark.slow
def test_the_printed_configuration_repeats_the_run(finished, place, capsys):
    _, folder = finished
    aunet("fit", "-c", "tiny.yaml", "--print_config")
    (place / "printed.yaml").write_text(capsys.readouterr().out)
    assert aunet("fit", "-c", "printed.yaml", "--run.folder", "again") == 0
    again, first = points(place / "again"), points(folder)
    assert again == first
    capsys.readouterr()
    assert aunet("fit", "-c", folder / "config.yaml") == 0  # the same run: it is finished, and nothing is trained
    shown = capsys.readouterr().out
    assert "finished before, at step 40" in shown
    assert "| (all) |" in shown
    assert points(folder) == first


@pytest.mark.slow
def test_validate_test_predict_and_generate_take_the_checkpoint(finished, capsys):
    _, folder = finished
    checkpoint = folder / "checkpoints" / "best.ckpt"
    logged = points(folder)
    assert aunet("validate", "--ckpt_path", checkpoint) == 0
    shown = capsys.readouterr().out
    best = logged[39, "best/val_bpb"]
    assert f"{best:.3f}" in shown
    assert aunet("validate", "-c", "tiny.yaml") == 0  # finds the run's own
    assert f"{best:.3f}" in capsys.readouterr().out
    assert aunet("test", "--ckpt_path", checkpoint) == 0
    assert f"{best:.3f}" in capsys.readouterr().out

    assert aunet("predict", "--ckpt_path", checkpoint) == 0
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert {line["lang"] for line in lines} == {"en", "th"}
    assert len(lines) == 6
    assert all(line["positions"][0] == line["bytes"] > line["positions"][1] for line in lines)
    assert sum(line["bits"] for line in lines) / sum(line["bytes"] for line in lines) == pytest.approx(best, abs=1e-3)

    assert aunet("generate", checkpoint, "--prompt", "All ", "--bytes", "12") == 0
    assert "All " in [line[:4] for line in capsys.readouterr().out.splitlines()]  # what follows may have lines


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--splitter", "cjk_character"],
        ["--splitter", "{name: fixed, n: 6, of: characters}", "--upper_splitters", "[{name: every, n: 3}]"],
        ["--splitter", "tests.test_registry:EveryVowel"],
        ["--splitter", r"{name: cap, of: {name: pattern, patterns: ['\S+\s', '[。，]']}, max_bytes: 20}"],
        ["--splitter", "{name: union, of: [trie, sentence_end]}"],
        ["--splitter", "null", "--upper_splitters", "[]", "--model.net.stages", "[{dim: 16, layers: 2, head_dim: 8, window: 32}]"],
        ["--trainer.precision", "bf16-mixed"],
        ["--trainer.precision", "bf16-true", "--model.net.upsampling", "repeat"],
        ["--model.net.stages", "[{dim: 16, layers: 1, head_dim: 8}, {dim: 16, layers: 1, head_dim: 8, max_units: 5}, {dim: 16, layers: 1, head_dim: 8}]"],
    ],
    ids=str,
)  # fmt: skip
def test_another_run_is_an_option_away(options, place):
    code = aunet(
        "fit",
        "-c",
        "tiny.yaml",
        "--trainer.max_steps",
        4,
        "--trainer.val_check_interval",
        2,
        "--report.ngrams",
        "[]",
        *options,
    )
    assert code == 0
    folder = max((place / "runs" / "tests").iterdir(), key=lambda f: f.stat().st_mtime)
    logged = points(folder)
    assert math.isfinite(logged[3, "val/bpb"])
    if "max_units" in str(options):
        assert logged[3, "train/dropped_stage2"] > 0


def test_another_definition_does_not_go_on_with_a_run(finished, capsys):
    _, folder = finished
    assert aunet("fit", "-c", "tiny.yaml", "--splitter", "fixed", "--run.folder", folder) == 1
    assert "holds another run; it differs in splitter (there 'whitespace', here 'fixed')" in capsys.readouterr().err


def test_a_run_does_not_go_on_with_a_vocabulary_that_changed(place, capsys):
    path = place / "vocabulary.json"
    command = [
        "fit",
        "-c",
        "tiny.yaml",
        "--splitter",
        f"{{name: trie, vocabulary: {path}}}",
        "--run.folder",
        "vocabulary",
    ]
    command += ["--report.ngrams", "[]", "--trainer.val_check_interval", "2"]
    path.write_bytes(train_bpe([(UDHR / "en.jsonl").read_bytes()], 300).encode())
    assert aunet(*command, "--trainer.max_steps", "2") == 0
    assert aunet(*command, "--trainer.max_steps", "4") == 0
    path.write_bytes(train_bpe([(UDHR / "th.jsonl").read_bytes()], 300).encode())
    capsys.readouterr()
    assert aunet(*command, "--trainer.max_steps", "6") == 1
    assert "no longer places the boundaries that the checkpoint was trained with" in capsys.readouterr().err


def test_a_checkpoint_of_another_network_is_refused(finished, capsys):
    _, folder = finished
    code = aunet(
        "validate",
        "-c",
        "tiny.yaml",
        "--model.net.upsampling",
        "repeat",
        "--ckpt_path",
        folder / "checkpoints/best.ckpt",
    )
    assert code == 1
    assert "network differs in upsampling (there multi_linear, here repeat)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["fit", "-c", "tiny.yaml", "--model.net.upsampeling", "repeat"],
            ["upsampeling", "Did you mean model.net.upsampling"],
        ),
        (
            ["fit", "-c", "tiny.yaml", "--model.net.upsampling", "linear"],
            ["model.net.upsampling", "multi_linear", "linear"],
        ),
        (
            ["fit", "-c", "tiny.yaml", "--splitter", "whitespac"],
            ["whitespac", "cjk_character", "Did you mean 'whitespace'"],
        ),
        (["fit", "-c", "tiny.yaml", "--splitter", "{name: fixed, m: 2}"], ["fixed", "'m'", "n: int"]),
        (["fit", "-c", "gone.yaml"], ["gone.yaml", "does not exist"]),
        (["fit", "-c", "tiny.yaml", "--data.train_files", "[gone/*.jsonl]"], ["data.train_files", "gone/*.jsonl"]),
        (["fit", "-c", "tiny.yaml", "--upper_splitters", "[]"], ["3 stages", "2 splitters", "upper_splitters"]),
        (["fit", "-c", "tiny.yaml", "--splitter", "null", "--upper_splitters", "[]"], ["splitter is null"]),
        (["fit", "-c", "tiny.yaml", "--data.row_bytes", "many"], ["data.row_bytes", "whole number", "many"]),
        (["fit", "-c", "tiny.yaml", "--model.net.stages", "[{dim: 15, layers: 1}]"], ["head_dim", "15"]),
        (["fit", "-c", "tiny.yaml", "--trainer.max_steps", "-1"], ["trainer.max_steps", "max_epochs"]),
        (["fit", "-c", "tiny.yaml", "--run.tracking_uri", "http://127.0.0.1:9"], ["run.tracking_uri", "127.0.0.1:9"]),
        (["fit", "-c", "tiny.yaml", "--trainer.strategy", "nope"], ["strategy", "nope"]),
        (["fit", "-c", "tiny.yaml", "--report.ngrams", "[9]"], ["report.ngrams", "9", "at most 7"]),
        (["fit", "-c", "tiny.yaml", "--run.checkpoint_every", "-5"], ["run.checkpoint_every", "-5"]),
        (["fit", "-c", "tiny.yaml", "--trainer.devices", "3"], ["data.batch_rows", "16", "3"]),
        (["fit", "-c", "tiny.yaml", "--data.languages", "th"], ["data.languages", "th", "list"]),
        (["fit", "-c", "tiny.yaml", "--trainer.precision", "fp16"], ["trainer.precision", "fp16", "bf16-mixed"]),
        (["validate", "--ckpt_path", "tiny.yaml"], ["tiny.yaml", "not a checkpoint"]),
        (["split", "a", "--splitter", "{name: ["], ["--splitter", "{name: ["]),
        (["generate", "tiny.yaml"], ["tiny.yaml", "not a checkpoint"]),
        (["fit"], ["model.net.stages", "-c"]),
        (["fot"], ["fot", "validate"]),
        (["validate", "--ckpt_path", "gone.ckpt"], ["gone.ckpt"]),
        (["validate", "-c", "tiny.yaml", "--seed_everything", "77"], ["no checkpoint", "aunet fit"]),
        (["generate", "gone.ckpt"], ["gone.ckpt"]),
        (["split", "a", "--splitter", "nope"], ["nope", "whitespace"]),
    ],
    ids=lambda value: " ".join(map(str, value))[:60],
)
def test_a_mistake_gets_one_sentence(arguments, words, capsys):
    assert aunet(*arguments) in (1, 2)
    errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert all(word in errors[0] for word in words), errors[0]
    assert "Traceback" not in errors[0]


def test_an_unknown_key_in_a_file_is_named(place, capsys):
    (place / "wrong.yaml").write_text((place / "tiny.yaml").read_text().replace("head_dim", "headdim"))
    assert aunet("fit", "-c", "wrong.yaml") == 2
    assert "Did you mean head_dim?" in capsys.readouterr().err


HEAVY = "{'torch', 'numpy', 'lightning', 'mlflow', 'scipy.signal', 'sqlalchemy'} & set(sys.modules)"


@pytest.mark.parametrize(
    ("arguments", "loaded"),
    [
        (["--help"], []),
        (["-h"], []),
        (["--version"], []),
        (["frobnicate"], []),
        (["splitters"], ["numpy"]),
        (["fit", "--help"], ["numpy", "torch", "lightning", "sqlalchemy"]),  # MLflow when a store is opened
    ],
    ids=["help", "h", "version", "unknown", "splitters", "fit"],
)
def test_a_command_loads_what_it_needs(arguments, loaded):
    code = (
        "import contextlib, sys\nfrom aunet_lightning.cli.main import main\n"
        f"with contextlib.suppress(SystemExit):\n    main({arguments})\nprint(*{HEAVY})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert {*done.stdout.splitlines()[-1].split()} <= {*loaded}


def test_scipy_is_whole_for_whoever_imports_it_later():
    code = (
        "from aunet_lightning.loading import load_torchmetrics\nload_torchmetrics()\n"
        "import sys\nassert 'scipy.signal' not in sys.modules\n"
        "import scipy.signal\nprint(scipy.signal.lfilter, scipy.signal.windows.hamming)"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT)


def test_split_shows_the_boundaries_of_the_whole_text(capsys):
    assert aunet("split", "ab\nabcdefg\n", "--splitter", "{name: fixed, n: 4}") == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["ab⏎", "│abcd│efg⏎"]


def test_split_and_splitters_show(capsys):
    assert aunet("split", "Hello, 世界", "--splitter", "cjk_character", "--upper_splitters", "every") == 0
    assert capsys.readouterr().out.startswith("Hello│,║ │世║界")
    assert aunet("splitters") == 0
    shown = capsys.readouterr().out
    for name in splitters.available():
        assert re.search(rf"^{name}(\(.*\))?\n    A?.{{20,140}}\n    source: .", shown, re.M), name
    assert "fixed(n=4, of='bytes', closes='full', align='last')" in shown


def test_the_quickstart_reads_as_it_should():
    settings = yaml.safe_load((ROOT / "experiments" / "quickstart.yaml").read_text())
    assert settings["trainer"]["deterministic"] is True
    assert len(settings["model"]["net"]["stages"]) == 3
    for pattern in settings["data"]["train_files"]:
        assert len(list(ROOT.glob(pattern))) == 24


@pytest.mark.gpu
def test_a_run_on_a_gpu(place):
    aunet_process(place, "fit", "-c", "tiny.yaml", "--trainer.accelerator", "gpu", "--trainer.precision", "bf16-mixed",
                  "--trainer.deterministic", "false", "--run.folder", str(Path("gpu")))  # fmt: skip
