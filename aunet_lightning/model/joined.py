"""The positions of all rows joined into one, so that products leave out what rows are padded with.

Shapes: B rows, N positions of a stage, T positions joined, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from aunet_lightning.model import kernels

WORTH = 0.9  # of the padded positions: above, moving them costs more than the products that are left out


class Joined(NamedTuple):
    """Where positions go: those past a row's last are nobody's."""

    place: Tensor  # [T] of each joined position, among B · N
    slot: Tensor  # [B, N] of each position, among T

    @classmethod
    def of(cls, valid: Tensor, most: int) -> Joined | None:
        """Returns the places of valid positions, bool [B, N], of which there are no more than `most`; None where too
        few are padded. (A compiler joins all, as each case would be compiled for itself.)"""
        n = valid.numel()
        if kernels.PLAIN or (not torch.compiler.is_compiling() and most > WORTH * n):
            return None
        slot = (valid.flatten().cumsum(0) * valid.flatten()).view_as(valid)  # from 1; 0 is nobody's
        place = slot.new_zeros(most + 1).scatter(0, slot.flatten(), torch.arange(n, device=valid.device))[1:]
        return cls(place, (slot - 1).clamp(min=0))

    def join(self, x: Tensor) -> Tensor:
        """[B, N, D] → [T, D]."""
        return F.embedding(self.place, x.flatten(0, 1))

    def part(self, x: Tensor) -> Tensor:
        """[T, D] → [B, N, D]."""
        return F.embedding(self.slot, x)


class OneEach:
    """The positions of rows that have one each: products of matrices and not of batches of them."""

    def join(self, x: Tensor) -> Tensor:
        """[R, 1, D] → [R, D]."""
        return x.squeeze(1)

    def part(self, x: Tensor) -> Tensor:
        """[R, D] → [R, 1, D]."""
        return x.unsqueeze(1)
