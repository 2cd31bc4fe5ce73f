"""What combinators share that group units: of another splitter, or of the stage below."""

from abc import abstractmethod

import numpy as np

from splitters.contract import Splitter, Stepper, UnitStepper
from splitters.registry import Spec, resolve_part


class Grouping(Splitter):
    """Keeps some boundaries of the splitter `of`, or without `of` some of the stage below (of bytes, if there is none).

    A subclass defines `group`, which picks among boundaries, and `group_stepper`, which does so byte by byte.
    """

    def __init__(self, name: str, of: Spec | None) -> None:
        self.of = None if of is None else resolve_part(name, of)
        self.groups_units = of is None

    @abstractmethod
    def group(self, data: bytes, units: np.ndarray) -> np.ndarray:
        """Returns bool [len(data)], True at the kept ones of the boundaries `units` (bool [len(data)])."""

    @abstractmethod
    def group_stepper(self) -> UnitStepper:
        """Returns the stepper of `group`, at the beginning of a text."""

    def split(self, data: bytes) -> np.ndarray:
        return self.group(data, np.ones(len(data), bool) if self.of is None else self.of.split(data))

    def stepper(self) -> Stepper:
        return _OfStepper(None if self.of is None else self.of.stepper(), self.group_stepper())

    def select(self, data: bytes, units: np.ndarray) -> np.ndarray:
        return self.group(data, units) if self.of is None else super().select(data, units)

    def unit_stepper(self) -> UnitStepper:
        return self.group_stepper() if self.of is None else super().unit_stepper()


class _OfStepper(Stepper):
    def __init__(self, of: Stepper | None, group: UnitStepper) -> None:
        self.of, self.group = of, group

    def push(self, byte: int) -> bool:
        return self.group.push(byte, True if self.of is None else self.of.push(byte))
