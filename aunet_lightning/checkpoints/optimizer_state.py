"""An optimizer's state with parameters by name in place of number.

This form fits any number of devices, and no two groups of parameters can be mixed up in it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from aunet_lightning.errors import UserError


def parameter_names(net: nn.Module, optimizer: Optimizer) -> list[str]:
    """Returns the names that an optimizer's parameters have in a checkpoint, by their number in its state."""
    names = {parameter: f"net.{name}" for name, parameter in net.named_parameters()}
    return [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]


def by_name(state: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Returns an optimizer's state with parameters by name. (`by_number` takes it back.)"""
    groups = [group | {"params": [names[i] for i in group["params"]]} for group in state["param_groups"]]
    return {"state": {names[i]: one for i, one in state["state"].items()}, "param_groups": groups}


def by_number(state: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Returns an optimizer's state with parameters by their place in `names`, if it has them by name. Raises UserError
    where its groups are not those of `names`."""
    there = [name for group in state["param_groups"] for name in group["params"]]
    if not all(isinstance(name, str) for name in there):
        return state
    if there != [*names]:
        raise UserError("ckpt_path: the checkpoint's optimizer groups do not match this version's: start a new run")
    place = {name: i for i, name in enumerate(names)}
    groups = [group | {"params": [place[name] for name in group["params"]]} for group in state["param_groups"]]
    return {"state": {place[name]: one for name, one in state["state"].items()}, "param_groups": groups}
