"""The beginning of a run: its folder, its text and the checkpoint it continues from, checked before it trains."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from aunet_lightning.checkpoints.contents import Contents
from aunet_lightning.checkpoints.forms import check_complete, check_intact, read_metadata, weights_of
from aunet_lightning.data.datamodule import ByteDataModule
from aunet_lightning.errors import UserError
from aunet_lightning.paths import user_path
from aunet_lightning.tracking import descent
from aunet_lightning.tracking.lock import RunLock
from aunet_lightning.tracking.mlflow_logger import MLflowRunLogger, abandon
from aunet_lightning.tracking.run_folder import RunFolder
from aunet_lightning.training.definition import changes_numbers, check_same_run
from aunet_lightning.training.module import AUNetModule


def checkpoint_of(folder: RunFolder, named: str | None) -> Path | None:
    """Returns the checkpoint from which a fit continues: the one `named` (a path, `last` or `best`), else the run's
    newest; None where it begins.

    Raises UserError where there is no checkpoint of that name.
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
    path = weights_of(user_path(named, "ckpt_path"))
    check_complete(path)
    return path


def checkpoint_to_read(folder: RunFolder | None, named: str | None) -> Path:
    """Returns the checkpoint that validate, test and predict read: the one `named` (a path, `last` or `best`), else
    the run's best.

    Raises UserError where there is no such checkpoint, or it is not complete.
    """
    own = named in (None, "best", "last")
    path = _own_checkpoint(folder, named) if own else weights_of(user_path(str(named), "ckpt_path"))
    check_complete(path)
    return path


def _own_checkpoint(folder: RunFolder | None, named: str | None) -> Path:
    if folder is None:
        raise UserError("ckpt_path is missing: with fast_dev_run there is no run folder to find one in")
    candidates = [folder.last, folder.best] if named == "last" else [folder.best, folder.last]
    found = next((path for path in candidates if path.exists()), None)
    if found is None:
        raise UserError(
            f"ckpt_path is missing, and {folder.path} has no checkpoint: run aunet fit with the same options first, or "
            "name a checkpoint"
        )
    return found


def step_of(folder: RunFolder, checkpoint: Path) -> int | None:
    """Returns the step of one of this run's checkpoints, or None for another run's."""
    path = checkpoint.resolve()
    return next((step for step, own in folder.saved().items() if own.resolve() == path), None)


@rank_zero_only
def take_folder(folder: RunFolder, lock: RunLock, settings: Mapping[str, Any], data: ByteDataModule) -> None:
    """Makes a run's folder and locks it.

    Raises UserError where it holds another run, or where another process trains it.
    """
    folder.make()
    if not lock.acquire(folder.path):
        raise UserError(
            f"run.folder: {folder.path} is being trained by {RunLock.holder(folder.path)}: wait for it, or choose "
            "another run.folder"
        )
    descent.finish(folder)
    check_same_run(folder, settings)
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
    """Sets aside what the run has after a checkpoint, from which it is to continue.

    Raises UserError where training cannot continue from it.
    """
    rank_zero_only(check_intact)(path)
    contents = Contents.from_dict(read_metadata(path))
    contents.check_length(path, trainer.max_steps)
    module.check_continued(contents, data)
    rank_zero_info(f"Continuing from {path}")
    step = step_of(folder, path)
    if step is None or step < max(folder.saved()) or changes_numbers(folder, settings):
        _set_aside(folder, contents.global_step if step is None else step, step is None, logger)


@rank_zero_only
def _set_aside(folder: RunFolder, step: int, everything: bool, logger: MLflowRunLogger | None) -> None:
    moved = descent.set_aside(folder, step, everything)
    if moved is None:
        return
    print(f"What this run had after step {step} ({moved}) is set aside in {moved.folder}", flush=True)
    if logger is not None and moved.run:
        logger.tags |= {"continues": moved.run["run_id"], "continues_after_step": str(step)}
        abandon(moved.run["tracking_uri"], moved.run["run_id"], step, str(moved.folder))


@rank_zero_only
def keep(folder: RunFolder, settings: str, data: ByteDataModule) -> None:
    """Writes a run's settings and a description of its text into its folder."""
    folder.keep(settings)
    keep_text(folder, data)


def check_text(folder: RunFolder, data: ByteDataModule) -> None:
    """Raises UserError where the documents are not those the folder's run began with."""
    if not folder.data.exists() and folder.saved():
        rank_zero_warn(
            f"{folder.path} does not record the text it was trained on (an older version wrote it): whether that has "
            "changed cannot be checked"
        )
    if part := other_text(folder, data):
        then = _kept_text(folder)[part]["documents"]
        raise UserError(
            f"run.folder: the documents of {part} are not those the run in {folder.path} began with ({then} then, "
            f"{len(data.documents[part])} now). Restore the files, or choose another run.folder; to take the "
            "weights along: aunet export CKPT --out w.safetensors, --ckpt_path w.safetensors"
        )


def other_text(folder: RunFolder, data: ByteDataModule) -> str | None:
    """Returns a part (train or val) whose documents are not those the folder's run began with, or None."""
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
        f"{folder.data} is damaged, so whether the run's text has changed cannot be checked: restore it, or delete it "
        "if you know that the text is the same"
    )


def keep_text(folder: RunFolder, data: ByteDataModule) -> None:
    """Describes the run's text in data.json: a digest to recognise it by, and counts and files for people."""
    described = {}
    for part, digest in data.digests.items():
        corpus, documents = data.corpora[part], data.documents[part]
        sizes = np.bincount(corpus.languages[documents], corpus.lengths[documents], len(corpus.language_names))
        described[part] = {
            "digest": digest,
            "documents": len(documents),
            "bytes": int(corpus.lengths[documents].sum()),
            "languages": [corpus.language_names[i] for i in np.unique(corpus.languages[documents])],
            "bytes_by_language": {corpus.language_names[i]: int(sizes[i]) for i in np.flatnonzero(sizes)},
            "files": [str(path) for path in corpus.paths],
        }
        if part == "train" and data.shares is not None:
            described[part]["mix"] = data.shares
    folder.data.write_text(json.dumps(described, indent=1), encoding="utf-8")
