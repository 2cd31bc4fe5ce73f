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
    inside: Room | None = None  # for refreshes inside them, likewise

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
    refresh: Tensor | None = None  # bool [R, N], of bytes: where the vector of a unit is made anew, if it is
    known_refresh: Sequence[bool] | None = None  # [R] the same of one position per row, where the host knows it
    refreshes: Refreshes | None = None  # what the stage computes beside its positions
    passing: Sequence[bool] = ()  # [R] of one position per row: whether it is a refresh, of which nothing is kept

    @property
    def open(self) -> Tensor:
        """bool [R, N]: where a splitter decides: neither forced, nor padding, nor EOS (as padding is)."""
        return self.valid & ~self.forced & (self.ids.gather(1, self.at) < N_BYTES)

    @property
    def computed(self) -> tuple[Tensor, int]:
        """What blocks compute, bool [R, N + Q]: valid positions, and refreshes after them; and the most of all rows."""
        if self.refreshes is None:
            return self.valid, self.most
        return torch.cat([self.valid, self.refreshes.valid], 1), self.most + self.refreshes.most

    def pooled(
        self, units: Units, chosen: Sequence[int] | None, refreshes: Refreshes | None, passing: Sequence[bool]
    ) -> Stream:
        """Returns the stream of the stage above, whose positions are the units. chosen: those of the rows that go
        there, which the others are of; None: all."""
        here = self if chosen is None else self.of(chosen)

        def pool(x: Tensor) -> Tensor:
            return x.gather(1, units.boundaries) * units.valid

        documents = here.documents.gather(1, units.boundaries) if here.documents is not None else None
        return Stream(
            here.ids, pool(here.levels), units.valid, pool(here.at), pool(here.forced), documents, pool(here.begins),
            units.most, here.rows, here.index, here.known, refreshes=refreshes, passing=passing,
        )  # fmt: skip

    def of(self, chosen: Sequence[int]) -> Stream:
        """Returns the positions of some of the rows."""
        at = torch.tensor(chosen, device=self.ids.device)
        names = ("ids", "levels", "valid", "at", "forced", "documents", "begins", "index", "refresh")
        few: dict[str, Any] = {name: None if (x := getattr(self, name)) is None else x[at] for name in names}
        few |= {"rows": [self.rows[i] for i in chosen], "index": at if self.index is None else few["index"]}
        for name in ("known", "known_refresh"):
            few[name] = None if (known := getattr(self, name)) is None else [known[i] for i in chosen]
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
        places = Places.of(boundary, room, round_to, least=1)
        at, last, counted = places.at, places.last, places.counted
        offset = at - last
        if past is not None:  # before the first new boundary, the open unit continues
            offset = torch.where(last < 0, past.offset[:, None] + 1 + at, offset)
        serving = counted if past is not None else counted - 1
        return cls(places.positions, places.valid, serving, offset, places.most)

    def refreshed(self, inside: Tensor, past: bool, room: Room | None, round_to: int) -> tuple[Units, Refreshes | None]:
        """Returns the same where positions inside units, bool [R, N], make their vector anew, which serves from there
        on, with offsets from there; and these refreshes, None where there is none. past: whether `at` had one."""
        if inside.shape[1] == 1 and past:
            return replace(self, serving=self.serving | inside, offset=self.offset.masked_fill(inside, 0)), None
        places = Places.of(inside, room, round_to)
        if places.positions.shape[1] == 0:
            return self, None
        newer = places.last > (places.at - self.offset).clamp(min=-1)  # than the boundary
        of_refresh = past + self.boundaries.shape[1] + places.counted - 1  # they come after the units
        offset = torch.where(newer, places.at - places.last, self.offset)
        units = replace(self, serving=torch.where(newer, of_refresh, self.serving), offset=offset)
        unit = self.serving.gather(1, places.positions) - int(past)
        return units, Refreshes(places.positions, places.valid, unit, places.most)

    def beside(self, refreshes: Refreshes, past: OpenUnit | None) -> Units:
        """Returns the same for N positions and, after them, Q refreshes of the stage, each of which lies one position
        after that of its unit."""
        last = refreshes.unit.clamp(min=0)
        serving, offset = self.serving.gather(1, last), self.offset.gather(1, last)
        if past is not None:
            before = refreshes.unit < 0
            serving = serving.masked_fill(before, 0)
            offset = torch.where(before, past.offset[:, None], offset)
        offset = torch.cat([self.offset, offset + 1], 1)
        return replace(self, serving=torch.cat([self.serving, serving], 1), offset=offset)

    def of(self, index: Tensor | None) -> Units:
        """Returns the units of some of the rows."""
        if index is None:
            return self
        return Units(self.boundaries[index], self.valid[index], self.serving[index], self.offset[index], self.most)


@dataclass(frozen=True)
class Refreshes:
    """Positions inside units, Q per row, which the stage above computes beside the units that begin in a call: each
    sees the units up to its own and itself, and is seen by itself alone."""

    positions: Tensor  # [R, Q] of the finer stage, 0 past a row's last
    valid: Tensor  # bool [R, Q]
    unit: Tensor  # [R, Q] that each lies in, among those that begin in the call; -1: the one left open before
    most: int  # refreshes of all rows together are no more than this

    def of(self, index: Tensor | None) -> Refreshes:
        """Returns the refreshes of some of the rows."""
        if index is None:
            return self
        return Refreshes(self.positions[index], self.valid[index], self.unit[index], self.most)


class Places(NamedTuple):
    """Where some positions [R, N] are chosen, as M slots per row."""

    positions: Tensor  # [R, M] the chosen ones, 0 past a row's last
    valid: Tensor  # bool [R, M]
    at: Tensor  # [R, N] each position's own number,
    last: Tensor  # that of the last chosen one up to it, or -1,
    counted: Tensor  # and how many are chosen up to it
    most: int  # of all rows together

    @classmethod
    def of(cls, chosen: Tensor, room: Room | None, round_to: int, least: int = 0) -> Places:
        """For chosen, bool [R, N]; M is `least` or more. room: see `Units.at`."""
        at = torch.arange(chosen.shape[1], device=chosen.device).expand_as(chosen)
        counted = chosen.cumsum(1)
        per_row = counted[:, -1]
        room = room or Room.of(per_row.tolist(), round_to)
        n = max(min(room.row, chosen.shape[1]), least)
        slots = torch.where(chosen, counted, 0)  # other positions go before the first
        positions = at.new_zeros(len(chosen), n + 1).scatter(1, slots, at)[:, 1:]
        valid = torch.arange(n, device=chosen.device) < per_row[:, None]
        return cls(positions, valid, at, torch.where(chosen, at, -1).cummax(1).values, counted, room.batch)


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
