"""The transition from one stage to the next: pooling at boundaries, upsampling back, and who decides.

Shapes: R rows, N positions of the finer stage, U units, D finer and E coarser width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aunet_lightning.model.config import AUNetConfig
from aunet_lightning.model.deciders import Decider, FromData, Learned, RuleAbove
from aunet_lightning.model.exact import Exact
from aunet_lightning.model.kernels import normed_linear
from aunet_lightning.model.layers import RMSNorm
from aunet_lightning.model.state import OpenUnit, StageState
from aunet_lightning.model.steppers import Track
from aunet_lightning.model.units import Refreshes, Room, Stream, Units, counted_in_documents, take
from aunet_lightning.model.upsampling import Upsampling
from splitters import Splitter
from splitters.learned.predictor import Predictor


class Pooling(nn.Module):
    """x_{s+1} = W_down · RMSNorm(h_s[boundaries])."""

    def __init__(self, dim: int, coarser_dim: int, norm_eps: float) -> None:
        super().__init__()
        self.norm = RMSNorm(dim, eps=norm_eps)
        self.down = nn.Linear(dim, coarser_dim, bias=False)

    def forward(self, h: Tensor, at: Tensor) -> Tensor:
        """h [R, N, D] at some positions [R, U] → [R, U, E]."""
        return normed_linear(take(h, at), self.norm, [self.down])[0]


@dataclass(frozen=True)
class Decision:
    """The boundaries between two stages, for each position of the lower one."""

    stream: Stream  # the positions; with a state, of the rows that have some
    boundary: Tensor  # bool [R, N]
    offset: Tensor  # [R, N] distance from the last boundary or refresh, in positions
    log_odds: Tensor | None  # float32 [R, N], of a learned splitter
    dropped: Tensor | None  # [R] boundaries left out by a cap
    refresh: Tensor | None = None  # bool [R, N] where a unit's vector is made anew, if it is

    @property
    def at(self) -> Tensor:
        """[R, N] the byte of this call that the position belongs to."""
        return self.stream.at

    @property
    def valid(self) -> Tensor:
        """bool [R, N], False past a row's last position."""
        return self.stream.valid

    @property
    def forced(self) -> Tensor:
        """bool [R, N], where every stage begins a unit: a stream, or a document."""
        return self.stream.forced

    @property
    def open(self) -> Tensor:
        """bool [R, N], where the splitter decided: neither forced, nor padding, nor EOS."""
        return self.stream.open


@dataclass(frozen=True)
class Cut:
    """A stage's positions cut into units, in one call."""

    units: Units
    decision: Decision
    counted: Tensor | None  # [R, N] boundaries up to each position, in its document where documents are masked
    steppers: tuple[Track, ...]  # one per row of the state, after this call, of a rule above a learned splitter
    before: OpenUnit | None  # the units that were open before
    above: Units  # of the rows that begin any, which alone the stage above computes
    rows: Sequence[int] | None  # these rows among those of the cut; None: all
    index: Tensor | None  # the same
    refreshes: Refreshes | None  # of these rows
    passing: Sequence[bool]  # see `Stream`

    @property
    def pooled(self) -> Tensor:
        """[R, U + Q] the positions that the stage above computes."""
        at = self.above.boundaries
        return at if self.refreshes is None else torch.cat([at, self.refreshes.positions], 1)

    def open_unit(self, h: Tensor, vectors: Tensor) -> OpenUnit:
        """Returns the unit that each row's last position lies in. vectors [R, 1|≤1+U, E]: see `Upsampling`."""
        if h.shape[1] == 1:
            counted = self.counted[:, 0] if self.counted is not None else None
            hidden = h[:, 0] if self.decision.log_odds is not None else None
            found = OpenUnit(self.units.offset[:, 0], vectors[:, 0], counted, hidden)
        else:
            last = (self.decision.valid.sum(1, keepdim=True) - 1).clamp(min=0)  # [R, 1]
            found = OpenUnit(
                self.units.offset.gather(1, last)[:, 0],
                take(vectors, self.units.serving.gather(1, last))[:, 0],
                self.counted.gather(1, last)[:, 0] if self.counted is not None else None,
                take(h, last)[:, 0] if self.decision.log_odds is not None else None,
            )
        stream = self.decision.stream
        if self.before is None or not (stream.refreshes is not None or any(stream.passing)):
            return found
        return found.where(self.decision.valid.any(1), self.before)  # a row of refreshes alone stays where it was


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

    def decider(self, exact: Exact | None = None) -> Decider:
        """Returns what decides where units begin, unless a call brings a decider of its own."""
        if self.predictor is not None:
            return Learned(self.predictor if exact is None else exact.of(self.predictor))
        return RuleAbove(self.rule) if self.rule is not None else FromData(self.s)

    def modules(self) -> Iterator[nn.Module]:
        """Yields pooling, upsampling and predictor."""
        yield from (self.pooling, self.upsampling)
        if self.predictor is not None:
            yield self.predictor

    def cut(self, h: Tensor, stream: Stream, past: StageState | None, decider: Decider, room: Room | None) -> Cut:
        """Cuts the positions of stage s into units, with encoder output h [R, N, D]; room: see `Units.at`."""
        boundary, log_odds, steppers = decider.propose(h, stream, past)
        cap, counted, dropped = self.config.stages[self.s + 1].max_units, None, None
        if cap is not None:
            counted = counted_in_documents(boundary, stream.begins, past.unit.counted if past is not None else None)
            dropped = (boundary & (counted > cap)).sum(1)
            boundary = boundary & (counted <= cap)
        # A step pads to the most units that begin in it; rows round up.
        opened = past.unit if past is not None and past.unit.vector is not None else None
        round_to = self.config.round_units_to if past is None else 1
        inside: Tensor | None = None
        refreshes: Refreshes | None = None
        units = Units.at(boundary, opened, room, round_to)
        if stream.refresh is not None:
            inside = stream.refresh & stream.valid & ~boundary
            of_inside = room.inside if room is not None else None
            units, refreshes = units.refreshed(inside, opened is not None, of_inside, round_to)
        decision = Decision(stream, boundary, units.offset, log_odds, dropped, inside)
        rows = index = None
        passing: list[bool] = []
        if past is not None:  # rows that neither begin a unit nor refresh one go no further
            known = decider.known(stream) if cap is None else None
            going = begun = known if known is not None else units.valid.any(1).tolist()
            if inside is not None:
                asked = stream.known_refresh if known is not None else None
                asked = asked if asked is not None else inside.any(1).tolist()
                going = [a or b for a, b in zip(begun, asked, strict=True)]
            rows = [i for i, goes in enumerate(going) if goes]
            passing = [not begun[i] for i in rows] if inside is not None and h.shape[1] == 1 else []
            rows = rows if len(rows) < len(boundary) else None
            index = torch.tensor(rows, dtype=torch.long, device=boundary.device) if rows is not None else None
        before = past.unit if past is not None else None
        above = units.of(index)
        if stream.refreshes is not None:
            units = units.beside(stream.refreshes, opened)
        refreshes = refreshes.of(index) if refreshes is not None else None
        return Cut(units, decision, counted, steppers, before, above, rows, index, refreshes, passing)

    def upsample(self, y: Tensor | None, cut: Cut) -> tuple[Tensor, Tensor]:
        """Returns what the units' outputs y [R, U, E] (None: no unit began) add at each position [R, N, D], and the
        vectors that were spread [R, 1|≤1+U, E]."""
        opened, decision, predictor = cut.before.vector if cut.before else None, cut.decision, self.predictor
        if decision.log_odds is None or predictor is None:
            return self.upsampling(y, cut.units, opened, index=cut.index)
        p = decision.log_odds.sigmoid().masked_fill(decision.forced, 1.0)
        p_of_units = p.gather(1, cut.units.boundaries) if predictor.smooths else None
        up, vectors = self.upsampling(y, cut.units, opened, p_of_units, cut.index)
        if predictor.straight_through:
            confidence = torch.where(decision.boundary, p, 1 - p)
            factor = 1 + confidence - confidence.detach()  # 1, with a gradient; refreshes below are not decisions
            up = up * F.pad(factor, (0, up.shape[1] - factor.shape[1]), value=1)[..., None].to(up.dtype)
        return up, vectors
