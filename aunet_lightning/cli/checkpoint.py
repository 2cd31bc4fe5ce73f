"""A network and its splitters from a checkpoint, without Lightning."""

from pathlib import Path

import torch

from aunet_lightning.errors import UserError
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.model.config import AUNetConfig
from splitters import Stack


def load_net(path: str | Path) -> tuple[AUNet, Stack]:
    """Returns the network (evaluation mode, on the CPU) and the stack it was trained with."""
    if not Path(path).is_file():
        raise UserError(f"{path} is no checkpoint file: runs keep theirs in checkpoints/last.ckpt and best.ckpt")
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    net = AUNet(AUNetConfig(**checkpoint["hyper_parameters"]["net"]))
    weights = checkpoint["state_dict"].items()
    net.load_state_dict({name.removeprefix("net."): tensor for name, tensor in weights})
    return net.eval(), Stack(checkpoint["splitters"])
