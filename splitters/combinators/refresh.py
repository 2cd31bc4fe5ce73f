"""Refreshes inside units: bytes at which a unit's vector is made anew from the bytes read so far."""

import itertools

import numpy as np

from splitters.contract import Splitter, Stepper
from splitters.registry import Spec, register, resolve_part


@register("refresh")
class Refresh(Splitter):
    """The boundaries of the splitter `of`; inside its units, each boundary of `by` makes the unit's vector anew.

    A `by` that counts (`fixed`) counts from the boundary before; any other reads the text as it is. Units, and what
    later units see, stay those of `of`. It stands alone between bytes and stage 2.
    """

    source = "Scratchpad Patching, arXiv 2605.09630"

    def __init__(self, of: Spec = "whitespace", by: Spec = "fixed") -> None:
        self.of = resolve_part("refresh", of)
        self.refreshes = Inside(self.of, resolve_part("refresh", by))

    def split(self, data: bytes) -> np.ndarray:
        return self.of.split(data)

    def stepper(self) -> Stepper:
        return self.of.stepper()


class Inside(Splitter):
    """The boundaries of `by` on bytes that carry none of `of`."""

    def __init__(self, of: Splitter, by: Splitter) -> None:
        self.of, self.by = of, by

    def split(self, data: bytes) -> np.ndarray:
        begins = self.of.split(data)
        if not self.by.counts:
            return self.by.split(data) & ~begins
        fires = np.zeros(len(data), bool)
        for begin, end in itertools.pairwise([0, *(np.flatnonzero(begins) + 1).tolist(), len(data)]):
            fires[begin:end] = self.by.split(data[begin:end])
        return fires & ~begins

    def stepper(self) -> Stepper:
        return _InsideStepper(self.of.stepper(), self.by)


class _InsideStepper(Stepper):
    def __init__(self, of: Stepper, splitter: Splitter) -> None:
        self.of, self.splitter, self.by = of, splitter, splitter.stepper()

    def push(self, byte: int) -> bool:
        fires = self.by.push(byte)
        if not self.of.push(byte):
            return fires
        if self.splitter.counts:
            self.by = self.splitter.stepper()
        return False
