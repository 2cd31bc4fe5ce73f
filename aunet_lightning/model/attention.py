"""Causal attention through PyTorch's kernels: full rows, exact windows in blocks, or over a cache.

A window of W sees W positions, the current one included. In blocks of at least W positions each
block sees itself and the one before it, so cost grows with the window and not with the row's square.
Shapes: B rows, H heads, N queries, M keys, K head width, S block size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_BLOCK = 32  # smaller blocks cost more in overhead than they save


@dataclass(frozen=True)
class AttentionMask:
    """The keys that each query sees: computed once per stage and call, used by all its layers."""

    mask: Tensor | None  # bool [B|1, 1, N, M]; in blocks [B·blocks, 1, S, 2S]; None: plainly causal
    block: int | None = None

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Returns attention of q [B, H, N, K] over k and v [B, H, M, K]: [B, H, N, K]."""
        if self.block is None:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask, is_causal=self.mask is None)
        batch, heads, n, width = q.shape
        blocks = -(-n // self.block)
        q, k, v = (_to_blocks(x, self.block) for x in (q, k, v))  # [B, blocks, H, S, K]
        k, v = (torch.cat([F.pad(x, (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1], x], dim=3) for x in (k, v))
        out = F.scaled_dot_product_attention(
            q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), attn_mask=self.mask
        )  # [B·blocks, H, S, K]
        out = out.view(batch, blocks, heads, self.block, width).transpose(1, 2)
        return out.reshape(batch, heads, blocks * self.block, width)[:, :, :n]


def attended_pairs(n: Tensor, window: int | None) -> Tensor:
    """Pairs of query and key that the kernels compute for rows of n positions [...], as `within_row` lays them out."""
    if window is None:
        return n * n
    block = max(window, MIN_BLOCK)
    return torch.where(n <= block, n * n, (n / block).ceil() * 2 * block * block)


def within_row(documents: Tensor | None, batch: int, n: int, window: int | None, device: torch.device) -> AttentionMask:
    """Mask of the n positions of each row. `documents` [B, n]: see only one's own; None: all."""
    if window is None or window >= n:
        if documents is None:
            return AttentionMask(None)
        causal = torch.ones(n, n, dtype=torch.bool, device=device).tril()
        return AttentionMask((causal & (documents[:, :, None] == documents[:, None, :]))[:, None])
    block = max(window, MIN_BLOCK)
    if block >= n:
        at = torch.arange(n, device=device)
        mask = _sees(at[None], at[None], documents, documents, window)
        return AttentionMask(mask[:, None])
    blocks = -(-n // block)
    query = torch.arange(blocks * block, device=device).view(1, blocks, block)
    key = torch.cat([query - block, query], dim=-1)  # [1, blocks, 2S], negative before the row
    if documents is None:
        mask = _sees(query, key, None, None, window).expand(batch, -1, -1, -1)
    else:
        of_query = F.pad(documents, (0, blocks * block - n), value=-1).view(-1, blocks, block)
        of_key = torch.cat([F.pad(of_query, (0, 0, 1, 0), value=-2)[:, :-1], of_query], dim=-1)
        mask = _sees(query, key, of_query, of_key, window)
    return AttentionMask(mask.flatten(0, 1)[:, None], block)


def over_cache(
    query: Tensor,  # [B, N] positions
    key: Tensor,  # [B, M] positions, -1 in an empty slot
    query_documents: Tensor | None,
    key_documents: Tensor | None,
    window: int | None,
) -> AttentionMask:
    """Mask of cached and new keys, in any order."""
    return AttentionMask(_sees(query, key, query_documents, key_documents, window)[:, None])


def _sees(query: Tensor, key: Tensor, of_query: Tensor | None, of_key: Tensor | None, window: int | None) -> Tensor:
    """bool [..., N, M]: the key is at or before the query, inside its window and its document."""
    distance = query[..., :, None] - key[..., None, :]
    sees = (distance >= 0) & (key[..., None, :] >= 0)
    if window is not None:
        sees &= distance < window
    if of_query is not None and of_key is not None:
        sees = sees & (of_query[..., :, None] == of_key[..., None, :])
    return sees


def _to_blocks(x: Tensor, block: int) -> Tensor:
    """[B, H, N, K] → [B, blocks, H, S, K], zeros past the row's end."""
    padded = F.pad(x, (0, 0, 0, -x.shape[2] % block))
    return padded.unflatten(2, (-1, block)).transpose(1, 2)
