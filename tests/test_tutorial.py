"""The tutorial and its notebook: all that they say one can run is run, in a short form."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from aunet_lightning.cli.main import main
from aunet_lightning.study import timing
from tests.helpers import ROOT

DOCS = ROOT / "docs"
SHORT = {  # what makes a command short: further arguments
    "fit": ["--trainer.max_steps", "4", "--trainer.val_check_interval", "4", "--report.ngrams", "[3]"],
    "compare": ["-c", "short.yaml"],
}
STUDY = "{languages: [th], seeds: [1], match: {budget: 4.0e+8}, validations: 1, jobs: 1}"


@pytest.fixture
def _there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("AUNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_every_link_and_picture_is_there():
    for page in (DOCS / "tutorial.md", DOCS / "runs.md"):
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert (DOCS / target).exists(), target


@pytest.mark.slow
@pytest.mark.usefixtures("_there")
def test_the_tutorial_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(timing, "MINUTE", 1.5)  # of --plan
    monkeypatch.setattr(timing, "LEAST", 0.5)
    blocks = re.findall(r"```(sh|python)\n(.*?)```", (DOCS / "tutorial.md").read_text(), re.S)
    ran = []
    for language, block in blocks:
        if language == "python":
            (Path("documents")).mkdir()
            for i in range(6):
                Path(f"documents/{i}.txt").write_text(f"Document {i}.\n")
            exec(block, {})
            assert len(Path("text/valid/mine.jsonl").read_text().splitlines()) == 1
            for part in ("train", "valid"):
                Path(f"text/{part}/mine.jsonl").unlink()
            continue
        for line in block.splitlines():
            program, *arguments = shlex.split(line)
            arguments = [
                str(one) for word in arguments for one in (sorted(Path().glob(word)) if "*" in word else [word])
            ]
            if program == "cd":
                monkeypatch.chdir(arguments[0])
                Path("short.yaml").write_text(STUDY)
            elif program == "python":
                subprocess.run([sys.executable, *arguments], check=True)
            elif program == "aunet":
                assert main([*arguments, *SHORT.get(arguments[0], [])]) == 0, capsys.readouterr().err
                ran.append(arguments[0])
            else:
                assert program == "ls"
    assert ran.count("fit") == 3
    assert {"init", "split", "runs", "rate", "compare"} <= {*ran}
    assert Path("runs/rules/report.html").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("_there")
def test_the_notebook_runs(monkeypatch, capsys):
    assert main(["init", "mine"]) == 0
    monkeypatch.chdir("mine")
    cells = json.loads((DOCS / "tutorial.ipynb").read_text())["cells"]
    scope: dict = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            exec("".join(cell["source"]).replace("steps = 150", "steps = 4"), scope)
    out = capsys.readouterr().out
    assert "val/bpb_th" in out
    assert scope["state"] is not None
