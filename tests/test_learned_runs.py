"""Whole runs with learned splitters: they finish, continue with the same losses, and show their boundaries."""

import json
import re
import shutil

import pytest
import torch

from tests.helpers import ROOT, UDHR, assert_same, aunet, points
from tests.ranks import killed_at, ranks

pytestmark = pytest.mark.usefixtures("_in_place")


LEARNED = {
    "router": {
        "name": "router", "bytes_per_unit": {"en": 6, "default": 8}, "bytes_per_unit_from": 5, "target_steps": 20
    },
    "distilled": {"name": "distilled", "teacher": {"name": "regex", "patterns": r"\p{L}+(?=\s)"}, "teacher_steps": 12},
}  # fmt: skip


def learned_options(name):
    return ["--splitter", json.dumps(LEARNED[name]), "--trainer.max_steps", "24", "--report.pictures_every", "8"]


@pytest.fixture(scope="module", params=sorted(LEARNED))
def learned_run(request, place):
    """What a run with a learned splitter below `every` printed, its folder and its name."""
    folder = place / request.param
    shown = ranks(1, place, "fit", "-c", "tiny.yaml", "--run.folder", folder, *learned_options(request.param))
    return shown, folder, request.param


@pytest.mark.slow
def test_a_run_with_a_learned_splitter(learned_run, place):
    shown, folder, name = learned_run
    logged = points(folder)
    wanted = {
        "bytes_per_unit", "boundary_share", "past_last_offset", "longest_unit", "agreement_script_aware", "mean_p"
    }  # fmt: skip
    assert {f"val_stage2/{metric}_{language}" for metric in wanted for language in ("en", "th")} <= {
        k for _, k in logged
    }
    assert {f"val/{metric}_stage2" for metric in wanted} <= {k for _, k in logged}
    assert {p.name for p in (folder / "boundaries").iterdir()} == {
        f"step-0000{s}.html" for s in ("01", "08", "16", "24")
    }
    page = (folder / "boundaries.html").read_text()
    assert all(f"<th>{label}</th>" in page for label in ("script_aware", "step 1", "step 8", "step 16", "step 24"))
    if name == "router":
        assert logged[0, "train/bytes_per_unit_stage2"] == pytest.approx(5, rel=0.1)
        assert logged[0, "train/splitter_bias_stage2"] != 0
        assert logged[0, "train/target_bytes_per_unit_stage2"] == 5
        assert 6 < logged[23, "train/target_bytes_per_unit_stage2"] < 8
        assert (23, "train/mean_p_stage2") in logged
        assert "leak" not in shown
    else:
        assert {"train/teacher_f1_stage2", "train/teacher_recall_stage2"} <= {k for _, k in logged}
        assert {"val/teacher_f1_stage2", "val_stage2/teacher_f1_en"} <= {k for _, k in logged}
        assert "looks ahead, so train/loss and train/bpb leak until then" in shown
        assert "step 12: from here on stage 2 is pooled at its own boundaries" in shown
    weights = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert any(key.startswith("net.predictors.0.") for key in weights)


@pytest.mark.slow
def test_a_learned_splitter_is_seen_in_split_and_generate(learned_run, capsys):
    _, folder, name = learned_run
    checkpoint = folder / "checkpoints" / "last.ckpt"
    text = "All human beings are born free"
    assert aunet("split", text, "--checkpoint", checkpoint, "--splitter", "whitespace") == 0
    shown = capsys.readouterr().out
    assert f"text · {name}" in shown
    assert "text · whitespace" in shown
    assert re.search(r"stage 3: \d+ boundaries in 30 bytes", shown)
    page = folder / "page.html"
    assert aunet("split", UDHR / "th.jsonl", "--checkpoint", checkpoint, "--html", page, "--characters", 40) == 0
    assert f"<th>{name}</th>" in page.read_text()
    assert aunet("split", text, "--stats", "--no_words", "--ckpt_path", checkpoint) == 0
    assert re.search(rf"^text +3 +{name} +\d", capsys.readouterr().out, re.M)
    assert aunet("generate", checkpoint, "--prompt", "All ", "--bytes", 5) == 0
    assert aunet("validate", "--ckpt_path", checkpoint) == 0
    assert aunet("validate", "--ckpt_path", checkpoint, "--splitter", "whitespace") == 1
    assert "a learned splitter is part of the network" in capsys.readouterr().err
    assert aunet("split", text, "--splitter", "router") == 1
    assert "learned with a model: name a trained one, --ckpt_path" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_run_with_a_router_goes_on_with_the_very_same_losses(learned_run, place):
    _, straight, name = learned_run
    if name != "router":
        pytest.skip("the state between steps is the router's")
    arguments = ["fit", "-c", "tiny.yaml", "--run.folder", "killed", *learned_options(name)]
    shutil.rmtree(place / "killed", ignore_errors=True)
    killed_at(9, place, arguments)
    ranks(1, place, *arguments)
    assert_same(straight, place / "killed")
    assert (straight / "boundaries.json").read_text() == (place / "killed" / "boundaries.json").read_text()


@pytest.mark.slow
def test_the_configurations_of_learned_boundaries_run(place, capsys):
    few = ["--data.train_files", json.dumps([str(UDHR / "th.jsonl")]), "--data.workers", "0", "--trainer.max_steps", "2",
           "--trainer.val_check_interval", "2", "--report.ngrams", "[]", "--report.sample_prompts", "[]",
           "--trainer.enable_progress_bar", "false"]  # fmt: skip
    for name in ("router", "distilled", "byte_model", "entropy"):
        configs = [
            "-c",
            ROOT / "experiments" / "quickstart.yaml",
            "-c",
            ROOT / "experiments" / "learned" / f"{name}.yaml",
        ]
        assert aunet("fit", *configs, *few) == 0, name
    small = "runs/byte_model/checkpoints/best.ckpt"
    assert aunet("entropy", small, UDHR / "th.jsonl", "--bytes_per_unit", "6", "--megabytes", "0.005") == 0
    assert f"splitter: {{name: entropy, checkpoint: {small}, threshold: " in capsys.readouterr().out
