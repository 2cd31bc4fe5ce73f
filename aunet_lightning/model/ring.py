"""Positions that one row has seen, as tensors alone: what a graph of a step reads and writes.

Shapes: H heads, C slots, K head width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from aunet_lightning.model.kernels import Folded
from aunet_lightning.model.layers import KVCache, Rotation
from aunet_lightning.model.state import LEAST_ROOM, TURNS, StageCache


@dataclass(frozen=True)
class Ring:
    """A `StageCache` of one row whose document continues. Position p is kept in slot p mod C, where C is at most the
    window: a step overwrites what it can no longer see, so that an older ring is not valid after it."""

    layers: tuple[tuple[Tensor, Tensor], ...]  # keys [1, H, K, C] and values [1, H, C, K], encoder then decoder
    mask: Tensor  # [C] 0 where a slot is seen, else -inf
    count: Tensor  # [1] positions seen since the stream began
    begin: Tensor  # [1] the first of its document
    turns: Rotation  # of T positions, this one's among them
    first: Tensor  # [1] the first of these
    recent: tuple[Tensor, ...]  # see `StageCache`
    folded: tuple[Folded, ...]
    begun: ClassVar[bool] = True
    writable: ClassVar[bool] = True
    fresh: ClassVar[list[bool]] = [False]

    @classmethod
    def of(cls, cache: StageCache, window: int | None, head_dim: int, theta: float) -> Ring:
        """Returns the ring of a row that has been read."""
        assert cache.tape is not None
        (count,), (begin,) = cache.count, cache.begin
        n = count - begin if window is None else min(count - begin, window)
        layers = tuple(cache.last(i, (0,), n) for i in range(len(cache.tape.layers)))
        size = n + LEAST_ROOM
        at, since = (torch.tensor([x], device=layers[0][0].device) for x in (count, begin))
        recent, nothing = tuple(x.clone() for x in cache.recent), layers[0][0].new_empty(0)
        ring = cls((), nothing, at, since, Rotation(nothing, nothing), at, recent, cache.folded)
        return ring._laid(layers, count, size if window is None else min(size, window)).turned(count, head_dim, theta)

    def _laid(self, layers: Iterable[tuple[Tensor, Tensor]], count: int, size: int) -> Ring:
        """Returns the ring with C = size slots, of keys and values [1, H, n, K] of the n positions before `count`."""
        pairs = list(layers)
        like = pairs[0][0]
        slots = torch.arange(count - like.shape[2], count, device=like.device) % size

        def spread(x: Tensor) -> Tensor:
            return x.new_zeros(*x.shape[:2], size, x.shape[3]).index_copy_(2, slots, x)

        mask = like.new_full((size,), -torch.inf).index_fill_(0, slots, 0)
        layers = tuple((spread(keys).mT.contiguous(), spread(values)) for keys, values in pairs)
        return replace(self, layers=layers, mask=mask)

    def turned(self, count: int, head_dim: int, theta: float) -> Ring:
        """Returns the ring with the angles of the next positions."""
        at = torch.arange(count, count + TURNS, device=self.mask.device)
        dtype = torch.promote_types(self.mask.dtype, torch.float32)
        return replace(self, turns=Rotation.at(at[None], head_dim, theta, dtype), first=at[:1])

    def grown(self, count: int, window: int | None) -> Ring:
        """Returns a ring of twice as many slots, up to the window: this one is full of the positions before `count`."""
        size = len(self.mask)
        slots = torch.arange(count - size, count, device=self.mask.device) % size
        layers = ((keys[..., slots].mT, values[:, :, slots]) for keys, values in self.layers)
        return self._laid(layers, count, 2 * size if window is None else min(2 * size, window))

    def stepped(
        self, rows: Sequence[int], begins: Tensor, window: int | None, head_dim: int, theta: float, dtype: torch.dtype,
        passing: Sequence[bool] = (),
    ) -> tuple[RingStep, Rotation, Ring]:  # fmt: skip
        """See `StageCache.stepped`."""
        slot, at = self.count % len(self.mask), self.count - self.first
        self.mask.index_fill_(0, slot, 0)
        rotation = Rotation(self.turns.cos.index_select(2, at), self.turns.sin.index_select(2, at))
        return RingStep(slot, self.mask), rotation, replace(self, count=self.count + 1)

    def before(self, rows: Sequence[int], window: int | None, device: torch.device, n: int) -> Tensor:
        """See `StageCache.before`."""
        position = self.count[:, None] + torch.arange(-n, 0, device=device)
        return position.masked_fill(position < self.begin[:, None], -1)

    def layer(self, i: int, rows: Sequence[int], index: Tensor | None, before: int | None) -> KVCache:
        """See `StageCache.layer`."""
        recent = self.recent[i] if self.recent else None
        return KVCache(*self.layers[i], recent, self.folded[i] if self.folded else None)


@dataclass(frozen=True)
class RingStep:
    """Attention of one new position over a ring, which it is written to first."""

    slot: Tensor  # [1] of the new position
    mask: Tensor  # [C] 0 where a slot is seen, else -inf

    def attend(self, q: Tensor, k: Tensor, v: Tensor, past: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Writes k and v [1, H, 1, K] into past keys [1, H, K, C] and values [1, H, C, K], and returns attention
        [1, H, 1, K]: as sums that the compiler fuses, over keys that lie side by side."""
        assert past is not None
        keys, values = past
        keys.index_copy_(3, self.slot, k.mT)
        values.index_copy_(2, self.slot, v)
        scores = (keys * q.mT).sum(2) * q.shape[-1] ** -0.5 + self.mask
        return (values * scores.softmax(-1)[..., None]).sum(2, keepdim=True)
