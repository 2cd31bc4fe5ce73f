"""Loads a network, and what it reads text with, from a checkpoint; without Lightning."""

from pathlib import Path

from aunet_lightning.checkpoints.contents import Contents
from aunet_lightning.checkpoints.forms import read
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.reader.tokens import Tokenizer
from splitters import Stack


def load_net(path: str | Path) -> tuple[AUNet, Stack]:
    """Returns the network (evaluation mode, on the CPU) and the stack it was trained with.

    Raises UserError where the checkpoint is damaged, or the splitters no longer place its boundaries.
    """
    return _load(path)[1:]


def load_generator(path: str | Path) -> tuple[AUNet, Stack, Tokenizer | None]:
    """As `load_net`, with the tokenizer of a network that reads tokens."""
    contents, net, stack = _load(path)
    return net, stack, Tokenizer(contents.tokenizer, str(path)) if contents.tokenizer else None


def _load(path: str | Path) -> tuple[Contents, AUNet, Stack]:
    checkpoint = read(path, optimizer=False)
    contents = Contents.from_dict(checkpoint)
    stack = Stack(contents.splitters)
    net = AUNet(contents.net, stack)
    net.load_state_dict({name.removeprefix("net."): weight for name, weight in checkpoint["state_dict"].items()})
    contents.check_boundaries(stack)
    return contents, net.eval(), stack
