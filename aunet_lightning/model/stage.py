"""One stage of the network: encoder, transition to the stage above, and decoder.

Shapes: R rows of a call, N positions of the stage, D its width, U units.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from aunet_lightning.model.attention import AttentionMask, Beside, beside, over_cache, within_row
from aunet_lightning.model.config import AUNetConfig, StageConfig
from aunet_lightning.model.deciders import Decider, select_in_stream
from aunet_lightning.model.exact import Exact
from aunet_lightning.model.joined import Joined, OneEach
from aunet_lightning.model.kernels import Folded, stepping
from aunet_lightning.model.layers import Block, BlockContext, KVCache, Neighbours, Rotation
from aunet_lightning.model.state import StageCache, StageState, put
from aunet_lightning.model.transition import Cut, Transition
from aunet_lightning.model.units import Room, Stream
from splitters.learned.predictor import Predictor


class Reading(NamedTuple):
    """How the blocks of a stage read and keep the positions of a call."""

    context: BlockContext
    cache: StageCache | None = None  # what they read from; None: nothing was before
    before: int = 0  # the positions before that they read
    writes: bool = False  # whether they write into the cache, which is then the one after the call

    def of(self, x: Tensor) -> Reading:
        """The same for vectors of the type of x."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        if self.context.rotation.cos.dtype == dtype:
            return self
        return self._replace(context=replace(self.context, rotation=self.context.rotation.to(dtype)))

    def past(self, layer: int, stream: Stream) -> KVCache | None:
        if self.cache is None:
            return None
        return self.cache.layer(layer, stream.rows, stream.index, None if self.writes else self.before)


class Contracted(NamedTuple):
    """A stage between the contracting and the expanding path of a call."""

    stream: Stream
    reading: Reading
    h: Tensor  # [R, N + Q, D] encoder output, of refreshes too
    layers: list[KVCache]  # of the encoder's blocks
    cut: Cut
    above: tuple[Tensor, Stream] | None  # pooled vectors [R, U, coarser D], and their positions; None: no unit began


class Stage:
    """A view of modules that the network owns, so that parameters keep their names.

    In the deepest stage `encoder` is the trunk; it has no decoder and no transition.
    """

    def __init__(
        self,
        s: int,
        config: AUNetConfig,
        encoder: nn.ModuleList,
        decoder: nn.ModuleList | None,
        transition: Transition | None,
    ) -> None:
        self.s, self.network_config, self.encoder, self.decoder, self.transition = (
            s,
            config,
            encoder,
            decoder,
            transition,
        )

    @property
    def config(self) -> StageConfig:
        return self.network_config.stages[self.s]

    @property
    def block_lists(self) -> list[nn.ModuleList]:
        """Encoder and decoder, or the trunk."""
        return [self.encoder] if self.decoder is None else [self.encoder, self.decoder]

    @property
    def blocks(self) -> list[Block]:
        """All blocks, encoder first."""
        return [cast(Block, block) for blocks in self.block_lists for block in blocks.children()]

    def folded(self) -> tuple[Folded, ...]:
        """Returns the matrices of all blocks as a step multiplies by them; none where it does not."""
        with torch.no_grad():
            fold = self.config.conv is None and all(
                stepping(block.ffn_norm.weight, block.ffn.down.weight) for block in self.blocks
            )
            return tuple(block.folded() for block in self.blocks) if fold else ()

    @property
    def predictor(self) -> Predictor | None:
        """The network of the learned splitter above this stage."""
        return self.transition.predictor if self.transition is not None else None

    def modules(self) -> Iterator[nn.Module]:
        """Yields the modules of the blocks and of the transition to the stage above, and all within them."""
        between = self.transition.modules() if self.transition is not None else ()
        for module in chain(self.block_lists, between):
            yield from module.modules()

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yields the parameters of these."""
        for module in self.modules():
            yield from module.parameters(recurse=False)

    def reading(self, x: Tensor, stream: Stream, past: StageState | None) -> Reading:
        """Returns how all blocks read the stage's positions."""
        config, (batch, n), device = self.config, stream.valid.shape, stream.valid.device
        dtype, cache = torch.promote_types(x.dtype, torch.float32), past.cache if past is not None else None
        turns = config.head_dim, self.network_config.rope_theta, dtype
        if cache is None or not cache.begun:
            plain = within_row(stream.documents, batch, n, config.window, device)
            at, mask = self._beside(torch.arange(n, device=device)[None], plain, stream, None)
            joined = Joined.of(*stream.computed) if self.s or past is not None else None
            return Reading(BlockContext(Rotation.at(at, *turns), mask, self._neighbours(stream, None), joined))
        neighbours = self._neighbours(stream, cache)
        if n == 1 and stream.refreshes is None and cache.writable:
            begins = stream.begins[:, 0]
            step, rotation, after = cache.stepped(stream.rows, begins, config.window, *turns, stream.passing)
            one_each = OneEach() if config.conv is None else None
            return Reading(BlockContext(rotation, step, neighbours, one_each), after, writes=True)
        before = cache.before(stream.rows, config.window, device)  # [R, M]
        positions = torch.tensor([cache.count[row] for row in stream.rows], device=device)[:, None]
        positions = positions + torch.arange(n, device=device)  # [R, N]
        plain = over_cache(positions, before, stream.documents, torch.zeros_like(before), config.window)
        at, mask = self._beside(positions, plain, stream, before)
        return Reading(BlockContext(Rotation.at(at, *turns), mask, neighbours), cache, before.shape[1])

    def _beside(
        self, positions: Tensor, mask: AttentionMask, stream: Stream, before: Tensor | None
    ) -> tuple[Tensor, AttentionMask | Beside]:
        """Adds refreshes, where there are some, to positions [R|1, N] and what they see; before [R, M]: cached ones."""
        if stream.refreshes is None:
            return positions, mask
        unit, documents, n = stream.refreshes.unit, stream.documents, positions.shape[1]
        key, last, of_last = positions, positions[:, :1] + unit, None
        positions = torch.cat([positions.expand(len(unit), -1), last + 1], 1)
        if documents is not None:
            of_last = documents.gather(1, unit.clamp(min=0)).masked_fill(unit < 0, 0)
        if before is not None:
            key = torch.cat([before, key], 1)
            documents = torch.cat([torch.zeros_like(before), documents], 1) if documents is not None else None
        return positions, beside(mask, n, last, key, of_last, documents, self.config.window)

    def _neighbours(self, stream: Stream, cache: StageCache | None) -> Neighbours | None:
        if self.config.conv is None:
            return None
        seen = None
        if cache is not None and stream.documents is not None:
            last = cache.before(stream.rows, self.config.conv, stream.valid.device, self.config.conv - 1)
            seen = torch.where(last < 0, -1, 0)  # documents begun in this call count from 1
        unit = stream.refreshes.unit if stream.refreshes is not None else None
        return Neighbours.of(self.config.conv, stream.valid, stream.documents, seen, unit)

    def contract(
        self,
        x: Tensor,
        stream: Stream,
        past: StageState | None,
        decider: Decider | None,
        room: Room | None,
        exact: Exact | None = None,
    ) -> Contracted:
        """Encodes x [R, N + Q, D] and pools it: h_s = Encoder_s(x_s), x_{s+1} = W_down · RMSNorm(h_s[boundaries_s]).

        decider: what decides about units in this call; None: what the network has. room: for them; None: it is read
        from the device how many there are. exact: decides in float64, as x is.
        """
        transition, reading = self.transition, self.reading(x, stream, past)
        assert transition is not None
        encoder = self.encoder if exact is None else exact.of(self.encoder)
        h, layers = _run(encoder, x, stream, reading, 0)
        decider = decider or transition.decider(exact)
        own = h[:, : stream.valid.shape[1]]  # without refreshes
        cut = transition.cut(own, stream, past.of(stream.index) if past else None, decider, room)
        above = None
        if cut.rows is None or cut.rows:
            pooling = transition.pooling if exact is None else exact.of(transition.pooling)
            pooled = pooling(own if cut.index is None else own[cut.index], cut.pooled)
            above = pooled, stream.pooled(cut.above, cut.rows, cut.refreshes, cut.passing)
        return Contracted(stream, reading, h, layers, cut, above)

    def expand(self, y: Tensor | None, way: Contracted, past: StageState | None) -> tuple[Tensor, StageState | None]:
        """Upsamples the outputs y [R, U, coarser D] of the stage above (None: no unit began) and decodes:
        y_s = Decoder_s(up + h_s). Returns y_s [R, N + Q, D] and the stage's state after."""
        assert self.transition is not None
        assert self.decoder is not None
        up, vectors = self.transition.upsample(y, way.cut)
        x = up + way.h.to(up.dtype) if self.config.skip else up
        y, layers = _run(self.decoder, x, way.stream, way.reading.of(x), self.config.layers)
        if past is None:
            return y, None
        unit = past.unit.put(way.stream.index, way.cut.open_unit(way.h, vectors))
        cache = self._after(past, way.stream, way.reading, way.layers + layers)
        return y, StageState(cache, unit, way.cut.steppers)

    def run(self, x: Tensor, stream: Stream, past: StageState | None) -> tuple[Tensor, StageState | None]:
        """The trunk: x [R, N + Q, D] → y_S of the same shape, and its state after."""
        reading = self.reading(x, stream, past)
        y, layers = _run(self.encoder, x, stream, reading, 0)
        return y, replace(past, cache=self._after(past, stream, reading, layers)) if past else None

    def miss(self, past: StageState, ids: Tensor, rows: Sequence[int]) -> StageState:
        """Returns the state after bytes ids [B, L], where those of `rows` reached no position of this stage: rules see
        every byte."""
        if self.transition is None or self.transition.rule is None or not past.steppers or not rows:
            return past
        ids = ids[torch.tensor(rows, device=ids.device)]
        _, steppers = select_in_stream(past.steppers, rows, ids, torch.zeros_like(ids, dtype=torch.bool))
        return replace(past, steppers=steppers)

    def _after(self, past: StageState, stream: Stream, reading: Reading, layers: list[KVCache]) -> StageCache:
        """Returns the cache with the keys and values of this call's positions."""
        cache = reading.cache
        if cache is None or not reading.writes:
            at = torch.arange(stream.begins.shape[1], device=stream.begins.device)
            begins = torch.where(stream.begins, at, -1).amax(1).tolist()
            cache = past.cache.extended(stream.rows, stream.valid.sum(1).tolist(), begins, layers, self.config.window)
        if self.config.conv is None:
            return cache
        olds = past.cache.recent or [None] * len(layers)
        recent = (put(old, stream.index, new.recent, len(cache.count)) for old, new in zip(olds, layers, strict=True))
        return replace(cache, recent=cast(tuple[Tensor, ...], tuple(recent)))


def _run(
    blocks: nn.ModuleList, x: Tensor, stream: Stream, reading: Reading, first: int
) -> tuple[Tensor, list[KVCache]]:
    """Runs blocks of a stage, of which the first has the number `first`."""
    layers, x = [], reading.context.as_given(x)
    for i, block in enumerate(blocks.children(), first):
        x, new = block(x, reading.context, reading.past(i, stream))
        layers.append(new)
    return reading.context.by_row(x), layers
