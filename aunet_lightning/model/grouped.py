"""Products of rows with a matrix per group of rows, such as one per offset inside a unit.

How many rows each group has is data, and stays within the operations of this file: a compiler, and the host of an
accelerator, know all shapes without it.
Shapes: N rows, G groups, D inputs, O outputs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from aunet_lightning.model import kernels

FEW = 8  # rows of a step that are multiplied one by one
TILE = 128  # rows of one group that an accelerator multiplies at once


def grouped_linear(x: Tensor, groups: Tensor, weights: Tensor) -> Tensor:
    """Returns weights[g] · x of each row, for x [N, D], its group g in groups [N] and weights [G, O, D]: [N, O]."""
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weights = x.to(dtype), weights.to(dtype)
    if len(x) <= FEW and kernels.stepping(x, weights):
        if torch.compiler.is_compiling():
            return torch.bmm(weights[groups], x[..., None])[..., 0]
        return torch.cat([F.linear(x[i : i + 1], weights[g]) for i, g in enumerate(groups.tolist())])
    order = groups.argsort(stable=True)
    sizes = groups.new_zeros(len(weights)).scatter_add(0, groups, torch.ones_like(groups))
    x = F.embedding(order, x)
    if kernels.PLAIN and not isinstance(x, FakeTensor):  # whose sizes nobody can read
        parts = x.split(sizes.tolist())
        own = torch.cat([F.linear(part, matrix) for part, matrix in zip(parts, weights, strict=True)])
    else:
        own = sorted_linear(x, sizes, weights)
    back = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device))
    return F.embedding(back, own)


@torch.library.custom_op("aunet::sorted_linear", mutates_args=())
def sorted_linear(x: Tensor, sizes: Tensor, weights: Tensor) -> Tensor:
    """Returns [N, O] of rows x [N, D] that are sorted by group, with sizes [G] rows each and weights [G, O, D]."""
    if x.device.type != "cpu":
        return _tiled_linear(x, sizes, weights)
    out, rows = x.new_empty(len(x), weights.shape[1]), sizes.tolist()
    for part, into, matrix in zip(x.split(rows), out.split(rows), weights, strict=True):
        torch.mm(part, matrix.t(), out=into)
    return out


@torch.library.custom_op("aunet::sorted_outer", mutates_args=())
def sorted_outer(grad: Tensor, x: Tensor, sizes: Tensor) -> Tensor:
    """Returns [G, O, D], the sums of products of grad [N, O] and x [N, D] over the rows of each group."""
    if x.device.type != "cpu":
        return _tiled_outer(grad, x, sizes)
    out, rows = x.new_empty(len(sizes), grad.shape[1], x.shape[1]), sizes.tolist()
    for of_part, part, into in zip(grad.split(rows), x.split(rows), out, strict=True):
        torch.mm(of_part.t(), part, out=into)
    return out


@sorted_linear.register_fake
def _(x: Tensor, sizes: Tensor, weights: Tensor) -> Tensor:
    return x.new_empty(len(x), weights.shape[1])


@sorted_outer.register_fake
def _(grad: Tensor, x: Tensor, sizes: Tensor) -> Tensor:
    return x.new_empty(len(sizes), grad.shape[1], x.shape[1])


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor]:
    x, sizes, weights = ctx.saved_tensors
    return sorted_linear(grad, sizes, weights.transpose(1, 2)), None, sorted_outer(grad, x, sizes)


sorted_linear.register_autograd(_backward, setup_context=_keep)


def _tiled_linear(x: Tensor, sizes: Tensor, weights: Tensor) -> Tensor:
    slot, group = _tiles(len(x), sizes)
    out = torch.bmm(_in_tiles(x, slot, len(group)), weights[group].transpose(1, 2))
    return out.flatten(0, 1)[slot]


def _tiled_outer(grad: Tensor, x: Tensor, sizes: Tensor) -> Tensor:
    slot, group = _tiles(len(x), sizes)
    parts = torch.bmm(_in_tiles(grad, slot, len(group)).transpose(1, 2), _in_tiles(x, slot, len(group)))
    return parts.new_zeros(len(sizes), *parts.shape[1:]).index_add(0, group, parts)


def _in_tiles(x: Tensor, slot: Tensor, n_tiles: int) -> Tensor:
    """Returns [tiles, TILE, D], zeros where a tile has no row."""
    return x.new_zeros(n_tiles * TILE, x.shape[1]).index_copy(0, slot, x).view(n_tiles, TILE, -1)


def _tiles(n: int, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the slot [N] of each sorted row among the rows of tiles, and the group [tiles] of each tile; there are
    as many tiles as any sizes [G] can need."""
    tiles = (sizes + TILE - 1) // TILE
    ends = sizes.cumsum(0)
    group_of_row = torch.searchsorted(ends, torch.arange(n, device=sizes.device), right=True)
    first = (tiles.cumsum(0) - tiles) * TILE - (ends - sizes)
    n_tiles = n // TILE + len(sizes)
    group = torch.searchsorted(tiles.cumsum(0), torch.arange(n_tiles, device=sizes.device), right=True)
    return torch.arange(n, device=sizes.device) + first[group_of_row], group.clamp(max=len(sizes) - 1)
