"""A restart at line ends or other boundaries, so that no unit crosses them."""

import numpy as np

from splitters.contract import Splitter, Stepper
from splitters.registry import Spec, register, resolve_part
from splitters.rules.whitespace import LINE_BREAK

LINE_ENDS = {"name": "pattern", "patterns": LINE_BREAK}


@register("reset_at")
class ResetAt(Splitter):
    """A boundary at each boundary of `at` (default: line ends), after which the splitter `of` restarts."""

    source = "combinator"

    def __init__(self, of: Spec = "fixed", at: Spec | None = None) -> None:
        self.of = resolve_part("reset_at", of)
        self.at = resolve_part("reset_at", LINE_ENDS if at is None else at)

    def split(self, data: bytes) -> np.ndarray:
        fires = self.at.split(data).copy()
        begin = 0
        for end in [*(np.flatnonzero(fires) + 1).tolist(), len(data)]:
            fires[begin:end] |= self.of.split(data[begin:end])
            begin = end
        return fires

    def stepper(self) -> Stepper:
        return _ResetStepper(self.of, self.at.stepper())


class _ResetStepper(Stepper):
    def __init__(self, of: Splitter, at: Stepper) -> None:
        self.splitter, self.at, self.of = of, at, of.stepper()

    def push(self, byte: int) -> bool:
        fires = self.of.push(byte)
        if self.at.push(byte):
            self.of = self.splitter.stepper()
            return True
        return fires
