"""Measures every bar of speed and prints it: make bench, make bench COMPARE=commit.

Bars that compare with another commit take 917e473 unless COMPARE names one; its files are checked out into an ignored
folder. Everything is written as JSON too.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.speed import generation, loading, startup, training
from benchmarks.speed.bar import Bar

ROOT = Path(__file__).parents[2]
HERE = ROOT / "benchmarks" / "results"  # ignored by git
COMPARED = "917e473"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compare", default=COMPARED, help="a commit; none: leave out what compares")
    parser.add_argument("--only", choices=["training", "generation", "loading", "startup"])
    options = parser.parse_args()
    old = checkout(options.compare) if options.compare != "none" else None
    groups: dict[str, Callable[[], list[Bar]]] = {
        "training": lambda: training.bars(old),
        "generation": lambda: generation.bars(old),
        "loading": loading.bars,
        "startup": startup.bars,
    }
    machine, found = description(options.compare), list[Bar]()
    print(", ".join(f"{key} {value}" for key, value in machine.items()), flush=True)
    for name, measure in groups.items():
        if options.only in (None, name):
            found += show(name, measure)
    path = HERE / f"bench-{machine['commit']}.json"
    path.parent.mkdir(exist_ok=True)
    lines = [asdict(bar) | {"met": bar.met} for bar in found]
    path.write_text(json.dumps({**machine, "bars": lines}, indent=1), encoding="utf-8")
    print(f"{sum(bar.met for bar in found)} of {len(found)} bars are met; all figures are in {path}")


def show(name: str, measure: Callable[[], list[Bar]]) -> list[Bar]:
    begin = time.perf_counter()
    bars = measure()
    for bar in bars:
        sign = "≥" if bar.at_least else "≤"
        value, bound = (f"{number:.3g} {bar.unit}".strip() for number in (bar.value, bar.bound))
        print(f"{'met ' if bar.met else 'MISS'}  {bar.name:<72} {value:>10}   {sign} {bound}", flush=True)
    print(f"      ({name}: {time.perf_counter() - begin:.0f} s)", flush=True)
    return bars


def description(compared: str) -> dict[str, str | int | float]:
    """Returns what the figures depend on."""
    return {
        "commit": git("rev-parse", "--short", "HEAD") + ("-dirty" if git("status", "--porcelain") else ""),
        "compared": compared,
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def checkout(commit: str) -> Path:
    """Returns a folder with the files of a commit."""
    folder = HERE / "compared" / git("rev-parse", "--short", commit)
    if not folder.exists():
        folder.mkdir(parents=True)
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"git {' '.join(arguments)}: {done.stderr.strip()}; make bench runs in a clone, with its history")
    return done.stdout.strip()


if __name__ == "__main__":
    main()
