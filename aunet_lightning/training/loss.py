"""The loss: next-byte cross-entropy, and what learned splitters add.

Shapes: B rows, L bytes, V ids.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from aunet_lightning.data.packing import Batch
from aunet_lightning.model.aunet import Output
from aunet_lightning.vocabulary import IGNORE


def nats_per_target(logits: Tensor, targets: Tensor) -> Tensor:
    """logits [B, L, V], targets int64 [B, L] → negative log-likelihood in nats [B, L], 0 where a target is IGNORE."""
    nats = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE, reduction="none")
    return nats.view_as(targets)


def by_document(nats: Tensor, output: Output, batch: Batch) -> dict[str, Tensor]:
    """Returns `bits` of each target, the `documents` and `sizes` (in bytes) of all, the `levels` at which units begin
    and the `refreshes` inside them, each [B, L]."""
    refreshes = output.refreshes if output.refreshes is not None else torch.zeros_like(output.levels)
    found = {"bits": nats / math.log(2), "levels": output.levels, "refreshes": refreshes}
    return found | {key: batch[key] for key in ("documents", "sizes")}


def training_loss(nats: Tensor, learned: Tensor, targets: float, first: float, devices: int) -> Tensor:
    """Returns this device's share [] of the loss: nats per target, and the loss of the learned splitters.

    Gradients are averaged over devices, so this adds up to the mean over all targets of the batch; of a step of several
    batches, once `Step.scale` has corrected it. targets: of the batch, over all devices; first: of the step's first.
    """
    share = devices / first
    return nats.sum() * share + learned * (share * max(targets, 1))
