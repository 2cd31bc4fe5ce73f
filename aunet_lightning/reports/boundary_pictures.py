"""Pictures of learned boundaries as training proceeds."""

import json
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from aunet_lightning.reader.levels import FixedLevels, Levels
from aunet_lightning.reader.model_units import ModelUnits
from aunet_lightning.reports.pictures import as_html, one_per_script
from aunet_lightning.training.access import data_of, log_text, loggers_of
from aunet_lightning.training.module import AUNetModule
from splitters import DEFAULT, Stack


class BoundaryPictures(Callback):
    """Draws learned boundaries on a fixed text per script every so many steps: one page per drawing and one of all.

    The first row of each page is `script_aware`, for comparison.
    """

    MOST = 12  # drawings on the common page
    TEXTS, CHARACTERS = 8, 80

    def __init__(self, every: int) -> None:
        self.every = every
        self.drawn: dict[int, dict[str, list[int]]] = {}  # step → text → levels

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        kept = [logger.folder.path / "boundaries.json" for logger in loggers_of(trainer)]
        if trainer.ckpt_path is not None and kept and kept[0].exists():
            drawn = {int(step): levels for step, levels in json.loads(kept[0].read_text(encoding="utf-8")).items()}
            module = cast(AUNetModule, pl_module)
            from_step = module.steps_trained * module.continues  # later ones belong to an abandoned line
            self.drawn = {step: levels for step, levels in drawn.items() if step <= from_step}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        net, step = cast(AUNetModule, pl_module).net, trainer.global_step
        due = self.every and (step == 1 or step % self.every == 0 or step == trainer.max_steps)
        if not due or step in self.drawn or not net.predictors:
            return
        data = data_of(trainer)
        part = "val" if "val" in data.corpora else "train"
        texts = one_per_script(data.first_texts(part), characters=self.CHARACTERS)
        if each := self.TEXTS // len(texts):  # few scripts: several texts for each
            texts = one_per_script(data.first_texts(part, each), each, self.CHARACTERS)
        pl_module.eval()
        units = ModelUnits(net, data.reader)
        self.drawn[step] = {text.decode(): units.levels(text).tolist() for _, text in texts}
        pl_module.train()
        here = {f"step {step}": FixedLevels(units.depth, self.drawn[step])}
        steps = sorted(self.drawn)
        if len(steps) > self.MOST:  # the first, the last, and others spaced evenly between
            steps = [steps[round(i * (len(steps) - 1) / (self.MOST - 1))] for i in range(self.MOST)]
        all_ = {f"step {at}": FixedLevels(units.depth, self.drawn[at]) for at in steps}
        reference: dict[str, Levels] = {DEFAULT: Stack([DEFAULT])}
        log_text(trainer, as_html(texts, reference | here), f"boundaries/step-{step:06}.html")
        log_text(trainer, as_html(texts, reference | all_), "boundaries.html")
        log_text(trainer, json.dumps(self.drawn, ensure_ascii=False), "boundaries.json")
