"""Embeddings of ids: the vectors that stage 1 begins with.

Shapes: B rows, L ids, C ids of context, D width of stage 1.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aunet_lightning.model.config import AUNetConfig
from aunet_lightning.vocabulary import BOS, EOS

PRIME = 2**31 - 1  # below which hashes are: products of two stay below 2^62
NOTHING = EOS  # stands for an id before the stream or the document


class Embedding(nn.Module, ABC):
    """Vectors of ids, each from the id and the `context` ids before it. Parameters are drawn by `AUNet.init_weights`
    (those of a module with an `init_scale` times that); linear layers count as FLOPs of each position."""

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


class Table(nn.Embedding):
    """Vectors that are 0 until they are learned."""

    init_scale = 0.0


class HashedNgrams(ByteEmbedding):
    """A vector for each id, plus one for each n-gram that ends with it, from tables that n-grams of one hash share
    (arXiv 2412.09871, section 3.2.1). Parameters for which no FLOPs are paid, as those of a BPE vocabulary are.

    An n-gram that was never read adds nothing. With `ngram_dropout` training, too, has places that know none longer
    than some n, drawn for each: text that is read again knows all of its n-grams, and new text does not.
    The hash is linear in the ids, with coefficients drawn once for all, modulo a prime: in whole numbers that fit 64
    bits, so that it is the same on every device.
    """

    def __init__(self, config: AUNetConfig) -> None:
        super().__init__(config)
        self.lengths, self.n_rows, self.context = sorted(config.ngrams), config.ngram_rows, max(config.ngrams) - 1
        self.ngrams = Table(len(self.lengths) * self.n_rows, config.stages[0].dim)
        self.dropout = config.ngram_dropout
        self.coefficients = [coefficient(back) for back in range(self.context + 1)]

    def forward(self, ids: Tensor, before: Tensor | None = None) -> Tensor:
        assert before is not None
        rows = self.rows(torch.cat([before, ids[..., None]], -1))
        rows, kept = rows.flatten(0, 1), None
        if self.training and self.dropout:
            known = torch.rand(len(rows), 1, device=ids.device) / self.dropout * len(self.lengths)
            kept = (torch.arange(len(self.lengths), device=ids.device) < known.floor()).to(self.ngrams.weight.dtype)
        sparse = self.ngrams.sparse and not torch.compiler.is_compiling()
        of_ngrams = F.embedding_bag(rows, self.ngrams.weight, mode="sum", sparse=sparse, per_sample_weights=kept)
        return super().forward(ids) + of_ngrams.view(*ids.shape, -1)

    def rows(self, last: Tensor) -> Tensor:
        """Returns the rows [B, L, tables] of the n-grams that end the last ids [B, L, 1 + context]."""
        found: list[Tensor] = []
        hashed = torch.zeros_like(last[..., 0])
        for back, factor in enumerate(self.coefficients):
            hashed = (hashed + (last[..., -1 - back] + 1) * factor) % PRIME
            if back + 1 in self.lengths:
                found.append(hashed % self.n_rows + len(found) * self.n_rows)
        return torch.stack(found, -1)


def coefficient(back: int) -> int:
    """Returns the number below PRIME that an id so far back is multiplied by."""
    return random.Random(f"n-gram {back}").randrange(1, PRIME)


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
