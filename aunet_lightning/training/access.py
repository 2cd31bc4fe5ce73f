"""Typed access to what a trainer holds, and output by the first process alone."""

from typing import Any, cast

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only

from aunet_lightning.data.datamodule import ByteDataModule
from aunet_lightning.tracking.mlflow_logger import MLflowRunLogger


def data_of(trainer: Trainer) -> ByteDataModule:
    """Returns the trainer's data module, which Lightning's Trainer does not declare."""
    return cast(ByteDataModule, cast(Any, trainer).datamodule)


def loggers_of(trainer: Trainer) -> list[MLflowRunLogger]:
    """Returns the trainer's loggers that write to a run folder."""
    return [logger for logger in trainer.loggers if isinstance(logger, MLflowRunLogger)]


def log_text(trainer: Trainer, text: str, artifact: str) -> None:
    """Keeps a text in the run folder and as an artifact in MLflow."""
    for logger in loggers_of(trainer):
        logger.log_text(text, artifact)


@rank_zero_only
def say(*lines: str) -> None:
    """Prints lines, in the first process alone."""
    print(*lines, sep="\n", flush=True)
