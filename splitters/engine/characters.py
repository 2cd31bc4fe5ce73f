"""An automaton over bytes: from UTF-8 bytes to character classes.

A character is known at its last byte, so its class is emitted there and nothing before. Bytes outside any
well-formed character are `INVALID`: at once where one byte shows it (a lone continuation, F8), and otherwise at the
byte that breaks the sequence off. Well-formed means Unicode's table 3-7: no overlong forms, no surrogates, nothing
above U+10FFFF.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import regex

Classes = tuple[tuple[str, str], ...]  # (name, regular expression for one character); the first match wins
REST = "rest"  # the name of the class of every character that no expression matches
INVALID = "invalid"  # the name of the class of bytes outside any character

N_CODE_POINTS = 0x110000
BAD = -1  # a sequence that begins no well-formed character


class ByteClasses(NamedTuple):
    """The automaton: for `state + byte` the next state (both multiples of 256) and the emitted symbol.

    Symbols: 0 nothing yet; 1 … C the class `names[symbol - 1]`; C + 1 an invalid byte. C + 2 added to a symbol means
    that a broken-off sequence before it was invalid.
    """

    next: np.ndarray  # int32
    symbol: np.ndarray  # int32
    names: tuple[str, ...]  # C class names, REST last

    @property
    def late(self) -> int:
        return len(self.names) + 2


@lru_cache(maxsize=32)
def code_point_classes(classes: Classes) -> np.ndarray:
    """Returns uint8 [0x110000]: the index of each code point's class in `classes`, or their number for REST."""
    text = np.arange(N_CODE_POINTS, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")  # every character
    table = np.full(N_CODE_POINTS, len(classes), dtype=np.uint8)
    for index in reversed(range(len(classes))):
        name, pattern = classes[index]
        try:
            # Full case-folding is off: it would match one character with several.
            matches = regex.finditer(f"(?-f:(?:{pattern})+)", text, flags=regex.V1)
        except regex.error as error:
            raise ValueError(f"class {name!r}: {pattern!r} is not a regular expression ({error})") from None
        for match in matches:
            table[match.start() : match.end()] = index
    return table


@lru_cache(maxsize=32)
def byte_classes(classes: Classes) -> ByteClasses:
    """Builds the automaton for classes given as regular expressions."""
    return automaton_of(code_point_classes(classes), (*[name for name, _ in classes], REST))


def automaton_of(class_of: np.ndarray, names: tuple[str, ...]) -> ByteClasses:
    """Builds the automaton for any classes of code points: `class_of` [0x110000] holds indices into `names`.

    Equal states are merged, so blocks with the same pattern of classes share a state.
    """
    table = class_of.astype(np.int64) + 1  # symbol of each code point

    # Each row is indexed by the next continuation byte (6 bits); equal rows share a state. A row of `last` holds
    # symbols, a row of `middle` holds rows of `last`, a row of `first` holds rows of `middle`.
    last, of_last = _distinct(table.reshape(-1, 64))
    of_last[0xD800 // 64 : 0xE000 // 64] = BAD  # surrogates
    three = of_last.copy()
    three[: 0x800 // 64] = BAD  # overlong in three bytes
    middle, of_middle = _distinct(three.reshape(-1, 64))
    four = np.full(5 * 64, BAD)
    four[16 : N_CODE_POINTS // 4096] = of_middle[16:]  # below 16: overlong in four bytes
    first, of_first = _distinct(four.reshape(-1, 64))

    at_middle = 1 + len(last)
    at_first = at_middle + len(middle)
    n_states, invalid = at_first + len(first), len(names) + 1
    next_state = np.zeros((n_states, 256), dtype=np.int64)
    symbol = np.full((n_states, 256), invalid, dtype=np.int64)

    symbol[0, :128] = table[:128]
    symbol[0, 0xC2:0xF5] = 0
    next_state[0, 0xC2:0xE0] = 1 + of_last[2:32]
    next_state[0, 0xE0:0xF0] = at_middle + of_middle[:16]
    next_state[0, 0xF0:0xF5] = at_first + of_first
    next_state[1:] = next_state[0]  # a byte that does not continue starts over,
    symbol[1:] = symbol[0] + len(names) + 2  # and what was pending is invalid
    symbol[1:at_middle, 128:192] = last
    next_state[1:at_middle, 128:192] = 0
    for rows, start, below in ((middle, at_middle, 1), (first, at_first, at_middle)):
        here = slice(start, start + len(rows))
        good = rows != BAD
        next_state[here, 128:192] = np.where(good, below + rows, next_state[here, 128:192])
        symbol[here, 128:192] = np.where(good, 0, symbol[here, 128:192])
    return ByteClasses((next_state * 256).ravel().astype(np.int32), symbol.ravel().astype(np.int32), names)


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct rows, and int64 [len(rows)], the index of each row among them."""
    index: dict[bytes, int] = {}
    which = np.array([index.setdefault(row.tobytes(), len(index)) for row in rows], np.int64)
    return rows[np.unique(which, return_index=True)[1]], which
