"""The autoregressive U-Net (AU-Net, arXiv 2506.14761).

    bytes → encoder 1 ────────── skip ──────────→ + decoder 1 → logits
              ↓ pool at boundaries          ↑ upsample
            encoder 2 ──── skip ────→ + decoder 2
              ↓ pool          ↑ upsample
                    trunk

There is one forward. Without a state it reads whole rows; with one it goes on where the stream
stopped, by one byte or by many, and hands back the state after. Nothing is kept on modules.
Shapes: B rows, L bytes, N positions of a stage, U units, D width.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aunet_lightning.model.attention import over_cache, within_row
from aunet_lightning.model.config import AUNetConfig, StageConfig
from aunet_lightning.model.layers import Block, KeyValues, Place, RMSNorm, Rotation
from aunet_lightning.model.state import OpenUnit, StageCache, State
from aunet_lightning.model.transitions import UPSAMPLINGS, MultiLinear, Pooling, Units, take
from aunet_lightning.vocabulary import BOS, VOCABULARY
from splitters.stack import LevelStepper, Stack


@dataclass(frozen=True)
class Output:
    """What a call of the model gives."""

    logits: Tensor  # [B, L, 258], of the byte that follows each
    state: State | None  # the stream after this call; None if it was called without one
    units: Tensor  # [B, depth] units begun in this call, per stage transition
    dropped: Tensor  # [B, depth] boundaries that a cap left out


@dataclass(frozen=True)
class Stream:
    """The positions of one stage in this call."""

    levels: Tensor  # [B, N] how many stages up from bytes
    valid: Tensor  # bool [B, N], False past a row's last position
    documents: Tensor | None  # [B, N] where documents are masked, else None
    begins: Tensor  # bool [B, N], True where such a document begins


class AUNet(nn.Module):
    """A byte-level language model with any number of stages; the deepest is the trunk."""

    def __init__(self, config: AUNetConfig) -> None:
        super().__init__()
        self.config = config
        stages = config.stages
        pairs = list(itertools.pairwise(stages))

        def blocks(stage: StageConfig) -> nn.ModuleList:
            shape = (stage.dim, stage.head_dim, config.ffn_multiple_of, config.norm_eps)
            return nn.ModuleList(Block(*shape) for _ in range(stage.layers))

        upsampling = UPSAMPLINGS[config.upsampling]
        self.embedding = nn.Embedding(VOCABULARY, stages[0].dim)
        self.encoders = nn.ModuleList(blocks(stage) for stage in stages[:-1])
        self.poolings = nn.ModuleList(Pooling(fine.dim, coarse.dim, config.norm_eps) for fine, coarse in pairs)
        self.trunk = blocks(stages[-1])
        self.upsamplings = nn.ModuleList(upsampling(fine.dim, coarse.dim, config) for fine, coarse in pairs)
        self.decoders = nn.ModuleList(blocks(stage) for stage in stages[:-1])
        self.norm = RMSNorm(stages[0].dim, eps=config.norm_eps)
        self.head = nn.Linear(stages[0].dim, VOCABULARY, bias=False)
        self.init_weights()

    def forward(self, ids: Tensor, levels: Tensor | None = None, state: State | None = None) -> Output:
        """Reads ids [B, L] (int, < 258) with levels [B, L] and returns the logits of what follows each.

        The first position of a stream, and with document masking every BOS, has the highest level
        whatever `levels` says. `levels` may be left out where there is one stage, or where the state
        has the splitters' steppers. Raises ValueError for shapes that do not match, or levels missing.
        """
        depth = self.config.depth
        steppers = state.steppers if state is not None else ()
        if levels is None and depth == 0:
            levels = torch.zeros_like(ids)
        elif levels is None and state is not None:
            levels, steppers = state.step_levels(ids)
        if levels is None or ids.dim() != 2 or levels.shape != ids.shape or ids.shape[1] == 0:
            got = "no levels" if levels is None else f"levels {list(levels.shape)}"
            raise ValueError(f"ids {list(ids.shape)} came with {got}: both must be [B, L] with L at least 1")

        begins = ids == BOS
        masked = self.config.document_masking
        documents = begins.cumsum(1) + (0 if state is None else state.document[:, None])
        highest = begins & masked
        if state is None or state.fresh:
            highest = highest | (torch.arange(ids.shape[1], device=ids.device) == 0)
        levels = levels.masked_fill(highest, depth)
        stream = Stream(levels, torch.ones_like(begins), documents if masked else None, begins & masked)

        call = _Call(state, depth, ids)
        y = self.through(0, self.embedding(ids), stream, call)
        after = call.state_after(documents[:, -1], steppers)
        return Output(self.head(self.norm(y)), after, call.begun, call.dropped)

    def through(self, s: int, x: Tensor, stream: Stream, call: _Call) -> Tensor:
        """Stage s (0: bytes) and all above it: x [B, N, D] → [B, N, D]."""
        place, positions = self.place(s, stream, call)
        past = call.layers(s)
        if s == self.config.depth:
            y, key_values = _run(self.trunk, x, place, past)
            call.remember(s, stream, positions, key_values, self.config.stages[s].window)
            return y

        n_layers, skip = self.config.stages[s].layers, self.config.stages[s].skip
        h, encoder_kv = _run(self.encoders[s], x, place, past[:n_layers])
        units, counted, coarser = self.cut(s, stream, call)
        pooled = self.poolings[s](h, units)  # [B, U, coarser D]; U is 0 where a step begins no unit
        above = self.through(s + 1, pooled, coarser, call) if units.boundaries.shape[1] else None
        up, vectors = self.upsamplings[s](above, units, call.open_vector(s))
        y, decoder_kv = _run(self.decoders[s], up + h if skip else up, place, past[n_layers:])
        call.leave_open(s, units, vectors, counted, stream.valid)
        call.remember(s, stream, positions, encoder_kv + decoder_kv, self.config.stages[s].window)
        return y

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
        return Place(Rotation.at(positions, stage.head_dim, self.config.rope_theta), visibility), positions

    def cut(self, s: int, stream: Stream, call: _Call) -> tuple[Units, Tensor, Stream]:
        """The units that begin among the positions of stage s, how many boundaries [B, N] there were up to each
        position, and the stream of stage s + 1 that they make."""
        boundary = (stream.levels > s) & stream.valid
        cap = self.config.stages[s + 1].max_units
        counted = _counted(boundary, stream.begins, call.counted(s))
        if cap is not None:
            call.dropped[:, s] = (boundary & (counted > cap)).sum(1)
            boundary = boundary & (counted <= cap)
        call.begun[:, s] = boundary.sum(1)
        # A step pads to the most units that begin in it; a row rounds up, so that shapes recur.
        units = Units.at(boundary, call.open_unit(s), self.config.round_units_to if call.past is None else 1)
        levels = stream.levels.gather(1, units.boundaries) * units.valid
        documents = stream.documents.gather(1, units.boundaries) if stream.documents is not None else None
        begins = stream.begins.gather(1, units.boundaries) & units.valid
        return units, counted, Stream(levels, units.valid, documents, begins)

    def initial_state(self, batch: int, stack: Stack | None = None) -> State:
        """Returns the state of `batch` streams that have not begun.

        With `stack`, the forward works out levels from the bytes it is given; a stack whose depth is
        not the model's raises ValueError.
        """
        if stack is not None and stack.depth != self.config.depth:
            raise ValueError(
                f"the stack has {stack.depth} rules, but a model of {self.config.depth + 1} stages "
                f"takes {self.config.depth}"
            )
        return State.initial(len(self.config.stages), batch, self.head.weight.device, stack)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Draws every parameter anew (there are no buffers): truncated normals of deviation 1/sqrt(inputs).

        What a block adds to its residual stream is scaled down by the stage's depth, as usual.
        """
        for module in self.modules():
            if isinstance(module, RMSNorm):
                nn.init.ones_(module.weight)
            elif isinstance(module, nn.Linear):
                _truncated_normal(module.weight, module.in_features**-0.5)
            elif isinstance(module, nn.Embedding):
                _truncated_normal(module.weight, module.embedding_dim**-0.5)
            elif isinstance(module, MultiLinear):
                _truncated_normal(module.by_offset, module.by_offset.shape[-1] ** -0.5)
        for stage in (*self.encoders, self.trunk, *self.decoders):
            for block in stage:
                for linear in (block.attention.out, block.ffn.down):
                    linear.weight.mul_((2 * len(stage)) ** -0.5)


class _Call:
    """What one call of the model gathers on its way: the caches, units and counts of every stage."""

    def __init__(self, past: State | None, depth: int, ids: Tensor) -> None:
        self.past = past
        self.none = torch.zeros(len(ids), dtype=torch.long, device=ids.device)
        self.stages = list(past.stages) if past is not None else []
        self.units = list(past.units) if past is not None else []
        self.begun = self.none.new_zeros(len(ids), depth)
        self.dropped = self.none.new_zeros(len(ids), depth)

    def cache(self, s: int) -> StageCache | None:
        return self.past.stages[s] if self.past is not None and self.past.stages[s].size else None

    def layers(self, s: int) -> tuple[KeyValues, ...]:
        return self.past.stages[s].layers if self.past is not None else ()

    def counted(self, s: int) -> Tensor:
        """[B] boundaries of transition s before this call, in the document (without masking: the row) left open."""
        return self.past.units[s].counted if self.past is not None else self.none

    def open_unit(self, s: int) -> OpenUnit | None:
        return self.past.units[s] if self.past is not None and self.past.units[s].vector is not None else None

    def open_vector(self, s: int) -> Tensor | None:
        unit = self.open_unit(s)
        return unit.vector if unit is not None else None

    def remember(
        self, s: int, stream: Stream, positions: Tensor, key_values: list[KeyValues], window: int | None
    ) -> None:
        """Writes what stage s has just seen into its cache, where there is a stream to go on with."""
        if self.past is None:
            return
        positions = positions.expand_as(stream.valid)
        documents = stream.documents if stream.documents is not None else torch.zeros_like(positions)
        self.stages[s] = self.past.stages[s].extended(positions, documents, stream.valid, key_values, window)

    def leave_open(self, s: int, units: Units, vectors: Tensor, counted: Tensor, valid: Tensor) -> None:
        """Keeps the unit in which each row's last position lies."""
        if self.past is None:
            return
        count = valid.sum(1, keepdim=True)  # [B, 1]
        last = (count - 1).clamp(min=0)
        vector = take(vectors, units.serving.gather(1, last))[:, 0]
        before = self.past.units[s]
        offset = torch.where(count > 0, units.offset.gather(1, last), before.offset[:, None])
        so_far = torch.where(count > 0, counted.gather(1, last), before.counted[:, None])
        self.units[s] = OpenUnit(vector, offset[:, 0], so_far[:, 0])

    def state_after(self, document: Tensor, steppers: tuple[LevelStepper, ...]) -> State | None:
        if self.past is None:
            return None
        return State(tuple(self.stages), tuple(self.units), document, self.past.stack, steppers)


def _counted(boundary: Tensor, begins: Tensor, before: Tensor) -> Tensor:
    """Boundaries up to each position [B, N], counted anew where a masked document begins; `before` [B] goes first."""
    counted = boundary.cumsum(1)
    outside = torch.where(begins, counted - boundary.long(), -1).cummax(1).values  # counted before its document
    return torch.where(outside < 0, counted + before[:, None], counted - outside)


def _run(blocks: nn.Module, x: Tensor, place: Place, past: tuple[KeyValues, ...]) -> tuple[Tensor, list[KeyValues]]:
    """x through blocks, each with its cached keys and values; returns the new ones too."""
    key_values = []
    for i, block in enumerate(blocks.children()):
        x, new = block(x, place, past[i] if past else None)
        key_values.append(new)
    return x, key_values


def _truncated_normal(weight: Tensor, std: float) -> None:
    nn.init.trunc_normal_(weight, std=std, a=-3 * std, b=3 * std)
