"""Progress of training: the bar, and the rate at which text is read."""

import time
from collections import deque
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from aunet_lightning.training.module import AUNetModule


class BpbProgressBar(TQDMProgressBar):
    """The training bar alone, with bits per byte."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=10)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        module = cast(AUNetModule, pl_module)
        if module.step.sums is not None:
            metrics["train/bpb"] = module.step.bpb  # of this step, whether or not it is logged
        if (progress := module.budget.progress(module.spent)) is not None:
            metrics["spent"] = f"{progress:.0%}"
        return cast(dict[str, Any], metrics)

    def init_validation_tqdm(self) -> Tqdm:
        return Tqdm(disable=True)


class Throughput(Callback):
    """Logs perf/bytes_per_second of training, over the last few batches and without validation."""

    WINDOW = 20

    def __init__(self) -> None:
        self.marks: deque[tuple[float, float]] = deque(maxlen=self.WINDOW)  # (when, bytes seen by then)
        self._validated = False  # since the last batch

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.marks.clear()
        self._validated = not trainer.sanity_checking

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._validated:  # not at its end, after which reports take their time
            self._validated = False
            self._mark(cast(AUNetModule, pl_module))

    def _mark(self, module: AUNetModule) -> None:
        self.marks.append((time.perf_counter(), module.spent.bytes))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module = cast(AUNetModule, pl_module)
        self._mark(module)
        (begin, before), (now, seen) = self.marks[0], self.marks[-1]
        if now > begin:
            module.noted["perf/bytes_per_second"] = (seen - before) / (now - begin)
