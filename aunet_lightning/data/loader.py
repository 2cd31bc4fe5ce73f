"""A loader that a checkpoint can put back on the very batch it would have given next."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Sampler

from aunet_lightning.data.packing import Batch, PackedBatches


class ResumableLoader:
    """Batches of `PackedBatches`, epoch after epoch; the state is two integers.

    Lightning saves and restores any train loader with `state_dict`, and needs `__len__` not to
    fetch one batch ahead, which would be lost at a resume.
    """

    def __init__(self, batches: PackedBatches, workers: int, repeat_epoch: bool = False) -> None:
        self.batches = batches
        self.repeat_epoch = repeat_epoch  # validation reads epoch 0 every time
        self.epoch = self.position = 0
        self._loader = DataLoader(
            batches,
            batch_size=None,
            sampler=_Remaining(self),
            num_workers=workers,
            persistent_workers=workers > 0,
        )

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        if self.repeat_epoch:
            self.position = 0
        for batch in self._loader:
            self.position += 1
            yield batch
        self.position = 0
        if not self.repeat_epoch:
            self.epoch += 1

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]


class _Remaining(Sampler[tuple[int, int]]):
    def __init__(self, loader: ResumableLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for k in range(self.loader.position, len(self.loader)):
            yield self.loader.epoch, k

    def __len__(self) -> int:
        return len(self.loader) - self.loader.position
