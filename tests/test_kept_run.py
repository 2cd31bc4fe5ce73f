"""A run begun at commit ba12ae9 (tests/kept_run) continues under the same command with the same numbers: to six digits,
as operations are fused otherwise than there; but for FLOPs, as windows are computed in smaller blocks."""

import json
import shutil

import pytest
import yaml

from aunet_lightning.cli.main import main
from tests.helpers import ROOT, place_store

KEPT = ROOT / "tests" / "kept_run"
NAME = "utf8_character-3stages-4-8-4-seed5-714eb8"  # as ba12ae9 named it where run.folder is null


@pytest.mark.parametrize("named", [True, False], ids=["run.folder", "runs/EXPERIMENT/NAME-DIGEST"])
def test_a_run_of_an_earlier_version_continues(named, tmp_path, monkeypatch, store_template):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place_store(store_template, tmp_path / "mlflow.db"))
    monkeypatch.setenv("AUNET_CACHE", str(tmp_path / "cache"))
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    folder = tmp_path / ("kept_run" if named else f"runs/kept/{NAME}")
    shutil.copytree(KEPT, folder, symlinks=True)
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    settings["run"]["folder"] = "kept_run" if named else None
    (tmp_path / "command.yaml").write_text(yaml.safe_dump(settings))
    assert main(["fit", "-c", "command.yaml"]) == 0
    assert [path.name for path in folder.parent.iterdir() if (path / "config.yaml").exists()] == [folder.name]
    begun = len((KEPT / "metrics.jsonl").read_text().splitlines())
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()[begun:]]
    for expected in map(json.loads, (KEPT / "expected.jsonl").read_text().splitlines()):
        metrics = {name: value for name, value in expected["metrics"].items() if name != "flops"}
        of_step = (point["metrics"] for point in logged if point["step"] == expected["step"])
        (found,) = (point for point in of_step if metrics.keys() <= point.keys())
        assert {name: found[name] for name in metrics} == pytest.approx(metrics, rel=1e-5)
