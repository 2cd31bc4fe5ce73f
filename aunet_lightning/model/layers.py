"""A pre-norm transformer block: RMSNorm, causal attention with rotary positions, SwiGLU.

Shapes: B rows, N positions, D width, H heads, K head width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aunet_lightning.model.attention import Visibility

KeyValues = tuple[Tensor, Tensor]  # each [B, H, N, K]


@dataclass(frozen=True)
class Rotation:
    """Rotary embedding (arXiv 2104.09864) of some positions, on consecutive pairs of channels."""

    cos: Tensor  # float32 [B|1, 1, N, K/2]
    sin: Tensor

    @classmethod
    def at(cls, positions: Tensor, head_dim: int, theta: float) -> Rotation:
        """For positions [B|1, N]. Computed from integers at each call: there is no buffer to initialise."""
        exponents = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
        angles = positions[:, None, :, None].float() * theta**-exponents
        return cls(angles.cos(), angles.sin())

    def __call__(self, x: Tensor) -> Tensor:
        """Rotates [B, H, N, K], in float32 whatever the type of x."""
        a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack((a * self.cos - b * self.sin, a * self.sin + b * self.cos), dim=-1)
        return turned.flatten(-2).to(x.dtype)


@dataclass(frozen=True)
class Place:
    """Where the positions of a call stand: shared by all blocks of a stage."""

    rotation: Rotation
    visibility: Visibility


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm (arXiv 1910.07467), in the type of x: under autocast the fused kernel needs one type."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Multi-head causal attention."""

    def __init__(self, dim: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim, bias=False) for _ in range(4))

    def forward(self, x: Tensor, place: Place, past: KeyValues | None) -> tuple[Tensor, KeyValues]:
        q, k, v = (
            linear(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )  # [B, H, N, K]
        q, k = place.rotation(q), place.rotation(k)
        keys, values = (k, v) if past is None else (torch.cat([past[0], k], 2), torch.cat([past[1], v], 2))
        out = place.visibility.attend(q, keys, values)
        return self.out(out.transpose(1, 2).flatten(2)), (k, v)


class SwiGLU(nn.Module):
    """Gated feed-forward layer (arXiv 2002.05202); 8/3 · dim hidden units, rounded up."""

    def __init__(self, dim: int, multiple_of: int) -> None:
        super().__init__()
        hidden = -(-(8 * dim // 3) // multiple_of) * multiple_of
        self.gate = nn.Linear(dim, hidden, bias=False)
        self.up = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """x + attention, then x + feed-forward, each on the normed vector."""

    def __init__(self, dim: int, head_dim: int, ffn_multiple_of: int, norm_eps: float) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(dim, eps=norm_eps)
        self.attention = Attention(dim, head_dim)
        self.ffn_norm = RMSNorm(dim, eps=norm_eps)
        self.ffn = SwiGLU(dim, ffn_multiple_of)

    def forward(self, x: Tensor, place: Place, past: KeyValues | None) -> tuple[Tensor, KeyValues]:
        attended, key_values = self.attention(self.attention_norm(x), place, past)
        x = x + attended
        return x + self.ffn(self.ffn_norm(x)), key_values
