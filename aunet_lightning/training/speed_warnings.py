"""Warnings where a choice costs time: one sentence each, with the remedy. Each function returns it, or None."""

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from aunet_lightning.data.loader import ResumableLoader
from aunet_lightning.data.packing import Batch
from aunet_lightning.model.config import StageConfig
from aunet_lightning.training.access import data_of

MOST_WAITED = 0.2  # of a step
MOST_PADDED = 0.5  # of the trunk's positions
FIRST, STEPS = 5, 20  # batches that nothing is measured in, and those that it is
BF16 = {"avx512_bf16", "amx_bf16", "bf16"}  # as Linux names instructions, on x86 and on ARM


class SpeedWarnings(Callback):
    """Says once, as training begins and after its first steps, what makes it slower than it need be."""

    def __init__(self) -> None:
        self.batches = self.units = self.places = 0  # seen; units of the trunk; positions with their padding
        self.begin = self.waited = 0.0  # when measuring began, and what had been waited for batches by then

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.strategy.root_device.type == "cpu":
            _warn(without_bf16(str(trainer.precision), instructions()))
            _warn(too_many_threads(torch.get_num_threads(), trainer.num_devices, cores()))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        loader = trainer.train_dataloader
        if self.batches > FIRST + STEPS or not isinstance(loader, ResumableLoader):
            return
        if self.batches == FIRST:
            self.begin, self.waited = time.perf_counter(), loader.waited
        elif self.batches == FIRST + STEPS:
            share = (loader.waited - self.waited) / (time.perf_counter() - self.begin)
            _warn(slow_loader(share, data_of(trainer).workers))
            _warn(padded_trunk(self.units, self.places))
        if batch["n_units"] and len(batch["n_units"]) == data_of(trainer).reader.stack.depth:  # all are known
            of_trunk = batch["n_units"][-1]
            self.units, self.places = self.units + sum(of_trunk), self.places + len(of_trunk) * max(of_trunk)
        self.batches += 1


def _warn(sentence: str | None) -> None:
    if sentence is not None:
        rank_zero_warn(sentence)


def without_bf16(precision: str, known: set[str] | None) -> str | None:
    """known: the instructions of this CPU, None where it cannot be asked."""
    if not precision.startswith("bf16") or known is None or known & BF16:
        return None
    return (
        f"trainer.precision is {precision}, but this CPU has no instructions for it (avx512_bf16, amx_bf16): a step "
        "can take 17 times as long as in float32; set it to 32-true"
    )


def too_many_threads(threads: int, processes: int, n_cores: int) -> str | None:
    """threads: of each process on this host."""
    if threads * processes <= n_cores:
        return None
    return (
        f"{processes * threads} threads ({processes} processes of {threads}) share {n_cores} cores, so they wait for "
        f"one another: set the environment variable OMP_NUM_THREADS to {max(n_cores // processes, 1)}"
    )


def wide_windows(stages: Sequence[StageConfig], positions: Sequence[float]) -> str | None:
    """positions: of the mean row, per stage."""
    wide = [
        f"model.net.stages[{s}].window is {stage.window}, where a row has {n:.0f} positions"
        for s, (stage, n) in enumerate(zip(stages, positions, strict=True))
        if stage.window is not None and stage.window > n
    ]
    if not wide:
        return None
    return (
        f"{', and '.join(wide)}: a window that is larger than the row limits nothing, and attention takes time by the "
        "row's square; lower it, or raise data.row_bytes"
    )


def slow_loader(waited: float, workers: int) -> str | None:
    """waited: the share of a step spent waiting for the next batch."""
    if waited <= MOST_WAITED:
        return None
    enough = workers / max(1 - waited, 0.1) if workers else waited / max(1 - waited, 0.1)
    return (
        f"{waited:.0%} of the time of {STEPS} steps was spent waiting for the next batch, which data.workers "
        f"({workers}) split and pack: set it to {math.ceil(enough)}"
    )


def padded_trunk(units: int, places: int) -> str | None:
    """units: of the trunk in some batches; places: its positions there, where all rows are as long as the longest."""
    padded = 1 - units / max(places, 1)
    if not places or padded <= MOST_PADDED:
        return None
    return (
        f"{padded:.0%} of the trunk's positions are padding, which takes attention's time, as rows of a batch begin "
        "very different numbers of units: raise data.row_bytes, so that they even out, or choose a splitter whose "
        "units are of more even length (script_aware)"
    )


def instructions() -> set[str] | None:
    """Returns the instruction sets of this CPU by Linux's names, None on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    flags = (line.partition(":")[2] for line in text.splitlines() if line.startswith(("flags", "Features")))
    return set(next(flags, "").split()) or None


def cores() -> int:
    """Returns the cores that this process may use: of the machine, by its affinity, or by its container's limit."""
    has = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name in ("cpu.max", "cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us"):  # cgroups, version 2 and 1
        try:
            read = " ".join((Path("/sys/fs/cgroup") / file).read_text(encoding="ascii") for file in name.split())
            quota, period = map(int, read.split())
        except (OSError, ValueError):  # no container of this kind, or no limit: "max"
            continue
        if quota > 0:
            has = min(has, -(-quota // period))
    return has
