"""Times what comes before work begins: `aunet --help`, the first step of the quickstart, and that of a study's cells.

Each is measured from outside, in fresh processes, in a temporary folder with an empty MLflow store: the age of the
process when its first step begins.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback

from benchmarks.speed.bar import Bar

ROOT = Path(__file__).parents[2]
AGES = "AUNET_FIRST_STEPS"  # the environment variable that names the file of ages
HELP, FIT, CELL = 0.3, 12.0, 2.0  # seconds
TIMES = 3  # of --help and of the quickstart; the median counts
CALLBACK = {"class_path": "benchmarks.speed.startup.FirstStep"}
STUDY: dict[str, Any] = {
    "study": "startup",
    "text": dict.fromkeys(("train", "val"), str(ROOT / "experiments/data/udhr/{language}.jsonl")),
    "languages": ["en"],
    "seeds": [1, 2],
    "stages": {2: {}},
    "match": {"by": "bytes", "budget": 10_000, "adjust": "bytes"},
    "reference": "whitespace",
    "splitters": {name: {"splitter": name} for name in ("whitespace", "script_aware")},
    "validations": 1,
    "jobs": 1,
}  # its settings are those of nonspace.yaml


class FirstStep(Callback):
    """Writes the age of its process, and its seconds of CPU, when its first training step begins."""

    def __init__(self) -> None:
        self.written = False

    def on_train_batch_start(self, *_: Any) -> None:
        if not self.written:
            self.written = True
            with open(os.environ[AGES], "a", encoding="utf-8") as file:
                file.write(f"{_age():.2f} {time.process_time():.2f}\n")


def _age() -> float:
    """Returns the seconds since this process was started, or forked (Linux)."""
    started = int(Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")


def bars() -> list[Bar]:
    helps = [_help() for _ in range(TIMES)]
    fits = [_first_steps("fit", *_quickstart())[0] for _ in range(TIMES)]
    cells = _first_steps("compare", "-c", "study.yaml")
    return [
        _bar("aunet --help", HELP, helps),
        _bar("aunet fit to its first step, quickstart", FIT, fits),
        _bar("a study's further cell to its first step", CELL, cells[1:]),
    ]


def _bar(name: str, bound: float, measured: list[tuple[float, float]]) -> Bar:
    seconds, cpu = map(list, zip(*measured, strict=True))
    return Bar(
        name, statistics.median(seconds), bound, at_least=False, unit="s", detail={"seconds": seconds, "CPU": cpu}
    )


def _quickstart() -> list[str]:
    steps = ["--trainer.max_steps", "1", "--trainer.callbacks+", CALLBACK["class_path"], "--run.folder", "run"]
    files = str(ROOT / "experiments/data/udhr/*.jsonl")
    return ["-c", str(ROOT / "experiments/quickstart.yaml"), "--data.train_files", f"[{files}]", *steps]


def _study() -> dict[str, Any]:
    settings = yaml.safe_load((ROOT / "experiments/compare/nonspace.yaml").read_text(encoding="utf-8"))["settings"]
    return STUDY | {"settings": settings | {"trainer": settings["trainer"] | {"callbacks": [CALLBACK]}}}


def _help() -> tuple[float, float]:
    begin, before = time.perf_counter(), os.times()
    _aunet("--help", cwd=ROOT, env=_environment())
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - begin, cpu


def _first_steps(*arguments: str) -> list[tuple[float, float]]:
    """Returns age and CPU seconds of each process at its first step, in order."""
    with tempfile.TemporaryDirectory() as folder:
        ages = Path(folder) / "ages.txt"
        (Path(folder) / "study.yaml").write_text(yaml.safe_dump(_study()), encoding="utf-8")
        _aunet(*arguments, cwd=folder, env=_environment() | {AGES: str(ages), "AUNET_CACHE": f"{folder}/cache"})
        found = [tuple(map(float, line.split())) for line in ages.read_text(encoding="utf-8").splitlines()]
    return [(age, cpu) for age, cpu in found]


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return kept | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}


def _aunet(*arguments: str, cwd: str | Path, env: dict[str, str]) -> None:
    command = [sys.executable, "-m", "aunet_lightning.cli.main", *arguments]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"aunet {' '.join(arguments)} failed: {done.stdout[-500:]}{done.stderr[-2000:]}")


if __name__ == "__main__":
    for bar in bars():
        print(bar)
