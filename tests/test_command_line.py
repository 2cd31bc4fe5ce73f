"""The command line: what goes into files, help, completion, and text that is piped."""

import io
import re
import shutil
import subprocess
import warnings
from functools import partial

import pytest
from lightning.fabric.utilities.warnings import _custom_format_warning

from aunet_lightning import loading
from aunet_lightning.cli import training
from aunet_lightning.cli.main import LIGHT, TRAINING
from aunet_lightning.model.config import EMBEDDINGS, UPSAMPLINGS
from aunet_lightning.study import progress as study_progress
from aunet_lightning.training import speed_warnings
from aunet_lightning.training.optimizer import OPTIMIZERS
from aunet_lightning.training.progress import BpbProgressBar
from tests.helpers import ROOT, aunet, fit

BARS = ("\r", "█", "it/s", "%|")
GREETINGS = ("GPU available", "TPU available", "Tip:", "litlogger", "litmodels", "Seed set to")


@pytest.mark.parametrize("every", [0.0, 60.0], ids=["always due", "a minute"])
def test_no_bar_goes_into_a_file(every, here, capfd, monkeypatch):
    monkeypatch.setattr(BpbProgressBar, "EVERY", every)
    assert fit("--trainer.enable_progress_bar", "true", "--trainer.max_steps", "4", "--model.budget.bytes", "1e9") == 0
    out, err = capfd.readouterr()
    assert [word for word in (*BARS, *GREETINGS) if word in out + err] == []
    lines = [line for line in err.splitlines() if line.startswith(("step ", "validation: "))]
    assert (len(lines) > 4) == (every == 0)
    if every == 0:
        assert lines[0].startswith("step 1 of 4: train/bpb ")
        assert lines[-1].startswith("step 4 of 4: train/bpb ")
        assert "spent 0%" in lines[-1]


def test_a_run_that_continues_says_so_once(here, caplog, capsys):
    for steps in (2, 3):
        caplog.clear()
        capsys.readouterr()
        assert fit("--run.folder", "x", "--trainer.max_steps", steps) == 0
    lines = [*caplog.messages, *capsys.readouterr().out.splitlines()]
    assert [line for line in lines if "step-00000002.ckpt" in line] == [
        "Continuing from x/checkpoints/step-00000002.ckpt"
    ]


@pytest.mark.parametrize("of_lightning", [False, True], ids=["loaded before", "loaded by the command"])
def test_a_warning_of_ours_is_one_line_and_others_are_as_before(of_lightning, monkeypatch):
    """Lightning, which a command loads, sets a form of its own for every path that has "lightning" in it."""
    theirs = _custom_format_warning if of_lightning else warnings.formatwarning
    load = partial(setattr, warnings, "formatwarning", theirs)
    monkeypatch.setattr(loading, "load_torchmetrics", load)
    shown, place = [], (UserWarning, "module.py", 7)

    def run(arguments):
        shown.append(warnings.formatwarning("too\n slow\x1b", UserWarning, speed_warnings.__file__, 7))
        shown.append(warnings.formatwarning("theirs", *place))
        return 0

    monkeypatch.setattr(training, "run", run)
    usual = warnings.formatwarning
    assert aunet("fit") == 0
    assert shown == ["aunet: too slow␛\n", theirs("theirs", *place)]
    assert warnings.formatwarning is usual


def test_a_study_in_a_file_is_a_line_a_minute(capsys, monkeypatch):
    shown = study_progress.CellProgress(4, 1)
    shown.show(1.5, ["a", "b"])
    assert capsys.readouterr().err == ""
    later = shown._next + 1
    monkeypatch.setattr(study_progress.time, "monotonic", lambda: later)
    shown.show(1.75, ["a", "b"])
    shown.show(2.0, ["a"])
    shown.close()
    assert capsys.readouterr().err == "1.8 of 4 cells; running: a, b\n"


@pytest.mark.parametrize("command", ["fit", "validate", "predict"])
def test_help_is_short_and_begins_with_what_is_ours(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert aunet(command, "--help") == 0
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert lines[0].startswith(f"usage: aunet {command} ")
    places = [
        shown.index(f"  --{name} ") for name in ("splitter", "data.train_files", "model.net.stages", "run.folder")
    ]
    assert places == sorted(places)
    assert places[-1] < shown.index("  --trainer.max_steps ") < shown.index("  --ckpt_path ")
    assert len(lines) < 160
    assert max(map(len, lines)) <= 80
    assert "SUPPRESS" not in shown
    assert "  --model.optimizer.lr            learning rate after warm-up" in shown  # from the docstring of the field


@pytest.mark.parametrize(
    ("arguments", "there", "missing"),
    [
        (["--help", "trainer"], ["--trainer.profiler", "Sanity check runs"], ["--data.", "--ckpt_path"]),
        (["--trainer.help"], ["--trainer.profiler"], ["--data."]),
        (["--help", "model.optimizer"], ["--model.optimizer.cooldown", "type: float"], ["--model.net"]),
        (["-c", "x.yaml", "-h", "data"], ["--data.row_bytes"], ["--data.seed", "--model."]),
        (["--help", "splitter"], ["--splitter", "--upper_splitters", "--tokenizer"], ["--data.", "--trainer"]),
        (["--help", "all"], ["--splitter", "--data.row_bytes", "--trainer.profiler", "--weights_only"], ["SUPPRESS"]),
    ],
)
def test_help_of_a_part_has_it_in_full(arguments, there, missing, capsys):
    assert aunet("fit", *arguments) == 0
    shown = capsys.readouterr().out
    assert [word for word in there if word not in shown] == []
    assert [word for word in missing if word in shown] == []


@pytest.mark.parametrize("part", [[], ["model"]], ids=["short", "in full"])
def test_help_names_every_choice_of_a_class(part, capsys):
    assert aunet("fit", "--help", *part) == 0
    shown = re.split(r"\n  --", capsys.readouterr().out)
    for registry in (UPSAMPLINGS, EMBEDDINGS, OPTIMIZERS):
        (entry,) = (one for one in shown if one.split()[0] == f"model.{registry.setting}")
        missing = {*registry.built_in, "module:Class"} - {*re.findall(r"[\w:]+", entry)}
        assert not missing, entry


def test_help_of_no_part_names_the_parts(capsys):
    assert aunet("fit", "--help", "optimiser") == 2
    assert "--help 'optimiser': no settings are called so; there are splitter, data, model" in capsys.readouterr().err


def completed(script, *words):
    """What bash completes the last of these words to."""
    ask = (
        'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_aunet; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", ask, "bash", script, *words], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_tab_key_knows_commands_options_and_words(tmp_path, capsys):
    pytest.importorskip("shtab")
    assert aunet("--print_completion", "bash") == 0
    script = tmp_path / "aunet.bash"
    script.write_text(capsys.readouterr().out)
    assert completed(script, "aunet", "") == [*TRAINING, *LIGHT]
    assert completed(script, "aunet", "split", "x", "--splitter", "script") == ["script_aware"]
    assert completed(script, "aunet", "fit", "--model.optimizer.co") == ["--model.optimizer.cooldown"]
    assert completed(script, "aunet", "fit", "--data.sp") == []  # it follows from --splitter
    assert completed(script, "aunet", "fit", "--trainer.inference_mode", "") == ["true", "false"]
    assert completed(script, "aunet", "runs", "--state", "d") == ["died", "damaged"]
    for command in LIGHT:
        assert "--help" in completed(script, "aunet", command, "--h"), command


def test_completion_of_no_shell_names_the_shells(capsys):
    assert aunet("--print_completion", "fish") == 2
    assert "--print_completion 'fish': choose bash or zsh" in capsys.readouterr().err


@pytest.fixture
def _piped(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("ทุกคน one two\n".encode()), encoding="utf-8"))


@pytest.mark.usefixtures("_piped")
@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["split", "-", "--splitter", "whitespace"], "ทุกคน│ one│ two│⏎\n"),
        (["split", "--splitter", "whitespace"], "ทุกคน│ one│ two│⏎\n"),
        (["rate", "-", "--splitter", "fixed", "--bytes_per_unit", "4"], "splitter: {name: fixed, n: 4}"),
        (["vocabulary", "-", "--size", "260", "--out", "v.json"], "v.json: 260 entries, trained on 1 documents"),
    ],
)
def test_a_minus_is_standard_input(arguments, shown, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert aunet(*arguments) == 0
    assert capsys.readouterr().out.startswith(shown)


@pytest.mark.usefixtures("_piped")
def test_a_prompt_is_piped_without_its_last_end_of_line(capsys):
    kept = ROOT / "tests" / "kept_run" / "checkpoints" / "last.ckpt"
    assert aunet("generate", kept, "--prompt", "-", "--bytes", "2") == 0
    piped = capsys.readouterr().out
    assert aunet("generate", kept, "--prompt", "ทุกคน one two", "--bytes", "2") == 0
    assert piped == capsys.readouterr().out
    assert piped.startswith("ทุกคน one two")


def test_no_standard_input_is_a_sentence(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert aunet("split", "-") == 1
    assert "standard input is closed" in capsys.readouterr().err
