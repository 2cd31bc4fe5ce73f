"""Positions of a stage in one call, and the units that begin among them.

Shapes: R rows, L bytes of the call, N positions of the finer stage, U units, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from aunet_lightning.model.state import OpenUnit
from aunet_lightning.vocabulary import N_BYTES


class Room(NamedTuple):
    """Room for the units of one transition: what a call must know before it, so as to read nothing from the device."""

    row: int  # units that a row may begin
    batch: int  # units that all rows together may begin

    @classmethod
    def of(cls, n_units: Sequence[int], round_to: int) -> Room:
        """Returns the room for rows that begin so many units, rounded up, so that shapes recur."""
        row = -(-max(n_units) // round_to) * round_to
        return cls(row, min(-(-sum(n_units) // round_to) * round_to, row * len(n_units)))


@dataclass(frozen=True)
class Stream:
    """The positions of one stage in this call."""

    ids: Tensor  # [R, L] bytes of the call
    levels: Tensor  # [R, N] how many stages up from bytes, as far as the data knows
    valid: Tensor  # bool [R, N], False past a row's last position
    at: Tensor  # [R, N] the byte of this call that each position belongs to
    forced: Tensor  # bool [R, N], True where every stage begins a unit: at the start of a stream or a document
    documents: Tensor | None  # [R, N] where documents are masked, else None; 0 continues the call before
    begins: Tensor  # bool [R, N], True where such a document begins
    most: int  # valid positions of all rows together are no more than this
    rows: Sequence[int] = ()  # [R] of the state, where there is one: those with a position here
    index: Tensor | None = None  # the same; None: all rows
    known: Sequence[int] | None = None  # [R] levels of one position per row, where the host knows them

    @property
    def open(self) -> Tensor:
        """bool [R, N]: where a splitter decides: neither forced, nor padding, nor EOS (as padding is)."""
        return self.valid & ~self.forced & (self.ids.gather(1, self.at) < N_BYTES)

    def pooled(self, units: Units, chosen: Sequence[int] | None) -> Stream:
        """Returns the stream of the stage above, whose positions are the units. chosen: those of the rows that have
        units, which `units` is of; None: all."""
        here = self if chosen is None else self.of(chosen)

        def pool(x: Tensor) -> Tensor:
            return x.gather(1, units.boundaries) * units.valid

        documents = here.documents.gather(1, units.boundaries) if here.documents is not None else None
        return Stream(
            here.ids, pool(here.levels), units.valid, pool(here.at), pool(here.forced), documents, pool(here.begins),
            units.most, here.rows, here.index, here.known,
        )  # fmt: skip

    def of(self, chosen: Sequence[int]) -> Stream:
        """Returns the positions of some of the rows."""
        at = torch.tensor(chosen, device=self.ids.device)
        names = ("ids", "levels", "valid", "at", "forced", "documents", "begins", "index")
        few: dict[str, Any] = {name: None if (x := getattr(self, name)) is None else x[at] for name in names}
        few |= {"rows": [self.rows[i] for i in chosen], "index": at if self.index is None else few["index"]}
        few |= {"known": None if self.known is None else [self.known[i] for i in chosen]}
        return replace(self, **few)


@dataclass(frozen=True)
class Units:
    """The units that begin in a call, and for every position the unit that it lies in."""

    boundaries: Tensor  # [R, U] positions of the boundaries, 0 past a row's last
    valid: Tensor  # bool [R, U]
    serving: Tensor  # [R, N] index of each position's unit; with a past, 0 is the unit left open
    offset: Tensor  # [R, N] distance from its boundary
    most: int  # units of all rows together are no more than this

    @classmethod
    def at(cls, boundary: Tensor, past: OpenUnit | None, room: Room | None, round_to: int) -> Units:
        """Finds the units of boundary, bool [R, N]. Without a past, the first position of every row must be one.

        room: None reads the number of units from the device, which waits for it. Too little of it is an IndexError (or
        an assertion of the device).
        """
        n = boundary.shape[1]
        if n == 1 and past is not None:
            offset = (past.offset[:, None] + 1).masked_fill(boundary, 0)
            return cls(torch.zeros_like(offset), boundary, boundary.long(), offset, len(boundary))
        at = torch.arange(n, device=boundary.device).expand_as(boundary)
        counted = boundary.cumsum(1)
        per_row = counted[:, -1]
        room = room or Room.of(per_row.tolist(), round_to)
        n_units = min(room.row, n)
        slots = torch.where(boundary, counted, 0)  # other positions go before the first
        positions = at.new_zeros(len(boundary), n_units + 1).scatter(1, slots, at)[:, 1:]
        last = torch.where(boundary, at, -1).cummax(1).values
        offset = at - last
        if past is not None:  # before the first new boundary, the open unit continues
            offset = torch.where(last < 0, past.offset[:, None] + 1 + at, offset)
        valid = torch.arange(n_units, device=boundary.device) < per_row[:, None]
        return cls(positions, valid, counted if past is not None else counted - 1, offset, room.batch)

    def of(self, index: Tensor | None) -> Units:
        """Returns the units of some of the rows."""
        if index is None:
            return self
        return Units(self.boundaries[index], self.valid[index], self.serving[index], self.offset[index], self.most)


def take(rows: Tensor, index: Tensor) -> Tensor:
    """rows [B, M, D] at index [B, N]: [B, N, D]. (`embedding`: its backward repeats to the last digit.)"""
    batch, m, _ = rows.shape
    flat = index + m * torch.arange(batch, device=index.device)[:, None]
    return F.embedding(flat, rows.flatten(0, 1))


def deferred(fires: Tensor, at: Tensor, valid: Tensor) -> Tensor:
    """bool [B, L] on bytes → bool [B, N]: units with a firing since the unit before, themselves included."""
    fired = fires.cumsum(1).gather(1, at)
    return (fired > F.pad(fired, (1, 0))[:, :-1]) & valid


def counted_in_documents(boundary: Tensor, begins: Tensor, before: Tensor | None) -> Tensor:
    """Boundaries up to each position [R, N], counted anew where a masked document begins; `before` [R] goes first."""
    counted = boundary.cumsum(1)
    outside = torch.where(begins, counted - boundary.long(), -1).cummax(1).values  # counted before its document
    inside = counted if before is None else counted + before[:, None]
    return torch.where(outside < 0, inside, counted - outside)
