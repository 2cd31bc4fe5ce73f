"""Checkpoints of a run: when they are saved, which are kept, and how a signal ends the run once it is saved.

Checkpoints are `step-NNNNNNNN.ckpt`, each complete or absent; `last.ckpt` and `best.ckpt` point at two of them.
"""

import math
import os
import re
import signal
import subprocess
import time
from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from aunet_lightning.checkpoints.forms import point_link
from aunet_lightning.errors import UserError
from aunet_lightning.lightning_private import (
    log_step_metrics,
    set_logged_steps,
    set_validation_begun,
    validation_is_due,
)
from aunet_lightning.paths import PART, remove
from aunet_lightning.tracking.run_folder import RunConfig, RunFolder
from aunet_lightning.training.module import AUNetModule
from aunet_lightning.training.stopping import Stopped, handled, voting

MONITOR = "val/bpb"
LEEWAY = 1.5  # how many times the mean step the next one may be


@runtime_checkable
class Saves(Protocol):
    """A strategy or checkpoint plugin that writes checkpoints, perhaps while training continues."""

    @property
    def saving(self) -> bool:
        """Whether a checkpoint is still being written, as far as this device knows."""

    @property
    def problem(self) -> str | None:
        """Why the last checkpoint could not be written, or None."""

    def wait(self) -> None:
        """Waits until the last checkpoint is written; all devices call it."""


class Validation(Enum):
    """The validation of a step: the part of Lightning's place in the step that a checkpoint must record."""

    NOT_DUE = "none follows this step"
    AHEAD = "it is still to come"
    BEHIND = "it has ended, or the run's end replaces it"


class Checkpointing(Checkpoint):
    """Saves every so many steps and minutes, at the best validations, at the end, and on SIGTERM and SIGUSR1.

    A signal to any device is heard by all in the same step. Both signals end the run once it is saved; under SLURM
    SIGUSR1 (sbatch --signal=USR1@120) also requeues the job.
    """

    def __init__(self, folder: RunFolder, run: RunConfig) -> None:
        self.folder, self.run = folder, run
        self.scores: dict[int, float] = {}  # step → BPB
        self.kept: dict[float, int] = {}  # share of the run → the step that is kept for it
        self.pending: Path | None = None  # being written
        self.saved = -1  # the last step saved
        self.validation = Validation.NOT_DUE
        self.last = False  # whether the last step is done, after which comes at most a validation
        self.ended = False  # whether training is done
        self.saving = False  # whether the checkpoint that Lightning now makes is ours
        self.next_time = 0.0
        self.lost: str | None = None  # why the last step could not be saved
        self.signals = ExitStack()

    def state_dict(self) -> dict[str, Any]:
        return {"scores": dict(self.scores)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.scores = {step: score for step, score in state_dict["scores"].items() if math.isfinite(score)}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.next_time = time.monotonic() + 60 * (self.run.checkpoint_minutes or 0)
        self.kept = self.folder.kept()
        if trainer.is_global_zero:
            for left in self.folder.checkpoints.glob(f"*{PART}"):  # by a run that was killed
                remove(left)
            if self.folder.saved():
                self._keep(prune=False)
        # Replaces Lightning's handlers, which save or communicate with other devices in the middle of a step.
        self.signals.enter_context(handled(voting(cast(AUNetModule, pl_module).votes)))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._settle(trainer)
        module = cast(AUNetModule, pl_module)
        if not module.step.ended:  # gradients are being accumulated
            return
        if self.run.checkpoint_minutes and trainer.is_global_zero and time.monotonic() >= self.next_time:
            module.votes.asked.add("save")  # heard in the next step
            self.next_time = time.monotonic() + 60 * self.run.checkpoint_minutes
        agreed, module.votes.agreed = module.votes.agreed, set()
        self.validation = Validation.AHEAD if validation_is_due(trainer) else Validation.NOT_DUE
        spent = (module.budget.progress(module.spent) or 0.0) >= 1
        self.last = spent or trainer.should_stop or trainer.global_step == trainer.max_steps
        if self.last:
            self._pass_validation()
            return  # it is saved at the end, after the last validation
        stops = agreed & {"stop", "requeue"}
        if agreed or self._passes(trainer, module) or trainer.global_step % self.run.checkpoint_every == 0:
            module.log_step()
            log_step_metrics(trainer)  # a kill from here on would lose them
            self._save(trainer)
        if stops:
            self._stop(trainer, stops)

    def _passes(self, trainer: Trainer, module: AUNetModule) -> bool:
        """Whether the next step passes a share of the run before which a checkpoint is kept."""
        if not self.run.keep_at:
            return False
        step = trainer.global_step
        total = module.total_steps(step)
        done, reach = step / total, (step + LEEWAY) / total
        passed = [share for share in self.run.keep_at if done <= share < reach and share not in self.kept]
        self.kept |= dict.fromkeys(passed, step)
        if passed and trainer.is_global_zero:
            self.folder.record_kept(self.kept)
        return bool(passed)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: Any) -> None:
        votes = cast(AUNetModule, pl_module).votes
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            stops = {
                name for name in ("stop", "requeue")
                if trainer.strategy.reduce_boolean_decision(name in votes.asked, all=False)
            }  # fmt: skip
            if stops and not self.last:  # a run that continued there would take that validation for done
                self._save(trainer)
                self._stop(trainer, stops)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Records the place within the step, which Lightning infers on resume.

        It re-runs a pending validation only if that had started, so we record it as started. It counts a step that was
        saved at its batch's end while it continues, but not one saved inside or after a validation.
        """
        if not self.saving:
            return
        ahead = self.validation is Validation.AHEAD
        uncounted = (ahead and not trainer.validating) + (self.validation is not Validation.NOT_DUE or not self.ended)
        set_logged_steps(checkpoint, trainer.global_step - uncounted)
        if ahead:
            set_validation_begun(checkpoint)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        score = trainer.callback_metrics.get(MONITOR)
        if trainer.state.fn != "fit" or trainer.sanity_checking or score is None:
            return
        self._pass_validation()
        if math.isfinite(score):  # comparisons with NaN would rank it best
            self.scores[trainer.global_step] = float(score)
        if trainer.global_step in self._best() and not trainer.should_stop:  # else it is saved at the end
            self._save(trainer)
            self._settle(trainer, tidy=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.ended = True
        self._save(trainer)
        self._settle(trainer, wait=True)
        self.lost = trainer.strategy.broadcast(self.lost)  # so that all devices end alike
        self.signals.close()  # what follows may be skipped, so a signal ends it at once

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.signals.close()  # teardown is not called then, and a collector would put the handlers back at any time

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.signals.close()

    def _pass_validation(self) -> None:
        if self.validation is Validation.AHEAD:
            self.validation = Validation.BEHIND

    def _save(self, trainer: Trainer) -> None:
        step = trainer.global_step
        if step == self.saved:
            return
        self._settle(trainer, wait=True)
        self.pending, self.saved = self.folder.step(step), step
        self.saving = True
        trainer.save_checkpoint(self.pending)
        self.saving = False
        self._settle(trainer)

    def _settle(self, trainer: Trainer, wait: bool = False, tidy: bool = False) -> None:
        """Once a checkpoint is written (or to `tidy`), points at it and removes those no longer kept."""
        saves = _saves(trainer)
        if wait:  # on all devices, whatever each of them knows to be written
            saves.wait()
        if self.pending is None and tidy and trainer.is_global_zero and self.folder.saved():
            self._keep()
        if self.pending is None or saves.saving:
            return
        path, self.pending = self.pending, None
        if not trainer.is_global_zero:
            return
        if saves.problem or not path.exists():
            remove(path.with_name(path.name + PART))
            self.lost = f"the checkpoint {path} could not be written ({saves.problem})"
            rank_zero_warn(f"{self.lost}" + ("" if self.ended else ": the run continues, and tries again later"))
            return
        self.lost = None
        self._keep()

    def _best(self) -> list[int]:
        """The steps with the lowest BPB, best first."""
        return sorted(self.scores, key=lambda step: (self.scores[step], step))[: self.run.keep_best]

    def _keep(self, prune: bool = True) -> None:
        try:
            self._point(prune)
        except OSError as error:
            rank_zero_warn(f"{self.folder.checkpoints} could not be tidied ({error}): older checkpoints stay")

    def _point(self, prune: bool) -> None:
        saved = self.folder.saved()
        best = [step for step in self._best() if step in saved]
        kept = {*sorted(saved)[-self.run.keep_last :], *best, *self.kept.values()}
        point_link(self.folder.last, saved[max(saved)])
        if best:
            point_link(self.folder.best, saved[best[0]])
        for step in saved.keys() - kept if prune else ():
            remove(saved[step])

    def _stop(self, trainer: Trainer, stops: set[str]) -> None:
        """Raises Stopped, once the step is saved, or UserError where it could not be."""
        self._settle(trainer, wait=True)
        by = signal.SIGUSR1 if "requeue" in stops else cast(AUNetModule, trainer.lightning_module).votes.by
        if by == signal.SIGUSR1 and trainer.is_global_zero:
            _requeue()
        if self.lost is not None:
            raise UserError(f"stopped by {by.name}, and {self.lost}")
        raise Stopped(by, trainer.global_step, agreed=True)


def _saves(trainer: Trainer) -> Saves:
    """Returns the trainer's part that writes checkpoints: the strategy, or else its plugin."""
    return trainer.strategy if isinstance(trainer.strategy, Saves) else cast(Saves, trainer.strategy.checkpoint_io)


def _requeue() -> None:
    """Puts the SLURM job of this process, if it has one, back into the queue."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else job
    if not re.fullmatch(r"[0-9_]+", job):
        rank_zero_warn(f"SLURM_JOB_ID is {job!r}, not a number: the job is not requeued")
        return
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    rank_zero_info(f"scontrol requeue {job}: {done.stderr.strip() or 'done'}")
