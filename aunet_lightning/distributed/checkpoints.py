"""Checkpoints in their three forms, read as one: a file, a folder of PyTorch's distributed checkpoint, safetensors.

A form appears whole or not at all: it is written under another name, and renamed.
"""

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed.checkpoint as dcp
from safetensors import safe_open
from safetensors.torch import save_file
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from aunet_lightning.errors import UserError

META = "meta.pt"  # what a folder holds beside tensors
PART = ".part"  # ends the name of what is being written, or deleted
TOLD = ("hyper_parameters", "splitters", "boundaries", "tokenizer", "global_step", "pytorch-lightning_version")


def is_folder(path: Path) -> bool:
    """Whether path is a distributed checkpoint that is whole."""
    return (path / ".metadata").is_file() and (path / META).is_file()


def check_whole(path: Path) -> None:
    """Raises UserError unless path is a checkpoint, in any form, that is there and whole."""
    if not path.exists():
        raise UserError(f"there is no checkpoint {path}: runs keep theirs in checkpoints/last.ckpt and best.ckpt")
    if path.suffix == ".safetensors":
        return
    # A file is what torch.save writes, whose directory is at the end.
    if not (is_folder(path) if path.is_dir() else zipfile.is_zipfile(path)):
        raise UserError(f"{path} is no checkpoint, or not a whole one")


def read(path: str | Path, weights_only: bool = True, optimizer: bool = True) -> dict[str, Any]:
    """Returns a checkpoint of any form as Lightning has one of a single file, on the CPU.

    optimizer: whether its states are read too, where they can be left out. Raises UserError where it is not whole.
    """
    path = Path(path)
    check_whole(path)
    if path.suffix == ".safetensors":
        return _exported(path)
    if not path.is_dir():
        mapped = torch.load(path, map_location="cpu", weights_only=weights_only, mmap=True)
        return cast(dict[str, Any], mapped)
    checkpoint = read_meta(path)
    found = _tensors(path, ("state_dict", "optimizer_") if optimizer else ("state_dict",))
    checkpoint["state_dict"] = found["state_dict"]
    states = sorted(name for name in found if name.startswith("optimizer_"))
    return checkpoint | {"optimizer_states": [found[name] for name in states]}


def read_meta(path: Path) -> dict[str, Any]:
    """Returns what a folder holds beside tensors."""
    return cast(dict[str, Any], torch.load(path / META, map_location="cpu", weights_only=True))


def _tensors(path: Path, roots: tuple[str, ...]) -> dict[str, Any]:
    """Returns what of a distributed checkpoint stands under the roots, whole and nested as it was saved."""
    metadata = dcp.FileSystemReader(path).read_metadata()
    flat: dict[str, Any] = {}
    for name, stored in metadata.state_dict_metadata.items():
        if name.startswith(roots):
            flat[name] = None
            if isinstance(stored, TensorStorageMetadata):
                flat[name] = torch.empty(stored.size, dtype=stored.properties.dtype)
    dcp.load(flat, checkpoint_id=path, no_dist=True)
    nested: dict[Any, Any] = {}
    for name, value in flat.items():
        *above, last = metadata.planner_data[name]
        inside = nested
        for key in above:
            inside = inside.setdefault(key, {})
        inside[last] = value
    return {key: _listed(value) for key, value in nested.items()}


def _listed(value: Any) -> Any:
    """Returns nested mappings with lists where keys are 0, 1, …"""
    if not isinstance(value, dict):
        return value
    inner = {key: _listed(one) for key, one in value.items()}
    return [inner[i] for i in range(len(inner))] if inner and all(isinstance(key, int) for key in inner) else inner


def export(path: Path, out: Path) -> int:
    """Writes the weights of a checkpoint to one safetensors file, with what they mean nothing without in its header;
    returns how many there are."""
    checkpoint = read(path, optimizer=False)
    told = {key: checkpoint[key] for key in TOLD if key in checkpoint}
    weights = {name: tensor.contiguous().clone() for name, tensor in checkpoint["state_dict"].items()}
    part = out.with_name(out.name + PART)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        save_file(weights, part, {"aunet": json.dumps(told), "format": "pt"})
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
    return sum(tensor.numel() for tensor in weights.values())


def _exported(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, "pt") as file:
            told = json.loads((file.metadata() or {}).get("aunet", "null"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except Exception as error:  # the library raises its own
        raise UserError(f"{path} is no checkpoint, or not a whole one ({error})") from None
    if told is None:
        raise UserError(f"{path} was not written by aunet export: its header does not say what network it is of")
    return told | {"state_dict": weights, "callbacks": {}, "loops": None, "epoch": 0}


def publish(part: Path, path: Path) -> None:
    """Gives what was written its name, at once, in place of what had it."""
    if path.is_dir() and not path.is_symlink():
        old = path.with_name(path.name + ".old" + PART)
        remove(old)
        os.replace(path, old)
        os.replace(part, path)
        remove(old)
    else:
        os.replace(part, path)


def point(link: Path, target: Path) -> None:
    """Lets a symbolic link point at a checkpoint beside it, at once."""
    part = link.with_name(link.name + PART)
    part.unlink(missing_ok=True)
    part.symlink_to(target.name)
    if link.is_dir() and not link.is_symlink():
        remove(link)
    os.replace(part, link)


def remove(path: Path) -> None:
    """Deletes a file or folder; a folder loses its name first, so that none is there in part."""
    if path.is_dir() and not path.is_symlink():
        if not path.name.endswith(PART):
            gone = path.with_name(path.name + ".gone" + PART)
            shutil.rmtree(gone, ignore_errors=True)
            path = path.rename(gone)
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
