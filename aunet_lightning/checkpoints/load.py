"""Loads a network and its reader from a checkpoint, without Lightning."""

from pathlib import Path

from aunet_lightning.checkpoints.contents import Contents
from aunet_lightning.checkpoints.forms import read
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.reader.reader import Reader


def load(path: str | Path) -> tuple[AUNet, Reader]:
    """Returns the network (evaluation mode, on the CPU) and the reader it was trained with, from a checkpoint or from
    what `aunet export` wrote.

    Raises UserError where the checkpoint is damaged, or the splitters no longer place its boundaries.
    """
    net, reader, _ = load_with_contents(path)
    return net, reader


def load_with_contents(path: str | Path) -> tuple[AUNet, Reader, Contents]:
    """Returns the same, and what the checkpoint records about its run."""
    checkpoint = read(path, optimizer=False)
    contents = Contents.from_dict(checkpoint)
    reader = contents.reader(str(path))
    net = AUNet(contents.net, reader.stack)
    net.load_state_dict({name.removeprefix("net."): weight for name, weight in checkpoint["state_dict"].items()})
    contents.check_boundaries(reader.stack)
    net.reader = reader
    return net.eval(), reader, contents
