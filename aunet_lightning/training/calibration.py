"""Deciders of training: learned splitters that set their bias by a batch, or that pool at a teacher's boundaries.

Shapes: B rows, L bytes of the batch, N positions of a stage, D its width, M positions on one device.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from aunet_lightning.model.aunet import AUNet
from aunet_lightning.model.deciders import Learned
from aunet_lightning.model.state import StageState
from aunet_lightning.model.units import Stream, deferred
from aunet_lightning.vocabulary import EOS
from splitters.learned.predictor import Predictor

Gather = Callable[[Tensor], Tensor]  # joins [M] of all devices


class Taught(Learned):
    """Pools at the boundaries of a teacher, bool [B, L], in place of the predictor's."""

    def __init__(self, predictor: Predictor, marks: Tensor) -> None:
        super().__init__(predictor)
        self.marks = marks

    def boundary(self, log_odds: Tensor, stream: Stream) -> Tensor:
        return deferred(self.marks, stream.at, stream.valid) | stream.forced


class Calibrating(Learned):
    """Sets the predictor's bias by what it reads, and then decides by it."""

    def __init__(self, predictor: Predictor, marks: Tensor | None, gather: Gather) -> None:
        super().__init__(predictor)
        self.marks, self.gather = marks, gather

    def log_odds(self, h: Tensor, stream: Stream, past: StageState | None) -> Tensor:
        found, open_, taught = super().log_odds(h, stream, past), stream.open, None
        if self.marks is not None:
            taught = self.gather(deferred(self.marks, stream.at, stream.valid)[open_])
        forced, n_bytes = (self.gather(count.sum()[None]).sum() for count in (stream.forced, stream.ids != EOS))
        before = self.predictor.bias.clone()
        self.predictor.calibrate(self.gather(found[open_]), taught, forced, float(n_bytes))
        return found + (self.predictor.bias - before)


@torch.no_grad()
def calibrate(
    net: AUNet,
    ids: Tensor,
    levels: Tensor | None,
    taught: Mapping[int, Tensor],
    gather: Gather = lambda mine: mine,
) -> None:
    """Sets the biases of learned splitters by a batch, from the lowest up, so that training begins near its rate.

    taught: by transition (0: from bytes), bool [B, L] boundaries of its teacher; gather: joins [M] of all devices.
    """
    learned = [(stage.s, stage.predictor) for stage in net.stages if stage.predictor is not None]
    none = torch.zeros_like(ids, dtype=torch.bool) if net.refreshes else None  # no decision sees a refresh
    deciders = {s: Calibrating(predictor, taught.get(s), gather) for s, predictor in learned}
    net(ids, levels, deciders=deciders, refreshes=none)
