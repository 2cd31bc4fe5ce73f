"""A network and its splitters from a checkpoint, without Lightning."""

import zipfile
from pathlib import Path

import torch

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
    check_whole(Path(path))
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    stack = Stack(checkpoint["splitters"])
    net = AUNet(AUNetConfig(**checkpoint["hyper_parameters"]["net"]), stack)
    weights = checkpoint["state_dict"].items()
    net.load_state_dict({name.removeprefix("net."): tensor for name, tensor in weights})
    check_boundaries(checkpoint, stack)
    return net.eval(), stack
