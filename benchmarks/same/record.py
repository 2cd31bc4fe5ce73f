"""Starts the processes that record a checkout, and joins what they have found."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

from same.settings import THREADS, Record

BENCHMARKS = Path(__file__).resolve().parents[1]


def installed(tree: Path, folder: Path) -> Path:
    """Writes the metadata of the checkout into the folder: the installed entry points may be of another checkout."""
    project = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    told = folder / f"{project['name'].replace('-', '_')}-0.dist-info"
    told.mkdir(parents=True)
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0\n", encoding="utf-8")
    groups = [f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items())
              for group, points in project.get("entry-points", {}).items()]  # fmt: skip
    (told / "entry_points.txt").write_text("\n".join(groups), encoding="utf-8")
    return folder


class Scratch:
    """A folder in which processes of one checkout run."""

    def __init__(self, tree: Path) -> None:
        self.tree, self.path = tree, Path(tempfile.mkdtemp(prefix="same-numbers-")).resolve()
        self.installed = installed(tree, self.path / "installed")

    def environment(self, place: Path) -> dict[str, str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "AUNET", "SLURM"))}
        paths = os.pathsep.join(str(path) for path in (self.installed, self.tree, BENCHMARKS))
        return env | {"SAME_TREE": str(self.tree), "PYTHONPATH": paths, "OMP_NUM_THREADS": THREADS,
                      "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1", "MKL_NUM_THREADS": THREADS,
                      "COLUMNS": "120", "AUNET_CACHE": str(place / "cache"), "MLFLOW_TRACKING_URI": f"sqlite:///{place}/mlflow.db",
                      "PYTHONHASHSEED": "0", "CUDA_VISIBLE_DEVICES": "", "MPLCONFIGDIR": str(self.path / "matplotlib"),
                      "NUMBA_CACHE_DIR": str(self.path / "numba")}  # fmt: skip

    def start(self, part: str, **extra: str) -> subprocess.Popen[bytes]:
        place = self.path / ("sharded" if part.startswith("rank") else part)
        place.mkdir(exist_ok=True)
        if not (place / "experiments").exists():
            (place / "experiments").symlink_to(self.tree / "experiments")
        log = (self.path / f"{part}.log").open("wb")
        command = [sys.executable, "-P", "-m", "same.child", part, str(self.path / f"{part}.json")]
        return subprocess.Popen(command, cwd=place, env=self.environment(place) | extra, stdout=log, stderr=log)

    def train_sharded(self) -> list[str]:
        """Runs two processes as torchrun starts them; returns those that failed."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1",
                  "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "same"}  # fmt: skip
        ranks = {}
        for rank in "01":  # the first writes what both read
            ranks[f"rank{rank}"] = self.start(f"rank{rank}", **common, RANK=rank, LOCAL_RANK=rank)
        return [part for part, process in ranks.items() if process.wait()]

    def run(self, only: Sequence[str]) -> tuple[Record, list[str]]:
        """Returns what was recorded, and the processes that failed."""
        found: Record = {}
        failed: list[str] = []
        waiting = {part: self.start(part) for part in ("runs", "rules") if part in only}
        if "sharded" in only:
            failed += self.train_sharded()
            waiting["sharded"] = self.start("sharded")
        for part, process in waiting.items():
            if process.wait():
                failed.append(part)
            else:
                found |= json.loads((self.path / f"{part}.json").read_text(encoding="utf-8"))
        return found, failed


def record(tree: Path, out: Path, keep: bool, only: Sequence[str]) -> int:
    """Records a checkout; returns 1 where a part failed."""
    begin = time.monotonic()
    scratch, failed = Scratch(tree), list[str]()
    try:
        found, failed = scratch.run(only)
        for part in failed:
            found[f"FAILED/{part}"] = "see the log"
            print(f"{part} failed:\n{(scratch.path / f'{part}.log').read_text(errors='replace')[-4000:]}")
    finally:
        if keep or failed:
            print(f"what was run is in {scratch.path}")
        else:
            shutil.rmtree(scratch.path, ignore_errors=True)
    out.write_text(json.dumps(found, indent=0, ensure_ascii=False, sort_keys=True), encoding="utf-8")
    wrong = [key for key in found if key.startswith("FAILED/")]
    print(f"{len(found):,} values of {tree} in {out}, after {time.monotonic() - begin:.0f} s")
    for key in wrong:
        print(f"  {key}: {found[key]}")
    return int(bool(wrong))
