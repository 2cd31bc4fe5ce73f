"""Exponential smoothing by an associative scan: h[k] = (1 - p[k]) · h[k-1] + p[k] · x[k].

Shapes: B rows, U units, E width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def smooth(x: Tensor, p: Tensor, before: Tensor | None = None) -> Tensor:
    """Returns h [B, U, E] of x [B, U, E] and p [B, U], in float32 and cast back; `before` [B, E] is h[-1], or 0."""
    keep = 1 - p.float()[..., None]
    new = p.float()[..., None] * x.float()
    if before is not None:
        new = torch.cat([new[:, :1] + keep[:, :1] * before.float()[:, None], new[:, 1:]], 1)
    return _Scan.apply(keep, new).to(x.dtype)


class _Scan(torch.autograd.Function):
    """h[k] = a[k] · h[k-1] + b[k] in log2(U) passes. Its gradient is the same recurrence from the end."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        h = _scan(a, b)
        ctx.save_for_backward(a, h)
        return h

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        a, h = ctx.saved_tensors
        following = F.pad(a[:, 1:], (0, 0, 0, 1))
        into_b = _scan(following.flip(1), grad.flip(1)).flip(1)
        into_a = (into_b * F.pad(h[:, :-1], (0, 0, 1, 0))).sum(-1, keepdim=True)
        return into_a, into_b


def _scan(a: Tensor, b: Tensor) -> Tensor:
    """a [B, U, 1], b [B, U, E]; pairs (a, b) combine as (a1·a2, a2·b1 + b2), each pass over twice the distance."""
    distance = 1
    while distance < b.shape[1]:
        b = torch.cat([b[:, :distance], torch.addcmul(b[:, distance:], a[:, distance:], b[:, :-distance])], 1)
        a = torch.cat([a[:, :distance], a[:, distance:] * a[:, :-distance]], 1)
        distance *= 2
    return b
