"""Checkpoints in their three forms, read as one: a file, a folder of PyTorch's distributed checkpoint, safetensors.

A form appears whole or not at all: it is written under another name, and renamed.
"""

import hashlib
import io
import json
import os
import pickle
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from aunet_lightning.errors import UserError, is_disk_full
from aunet_lightning.paths import user_path

META = "meta.pt"  # what a folder holds beside tensors
PART = ".part"  # ends the name of what is being written, or deleted
TOLD = ("hyper_parameters", "splitters", "boundaries", "tokenizer", "global_step", "pytorch-lightning_version")


def is_folder(path: Path) -> bool:
    """Whether path is a distributed checkpoint that is whole."""
    return (path / ".metadata").is_file() and (path / META).is_file()


def check_whole(path: Path) -> None:
    """Raises UserError unless path is a checkpoint, in any form, that is there and has its parts. (`read` looks at
    what they hold.)"""
    if not path.exists():
        raise UserError(f"there is no checkpoint {path}: runs keep theirs in checkpoints/last.ckpt and best.ckpt")
    if path.suffix == ".safetensors":
        return
    # A file is what torch.save writes, whose directory is at the end.
    if not (is_folder(path) if path.is_dir() else zipfile.is_zipfile(path)):
        raise UserError(f"{path} is no checkpoint, or not a whole one: name another, such as last.ckpt beside it")


def check_contents(path: Path) -> None:
    """Raises UserError where bytes of a checkpoint are not those that were written.

    What torch.save writes has a checksum (CRC-32) of each of its records, which torch.load does not look at; a folder
    is made of such records. An export has a digest of its own.
    """
    if path.suffix == ".safetensors":
        _exported(path)
        return
    try:
        if not path.is_dir():
            _check_records(path, 0, path.stat().st_size)
            return
        _check_records(path / META, 0, (path / META).stat().st_size)
        stored = dcp.FileSystemReader(path).read_metadata().storage_data
        for place in stored.values():
            _check_records(path / place.relative_path, place.offset, place.length)
    except (
        zipfile.BadZipFile,
        pickle.UnpicklingError,
        zlib.error,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        AttributeError,
    ) as error:
        raise UserError(
            f"{path} is damaged ({reason(error)}): name another checkpoint, such as an older one beside it"
        ) from None


def _check_records(path: Path, offset: int, length: int) -> None:
    with path.open("rb") as file:
        if offset + length > file.seek(0, os.SEEK_END):
            raise EOFError(f"{path.name} ends early")
        records = zipfile.ZipFile(_Slice(file, offset, length)) if offset else zipfile.ZipFile(file)
        with records:
            for record in records.infolist():
                with records.open(record) as data:  # raises BadZipFile at the end where the checksum differs
                    while data.read(1 << 22):
                        pass


class _Slice(io.RawIOBase):
    """A stretch of a file, as a file."""

    def __init__(self, file: IO[bytes], offset: int, length: int) -> None:
        self.file, self.offset, self.length, self.at = file, offset, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.length}[whence]
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: Any) -> int:
        self.file.seek(self.offset + self.at)
        data = self.file.read(max(min(len(buffer), self.length - self.at), 0))
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)


def read(path: str | Path, weights_only: bool = True, optimizer: bool = True) -> dict[str, Any]:
    """Returns a checkpoint of any form as Lightning has one of a single file, on the CPU.

    optimizer: whether its states are read too, where they can be left out. Raises UserError where it is not whole.
    """
    path = user_path(path, "the checkpoint")
    check_whole(path)
    if path.suffix == ".safetensors":
        return _exported(path)
    check_contents(path)
    if not path.is_dir():
        return _of_ours(path, path, weights_only)
    checkpoint = read_meta(path)
    found = _tensors(path, ("state_dict", "optimizer_") if optimizer else ("state_dict",))
    checkpoint["state_dict"] = found["state_dict"]
    states = sorted(name for name in found if name.startswith("optimizer_"))
    return checkpoint | {"optimizer_states": [found[name] for name in states]}


def read_told(path: Path) -> dict[str, Any]:
    """Returns what a checkpoint of any form says beside tensors (of a file, they are not read but mapped)."""
    check_whole(path)
    if path.suffix == ".safetensors":
        return _exported(path)
    return read_meta(path) if path.is_dir() else _of_ours(path, path, weights_only=True)


def read_meta(path: Path) -> dict[str, Any]:
    """Returns what a folder holds beside tensors."""
    return _of_ours(path / META, path, weights_only=True)


def _of_ours(file: Path, path: Path, weights_only: bool) -> dict[str, Any]:
    """Returns what torch.save wrote to a file of the checkpoint `path`. Raises UserError where it is not ours."""
    try:
        found = torch.load(file, map_location="cpu", weights_only=weights_only, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError, ImportError) as error:
        raise UserError(
            f"{path} is not a checkpoint of aunet fit, or of a version that this one cannot read ({reason(error)})"
        ) from None
    if not isinstance(found, dict) or missing(found):
        what = (
            f"it has no {', '.join(missing(found))}"
            if isinstance(found, dict)
            else f"it holds a {type(found).__name__}"
        )
        raise UserError(f"{path} is a file of PyTorch, but not a checkpoint of aunet fit: {what}")
    return found


def missing(checkpoint: Mapping[str, Any]) -> list[str]:
    """Returns what a checkpoint of ours has and this one has not."""
    keys = ["hyper_parameters", "splitters"]
    found = [key for key in keys if key not in checkpoint]
    settings = checkpoint.get("hyper_parameters")
    return found or ([] if isinstance(settings, Mapping) and "net" in settings else ["hyper_parameters.net"])


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
    if out.suffix != ".safetensors":
        raise UserError(f"--out is {out}: its name has to end in .safetensors, by which weights are known again")
    checkpoint = read(path, optimizer=False)
    told = {key: checkpoint[key] for key in TOLD if key in checkpoint}
    weights = {name: tensor.contiguous().clone() for name, tensor in checkpoint["state_dict"].items()}
    told["sha256"] = _digest(weights)
    part = out.with_name(out.name + PART)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        save_file(weights, part, {"aunet": json.dumps(told), "format": "pt"})
        os.replace(part, out)
    except SafetensorError as error:
        if is_disk_full(error):
            raise
        raise UserError(f"--out: {out} cannot be written ({error})") from None
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
    if told.pop("sha256", None) not in (None, _digest(weights)):
        raise UserError(f"{path} is damaged: its weights are not those that were written. Export them again")
    begins: dict[str, Any] = {"callbacks": {}, "loops": None, "epoch": 0, "optimizer_states": [], "lr_schedulers": []}
    return told | begins | {"state_dict": weights}


def _digest(weights: Mapping[str, torch.Tensor]) -> str:
    whole = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        whole.update(f"{name} {tensor.dtype} {[*tensor.shape]}".encode())
        whole.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return whole.hexdigest()


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
    """Returns in a few words why something could not be written or read."""
    causes = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    if any(is_disk_full(cause) for cause in causes):
        return "no space left on the disk"
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
