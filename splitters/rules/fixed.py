"""Units of one size: the control that ignores language (MegaByte, arXiv 2305.07185)."""

from typing import Literal

import numpy as np

from splitters.contract import Knob, Splitter, Stepper, one_of, positive
from splitters.engine.align import AtNextByte, aligned
from splitters.engine.automaton import CharacterRule
from splitters.engine.characters import INVALID
from splitters.registry import register


@register("fixed")
class Fixed(Splitter):
    """A boundary at every `n`-th byte, or at the last byte of every `n`-th character.

    With `closes: next` it falls on the byte or character after, the first of the next group. `align` is of characters.
    An invalid byte sequence counts as one character, but carries no boundary.
    """

    source = "MegaByte, arXiv 2305.07185"
    knob = Knob("n", 1, 4096)
    counts = True

    def __init__(
        self,
        n: int = 4,
        of: Literal["bytes", "characters"] = "bytes",
        closes: Literal["full", "next"] = "full",
        align: Literal["last", "first"] = "last",
    ) -> None:
        self.of = one_of("fixed", "of", of, ("bytes", "characters"))
        self.n = positive("fixed", "n", n, most=1_000_000_000 if of == "bytes" else 10_000)
        full = one_of("fixed", "closes", closes, ("full", "next")) == "full"
        if of == "characters":
            self.rule = aligned("fixed", _EveryCharacter(n, full), align)
        elif one_of("fixed", "align", align, ("last", "first")) == "first":
            raise ValueError("fixed: align is 'first', which is of characters: set of: characters, or closes: next")
        else:
            self.rule = _EveryByte(n) if full else AtNextByte(_EveryByte(n))

    def split(self, data: bytes) -> np.ndarray:
        return self.rule.split(data)

    def stepper(self) -> Stepper:
        return self.rule.stepper()


class _EveryByte(Splitter):
    def __init__(self, n: int) -> None:
        self.n = n

    def split(self, data: bytes) -> np.ndarray:
        fires = np.zeros(len(data), bool)
        fires[self.n - 1 :: self.n] = True
        return fires

    def stepper(self) -> Stepper:
        return _ByteCounter(self.n)


class _ByteCounter(Stepper):
    def __init__(self, n: int) -> None:
        self.n, self.seen = n, 0

    def push(self, byte: int) -> bool:
        self.seen += 1
        return self.seen % self.n == 0


class _EveryCharacter(CharacterRule):
    classes = ()
    start = 0  # characters of the group so far

    def __init__(self, n: int, full: bool) -> None:
        self.after = 0 if full else 1  # characters of the next group, after a boundary
        self.most = n - 1 + self.after

    def step(self, state, kind):
        if kind == INVALID:
            return min(state + 1, self.most), False
        fires = state == self.most
        return self.after if fires else state + 1, fires
