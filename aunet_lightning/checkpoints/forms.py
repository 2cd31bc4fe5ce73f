"""The three forms of a checkpoint, read as one: a file, a folder of PyTorch's distributed checkpoint, safetensors.

A form appears complete or not at all: it is written under another name, then renamed.
"""

import hashlib
import io
import json
import os
import pickle
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

from aunet_lightning.checkpoints.contents import EXPORTED, missing_keys
from aunet_lightning.errors import UserError, is_disk_full, reason
from aunet_lightning.paths import PART, remove, user_path

META = "meta.pt"  # a folder's file of all that is not a tensor
WEIGHTS = "model.safetensors"  # in a folder that `aunet export` wrote
FILES = "splitter_files"  # the header's places of names, of files beside it, among the splitters' options


def is_folder(path: Path) -> bool:
    """Whether path is a complete distributed checkpoint."""
    return (path / ".metadata").is_file() and (path / META).is_file()


def weights_of(path: Path) -> Path:
    """Returns the weights in a folder that `aunet export` wrote; any other path as it is."""
    return path / WEIGHTS if (path / WEIGHTS).is_file() else path


def check_complete(path: Path) -> None:
    """Raises UserError unless path is a checkpoint in one of the forms, with all of its parts. (`check_intact` reads
    them.)"""
    if not path.exists():
        raise UserError(f"there is no checkpoint {path}: runs keep theirs in checkpoints/last.ckpt and best.ckpt")
    if weights_of(path).suffix == ".safetensors":
        return
    # torch.save writes a zip file, whose directory is at the end.
    if not (is_folder(path) if path.is_dir() else zipfile.is_zipfile(path)):
        raise UserError(f"{path} is not a checkpoint, or is incomplete: name another, such as last.ckpt beside it")


def check_intact(path: Path) -> None:
    """Raises UserError where bytes of a checkpoint are not those that were written.

    torch.save writes a checksum (CRC-32) with each record, which torch.load ignores; a folder consists of such
    records. An export has a digest of its own.
    """
    if (weights := weights_of(path)).suffix == ".safetensors":
        _read_export(weights)
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
    """Returns a checkpoint of any form as the mapping that Lightning has in a single file, on the CPU.

    optimizer: whether to read the optimizer's states where they can be left out. Raises UserError where the checkpoint
    is incomplete or damaged.
    """
    path = user_path(path, "the checkpoint")
    check_complete(path)
    if (weights := weights_of(path)).suffix == ".safetensors":
        return _read_export(weights)
    check_intact(path)
    if not path.is_dir():
        return _load(path, path, weights_only)
    checkpoint = read_metadata(path)
    found = _read_tensors(path, ("state_dict", "optimizer_") if optimizer else ("state_dict",))
    checkpoint["state_dict"] = found["state_dict"]
    states = sorted(name for name in found if name.startswith("optimizer_"))
    return checkpoint | {"optimizer_states": [found[name] for name in states]}


def read_metadata(path: Path) -> dict[str, Any]:
    """Returns a checkpoint of any form without reading its tensors (a file's are mapped, a folder's left out). Checks
    no bytes."""
    check_complete(path)
    if (weights := weights_of(path)).suffix == ".safetensors":
        return _read_export(weights)
    return _load(path / META if path.is_dir() else path, path, weights_only=True)


def _load(file: Path, path: Path, weights_only: bool) -> dict[str, Any]:
    """Returns what torch.save wrote to a file of the checkpoint `path`. Raises UserError where it is not ours."""
    try:
        found = torch.load(file, map_location="cpu", weights_only=weights_only, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError, ImportError) as error:
        raise UserError(
            f"{path} is not a checkpoint of aunet fit, or of a version that this one cannot read ({reason(error)})"
        ) from None
    if not isinstance(found, dict) or missing_keys(found):
        what = (
            f"it has no {', '.join(missing_keys(found))}"
            if isinstance(found, dict)
            else f"it holds a {type(found).__name__}"
        )
        raise UserError(f"{path} is a file of PyTorch, but not a checkpoint of aunet fit: {what}")
    return found


def _read_tensors(path: Path, roots: tuple[str, ...]) -> dict[str, Any]:
    """Returns the entries of a distributed checkpoint whose names begin with one of the roots, gathered from all parts
    and nested as they were saved."""
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
    """Returns nested mappings with lists in place of those whose keys are 0, 1, …"""
    if not isinstance(value, dict):
        return value
    inner = {key: _listed(one) for key, one in value.items()}
    return [inner[i] for i in range(len(inner))] if inner and all(isinstance(key, int) for key in inner) else inner


def export(path: Path, out: Path) -> int:
    """Writes a checkpoint's weights to one safetensors file, with the network and splitter settings needed to load
    them in its header; returns the number of parameters."""
    if out.suffix != ".safetensors":
        raise UserError(f"--out is {out}: its name must end in .safetensors, or name a folder (with / at its end)")
    return write_export(read(path, optimizer=False), out)


def write_export(checkpoint: Mapping[str, Any], out: Path) -> int:
    """Writes what was read of a checkpoint likewise."""
    header = {key: checkpoint[key] for key in (*EXPORTED, FILES) if key in checkpoint}
    weights = {name: tensor.contiguous().clone() for name, tensor in checkpoint["state_dict"].items()}
    header["sha256"] = weights_digest(weights)
    part = out.with_name(out.name + PART)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        save_file(weights, part, {"aunet": json.dumps(header), "format": "pt"})
        os.replace(part, out)
    except SafetensorError as error:
        if is_disk_full(error):
            raise
        raise UserError(f"--out: {out} cannot be written ({error})") from None
    finally:
        part.unlink(missing_ok=True)
    return sum(tensor.numel() for tensor in weights.values())


def _read_export(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("aunet", "null"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except Exception as error:  # the library raises its own
        raise UserError(f"{path} is not an export, or is incomplete ({error})") from None
    if header is None:
        raise UserError(f"{path} was not written by aunet export: its header does not describe the network")
    if header.pop("sha256", None) not in (None, weights_digest(weights)):
        raise UserError(
            f"{path} is damaged: its weights are not those that were written. Copy it again, or export it again"
        )
    for *above, last in header.pop(FILES, []):
        options: Any = header["splitters"]
        for key in above:
            options = options[key]
        if Path(options[last]).name != options[last]:
            raise UserError(f"{path} names a file that does not lie beside it, {options[last]!r}: export it again")
        options[last] = str(path.parent / options[last])
    begins: dict[str, Any] = {"callbacks": {}, "loops": None, "epoch": 0, "optimizer_states": [], "lr_schedulers": []}
    return header | begins | {"state_dict": weights}


def weights_digest(weights: Mapping[str, torch.Tensor]) -> str:
    """Returns the sha256 of weights on the CPU: of their names, types, shapes and bytes."""
    of_all = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        of_all.update(f"{name} {tensor.dtype} {[*tensor.shape]}".encode())
        of_all.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return of_all.hexdigest()


def rename_into_place(part: Path, path: Path) -> None:
    """Gives a finished file or folder its name in one step, in place of what had it."""
    if path.is_dir() and not path.is_symlink():
        old = path.with_name(path.name + ".old" + PART)
        remove(old)
        os.replace(path, old)
        os.replace(part, path)
        remove(old)
    else:
        os.replace(part, path)


def point_link(link: Path, target: Path) -> None:
    """Points a symbolic link at a checkpoint beside it, in one step."""
    part = link.with_name(link.name + PART)
    part.unlink(missing_ok=True)
    part.symlink_to(target.name)
    if link.is_dir() and not link.is_symlink():
        remove(link)
    os.replace(part, link)
