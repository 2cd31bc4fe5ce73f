"""Writes the page of a run at each validation and at its end."""

import math
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from aunet_lightning.errors import describe
from aunet_lightning.paths import replace_text
from aunet_lightning.reports.run import clock
from aunet_lightning.reports.run.attention import attended
from aunet_lightning.reports.run.kept import (
    CloseLook,
    Look,
    read_close_look,
    read_looks,
    write_close_look,
    write_looks,
)
from aunet_lightning.reports.run.looking import LONG, look, read, sentences, unit_lengths
from aunet_lightning.tracking.run_folder import RunFolder
from aunet_lightning.training.access import data_of, log_text, loggers_of
from aunet_lightning.training.boundaries import BoundaryMetric
from aunet_lightning.training.module import AUNetModule
from aunet_lightning.training.report_config import ReportConfig
from aunet_lightning.training.stopping import Stopped

AS_LONG = 100  # times what a drawing took pass until the next one, but for the last; and so after a costly look
COSTLY = 3.0  # seconds; cheaper looks follow each validation


class RunPage(Callback):
    """Looks at the model at each validation, and draws `report.html` in the run's folder.

    The model is looked at on all devices where they hold parts of it, else on the first one, which alone writes. What
    goes wrong is a warning.
    """

    def __init__(self, folder: RunFolder, config: ReportConfig) -> None:
        self.folder, self.config = folder, config
        self.looks: dict[int, Look] = {}
        self.close = CloseLook()
        self.clock = clock.Clock()
        self._recalled = False  # whether training has begun, or ended at once
        self._drawn, self._took = -math.inf, 0.0  # when the page was drawn, and in how long
        self._looked, self._look_took, self._look_step = -math.inf, 0.0, -1  # the same of the last look, and its step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._recall(trainer, cast(AUNetModule, pl_module))  # not before: FSDP restores a run later

    def _recall(self, trainer: Trainer, module: AUNetModule) -> None:
        """Takes up what the folder keeps of a run that continues."""
        if self._recalled:
            return
        self._recalled = True
        if not (trainer.is_global_zero and module.continues):
            return
        self.looks = {  # later ones belong to an abandoned line
            one.step: one for one in read_looks(self.folder.looks) if one.step <= module.steps_trained
        }
        self.close = read_close_look(self.folder.close_look)
        for part, seconds in self.close.seconds.items():
            self.clock.seconds[part] = self.clock.seconds.get(part, 0.0) + seconds

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.clock.enter(clock.STEPS)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.clock.enter(clock.BETWEEN)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.clock.enter(clock.VALIDATION)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = cast(AUNetModule, pl_module)
        if not trainer.sanity_checking:
            if self._is_due(trainer, module):
                self._look(trainer, module)
            if self.clock.now() - self._drawn > AS_LONG * self._took:
                self._draw(trainer, "running")
        self.clock.enter(clock.BETWEEN)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = cast(AUNetModule, pl_module)
        self._recall(trainer, module)
        if trainer.global_step != self._look_step:  # (what files say, other devices may not know)
            self._look(trainer, module)
        self._draw(trainer, f"failed: {module.failure}" if module.failure is not None else "finished")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._recalled:
            stopped = isinstance(exception, Stopped | KeyboardInterrupt)
            self._draw(trainer, "stopped" if stopped else f"failed: {describe(exception, 200)}")

    def _is_due(self, trainer: Trainer, module: AUNetModule) -> bool:
        """Whether there is time for a look; all devices agree where all look."""
        due = self._look_took < COSTLY or self.clock.now() - self._looked > AS_LONG * self._look_took
        return trainer.strategy.broadcast(due) if module.net.sharded else due

    def _look(self, trainer: Trainer, module: AUNetModule) -> None:
        """Looks at the model, and keeps what it sees."""
        if not (module.net.sharded or trainer.is_global_zero):
            return
        self.clock.enter(clock.LOOKING)
        self._look_step, mode = trainer.global_step, module.net.training
        module.net.eval()
        try:
            with torch.compiler.set_stance("force_eager"):  # it would be compiled for each length
                self._look_at(trainer, module)
            if trainer.is_global_zero:
                write_looks(self.folder.looks, [self.looks[step] for step in sorted(self.looks)])
                write_close_look(self.folder.close_look, self.close)
        except Exception as error:  # whatever a user's splitter or a full disk raises, the run continues
            rank_zero_warn(f"{self.folder.page}: the model could not be looked at ({describe(error, 200)})")
        finally:
            module.net.train(mode)
        self._look_took, self._looked = self.clock.enter(clock.OTHER), self.clock.now()

    def _look_at(self, trainer: Trainer, module: AUNetModule) -> None:
        net, data, step = module.net, data_of(trainer), trainer.global_step
        texts = sentences(data)
        readings = [read(net, data.reader, name, text) for name, text in texts]
        self.looks[step] = look(net, data.reader, step, self.config, readings)
        lengths = unit_lengths(module.metric("val", BoundaryMetric)) if "val" in module.metrics else self.close.lengths
        weights = [one for _, text in sentences(data, 1, LONG) for one in attended(net, data.reader, text)]
        self.close = CloseLook(step, data.reader.depth, readings, weights, lengths, self.clock.seconds)

    def _draw(self, trainer: Trainer, state: str) -> None:
        if not trainer.is_global_zero:
            return
        self.clock.enter(clock.DRAWING)
        try:
            from aunet_lightning.reports.run.report import page_of  # matplotlib takes a moment to load

            text = page_of(self.folder, state, self.clock.seconds, trainer.global_step)
            if loggers_of(trainer):
                log_text(trainer, text, self.folder.page.name)
            else:
                replace_text(self.folder.page, text)
        except Exception as error:  # a page is no reason to lose a run
            rank_zero_warn(f"{self.folder.page} could not be drawn ({describe(error, 200)})")
        self._took, self._drawn = self.clock.enter(clock.OTHER), self.clock.now()
