"""Exponential smoothing by an associative scan: h[k] = (1 - p[k]) · h[k-1] + p[k] · x[k].

Shapes: B rows, U units, E width, C units of a block.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 64  # units that one matrix takes at once


def smooth(x: Tensor, p: Tensor, before: Tensor | None = None) -> Tensor:
    """Returns h [B, U, E] of x [B, U, E] and p [B, U], in float32 or better and cast back.

    `before` [B, E] is h[-1], or 0.
    """
    kind = torch.promote_types(x.dtype, torch.float32)
    keep, new = 1 - p.to(kind), p.to(kind)[..., None] * x.to(kind)
    if before is not None:
        new = torch.cat([new[:, :1] + keep[:, :1, None] * before.to(kind)[:, None], new[:, 1:]], 1)
    with torch.autocast(x.device.type, enabled=False):
        return _Scan.apply(keep, new).to(x.dtype)


def scan_flops(n: Tensor) -> Tensor:
    """FLOPs [...] per channel of smoothing n [...] units, forward and backward."""
    flops = torch.zeros_like(n)
    for _ in range(4):  # of BLOCK**4 units
        size = n.clamp(max=BLOCK)
        blocks = (n / size.clamp(min=1)).ceil()
        flops += 4 * blocks * size * size
        n = torch.where(blocks > 1, blocks, torch.zeros_like(n))
    return flops


class _Scan(torch.autograd.Function):
    """h[k] = a[k] · h[k-1] + b[k]. Its gradient is the same recurrence from the end."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        h = _scan(a, b)
        ctx.save_for_backward(a, h)
        return h

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        a, h = ctx.saved_tensors
        following = F.pad(a[:, 1:], (0, 1))
        into_b = _scan(following.flip(1), grad.flip(1)).flip(1)
        into_a = (into_b * F.pad(h[:, :-1], (0, 0, 1, 0))).sum(-1)
        return into_a, into_b


def _scan(a: Tensor, b: Tensor) -> Tensor:
    """a [B, U], b [B, U, E]. A block's units are joined by one matrix of products of a (no quotients or logarithms, so
    that a = 0 is exact), and the blocks' ends by the same scan."""
    batch, n, width = b.shape
    size = min(BLOCK, n)
    a, b = F.pad(a, (0, -n % size)).view(batch, -1, size), F.pad(b, (0, 0, 0, -n % size)).view(batch, -1, size, width)
    later = torch.ones(size, size, dtype=torch.bool, device=a.device).tril(-1)  # row after column
    joins = torch.where(later, a[..., None], 1.0).cumprod(-2).tril()  # [B, blocks, C, C]
    h = joins @ b
    if a.shape[1] > 1:
        from_begin = a.cumprod(-1)
        ends = _scan(from_begin[..., -1], h[:, :, -1])
        h = h + from_begin[..., None] * F.pad(ends[:, :-1], (0, 0, 1, 0))[:, :, None]
    return h.flatten(1, 2)[:, :n]
