"""The expected cost of a run, checked before it trains: memory, and whether held-out text will be used."""

import os
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

from aunet_lightning.costs import DeviceMemory, Precision, memory
from aunet_lightning.data.datamodule import ByteDataModule
from aunet_lightning.data.rates import RowShape, mean_row
from aunet_lightning.errors import UserError, describe
from aunet_lightning.training.budget import Spent
from aunet_lightning.training.length import batches_per_epoch, steps_of
from aunet_lightning.training.module import AUNetModule

GB = 1e9


class Expected(NamedTuple):
    """The expected cost of a run."""

    row: RowShape
    memory: DeviceMemory | None  # of a device
    problem: str = ""  # why the memory is unknown


def expect(module: AUNetModule, data: ByteDataModule, trainer: Trainer) -> Expected:
    """Returns the mean row of the training text, and the memory of a device that trains on it."""
    row = mean_row(data)
    precision: Precision = "bf16-mixed" if "16-mixed" in str(trainer.precision) else "32-true"
    world = trainer.num_devices * trainer.num_nodes
    rows = -(-min(data.batch_rows, data.batches("train").n_rows) // world)
    try:
        longest = (float(row.longest), *row.positions[1:])  # to which rows are padded
        held = memory(module.config, longest, rows, data.reader.stack, precision, refreshes=row.refreshes)
        return Expected(row, held)
    except Exception as error:  # a user's predictor may need data, and there is none here
        return Expected(row, None, describe(error, 100))


def check_memory(expected: Expected, trainer: Trainer) -> None:
    """Raises UserError where the devices of a host need more memory than it has."""
    if expected.memory is None:
        return
    on_gpu = trainer.strategy.root_device.type == "cuda"
    need = expected.memory.total * (1 if on_gpu else trainer.num_devices)
    has = torch.cuda.get_device_properties(trainer.strategy.root_device).total_memory if on_gpu else host_memory()
    if need > has:
        where = "GPU" if on_gpu else "machine"
        raise UserError(
            f"the run does not fit: training takes about {need / GB:,.1f} GB, and this {where} has {has / GB:,.1f} GB "
            f"(a row has {expected.row.longest:,} positions). Lower data.batch_rows, data.row_bytes or "
            "data.context_bytes, use a smaller model or smaller windows, or set run.check_memory to false to try anyway"
        )


def host_memory() -> int:
    """Returns the bytes of memory available to this process: the machine's, or its container's limit."""
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            has = min(has, int(Path(limit).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no container of this kind, or no limit: "max"
            continue
    return has


def check_held_out(module: AUNetModule, data: ByteDataModule, trainer: Trainer) -> None:
    """Warns where held-out text is never read because the run ends before its first validation."""
    if module.budget.progress(Spent()) is not None:
        return  # the number of steps it buys is unknown
    if "val" not in data.corpora or trainer.limit_val_batches == 0 or cast(Any, trainer).fast_dev_run:
        return
    batches = batches_per_epoch(trainer, data)
    interval, every = trainer.val_check_interval, trainer.check_val_every_n_epoch
    if not isinstance(interval, int | float):
        return
    first = interval if isinstance(interval, int) else int(batches * interval)
    first += (every - 1) * batches if every is not None else 0
    trained = steps_of(trainer, data) * trainer.accumulate_grad_batches
    if trained < first:
        rank_zero_warn(
            f"the run ends after {trained:.0f} batches, before its first validation (after {first}), so the "
            f"{len(data.documents['val'])} held-out documents are never used: set trainer.val_check_interval to "
            f"{max(int(trained) // 4, 1)} and trainer.check_val_every_n_epoch to null, or train longer"
        )
