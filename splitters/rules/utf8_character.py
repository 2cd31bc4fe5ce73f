"""Every character: the control for rules that group characters."""

import numpy as np

from splitters.contract import Splitter, Stepper, UnitStepper
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
