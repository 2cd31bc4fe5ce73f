"""Stopping a run by Ctrl-C, SIGTERM or SIGUSR1."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from aunet_lightning.errors import describe
from aunet_lightning.tracking.run_folder import RunFolder
from aunet_lightning.training.access import loggers_of
from aunet_lightning.training.steps import Votes

VOTES = {signal.SIGINT: "stop", signal.SIGTERM: "stop", signal.SIGUSR1: "requeue"}


class Stopped(BaseException):
    """A run stopped by a signal. step: the step after which it is saved, on which all devices `agreed`; None: it was
    not training."""

    def __init__(self, by: int, step: int | None = None, agreed: bool = False) -> None:
        name = signal.Signals(by).name
        saved = f" after step {step}, which is saved" if step is not None else ""
        where = "there" if step is not None else "the last checkpoint, or begins where there is none"
        super().__init__(f"stopped by {name}{saved}: the same command continues from {where}")
        self.exit_code, self.agreed = 128 + by, agreed


@contextmanager
def stoppable() -> Iterator[None]:
    """Makes a signal raise Stopped inside the context."""
    with handled(_raise):
        yield


def _raise(number: int, frame: Any) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second signal does not interrupt the ending
    raise Stopped(number)


@contextmanager
def handled(handler: Any) -> Iterator[None]:
    """Gives the signals to `handler` inside the context, if this is the main thread."""
    usual = {}
    if threading.current_thread() is threading.main_thread():
        usual = {number: signal.signal(number, handler) for number in VOTES}
    try:
        yield
    finally:
        for number, before in usual.items():
            signal.signal(number, before)


def voting(votes: Votes) -> Any:
    """Returns a handler that requests a save and a stop after the step; a second Ctrl-C stops at once."""

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
    """Sets the MLflow status of a run stopped by a signal to killed rather than failed, and records in the folder of a
    run that trains the error that ended it."""

    def __init__(self, folder: RunFolder | None) -> None:
        self.folder = folder

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Stopped):
            for logger in loggers_of(trainer):
                logger.ends_as = "KILLED"
        elif self.folder is not None and isinstance(exception, Exception):  # of any device: others may be stopped by it
            self.folder.record_failure(describe(exception, 300))
