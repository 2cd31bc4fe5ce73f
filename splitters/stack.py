"""Splitters one above the other: from the boundaries of each stage transition to levels."""

import hashlib
from collections.abc import Sequence

import numpy as np

from splitters.contract import Splitter, Stepper, UnitStepper
from splitters.edge_texts import LONGEST, long_texts, short_texts
from splitters.registry import Spec, resolve


class Stack:
    """One splitter per stage transition: the first places boundaries on bytes, each one above it picks among
    the boundaries of the one below (`Splitter.select`), so levels nest.

    `rules`: names, `{name: …, option: …}` mappings, or objects. An empty stack belongs to a model of one
    stage: every level is 0. Raises ValueError where a rule is unknown.
    """

    def __init__(self, rules: Sequence[Spec]) -> None:
        self.rules: list[Splitter] = [resolve(rule) for rule in rules]
        self._fingerprint: str | None = None  # made once, as every checkpoint holds it

    @property
    def depth(self) -> int:
        """The number of stage transitions, which is the highest level."""
        return len(self.rules)

    def fingerprint(self) -> str:
        """Returns a digest of the levels on the shared edge texts: it changes with a vocabulary file, with the code of
        a plug-in, or with the Unicode version of `regex`, where these move a boundary."""
        if self._fingerprint is not None:
            return self._fingerprint
        digest = hashlib.sha256(b"".join(rule.identity() for rule in self.rules))
        for name, data in (short_texts() | long_texts()).items():
            if name != LONGEST:
                digest.update(self.levels(data).tobytes())
        self._fingerprint = digest.hexdigest()[:16]
        return self._fingerprint

    def levels(self, data: bytes) -> np.ndarray:
        """Returns uint8 [len(data)]: per byte, how many stages up its vector goes."""
        levels = np.zeros(len(data), dtype=np.uint8)
        units = None
        for rule in self.rules:
            units = rule.split(data) if units is None else rule.select(data, units)
            levels += units
        return levels

    def stepper(self) -> "LevelStepper":
        """Returns a fresh stepper whose `push(byte)` gives the level of that byte."""
        return LevelStepper(
            self.rules[0].stepper() if self.rules else None, [rule.unit_stepper() for rule in self.rules[1:]]
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
