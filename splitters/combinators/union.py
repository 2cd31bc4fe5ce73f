"""The boundaries of several rules together."""

from collections.abc import Sequence
from functools import reduce

import numpy as np

from splitters.contract import Splitter, Stepper
from splitters.registry import Spec, register, resolve_part


@register("union")
class Union(Splitter):
    """A boundary wherever any of the splitters `of` has one."""

    source = "combinator"

    def __init__(self, of: Sequence[Spec] = ("whitespace", "sentence_end")) -> None:
        if not isinstance(of, Sequence) or isinstance(of, str) or not of:
            raise ValueError(f"union: of is {of!r}, it must be a list of splitters, for example [whitespace, fixed]")
        self.of = [resolve_part("union", spec) for spec in of]

    def split(self, data: bytes) -> np.ndarray:
        return reduce(np.logical_or, (splitter.split(data) for splitter in self.of))

    def stepper(self) -> Stepper:
        return _UnionStepper([splitter.stepper() for splitter in self.of])


class _UnionStepper(Stepper):
    def __init__(self, of: list[Stepper]) -> None:
        self.of = of

    def push(self, byte: int) -> bool:
        fires = False
        for stepper in self.of:  # each sees every byte
            fires |= stepper.push(byte)
        return fires
