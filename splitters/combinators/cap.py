"""A limit on the length of units, for models with few offsets and text without boundaries."""

import numpy as np

from splitters.contract import Knob, Splitter, Stepper, positive
from splitters.registry import Spec, register, resolve_part


@register("cap")
class Cap(Splitter):
    """The boundaries of the splitter `of`, plus one wherever a unit would exceed `max_bytes` bytes.

    The limit is strict, so such a boundary can fall inside a character.
    """

    source = "combinator"
    knob = Knob("max_bytes", 1, 4096)

    def __init__(self, of: Spec = "whitespace", max_bytes: int = 64) -> None:
        self.of = resolve_part("cap", of)
        self.max_bytes = positive("cap", "max_bytes", max_bytes)

    def split(self, data: bytes) -> np.ndarray:
        fires = self.of.split(data)
        begins = np.concatenate([[-1], np.flatnonzero(fires)])  # a text begins as if after a boundary
        added = (np.diff(begins, append=len(data)) - 1) // self.max_bytes  # in each unit
        which = np.repeat(np.arange(len(begins)), added)
        number = np.arange(len(which)) - np.repeat(np.cumsum(added) - added, added) + 1  # 1, 2, … in its unit
        capped = fires.copy()
        capped[begins[which] + number * self.max_bytes] = True
        return capped

    def stepper(self) -> Stepper:
        return _CapStepper(self.of.stepper(), self.max_bytes)


class _CapStepper(Stepper):
    def __init__(self, of: Stepper, max_bytes: int) -> None:
        self.of, self.max_bytes, self.length = of, max_bytes, 0

    def push(self, byte: int) -> bool:
        self.length += 1
        fires = self.of.push(byte) or self.length == self.max_bytes
        if fires:
            self.length = 0
        return fires
