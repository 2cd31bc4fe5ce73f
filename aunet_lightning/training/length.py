"""Length of a run in steps, from the trainer's limits and the batches of its data."""

import math

from lightning.pytorch import Trainer

from aunet_lightning.data.datamodule import ByteDataModule
from aunet_lightning.data.streaming import ENDLESS


def batches_per_epoch(trainer: Trainer, data: ByteDataModule) -> int:
    """Returns the training batches of an epoch, as `limit_train_batches` (or overfit_batches) leaves them.

    A stream is one epoch.
    """
    batches = len(data.batches("train")) if data.stream is None else ENDLESS
    limit = trainer.limit_train_batches
    return min(batches, limit) if isinstance(limit, int) else int(batches * (1.0 if limit is None else limit))


def steps_of(trainer: Trainer, data: ByteDataModule) -> float:
    """Returns the steps after which the trainer ends a run, inf where it does not.

    (`trainer.estimated_stepping_batches` would load data and lose its place.)
    """
    steps = trainer.max_steps if trainer.max_steps >= 0 else math.inf
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        # An epoch's last batch steps, even where too few are left to accumulate.
        of_epoch = -(-batches_per_epoch(trainer, data) // trainer.accumulate_grad_batches)
        steps = min(steps, trainer.max_epochs * of_epoch)
    return max(steps, 1)
