"""Splitters one above the other: from the boundaries of each stage transition to levels."""

import hashlib
from collections.abc import Sequence

import numpy as np

from splitters.contract import LearnedSplitter, Splitter, Stepper, UnitStepper
from splitters.edge_texts import LONGEST, long_texts, short_texts
from splitters.registry import AnySplitter, Spec, resolve


class Stack:
    """One splitter per stage transition: the first places boundaries on bytes, each one above it picks among
    the boundaries of the one below (`Splitter.select`), so levels nest.

    Where one is learned, only the rules below it are known from bytes: `levels` and `stepper` give theirs,
    and the model does the rest.

    `rules`: names, `{name: …, option: …}` mappings, or objects. An empty stack belongs to a model of one
    stage: every level is 0. Raises ValueError where a rule is unknown.
    """

    def __init__(self, rules: Sequence[Spec]) -> None:
        self.rules: list[AnySplitter] = [resolve(rule) for rule in rules]
        self.learned = {s: rule for s, rule in enumerate(self.rules) if isinstance(rule, LearnedSplitter)}
        self.n_below = min(self.learned, default=self.depth)  # rules below the first learned splitter
        self.below: list[Splitter] = [rule for rule in self.rules[: self.n_below] if isinstance(rule, Splitter)]
        self._fingerprint: str | None = None  # made once, as every checkpoint holds it

    @property
    def depth(self) -> int:
        """The number of stage transitions, which is the highest level."""
        return len(self.rules)

    def rule(self, s: int) -> Splitter:
        """Returns the splitter of transition s (0: from bytes). Raises TypeError if it is learned."""
        rule = self.rules[s]
        if not isinstance(rule, Splitter):
            raise TypeError(f"{type(rule).__name__} is a learned splitter: it has no split")
        return rule

    def fingerprint(self) -> str:
        """Returns a digest of the levels on the shared edge texts: it changes with a vocabulary file, with the code of
        a plug-in, or with the Unicode version of `regex`, where these move a boundary."""
        if self._fingerprint is not None:
            return self._fingerprint
        digest = hashlib.sha256(b"".join(rule.identity() for rule in self.rules if isinstance(rule, Splitter)))
        if not any(rule.needs_model() for rule in self.below):  # their identity will do
            for name, data in (short_texts() | long_texts()).items():
                if name != LONGEST:
                    digest.update(self.levels(data).tobytes())
        self._fingerprint = digest.hexdigest()[:16]
        return self._fingerprint

    def levels(self, data: bytes) -> np.ndarray:
        """Returns uint8 [len(data)]: per byte, how many stages up its vector goes by the rules below the first
        learned splitter."""
        levels = np.zeros(len(data), dtype=np.uint8)
        units = None
        for rule in self.below:
            units = rule.split(data) if units is None else rule.select(data, units)
            levels += units
        return levels

    def stepper(self) -> "LevelStepper":
        """Returns a fresh stepper whose `push(byte)` gives the level of that byte, as `levels` does."""
        return LevelStepper(
            self.below[0].stepper() if self.below else None, [rule.unit_stepper() for rule in self.below[1:]]
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
