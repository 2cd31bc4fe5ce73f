"""Upsampling: from a unit's vector back to the positions inside the unit.

Shapes: B rows, N positions of the finer stage, U units, D finer and E coarser width, P offsets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aunet_lightning.model.config import AUNetConfig
from aunet_lightning.model.grouped import grouped_linear
from aunet_lightning.model.layers import RMSNorm
from aunet_lightning.model.scan import smooth
from aunet_lightning.model.units import Units, take


class Upsampling(nn.Module, ABC):
    """Spreads each unit's vector u = RMSNorm(y) over the unit. Subclasses define what offset p adds."""

    def __init__(self, dim: int, coarser_dim: int, config: AUNetConfig) -> None:
        super().__init__()
        self.n_offsets, self.offsets = config.max_offset, config.offsets
        self.norm = RMSNorm(coarser_dim, eps=config.norm_eps)
        self.up = nn.Linear(coarser_dim, dim, bias=False)

    def forward(
        self,
        y: Tensor | None,
        units: Units,
        open_unit: Tensor | None,
        p: Tensor | None = None,
        index: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """y [B, U, E] (None: no unit began), open_unit [B, E] → positions [B, N, D] and vectors u [B, ≤1+U, E], or of
        one position after an open unit, that of its unit [B, 1, E].

        p [B, U]: each vector is smoothed, p of its own and 1 - p of the one before. index: the rows that y is of, where
        it is not of all.
        """
        parts = [open_unit[:, None]] if open_unit is not None else []
        if y is not None:
            u = self.norm(y)
            if p is not None:
                before = open_unit[index] if open_unit is not None and index is not None else open_unit
                u = smooth(u, p if index is None else p[index], before)
            if index is not None:
                u = u.new_zeros(len(units.offset), *u.shape[1:]).index_copy(0, index, u)
            parts.append(u)
        u = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        if open_unit is not None and units.serving.shape[1] == 1:
            u = take(u, units.serving)
            units = replace(units, serving=torch.zeros_like(units.serving))
        return self.spread(u, units), u

    @abstractmethod
    def spread(self, u: Tensor, units: Units) -> Tensor:
        """Returns the share [B, N, D] of each position in the vectors u [B, ≤1+U, E]."""

    def weights_per_position(self) -> int:
        """Returns the weights that each position of the finer stage is multiplied by, for FLOPs."""
        return 0

    def weights_per_call(self) -> int:
        """Returns the weights that are multiplied once per call, whatever the number of rows, for FLOPs."""
        return 0

    def bounded(self, offset: Tensor) -> Tensor:
        return offset.clamp(max=self.n_offsets - 1) if self.offsets == "clamp" else offset % self.n_offsets


class MultiLinear(Upsampling):
    """W_up·u + W_p·u: one matrix shared by all offsets, applied once per unit, and one per offset."""

    def __init__(self, dim: int, coarser_dim: int, config: AUNetConfig) -> None:
        super().__init__(dim, coarser_dim, config)
        self.by_offset = nn.Parameter(torch.empty(config.max_offset, dim, coarser_dim))  # [P, D, E]

    def spread(self, u: Tensor, units: Units) -> Tensor:
        shared, offset = take(self.up(u), units.serving), self.bounded(units.offset)
        own = grouped_linear(take(u, units.serving).flatten(0, 1), offset.flatten(), self.by_offset)
        return shared + own.view_as(shared)

    def weights_per_position(self) -> int:
        return self.by_offset[0].numel()


class Repeat(Upsampling):
    """W_up·(u + e_p): the unit's vector everywhere, with a learned embedding per offset."""

    def __init__(self, dim: int, coarser_dim: int, config: AUNetConfig) -> None:
        super().__init__(dim, coarser_dim, config)
        self.position = nn.Embedding(config.max_offset, coarser_dim)

    def spread(self, u: Tensor, units: Units) -> Tensor:
        by_offset = self.up(self.position.weight)  # [P, D]: W_up is linear, so once per offset will do
        return take(self.up(u), units.serving) + F.embedding(self.bounded(units.offset), by_offset)

    def weights_per_call(self) -> int:
        return self.n_offsets * self.up.weight.numel()


class Copy(Upsampling):
    """W_up·u everywhere, as H-Net does it."""

    def spread(self, u: Tensor, units: Units) -> Tensor:
        return take(self.up(u), units.serving)


class Insert(Upsampling):
    """W_up·u at the boundary and nothing elsewhere: the skip connection and attention carry the rest."""

    def spread(self, u: Tensor, units: Units) -> Tensor:
        return take(self.up(u), units.serving) * (units.offset == 0)[..., None]
