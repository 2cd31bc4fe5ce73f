"""Compares learned splitters with `fixed` at equal training FLOPs, and with rules: the tables in RESULTS.md.

    python benchmarks/learned_splitters.py --corpora ../shared/corpora/bench --out /tmp/learned

Every cell is an `aunet fit` of experiments/learned/bench.yaml; finished cells are not run again. Work per step is
counted without padding, per byte and per unit. `fixed` gets as many steps as the FLOPs of the router's run of the same
rate, language and seed buy.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
import yaml

from aunet_lightning import AUNetConfig
from aunet_lightning.costs import Cost

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "experiments" / "learned" / "bench.yaml"
LANGUAGES = ("en", "zh-Hans", "th", "de")
RATES = (4, 6, 8)
SEEDS = (1, 2)
STEPS = 400
NET = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["model"]["net"]
ROW, ROWS = 512, 8


class Cell(NamedTuple):
    """One run. `options` go to `aunet fit`; `like` is the router's cell whose FLOPs it spends."""

    name: str
    language: str
    seed: int
    splitter: dict
    options: tuple[str, ...] = ()
    like: str | None = None


def cells() -> list[Cell]:
    """Returns all cells, a router before the `fixed` that is compared with it."""
    found = []
    for seed, rate, language in itertools.product(SEEDS, RATES, LANGUAGES):
        if seed == 1 or rate == 6:
            name = f"router{rate}-{language}-{seed}"
            found.append(Cell(name, language, seed, {"name": "router", "bytes_per_unit": rate}))
            found.append(Cell(f"fixed{rate}-{language}-{seed}", language, seed, {"name": "fixed", "n": rate}, (), name))
    router = {"name": "router", "bytes_per_unit": 6}
    no_conv = ("--model.net.stages", json.dumps([NET["stages"][0] | {"conv": None}, NET["stages"][1]]))
    copy = ("--model.net.upsampling", "copy")
    for language in ("en", "zh-Hans"):
        found += [
            Cell(f"router6-noconv-{language}-1", language, 1, router, no_conv),
            Cell(f"fixed6-noconv-{language}-1", language, 1, {"name": "fixed", "n": 6}, no_conv),
            Cell(f"router6-copy-{language}-1", language, 1, router, copy),
            Cell(f"router6-nosmooth-{language}-1", language, 1, router | {"smoothing": False}),
            Cell(f"router6-nocontrol-{language}-1", language, 1, router | {"control": 0}),
            Cell(f"router6-published-{language}-1", language, 1, router | {"control": 0, "alpha": 0.03}),
        ]
    for seed, language in itertools.product(SEEDS, ("th", "zh-Hans")):
        found += [
            Cell(f"distilled-{language}-{seed}", language, seed, {"name": "distilled", "teacher": "words"}),
            Cell(f"script_aware-{language}-{seed}", language, seed, {"name": "script_aware"}),
        ]
    return found


def work(splitter: str) -> tuple[float, float]:
    """Returns FLOPs of a training step on all bytes of a batch, and on each unit (of 6 bytes, in a row)."""
    cost = Cost.of(AUNetConfig(**NET), [splitter] if splitter == "router" else [])
    many, few = (float(cost.row_flops(torch.tensor([ROW, ROW / n]))) for n in (4, 8))
    per_unit = (many - few) / (ROW / 4 - ROW / 8)
    return ROWS * (many - per_unit * ROW / 4), per_unit


def trained_units(folder: Path) -> float:
    """Returns the mean number of units of a run's batches."""
    units = [
        ROWS * ROW / metrics["train/bytes_per_unit_stage2"]
        for metrics in map(metrics_of, (folder / "metrics.jsonl").open(encoding="utf-8"))
        if "train/bytes_per_unit_stage2" in metrics
    ]
    return sum(units) / len(units)


def metrics_of(line: str) -> dict[str, float]:
    return json.loads(line)["metrics"]


def run(cell: Cell, corpora: Path, out: Path, flops: dict[str, tuple[float, float]]) -> None:
    folder, steps = out / "runs" / cell.name, STEPS
    if (folder / "done").exists():
        return
    if cell.like is not None:
        spent = flops["router"][0] + flops["router"][1] * trained_units(out / "runs" / cell.like)
        each = flops["fixed"][0] + flops["fixed"][1] * ROWS * ROW / cell.splitter["n"]
        steps = round(STEPS * spent / each)
    command = [
        sys.executable, "-m", "aunet_lightning.cli.main", "fit", "-c", str(CONFIG),
        "--seed_everything", str(cell.seed), "--splitter", json.dumps(cell.splitter), *cell.options,
        "--data.train_files", json.dumps([str(corpora / "train" / f"{cell.language}.jsonl.gz")]),
        "--data.val_files", json.dumps([str(corpora / "valid" / f"{cell.language}.jsonl.gz")]),
        "--trainer.max_steps", str(steps), "--trainer.val_check_interval", str(steps),
        "--trainer.enable_progress_bar", "false", "--run.folder", str(folder),
        "--run.tracking_uri", f"sqlite:///{out}/{cell.name}.db",
    ]  # fmt: skip
    log = out / f"{cell.name}.log"
    done = subprocess.run(
        command,
        stdout=log.open("w", encoding="utf-8"),
        stderr=subprocess.STDOUT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        print(f"{cell.name} failed: {log}", flush=True)
        return
    (folder / "done").write_text(str(steps), encoding="utf-8")
    print(cell.name, {k: round(v, 3) for k, v in last(folder).items() if k in SHOWN}, f"{steps} steps", flush=True)


SHOWN = ("val/bpb", "val/bytes_per_unit_stage2", "val/teacher_f1_stage2")


def last(folder: Path) -> dict[str, float]:
    """Returns the last value of every metric of a run."""
    found: dict[str, float] = {}
    for metrics in map(metrics_of, (folder / "metrics.jsonl").open(encoding="utf-8")):
        found |= metrics
    return found


def tables(out: Path) -> str:
    """Returns the tables of RESULTS.md, of the cells that are done."""
    done = {c.name: out / "runs" / c.name for c in cells() if (out / "runs" / c.name / "done").exists()}
    found = {name: last(folder) for name, folder in done.items()}

    def value(name: str, metric: str, form: str = ".3f") -> str:
        return format(found[name][metric], form) if name in found else "–"

    lines = ["| language | N | router reaches | off by | router, BPB | fixed, BPB | difference | steps of fixed |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|---:|")
    for language, rate, seed in itertools.product(LANGUAGES, RATES, SEEDS):
        router, fixed = f"router{rate}-{language}-{seed}", f"fixed{rate}-{language}-{seed}"
        if router in found:
            reached = found[router]["val/bytes_per_unit_stage2"]
            difference = f"{found[router]['val/bpb'] - found[fixed]['val/bpb']:+.3f}" if fixed in found else "–"
            steps = (done[fixed] / "done").read_text(encoding="utf-8") if fixed in found else "–"
            lines.append(
                f"| {language}, seed {seed} | {rate} | {reached:.2f} | {reached / rate - 1:+.1%} | "
                f"{found[router]['val/bpb']:.3f} | {value(fixed, 'val/bpb')} | {difference} | {steps} |"
            )
    lines += [
        "",
        "| N = 6, seed 1 | en, BPB | bytes per unit | zh-Hans, BPB | bytes per unit |",
        "|---|---:|---:|---:|---:|",
    ]
    for name in ("router6", "router6-noconv", "fixed6", "fixed6-noconv", "router6-copy", "router6-nosmooth",
                 "router6-nocontrol", "router6-published"):  # fmt: skip
        cells_of = [f"{name}-{language}-1" for language in ("en", "zh-Hans")]
        shown = [(value(cell, "val/bpb"), value(cell, "val/bytes_per_unit_stage2", ".2f")) for cell in cells_of]
        lines.append(f"| {name} | {' | '.join(itertools.chain(*shown))} |")
    lines += ["", "| | BPB | bytes per unit | precision | recall | F1 |", "|---|---:|---:|---:|---:|---:|"]
    for language, name, seed in itertools.product(("th", "zh-Hans"), ("distilled", "script_aware"), SEEDS):
        cell = f"{name}-{language}-{seed}"
        taught = [
            value(cell, f"val/teacher_{score}_stage2") if name == "distilled" else ""
            for score in ("precision", "recall", "f1")
        ]
        rate = value(cell, "val/bytes_per_unit_stage2", ".2f")
        lines.append(f"| {language}, {name}, seed {seed} | {value(cell, 'val/bpb')} | {rate} | {' | '.join(taught)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, required=True, help="a folder with train/ and valid/ LANGUAGE.jsonl.gz")
    parser.add_argument("--out", type=Path, required=True, help="where runs are kept")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, one core each")
    options = parser.parse_args()
    corpora, out = options.corpora.resolve(), options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    flops = {"router": work("router"), "fixed": work("fixed")}
    (out / "flops.json").write_text(json.dumps(flops), encoding="utf-8")
    waves = [[c for c in cells() if c.like is None], [c for c in cells() if c.like is not None]]
    with ThreadPoolExecutor(options.jobs) as pool:
        for wave in waves:
            list(pool.map(lambda cell: run(cell, corpora, out, flops), wave))
    print(tables(out))


if __name__ == "__main__":
    main()
