"""What ends a run, and what a run says before it begins: signals, full disks, memory, wrong settings."""

import errno
import gc
import json
import math
import os
import re
import shutil
import signal
import time

import pytest
import torch

from aunet_lightning.cli.main import main
from aunet_lightning.training.module import AUNetModule
from aunet_lightning.training.stopping import VOTES, Stopped
from tests.helpers import ROOT, error_of, fit, points, sentences, write
from tests.ranks import Ranks, logged, until

pytestmark = pytest.mark.usefixtures("here")


def status_of(folder):
    from mlflow.tracking import MlflowClient

    known = json.loads((folder / "mlflow.json").read_text())
    return MlflowClient(os.environ["MLFLOW_TRACKING_URI"]).get_run(known["run_id"]).info.status


@pytest.mark.slow
def test_ctrl_c_saves_and_a_second_command_meanwhile_is_refused(here, capsys):
    """Ctrl-C reaches all processes of a terminal, those that read data too."""
    long = [
        "--trainer.max_steps",
        "100000",
        "--data.workers",
        "1",
        "--run.folder",
        "x",
        "--run.checkpoint_every",
        "9999",
    ]
    run = Ranks(1, here, "fit", "-c", "tiny.yaml", *long, session=True)
    pid = run.processes[0].pid
    try:
        until(logged(here / "x", 20), run)
        assert fit(*long) == 1
        assert f"x is being trained by process {pid}" in error_of(capsys)
        os.killpg(pid, signal.SIGINT)
    finally:
        (code,) = run.wait(60)
    shown = run.output()
    assert code == 130, shown
    step = int(re.search(r"stopped by SIGINT after step (\d+), which is saved: the same command continues", shown)[1])
    assert (here / "x" / "checkpoints" / "last.ckpt").resolve().name == f"step-{step:08}.ckpt"
    assert "Traceback" not in shown
    assert status_of(here / "x") == "KILLED"
    assert fit("--trainer.max_steps", step + 2, "--run.folder", "x") == 0
    assert {at for at, key in points(here / "x") if key == "train/bpb"} == set(range(step + 2))


def test_a_stop_inside_a_validation_moves_no_step(here, monkeypatch):
    """Where nothing was saved in that step before."""
    usual = AUNetModule.validation_step

    def told(self, batch, index):
        if self.global_step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return usual(self, batch, index)

    rare = ["--run.checkpoint_every", 9999]
    assert fit("--run.folder", "straight", *rare) == 0
    with monkeypatch.context() as patch:
        patch.setattr(AUNetModule, "validation_step", told)
        assert fit("--run.folder", "x", *rare) == 130
    assert fit("--run.folder", "x", *rare) == 0
    assert points(here / "x") == points(here / "straight")


def test_a_signal_while_samples_are_made_ends_the_run(here, monkeypatch, capsys):
    from aunet_lightning.reports import run_report

    def generate(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr(run_report, "generate", generate)
    assert fit("--run.folder", "x", "--report.sample_prompts", "[a]") == 128 + signal.SIGTERM
    assert "stopped by SIGTERM: the same command continues" in capsys.readouterr().out
    assert (here / "x" / "checkpoints" / "last.ckpt").exists()
    assert status_of(here / "x") == "KILLED"


def state_of(folder, capsys):
    """As `aunet runs` shows it where it can ask no store."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI")
        patch.setattr("aunet_lightning.cli.runs.known_runs", lambda store: {})
        assert main(["runs", str(folder)]) == 0
    return capsys.readouterr().out.splitlines()[1].split()[0]


def test_an_error_is_in_the_folder_until_the_run_continues(here, monkeypatch, capsys):
    usual = AUNetModule.training_step

    def ends(error):
        def step(self, batch, index):
            if self.global_step == 3:
                raise error
            return usual(self, batch, index)

        return step

    for error, code, state in ((Stopped(signal.SIGTERM), 143, "stopped"), (RuntimeError("flat\ntyre"), 1, "failed")):
        monkeypatch.setattr(AUNetModule, "training_step", ends(error))
        assert fit("--run.folder", "x") == code
        assert state_of(here / "x", capsys) == state
    assert (here / "x" / "failed").read_text() == "RuntimeError: flat\n"
    assert fit("--run.folder", "x", command="validate") == 0
    assert state_of(here / "x", capsys) == "failed"
    monkeypatch.setattr(AUNetModule, "training_step", usual)
    assert fit("--run.folder", "x") == 0
    assert state_of(here / "x", capsys) == "finished"


def test_what_is_left_of_a_failed_run_leaves_the_next_ones_handlers(here, monkeypatch):
    usual, seen = AUNetModule.training_step, []

    def failing(self, batch, index):
        raise RuntimeError("flat")

    def collecting(self, batch, index):
        seen.append([signal.getsignal(number) for number in VOTES])
        gc.collect()
        seen.append([signal.getsignal(number) for number in VOTES])
        return usual(self, batch, index)

    for step, code in ((failing, 1), (collecting, 0)):
        monkeypatch.setattr(AUNetModule, "training_step", step)
        assert fit("--run.folder", "x") == code
    assert seen == seen[:1] * 12


def test_the_page_of_a_stopped_run_says_how_far_it_came(here, monkeypatch):
    usual = AUNetModule.training_step

    def told(self, batch, index):
        if self.global_step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return usual(self, batch, index)

    monkeypatch.setattr(AUNetModule, "training_step", told)
    assert fit("--run.folder", "x", "--report.page", "true", "--trainer.log_every_n_steps", 3) == 130
    assert (here / "x" / "checkpoints" / "last.ckpt").resolve().name == "step-00000005.ckpt"
    assert max(step for step, _ in points(here / "x")) < 4
    assert "Stopped at step 5 of 6 (" in (here / "x" / "report.html").read_text()


def test_a_last_save_that_fails_ends_with_an_error(here, monkeypatch, capsys):
    """And says of a full disk that it is full, and names what is there."""
    usual = torch.save

    def save(checkpoint, file, *arguments):
        if checkpoint.get("global_step") == 6:
            raise RuntimeError("PytorchStreamWriter failed writing file") from OSError(
                errno.ENOSPC, "No space left on device"
            )
        usual(checkpoint, file, *arguments)

    monkeypatch.setattr(torch, "save", save)
    with pytest.warns(UserWarning, match="could not be written"):
        assert fit("--run.folder", "x", "--run.keep_best", 0) == 1
    error = error_of(capsys)
    assert "x/checkpoints/step-00000006.ckpt could not be written (no space left on the disk)" in error
    assert "the newest checkpoint is x/checkpoints/step-00000004.ckpt" in error
    assert status_of(here / "x") == "FAILED"
    assert state_of(here / "x", capsys) == "failed"


def test_a_run_that_cannot_fit_is_refused_before_it_begins(here, monkeypatch, capsys):
    shutil.rmtree(here / "runs")
    monkeypatch.setattr("aunet_lightning.training.expectation.host_memory", lambda: 1e5)
    assert fit("--run.folder", "x") == 1
    assert "the run does not fit: training takes about 0.0 GB" in error_of(capsys)
    assert not (here / "x").exists()
    assert not (here / "runs").exists()  # and nothing stands as running in MLflow
    assert fit("--run.folder", "x", "--run.check_memory", "false") == 0


@pytest.mark.parametrize(
    "options",
    [
        {"max_steps": -1, "max_epochs": 2, "limit_train_batches": 5},
        {"max_steps": -1, "max_epochs": 3, "limit_train_batches": 0.5, "accumulate_grad_batches": 3},
        {"max_steps": -1, "max_epochs": 2, "overfit_batches": 3},
        {"max_steps": 100, "max_epochs": 1, "limit_train_batches": 7, "accumulate_grad_batches": 2},
        {"max_steps": 4, "max_epochs": 9},
    ],
    ids=str,
)
def test_the_cosine_ends_with_the_run(options, here):
    given = [part for key, value in options.items() for part in (f"--trainer.{key}", value)]
    assert fit("--run.folder", "x", *given, "--trainer.limit_val_batches", 0) == 0
    rates = {step: value for (step, key), value in points(here / "x").items() if key == "train/lr"}
    last = max(rates)
    total = last + 1
    expected = 0.1 + 0.9 * (1 + math.cos(math.pi * (last - 2) / (total - 2))) / 2
    assert rates[last] == pytest.approx(0.003 * expected, rel=1e-5)


def test_held_out_text_that_is_never_used_is_told(here):
    with pytest.warns(UserWarning, match=r"before its first validation \(after 50\), so the 10 held-out documents"):
        assert fit("--run.folder", "x", "--trainer.val_check_interval", 50) == 0
    with pytest.warns(UserWarning, match="held-out documents are never used"):
        assert (
            fit("--run.folder", "y", "--trainer.val_check_interval", "1.0", "--trainer.check_val_every_n_epoch", 1) == 0
        )


def test_a_documents_score_depends_on_its_neighbours_only_where_that_is_said(here, capsys):
    assert fit("--run.folder", "x") == 0
    texts = sentences(7, 6)
    found = []
    for order in (texts, texts[::-1]):
        write(here / "test.jsonl", [{"text": text, "id": text} for text in order])
        capsys.readouterr()
        assert fit("--run.folder", "x", "--data.test_files", "[test.jsonl]", command="predict") == 0
        assert "document_masking is off" not in capsys.readouterr().out
        lines = [json.loads(line) for line in (here / "x" / "predictions.jsonl").read_text().splitlines()]
        found.append({line["id"]: line["bits"] for line in lines})
    assert found[0] == pytest.approx(found[1], abs=2e-3)
    assert fit("--run.folder", "y", "--model.net.document_masking", "false") == 0
    assert fit("--run.folder", "y", command="predict") == 0
    assert "document_masking is off: a document's bits depend on those before it" in capsys.readouterr().out


def test_a_fault_of_ours_says_where_to_report_it(here, monkeypatch, capsys):
    monkeypatch.setattr("aunet_lightning.assembly.expect", None)
    assert fit("--run.folder", "x") == 1
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "this is a fault of aunet-lightning" in told
    assert "README.md, 'When something is wrong'" in told
    assert "When something is wrong" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data.train_files", "[{path: en.jsonl, lang: no}]"], "YAML reads no"),
        (["--data.languages", "[no]"], "YAML reads no"),
        (["--data.train_files", '[""]'], "data.train_files is '', which is not a path"),
        (["--run.name", "n" * 300], "run.name"),
        (["--seed_everything", str(2**40)], "seed_everything"),
        (["--model.optimizer.lr", "nan"], "model.optimizer.lr"),
        (["--trainer.val_check_interval", 999, "--trainer.check_val_every_n_epoch", 1], "val_check_interval"),
        (["--data.cache_dir", "/proc/none"], "data.cache_dir: cannot write"),
        (["--run.folder", "en.jsonl"], "run.folder: cannot write to en.jsonl"),
        (["--ckpt_path", ""], "ckpt_path"),
        (["--ckpt_path", "hpc"], "there is no checkpoint hpc"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_wrong_setting_gets_one_sentence(arguments, words, capsys):
    assert fit(*arguments) in (1, 2)
    assert words in error_of(capsys)


def test_a_single_path_needs_no_brackets(here):
    assert fit("--data.train_files", "en.jsonl", "--run.folder", "x") == 0


@pytest.mark.parametrize("text", [b"a: [b", b"\0\0\0", b"- 1", b"", b"\xff"])
def test_a_damaged_configuration_is_named(text, here, capsys):
    (here / "x").mkdir()
    (here / "x" / "config.yaml").write_bytes(text)
    assert fit("--run.folder", "x") == 1
    assert "x/config.yaml is damaged" in error_of(capsys)


def test_a_binary_file_is_not_split(here, capsys):
    torch.save([1], here / "model.txt")
    for command in (
        ["split", "model.txt"],
        ["split", "model.txt", "--stats"],
        ["vocabulary", "model.txt", "--out", "v.json"],
    ):
        assert main(command) == 1
        assert "model.txt is not text in UTF-8" in error_of(capsys)
