"""Progress of training: the bar, and the rate at which text is read."""

import sys
import time
from collections import deque
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from aunet_lightning.training.module import AUNetModule


class BpbProgressBar(TQDMProgressBar):
    """The training bar alone, with bits per byte: on stderr, so that results can be piped. Where that is no terminal,
    a line a minute takes its place."""

    EVERY = 60.0  # seconds between lines

    def __init__(self) -> None:
        self.in_lines = not sys.stderr.isatty()
        super().__init__(refresh_rate=0 if self.in_lines else 10)  # 0: no bars
        self.next_line = time.monotonic() + self.EVERY

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        module = cast(AUNetModule, pl_module)
        if module.step.sums is not None:
            metrics["train/bpb"] = module.step.bpb  # of this step, whether or not it is logged
        if (progress := module.budget.progress(module.spent)) is not None:
            metrics["spent"] = f"{progress:.0%}"
        return cast(dict[str, Any], metrics)

    def init_train_tqdm(self) -> Tqdm:
        return self._bar(self.train_description)

    def init_test_tqdm(self) -> Tqdm:
        return self._bar(self.test_description)

    def init_predict_tqdm(self) -> Tqdm:
        return self._bar(self.predict_description)

    def init_validation_tqdm(self) -> Tqdm:
        return Tqdm(disable=True)

    def _bar(self, description: str) -> Tqdm:
        return Tqdm(
            desc=description, disable=self.is_disabled, leave=True, dynamic_ncols=True, file=sys.stderr, smoothing=0,
            bar_format=self.BAR_FORMAT,
        )  # fmt: skip

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._is_due():
            most = f" of {trainer.max_steps}" if trainer.max_steps > 0 else ""
            metrics = self.get_metrics(trainer, pl_module)
            shown = [f"{key} {value if isinstance(value, str) else f'{value:.3f}'}" for key, value in metrics.items()]
            self._line(f"step {trainer.global_step}{most}: {', '.join(shown)}")

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *more: Any
    ) -> None:
        super().on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, *more)
        self._batch("validation", batch_idx, self.total_val_batches_current_dataloader)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *more: Any
    ) -> None:
        super().on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, *more)
        self._batch("test", batch_idx, self.total_test_batches_current_dataloader)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *more: Any
    ) -> None:
        super().on_predict_batch_end(trainer, pl_module, outputs, batch, batch_idx, *more)
        self._batch("predict", batch_idx, self.total_predict_batches_current_dataloader)

    def _batch(self, what: str, batch_idx: int, total: float) -> None:
        if self._is_due():
            self._line(f"{what}: batch {batch_idx + 1} of {total}")

    def _is_due(self) -> bool:
        return self.in_lines and self._enabled and time.monotonic() >= self.next_line  # enabled: of the first device

    def _line(self, text: str) -> None:
        self.next_line = time.monotonic() + self.EVERY
        print(text, file=sys.stderr, flush=True)


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
