"""Fast forms of what a block computes, each beside the plain form that it equals in values and gradients.

Eager PyTorch on a CPU spends a third of a step on passes over memory: a norm is five of them, its gradient ten. Here
norm and linear layer are one function, whose matrix takes up the norm's weight, and the layers that read the same
input are one product. A compiler fuses by itself and autocast has rules of its own: they take the plain form, as
everything does with AUNET_PLAIN=1 in the environment. A step of a few positions has forms of its own.
Shapes: D inputs, O outputs of a linear layer.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PLAIN = os.environ.get("AUNET_PLAIN") == "1"
FEW = 64  # positions for which joining weights costs more than it saves


def by_hand(x: Tensor) -> bool:
    """Whether operations on x are fused by hand: on a CPU, by neither a compiler nor autocast."""
    return x.device.type == "cpu" and not (torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu") or PLAIN)


def _fused(x: Tensor, norm: nn.RMSNorm, weight: Tensor) -> bool:
    many = x.numel() > FEW * x.shape[-1]
    return many and by_hand(x) and x.dtype == norm.weight.dtype == weight.dtype and x.dtype != torch.bfloat16


def stepping(x: Tensor, *weights: Tensor) -> bool:
    """Whether x [..., D] is a few positions without a gradient, for which each call of PyTorch counts."""
    few = x.numel() <= FEW * x.shape[-1] and not torch.is_grad_enabled() and not PLAIN
    here = x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return few and here and all(x.dtype == weight.dtype != torch.bfloat16 for weight in weights)


def normed_linear(x: Tensor, norm: nn.RMSNorm, layers: Sequence[nn.Linear]) -> Sequence[Tensor]:
    """Returns what linear layers (without biases) make of norm(x), for x [..., D]: one [..., O] each."""
    weights = [layer.weight for layer in layers]
    if stepping(x, norm.weight, weights[0]):
        x = _unit(x, cast(float, norm.eps))[0].mul_(norm.weight)
        return [F.linear(x, weight) for weight in weights]
    if not _fused(x, norm, weights[0]):
        x = norm(x)
        return [layer(x) for layer in layers]
    joined = _NormedLinear.apply(x, norm.eps, norm.weight, *weights)
    return joined.split([len(weight) for weight in weights], -1) if len(weights) > 1 else [joined]


def normed_swiglu(x: Tensor, norm: nn.RMSNorm, gate: nn.Linear, up: nn.Linear, down: nn.Linear) -> Tensor:
    """Returns down(silu(gate(z)) · up(z)), z = norm(x), for x [..., D]."""
    if stepping(x, norm.weight, gate.weight):
        x = _unit(x, cast(float, norm.eps))[0].mul_(norm.weight)
        return F.linear(F.silu(F.linear(x, gate.weight), inplace=True).mul_(F.linear(x, up.weight)), down.weight)
    if not _fused(x, norm, gate.weight):
        x = norm(x)
        return down(F.silu(gate(x)) * up(x))
    return _NormedSwiGLU.apply(x, norm.eps, norm.weight, gate.weight, up.weight, down.weight)


def convolved(seen: Tensor, weight: Tensor, same: Tensor | None) -> Tensor:
    """Returns [B, N, D]: of each position, the sum of its last W of seen [B, W-1+N, D], each times a row of weight
    [W, D] (the position's own first). same: bool [B, N, W-1], which of the W - 1 before count; None: all."""
    if by_hand(seen) and torch.is_grad_enabled() and seen.dtype == weight.dtype != torch.bfloat16:
        return _Convolved.apply(seen, weight, None if same is None else same.to(seen.dtype))
    now, *before = _taps(seen, len(weight))
    out = weight[0] * now
    for j, x in enumerate(before, 1):
        tap = weight[j] * x
        out = out + (tap if same is None else tap * same[..., j - 1 : j])
    return out


def dropped(x: Tensor, share: float) -> Tensor:
    """Returns x [B, N, D] without a share of its numbers, and the others so much larger; by hand the same ones of
    each row, which is drawn in a third of the time."""
    if not share:
        return x
    return x * _kept(x, share) if by_hand(x) else F.dropout(x, share)


def added(x: Tensor, update: Tensor, dropout: float) -> Tensor:
    """Returns x + dropped(update, dropout)."""
    if not (dropout and by_hand(update)):
        return x + dropped(update, dropout)
    return torch.addcmul(x, update, _kept(update, dropout))


def _kept(x: Tensor, share: float) -> Tensor:
    """Factors [N, D] for each row of x [B, N, D]: 0 for a share of them."""
    return torch.rand(x.shape[1:], device=x.device).ge_(share).mul_(1 / (1 - share)).to(x.dtype)


def _taps(seen: Tensor, width: int) -> list[Tensor]:
    """Views of seen [B, W-1+N, D], one for each distance 0 … W-1 back: [B, N, D]."""
    n = seen.shape[1] - width + 1
    return [seen[:, j : j + n] for j in range(width - 1, -1, -1)]


def _unit(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Returns x [N, D] divided by its root mean square, and the factors [N, 1]."""
    square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
    factor = square.div_(x.shape[-1]).add_(eps).rsqrt_()
    return x * factor, factor


def _unit_backward(grad: Tensor, unit: Tensor, factor: Tensor) -> Tensor:
    """The gradient of `_unit`, with grad [N, D] of its result."""
    along = torch.linalg.vecdot(grad, unit).div_(-unit.shape[-1])[:, None]
    return torch.addcmul(grad, unit, along).mul_(factor)


class Folded(NamedTuple):
    """The matrices of a block as a step multiplies by them: joined, transposed, with the norms' weights taken up.
    Wide ones lie in memory by input, for one row is read twice as fast so."""

    projections: Tensor  # [D, 3D] of query, key and value
    out: Tensor  # [D, D]
    gate_up: Tensor  # [D, 2F]
    down: Tensor  # [F, D]

    @classmethod
    def of(
        cls, norm: nn.RMSNorm, projections: Sequence[nn.Linear], out: nn.Linear,
        ffn_norm: nn.RMSNorm, gate: nn.Linear, up: nn.Linear, down: nn.Linear,
    ) -> Folded:  # fmt: skip
        joined = torch.cat([layer.weight for layer in projections]) * norm.weight
        gate_up = torch.cat([gate.weight, up.weight]) * ffn_norm.weight
        of_root = joined.shape[1] ** 0.5  # the norm is of the mean square, `unit` of the sum
        wide = (joined * of_root).t().contiguous(), (gate_up * of_root).t().contiguous()
        return cls(wide[0], out.weight.t(), wide[1], down.weight.t())

    def project(self, x: Tensor, eps: float, head_dim: int) -> tuple[Tensor, Tensor]:
        """x [R, D] → query and key together [R, 2H, 1, K], and value [R, H, 1, K]."""
        found = torch.mm(self._unit(x, eps), self.projections).view(len(x), -1, 1, head_dim)
        third = found.shape[1] // 3
        return found[:, : 2 * third], found[:, 2 * third :]

    def attended(self, x: Tensor, found: Tensor) -> Tensor:
        """x [R, D] and what attention found [R, H, 1, K] → the block's vectors after attention."""
        return torch.addmm(x, found.reshape(x.shape), self.out)

    def feed_forward(self, x: Tensor, eps: float) -> Tensor:
        """x [R, D] → the block's vectors after the feed-forward layer."""
        gate, up = torch.mm(self._unit(x, eps), self.gate_up).chunk(2, 1)
        return torch.addmm(x, F.silu(gate).mul_(up), self.down)

    def _unit(self, x: Tensor, eps: float) -> Tensor:
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
        return x * square.add_(eps * x.shape[-1]).rsqrt_()


class _NormedLinear(torch.autograd.Function):
    """W · (scale · unit(x)) as (W · scale) · unit(x), for the rows of all matrices W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, scale: Tensor, *weights: Tensor) -> Tensor:
        unit, factor = _unit(x.flatten(0, -2), eps)
        ctx.save_for_backward(unit, factor, scale, *weights)
        return F.linear(unit, torch.cat(weights) * scale).unflatten(0, x.shape[:-1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        unit, factor, scale, *weights = ctx.saved_tensors
        shape, grad, joined = grad.shape[:-1], grad.flatten(0, -2), torch.cat(weights)
        of_folded = grad.t() @ unit
        of_x = _unit_backward(grad @ (joined * scale), unit, factor)
        of_weights = (of_folded * scale).split([len(weight) for weight in weights])
        return of_x.unflatten(0, shape), None, (of_folded * joined).sum(0), *of_weights


class _NormedSwiGLU(torch.autograd.Function):
    """The feed-forward layer with its norm."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, eps: float, scale: Tensor, gate_weight: Tensor, up_weight: Tensor, down_weight: Tensor
    ) -> Tensor:
        unit, factor = _unit(x.flatten(0, -2), eps)
        gate, up = F.linear(unit, gate_weight * scale), F.linear(unit, up_weight * scale)
        hidden = F.silu(gate).mul_(up)
        ctx.save_for_backward(unit, factor, scale, gate, up, hidden, gate_weight, up_weight, down_weight)
        return F.linear(hidden, down_weight).view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        unit, factor, scale, gate, up, hidden, gate_weight, up_weight, down_weight = ctx.saved_tensors
        shape, grad = grad.shape, grad.flatten(0, -2)
        of_hidden = grad @ down_weight
        of_up = F.silu(gate).mul_(of_hidden)
        of_gate = torch.ops.aten.silu_backward(of_hidden.mul_(up), gate)
        of_unit = torch.addmm(of_gate @ (gate_weight * scale), of_up, up_weight * scale)
        of_gate_folded, of_up_folded = of_gate.t() @ unit, of_up.t() @ unit
        of_scale = (of_gate_folded * gate_weight + of_up_folded * up_weight).sum(0)
        of_x = _unit_backward(of_unit, unit, factor).view(shape)
        return of_x, None, of_scale, of_gate_folded * scale, of_up_folded * scale, grad.t() @ hidden


class _Convolved(torch.autograd.Function):
    """The same sum in fewer passes, which keeps `seen` and not what each row of the weight makes of it."""

    @staticmethod
    def forward(ctx: Any, seen: Tensor, weight: Tensor, same: Tensor | None) -> Tensor:
        ctx.save_for_backward(seen, weight, same)
        now, *before = _taps(seen, len(weight))
        out = weight[0] * now
        for j, x in enumerate(before, 1):
            out.addcmul_(x if same is None else x * same[..., j - 1 : j], weight[j])
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        seen, weight, same = ctx.saved_tensors
        of_seen, of_weight = torch.zeros_like(seen), torch.empty_like(weight)
        for j, (x, into) in enumerate(zip(_taps(seen, len(weight)), _taps(of_seen, len(weight)), strict=True)):
            part = grad if same is None or j == 0 else grad * same[..., j - 1 : j]
            into.addcmul_(part, weight[j])
            torch.sum(part * x, (0, 1), out=of_weight[j])
        return of_seen, of_weight, None
