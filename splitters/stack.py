"""Splitters one above the other: from the boundaries of each stage transition to levels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from splitters.contract import Splitter, Stepper, SubsequentUnits, UnitRule, UnitStepper
from splitters.registry import resolve


class Stack:
    """One rule per stage transition: `first` places boundaries on bytes, each rule above it picks among
    the boundaries of the rule below.

    `rules`: names, `{name: …, option: …}` mappings, or objects. A byte splitter above the first place
    has its boundaries deferred to the next unit below (`contract.SubsequentUnits`), so levels nest.
    An empty stack belongs to a model of one stage: every level is 0.
    Raises ValueError where a rule is unknown, or a unit rule (such as `every`) stands first.
    """

    def __init__(self, rules: Sequence[str | Mapping[str, Any] | Splitter | UnitRule]) -> None:
        built = [resolve(rule) for rule in rules]
        if built and not isinstance(built[0], Splitter):
            raise ValueError(
                f"splitter {rules[0]!r} groups units, so it cannot be the first rule: put a splitter below it"
            )
        self.first: Splitter | None = built[0] if built else None
        self.upper: list[UnitRule] = [
            SubsequentUnits(rule) if isinstance(rule, Splitter) else rule for rule in built[1:]
        ]

    @property
    def depth(self) -> int:
        """The number of stage transitions, which is the highest level."""
        return len(self.upper) + (self.first is not None)

    def levels(self, data: bytes) -> np.ndarray:
        """Returns uint8 [len(data)]: per byte, how many stages up its vector goes."""
        levels = np.zeros(len(data), dtype=np.uint8)
        if self.first is None:
            return levels
        units = self.first.split(data)
        levels += units
        for rule in self.upper:
            units = rule.select(data, units)
            levels += units
        return levels

    def stepper(self) -> "LevelStepper":
        """Returns a fresh stepper whose `push(byte)` gives the level of that byte."""
        return LevelStepper(
            self.first.stepper() if self.first is not None else None, [rule.stepper() for rule in self.upper]
        )


class LevelStepper:
    """A stack in the middle of one text."""

    def __init__(self, first: Stepper | None, upper: list[UnitStepper]) -> None:
        self.first, self.upper = first, upper

    def push(self, byte: int) -> int:
        """Takes the next byte (0–255) and returns its level."""
        if self.first is None:
            return 0
        unit = self.first.push(byte)
        level = int(unit)
        for stepper in self.upper:  # every rule sees every byte, also where the level is 0
            unit = stepper.push(byte, unit)
            level += unit
        return level
