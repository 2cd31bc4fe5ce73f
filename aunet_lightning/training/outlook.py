"""How long a run will take, what it will cost and how often it reads its text: said after its first steps, and kept up
to date as `perf/seconds_left`."""

import sys
import time
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from tqdm import tqdm

from aunet_lightning.data.datamodule import ByteDataModule
from aunet_lightning.training.access import data_of
from aunet_lightning.training.module import AUNetModule

AFTER = 10.0  # seconds of training before anything is said
FIRST = 5  # steps that are not timed: compilation, and memory that is asked for once


def duration(seconds: float) -> str:
    """Returns a duration in words: `40 s`, `12 min`, `3.5 h`, `2.1 days`."""
    for size, unit in ((86400.0, "days"), (3600.0, "h")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def three_digits(value: float) -> str:
    """Returns a number to three digits, or whole from a hundred on."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


@rank_zero_only
def _say(line: str) -> None:
    tqdm.write(line)  # above a bar


def _often(data: ByteDataModule, text: float) -> str:
    """How often so many bytes of text read each document; a stream's number of documents is unknown."""
    if data.stream is not None:
        return ""
    sizes = data.amounts("train").values()
    epochs = text / sum(size.read for size in sizes)
    times = sorted({three_digits(epochs * size.read / max(size.bytes, 1)) for size in sizes}, key=_number)
    return f" (each document {times[0] if len(times) == 1 else f'{times[0]} to {times[-1]}'} times)"


def _number(text: str) -> float:
    return float(text.replace(",", ""))


class Outlook(Callback):
    """Says what is ahead of a run, at the pace of this process so far, validation included."""

    def __init__(self) -> None:
        self._batches = 0
        self._begun: tuple[float, int] | None = None  # when, at which step
        self._left: float | None = None  # seconds
        self._said = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module, now, step = cast(AUNetModule, pl_module), time.monotonic(), trainer.global_step
        self._batches += 1
        if self._begun is None:
            self._begun = (now, step) if self._batches >= FIRST else None
            return
        begun, first = self._begun
        if step > first:
            self._left = (now - begun) / (step - first) * max(module.total_steps(step) - step, 0)
            module.noted["perf/seconds_left"] = self._left
            if not self._said and now - begun >= AFTER:
                self._said = True
                _say(f"about {duration(self._left)} left: {self._total(trainer, module)}")

    def _total(self, trainer: Trainer, module: AUNetModule) -> str:
        data, steps = data_of(trainer), module.total_steps(trainer.global_step)
        share = steps / trainer.global_step
        text = module.spent.bytes * share
        return (
            f"{steps:,.0f} steps in all, {three_digits(text / 1e6)} MB of text{_often(data, text)}, "
            f"{module.spent.flops * share:.2g} FLOPs"
        )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """In a log, which has no bar, says where the run is."""
        if self._left is None or sys.stderr.isatty() or trainer.sanity_checking:
            return
        step, bpb = trainer.global_step, trainer.callback_metrics.get("val/bpb")
        known = "" if bpb is None else f", {float(bpb):.3f} bits per byte"
        steps = cast(AUNetModule, pl_module).total_steps(step)
        _say(f"step {step:,} of {steps:,.0f}{known}, about {duration(self._left)} left")
