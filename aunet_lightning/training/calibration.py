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
from aunet_lightning.training.by_language import count, sums_of
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

    def __init__(
        self, predictor: Predictor, marks: Tensor | None, gather: Gather, groups: Tensor | None, own: Tensor
    ) -> None:
        super().__init__(predictor)
        self.marks, self.gather, self.groups, self.own = marks, gather, groups, own

    def log_odds(self, h: Tensor, stream: Stream, past: StageState | None) -> Tensor:
        found, own, taught = super().log_odds(h, stream, past), self.own.gather(1, stream.at), None
        open_, forced_ = stream.open & own, stream.forced & own
        if self.marks is not None:
            taught = self.gather(deferred(self.marks, stream.at, stream.valid)[open_])
        before, log_odds = self.predictor.bias.clone(), self.gather(found[open_])
        if self.groups is None:
            forced, n_bytes = (self.gather(one.sum()[None]).sum() for one in (forced_, (stream.ids != EOS) & self.own))
            self.predictor.calibrate(log_odds, taught, forced, float(n_bytes))
        else:
            here, group = self.groups.gather(1, stream.at), self.gather(self.groups.flatten())
            read = count(self.predictor, group, torch.ones_like(group))
            forced = count(self.predictor, *(self.gather(x.flatten()) for x in (here, forced_)))
            sums = sums_of(self.predictor, self.gather(here[open_]), log_odds, log_odds > 0, taught, forced)
            self.predictor.place(log_odds, self.predictor.wanted(sums, read))
        return found + (self.predictor.bias - before)


@torch.no_grad()
def calibrate(
    net: AUNet,
    ids: Tensor,
    levels: Tensor | None,
    taught: Mapping[int, Tensor],
    gather: Gather = lambda mine: mine,
    groups: Mapping[int, Tensor] | None = None,
    context: Tensor | None = None,
) -> None:
    """Sets the biases of learned splitters by a batch, from the lowest up, so that training begins near its rate.

    taught: by transition (0: from bytes), bool [B, L] boundaries of its teacher; gather: joins [M] of all devices;
    groups: of splitters with languages, int64 [B, L], as `groups_of` returns them; context: bool [B, L], positions that
    do not count.
    """
    learned = [(stage.s, stage.predictor) for stage in net.stages if stage.predictor is not None]
    none = torch.zeros_like(ids, dtype=torch.bool) if net.refreshes else None  # no decision sees a refresh
    of, own = groups or {}, torch.ones_like(ids, dtype=torch.bool) if context is None else ~context
    deciders = {s: Calibrating(predictor, taught.get(s), gather, of.get(s), own) for s, predictor in learned}
    net(ids, levels, deciders=deciders, refreshes=none)
