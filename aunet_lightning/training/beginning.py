"""What a run makes sure of before it trains: the text, the checkpoint it continues from, memory, and that held-out
text is used."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from aunet_lightning.checkpoints.contents import Contents
from aunet_lightning.checkpoints.forms import check_complete, check_contents, read_metadata
from aunet_lightning.costs import DeviceMemory, Precision, memory
from aunet_lightning.data.datamodule import ByteDataModule
from aunet_lightning.data.rates import RowShape, mean_row
from aunet_lightning.errors import UserError, describe
from aunet_lightning.paths import user_path
from aunet_lightning.tracking import descent
from aunet_lightning.tracking.lock import RunLock
from aunet_lightning.tracking.mlflow_logger import MLflowRunLogger, abandon
from aunet_lightning.tracking.run_folder import RunFolder
from aunet_lightning.training.budget import Spent
from aunet_lightning.training.module import AUNetModule, batches_per_epoch, steps_of

GB = 1e9


def checkpoint_of(folder: RunFolder, named: str | None) -> Path | None:
    """Returns what a fit continues from: the checkpoint that is named (a path, `last` or `best`), else the newest of
    the run; None where it begins.

    Raises UserError where none is there under the name.
    """
    if named in (None, "last"):
        newest = folder.newest()
        if named == "last" and newest is None:
            rank_zero_info(f"ckpt_path is last, and {folder.path} has no checkpoint yet: the run begins")
        return newest
    if named == "best":
        if not folder.best.exists():
            raise UserError(f"ckpt_path is best, but {folder.path} has no best.ckpt: name last, or a checkpoint")
        return folder.best.resolve()
    path = user_path(named, "ckpt_path")
    check_complete(path)
    return path


def step_of(folder: RunFolder, checkpoint: Path) -> int | None:
    """Returns the step of a checkpoint of this run's, or None for another's."""
    path = checkpoint.resolve()
    return next((step for step, own in folder.saved().items() if own.resolve() == path), None)


@rank_zero_only
def take_folder(folder: RunFolder, lock: RunLock, settings: Mapping[str, Any], data: ByteDataModule) -> None:
    """Makes a run's folder, and makes sure that it is this run's, and that no other process trains it.

    Raises UserError where it is not.
    """
    folder.make()
    if not lock.acquire(folder.path):
        raise UserError(
            f"run.folder: {folder.path} is being trained by {RunLock.holder(folder.path)}: wait for it, or choose "
            "another run.folder"
        )
    descent.finish(folder)
    folder.check(settings)
    check_text(folder, data)


def continue_from(
    path: Path,
    folder: RunFolder,
    settings: Mapping[str, Any],
    data: ByteDataModule,
    module: AUNetModule,
    trainer: Trainer,
    logger: MLflowRunLogger | None,
) -> None:
    """Makes sure that training can continue from a checkpoint, and sets aside what the run had after it.

    Raises UserError where it cannot.
    """
    rank_zero_only(check_contents)(path)
    contents = Contents.from_dict(read_metadata(path))
    contents.check_length(path, trainer.max_steps)
    module.check_continued(contents, data)
    rank_zero_info(f"Continuing from {path}")
    step = step_of(folder, path)
    if step is None or step < max(folder.saved()) or folder.changes_numbers(settings):
        _set_aside(folder, contents.global_step if step is None else step, step is None, logger)


@rank_zero_only
def _set_aside(folder: RunFolder, step: int, whole: bool, logger: MLflowRunLogger | None) -> None:
    moved = descent.set_aside(folder, step, whole)
    if moved is None:
        return
    print(f"What this run had after step {step} ({moved}) is set aside in {moved.folder}", flush=True)
    if logger is not None and moved.run:
        logger.tags |= {"continues": moved.run["run_id"], "continues_after_step": str(step)}
        abandon(moved.run["tracking_uri"], moved.run["run_id"], step, str(moved.folder))


@rank_zero_only
def keep(folder: RunFolder, settings: str, data: ByteDataModule) -> None:
    """Writes a run's settings and what text it reads into its folder."""
    folder.keep(settings)
    keep_text(folder, data)


def check_text(folder: RunFolder, data: ByteDataModule) -> None:
    """Raises UserError where the documents are not those that the folder's run began with."""
    if not folder.data.exists() and folder.saved():
        rank_zero_warn(
            f"{folder.path} does not say what text it was trained on (an older version wrote it): whether it is still "
            "the same cannot be checked"
        )
    if part := other_text(folder, data):
        then = _kept_text(folder)[part]["documents"]
        raise UserError(
            f"run.folder: the documents of {part} are not those the run in {folder.path} began with ({then} then, "
            f"{len(data.documents[part])} now). Restore the files, or choose another run.folder; weights can be taken "
            "along (aunet export CKPT --out w.safetensors, --ckpt_path w.safetensors)"
        )


def other_text(folder: RunFolder, data: ByteDataModule) -> str | None:
    """Returns a part (train or val) whose documents are not those that the folder's run began with, or None."""
    kept = _kept_text(folder)
    return next((part for part, now in data.digests.items() if part in kept and kept[part]["digest"] != now), None)


def _kept_text(folder: RunFolder) -> dict[str, Any]:
    if not folder.data.exists():
        return {}
    try:
        kept = json.loads(folder.data.read_text(encoding="utf-8"))
        if all({"digest", "documents"} <= of_part.keys() for of_part in kept.values()):
            return cast(dict[str, Any], kept)
    except (ValueError, AttributeError):
        pass
    raise UserError(
        f"{folder.data} is damaged, so whether the run's text is still the same cannot be checked: restore it, or "
        "delete it if you know that it is"
    )


def keep_text(folder: RunFolder, data: ByteDataModule) -> None:
    """Writes what text the run reads: a digest by which it is known again, and what it is for people."""
    told = {}
    for part, digest in data.digests.items():
        corpus, documents = data.corpora[part], data.documents[part]
        told[part] = {
            "digest": digest,
            "documents": len(documents),
            "bytes": int(corpus.lengths[documents].sum()),
            "languages": [corpus.language_names[i] for i in np.unique(corpus.languages[documents])],
            "files": [str(path) for path in corpus.paths],
        }
    folder.data.write_text(json.dumps(told, indent=1), encoding="utf-8")


class Expected(NamedTuple):
    """What a run is going to cost."""

    row: RowShape
    memory: DeviceMemory | None  # of a device
    problem: str = ""  # why the memory is not known


def expect(module: AUNetModule, data: ByteDataModule, trainer: Trainer) -> Expected:
    """Returns the mean row of the training text, and the memory of a device that trains on it."""
    row = mean_row(data)
    precision: Precision = "bf16-mixed" if "16-mixed" in str(trainer.precision) else "32-true"
    world = trainer.num_devices * trainer.num_nodes
    rows = -(-min(data.batch_rows, data.batches("train").n_rows) // world)
    try:
        return Expected(row, memory(module.config, row.positions, rows, module.splitters, precision))
    except Exception as error:  # a predictor of one's own may need data where there is none
        return Expected(row, None, describe(error, 100))


def check_memory(expected: Expected, trainer: Trainer) -> None:
    """Raises UserError where the devices of a host need more than it has."""
    if expected.memory is None:
        return
    on_gpu = trainer.strategy.root_device.type == "cuda"
    need = expected.memory.total * (1 if on_gpu else trainer.num_devices)
    has = torch.cuda.get_device_properties(trainer.strategy.root_device).total_memory if on_gpu else host_memory()
    if need > has:
        where = "GPU" if on_gpu else "machine"
        raise UserError(
            f"the run does not fit: training takes about {need / GB:,.1f} GB, and this {where} has {has / GB:,.1f} GB "
            f"(a row has {expected.row.text_bytes:,.0f} bytes). Lower data.batch_rows or data.row_bytes, take a "
            "smaller model or windows, or set run.check_memory to false to try nevertheless"
        )


def host_memory() -> int:
    """Returns the bytes of memory that this process may use: the machine's, or what its container is given."""
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            has = min(has, int(Path(limit).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such container, or no limit: "max"
            continue
    return has


def check_held_out(module: AUNetModule, data: ByteDataModule, trainer: Trainer) -> None:
    """Warns where held-out text is never read, because the run ends before its first validation."""
    if module.budget.progress(Spent()) is not None:
        return  # how many steps it buys is not known yet
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
