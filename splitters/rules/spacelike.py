"""SpaceByte's rule (arXiv 2404.14408): at the first non-alphanumeric byte after an alphanumeric one.

The published rule reads bytes, so it cuts a character of several bytes at its *first* byte, before the character is
known. `align: last` moves the boundary to the last byte.
"""

from typing import Literal

import numpy as np

from splitters.contract import Splitter, Stepper
from splitters.registry import register
from splitters.rules.utf8_character import align_bytes

# Neither an ASCII letter or digit nor a UTF-8 continuation byte.
SPACELIKE = [not (chr(byte).isalnum() if byte < 0x80 else byte < 0xC0) for byte in range(256)]


@register("spacelike")
class Spacelike(Splitter):
    """A boundary at each spacelike byte after one that is not spacelike.

    Spacelike means: neither an ASCII letter or digit nor a UTF-8 continuation byte. With `align: last` the boundary is
    at the last byte of that character, with `first` at the first byte of the next one.
    """

    source = "SpaceByte, arXiv 2404.14408"

    def __init__(self, align: Literal["byte", "last", "first"] = "byte") -> None:
        self.rule = align_bytes("spacelike", _SpacelikeByte(), align)

    def split(self, data: bytes) -> np.ndarray:
        return self.rule.split(data)

    def stepper(self) -> Stepper:
        return self.rule.stepper()


class _SpacelikeByte(Splitter):
    def split(self, data: bytes) -> np.ndarray:
        spacelike = np.array(SPACELIKE)[np.frombuffer(data, np.uint8)]
        fires = spacelike.copy()
        fires[1:] &= ~spacelike[:-1]
        return fires

    def stepper(self) -> Stepper:
        return _SpacelikeStepper()


class _SpacelikeStepper(Stepper):
    def __init__(self) -> None:
        self.before = False

    def push(self, byte: int) -> bool:
        before, self.before = self.before, SPACELIKE[byte]
        return self.before and not before
