"""Bits per byte, as a torchmetrics metric: sums that add up over batches and devices."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from aunet_lightning.vocabulary import N_BYTES


class BitsPerByte(Metric):
    """Next-byte negative log-likelihood in bits ÷ predicted bytes of text, over all text and per language.

    Only targets that are bytes count: padding, BOS and EOS are left out of both sums.
    """

    higher_is_better = False
    full_state_update = False
    bits: Tensor  # float64 [languages]
    bytes: Tensor  # float64 [languages]

    def __init__(self, languages: Sequence[str]) -> None:
        super().__init__()
        self.languages = list(languages)
        for name in ("bits", "bytes"):
            self.add_state(name, torch.zeros(max(len(languages), 1), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, nll: Tensor, targets: Tensor, languages: Tensor) -> None:
        """nll (nats), targets (byte ids) and languages (indices): all of one shape."""
        scored = (targets >= 0) & (targets < N_BYTES)
        index = languages[scored]
        self.bits.index_add_(0, index, nll[scored].double() / math.log(2))
        self.bytes.index_add_(0, index, torch.ones_like(index, dtype=torch.float64))

    def compute(self) -> Tensor:
        """Returns BPB float64 [1 + languages]: of all text, then of each language (nan where none was seen)."""
        bits = torch.cat([self.bits.sum()[None], self.bits])
        n_bytes = torch.cat([self.bytes.sum()[None], self.bytes])
        return bits / n_bytes

    def by_language(self, values: Tensor) -> dict[str, float]:
        """Names what `compute` returned, without the languages not seen."""
        named = zip(self.languages, values[1:].tolist(), strict=False)
        return {language: value for language, value in named if not math.isnan(value)}


class UnitRates(Metric):
    """Bytes per unit at each stage transition, and how many boundaries a cap dropped."""

    full_state_update = False
    bytes: Tensor
    units: Tensor  # [depth]
    dropped: Tensor  # [depth]

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.add_state("bytes", torch.zeros(1, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("units", torch.zeros(depth, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("dropped", torch.zeros(depth, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, n_bytes: int, units: Tensor, dropped: Tensor) -> None:
        """n_bytes read, and units and dropped [B, depth]."""
        self.bytes += n_bytes
        self.units += units.sum(0)
        self.dropped += dropped.sum(0)

    def compute(self) -> Tensor:
        """Returns float64 [2 · depth]: bytes per unit of each transition, then dropped boundaries."""
        return torch.cat([self.bytes / self.units, self.dropped])

    @staticmethod
    def named(values: Tensor) -> dict[str, float]:
        """Names what `compute` returned: stage 2 is the first above bytes."""
        depth = len(values) // 2
        names = [f"bytes_per_unit_stage{s + 2}" for s in range(depth)] + [f"dropped_stage{s + 2}" for s in range(depth)]
        return dict(zip(names, values.tolist(), strict=True))
