"""Memory of a device that trains an AU-Net, in bytes.

Shapes: B rows, S stages, N positions of a stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from aunet_lightning.costs.flops import FLOAT, HALF, Cost, Precision
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.model.config import AUNetConfig
from aunet_lightning.model.deciders import FromData
from aunet_lightning.model.units import Room
from splitters.registry import Spec
from splitters.stack import Stack

FEW = 4e9  # training FLOPs of a row: below, a forward takes less time than a second of tensors without data


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes on one device while it trains, all held at once when a forward ends, as Lightning clears gradients of the
    step before only then. Temporary memory of single operations is left out."""

    parameters: float
    gradients: float
    optimizer: float  # the two moments of AdamW
    gathered: float  # on several devices: the largest modules that FSDP puts together; or DDP's buckets of gradients
    copies: float  # of weights in the type of autocast, kept for the backward, and what else no row adds to
    activations: float

    @property
    def total(self) -> float:
        return self.parameters + self.gradients + self.optimizer + self.gathered + self.copies + self.activations


def memory(
    config: AUNetConfig,
    positions: Sequence[float],
    rows: int,
    splitters: Sequence[Spec] | Stack = (),
    precision: Precision = "32-true",
    devices: int = 1,
    recompute: Sequence[bool] = (),
    refreshes: float = 0.0,
) -> DeviceMemory:
    """Returns the memory of a device that trains on `rows` rows at once, with `positions` [S] of each stage in a row,
    and `refreshes` inside units.

    On several devices parameters, gradients and moments are divided among them (FSDP, full sharding). Activations are
    what autograd keeps of a forward, found by running it on tensors without data. recompute: the stages whose blocks
    the backward computes again (activation checkpointing; none is none). Raises ValueError for another precision.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision is {precision!r}: choose one of {', '.join(get_args(Precision))}")
    with torch.device("meta"):
        net = AUNet(config, splitters)
    with _without_data(net, positions, precision):
        net.to_empty(device="cpu")
        with torch.no_grad():
            for tensor in (*net.parameters(), *net.buffers()):
                tensor.zero_()  # what is there could be no number
        inputs = 0.0  # of the blocks that are computed again, of a row
        for s, again in enumerate(recompute):
            for block in net.stages[s].blocks:
                block.recompute = again
                inputs += again * FLOAT * (positions[s] + (refreshes if s == 1 else 0)) * config.stages[s].dim
        # A single row may have too few positions for the forms that more rows take.
        two, four = (_kept(net, positions, n, precision, refreshes) for n in (2, 4))
        of_row = (four - two) / 2
        weights = FLOAT * sum(parameter.numel() for parameter in net.parameters())
        modules = [*net.upsamplings, *(block for stage in net.stages for block in stage.blocks)]
        largest = max(sum(parameter.numel() for parameter in module.parameters()) for module in modules)
    share, gathered, copies = weights / devices, 0.0, float(max(2 * two - four, 0))
    if devices > 1:
        root = sum(parameter.numel() for part in (net.embedding, net.norm, net.head) for parameter in part.parameters())
        kind = HALF if precision == "bf16-mixed" else FLOAT
        # A module and the next, its gradients and their sum, and what stays gathered; autocast has nothing to copy.
        gathered = kind * (2 * largest + root) + (kind + FLOAT) * largest
        copies = copies if kind == FLOAT else 0.0
    return DeviceMemory(share, share, 2 * share, gathered, copies, rows * (of_row + inputs))


@contextmanager
def _without_data(net: AUNet, positions: Sequence[float], precision: Precision) -> Iterator[None]:
    """Makes CPU tensors without data, each of whose operations takes a fifth of a millisecond; those of a small network
    are real, of which autograd keeps the same."""
    if precision != "32-true" or Cost(net).row_flops(torch.tensor(positions)) > FEW:
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several would wait for each other
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)


class Kept:
    """A context that adds up what autograd keeps in it: every storage once, parameters left out."""

    def __init__(self, net: nn.Module) -> None:
        self.parameters = {parameter.untyped_storage()._cdata for parameter in net.parameters()}
        self.tensors: dict[int, Tensor] = {}  # by storage; held, so that none is given to another tensor
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._note, lambda tensor: tensor)

    def _note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in self.parameters:
            self.tensors.setdefault(storage, tensor.detach())
        return tensor

    def __enter__(self) -> Kept:
        self.hooks.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.hooks.__exit__(kind, error, at)

    @property
    def bytes(self) -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in self.tensors.values())


def _kept(net: AUNet, positions: Sequence[float], rows: int, precision: Precision, refreshes: float) -> int:
    """Returns the bytes that autograd keeps of a forward of `rows` rows and its loss."""
    round_to = net.config.round_units_to
    sizes = [round(positions[0])]
    for n in positions[1:]:
        sizes.append(min(-(-round(n) // round_to) * round_to, sizes[-1]))
    deciders = {stage.s: FromData(stage.s) for stage in net.stages[:-1] if stage.predictor is None}
    rooms = [Room(n, rows * n) for n in sizes[1:]]
    inside = None
    if net.refreshes:
        n = min(-(-round(refreshes) // round_to) * round_to, sizes[0])
        rooms[0] = rooms[0]._replace(inside=Room(n, rows * n))
        inside = torch.zeros(rows, sizes[0], dtype=torch.bool)
    half = torch.autocast("cpu", torch.bfloat16) if precision == "bf16-mixed" else nullcontext()
    with Kept(net) as kept, half:
        ids = torch.zeros(rows, sizes[0], dtype=torch.long)
        logits = net(ids, torch.zeros_like(ids), deciders=deciders, rooms=rooms, refreshes=inside).logits
        F.cross_entropy(logits.flatten(0, 1).float(), ids.flatten(), reduction="none")
        return kept.bytes
