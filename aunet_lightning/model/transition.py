"""The transition from one stage to the next: pooling at boundaries, upsampling back, and who decides.

Shapes: B rows, N positions of the finer stage, U units, D finer and E coarser width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from aunet_lightning.model.config import AUNetConfig
from aunet_lightning.model.deciders import Decider, FromData, Learned, RuleAbove, select_in_stream
from aunet_lightning.model.kernels import normed_linear
from aunet_lightning.model.layers import RMSNorm
from aunet_lightning.model.state import OpenUnit, StageState
from aunet_lightning.model.units import Room, Stream, Units, counted_in_documents, take
from aunet_lightning.model.upsampling import Upsampling
from splitters import Splitter, UnitStepper
from splitters.learned.predictor import Predictor


class Pooling(nn.Module):
    """x_{s+1} = W_down · RMSNorm(h_s[boundaries])."""

    def __init__(self, dim: int, coarser_dim: int, norm_eps: float) -> None:
        super().__init__()
        self.norm = RMSNorm(dim, eps=norm_eps)
        self.down = nn.Linear(dim, coarser_dim, bias=False)

    def forward(self, h: Tensor, units: Units) -> Tensor:
        return normed_linear(take(h, units.boundaries), self.norm, [self.down])[0]  # [B, U, E]


@dataclass(frozen=True)
class Decision:
    """The boundaries between two stages, for each position of the lower one."""

    at: Tensor  # [B, N] the byte of this call that the position belongs to
    valid: Tensor  # bool [B, N], False past a row's last position
    forced: Tensor  # bool [B, N], where every stage begins a unit: a stream, or a document
    open: Tensor  # bool [B, N], where the splitter decided: neither forced, nor padding, nor EOS
    boundary: Tensor  # bool [B, N]
    offset: Tensor  # [B, N] distance from the last boundary, in positions
    log_odds: Tensor | None  # float32 [B, N], of a learned splitter
    dropped: Tensor  # [B] boundaries left out by a cap


@dataclass(frozen=True)
class Cut:
    """A stage's positions cut into units, in one call."""

    units: Units
    decision: Decision
    counted: Tensor  # [B, N] boundaries up to each position, in its document where documents are masked
    steppers: tuple[UnitStepper, ...]  # one per row, after this call, of a rule above a learned splitter


class Transition:
    """The way from stage s to stage s + 1 and back: a view of modules that the network owns."""

    def __init__(
        self,
        s: int,
        config: AUNetConfig,
        pooling: Pooling,
        upsampling: Upsampling,
        predictors: nn.ModuleDict,
        rule: Splitter | None,
    ) -> None:
        self.s, self.config, self.pooling, self.upsampling, self.rule = s, config, pooling, upsampling, rule
        self._predictors = predictors  # of all transitions: names of parameters are those of this mapping

    @property
    def predictor(self) -> Predictor | None:
        """The network of a learned splitter."""
        return cast(Predictor, self._predictors[str(self.s)]) if str(self.s) in self._predictors else None

    @predictor.setter
    def predictor(self, predictor: Predictor) -> None:
        self._predictors[str(self.s)] = predictor

    @property
    def decider(self) -> Decider:
        """What decides where units begin, unless a call brings a decider of its own."""
        if self.predictor is not None:
            return Learned(self.predictor)
        return RuleAbove(self.rule) if self.rule is not None else FromData(self.s)

    def modules(self) -> Iterator[nn.Module]:
        """Yields pooling, upsampling and predictor."""
        yield from (self.pooling, self.upsampling)
        if self.predictor is not None:
            yield self.predictor

    def cut(self, h: Tensor, stream: Stream, past: StageState | None, decider: Decider, room: Room | None) -> Cut:
        """Cuts the positions of stage s into units, with encoder output h [B, N, D]; room: see `Units.at`."""
        boundary, log_odds, steppers = decider.propose(h, stream, past)
        before = past.unit.counted if past is not None else torch.zeros_like(stream.ids[:, 0])
        counted = counted_in_documents(boundary, stream.begins, before)
        dropped = torch.zeros_like(stream.ids[:, 0])
        cap = self.config.stages[self.s + 1].max_units
        if cap is not None:
            dropped = (boundary & (counted > cap)).sum(1)
            boundary = boundary & (counted <= cap)
        # A step pads to the most units that begin in it; rows round up.
        opened = past.unit if past is not None and past.unit.vector is not None else None
        units = Units.at(boundary, opened, room, self.config.round_units_to if past is None else 1)
        decision = Decision(
            stream.at, stream.valid, stream.forced, stream.open, boundary, units.offset, log_odds, dropped
        )
        return Cut(units, decision, counted, steppers)

    def upsample(self, y: Tensor | None, cut: Cut, past: StageState | None) -> tuple[Tensor, Tensor]:
        """Returns what the units' outputs y [B, U, E] (None: no unit began) add at each position [B, N, D], and the
        vectors that were spread [B, ≤1+U, E]."""
        opened, decision, predictor = past.unit.vector if past is not None else None, cut.decision, self.predictor
        if decision.log_odds is None or predictor is None:
            return self.upsampling(y, cut.units, opened)
        p = decision.log_odds.sigmoid().masked_fill(decision.forced, 1.0)
        p_of_units = p.gather(1, cut.units.boundaries) if predictor.smooths else None
        up, vectors = self.upsampling(y, cut.units, opened, p_of_units)
        if predictor.straight_through:
            confidence = torch.where(decision.boundary, p, 1 - p)
            up = up * (1 + confidence - confidence.detach())[..., None].to(up.dtype)  # times 1, with a gradient
        return up, vectors

    def open_unit(self, h: Tensor, cut: Cut, vectors: Tensor, before: OpenUnit) -> OpenUnit:
        """Returns the unit that each row's last position lies in."""
        count = cut.decision.valid.sum(1, keepdim=True)  # [B, 1]
        last = (count - 1).clamp(min=0)
        vector = take(vectors, cut.units.serving.gather(1, last))[:, 0]
        offset = torch.where(count > 0, cut.units.offset.gather(1, last), before.offset[:, None])
        counted = torch.where(count > 0, cut.counted.gather(1, last), before.counted[:, None])
        hidden = None
        if cut.decision.log_odds is not None:
            hidden = take(h, last)[:, 0]
            if before.hidden is not None:
                hidden = torch.where(count > 0, hidden, before.hidden)
        return OpenUnit(vector, offset[:, 0], counted[:, 0], hidden)

    def missed(self, steppers: tuple[UnitStepper, ...], ids: Tensor) -> tuple[UnitStepper, ...]:
        """Returns the steppers after ids [B, L] in which no unit of stage s began: rules see every byte."""
        if self.rule is None or not steppers:
            return steppers
        return select_in_stream(self.rule, steppers, ids, torch.zeros_like(ids, dtype=torch.bool))[1]
