"""When a run is saved, what is kept of it, and how it ends when it is told to.

Checkpoints are `step-NNNNNNNN.ckpt`, each whole or not there; `last.ckpt` and `best.ckpt` point at two of them.
"""

import math
import os
import re
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from aunet_lightning.checkpoints.forms import PART, point_link, remove
from aunet_lightning.checkpoints.lightning_io import AnyForm
from aunet_lightning.distributed.strategy import FSDP2Strategy
from aunet_lightning.errors import UserError
from aunet_lightning.tracking.run_folder import RunConfig, RunFolder
from aunet_lightning.training.module import AUNetModule
from aunet_lightning.training.stopping import Stopped, handled, voting

MONITOR = "val/bpb"


class Checkpointing(Checkpoint):
    """Saves every so many steps and minutes, what is best in validation, at the end, and on SIGTERM and SIGUSR1.

    A signal to any device is heard by all in the same step. Both end the run once it is saved; under SLURM SIGUSR1
    (sbatch --signal=USR1@120) puts the job back into the queue.
    """

    def __init__(self, folder: RunFolder, run: RunConfig) -> None:
        self.folder, self.run = folder, run
        self.scores: dict[int, float] = {}  # step → BPB
        self.pending: Path | None = None  # being written
        self.saved = -1  # the last step that was
        self.due = False  # whether a validation is due after this step
        self.unvalidated = False  # whether it is still to come
        self.saving = self.ended = False  # whether this callback saves; whether training is done
        self.next_time = 0.0
        self.lost: str | None = None  # why the last step could not be saved
        self.signals = ExitStack()

    def state_dict(self) -> dict[str, Any]:
        return {"scores": dict(self.scores)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.scores = {step: score for step, score in state_dict["scores"].items() if math.isfinite(score)}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.next_time = time.monotonic() + 60 * (self.run.checkpoint_minutes or 0)
        if trainer.is_global_zero:
            for left in self.folder.checkpoints.glob(f"*{PART}"):  # by a run that was killed
                remove(left)
            if self.folder.saved():
                self._keep(prune=False)
        # In place of Lightning's handlers, which save or speak with other devices in the middle of a step.
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
        self.due = self.unvalidated = _validation_is_due(trainer)
        spent = (module.budget.progress(module.spent) or 0.0) >= 1
        if spent or trainer.should_stop or trainer.global_step == trainer.max_steps:
            self.unvalidated = False
            return  # it is saved at the end, after the last validation
        told = agreed & {"stop", "requeue"}
        if agreed or trainer.global_step % self.run.checkpoint_every == 0:
            cast(Any, trainer)._logger_connector.update_train_step_metrics()  # or a kill from here on would lose them
            self._save(trainer)
        if told:
            self._stop(trainer, told)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: Any) -> None:
        votes = cast(AUNetModule, pl_module).votes
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            told = {
                name for name in ("stop", "requeue")
                if trainer.strategy.reduce_boolean_decision(name in votes.asked, all=False)
            }  # fmt: skip
            if told and trainer.global_step != trainer.max_steps:
                self._save(trainer)
                self._stop(trainer, told)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Says where in the step Lightning is, which it guesses when it goes on: a validation that is due it makes up
        only if that was begun, and whether the step is counted depends on whether one was due."""
        if not self.saving:
            return
        # Saved at a batch's end, Lightning counts a step as it goes on; saved inside the validation, it does not.
        before_validation = self.unvalidated and not trainer.validating
        uncounted = before_validation + (self.due or not self.ended)
        checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"] = (
            trainer.global_step - uncounted
        )
        if self.unvalidated:
            begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            progress = {"total": dict(begun), "current": dict(begun), "is_last_batch": False}
            checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"] = progress

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        score = trainer.callback_metrics.get(MONITOR)
        if trainer.state.fn != "fit" or trainer.sanity_checking or score is None:
            return
        self.unvalidated = False
        if math.isfinite(score):  # else it is not best, whatever it is compared with
            self.scores[trainer.global_step] = float(score)
        if trainer.global_step in self._best() and not trainer.should_stop:  # else it is saved at the end
            self._save(trainer)
            self._settle(trainer, tidy=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.ended = True
        self._save(trainer)
        self._settle(trainer, wait=True)
        self.lost = trainer.strategy.broadcast(self.lost)  # so that all devices end alike
        self.signals.close()  # what follows can be left out, and so ends at once

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.signals.close()

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
        """Where a checkpoint is written (or to `tidy`): points at it, and removes what is no longer kept."""
        sharded = trainer.strategy if isinstance(trainer.strategy, FSDP2Strategy) else None
        if wait and sharded is not None:  # all devices, whatever each of them knows to be written
            sharded.wait()
        if self.pending is None and tidy and trainer.is_global_zero and self.folder.saved():
            self._keep()
        if self.pending is None or (sharded is not None and sharded.saving):
            return
        path, self.pending = self.pending, None
        if not trainer.is_global_zero:
            return
        failed = sharded.problem if sharded is not None else cast(AnyForm, trainer.strategy.checkpoint_io).failed
        if failed or not path.exists():
            remove(path.with_name(path.name + PART))
            self.lost = f"the checkpoint {path} could not be written ({failed})"
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
        there = self.folder.saved()  # by step, whole ones
        best = [step for step in self._best() if step in there]
        kept = {*sorted(there)[-self.run.keep_last :], *best}
        point_link(self.folder.last, there[max(there)])
        if best:
            point_link(self.folder.best, there[best[0]])
        for step in there.keys() - kept if prune else ():
            remove(there[step])

    def _stop(self, trainer: Trainer, told: set[str]) -> None:
        self._settle(trainer, wait=True)
        by = signal.SIGUSR1 if "requeue" in told else cast(AUNetModule, trainer.lightning_module).votes.by
        job = os.environ.get("SLURM_JOB_ID")
        if by == signal.SIGUSR1 and job and trainer.is_global_zero:
            array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
            job = f"{array}_{task}" if array and task else job
            if not re.fullmatch(r"[0-9_]+", job):
                rank_zero_warn(f"SLURM_JOB_ID is {job!r}, not a number: the job is not put back into the queue")
            else:
                done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
                rank_zero_info(f"scontrol requeue {job}: {done.stderr.strip() or 'done'}")
        if self.lost is not None:
            raise UserError(f"stopped by {by.name}, and {self.lost}")
        raise Stopped(by, trainer.global_step, agreed=True)


def _validation_is_due(trainer: Trainer) -> bool:
    """Whether a validation follows this step by its number, and not because the run stops."""
    loop: Any = trainer.fit_loop
    stops, trainer.should_stop = trainer.should_stop, False
    due = loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
    trainer.should_stop = stops
    return bool(due)
