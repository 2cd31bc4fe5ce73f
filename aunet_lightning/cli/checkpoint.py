"""A network and its splitters from a checkpoint, without Lightning."""

import zipfile
from pathlib import Path
from typing import Any, cast

import torch

from aunet_lightning.data.tokens import Tokenizer
from aunet_lightning.errors import UserError, check_boundaries
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.model.config import AUNetConfig
from splitters import Stack


def check_whole(path: Path) -> None:
    """Raises UserError unless path is a checkpoint file, or a folder (a sharded one), that is there and whole."""
    if not path.exists():
        raise UserError(f"there is no checkpoint {path}: runs keep theirs in checkpoints/last.ckpt and best.ckpt")
    if path.is_file() and not zipfile.is_zipfile(path):  # what torch.save writes; its directory is at the end
        raise UserError(f"{path} is no checkpoint, or not a whole one")


def load_net(path: str | Path) -> tuple[AUNet, Stack]:
    """Returns the network (evaluation mode, on the CPU) and the stack it was trained with."""
    return _net(_read(path))


def load_generator(path: str | Path) -> tuple[AUNet, Stack, Tokenizer | None]:
    """The same, and the tokenizer of a network that reads tokens."""
    checkpoint = _read(path)
    fields = checkpoint.get("tokenizer")
    return *_net(checkpoint), Tokenizer(fields, str(path)) if fields else None


def _read(path: str | Path) -> dict[str, Any]:
    check_whole(Path(path))
    return cast(dict[str, Any], torch.load(path, map_location="cpu", weights_only=True))


def _net(checkpoint: dict[str, Any]) -> tuple[AUNet, Stack]:
    stack = Stack(checkpoint["splitters"])
    net = AUNet(AUNetConfig(**checkpoint["hyper_parameters"]["net"]), stack)
    weights = checkpoint["state_dict"].items()
    net.load_state_dict({name.removeprefix("net."): tensor for name, tensor in weights})
    check_boundaries(checkpoint, stack)
    return net.eval(), stack
