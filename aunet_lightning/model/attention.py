"""Causal attention through PyTorch's kernels: full rows, exact windows in blocks, or over a cache.

A window of W sees W positions, the current one included. In blocks of S positions each block sees itself and the
`back` positions before it, W - 1 rounded up to whole blocks, so cost grows with the window and not with the row's
square.
Shapes: B rows, H heads, N queries, M keys, K head width, S block size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from aunet_lightning.model.kernels import by_hand

ONE_BY_ONE = 8  # rows of a step that are read one by one where their slices differ


class Blocks(NamedTuple):
    """How windows are computed: each block of `size` queries over the keys of itself and of `back` before it."""

    size: int
    back: int  # a multiple of size

    @classmethod
    def of(cls, window: int) -> Blocks:
        size = 64 if window >= 128 else 32  # smaller ones cost more in overhead than they save
        return cls(size, -(-(window - 1) // size) * size)

    @property
    def keys(self) -> int:
        return self.back + self.size

    def cut(self, x: Tensor) -> Tensor:
        """[B, H, N, K] → [B, blocks, H, S, K], zeros past the row's end."""
        padded = F.pad(x, (0, 0, 0, -x.shape[2] % self.size))
        return padded.unflatten(2, (-1, self.size)).transpose(1, 2)

    def seen(self, x: Tensor) -> Tensor:
        """[B, H, N, K] → [B, blocks, H, back + S, K]: the keys of each block, zeros before the row."""
        cut = self.cut(x)
        n = cut.shape[1]
        before = [F.pad(cut, (0, 0, 0, 0, 0, 0, j, 0))[:, :n] for j in range(self.back // self.size, 0, -1)]
        return torch.cat([*before, cut], dim=3)


@dataclass(frozen=True)
class AttentionMask:
    """The keys that each query sees: computed once per stage and call, used by all its layers."""

    mask: Tensor | None  # [B|1, 1, N, M], in blocks [B|1, blocks, 1, S, back + S]; None: plainly causal
    blocks: Blocks | None = None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, past: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Returns attention of q [B, H, N, K] over past keys and values, and k and v [B, H, N, K]: [B, H, N, K]."""
        before = past[0].shape[2] if past is not None else 0
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        if self.blocks is None:
            mask = self.mask if self.mask is None or self.mask.dtype == torch.bool else self.mask.to(q.dtype)
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        assert self.mask is not None
        q = F.pad(q, (0, 0, before, 0)) if before else q  # blocks have as many queries as keys
        return self._in_blocks(q, k, v)[:, :, before : k.shape[2]]

    def _in_blocks(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Returns attention of as many queries as keys [B, H, N, K], with blocks that may go past them."""
        assert self.blocks is not None
        assert self.mask is not None
        if by_hand(q):
            beyond = -q.shape[2] % self.blocks.size
            q, k, v = (F.pad(x, (0, 0, 0, beyond)) if beyond else x for x in (q, k, v))
            return _InBlocks.apply(q, k, v, self.mask.to(q.dtype), self.blocks)
        mask = self.mask.expand(len(q), -1, -1, -1, -1)
        if mask.dtype != torch.bool:
            mask = mask.to(q.dtype)
        q, k, v = self.blocks.cut(q), self.blocks.seen(k), self.blocks.seen(v)
        out = F.scaled_dot_product_attention(
            q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), attn_mask=mask.flatten(0, 1)
        )  # [B·blocks, H, S, K]
        return out.unflatten(0, (len(mask), -1)).transpose(1, 2).flatten(2, 3)


def attended_pairs(n: Tensor, window: int | None) -> Tensor:
    """Pairs of query and key that the kernels compute for rows of n positions [...], as `within_row` lays them out."""
    if window is None:
        return n * n
    blocks = Blocks.of(window)
    in_blocks = (n / blocks.size).ceil() * blocks.size * blocks.keys
    return torch.where(n <= blocks.keys, n * n, in_blocks)


def within_row(documents: Tensor | None, batch: int, n: int, window: int | None, device: torch.device) -> AttentionMask:
    """Mask of the n positions of each row. `documents` [B, n]: see only one's own; None: all."""
    at = torch.arange(n, device=device)
    blocks = Blocks.of(window) if window is not None else None
    if blocks is None or blocks.keys >= n:
        if documents is None and (window is None or window >= n):
            return AttentionMask(None)
        return AttentionMask(_added(_sees(at[None], at[None], documents, documents, window)[:, None]))
    padded = n + -n % blocks.size
    query = torch.arange(padded, device=device).view(1, -1, blocks.size)  # [1, blocks, S]
    key = query[:, :, :1] + torch.arange(-blocks.back, blocks.size, device=device)  # negative before the row
    of_query = of_key = None
    if documents is not None:
        of_query = F.pad(documents, (0, padded - n), value=-1)
        of_key = F.pad(of_query, (blocks.back, 0), value=-2).unfold(1, blocks.keys, blocks.size)
        of_query = of_query.view(-1, *query.shape[1:])
    mask = _sees(query, key, of_query, of_key, window)  # [B|1, blocks, S, back + S]
    return AttentionMask(_added(mask[:, :, None]), blocks)


def _added(mask: Tensor) -> Tensor:
    """The mask as it is added to scores: 0 where a key is seen."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -torch.inf)


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
            keys, values = (x.narrow(2, low, high - low) for x in past)
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
        whole, slot = len(self.rows) == self.batch, self.slots[0]
        if whole and min(self.slots) == max(self.slots):
            tape.narrow(2, slot, 1).copy_(new)
        elif len(self.rows) == 1:
            tape[self.rows[0]].narrow(1, slot, 1).copy_(new[0])
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
    n, blocks, documents = query.shape[1], Blocks.of(window) if window is not None else None, None
    if query_documents is not None and key_documents is not None:
        documents = torch.cat([key_documents, query_documents], 1)
    if blocks is None or n < blocks.size or key.shape[1] + n <= blocks.keys:
        return AttentionMask(_sees(query, torch.cat([key, query], 1), query_documents, documents, window)[:, None])
    if documents is None:
        documents = torch.zeros_like(torch.cat([key, query], 1))
    documents[:, : key.shape[1]].masked_fill_(key < 0, -1)
    return within_row(documents, len(documents), documents.shape[1], window, query.device)


@dataclass(frozen=True)
class Beside:
    """Attention of N positions as if alone, and of Q refreshes after them: each over those before it, and itself."""

    positions: AttentionMask
    n: int  # N
    refreshes: AttentionMask  # over past keys, the positions', and their own

    def attend(self, q: Tensor, k: Tensor, v: Tensor, past: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Returns attention [B, H, N + Q, K], as `AttentionMask.attend` does."""
        n = self.n
        of_positions = self.positions.attend(q[:, :, :n], k[:, :, :n], v[:, :, :n], past)
        return torch.cat([of_positions, self.refreshes.attend(q[:, :, n:], k, v, past)], 2)


def beside(
    positions: AttentionMask,
    n: int,
    last: Tensor,  # [B, Q] the position before each refresh, -1 where there is none
    key: Tensor,  # [B|1, M + N] positions, -1 where there is none
    of_last: Tensor | None,
    of_key: Tensor | None,
    window: int | None,
) -> Beside:
    """Mask of n positions, as `positions` is, and of refreshes after them, which lie one position after `last`."""
    sees = _sees(last, key, of_last, of_key, None if window is None else window - 1)  # and itself
    itself = torch.eye(last.shape[1], dtype=torch.bool, device=last.device).expand(len(last), -1, -1)
    return Beside(positions, n, AttentionMask(_added(torch.cat([sees.expand(len(last), -1, -1), itself], 2)[:, None])))


def _sees(query: Tensor, key: Tensor, of_query: Tensor | None, of_key: Tensor | None, window: int | None) -> Tensor:
    """bool [..., N, M]: the key is at or before the query, inside its window and its document."""
    distance = query[..., :, None] - key[..., None, :]
    sees = (distance >= 0) & (key[..., None, :] >= 0)
    if window is not None:
        sees &= distance < window
    if of_query is not None and of_key is not None:
        sees = sees & (of_query[..., :, None] == of_key[..., None, :])
    return sees


class _InBlocks(torch.autograd.Function):
    """Attention in blocks on a CPU: the keys of a block are a view of the row, so that nothing is copied but the row.

    q, k, v [B, H, N, K] with N a multiple of S; mask [B|1, blocks, 1, S, back + S] float, added to the scores.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, blocks: Blocks) -> Tensor:
        keys, values = _after_zeros(k, blocks), _after_zeros(v, blocks)
        out, sums = torch.empty_like(q.transpose(1, 2), memory_format=torch.contiguous_format), []
        for b in range(len(q)):
            row = _queries(q, b, blocks), _seen(keys, b, blocks), _seen(values, b, blocks)
            of_row, sum_ = _ATTEND(*row, attn_mask=mask[b % len(mask)])
            out[b].unflatten(0, (-1, blocks.size)).copy_(of_row.transpose(1, 2))
            sums.append(sum_)
        ctx.save_for_backward(q, keys, values, mask, out, *sums)
        ctx.blocks = blocks
        return out.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, keys, values, mask, out, *sums = ctx.saved_tensors
        blocks, back, n = ctx.blocks, ctx.blocks.back, q.shape[2]
        of_q = torch.empty_like(out)
        of_keys, of_values = torch.zeros_like(keys), torch.zeros_like(values)
        for b, sum_ in enumerate(sums):
            row = _queries(q, b, blocks), _seen(keys, b, blocks), _seen(values, b, blocks)
            of_row = _queries(grad, b, blocks), *row, _queries(out.transpose(1, 2), b, blocks)
            into_q, *others = _ATTEND_BACKWARD(*of_row, sum_, 0.0, False, attn_mask=mask[b % len(mask)])
            of_q[b].unflatten(0, (-1, blocks.size)).copy_(into_q.transpose(1, 2))
            for whole, part in zip((of_keys, of_values), others, strict=True):
                part = part.transpose(1, 2)  # [blocks, back + S, H, K]
                for j in range(0, blocks.keys, blocks.size):
                    whole[b, j : j + n].unflatten(0, (-1, blocks.size)).add_(part[:, j : j + blocks.size])
        return of_q.transpose(1, 2), of_keys[:, back:].transpose(1, 2), of_values[:, back:].transpose(1, 2), None, None


_ATTEND = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_ATTEND_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def _after_zeros(x: Tensor, blocks: Blocks) -> Tensor:
    """[B, H, N, K] → [B, back + N, H, K]."""
    return F.pad(x.transpose(1, 2), (0, 0, 0, 0, blocks.back, 0)).contiguous()


def _queries(x: Tensor, b: int, blocks: Blocks) -> Tensor:
    """Row b of [B, H, N, K] as [blocks, H, S, K], a view."""
    return x[b].unflatten(1, (-1, blocks.size)).transpose(0, 1)


def _seen(x: Tensor, b: int, blocks: Blocks) -> Tensor:
    """Row b of [B, back + N, H, K] as [blocks, H, back + S, K], a view in which blocks overlap."""
    return x[b].unfold(0, blocks.keys, blocks.size).transpose(2, 3)
