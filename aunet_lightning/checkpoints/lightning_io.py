"""Lightning's checkpoint I/O: reads every form, and writes one file completely or not at all."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from aunet_lightning.checkpoints.forms import read, rename_into_place
from aunet_lightning.errors import reason
from aunet_lightning.paths import PART, remove


class AnyForm(TorchCheckpointIO):
    """Reads every form for Lightning's strategies; writes one file, and notes in `problem` why it could not."""

    def __init__(self) -> None:
        super().__init__()
        self.saving = False  # always: save_checkpoint returns once the file is written
        self.problem: str | None = None  # why the last one could not be written

    def wait(self) -> None:
        """Returns at once: nothing is written in the background."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path, self.problem = Path(path), None
        part = path.with_name(path.name + PART)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            remove(part)
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            rename_into_place(part, path)
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError where the disk is full
            self.problem = reason(error)
            remove(part)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read(path, weights_only is not False)

    def remove_checkpoint(self, path: Any) -> None:
        remove(Path(path))
