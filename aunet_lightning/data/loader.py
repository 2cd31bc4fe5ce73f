"""Loaders that a checkpoint can put back on the very batch they would have given next."""

import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Sampler

from aunet_lightning.data.packing import Batch, PackedBatches
from aunet_lightning.lightning_private import end_workers
from aunet_lightning.processes import end_with_parent

STEP = 30.0  # seconds that a step may take after a signal


class ResumableLoader(ABC):
    """Batches, with a state of plain data.

    Lightning saves and restores any train loader with `state_dict`, and needs `__len__` not to
    fetch one batch ahead, which would be lost at a resume.
    """

    def __init__(self, batches: Any, workers: int, sampler: Sampler | None = None) -> None:
        self.waited = 0.0  # seconds that batches were waited for
        self._loader = DataLoader(
            batches, batch_size=None, sampler=sampler, num_workers=workers, persistent_workers=workers > 0,
            worker_init_fn=_begin,
        )  # fmt: skip

    def _given(self) -> Iterator[Batch]:
        asked = time.perf_counter()
        for batch in self._loader:
            self.waited += time.perf_counter() - asked
            yield batch
            asked = time.perf_counter()

    def close(self) -> None:
        """Ends the workers now. (Left to the garbage collector, each can be waited for five seconds.)"""
        end_workers(self._loader)

    @abstractmethod
    def __len__(self) -> int:
        """Batches of an epoch."""

    @abstractmethod
    def __iter__(self) -> Iterator[Batch]:
        """Yields the batches that are left of an epoch, or those of the next."""

    @abstractmethod
    def drawn(self) -> np.ndarray:
        """Returns the bytes of text of each language in all batches so far, int64 [languages], all ranks together."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]: ...

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class EpochLoader(ResumableLoader):
    """Batches of `PackedBatches`, epoch after epoch; the state is two integers."""

    def __init__(self, batches: PackedBatches, workers: int, repeat_epoch: bool = False) -> None:
        self.batches = batches
        self.repeat_epoch = repeat_epoch  # validation reads epoch 0 every time
        self._next = _Remaining(len(batches))
        self._complete: list[np.ndarray] = []  # what was drawn in each complete epoch
        super().__init__(batches, workers, self._next)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        # An epoch's end is seen here, at the beginning of the next: who knows the length, as Lightning
        # does, never asks for the batch after the last.
        if self.repeat_epoch:
            self._next.position = 0
        elif self._next.position >= len(self):
            self._next.epoch, self._next.position = self._next.epoch + 1, 0
        for batch in self._given():
            self._next.position += 1
            yield batch

    def drawn(self) -> np.ndarray:
        for epoch in range(len(self._complete), self._next.epoch):
            self._complete.append(self.batches.drawn(epoch, len(self)))
        of_epoch = self.batches.drawn(self._next.epoch, self._next.position)
        return np.sum([*self._complete, of_epoch], axis=0)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._next.epoch, "position": self._next.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._next.epoch, self._next.position = state["epoch"], state["position"]


def _begin(worker: int) -> None:
    """In a worker: a signal to all processes (Ctrl-C, a job's end) is for the one that trains, which ends its step, and
    saves, before it ends its workers."""
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: threading.Timer(STEP, os._exit, [1]).start())
    end_with_parent(grace=0)


class _Remaining(Sampler[tuple[int, int]]):
    """What is left of an epoch: (epoch, position) of the next batch, and of those after it."""

    def __init__(self, n_batches: int) -> None:
        self.n_batches = n_batches
        self.epoch = self.position = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for k in range(self.position, self.n_batches):
            yield self.epoch, k

    def __len__(self) -> int:
        return self.n_batches - self.position
