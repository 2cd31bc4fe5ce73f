"""Embeddings of ids: the vectors that stage 1 begins with.

Shapes: B rows, L ids, C ids of context, D width of stage 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from aunet_lightning.model.config import AUNetConfig
from aunet_lightning.vocabulary import BOS, EOS

NOTHING = EOS  # stands for an id before the stream or the document


class Embedding(nn.Module, ABC):
    """Vectors of ids, each from the id and the `context` ids before it. Parameters are drawn by `AUNet.init_weights`;
    linear layers count as FLOPs of each position."""

    context: int = 0

    @abstractmethod
    def forward(self, ids: Tensor, before: Tensor | None = None) -> Tensor:
        """ids [B, L] → vectors [B, L, D]. before [B, L, C]: the C ids before each, the nearest last, and EOS where the
        stream (or a masked document) has not begun; None where C is 0."""


class ByteEmbedding(nn.Embedding, Embedding):
    """A vector for each id."""

    def __init__(self, config: AUNetConfig) -> None:
        super().__init__(config.vocabulary, config.stages[0].dim)

    def forward(self, ids: Tensor, before: Tensor | None = None) -> Tensor:
        return super().forward(ids)


def preceding(
    ids: Tensor, recent: Tensor | None, context: int, masked: bool, valid: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the `context` ids before each of ids [B, L] as [B, L, C], and the last of this call [B, C].

    recent [B, C]: those of the call before; None: the stream begins. masked: whether a BOS hides what is before it.
    valid bool [B, L]: False past a row's last id; None: all are ids.
    """
    if recent is None:
        recent = ids.new_full((len(ids), context), NOTHING)
    windows = torch.cat([recent, ids], 1).unfold(1, context, 1)  # [B, L + 1, C]
    before, recent = windows[:, :-1], windows[:, -1]
    if valid is not None:
        recent = windows[torch.arange(len(ids), device=ids.device), valid.sum(1)]
    if masked:
        begins = torch.cat([before, ids[..., None]], 2) == BOS  # [B, L, C + 1]
        since = begins.flip(2).cumsum(2).flip(2)  # BOS from each id up to this one
        before = before.masked_fill(since[..., 1:] > 0, NOTHING)
    return before, recent
