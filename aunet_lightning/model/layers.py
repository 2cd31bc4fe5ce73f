"""A pre-norm transformer block: RMSNorm, causal attention with rotary positions, SwiGLU.

Shapes: B rows, N positions, D width, H heads, K head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from aunet_lightning.model.attention import AttentionMask, Beside, Step
from aunet_lightning.model.config import AUNetConfig, StageConfig
from aunet_lightning.model.joined import Joined, OneEach
from aunet_lightning.model.kernels import Folded, added, by_hand, convolved, normed_linear, normed_swiglu, stepping


class KVCache(NamedTuple):
    """Keys and values of a block, and the inputs of its convolution, for later positions."""

    keys: Tensor  # [B, H, N, K]
    values: Tensor
    recent: Tensor | None  # [B, W-1, D] last inputs of its convolution of width W
    folded: Folded | None = None  # the block's matrices as a step multiplies by them, where weights stay as they are


@dataclass(frozen=True)
class Rotation:
    """Rotary embedding (arXiv 2104.09864) of some positions, on consecutive pairs of channels."""

    cos: Tensor  # [B|1, 1, N, K/2], float32 or better
    sin: Tensor

    @classmethod
    def at(cls, positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> Rotation:
        """For positions [B|1, N]. Computed from integers at each call, so no buffer needs initialising.

        In float64, since a float32 angle far into a stream is off by hundredths.
        """
        exponents = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float64) / head_dim
        angles = positions[:, None, :, None].double() * theta**-exponents
        return cls(angles.cos().to(dtype), angles.sin().to(dtype))

    def to(self, dtype: torch.dtype) -> Rotation:
        return Rotation(self.cos.to(dtype), self.sin.to(dtype))

    @cached_property
    def turns(self) -> Tensor:
        """The angles as complex numbers [B|1, 1, N, K/2]."""
        return torch.complex(self.cos, self.sin)

    def __call__(self, x: Tensor) -> Tensor:
        """Rotates [B, H, N, K], in float32 or better whatever the type of x."""
        if by_hand(x) and x.dtype == self.cos.dtype:
            pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
            return torch.view_as_real(pairs * self.turns).flatten(-2)
        a, b = x.to(self.cos.dtype).unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack((a * self.cos - b * self.sin, a * self.sin + b * self.cos), dim=-1)
        return turned.flatten(-2).to(x.dtype)


@dataclass(frozen=True)
class Neighbours:
    """The positions that a causal convolution of width W sees: the W - 1 before a call, and those of the call."""

    last: Tensor  # [B, W-1] index of each row's last W - 1 among all these
    same: Tensor | None  # bool [B, N, W-1] whether the neighbour 1 … W-1 back is in the same document; None: always
    of_refreshes: tuple[Tensor, Tensor | None] | None = None  # the W - 1 before each, [B, Q, W-1], and `same` of them

    @classmethod
    def of(
        cls,
        width: int,
        valid: Tensor,
        documents: Tensor | None,
        past_documents: Tensor | None,
        unit: Tensor | None = None,
    ) -> Neighbours:
        """For valid [B, N] and documents [B, N], after those of the positions before (None: nothing was before). unit
        [B, Q]: of refreshes after them, the position that each comes after (-1: one before the call)."""
        back = torch.arange(width - 1, device=valid.device)
        last = valid.sum(1, keepdim=True) + back
        before = None if unit is None else unit[..., None] + width - 1 - back  # [B, Q, W-1], the nearest first
        if documents is None:
            return cls(last, None, None if before is None else (before, None))
        if past_documents is None:
            past_documents = documents.new_full((len(documents), width - 1), -1)
        joined = torch.cat([past_documents, documents], 1)
        around = joined.unfold(1, width, 1)  # [B, N, W], the position itself last
        same = around[..., :-1].flip(-1) == documents[..., None]
        if before is None:
            return cls(last, same)
        theirs = joined.gather(1, before.flatten(1)).view_as(before)
        return cls(last, same, (before, theirs == theirs[..., :1]))


@dataclass(frozen=True)
class BlockContext:
    """What the positions of a call share in all blocks of a stage."""

    rotation: Rotation
    mask: AttentionMask | Beside | Step
    neighbours: Neighbours | None  # where the blocks have a convolution
    joined: Joined | OneEach | None = (
        None  # where blocks get the positions of all rows joined, [T, D] in place of [B, N, D]
    )

    def by_row(self, x: Tensor) -> Tensor:
        """A block's vectors as [B, N, D]."""
        return x if self.joined is None else self.joined.part(x)

    def as_given(self, x: Tensor) -> Tensor:
        """The reverse."""
        return x if self.joined is None else self.joined.join(x)


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm (arXiv 1910.07467), in the type of x: under autocast the fused kernel needs one type."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Multi-head causal attention."""

    def __init__(self, dim: int, head_dim: int, qk_norm: float | None) -> None:
        """qk_norm: epsilon of the norms of queries and keys; None: they are not normed."""
        super().__init__()
        self.head_dim = head_dim
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        norms = [RMSNorm(head_dim, eps=qk_norm) if qk_norm is not None else None for _ in range(2)]
        self.query_norm, self.key_norm = norms

    def forward(
        self, x: Tensor, norm: RMSNorm, context: BlockContext, past: KVCache | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """norm(x) [B, N, D] or [T, D] → the same, and the keys and values [B, H, N, K] of these positions."""
        q, k, v = (
            context.by_row(projected).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projected in normed_linear(x, norm, (self.query, self.key, self.value))
        )  # [B, H, N, K]
        q, k = (context.rotation(x) for x in self.normed(q, k))
        out = context.mask.attend(q, k, v, past[:2] if past is not None else None)
        return self.out(context.as_given(out.transpose(1, 2).flatten(2))), k, v

    def normed(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys [B, H, N, K], normed where they are to be."""
        if self.query_norm is None or self.key_norm is None:
            return q, k
        return self.query_norm(q), self.key_norm(k)


class SwiGLU(nn.Module):
    """Gated feed-forward layer (arXiv 2002.05202); multiplier · 8/3 · dim hidden units, rounded up."""

    def __init__(self, dim: int, multiple_of: int, multiplier: float = 1.0) -> None:
        super().__init__()
        hidden = -(-max(int(multiplier * (8 * dim // 3)), 1) // multiple_of) * multiple_of
        self.gate = nn.Linear(dim, hidden, bias=False)
        self.up = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor, norm: RMSNorm) -> Tensor:
        """What the layer makes of norm(x), for x [..., D]."""
        return normed_swiglu(x, norm, self.gate, self.up, self.down)


class CausalConv(nn.Module):
    """Causal depthwise convolution: each channel sees its own past W positions, the current one included."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, dim))  # row j applies to the position j back

    def forward(self, x: Tensor, neighbours: Neighbours, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """x [B, N (+ Q), D] after past [B, W-1, D] → the same shape, and each row's last W - 1 positions."""
        back = len(self.weight) - 1
        weight, refreshes, more = self.weight.to(x.dtype), x[:, :0], neighbours.of_refreshes
        if more is not None:
            x, refreshes = x.split([x.shape[1] - more[0].shape[1], more[0].shape[1]], 1)
        seen = torch.cat([x.new_zeros(len(x), back, x.shape[2]) if past is None else past, x], 1)
        out = convolved(seen, weight, neighbours.same)
        if more is not None:
            out = torch.cat([out, _convolved_after(seen, refreshes, weight, *more)], 1)
        return out, seen.gather(1, neighbours.last[..., None].expand(-1, -1, x.shape[2]))


def _convolved_after(seen: Tensor, x: Tensor, weight: Tensor, before: Tensor, same: Tensor | None) -> Tensor:
    """The same for x [B, Q, D], each after the positions before [B, Q, W-1] of seen [B, M, D], the nearest first."""
    rows = seen.shape[1] * torch.arange(len(seen), device=seen.device)[:, None, None]
    taps = F.embedding(before + rows, seen.flatten(0, 1))  # its backward repeats to the last digit
    return weight[0] * x + ((taps if same is None else taps * same[..., None]) * weight[1:]).sum(2)


class Block(nn.Module):
    """x + convolution (where there is one), x + attention, then x + feed-forward, each on the normed vector."""

    recompute = False  # activation checkpointing: keep only x for the backward

    def __init__(self, config: AUNetConfig, stage: StageConfig) -> None:
        super().__init__()
        dim, eps = stage.dim, config.norm_eps
        self.conv_norm = RMSNorm(dim, eps=eps) if stage.conv else None
        self.conv = CausalConv(dim, stage.conv) if stage.conv else None
        self.attention_norm = RMSNorm(dim, eps=eps)
        self.attention = Attention(dim, stage.head_dim, eps if config.qk_norm else None)
        self.ffn_norm = RMSNorm(dim, eps=eps)
        self.ffn = SwiGLU(dim, config.ffn_multiple_of, config.ffn_multiplier)
        self.dropout = config.dropout

    def forward(self, x: Tensor, context: BlockContext, past: KVCache | None) -> tuple[Tensor, KVCache]:
        if self.recompute and torch.is_grad_enabled():
            return cast(
                tuple[Tensor, KVCache],
                checkpoint(self._forward, x, context, past, use_reentrant=False, preserve_rng_state=self.dropout > 0),
            )
        return self._forward(x, context, past)

    def _forward(self, x: Tensor, context: BlockContext, past: KVCache | None) -> tuple[Tensor, KVCache]:
        recent, dropout = None, self.dropout if self.training else 0.0
        if past is not None and past.folded is not None and x.dim() == 2 and stepping(x, past.folded.down):
            return self._step(x, context, past, past.folded)
        if self.conv is not None and self.conv_norm is not None and context.neighbours is not None:
            normed = context.by_row(self.conv_norm(x))
            of_conv, recent = self.conv(normed, context.neighbours, past.recent if past else None)
            x = added(x, context.as_given(of_conv), dropout)
        attended, keys, values = self.attention(x, self.attention_norm, context, past)
        x = added(x, attended, dropout)
        return added(x, self.ffn(x, self.ffn_norm), dropout), KVCache(keys, values, recent)

    def _step(self, x: Tensor, context: BlockContext, past: KVCache, folded: Folded) -> tuple[Tensor, KVCache]:
        """The same for one position per row, x [R, D], whose keys and values are written to `past`."""
        eps = cast(float, self.ffn_norm.eps)
        both, v = folded.project(x, eps, self.attention.head_dim)
        if self.attention.query_norm is not None:
            both = torch.cat(self.attention.normed(*both.chunk(2, 1)), 1)
        q, k = context.rotation(both).chunk(2, 1)
        x = folded.attended(x, context.mask.attend(q, k, v, past[:2]))
        return folded.feed_forward(x, eps), past

    def folded(self) -> Folded:
        """Returns the matrices as a step multiplies by them."""
        attention, ffn = self.attention, self.ffn
        projections = attention.query, attention.key, attention.value
        return Folded.of(self.attention_norm, projections, attention.out, self.ffn_norm, ffn.gate, ffn.up, ffn.down)
