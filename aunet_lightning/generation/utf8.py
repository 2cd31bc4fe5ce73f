"""The automaton of well-formed UTF-8 (Unicode Standard, table 3-7), over bytes or over a vocabulary of tokens."""

from collections.abc import Sequence

import numpy as np

COMPLETE = 0  # the state between two characters
NEVER = -1  # the state after bytes that no text has

_FOLLOWING = range(0x80, 0xC0)
# Of each state, what bytes lead where: the states say which bytes must follow.
_PARTS: tuple[Sequence[tuple[range, int]], ...] = (
    (
        (range(0x00, 0x80), 0), (range(0xC2, 0xE0), 1), (range(0xE0, 0xE1), 4), (range(0xE1, 0xED), 2),
        (range(0xED, 0xEE), 5), (range(0xEE, 0xF0), 2), (range(0xF0, 0xF1), 6), (range(0xF1, 0xF4), 3),
        (range(0xF4, 0xF5), 7),
    ),
    ((_FOLLOWING, 0),),
    ((_FOLLOWING, 1),),
    ((_FOLLOWING, 2),),
    ((range(0xA0, 0xC0), 1),),  # no longer form of two bytes
    ((range(0x80, 0xA0), 1),),  # no surrogates
    ((range(0x90, 0xC0), 2),),  # no longer form of three bytes
    ((range(0x80, 0x90), 2),),  # nothing past U+10FFFF
)  # fmt: skip
TABLE = np.full((len(_PARTS), 256), NEVER, np.int8)  # [states, bytes]: the state after
for _state, _ways in enumerate(_PARTS):
    for _bytes, _after in _ways:
        TABLE[_state, _bytes] = _after


def table_of(texts: Sequence[bytes]) -> np.ndarray:
    """Returns int8 [states, ids]: the state after the text of each id, NEVER where it makes the text malformed."""
    table = np.empty((len(TABLE), len(texts)), np.int8)
    for id_, text in enumerate(texts):
        table[:, id_] = [run(text, state) for state in range(len(TABLE))]
    return table


def run(text: bytes, state: int = COMPLETE) -> int:
    """Returns the state after a text, NEVER where it is malformed."""
    for byte in text:
        state = int(TABLE[state, byte]) if state != NEVER else NEVER
    return state


def resumed(text: bytes) -> int:
    """Returns the state in which a text goes on, whatever in it is malformed: never NEVER."""
    state = COMPLETE
    for byte in text[-4:]:  # a character has no more
        after = run(bytes([byte]), state)
        state = after if after != NEVER else max(run(bytes([byte])), COMPLETE)
    return state


def incomplete(text: bytes) -> int:
    """Returns how many of a text's last bytes begin a character that is not complete."""
    return next((n for n in (1, 2, 3) if run(text[-n:]) > COMPLETE), 0)
