"""Units of one size: the control that ignores language (MegaByte, arXiv 2305.07185)."""

from typing import Literal

import numpy as np

from splitters.contract import Splitter, Stepper, one_of, positive
from splitters.engine.automaton import CharacterRule
from splitters.engine.characters import INVALID
from splitters.registry import register


@register("fixed")
class Fixed(Splitter):
    """A boundary at every `n`-th byte, or at the last byte of every `n`-th character.

    An invalid byte sequence counts as one character, but carries no boundary.
    """

    source = "MegaByte, arXiv 2305.07185"
    counts = True

    def __init__(self, n: int = 4, of: Literal["bytes", "characters"] = "bytes") -> None:
        self.of = one_of("fixed", "of", of, ("bytes", "characters"))
        self.n = positive("fixed", "n", n, most=1_000_000_000 if of == "bytes" else 10_000)
        self.characters = _EveryCharacter(n) if of == "characters" else None

    def split(self, data: bytes) -> np.ndarray:
        if self.characters:
            return self.characters.split(data)
        fires = np.zeros(len(data), bool)
        fires[self.n - 1 :: self.n] = True
        return fires

    def stepper(self) -> Stepper:
        return self.characters.stepper() if self.characters else _ByteCounter(self.n)


class _ByteCounter(Stepper):
    def __init__(self, n: int) -> None:
        self.n, self.seen = n, 0

    def push(self, byte: int) -> bool:
        self.seen += 1
        return self.seen % self.n == 0


class _EveryCharacter(CharacterRule):
    classes = ()
    start = 0

    def __init__(self, n: int) -> None:
        self.n = n

    def step(self, state, kind):
        if kind == INVALID:
            return min(state + 1, self.n - 1), False
        return (state + 1) % self.n, state + 1 == self.n
