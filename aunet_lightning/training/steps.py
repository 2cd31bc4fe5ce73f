"""An optimizer step: the sums of its batches, whether it is finite, and what the devices agree on in it."""

import math
import signal
from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor

from aunet_lightning.data.corpus import Corpus
from aunet_lightning.data.packing import Batch
from aunet_lightning.distributed.gather import gather_objects
from aunet_lightning.training.sums import StepSums

MOST = 8  # documents that are named


@dataclass
class Step:
    """Sums over all devices and over the batches of one step (several, where gradients are accumulated)."""

    sums: StepSums | None = None
    first: float = 1.0  # targets of the first batch
    ended: bool = False  # whether the optimizer has stepped
    documents: list[torch.Tensor] = field(default_factory=list)  # of each batch on this device, [B, L]

    def add(self, sums: StepSums, batch: Batch) -> None:
        """Takes the sums of one batch over all devices, and its part on this device."""
        if self.sums is None:
            self.first = max(float(sums.targets), 1.0)
        self.sums = sums if self.sums is None else self.sums.plus(sums)
        self.documents.append(batch["documents"])

    def _total(self, name: str) -> float:
        return float(getattr(self.sums, name)) if self.sums is not None else 0.0

    @property
    def bpb(self) -> float:
        """Bits per byte of text."""
        return self._total("bits") / max(self._total("bytes"), 1)

    @property
    def loss(self) -> float:
        """Nats per prediction."""
        return self._total("nats") / max(self._total("targets"), 1)

    @property
    def finite(self) -> bool:
        return math.isfinite(self._total("nats"))

    def ids_per_unit(self, s: int) -> float:
        """Ids read, BOS and EOS among them, per unit begun at transition s."""
        return self._total("read") / max(float(self.sums.units[s]), 1) if self.sums is not None else 0.0

    def scale(self, divided_by: int) -> float:
        """Returns the factor for the sum of gradients, each divided by `first` and by `divided_by`, that makes it the
        gradient of the mean over all targets."""
        return divided_by * self.first / max(self._total("targets"), 1.0)


class Votes:
    """Requests of one device (save, stop, requeue) on which all act in the same step: they ride along in the step's
    all-reduce."""

    NAMES = ("save", "stop", "requeue")

    def __init__(self) -> None:
        self.asked: set[str] = set()  # by this device
        self.agreed: set[str] = set()  # by all, in this step
        self.by = signal.SIGTERM  # the signal that asked this device to stop

    def mine(self) -> list[float]:
        return [float(name in self.asked) for name in self.NAMES]

    def count(self, totals: torch.Tensor) -> None:
        agreed = {name for name, total in zip(self.NAMES, totals.tolist(), strict=True) if total > 0}
        self.agreed |= agreed
        self.asked -= agreed


def not_finite(step: Step, at: int, norm: float, corpus: Corpus) -> str:
    """Returns a sentence on a step that is not finite, the same on all devices."""
    counts: Counter[int] = Counter()
    for documents in step.documents:
        found, n = documents[documents >= 0].unique(return_counts=True)
        counts.update(dict(zip(found.tolist(), n.tolist(), strict=True)))
    counts = sum(gather_objects(counts), Counter())
    languages: Counter[str] = Counter()
    for document, n in counts.items():
        languages[corpus.language(document)] += n
    total = max(sum(counts.values()), 1)
    mix = ", ".join(f"{name} {n / total:.0%}" for name, n in languages.most_common(MOST))
    names = [corpus.name(document) for document, _ in counts.most_common(MOST)]
    more = f" and {len(counts) - len(names)} more" if len(counts) > len(names) else ""
    what = "the loss" if not step.finite else "the gradient"
    return (
        f"step {at}: {what} is not finite (loss {step.loss:.4g}, gradient norm {norm:.4g}); "
        f"it read {mix}: {', '.join(names)}{more}"
    )


def gradient_values(parameter: torch.nn.Parameter) -> Tensor:
    """Returns the gradient, or the values of one that is sparse, to be changed in place."""
    assert parameter.grad is not None
    if not parameter.grad.is_sparse:
        return parameter.grad
    parameter.grad = parameter.grad.coalesce()
    return parameter.grad.values()
