"""A stack of splitters, one per stage transition: from their boundaries to levels."""

import hashlib
from collections.abc import Sequence

import numpy as np

from splitters.contract import LearnedSplitter, Splitter, Stepper, Teacher, UnitStepper
from splitters.edge_texts import LONGEST, long_texts, short_texts
from splitters.registry import AnySplitter, Spec, resolve


class Stack:
    """One splitter per stage transition. The first places boundaries on bytes; each one above selects among the
    boundaries of the one below (`Splitter.select`), so levels nest.

    A learned splitter, and every rule above it, needs the model: `levels` and `stepper` cover only the rules below
    the first learned splitter (`byte_rules`).

    `rules`: names, `{name: …, option: …}` mappings, or objects. An empty stack belongs to a model of one
    stage: every level is 0. Raises ValueError for an unknown rule, and for one above the first that refreshes units.
    """

    def __init__(self, rules: Sequence[Spec]) -> None:
        self.rules: list[AnySplitter] = [resolve(rule) for rule in rules]
        self.learned = {s: rule for s, rule in enumerate(self.rules) if isinstance(rule, LearnedSplitter)}
        self.n_byte_rules = min(self.learned, default=self.depth)  # rules below the first learned splitter
        self.byte_rules: list[Splitter] = [r for r in self.rules[: self.n_byte_rules] if isinstance(r, Splitter)]
        self._fingerprint: str | None = None  # computed once: every checkpoint holds it
        if any(isinstance(rule, Splitter) and rule.refreshes is not None for rule in self.rules[1:]):
            raise ValueError(
                "upper_splitters: refresh makes anew the vectors of units of bytes, so it is the splitter between "
                "bytes and stage 2: name it as splitter"
            )

    @property
    def depth(self) -> int:
        """The number of stage transitions, which is the highest level."""
        return len(self.rules)

    @property
    def refreshes(self) -> Splitter | None:
        """What says at which bytes the vector of a unit of stage 2 is made anew, if it is."""
        return self.byte_rules[0].refreshes if self.byte_rules else None

    @property
    def teachers(self) -> dict[int, Splitter | Teacher]:
        """The teachers of learned splitters, by transition. Raises ValueError where one cannot be built."""
        return {s: rule.teacher for s, rule in self.learned.items() if rule.teacher is not None}

    def fingerprint(self) -> str:
        """Returns a digest of the levels (and refreshes) on the shared edge texts. It changes where a vocabulary file,
        the code of a plug-in, or the Unicode version of `regex` moves a boundary."""
        if self._fingerprint is not None:
            return self._fingerprint
        digest = hashlib.sha256(b"".join(rule.identity() for rule in self.rules if isinstance(rule, Splitter)))
        if not any(rule.needs_model() for rule in self.byte_rules):  # slow, and their identity suffices
            for name, data in (short_texts() | long_texts()).items():
                if name != LONGEST:
                    digest.update(self.levels(data).tobytes())
                    digest.update(self.refreshes.split(data).tobytes() if self.refreshes is not None else b"")
        self._fingerprint = digest.hexdigest()[:16]
        return self._fingerprint

    def levels(self, data: bytes) -> np.ndarray:
        """Returns uint8 [len(data)]: per byte, how many stages up its vector goes by `byte_rules`."""
        levels = np.zeros(len(data), dtype=np.uint8)
        units = None
        for rule in self.byte_rules:
            units = rule.split(data) if units is None else rule.select(data, units)
            levels += units
        return levels

    def stepper(self) -> "LevelStepper":
        """Returns a fresh stepper whose `push(byte)` returns the level of that byte, as in `levels`."""
        first = self.byte_rules[0].stepper() if self.byte_rules else None
        return LevelStepper(first, [rule.unit_stepper() for rule in self.byte_rules[1:]])


class LevelStepper:
    """The state of a stack within one text."""

    def __init__(self, first: Stepper | None, upper: list[UnitStepper]) -> None:
        self.first, self.upper = first, upper

    def push(self, byte: int) -> int:
        """Takes the next byte (0–255) and returns its level."""
        if self.first is None:
            return 0
        unit = self.first.push(byte)
        level = int(unit)
        for stepper in self.upper:  # every rule sees every byte, even at level 0
            unit = stepper.push(byte, unit)
            level += unit
        return level
