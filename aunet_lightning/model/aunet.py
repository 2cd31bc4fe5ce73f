"""The autoregressive U-Net (AU-Net, arXiv 2506.14761).

    bytes → encoder 1 ────────── skip ──────────→ + decoder 1 → logits
              ↓ pool at boundaries          ↑ upsample
            encoder 2 ──── skip ────→ + decoder 2
              ↓ pool          ↑ upsample
                    trunk

There is one forward. Without a state it reads whole rows; with one it goes on where the stream
stopped, by one byte or by many, and hands back the state after. Nothing is kept on modules.
Learned splitters are part of the network: they read what the encoder below them gives.
Shapes: B rows, L bytes, N positions of a stage, U units, D width.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from aunet_lightning.model.attention import over_cache, within_row
from aunet_lightning.model.boundaries import Transition, deferred, select_in_rows, select_in_stream
from aunet_lightning.model.config import AUNetConfig, StageConfig
from aunet_lightning.model.init import draw, ones, seed_of
from aunet_lightning.model.layers import Block, CausalConv, Memory, Neighbours, Place, RMSNorm, Rotation
from aunet_lightning.model.state import OpenUnit, StageCache, State
from aunet_lightning.model.transitions import UPSAMPLINGS, Pooling, Units, take
from aunet_lightning.vocabulary import BOS, EOS, N_BYTES
from splitters.learned.predictor import Predictor
from splitters.registry import Spec
from splitters.stack import LevelStepper, Stack


@dataclass(frozen=True)
class Output:
    """What a call of the model gives."""

    logits: Tensor  # [B, L, 258], of the byte that follows each
    state: State | None  # the stream after this call; None if it was called without one
    units: Tensor  # [B, depth] units begun in this call, per stage transition
    dropped: Tensor  # [B, depth] boundaries that a cap left out
    levels: Tensor  # uint8 [B, L] of each byte, as used
    transitions: tuple[Transition, ...]  # what was decided, from bytes up; fewer where a step begins no unit


pytree.register_dataclass(Output)  # FSDP looks for tensors in what modules give


@dataclass(frozen=True)
class Stream:
    """The positions of one stage in this call."""

    levels: Tensor  # [B, N] how many stages up from bytes, as far as the data knows
    valid: Tensor  # bool [B, N], False past a row's last position
    at: Tensor  # [B, N] the byte of this call on which it stands
    forced: Tensor  # bool [B, N], True where every stage begins a unit
    documents: Tensor | None  # [B, N] where documents are masked, else None
    begins: Tensor  # bool [B, N], True where such a document begins


Gather = Callable[[Tensor], Tensor]


class Calibration(NamedTuple):
    """By what learned splitters set their biases."""

    taught: Mapping[int, Tensor]  # by transition, bool [B, L] boundaries of its teacher
    gather: Gather  # joins [M] of all devices


class AUNet(nn.Module):
    """A byte-level language model with any number of stages; the deepest is the trunk.

    splitters: one per stage transition. Needed where one is learned, since its network is part of the model;
    otherwise levels come from the data, or from the stack that a state is made with. Raises ValueError where
    their number is not the number of transitions.
    """

    def __init__(self, config: AUNetConfig, splitters: Sequence[Spec] | Stack = ()) -> None:
        super().__init__()
        self.config = config
        stack = splitters if isinstance(splitters, Stack) else Stack(splitters)
        if stack.depth not in (0, config.depth):
            raise ValueError(_wrong_depth(stack, config))
        self.stack = stack if stack.depth else None
        stages = config.stages
        pairs = list(itertools.pairwise(stages))

        def blocks(stage: StageConfig) -> nn.ModuleList:
            ffn = (config.ffn_multiple_of, config.norm_eps, stage.conv, config.ffn_multiplier)
            return nn.ModuleList(Block(stage.dim, stage.head_dim, *ffn) for _ in range(stage.layers))

        upsampling = UPSAMPLINGS[config.upsampling]
        self.embedding = nn.Embedding(config.vocabulary, stages[0].dim)
        self.encoders = nn.ModuleList(blocks(stage) for stage in stages[:-1])
        self.poolings = nn.ModuleList(Pooling(fine.dim, coarse.dim, config.norm_eps) for fine, coarse in pairs)
        learned = {str(s): rule.predictor(stages[s].dim) for s, rule in stack.learned.items()}
        for s, predictor in learned.items():
            if not isinstance(predictor, Predictor):
                name = type(stack.learned[int(s)]).__name__
                raise ValueError(
                    f"{name}.predictor returned a {type(predictor).__name__}, not a splitters.predictors.Predictor"
                )
            if "bias" not in dict(predictor.named_buffers()):
                raise ValueError(f"the bias of {type(predictor).__name__} is no buffer: leave it to Predictor.__init__")
        self.predictors = nn.ModuleDict(learned)
        self.trunk = blocks(stages[-1])
        self.upsamplings = nn.ModuleList(upsampling(fine.dim, coarse.dim, config) for fine, coarse in pairs)
        self.decoders = nn.ModuleList(blocks(stage) for stage in stages[:-1])
        self.norm = RMSNorm(stages[0].dim, eps=config.norm_eps)
        self.head = nn.Linear(stages[0].dim, config.vocabulary, bias=False)
        self.init_weights()

    def forward(
        self,
        ids: Tensor,
        levels: Tensor | None = None,
        state: State | None = None,
        pool_at: Mapping[int, Tensor] | None = None,
        calibration: Calibration | None = None,
    ) -> Output:
        """Reads ids [B, L] (int, < 258) with levels [B, L] and returns the logits of what follows each.

        The first position of a stream, and with document masking or below a learned splitter every BOS, has
        the highest level whatever `levels` says. `levels` may be left out where there is one stage, where the
        first splitter is learned, or where the state has the splitters' steppers.
        pool_at: by transition (0: from bytes), bool [B, L] boundaries to pool at in place of a learned splitter's.
        calibration: sets the biases of learned splitters by this batch, from the lowest up (see `calibrate`).
        Raises ValueError for shapes that do not match, or levels missing.
        """
        return self._read(ids, levels, state, pool_at or {}, calibration)

    @torch.no_grad()
    def calibrate(
        self, ids: Tensor, levels: Tensor | None, taught: Mapping[int, Tensor], gather: Gather = lambda mine: mine
    ) -> None:
        """Sets the biases of learned splitters by a batch, from the lowest up, so that training begins near the
        wanted rate. taught: by transition, bool [B, L] boundaries of its teacher; gather: joins [M] of all devices."""
        self(ids, levels, calibration=Calibration(taught, gather))

    def _read(
        self,
        ids: Tensor,
        levels: Tensor | None,
        state: State | None,
        pool_at: Mapping[int, Tensor],
        calibration: Calibration | None,
    ) -> Output:
        depth = self.config.depth
        steppers = state.steppers if state is not None else ()
        if levels is None and (depth == 0 or (self.stack is not None and self.stack.n_below == 0)):
            levels = torch.zeros_like(ids)
        elif levels is None and state is not None:
            levels, steppers = state.step_levels(ids)
        if levels is None or ids.dim() != 2 or levels.shape != ids.shape or ids.shape[1] == 0:
            got = "no levels" if levels is None else f"levels {list(levels.shape)}"
            raise ValueError(f"ids {list(ids.shape)} came with {got}: both must be [B, L] with L at least 1")

        begins = ids == BOS
        masked = self.config.document_masking
        documents = begins.cumsum(1) + (0 if state is None else state.document[:, None])
        forced = begins if masked or self.predictors else torch.zeros_like(begins)
        at = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        if state is None or state.fresh:
            forced = forced | (at == 0)
        levels = levels.masked_fill(forced, depth)
        stream = Stream(levels, torch.ones_like(begins), at, forced, documents if masked else None, begins & masked)

        call = _Call(state, depth, ids, pool_at, calibration)
        y = self.through(0, self.embedding(ids), stream, call)
        after = call.state_after(documents[:, -1], steppers)
        return Output(self.head(self.norm(y)), after, call.begun, call.dropped, call.levels, tuple(call.transitions))

    def through(self, s: int, x: Tensor, stream: Stream, call: _Call) -> Tensor:
        """Stage s (0: bytes) and all above it: x [B, N, D] → [B, N, D]."""
        place, positions = self.place(s, stream, call)
        past = call.layers(s)
        if s == self.config.depth:
            y, memories = _run(self.trunk, x, place, past)
            call.remember(s, stream, positions, memories, self.config.stages[s])
            return y

        n_layers, skip = self.config.stages[s].layers, self.config.stages[s].skip
        h, encoder_memories = _run(self.encoders[s], x, place, past[:n_layers])
        log_odds = self.predict(s, h, stream, call)
        units, counted, coarser, boundary = self.cut(s, stream, log_odds, call)
        pooled = self.poolings[s](h, units)  # [B, U, coarser D]; U is 0 where a step begins no unit
        above = self.through(s + 1, pooled, coarser, call) if units.boundaries.shape[1] else None
        up, vectors = self.back(s, above, units, stream, log_odds, boundary, call)
        y, decoder_memories = _run(self.decoders[s], up + h if skip else up, place, past[n_layers:])
        call.leave_open(s, units, vectors, counted, h if log_odds is not None else None, stream.valid)
        call.remember(s, stream, positions, encoder_memories + decoder_memories, self.config.stages[s])
        return y

    def predict(self, s: int, h: Tensor, stream: Stream, call: _Call) -> Tensor | None:
        """Log-odds [B, N] of a boundary at each position, where a learned splitter decides."""
        if str(s) not in self.predictors:
            return None
        predictor = self.predictors[str(s)]
        last = call.hidden(s)
        first = torch.zeros_like(h[:, :1]) if last is None else last[:, None]
        before = torch.cat([first, h[:, :-1]], 1)
        log_odds = predictor(h, before)
        if call.calibration is not None:
            (by_transition, gather), open_ = call.calibration, call.open(stream)
            taught = by_transition.get(s)
            if taught is not None:
                taught = gather(deferred(taught, stream.at, stream.valid)[open_])
            forced, n_bytes = (gather(count.sum()[None]).sum() for count in (stream.forced, call.ids != EOS))
            bias = cast(Predictor, predictor).bias.clone()
            cast(Predictor, predictor).calibrate(gather(log_odds[open_]), taught, forced, float(n_bytes))
            log_odds = log_odds + (cast(Predictor, predictor).bias - bias)
        return log_odds

    def back(
        self,
        s: int,
        above: Tensor | None,
        units: Units,
        stream: Stream,
        log_odds: Tensor | None,
        boundary: Tensor,
        call: _Call,
    ) -> tuple[Tensor, Tensor]:
        """What the units' vectors `above` [B, U, coarser D] add at each position [B, N, D], and the vectors."""
        if log_odds is None:
            return self.upsamplings[s](above, units, call.open_vector(s))
        predictor = self.predictors[str(s)]
        p = log_odds.sigmoid().masked_fill(stream.forced, 1.0)
        p_of_units = p.gather(1, units.boundaries) if predictor.smooths else None
        up, vectors = self.upsamplings[s](above, units, call.open_vector(s), p_of_units)
        if predictor.straight_through:
            confidence = torch.where(boundary, p, 1 - p)
            up = up * (1 + confidence - confidence.detach())[..., None].to(up.dtype)  # times 1, with a gradient
        return up, vectors

    def place(self, s: int, stream: Stream, call: _Call) -> tuple[Place, Tensor]:
        """Where the stage's positions stand and what they see, for all its blocks."""
        stage, (batch, n) = self.config.stages[s], stream.valid.shape
        positions = torch.arange(n, device=stream.valid.device)[None]  # [1, N]
        cache = call.cache(s)
        if cache is None:
            visibility = within_row(stream.documents, batch, n, stage.window, positions.device)
        else:
            positions = cache.count[:, None] + positions  # [B, N]
            documents, keys = stream.documents, torch.cat([cache.positions, positions], 1)
            key_documents = torch.cat([cache.documents, documents], 1) if documents is not None else None
            visibility = over_cache(positions, keys, documents, key_documents, stage.window)
        neighbours = None
        if stage.conv is not None:
            recent = cache.recent_documents if cache is not None else None
            neighbours = Neighbours.of(stage.conv, stream.valid, stream.documents, recent)
        dtype = torch.promote_types(self.head.weight.dtype, torch.float32)
        rotation = Rotation.at(positions, stage.head_dim, self.config.rope_theta, dtype)
        return Place(rotation, visibility, neighbours), positions

    def cut(self, s: int, stream: Stream, log_odds: Tensor | None, call: _Call) -> tuple[Units, Tensor, Stream, Tensor]:
        """The units that begin among the positions of stage s, how many boundaries [B, N] there were up to each
        position, the stream of stage s + 1 that they make, and the boundaries, bool [B, N]."""
        boundary = self.decide(s, stream, log_odds, call)
        cap = self.config.stages[s + 1].max_units
        counted = _counted(boundary, stream.begins, call.counted(s))
        if cap is not None:
            call.dropped[:, s] = (boundary & (counted > cap)).sum(1)
            boundary = boundary & (counted <= cap)
        call.begun[:, s] = boundary.sum(1)
        # A step pads to the most units that begin in it; a row rounds up, so that shapes recur.
        units = Units.at(boundary, call.open_unit(s), self.config.round_units_to if call.past is None else 1)
        call.keep(
            Transition(stream.at, stream.valid, stream.forced, call.open(stream), boundary, units.offset, log_odds)
        )

        def pooled(x: Tensor) -> Tensor:
            return x.gather(1, units.boundaries) * units.valid

        documents = stream.documents.gather(1, units.boundaries) if stream.documents is not None else None
        coarser = Stream(
            pooled(stream.levels), units.valid, pooled(stream.at), pooled(stream.forced), documents,
            pooled(stream.begins),
        )  # fmt: skip
        return units, counted, coarser, boundary

    def decide(self, s: int, stream: Stream, log_odds: Tensor | None, call: _Call) -> Tensor:
        """The boundaries among the positions of stage s, bool [B, N], before any cap."""
        if log_odds is not None and s in call.pool_at:
            boundary = deferred(call.pool_at[s], stream.at, stream.valid) | stream.forced
        elif log_odds is not None:
            boundary = ((log_odds > 0) & call.open(stream)) | stream.forced
        elif self.stack is not None and s > self.stack.n_below:
            boundary = call.select(s, self.stack, stream) | stream.forced
        else:
            boundary = stream.levels > s
        return boundary & stream.valid

    def initial_state(self, batch: int, stack: Stack | None = None) -> State:
        """Returns the state of `batch` streams that have not begun.

        With `stack` (by default the model's own), the forward works out levels from the bytes it is given; a
        stack whose depth or whose learned transitions are not the model's raises ValueError.
        """
        stack = stack or self.stack
        if stack is not None and stack.depth != self.config.depth:
            raise ValueError(_wrong_depth(stack, self.config))
        if stack is not None and {str(s) for s in stack.learned} != set(self.predictors):
            raise ValueError(
                f"the stack is learned at transitions {[*stack.learned] or 'none'}, the model at "
                f"{[*self.predictors] or 'none'}: make the model with the same splitters"
            )
        return State.initial(len(self.config.stages), batch, self.head.weight.device, stack)

    def init_weights(self, seed: int | None = None) -> None:
        """Draws every parameter (and buffer) anew: truncated normals of deviation 1/sqrt(inputs).

        What a block adds to its residual stream is scaled down by the stage's depth, as usual. Predictors know how
        they begin. Each value is a function of the seed (None: one is drawn) and of its place alone. Weights on the
        meta device are left there.
        """
        seed = int(torch.randint(2**62, (), device="cpu")) if seed is None else seed
        self.init_predictors(seed)
        self.init_weights_drawn(seed)

    def init_weights_drawn(self, seed: int) -> None:
        """The same for all but learned splitters; the network may be sharded."""
        scales: dict[nn.Module, float] = {}  # of the last layers of blocks
        for stage in (*self.encoders, self.trunk, *self.decoders):
            for block in stage:
                lasts = (block.attention.out, block.ffn.down, block.conv)
                scales |= {last: (2 * len(stage)) ** -0.5 for last in lasts if last is not None}
        theirs = set(self.predictors.modules())
        for name, module in self.named_modules():
            for key, parameter in module.named_parameters(recurse=False):
                if module in theirs or parameter.is_meta:
                    continue
                if isinstance(module, RMSNorm):
                    ones(parameter)
                else:
                    inputs = len(parameter) if isinstance(module, CausalConv) else parameter.shape[-1]
                    draw(parameter, inputs**-0.5, scales.get(module, 1.0), f"{seed}/{name}.{key}")

    def init_predictors(self, seed: int) -> None:
        """Draws the parameters of learned splitters anew, which is to be done before they are sharded."""
        for s, predictor in self.predictors.items():
            if not any(parameter.is_meta for parameter in predictor.parameters()):
                with torch.random.fork_rng(devices=[]), torch.no_grad():
                    torch.manual_seed(seed_of(f"{seed}/predictors.{s}"))
                    cast(Predictor, predictor).init_weights()


class _Call:
    """What one call of the model gathers on its way: the caches, units and counts of every stage."""

    def __init__(
        self,
        past: State | None,
        depth: int,
        ids: Tensor,
        pool_at: Mapping[int, Tensor],
        calibration: Calibration | None,
    ) -> None:
        self.past, self.ids, self.pool_at, self.calibration = past, ids, pool_at, calibration
        self.above = dict(past.above) if past is not None else {}
        self.transitions: list[Transition] = []
        self.levels = torch.zeros_like(ids, dtype=torch.uint8)
        self.none = torch.zeros(len(ids), dtype=torch.long, device=ids.device)
        self.stages = list(past.stages) if past is not None else []
        self.units = list(past.units) if past is not None else []
        self.begun = self.none.new_zeros(len(ids), depth)
        self.dropped = self.none.new_zeros(len(ids), depth)

    def cache(self, s: int) -> StageCache | None:
        return self.past.stages[s] if self.past is not None and self.past.stages[s].size else None

    def layers(self, s: int) -> tuple[Memory, ...]:
        return self.past.stages[s].layers if self.past is not None else ()

    def counted(self, s: int) -> Tensor:
        """[B] boundaries of transition s before this call, in the document (without masking: the row) left open."""
        return self.past.units[s].counted if self.past is not None else self.none

    def open_unit(self, s: int) -> OpenUnit | None:
        return self.past.units[s] if self.past is not None and self.past.units[s].vector is not None else None

    def open_vector(self, s: int) -> Tensor | None:
        unit = self.open_unit(s)
        return unit.vector if unit is not None else None

    def hidden(self, s: int) -> Tensor | None:
        """[B, D] hidden state of the last position of stage s before this call."""
        return self.past.units[s].hidden if self.past is not None else None

    def open(self, stream: Stream) -> Tensor:
        """bool [B, N]: where a splitter has a say. A document's end, which padding is too, begins nothing."""
        return stream.valid & ~stream.forced & (self.ids.gather(1, stream.at) < N_BYTES)

    def keep(self, transition: Transition) -> None:
        """Notes what was decided, here and on the bytes."""
        self.transitions.append(transition)
        self.levels.scatter_add_(1, transition.at, transition.boundary.to(torch.uint8))

    def select(self, s: int, stack: Stack, stream: Stream) -> Tensor:
        """What the rule above a learned splitter selects among the positions of stage s, bool [B, N]."""
        units = torch.zeros_like(self.levels).scatter_add(1, stream.at, stream.valid.to(torch.uint8)) > 0
        if self.past is None:
            selected = select_in_rows(stack.rule(s), self.ids, units)
        else:
            selected, self.above[s] = select_in_stream(stack.rule(s), self.past.above[s], self.ids, units)
        return selected.gather(1, stream.at)

    def remember(self, s: int, stream: Stream, positions: Tensor, memories: list[Memory], stage: StageConfig) -> None:
        """Writes what stage s has just seen into its cache, where there is a stream to go on with."""
        if self.past is None:
            return
        positions = positions.expand_as(stream.valid)
        documents = stream.documents if stream.documents is not None else torch.zeros_like(positions)
        before, recent = self.past.stages[s], None
        if stage.conv is not None and stream.documents is not None:
            nothing = documents.new_full((len(documents), stage.conv - 1), -1)
            seen = torch.cat([nothing if before.recent_documents is None else before.recent_documents, documents], 1)
            recent = seen.gather(1, Neighbours.of(stage.conv, stream.valid, None, None).last)
        self.stages[s] = before.extended(positions, documents, recent, stream.valid, memories, stage.window)

    def leave_open(
        self, s: int, units: Units, vectors: Tensor, counted: Tensor, h: Tensor | None, valid: Tensor
    ) -> None:
        """Keeps the unit in which each row's last position lies."""
        if self.past is None:
            return
        count = valid.sum(1, keepdim=True)  # [B, 1]
        last = (count - 1).clamp(min=0)
        vector = take(vectors, units.serving.gather(1, last))[:, 0]
        before = self.past.units[s]
        offset = torch.where(count > 0, units.offset.gather(1, last), before.offset[:, None])
        so_far = torch.where(count > 0, counted.gather(1, last), before.counted[:, None])
        hidden = None
        if h is not None:
            hidden = take(h, last)[:, 0]
            if before.hidden is not None:
                hidden = torch.where(count > 0, hidden, before.hidden)
        self.units[s] = OpenUnit(vector, offset[:, 0], so_far[:, 0], hidden)

    def state_after(self, document: Tensor, steppers: tuple[LevelStepper, ...]) -> State | None:
        if self.past is None:
            return None
        no_units = torch.zeros_like(self.ids, dtype=torch.bool)
        for s in range(len(self.transitions), len(self.units)):  # no unit began below, but rules see every byte
            if self.past.stack is not None and s in self.above:
                rule = self.past.stack.rule(s)
                _, self.above[s] = select_in_stream(rule, self.above[s], self.ids, no_units)
        return State(tuple(self.stages), tuple(self.units), document, self.past.stack, steppers, self.above)


def _wrong_depth(stack: Stack, config: AUNetConfig) -> str:
    return f"the stack has {stack.depth} rules, but a model of {config.depth + 1} stages takes {config.depth}"


def _counted(boundary: Tensor, begins: Tensor, before: Tensor) -> Tensor:
    """Boundaries up to each position [B, N], counted anew where a masked document begins; `before` [B] goes first."""
    counted = boundary.cumsum(1)
    outside = torch.where(begins, counted - boundary.long(), -1).cummax(1).values  # counted before its document
    return torch.where(outside < 0, counted + before[:, None], counted - outside)


def _run(blocks: nn.Module, x: Tensor, place: Place, past: tuple[Memory, ...]) -> tuple[Tensor, list[Memory]]:
    """x through blocks, each with what it remembers; returns what it is to remember of these positions too."""
    memories = []
    for i, block in enumerate(blocks.children()):
        x, new = block(x, place, past[i] if past else None)
        memories.append(new)
    return x, memories
