"""The sums of a training step: what a batch adds, over one device or all of them.

They are packed into one vector, reduced and unpacked here alone, so that a new one is a new field. What is logged is
a ratio of sums; batches of a step and devices then weigh by what they read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from aunet_lightning.data.packing import Batch
from aunet_lightning.model.aunet import Output
from aunet_lightning.vocabulary import IGNORE


@dataclass
class StepSums:
    """Sums over a batch, each a tensor [] unless a shape is given; float64 once they are reduced."""

    targets: Tensor  # predictions
    bytes: Tensor  # of text
    bits: Tensor  # of text
    nats: Tensor  # of all predictions
    read: Tensor  # ids, also of a context
    flops: Tensor
    seconds: Tensor  # of the step before, on each device
    votes: Tensor  # [3] see Votes
    units: Tensor  # [depth] begun, per stage transition
    dropped: Tensor  # [depth] boundaries left out by a cap
    refreshes: Tensor  # inside units
    splitters: Mapping[int, Any]  # by transition, the sums of its predictor

    @classmethod
    def of(
        cls, batch: Batch, nats: Tensor, output: Output, flops: Tensor, seconds: float, votes: list[float],
        splitters: Mapping[int, Any],
    ) -> StepSums:  # fmt: skip
        """Returns the sums of a batch with nats [B, L] per target on this device."""
        text, nats = batch["sizes"] > 0, nats.detach()
        return cls(
            targets=(batch["targets"] != IGNORE).sum(),
            bytes=batch["sizes"].sum(),
            bits=nats[text].sum() / math.log(2),
            nats=nats.sum(),
            read=(batch["documents"] >= 0).sum() + sum(batch.get("n_context", ())),
            flops=flops,
            seconds=flops.new_tensor(seconds),
            votes=flops.new_tensor(votes),
            units=output.units.sum(0),
            dropped=output.dropped.sum(0),
            refreshes=output.refreshes.sum() if output.refreshes is not None else flops.new_zeros(()),
            splitters=splitters,
        )

    def reduced(self, reduce: Callable[[Tensor], Tensor]) -> StepSums:
        """Returns the sums over all devices, on the CPU; `reduce` adds up a vector over devices."""
        parts, form = pytree.tree_flatten(self._named())
        vector = torch.cat([part.detach().double().reshape(-1) for part in parts])
        totals = reduce(vector).cpu().split([part.numel() for part in parts])
        named = pytree.tree_unflatten([t.view(part.shape) for t, part in zip(totals, parts, strict=True)], form)
        return StepSums(**named)

    def plus(self, other: StepSums) -> StepSums:
        """Returns the sums of two batches."""
        return StepSums(**cast(dict[str, Any], pytree.tree_map(torch.add, self._named(), other._named())))

    def _named(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}
