"""A limit on the length of units, for models with few offsets and text without boundaries."""

from typing import Literal

import numpy as np

from splitters.contract import Knob, Splitter, Stepper, one_of, positive
from splitters.engine.compiled import compiled, cut_characters
from splitters.registry import Spec, register, resolve_part
from splitters.rules.utf8_character import Utf8Character

LONGEST_CHARACTER = 4  # bytes


@register("cap")
class Cap(Splitter):
    """The boundaries of the splitter `of`, plus one wherever a unit would exceed `max_bytes` bytes.

    The limit is strict, so such a boundary can fall inside a character. With `align: last` it falls on the last
    byte of the character that would be too much, and the unit is cut before that character. (So HAT limits words. Bytes
    of no character count as part of the character after them.)
    """

    source = "combinator"
    knob = Knob("max_bytes", 1, 4096)

    def __init__(self, of: Spec = "whitespace", max_bytes: int = 64, align: Literal["byte", "last"] = "byte") -> None:
        self.of = resolve_part("cap", of)
        self.max_bytes = positive("cap", "max_bytes", max_bytes)
        self.characters = Utf8Character() if one_of("cap", "align", align, ("byte", "last")) != "byte" else None
        if self.characters and max_bytes < LONGEST_CHARACTER:
            raise ValueError(f"cap: max_bytes is {max_bytes}, it must be {LONGEST_CHARACTER} or more with align 'last'")

    def split(self, data: bytes) -> np.ndarray:
        fires = self.of.split(data)
        if self.characters:
            return compiled(cut_characters)(fires, self.characters.split(data), self.max_bytes)
        begins = np.concatenate([[-1], np.flatnonzero(fires)])  # a text begins as if after a boundary
        added = (np.diff(begins, append=len(data)) - 1) // self.max_bytes  # in each unit
        which = np.repeat(np.arange(len(begins)), added)
        number = np.arange(len(which)) - np.repeat(np.cumsum(added) - added, added) + 1  # 1, 2, … in its unit
        capped = fires.copy()
        capped[begins[which] + number * self.max_bytes] = True
        return capped

    def stepper(self) -> Stepper:
        if self.characters:
            return _CharacterCapStepper(self.of.stepper(), self.characters.stepper(), self.max_bytes)
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


class _CharacterCapStepper(Stepper):
    def __init__(self, of: Stepper, characters: Stepper, max_bytes: int) -> None:
        self.of, self.characters, self.max_bytes = of, characters, max_bytes
        self.length = self.size = 0  # of the open unit and of the character

    def push(self, byte: int) -> bool:
        fires, ends = self.of.push(byte), self.characters.push(byte)
        self.size += 1
        if ends:
            fires |= self.length + self.size > self.max_bytes
            self.length, self.size = self.size if fires else self.length + self.size, 0
        return fires
