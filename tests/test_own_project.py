"""A project of one's own: `aunet init`, settings by name, and the wheel, away from the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import splitters
from aunet_lightning.cli.main import main
from aunet_lightning.cli.named import with_paths
from aunet_lightning.errors import UserError
from tests.helpers import ROOT


@pytest.fixture(autouse=True)
def _in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path, capsys):
    (tmp_path / "train.yaml").write_text("mine")
    assert main(["init", "."]) == 1
    assert ". is there and not empty: name a new folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["train.yaml"]
    assert (tmp_path / "train.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("quickstart", "quickstart.yaml"), ("compare/nonspace", "compare/nonspace.yaml"), ("fsdp", "trainer/fsdp.yaml"),
        ("nonspace-short", "compare/nonspace-short.yaml"),
    ],
)  # fmt: skip
def test_settings_of_the_checkout_are_found_by_name(name, path):
    found = str(ROOT / "experiments" / path)
    assert with_paths(["-c", name, f"--config={name}", "--splitter", name]) == [
        "-c", found, f"--config={found}", "--splitter", name
    ]  # fmt: skip


@pytest.mark.parametrize("given", ["mine.yaml", "./quickstart", "-", "{data: 3}", "quickstart.yaml", "mine"])
def test_what_is_a_path_stays_one(given, tmp_path):
    (tmp_path / "mine").write_text("x: 1")
    assert with_paths(["-c", given]) == ["-c", given]


def test_a_name_that_is_unknown_gets_the_nearest(tmp_path):
    with pytest.raises(UserError, match=r"-c quikstart: there is no such file, .* Did you mean quickstart\?"):
        with_paths(["-c", "quikstart"])
    for folder in ("a", "b"):
        (tmp_path / "experiments" / folder).mkdir(parents=True)
        (tmp_path / "experiments" / folder / "same.yaml").write_text("x: 1")
    with pytest.raises(
        UserError, match="-c same: several files in experiments have this name; give one of a/same, b/same"
    ):
        with_paths(["-c", "same"])
    assert with_paths(["-c", "a/same"]) == ["-c", "experiments/a/same.yaml"]


@pytest.mark.slow
def test_the_wheel_begins_a_project_that_runs_at_once(tmp_path):
    wheels, code, mine = tmp_path / "wheels", tmp_path / "code", tmp_path / "mine"
    build = [
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-q",
        "-w",
        str(wheels),
        str(ROOT),
    ]
    subprocess.run([sys.executable, *build], check=True, cwd=tmp_path)
    (wheel,) = wheels.glob("aunet_lightning-*.whl")
    zipfile.ZipFile(wheel).extractall(code)
    known = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    environ = known | {"PYTHONPATH": str(code), "AUNET_CACHE": str(tmp_path / "cache")}

    def run(*arguments, folder=mine):
        return subprocess.run(
            [sys.executable, "-P", *arguments], cwd=folder, env=environ, check=True, capture_output=True, text=True
        ).stdout

    aunet = ("-m", "aunet_lightning.cli.main")
    where = run("-c", "import aunet_lightning; print(aunet_lightning.__file__)", folder=tmp_path)
    assert Path(where.strip()).is_relative_to(code)
    assert "aunet fit -c train.yaml" in run(*aunet, "init", "mine", folder=tmp_path)
    assert "laws of a splitter hold" in run("my_rule.py")
    short = ("--trainer.max_steps", "4", "--trainer.val_check_interval", "4", "--splitter", "my_rule:Clauses")
    told = run(*aunet, "fit", "-c", "train.yaml", *short)
    assert "Bits per byte on held-out text after 4 steps" in told
    assert "mlflow ui --backend-store-uri sqlite:///runs/mlflow.db" in told  # there is no make here
    assert "24 cells" in run(*aunet, "compare", "-c", "study.yaml", "--dry_run")


def test_the_rule_that_comes_along_keeps_the_laws(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "aunet_lightning" / "starter"))
    splitters.check("my_rule:Clauses")
