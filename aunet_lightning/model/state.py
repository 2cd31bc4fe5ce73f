"""State of a stream between two calls of a model: values, passed in and returned.

Shapes: B rows, N positions of a stage in this call, C cached positions, H heads, K head width.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from aunet_lightning.model.layers import KVCache
from aunet_lightning.vocabulary import BOS, N_BYTES
from splitters import Splitter, UnitStepper
from splitters.stack import LevelStepper, Stack

GROW_BY = 64  # cached positions are made room for in steps of this many


@dataclass(frozen=True)
class StageCache:
    """Keys and values of the positions that a stage has seen, in a ring that holds at least its window."""

    count: Tensor  # [B] positions seen since the stream began
    positions: Tensor  # [B, C] position in each slot, -1 in an empty one
    documents: Tensor  # [B, C] its document
    recent_documents: Tensor | None = None  # [B, W-1] those of the last positions, where a convolution sees them
    layers: tuple[KVCache, ...] = ()  # keys and values [B, H, C, K], encoder then decoder

    @classmethod
    def empty(cls, batch: int, device: torch.device) -> StageCache:
        nothing = torch.zeros(batch, 0, dtype=torch.long, device=device)
        return cls(torch.zeros(batch, dtype=torch.long, device=device), nothing, nothing)

    @property
    def size(self) -> int:
        return self.positions.shape[1]

    def extended(
        self,
        positions: Tensor,  # [B, N], continuing from count
        documents: Tensor,  # [B, N]
        recent_documents: Tensor | None,  # [B, W-1] after this call
        valid: Tensor,  # [B, N] False past a row's last new position
        layers: list[KVCache],  # [B, H, N, K]
        window: int | None,
    ) -> StageCache:
        """Returns the cache with the new positions, and without those that no later one can see."""
        count = self.count + valid.sum(1)
        size = max(self.size, -(-int(count.max()) // GROW_BY) * GROW_BY)
        if window is not None:
            size = max(min(size, window), self.size)
        kept = valid & (positions >= (count - size)[:, None])
        slots = torch.where(kept, positions % size, size)  # positions not kept go to a slot past the end

        def write(cached: Tensor, new: Tensor, dim: int, fill: int = 0) -> Tensor:
            room = list(new.shape)
            room[dim] = size + 1 - self.size
            ring = torch.cat([cached, new.new_full(room, fill)], dim)
            index = slots if new.dim() == 2 else slots[:, None, :, None].expand_as(new)
            return ring.scatter(dim, index, new).narrow(dim, 0, size)

        cached = self.layers or [KVCache(new.keys[:, :, :0], new.values[:, :, :0], None) for new in layers]
        return StageCache(
            count,
            write(self.positions, positions, 1, -1),
            write(self.documents, documents, 1),
            recent_documents,
            tuple(
                KVCache(write(old.keys, new.keys, 2), write(old.values, new.values, 2), new.recent)
                for old, new in zip(cached, layers, strict=True)
            ),
        )


@dataclass(frozen=True)
class OpenUnit:
    """The unit that the last position of a stage lies in, and how far inside."""

    vector: Tensor | None  # [B, coarser width], None before the first
    offset: Tensor  # [B]
    counted: Tensor  # [B] boundaries so far, in the document where documents are masked, else in the row
    hidden: Tensor | None = None  # [B, finer width] hidden state of the last position, for a learned splitter


@dataclass(frozen=True)
class StageState:
    """One stage's share of a state."""

    cache: StageCache
    unit: OpenUnit  # of the transition to the stage above; in the deepest stage, unused
    steppers: tuple[UnitStepper, ...] = ()  # one per row, of a rule above a learned splitter


@dataclass(frozen=True)
class State:
    """A stream of B rows between two calls of the model. A call returns a new state; the old one stays valid."""

    stages: tuple[StageState, ...]
    document: Tensor  # [B] documents begun
    stack: Stack | None = None
    steppers: tuple[LevelStepper, ...] = ()  # one per row, of the rules below a learned splitter
    recent: Tensor | None = None  # [B, C] last ids, where the embedding reads C before each

    @classmethod
    def initial(cls, n_stages: int, batch: int, device: torch.device, stack: Stack | None = None) -> State:
        zeros = torch.zeros(batch, dtype=torch.long, device=device)

        def stage(s: int) -> StageState:
            rule = stack.rules[s] if stack is not None and stack.n_byte_rules <= s < stack.depth else None
            steppers = tuple(rule.unit_stepper() for _ in range(batch)) if isinstance(rule, Splitter) else ()
            return StageState(StageCache.empty(batch, device), OpenUnit(None, zeros, zeros), steppers)

        first = tuple(stack.stepper() for _ in range(batch)) if stack is not None else ()
        return cls(tuple(map(stage, range(n_stages))), zeros, stack, first)

    @property
    def fresh(self) -> bool:
        """Whether the stream has not begun."""
        return self.stages[0].cache.size == 0

    def step_levels(self, ids: Tensor) -> tuple[Tensor, tuple[LevelStepper, ...]]:
        """Pushes ids [B, N] through the rows' steppers; returns levels uint8 [B, N] and the steppers after.

        BOS begins a document, at the highest level and with a fresh stepper; EOS has level 0.
        Raises ValueError if the state was made without a stack.
        """
        if self.stack is None:
            raise ValueError("levels are missing: pass them, or make the state with the splitters' stack")
        steppers = list(copy.deepcopy(self.steppers))
        levels = torch.zeros(ids.shape, dtype=torch.uint8)
        for row, bytes_of_row in enumerate(ids.tolist()):
            for position, byte in enumerate(bytes_of_row):
                if byte == BOS:
                    steppers[row] = self.stack.stepper()
                    levels[row, position] = self.stack.depth
                elif byte < N_BYTES:
                    levels[row, position] = steppers[row].push(byte)
        return levels.to(ids.device), tuple(steppers)
