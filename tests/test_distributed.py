"""Several processes give the numbers of one, and lose nothing when some of them die."""

import json
import re
import shutil
import signal

import pytest
import torch
import yaml

from aunet_lightning.checkpoints.forms import read
from aunet_lightning.cli.main import main
from aunet_lightning.paths import PART
from tests.helpers import SETTINGS, place_store, points
from tests.ranks import Ranks, logged, ranks, until

pytestmark = pytest.mark.slow
STEPS = 12
SHORT = ["fit", "-c", "tiny.yaml", "--trainer.max_steps", STEPS, "--trainer.val_check_interval", 6, "--run.checkpoint_every", 3,
         "--report.ngrams", "[]", "--report.page", "false", "--report.sample_prompts", "[]", "--report.generated_bytes", 0]  # fmt: skip
REPORTS = ["--report.page", "true", "--report.sample_prompts", "[All ]", "--report.generated_bytes", 8]
KINDS = {
    "rule": [],
    "router": ["--splitter", "{name: router, bytes_per_unit: 4}"],
    "muon": ["--model.optimizer.name", "muon", "--model.optimizer.matrix_every", 2, "--model.optimizer.cooldown", "0.3",
             "--model.net.embedding", "ngrams", "--model.net.ngram_rows", "50", "--model.net.qk_norm", "true"],
    "languages": ["--splitter", "{name: router, bytes_per_unit: {th: 6, en: 4}, one_sided: true, bytes_per_unit_from: 3, "
                                "target_steps: 9}", *REPORTS],
    "refresh": ["--splitter", "{name: refresh, of: whitespace, by: {name: fixed, n: 3}}", *REPORTS],
    "accumulated": ["--splitter", "{name: distilled, teacher: whitespace}", "--trainer.accumulate_grad_batches", 2],
}  # fmt: skip
TRADED = ["--model.parallel.activation_checkpointing", "true", "--model.parallel.wrap", "[stage, block, stage]",
          "--model.parallel.reshard_after_forward", "[true, false, true]", "--model.parallel.cpu_offload", "true",
          "--model.parallel.shard_size", "2"]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory, store_template):
    folder = tmp_path_factory.mktemp("ranks")
    place_store(store_template, folder / "runs" / "mlflow.db")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(SETTINGS, sort_keys=False))
    return folder


@pytest.fixture(autouse=True)
def _here(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}/runs/mlflow.db")  # MLflow keeps stores by name
    monkeypatch.setenv("AUNET_CACHE", str(place / "cache"))


@pytest.fixture(scope="module")
def one(place):
    """Folders of single-process runs, made on demand."""
    made = {}

    def of(kind):
        if kind not in made:
            ranks(1, place, *SHORT, *KINDS[kind], "--run.folder", f"{kind}-one", "--run.keep_last", 9)
            made[kind] = place / f"{kind}-one"
        return made[kind]

    return of


@pytest.fixture(scope="module")
def four(place):
    """The folder of a run of four processes with every checkpoint, sharded."""
    ranks(4, place, *SHORT, "--trainer.strategy", "fsdp2", "--run.folder", "four", "--run.keep_last", 9)
    return place / "four"


def assert_equal(expected, got, since=0, rel=1e-5):
    expected, got = ({key: v for key, v in points(f).items() if key[0] >= since} for f in (expected, got))
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        difference = "surprisal" in key[1]  # of two means of bits
        assert got[key] == pytest.approx(value, rel=rel, abs=rel if difference else 1e-9), key


@pytest.mark.parametrize(
    ("kind", "n", "strategy", "options"),
    [
        ("rule", 4, "fsdp2", TRADED),
        ("rule", 4, "ddp", []),
        ("router", 2, "fsdp2", []),
        ("refresh", 2, "fsdp2", []),
        ("router", 2, "ddp", []),
        *(("muon", n, strategy, []) for n in (2, 4) for strategy in ("ddp", "fsdp2")),
        ("languages", 2, "ddp", []),
        ("accumulated", 2, "fsdp2", ["--model.parallel.activation_checkpointing", "[true, false, true]"]),
        ("accumulated", 2, "ddp", []),
    ],
    ids=lambda value: str(value)[:12],
)
def test_many_processes_learn_what_one_does(kind, n, strategy, options, one, place):
    folder = f"{kind}-{strategy}-{n}"
    ranks(n, place, *SHORT, *KINDS[kind], *options, "--trainer.strategy", strategy, "--run.folder", folder)
    # Muon divides by small singular values, and enlarges differences of rounding.
    assert_equal(one(kind), place / folder, rel=1e-4 if kind == "muon" else 1e-5)


def test_four_processes_learn_what_one_does(one, four):
    assert_equal(one("rule"), four)
    names = sorted(path.name for path in (four / "checkpoints").iterdir())
    assert names == ["best.ckpt", "last.ckpt", *(f"step-{step:08}.ckpt" for step in (3, 6, 9, 12))]
    assert (four / "checkpoints" / "last.ckpt").resolve().name == "step-00000012.ckpt"
    shards = {path.name for path in (four / "checkpoints" / "last.ckpt").iterdir()}
    assert shards == {".metadata", "meta.pt", *(f"__{rank}_0.distcp" for rank in range(4))}


def begun(source, target, step):
    """Makes a run folder that holds a run up to a step."""
    shutil.rmtree(target, ignore_errors=True)
    (target / "checkpoints").mkdir(parents=True)
    shutil.copy(source / "config.yaml", target)
    checkpoint = source / "checkpoints" / f"step-{step:08}.ckpt"
    (shutil.copytree if checkpoint.is_dir() else shutil.copy)(checkpoint, target / "checkpoints" / checkpoint.name)
    return target


@pytest.mark.parametrize(("n", "strategy"), [(8, "fsdp2"), (2, "fsdp2"), (1, "fsdp2"), (1, "auto"), (2, "ddp")])
def test_a_sharded_checkpoint_resumes_anywhere(n, strategy, four, place):
    folder = begun(four, place / f"on-{strategy}-{n}", 9)
    shown = ranks(n, place, *SHORT, "--trainer.strategy", strategy, "--run.folder", folder)
    assert "sums are made in another order" in shown
    assert_equal(four, folder, since=9)


@pytest.mark.parametrize(("kind", "step"), [("router", 6), ("muon", 9)])
def test_a_single_file_resumes_sharded(kind, step, one, place):
    """Of muon at an odd step, where its matrices wait for the next one."""
    folder = begun(one(kind), place / f"from-one-{kind}", step)
    options = ["--trainer.strategy", "fsdp2", "--run.folder", folder]
    ranks(2, place, *SHORT, *KINDS[kind], *options)
    assert_equal(one(kind), folder, since=step, rel=1e-4 if kind == "muon" else 1e-5)


def test_one_file_from_sharded_training(one, place):
    strategy = "{class_path: aunet_lightning.distributed.strategy.FSDP2Strategy, init_args: {save_distributed_checkpoint: false}}"
    ranks(2, place, *SHORT, "--trainer.strategy", strategy, "--run.folder", "one-file", "--run.keep_last", 9)
    mine, theirs = (read(f / "checkpoints" / "last.ckpt") for f in (place / "one-file", one("rule")))
    assert mine["state_dict"].keys() == theirs["state_dict"].keys()
    for name, tensor in theirs["state_dict"].items():
        assert torch.allclose(mine["state_dict"][name], tensor, rtol=1e-3, atol=1e-5)
    state, same = mine["optimizer_states"][0], theirs["optimizer_states"][0]
    assert [group["params"] for group in state["param_groups"]] == [group["params"] for group in same["param_groups"]]
    folder = begun(place / "one-file", place / "from-one-file", 6)
    ranks(1, place, *SHORT, "--run.folder", folder)
    assert_equal(one("rule"), folder, since=6)


def test_every_form_of_a_checkpoint_works(four, place, capsys):
    folder = four / "checkpoints" / "best.ckpt"
    best = min(value for (_, key), value in points(four).items() if key == "val/bpb")
    assert main(["export", str(folder), "--out", "best.safetensors"]) == 0
    assert "parameters" in capsys.readouterr().out
    texts = set()
    for checkpoint in (folder, "best.safetensors"):
        assert main(["generate", str(checkpoint), "--prompt", "All ", "--bytes", "20", "--temperature", "0"]) == 0
        texts.add(capsys.readouterr().out)
        assert main(["validate", "-c", str(four / "config.yaml"), "--trainer.devices", "1", "--trainer.strategy", "auto",
                     "--ckpt_path", str(checkpoint)]) == 0  # fmt: skip
        assert f"{best:.3f}" in capsys.readouterr().out
    assert len(texts) == 1
    options = ["--trainer.strategy", "fsdp2", "--ckpt_path", "best.safetensors"]
    assert f"{best:.3f}" in ranks(2, place, "validate", "-c", four / "config.yaml", *options)


@pytest.mark.parametrize("strategy", ["fsdp2", "ddp"])
def test_a_run_whose_processes_are_killed_loses_nothing(strategy, place):
    command = [*SHORT, "--trainer.strategy", strategy, "--run.rank_timeout", "3"]
    straight, killed = place / f"straight-{strategy}", place / f"killed-{strategy}"
    ranks(2, place, *command, "--run.folder", straight)
    moments = [  # of the second strategy, the first two
        logged(killed, 1),  # before any checkpoint
        lambda: list((killed / "checkpoints").glob(f"step-00000003.ckpt{PART}")),  # while it is written
        lambda: list((killed / "checkpoints").glob(f"step-00000006.ckpt{PART}")),
        logged(killed, 9),
    ][: 4 if strategy == "fsdp2" else 2]
    for i, moment in enumerate(moments):
        run = Ranks(2, place, *command, "--run.folder", killed)
        until(moment, run)
        if i % 2:
            run.kill_all()
        else:
            run.kill(i // 2)
            assert any(code == 1 for code in run.wait(40)), "the other process waits for the dead one"
            assert f"rank {i // 2}" in run.output(1 - i // 2).rpartition("aunet: error:")[2]
    ranks(2, place, *command, "--run.folder", killed)
    assert_equal(straight, killed, rel=0)
    a, b = (read(f / "checkpoints" / "last.ckpt")["state_dict"] for f in (straight, killed))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not list((killed / "checkpoints").glob(f"*{PART}"))


def test_a_signal_to_one_process_saves_and_ends_all(one, place, tmp_path):
    """As under SLURM: its tasks, a signal some time before the limit, and the requeue."""
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho $@ >> {tmp_path}/asked\n")
    (tmp_path / "scontrol").chmod(0o755)
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    folder = place / "signals"
    command = [*SHORT, "--trainer.strategy", "fsdp2", "--run.folder", folder]
    for step, number, rank in ((1, signal.SIGTERM, 1), (5, signal.SIGUSR1, 0)):
        run = Ranks(2, place, *command, env=path, slurm=True)
        until(logged(folder, step), run)
        run.kill(rank, number)
        assert run.wait(60) == [128 + number] * 2, run.output()
        assert f"stopped by {number.name} after step" in run.output()
        newest = max((folder / "checkpoints").glob("step-*.ckpt"))
        assert int(newest.stem[5:]) > step
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"
    ranks(2, place, *command)
    assert_equal(one("rule"), folder)


@pytest.mark.parametrize("strategy", ["fsdp2", "ddp"])
def test_a_full_disk_costs_checkpoints_and_not_the_run(strategy, one, place):
    folder = place / f"full-{strategy}"
    command = [*SHORT, "--trainer.strategy", strategy, "--run.folder", folder]
    ranks(2, place, *command, code=1, env={"AUNET_TEST_LIMIT": f"{folder}/metrics.jsonl 4 20000"})
    out = (place / "out-0.txt").read_text()
    assert re.search(r"the checkpoint \S+step-00000006.ckpt could not be written \(.*\): the run continues", out)
    assert re.search(r"error: training is done, but the checkpoint \S+step-00000012.ckpt could not be written", out)
    assert "error:" not in (place / "out-1.txt").read_text()  # an error of all devices is reported once
    assert [path.name for path in (folder / "checkpoints").iterdir()].count("step-00000003.ckpt") == 1
    assert not list((folder / "checkpoints").glob(f"*{PART}"))
    # The metrics that could be written are right, and the next run writes the rest.
    ranks(2, place, *command)
    assert_equal(one("rule"), folder)


def test_mlflow_has_one_run_of_it(four, place):
    from mlflow.tracking import MlflowClient

    known = json.loads((four / "mlflow.json").read_text())
    client = MlflowClient(f"sqlite:///{place}/runs/mlflow.db")
    assert client.get_run(known["run_id"]).info.status == "FINISHED"
    steps = [metric.step for metric in client.get_metric_history(known["run_id"], "train/bpb")]
    assert steps == list(range(STEPS))
