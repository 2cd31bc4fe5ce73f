"""Times training steps of this tree against those of another commit, each with its own settings.

python -m benchmarks.step_time 90cebf9      # before the recipe; the commit's files go to an ignored folder

Two runs of `aunet fit` on one thread take turns of two steps (Muon moves matrices at every second one), so that what
else the machine does hits both alike: of the quickstart, and of a cell of nonspace.yaml.
"""

import argparse
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

STEPS, SKIP, NEVER = 2, 3, 10**6  # steps of a turn; turns at the start that do not count


def quickstart(tree: Path) -> dict[str, Any]:
    return yaml.safe_load((tree / "experiments/quickstart.yaml").read_text(encoding="utf-8"))


def cell(tree: Path) -> dict[str, Any]:
    study = yaml.safe_load((tree / "experiments/compare/nonspace.yaml").read_text(encoding="utf-8"))
    return study["settings"] | study["splitters"]["script_aware"]


class Run:
    """`aunet fit` in a process of its own, from outside."""

    def __init__(self, tree: Path, settings: dict[str, Any], folder: Path) -> None:
        folder.mkdir()
        settings["data"] |= {"train_files": [f"{tree}/experiments/data/udhr/*.jsonl"], "holdout_every": 10}
        settings["trainer"] |= {"max_steps": NEVER, "val_check_interval": NEVER, "check_val_every_n_epoch": None}
        settings["run"] |= {"checkpoint_every": NEVER}
        (folder / "settings.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, __file__, "settings.yaml", "--train"], cwd=folder, text=True,
                env=os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip

    def turn(self) -> float:
        """Returns the seconds of a turn."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        return float(answer) if answer else sys.exit(self.log.read_text(encoding="utf-8"))


def train(settings: str) -> None:
    """Takes a turn for each line of standard input, and answers with its seconds."""
    from lightning.pytorch import Callback, Trainer

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what aunet prints goes to the log

    class Turns(Callback):
        def on_train_start(self, *_: Any) -> None:
            if not sys.stdin.readline():
                os._exit(0)
            self.done, self.begin = 0, time.perf_counter()

        def on_train_batch_end(self, *_: Any) -> None:
            self.done += 1
            if self.done == STEPS:
                print(time.perf_counter() - self.begin, file=answers)
                self.on_train_start()

    fit = Trainer.fit

    @functools.wraps(fit)
    def in_turns(self: Trainer, *arguments: Any, **named: Any) -> None:
        self.callbacks.append(Turns())
        fit(self, *arguments, **named)

    Trainer.fit = in_turns  # type: ignore[method-assign]
    from aunet_lightning.cli.main import main

    main(["fit", "-c", settings])


def compare(commit: str, turns: int) -> None:
    from benchmarks.speed.__main__ import ROOT, checkout

    trees = (ROOT, checkout(commit))
    print(f"| settings | seconds a step | of {commit} | ratio of medians | of minima |\n|---|---:|---:|---:|---:|")
    for settings in (quickstart, cell):
        with tempfile.TemporaryDirectory() as folder:
            runs = [Run(tree, settings(tree), Path(folder, str(k))) for k, tree in enumerate(trees)]
            try:
                taken = [[run.turn() for run in runs] for _ in range(SKIP + turns)][SKIP:]
            finally:
                for run in runs:
                    run.process.kill()
                    run.process.wait()
        new, old = ([seconds / STEPS for seconds in of] for of in zip(*taken, strict=True))
        medians, minima = ((of(new), of(old)) for of in (statistics.median, min))
        cells = [*(f"{s:.3f}" for s in medians), *(f"{a / b:.2f}" for a, b in (medians, minima))]
        print(f"| {settings.__name__} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", help="what to compare with")
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    train(options.commit) if options.train else compare(options.commit, options.turns)
