"""Causal attention through PyTorch's kernels: full rows, exact windows in blocks, or over a cache.

A window of W sees W positions, the current one included. In blocks of at least W positions each
block sees itself and the one before it, so cost grows with the window and not with the row's square.
Shapes: B rows, H heads, N queries, M keys, K head width, S block size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_BLOCK = 32  # smaller blocks cost more in overhead than they save
ONE_BY_ONE = 8  # rows of a step that are read one by one where their slices differ


@dataclass(frozen=True)
class AttentionMask:
    """The keys that each query sees: computed once per stage and call, used by all its layers."""

    mask: Tensor | None  # bool [B|1, 1, N, M]; in blocks [B·blocks, 1, S, 2S]; None: plainly causal
    block: int | None = None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, past: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Returns attention of q [B, H, N, K] over past keys and values, and k and v [B, H, N, K]: [B, H, N, K]."""
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        if self.block is None:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask, is_causal=self.mask is None)
        before = k.shape[2] - q.shape[2]  # blocks have as many queries as keys
        q = F.pad(q, (0, 0, before, 0))
        batch, heads, n, width = q.shape
        blocks = -(-n // self.block)
        q, k, v = (_to_blocks(x, self.block) for x in (q, k, v))  # [B, blocks, H, S, K]
        k, v = (torch.cat([F.pad(x, (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1], x], dim=3) for x in (k, v))
        out = F.scaled_dot_product_attention(
            q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), attn_mask=self.mask
        )  # [B·blocks, H, S, K]
        out = out.view(batch, blocks, heads, self.block, width).transpose(1, 2)
        return out.reshape(batch, heads, blocks * self.block, width)[:, :, before:n]


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


@dataclass(frozen=True)
class Step:
    """Attention of one new position per row, over a tape of which each row sees one slice, up to that position.

    The new keys and values are written to the tape first. Rows share one call of the kernel where their slices are
    alike; a few rows are read each for itself, so that nothing is copied or masked.
    """

    rows: Sequence[int]  # [R] of the tape
    slots: Sequence[int]  # [R] of the new position
    first: Sequence[int]  # [R] the first slot that it sees
    batch: int  # rows of the tape
    device: torch.device

    @cached_property
    def _at(self) -> tuple[Tensor, Tensor]:
        return torch.tensor(self.rows, device=self.device), torch.tensor(self.slots, device=self.device)

    @cached_property
    def _slice(self) -> tuple[int, int, Tensor | None]:
        """The slots that some row sees, and which of them each does, bool [R, 1, 1, M]; None: all."""
        low, high = min(self.first), max(self.slots) + 1
        if low == max(self.first) and high == min(self.slots) + 1:
            return low, high, None
        first, (_, last) = torch.tensor(self.first, device=self.device), self._at
        slot = torch.arange(low, high, device=self.device)
        return low, high, ((slot >= first[:, None]) & (slot <= last[:, None]))[:, None, None]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, past: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Writes k and v [R, H, 1, K] into past keys and values [B, H, C, K], and returns attention [R, H, 1, K]."""
        assert past is not None
        self._write(past[0], k)
        self._write(past[1], v)
        low, high, mask = self._slice
        whole, n = len(self.rows) == self.batch, len(self.rows)
        if whole and (mask is None or n > ONE_BY_ONE):
            keys, values = (x[:, :, low:high] for x in past)
            return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        if n > ONE_BY_ONE:
            keys, values = (x[:, :, low:high].index_select(0, self._at[0]) for x in past)
            return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        out = []
        for i, (row, first, slot) in enumerate(zip(self.rows, self.first, self.slots, strict=True)):
            keys, values = (x[row : row + 1, :, first : slot + 1] for x in past)
            out.append(F.scaled_dot_product_attention(q[i : i + 1], keys, values))
        return torch.cat(out) if n > 1 else out[0]

    def _write(self, tape: Tensor, new: Tensor) -> None:
        slot = self.slots[0]
        if len(self.rows) == 1:
            tape[self.rows[0], :, slot] = new[0, :, 0]
        elif len(self.rows) == self.batch and min(self.slots) == max(self.slots):
            tape[:, :, slot] = new[:, :, 0]
        else:
            rows, slots = self._at
            tape[rows, :, slots] = new[:, :, 0]


def over_cache(
    query: Tensor,  # [B, N] positions
    key: Tensor,  # [B, M] positions before them, -1 where there is none
    query_documents: Tensor | None,
    key_documents: Tensor | None,
    window: int | None,
) -> AttentionMask:
    """Mask of cached keys and, after them, the queries' own."""
    n, block = query.shape[1], max(window or 0, MIN_BLOCK)
    documents = None
    if query_documents is not None and key_documents is not None:
        documents = torch.cat([key_documents, query_documents], 1)
    if window is None or n < block:
        return AttentionMask(_sees(query, torch.cat([key, query], 1), query_documents, documents, window)[:, None])
    if documents is None:
        documents = torch.zeros_like(torch.cat([key, query], 1))
    documents[:, : key.shape[1]].masked_fill_(key < 0, -1)
    return within_row(documents, *documents.shape, window, query.device)


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
