"""The files of experiments/trainer and experiments/cluster: they go with any experiment."""

import subprocess

import pytest
import yaml

from aunet_lightning.cli.main import main
from tests.helpers import ROOT

TRAINERS = sorted((ROOT / "experiments" / "trainer").glob("*.yaml"))
MODELS = sorted((ROOT / "experiments" / "models").glob("*.yaml"))
STRATEGIES = {"cpu": "auto", "one_gpu": "auto", "ddp": "ddp", "fsdp": "fsdp2"}


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda path: path.stem)
def test_trainers_go_with_any_experiment(trainer, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    for experiment in (ROOT / "experiments" / "quickstart.yaml", MODELS[-1]):
        files = [experiment, ROOT / "experiments" / "data" / "udhr.yaml", trainer]
        with pytest.raises(SystemExit) as done:
            main(["fit", *(word for file in files for word in ("-c", str(file))), "--print_config"])
        assert done.value.code == 0
        settings = yaml.safe_load(capsys.readouterr().out)
        assert settings["trainer"]["strategy"] == STRATEGIES[trainer.stem]
        own = yaml.safe_load(experiment.read_text())
        assert settings["trainer"]["max_steps"] == own["trainer"]["max_steps"]
        assert settings["data"]["holdout_every"] == 10


@pytest.mark.parametrize("script", sorted((ROOT / "experiments" / "cluster").iterdir()), ids=lambda path: path.name)
def test_scripts_are_bash_and_name_files_that_are_there(script):
    subprocess.run(["bash", "-n", script], check=True)
    for line in script.read_text().splitlines():
        for word in line.split():
            if word.startswith("experiments/") and word.endswith((".yaml", ".sbatch", ".sh")):
                assert (ROOT / word).exists(), word
