"""Where a boundary is read: on the last byte of the character that decides it, or on the first byte of the next one.

Both are the same cut between two characters. One byte later, a lead byte has told that another character begins, and
the pooled vector has read it too.
"""

from typing import Literal

import numpy as np

from splitters.contract import Splitter, Stepper, one_of


def aligned(name: str, rule: Splitter, align: Literal["last", "first"] = "last") -> Splitter:
    """Returns the rule `name`, which decides on last bytes of characters, with boundaries there or on the next byte.

    Raises ValueError for any other `align`.
    """
    return AtNextByte(rule) if one_of(name, "align", align, ("last", "first")) == "first" else rule


class AtNextByte(Splitter):
    """A rule whose boundaries move to the byte after, whatever that is. One on the last byte of a text is not read."""

    def __init__(self, rule: Splitter) -> None:
        self.rule, self.counts = rule, rule.counts

    def split(self, data: bytes) -> np.ndarray:
        return np.concatenate([[False], self.rule.split(data)])[: len(data)]

    def stepper(self) -> Stepper:
        return _NextByteStepper(self.rule.stepper())


class _NextByteStepper(Stepper):
    def __init__(self, rule: Stepper) -> None:
        self.rule, self.fired = rule, False

    def push(self, byte: int) -> bool:
        fires, self.fired = self.fired, self.rule.push(byte)
        return fires
