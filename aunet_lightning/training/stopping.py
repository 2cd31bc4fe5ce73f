"""How a run ends when it is told to: by Ctrl-C, SIGTERM or SIGUSR1."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from aunet_lightning.tracking.mlflow_logger import MLflowRunLogger
from aunet_lightning.training.steps import Votes

VOTES = {signal.SIGINT: "stop", signal.SIGTERM: "stop", signal.SIGUSR1: "requeue"}


class Stopped(BaseException):
    """A run that was told to stop. `step`: after which it is saved, as all its devices `agreed`; None: it was not
    training."""

    def __init__(self, by: int, step: int | None = None, agreed: bool = False) -> None:
        name = signal.Signals(by).name
        saved = f" after step {step}, which is saved" if step is not None else ""
        where = "there" if step is not None else "the last checkpoint, or begins where there is none"
        super().__init__(f"stopped by {name}{saved}: the same command continues from {where}")
        self.exit_code, self.agreed = 128 + by, agreed


@contextmanager
def stoppable() -> Iterator[None]:
    """Lets a signal end what runs in it by raising Stopped."""
    with handled(_raise):
        yield


def _raise(number: int, frame: Any) -> None:
    signal.signal(number, signal.SIG_IGN)  # what is being ended is not ended twice
    raise Stopped(number)


@contextmanager
def handled(handler: Any) -> Iterator[None]:
    """Lets `handler` have the signals, as far as this thread may say so, and gives them back."""
    usual = {}
    if threading.current_thread() is threading.main_thread():
        usual = {number: signal.signal(number, handler) for number in VOTES}
    try:
        yield
    finally:
        for number, before in usual.items():
            signal.signal(number, before)


def voting(votes: Votes) -> Any:
    """Returns a handler that asks for the end of the step and a save; a second Ctrl-C does not wait for it."""

    def ask(number: int, frame: Any) -> None:
        vote = VOTES[signal.Signals(number)]
        if number == signal.SIGINT:
            if vote in votes.asked:
                raise Stopped(number)
            os.write(2, b"\nCtrl-C: finishing the step and saving; once more stops at once\n")
        votes.asked.add(vote)
        votes.by = signal.Signals(number)

    return ask


class EndsAsStopped(Callback):
    """Lets MLflow show a run that was told to stop as killed, and not as failed."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Stopped):
            for logger in trainer.loggers:
                if isinstance(logger, MLflowRunLogger):
                    logger.ends_as = "KILLED"
