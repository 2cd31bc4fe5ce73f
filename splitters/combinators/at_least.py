"""Short units merged with the next ones, so that units have a wanted length."""

import numpy as np

from splitters.combinators.grouping import Grouping
from splitters.contract import Knob, UnitStepper, flag, positive
from splitters.engine.compiled import compiled, keep_at_least
from splitters.registry import Spec, register


@register("at_least")
class AtLeast(Grouping):
    """Those boundaries of the splitter `of`, or of the stage below, that leave units of at least `bytes` bytes.

    With `mean`, the units so far have at least `bytes` bytes in the mean: where one is longer, later ones may be
    shorter. So a text with boundaries enough gets `bytes` bytes per unit. Lengths are counted from boundary to
    boundary, and a text begins as if after one.
    """

    source = "merging of short units, as Bolmo merges tokens (arXiv 2512.15586), without its look ahead"
    knob = Knob("bytes", 1, 4096)

    def __init__(self, bytes: int = 8, mean: bool = False, of: Spec | None = None) -> None:
        super().__init__("at_least", of)
        self.bytes = positive("at_least", "bytes", bytes)
        self.mean = flag("at_least", "mean", mean)

    def group(self, data: bytes, units: np.ndarray) -> np.ndarray:
        return compiled(keep_at_least)(units, self.bytes, self.mean)

    def group_stepper(self) -> UnitStepper:
        return _AtLeastStepper(self.bytes, self.mean)


class _AtLeastStepper(UnitStepper):
    def __init__(self, least: int, mean: bool) -> None:
        self.least, self.mean = least, mean
        self.length = 0  # of the open unit, or of all text less `least` for each unit

    def push(self, byte: int, unit: bool) -> bool:
        self.length += 1
        fires = unit and self.length >= self.least
        if fires:
            self.length = self.length - self.least if self.mean else 0
        return fires
