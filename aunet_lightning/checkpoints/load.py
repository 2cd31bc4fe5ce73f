"""A network and its splitters from a checkpoint, without Lightning."""

from pathlib import Path
from typing import Any

from aunet_lightning.checkpoints.forms import read
from aunet_lightning.errors import check_boundaries
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.model.config import AUNetConfig
from aunet_lightning.reader.tokens import Tokenizer
from splitters import Stack


def load_net(path: str | Path) -> tuple[AUNet, Stack]:
    """Returns the network (evaluation mode, on the CPU) and the stack it was trained with."""
    return _net(read(path, optimizer=False))


def load_generator(path: str | Path) -> tuple[AUNet, Stack, Tokenizer | None]:
    """The same, and the tokenizer of a network that reads tokens."""
    checkpoint = read(path, optimizer=False)
    fields = checkpoint.get("tokenizer")
    return *_net(checkpoint), Tokenizer(fields, str(path)) if fields else None


def _net(checkpoint: dict[str, Any]) -> tuple[AUNet, Stack]:
    stack = Stack(checkpoint["splitters"])
    net = AUNet(AUNetConfig(**checkpoint["hyper_parameters"]["net"]), stack)
    weights = checkpoint["state_dict"].items()
    net.load_state_dict({name.removeprefix("net."): tensor for name, tensor in weights})
    check_boundaries(checkpoint, stack)
    return net.eval(), stack
