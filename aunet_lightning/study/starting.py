"""The seam between a study and what runs its cells: the processes of this machine (`fork_server`), or the jobs of a
cluster (`cluster`)."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence

from aunet_lightning.study.grid import Study
from aunet_lightning.study.sizing import Sized


class Started(ABC):
    """A cell that was started."""

    @property
    def sentinels(self) -> Sequence[int]:
        """What `multiprocessing.connection.wait` can wait for; where there is nothing, `codes` is looked at."""
        return ()

    @property
    @abstractmethod
    def codes(self) -> Sequence[int] | None:
        """The exit codes of its processes, once all have ended."""

    @abstractmethod
    def stop(self) -> None:
        """Asks it to save and end."""

    @abstractmethod
    def kill(self) -> None:
        """Ends what has not ended by itself."""


class Starter(ABC):
    """Starts cells."""

    @abstractmethod
    def start(self, cell: Sized, slot: int) -> Started:
        """Starts a cell in one of the study's `jobs` slots."""


def gpus_of(slot: int, study: Study) -> str:
    """Returns the GPUs of a slot, among those that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    numbers = ",".join(map(str, range(study.jobs * study.gpus_per_cell)))
    visible = (os.environ.get("CUDA_VISIBLE_DEVICES") or numbers).split(",")
    return ",".join(visible[slot * study.gpus_per_cell : (slot + 1) * study.gpus_per_cell])


def threads_of(cell: Sized, study: Study) -> int:
    """Returns the threads of each process of a cell, of which `study.jobs` share this machine."""
    return max((study.threads or max((os.cpu_count() or 1) // study.jobs, 1)) // cell.devices, 1)
