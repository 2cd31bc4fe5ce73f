"""State of a stream between two calls of a model: values, passed in and returned.

Keys and values are appended to tapes that successive states share, so that a step copies nothing: each state sees a
tape up to an end of its own. Places are counted on the host, since they say which slices of a tape are read.
Shapes: B rows of a state, R those of a call, N positions of a stage in a call, C slots, H heads, K head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aunet_lightning.model.attention import Step
from aunet_lightning.model.embedding import NOTHING
from aunet_lightning.model.kernels import Folded
from aunet_lightning.model.layers import KVCache, Rotation
from aunet_lightning.model.steppers import Track, read
from aunet_lightning.vocabulary import BOS
from splitters import Splitter
from splitters.stack import Stack

LEAST_ROOM = 64  # positions that a new tape has room for
TURNS = 256  # positions whose rotary angles are computed at once


@dataclass
class Tape:
    """Keys and values of a stage's blocks, in slots that are written once: row b's position p in slot p + shift[b]."""

    layers: list[tuple[Tensor, Tensor]]  # keys and values [B, H, C, K], encoder then decoder
    shift: list[int]  # [B]
    written: list[int]  # [B] positions, of all states that share the tape

    @property
    def size(self) -> int:
        return self.layers[0][0].shape[2]

    @property
    def writable(self) -> bool:
        """Whether this call may write: not what another mode made, nor where a gradient may need what is there."""
        return not torch.is_grad_enabled() and (
            torch.is_inference_mode_enabled() or not self.layers[0][0].is_inference()
        )


@dataclass(frozen=True)
class StageCache:
    """The positions that a stage has seen, of which a tape holds at least its window."""

    count: list[int]  # [B] positions seen since the stream began
    begin: list[int]  # [B] the first that later positions may see: where a masked document began
    tape: Tape | None = None
    recent: tuple[Tensor, ...] = ()  # per block, the last inputs [B, W-1, D] of its convolution
    turns: tuple[int, Rotation] | None = None  # the first of some positions, and the angles of all of them
    folded: tuple[Folded, ...] = ()  # of each block, encoder first; see `KVCache`

    @classmethod
    def empty(cls, batch: int, folded: tuple[Folded, ...] = ()) -> StageCache:
        return cls([0] * batch, [0] * batch, folded=folded)

    @property
    def fresh(self) -> list[bool]:
        """[B] whether a row has no position yet."""
        return [not n for n in self.count]

    @property
    def begun(self) -> bool:
        return self.tape is not None

    def anew(self, rows: Sequence[int], at: Tensor) -> StageCache:
        """Returns the cache in which `rows` have no position yet; at: the same as [R] on the device."""
        chosen = {*rows}
        count, begin = ([0 if row in chosen else n for row, n in enumerate(of)] for of in (self.count, self.begin))
        return replace(self, count=count, begin=begin, recent=tuple(x.index_fill(0, at, 0) for x in self.recent))

    @property
    def writable(self) -> bool:
        return self.tape is not None and self.tape.writable

    def stepped(
        self, rows: Sequence[int], begins: Tensor, window: int | None, head_dim: int, theta: float, dtype: torch.dtype,
        passing: Sequence[bool] = (),
    ) -> tuple[Step, Rotation, StageCache]:  # fmt: skip
        """Returns how one new position of each of `rows` attends, their rotation, and the cache after.
        begins [R]: where documents do. passing [R]: of which positions nothing is kept; (): all are."""
        step, after = self._step(rows, begins.tolist(), window, passing or [False] * len(rows))
        rotation, after = after._turned([self.count[row] for row in rows], head_dim, theta, dtype, begins.device)
        return step, rotation, after

    def _step(
        self, rows: Sequence[int], begins: Sequence[bool], window: int | None, passing: Sequence[bool]
    ) -> tuple[Step, StageCache]:
        tape, count, begin = self._room(rows, [1] * len(rows), window), self.count.copy(), self.begin.copy()
        first, slots = [], []
        for row, new, passes in zip(rows, begins, passing, strict=True):
            at = count[row]
            if new:
                begin[row] = at
            first.append(tape.shift[row] + (begin[row] if window is None else max(begin[row], at + 1 - window)))
            slots.append(tape.shift[row] + at)
            if not passes:  # or the next position is written over it
                count[row] = tape.written[row] = at + 1
        return Step(rows, slots, first, len(count), tape.layers[0][0].device), replace(
            self, count=count, begin=begin, tape=tape
        )

    def before(self, rows: Sequence[int], window: int | None, device: torch.device, n: int | None = None) -> Tensor:
        """Returns the positions [R, n] before a call, -1 where its first position does not see one. n: by default as
        many as one of the rows sees."""
        seen = [self.count[row] - self.begin[row] for row in rows]
        seen = seen if window is None else [min(m, window - 1) for m in seen]
        back = torch.arange(-(max(seen) if n is None else n), 0, device=device)
        positions = torch.tensor([self.count[row] for row in rows], device=device)[:, None] + back
        return positions.masked_fill_(back < -torch.tensor(seen, device=device)[:, None], -1)

    def layer(self, i: int, rows: Sequence[int], index: Tensor | None, before: int | None) -> KVCache:
        """Returns what block i kept of `rows`, with the last positions before a call; None: the tape of all rows."""
        assert self.tape is not None
        keys, values = self.tape.layers[i] if before is None else self.last(i, rows, before)
        recent = self.recent[i] if self.recent else None
        recent = recent if recent is None or index is None else recent[index]
        return KVCache(keys, values, recent, self.folded[i] if self.folded else None)

    def last(self, layer: int, rows: Sequence[int], n: int) -> tuple[Tensor, Tensor]:
        """Returns keys and values [R, H, n, K] of the n positions before a call (anything where a row has fewer)."""
        assert self.tape is not None
        ends = [self.count[row] + self.tape.shift[row] for row in rows]
        tensors = self.tape.layers[layer]
        if len(rows) == len(self.count) and min(ends) == max(ends):
            return tensors[0][:, :, ends[0] - n : ends[0]], tensors[1][:, :, ends[0] - n : ends[0]]
        device = tensors[0].device
        slots = torch.tensor(ends, device=device)[:, None] + torch.arange(-n, 0, device=device)
        at = torch.tensor(rows, device=device)[:, None], slice(None), slots.clamp(min=0)
        keys, values = (tensor[at].transpose(1, 2) for tensor in tensors)
        return keys, values

    def extended(
        self,
        rows: Sequence[int],
        new: Sequence[int],  # [R] positions of this call
        begins: Sequence[int],  # [R] the last position of this call where a document begins, or -1
        layers: Sequence[KVCache],  # [R, H, N, K]
        window: int | None,
    ) -> StageCache:
        """Returns the cache with the new positions, and without those that no later one can see."""
        tape, count, begin = self._room(rows, new, window, layers), self.count.copy(), self.begin.copy()
        for i, (row, n) in enumerate(zip(rows, new, strict=True)):
            if begins[i] >= 0:
                begin[row] = count[row] + begins[i]
            count[row] += n
            tape.written[row], end = count[row], count[row] + tape.shift[row]
            m = n if window is None else min(n, window)
            for (keys, values), one in zip(tape.layers, layers, strict=True):
                keys[row, :, end - m : end] = one.keys[i, :, n - m : n]
                values[row, :, end - m : end] = one.values[i, :, n - m : n]
        return replace(self, count=count, begin=begin, tape=tape)

    def _room(self, rows: Sequence[int], new: Sequence[int], window: int | None, like: Sequence[KVCache] = ()) -> Tape:
        """Returns a tape that `rows` may be written to after the positions seen: this one, or where it is full, or has
        been written to from another state, a new one. like: the first keys and values [R, H, N, K]."""
        tape, count = self.tape, self.count
        if tape is not None and tape.writable:
            for row, n in zip(rows, new, strict=True):
                if tape.written[row] != count[row] or count[row] + n + tape.shift[row] > tape.size:
                    break
            else:
                return tape
        after = count.copy()
        for row, n in zip(rows, new, strict=True):
            after[row] += n
        most = max(after)
        end = most if window is None else min(most, window)  # all rows end in the same slot
        shift = [end - n for n in after]
        size = end + max(end, LEAST_ROOM)
        shapes = tape.layers if tape is not None else [(one.keys, one.values) for one in like]
        layers = [(_zeros(keys, len(count), size), _zeros(values, len(count), size)) for keys, values in shapes]
        if tape is not None:
            old, first = tape.shift, [max(a, -b, -c) for a, b, c in zip(self.begin, shift, tape.shift, strict=True)]
            for before, after_ in zip(tape.layers, layers, strict=True):
                for source, target in zip(before, after_, strict=True):
                    for row, (a, b) in enumerate(zip(first, count, strict=True)):
                        if a < b:
                            target[row, :, a + shift[row] : b + shift[row]] = source[
                                row, :, a + old[row] : b + old[row]
                            ]
        return Tape(layers, shift, count.copy())

    def _turned(
        self, positions: Sequence[int], head_dim: int, theta: float, dtype: torch.dtype, device: torch.device
    ) -> tuple[Rotation, StageCache]:
        """Returns the rotation of one position per row, and the cache with angles of the next ones."""
        low, high, turns = min(positions), max(positions), self.turns
        if turns is None or low < turns[0] or high >= turns[0] + turns[1].cos.shape[2] or turns[1].cos.dtype != dtype:
            if high - low > TURNS:
                apart = torch.tensor(positions, device=device)[:, None]
                return Rotation.at(apart, head_dim, theta, dtype), self
            at = torch.arange(low, high + TURNS, device=device)[None]
            turns = low, Rotation.at(at, head_dim, theta, dtype)
            self = replace(self, turns=turns)
        first, known = turns
        if low == high:
            return Rotation(known.cos.narrow(2, low - first, 1), known.sin.narrow(2, low - first, 1)), self
        at = torch.tensor(positions, device=device) - first
        return Rotation(known.cos[0, 0, at, None, None], known.sin[0, 0, at, None, None]), self


def _zeros(like: Tensor, batch: int, size: int) -> Tensor:
    """[B, H, C, K]; not empty, since what is masked is multiplied all the same."""
    return like.new_zeros(batch, like.shape[1], size, like.shape[3])


@dataclass(frozen=True)
class OpenUnit:
    """The unit that the last position of a stage lies in, and how far inside."""

    offset: Tensor  # [B]
    vector: Tensor | None = None  # [B, coarser width], None before the first
    counted: Tensor | None = None  # [B] boundaries so far, in the document or in the row, where units are capped
    hidden: Tensor | None = None  # [B, finer width] hidden state of the last position, for a learned splitter

    def of(self, index: Tensor | None) -> OpenUnit:
        """Returns the share of the rows `index` [R]; None: all."""
        if index is None:
            return self
        return OpenUnit(*(x[index] if x is not None else None for x in self._tensors()))  # type: ignore[arg-type]

    def put(self, index: Tensor | None, new: OpenUnit) -> OpenUnit:
        """Returns this with `new` in the rows `index` [R]; None: all."""
        if index is None:
            return new
        pairs = zip(self._tensors(), new._tensors(), strict=True)
        return OpenUnit(*(put(old, index, one, len(self.offset)) for old, one in pairs))  # type: ignore[arg-type]

    def anew(self, index: Tensor) -> OpenUnit:
        """Returns this with nothing in the rows `index` [R]."""
        return OpenUnit(*(x if x is None else x.index_fill(0, index, 0) for x in self._tensors()))  # type: ignore[arg-type]

    def where(self, some: Tensor, other: OpenUnit) -> OpenUnit:
        """Returns this in some rows, bool [B], and `other` in the others."""
        pairs = zip(self._tensors(), other._tensors(), strict=True)
        return OpenUnit(*(_where(some, a, b) for a, b in pairs))  # type: ignore[arg-type]

    def _tensors(self) -> tuple[Tensor | None, ...]:
        return self.offset, self.vector, self.counted, self.hidden


def _where(some: Tensor, a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return a if a is None or b is None else torch.where(some.view(-1, *[1] * (a.dim() - 1)), a, b)


def put(old: Tensor | None, index: Tensor | None, new: Tensor | None, batch: int) -> Tensor | None:
    """Returns old [B, …] (None: zeros) with new [R, …] in the rows `index` [R]; None: all."""
    if index is None or new is None:
        return new
    old = new.new_zeros(batch, *new.shape[1:]) if old is None else old
    return old.index_copy(0, index, new)


def _replaced(old: tuple[Track, ...], rows: Sequence[int], new: tuple[Track, ...]) -> tuple[Track, ...]:
    return tuple(new[row] if row in rows else track for row, track in enumerate(old))


@dataclass(frozen=True)
class StageState:
    """One stage's share of a state."""

    cache: StageCache
    unit: OpenUnit  # of the transition to the stage above; in the deepest stage, unused
    steppers: tuple[Track, ...] = ()  # one per row, of a rule above a learned splitter

    def of(self, index: Tensor | None) -> StageState:
        """Returns this with the open units of the rows `index` [R]; None: all."""
        return self if index is None else replace(self, unit=self.unit.of(index))


@dataclass(frozen=True)
class State:
    """A stream of B rows between two calls of the model. A call returns a new state; the old one stays valid."""

    stages: tuple[StageState, ...]
    stack: Stack | None = None
    steppers: tuple[Track, ...] = ()  # one per row, of the rules below a learned splitter
    recent: Tensor | None = None  # [B, C] last ids, where the embedding reads C before each
    refreshers: tuple[Track, ...] = ()  # one per row, where units are refreshed

    @classmethod
    def initial(
        cls, batch: int, device: torch.device, stack: Stack | None, folded: Sequence[tuple[Folded, ...]]
    ) -> State:
        """folded: of each stage's blocks, or () where there is none."""
        zeros = torch.zeros(batch, dtype=torch.long, device=device)

        def stage(s: int) -> StageState:
            rule = stack.rules[s] if stack is not None and stack.n_byte_rules <= s < stack.depth else None
            steppers = tuple(Track.of(rule.unit_stepper) for _ in range(batch)) if isinstance(rule, Splitter) else ()
            return StageState(StageCache.empty(batch, folded[s]), OpenUnit(zeros), steppers)

        first = tuple(Track.of(stack.stepper) for _ in range(batch)) if stack is not None else ()
        refreshes = stack.refreshes if stack is not None else None
        inside = tuple(Track.of(refreshes.stepper) for _ in range(batch)) if refreshes is not None else ()
        return cls(tuple(map(stage, range(len(folded)))), stack, first, refreshers=inside)

    @property
    def fresh(self) -> list[bool]:
        """[B] whether no id of a row has been read."""
        return self.stages[0].cache.fresh

    def anew(self, rows: Sequence[int]) -> State:
        """Returns the state in which `rows` have read nothing, as they are in the initial one; the others continue."""
        at = self.stages[0].unit.offset.new_tensor(rows)
        initial = State.initial(len(self.fresh), at.device, self.stack, [stage.cache.folded for stage in self.stages])

        def stage(old: StageState, new: StageState) -> StageState:
            return StageState(old.cache.anew(rows, at), old.unit.anew(at), _replaced(old.steppers, rows, new.steppers))

        return replace(
            self,
            stages=tuple(stage(*pair) for pair in zip(self.stages, initial.stages, strict=True)),
            steppers=_replaced(self.steppers, rows, initial.steppers),
            recent=None if self.recent is None else self.recent.index_fill(0, at, NOTHING),
            refreshers=_replaced(self.refreshers, rows, initial.refreshers),
        )

    def rewind(self) -> None:
        """Lets the stream go on from here in place of where it has gone: states after this one are no longer valid, and
        what they have written makes room."""
        for stage in self.stages:
            if stage.cache.tape is not None:
                stage.cache.tape.written[:] = stage.cache.count

    def step_levels(self, ids: list[list[int]], rows: Sequence[int]) -> tuple[list[list[int]], tuple[Track, ...]]:
        """Pushes ids [R, N] through the steppers of `rows`; returns levels [R, N] and all steppers after.

        BOS begins a document, at the highest level and with a fresh stepper; EOS has level 0.
        Raises ValueError if the state was made without a stack.
        """
        if self.stack is None:
            raise ValueError("levels are missing: pass them, or make the state with the splitters' stack")
        depth = self.stack.depth
        found, steppers = read(self.steppers, rows, [[(id_,) for id_ in row] for row in ids])
        pairs = (zip(*one, strict=True) for one in zip(ids, found, strict=True))
        return [[depth if id_ == BOS else level for id_, level in row] for row in pairs], steppers

    def step_refreshes(self, ids: list[list[int]], rows: Sequence[int]) -> tuple[list[list[bool]], tuple[Track, ...]]:
        """The same for the bytes that refresh their unit, where the stack has such."""
        found, refreshers = read(self.refreshers, rows, [[(id_,) for id_ in row] for row in ids])
        return [[bool(one) for one in row] for row in found], refreshers
