"""An optimizer step: what its batches read, whether it is finite, and what the devices agree on in it."""

import math
import signal
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch

from aunet_lightning.data.corpus import Corpus
from aunet_lightning.data.packing import Batch

MOST = 8  # documents that are named


@dataclass
class Step:
    """Sums over all devices and over the batches of one step (several, where gradients are accumulated)."""

    targets: float = 0.0
    bytes: float = 0.0  # of text
    bits: float = 0.0
    nats: float = 0.0
    read: float = 0.0  # ids
    counts: list[float] = field(default_factory=list)  # of the units
    batches: int = 0
    first: float = 1.0  # targets of the first batch
    ended: bool = False  # whether the optimizer has stepped
    documents: list[torch.Tensor] = field(default_factory=list)  # of each batch on this device, [B, L]

    def add(self, sums: list[float], counts: list[float], batch: Batch) -> None:
        """Takes one batch: targets, bytes, bits, nats and ids of all devices, and their counts of units."""
        if not self.batches:
            self.first = max(sums[0], 1.0)
            self.counts = [0.0] * len(counts)
        self.batches += 1
        self.documents.append(batch["documents"])
        self.targets, self.bytes, self.bits = self.targets + sums[0], self.bytes + sums[1], self.bits + sums[2]
        self.nats, self.read = self.nats + sums[3], self.read + sums[4]
        self.counts = [a + b for a, b in zip(self.counts, counts, strict=True)]

    @property
    def finite(self) -> bool:
        return math.isfinite(self.nats)

    def scale(self, divided_by: int) -> float:
        """Returns by what the sum of gradients, each divided by `first` and by `divided_by`, is to be multiplied so
        that it is the gradient of the mean over all targets."""
        return divided_by * self.first / max(self.targets, 1.0)


class Votes:
    """What one device asks for and all do, in the same step: they are told in the sum that each step makes anyway."""

    NAMES = ("save", "stop", "requeue")

    def __init__(self) -> None:
        self.asked: set[str] = set()  # by this device
        self.agreed: set[str] = set()  # by all, in this step
        self.by = signal.SIGTERM  # the signal by which this device was told to stop

    def mine(self) -> list[float]:
        return [float(name in self.asked) for name in self.NAMES]

    def count(self, totals: list[float]) -> None:
        agreed = {name for name, total in zip(self.NAMES, totals, strict=True) if total > 0}
        self.agreed |= agreed
        self.asked -= agreed


def tell_not_finite(step: Step, at: int, norm: float, corpus: Corpus) -> str:
    """Returns a sentence on a step that is not finite, the same on all devices: each tells what it read."""
    counts: Counter[int] = Counter()
    for documents in step.documents:
        found, n = documents[documents >= 0].unique(return_counts=True)
        counts.update(dict(zip(found.tolist(), n.tolist(), strict=True)))
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        parts: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, counts)
        counts = sum(parts, Counter())
    languages: Counter[str] = Counter()
    for document, n in counts.items():
        languages[corpus.language(document)] += n
    total = max(sum(counts.values()), 1)
    mix = ", ".join(f"{name} {n / total:.0%}" for name, n in languages.most_common(MOST))
    names = [corpus.name(document) for document, _ in counts.most_common(MOST)]
    more = f" and {len(counts) - len(names)} more" if len(counts) > len(names) else ""
    what = "the loss" if not step.finite else "the gradient"
    return (
        f"step {at}: {what} is not finite (loss {step.nats / max(step.targets, 1):.4g}, gradient norm {norm:.4g}); "
        f"it read {mix}: {', '.join(names)}{more}"
    )
