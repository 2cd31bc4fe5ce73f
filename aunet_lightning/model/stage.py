"""One stage of the network: encoder, transition to the stage above, and decoder.

Shapes: B rows, N positions of the stage, D its width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from aunet_lightning.model.attention import over_cache, within_row
from aunet_lightning.model.config import AUNetConfig, StageConfig
from aunet_lightning.model.deciders import Decider
from aunet_lightning.model.joined import Joined
from aunet_lightning.model.layers import Block, BlockContext, KVCache, Neighbours, Rotation
from aunet_lightning.model.state import StageCache, StageState
from aunet_lightning.model.transition import Cut, Transition
from aunet_lightning.model.units import Room, Stream
from splitters.learned.predictor import Predictor


class Contracted(NamedTuple):
    """A stage between the contracting and the expanding path of a call."""

    stream: Stream
    context: BlockContext
    positions: Tensor  # [B|1, N] in the stream
    h: Tensor  # [B, N, D] encoder output
    layers: list[KVCache]  # of the encoder's blocks
    cut: Cut
    above: tuple[Tensor, Stream]  # pooled vectors [B, U, coarser D], and their positions


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

    @property
    def predictor(self) -> Predictor | None:
        """The network of the learned splitter above this stage."""
        return self.transition.predictor if self.transition is not None else None

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yields the parameters of the blocks and of the transition to the stage above."""
        between = self.transition.modules() if self.transition is not None else ()
        for module in chain(self.block_lists, between):
            yield from module.parameters()

    def context(self, x: Tensor, stream: Stream, past: StageState | None) -> tuple[BlockContext, Tensor]:
        """Returns the context of all blocks for the stage's positions, and their places in the stream [B|1, N]."""
        config, (batch, n) = self.config, stream.valid.shape
        positions = torch.arange(n, device=stream.valid.device)[None]  # [1, N]
        cache = past.cache if past is not None and past.cache.size else None
        if cache is None:
            mask = within_row(stream.documents, batch, n, config.window, positions.device)
        else:
            positions = cache.count[:, None] + positions  # [B, N]
            documents, keys = stream.documents, torch.cat([cache.positions, positions], 1)
            key_documents = torch.cat([cache.documents, documents], 1) if documents is not None else None
            mask = over_cache(positions, keys, documents, key_documents, config.window)
        neighbours = None
        if config.conv is not None:
            recent = cache.recent_documents if cache is not None else None
            neighbours = Neighbours.of(config.conv, stream.valid, stream.documents, recent)
        dtype = torch.promote_types(x.dtype, torch.float32)
        rotation = Rotation.at(positions, config.head_dim, self.network_config.rope_theta, dtype)
        joined = Joined.of(stream.valid, stream.most) if past is None and self.s else None
        return BlockContext(rotation, mask, neighbours, joined), positions

    def contract(
        self, x: Tensor, stream: Stream, past: StageState | None, decider: Decider | None, room: Room | None
    ) -> Contracted:
        """Encodes x [B, N, D] and pools it: h_s = Encoder_s(x_s), x_{s+1} = W_down · RMSNorm(h_s[boundaries_s]).

        decider: what decides about units in this call; None: what the network has. room: for them; None: it is read
        from the device how many there are.
        """
        transition, (context, positions) = self.transition, self.context(x, stream, past)
        assert transition is not None
        h, layers = _run(self.encoder, x, context, past.cache.layers[: self.config.layers] if past else ())
        cut = transition.cut(h, stream, past, decider or transition.decider, room)
        pooled = transition.pooling(h, cut.units)  # [B, U, coarser D]; U is 0 where a step begins no unit
        return Contracted(stream, context, positions, h, layers, cut, (pooled, stream.pooled(cut.units)))

    def expand(self, y: Tensor | None, way: Contracted, past: StageState | None) -> tuple[Tensor, StageState | None]:
        """Upsamples the outputs y [B, U, coarser D] of the stage above (None: no unit began) and decodes:
        y_s = Decoder_s(up + h_s). Returns y_s [B, N, D] and the stage's state after."""
        assert self.transition is not None
        assert self.decoder is not None
        up, vectors = self.transition.upsample(y, way.cut, past)
        x = up + way.h if self.config.skip else up
        y, layers = _run(self.decoder, x, way.context, past.cache.layers[self.config.layers :] if past else ())
        if past is None:
            return y, None
        unit = self.transition.open_unit(way.h, way.cut, vectors, past.unit)
        cache = self._extended(past, way.stream, way.positions, way.layers + layers)
        return y, StageState(cache, unit, way.cut.steppers)

    def run(self, x: Tensor, stream: Stream, past: StageState | None) -> tuple[Tensor, StageState | None]:
        """The trunk: x [B, N, D] → y_S [B, N, D], and its state after."""
        context, positions = self.context(x, stream, past)
        y, layers = _run(self.encoder, x, context, past.cache.layers if past else ())
        return y, replace(past, cache=self._extended(past, stream, positions, layers)) if past else None

    def miss(self, past: StageState, ids: Tensor) -> StageState:
        """Returns the state after bytes ids [B, L] of which none began a unit of this stage."""
        return replace(past, steppers=self.transition.missed(past.steppers, ids)) if self.transition else past

    def _extended(self, past: StageState, stream: Stream, positions: Tensor, layers: list[KVCache]) -> StageCache:
        """Returns the cache with the keys and values of this call's positions."""
        positions, conv = positions.expand_as(stream.valid), self.config.conv
        documents = stream.documents if stream.documents is not None else torch.zeros_like(positions)
        recent = None
        if conv is not None and stream.documents is not None:
            before = past.cache.recent_documents
            nothing = documents.new_full((len(documents), conv - 1), -1)
            seen = torch.cat([nothing if before is None else before, documents], 1)
            recent = seen.gather(1, Neighbours.of(conv, stream.valid, None, None).last)
        return past.cache.extended(positions, documents, recent, stream.valid, layers, self.config.window)


def _run(
    blocks: nn.ModuleList, x: Tensor, context: BlockContext, past: Sequence[KVCache]
) -> tuple[Tensor, list[KVCache]]:
    layers, x = [], context.as_given(x)
    for i, block in enumerate(blocks.children()):
        x, new = block(x, context, past[i] if past else None)
        layers.append(new)
    return context.by_row(x), layers
