"""Between two stages: from boundaries to units, and from units back to the positions inside them.

Shapes: B rows, N positions of the finer stage, U units, D finer and E coarser width, P offsets.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aunet_lightning.model.config import AUNetConfig
from aunet_lightning.model.layers import RMSNorm
from aunet_lightning.model.scan import smooth
from aunet_lightning.model.state import OpenUnit


@dataclass(frozen=True)
class Units:
    """The units that begin in a call, and for every position the unit that serves it."""

    boundaries: Tensor  # [B, U] positions of the boundaries, 0 past a row's last
    valid: Tensor  # bool [B, U]
    serving: Tensor  # [B, N] index of each position's unit; with a past, 0 is the unit left open
    offset: Tensor  # [B, N] distance from its boundary

    @classmethod
    def at(cls, boundary: Tensor, past: OpenUnit | None, round_to: int) -> Units:
        """From boundary, bool [B, N]. Without a past, the first position of every row must be one."""
        n = boundary.shape[1]
        at = torch.arange(n, device=boundary.device).expand_as(boundary)
        counted = boundary.cumsum(1)
        per_row = counted[:, -1]
        most = int(per_row.max())
        n_units = min(-(-most // round_to) * round_to, n)
        slots = torch.where(boundary, counted - 1, n_units)  # what is no boundary goes past the end
        positions = at.new_zeros(len(boundary), n_units + 1).scatter(1, slots, at)[:, :n_units]
        last = torch.where(boundary, at, -1).cummax(1).values
        offset = at - last
        if past is not None:  # before the first new boundary, the open unit goes on
            offset = torch.where(last < 0, past.offset[:, None] + 1 + at, offset)
        valid = torch.arange(n_units, device=boundary.device) < per_row[:, None]
        return cls(positions, valid, counted if past is not None else counted - 1, offset)


def take(rows: Tensor, index: Tensor) -> Tensor:
    """rows [B, M, D] at index [B, N]: [B, N, D]. (`embedding`: its backward repeats to the last digit.)"""
    batch, m, _ = rows.shape
    flat = index + m * torch.arange(batch, device=index.device)[:, None]
    return F.embedding(flat, rows.flatten(0, 1))


class Pooling(nn.Module):
    """x_{s+1} = W_down · RMSNorm(h_s[boundaries])."""

    def __init__(self, dim: int, coarser_dim: int, norm_eps: float) -> None:
        super().__init__()
        self.norm = RMSNorm(dim, eps=norm_eps)
        self.down = nn.Linear(dim, coarser_dim, bias=False)

    def forward(self, h: Tensor, units: Units) -> Tensor:
        return self.down(self.norm(take(h, units.boundaries)))  # [B, U, E]


class Upsampling(nn.Module):
    """Spreads each unit's vector u = RMSNorm(y) over the unit. Subclasses say what offset p adds."""

    def __init__(self, dim: int, coarser_dim: int, config: AUNetConfig) -> None:
        super().__init__()
        self.n_offsets, self.offsets = config.max_offset, config.offsets
        self.norm = RMSNorm(coarser_dim, eps=config.norm_eps)
        self.up = nn.Linear(coarser_dim, dim, bias=False)

    def forward(
        self, y: Tensor | None, units: Units, open_unit: Tensor | None, p: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """y [B, U, E] (None: no unit began), open_unit [B, E] → positions [B, N, D] and vectors u [B, ≤1+U, E].

        p [B, U]: each vector is smoothed, p of its own and 1 - p of the one before.
        """
        parts = [open_unit[:, None]] if open_unit is not None else []
        if y is not None:
            u = self.norm(y)
            parts.append(u if p is None else smooth(u, p, open_unit))
        u = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        return self.spread(u, units), u

    def spread(self, u: Tensor, units: Units) -> Tensor:
        raise NotImplementedError

    def bounded(self, offset: Tensor) -> Tensor:
        return offset.clamp(max=self.n_offsets - 1) if self.offsets == "clamp" else offset % self.n_offsets


class MultiLinear(Upsampling):
    """W_up·u + W_p·u: one matrix shared by all offsets, applied once per unit, and one per offset."""

    def __init__(self, dim: int, coarser_dim: int, config: AUNetConfig) -> None:
        super().__init__(dim, coarser_dim, config)
        self.by_offset = nn.Parameter(torch.empty(config.max_offset, dim, coarser_dim))  # [P, D, E]

    def spread(self, u: Tensor, units: Units) -> Tensor:
        offset = self.bounded(units.offset)
        shared = take(self.up(u), units.serving)
        # Positions sorted by offset, so that each matrix is applied once, to just its positions.
        order = offset.flatten().argsort(stable=True)
        sizes = offset.flatten().bincount(minlength=self.n_offsets).tolist()
        rows = units.serving + u.shape[1] * torch.arange(len(u), device=u.device)[:, None]
        vectors = F.embedding(rows.flatten()[order], u.flatten(0, 1)).split(sizes)
        own = torch.cat([F.linear(x, matrix) for x, matrix in zip(vectors, self.by_offset, strict=True)])
        back = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=u.device))
        return shared + F.embedding(back, own).view_as(shared)


class Repeat(Upsampling):
    """W_up·(u + e_p): the unit's vector everywhere, told apart by a learned embedding per offset."""

    def __init__(self, dim: int, coarser_dim: int, config: AUNetConfig) -> None:
        super().__init__(dim, coarser_dim, config)
        self.position = nn.Embedding(config.max_offset, coarser_dim)

    def spread(self, u: Tensor, units: Units) -> Tensor:
        by_offset = self.up(self.position.weight)  # [P, D]: W_up is linear, so once per offset will do
        return take(self.up(u), units.serving) + F.embedding(self.bounded(units.offset), by_offset)


class Copy(Upsampling):
    """W_up·u everywhere, as H-Net does it."""

    def spread(self, u: Tensor, units: Units) -> Tensor:
        return take(self.up(u), units.serving)


class Insert(Upsampling):
    """W_up·u at the boundary and nothing elsewhere: the skip connection and attention carry the rest."""

    def spread(self, u: Tensor, units: Units) -> Tensor:
        return take(self.up(u), units.serving) * (units.offset == 0)[..., None]


UPSAMPLINGS: dict[str, type[Upsampling]] = {
    "multi_linear": MultiLinear,
    "repeat": Repeat,
    "copy": Copy,
    "insert": Insert,
}
