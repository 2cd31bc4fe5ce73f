"""Every character: the control for rules that group characters."""

import numpy as np

from splitters.contract import Splitter, Stepper, UnitStepper, one_of
from splitters.engine.align import aligned
from splitters.engine.automaton import CharacterRule
from splitters.engine.characters import INVALID
from splitters.registry import register


@register("utf8_character")
class Utf8Character(CharacterRule):
    """A boundary at the last byte of every character. Invalid bytes carry none."""

    source = "flat characters, as a control"
    classes = ()
    start = None

    def step(self, state, kind):
        return None, kind != INVALID


def align_bytes(name: str, rule: Splitter, align: str) -> Splitter:
    """Returns a rule over bytes as `align` says: with each boundary on the `byte` where it falls, on the `last` byte of
    that character, or on the `first` byte of the next one.

    `character` is an earlier word for `last`. Raises ValueError for any other.
    """
    one_of(name, "align", "last" if align == "character" else align, ("byte", "last", "first"))
    return rule if align == "byte" else aligned(name, AtLastByte(rule), "first" if align == "first" else "last")


class AtLastByte(Splitter):
    """A rule over bytes whose boundaries move to the last byte of the character they fall in."""

    def __init__(self, rule: Splitter) -> None:
        self.rule, self.characters = rule, Utf8Character()

    def split(self, data: bytes) -> np.ndarray:
        return self.rule.select(data, self.characters.split(data))

    def stepper(self) -> Stepper:
        return _AtLastByteStepper(self.rule.unit_stepper(), self.characters.stepper())


class _AtLastByteStepper(Stepper):
    def __init__(self, rule: UnitStepper, characters: Stepper) -> None:
        self.rule, self.characters = rule, characters

    def push(self, byte: int) -> bool:
        return self.rule.push(byte, self.characters.push(byte))
