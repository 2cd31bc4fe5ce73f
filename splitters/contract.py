"""The contract of a splitter: one method for a whole text, one for a text that arrives byte by byte.

A boundary at byte `t` is decided from bytes `<= t`. The two methods must agree on every text,
valid UTF-8 or not; `splitters.check` tests that, and refuses a rule that peeks.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable

import numpy as np


class Stepper(ABC):
    """A splitter in the middle of one text. It must survive `copy.deepcopy`."""

    @abstractmethod
    def push(self, byte: int) -> bool:
        """Takes the next byte (0–255) and returns whether a boundary falls on it."""


class Splitter(ABC):
    """Places boundaries on bytes: the rule between stage 1 and stage 2."""

    @abstractmethod
    def split(self, data: bytes) -> np.ndarray:
        """Returns a bool array [len(data)], True where a boundary falls. Never raises on any bytes."""

    @abstractmethod
    def stepper(self) -> Stepper:
        """Returns a fresh stepper, at the beginning of a text."""


class UnitStepper(ABC):
    """A unit rule in the middle of one text. It must survive `copy.deepcopy`."""

    @abstractmethod
    def push(self, byte: int, unit: bool) -> bool:
        """Takes the next byte and whether a unit of the stage below ends its wait there."""


class UnitRule(ABC):
    """Picks boundaries among those of the stage below: the rule between stage 2 and stage 3, and above."""

    @abstractmethod
    def select(self, data: bytes, units: np.ndarray) -> np.ndarray:
        """Returns a bool array [len(data)], True only where `units` (bool, [len(data)]) is."""

    @abstractmethod
    def stepper(self) -> UnitStepper:
        """Returns a fresh stepper, at the beginning of a text."""


class SubsequentUnits(UnitRule):
    """A byte splitter used above the first transition: its boundary waits for the next unit below.

    Where the splitter fires on a byte that ends no unit below, the boundary is deferred to the first
    one that does, so that nothing is dropped and levels nest.
    """

    def __init__(self, splitter: Splitter) -> None:
        self.splitter = splitter

    def select(self, data: bytes, units: np.ndarray) -> np.ndarray:
        return _defer(self.splitter.split(data), units)

    def stepper(self) -> UnitStepper:
        return _DeferringStepper(self.splitter.stepper())


def _defer(fires: np.ndarray, units: np.ndarray) -> np.ndarray:
    """True at each unit with at least one firing since the unit before it, itself included."""
    selected = np.zeros(len(units), dtype=bool)
    ends = np.flatnonzero(units)
    fired = np.concatenate([[0], np.cumsum(fires)[ends]])
    selected[ends] = np.diff(fired) > 0
    return selected


class _DeferringStepper(UnitStepper):
    def __init__(self, stepper: Stepper) -> None:
        self.below = stepper
        self.pending = False

    def push(self, byte: int, unit: bool) -> bool:
        self.pending |= self.below.push(byte)
        fires, self.pending = self.pending and unit, self.pending and not unit
        return fires


def positive(rule: str, option: str, value: int) -> int:
    """Returns value if it is a whole number above 0, and raises ValueError naming rule and option otherwise."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{rule}: {option} is {value!r}, it must be a whole number, 1 or more")
    return value


def push_all(stepper: Stepper, data: Iterable[int]) -> np.ndarray:
    """Steps through `data` and returns what each push gave, uint8 [len(data)]."""
    return np.array([stepper.push(byte) for byte in data], dtype=np.uint8)
