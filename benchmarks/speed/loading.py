"""What a training step spends beside its network (reading, splitting and packing, logging, Python), and padding.

The run is `aunet fit` in a process of its own, with the model and the rows of experiments/compare/nonspace.yaml on the
shipped text, on one core. Its CPU seconds are those of the network (forward with the loss, backward, clipping and
AdamW), which are timed around, and the rest. All figures are of CPU time, so that other processes hardly matter.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from aunet_lightning import ByteDataModule
from aunet_lightning.cli.main import main
from aunet_lightning.model.joined import WORTH
from aunet_lightning.model.units import Room
from aunet_lightning.training.optimizer import AdamW, OptimizerBuilder, OptimizerConfig
from benchmarks.speed.bar import Bar

ROOT = Path(__file__).parent.parent.parent
TEXT = str(ROOT / "experiments" / "data" / "udhr" / "*.jsonl")
HERE = "benchmarks.speed.loading"
FIRST, STEPS = 20, 60  # steps before those measured, and all steps
MOST_BESIDE, MOST_PADDED = 0.05, 0.1
SPENT: Counter[str] = Counter()  # CPU seconds of the network, by part


def bars() -> list[Bar]:
    with tempfile.TemporaryDirectory() as folder:
        step = beside_the_network(Path(folder))
        share = step["beside the network"] / step["step"]
        return [
            Bar("loader, splitting, logging and Python, of a step", share, MOST_BESIDE, False, "", step),
            *(padding_bar(splitter, folder) for splitter in ("whitespace", "script_aware")),
        ]


def beside_the_network(folder: Path) -> dict[str, float]:
    """Returns CPU milliseconds of a step, and what they were spent on."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", HERE, str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return {name: float(value) for name, value in json.loads((folder / "spent.json").read_text()).items()}


def padding_bar(splitter: str, cache: str) -> Bar:
    """How much of the trunk is padding in the quickstart's rows, which are of many languages."""
    quickstart = yaml.safe_load((ROOT / "experiments" / "quickstart.yaml").read_text())
    settings = quickstart["data"] | {"train_files": [TEXT], "workers": 0, "cache_dir": cache}
    data = ByteDataModule(splitter=splitter, upper_splitters=quickstart["upper_splitters"], **settings)
    data.prepare_data()
    data.setup()
    batches = data.batches("train")
    units = [batches[0, k]["n_units"][-1] for k in range(len(batches))]
    rooms = [Room.of(rows, quickstart["model"]["net"].get("round_units_to", 16)) for rows in units]
    padded = [len(rows) * room.row for rows, room in zip(units, rooms, strict=True)]
    held = [room.batch if room.batch <= WORTH * n else n for room, n in zip(rooms, padded, strict=True)]
    total = sum(map(sum, units))
    name = f"padding among the trunk's positions, mixed languages, {splitter}"
    return Bar(name, 1 - total / sum(held), MOST_PADDED, False, "", {"without joining rows": 1 - total / sum(padded)})


def timed(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the CPU seconds of calls to a part of SPENT."""

    def measured(*args: Any, **options: Any) -> Any:
        begin = time.process_time()
        result = call(*args, **options)
        SPENT[part] += time.process_time() - begin
        return result

    return measured


class Timed(torch.optim.AdamW):
    """AdamW, timed without the closure that it calls, which is the rest of the step."""

    def step(self, closure: Any = None) -> Any:
        begin = time.process_time()

        def inside() -> Any:
            nonlocal begin
            SPENT["AdamW"] += time.process_time() - begin
            result = closure()
            begin = time.process_time()
            return result

        result = super().step(inside)
        SPENT["AdamW"] += time.process_time() - begin
        return result


class TimedAdamW(OptimizerBuilder):
    def build(self, groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
        optimizer = AdamW().build(groups, config)
        optimizer.__class__ = Timed
        return optimizer


class Spent(Callback):
    """Times the network of a run, and writes what its steps spent to `path`."""

    def __init__(self, path: str) -> None:
        self.path, self.begin = Path(path), 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        module: Any = pl_module
        module.nll, module.backward = timed("forward", module.nll), timed("backward", module.backward)
        for name in ("get_total_norm", "clip_grads_with_norm_"):
            setattr(torch.nn.utils, name, timed("clipping", getattr(torch.nn.utils, name)))

    def on_train_batch_end(self, trainer: Trainer, *arguments: Any) -> None:
        if trainer.global_step == FIRST:
            SPENT.clear()
            self.begin = time.process_time()
        elif trainer.global_step == STEPS:
            step = time.process_time() - self.begin
            spent = {"step": step, **SPENT, "beside the network": step - SPENT.total()}
            self.path.write_text(json.dumps({name: 1e3 * value / (STEPS - FIRST) for name, value in spent.items()}))


def train(folder: Path) -> int:
    """Runs `aunet fit` on the study's model and rows, without validations and checkpoints."""
    study = yaml.safe_load((ROOT / "experiments" / "compare" / "nonspace.yaml").read_text())
    settings = study["settings"] | {"seed_everything": 1, "splitter": "script_aware"}
    settings["data"] |= {"train_files": [TEXT], "cache_dir": str(folder)}
    settings["model"]["optimizer"]["name"] = f"{HERE}:TimedAdamW"
    settings["trainer"] |= {
        "max_steps": STEPS, "check_val_every_n_epoch": None, "limit_val_batches": 0,
        "callbacks": [{"class_path": f"{HERE}.Spent", "init_args": {"path": str(folder / "spent.json")}}],
    }  # fmt: skip
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    settings["run"] |= {"folder": str(folder / "run"), "tracking_uri": uri, "checkpoint_every": 10 * STEPS}
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    return main(["fit", "-c", str(folder / "run.yaml")])


if __name__ == "__main__":
    sys.exit(train(Path(sys.argv[1])))
