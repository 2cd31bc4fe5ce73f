"""The script that each byte of a text is in, among some that are named, decided from the bytes up to it."""

import hashlib
from functools import lru_cache

import numpy as np
import regex

from splitters.engine.characters import ByteClasses, automaton_of, code_point_classes
from splitters.engine.compiled import compiled

# Digits, blanks and marks that scripts share belong to the script around them.
OTHER = ("other", r"[^\p{Script=Common}\p{Script=Inherited}\p{Script=Unknown}]")


class ScriptRuns:
    """Runs of text in the scripts `names` (Unicode's: Han, Thai, Latin) and in all others.

    The group of a byte is the place in `names` of the script of the last character that has one, once its last byte is
    read; `len(names)` in any other script and at the beginning of a text. Raises ValueError for a name that is no
    script.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        for name in names:
            try:
                known = regex.fullmatch(r"[\w -]+", name) and regex.compile(rf"\p{{Script={name}}}")
            except regex.error:
                known = None
            if not known:
                raise ValueError(
                    f"{name!r} is not a script of Unicode: choose among its names, such as Han, Thai, Latin, Cyrillic"
                )

    def identity(self) -> bytes:
        """Returns what groups depend on besides the names: Unicode's scripts, as `regex` knows them."""
        return hashlib.sha256(_class_of(self.names).tobytes()).digest()[:16] if self.names else b""

    def groups(self, data: bytes) -> np.ndarray:
        """Returns the group of each byte, int64 [len(data)]."""
        if not self.names:
            return np.zeros(len(data), np.int64)
        table, begins = _tables(self.names)
        return compiled(run_groups)(np.frombuffer(data, np.uint8), table.next, table.symbol, begins, len(self.names))

    def start(self) -> tuple[int, int]:
        """Returns the state before a text: of the automaton, and the group."""
        return 0, len(self.names)

    def push(self, state: tuple[int, int], byte: int) -> tuple[int, int]:
        """Returns the state after a byte; its second part is the byte's group."""
        if not self.names:
            return state
        table, begins = _tables(self.names)
        at, group = state[0] + byte, int(begins[table.symbol[state[0] + byte]])
        return int(table.next[at]), group if group >= 0 else state[1]


def _class_of(names: tuple[str, ...]) -> np.ndarray:
    """uint8 [0x110000]: of each code point, its place in `names`; behind them, other scripts, and shared ones."""
    return code_point_classes((*((name, rf"\p{{Script={name}}}") for name in names), OTHER))


@lru_cache(maxsize=8)
def _tables(names: tuple[str, ...]) -> tuple[ByteClasses, np.ndarray]:
    """Returns the automaton over bytes, and by symbol the group that it begins (-1: the one before goes on)."""
    table = automaton_of(_class_of(names), (*names, OTHER[0], "shared"))
    begins = np.full(2 * table.late, -1, np.int64)
    for late in (0, table.late):
        begins[late + 1 : late + 2 + len(names)] = np.arange(len(names) + 1)
    return table, begins


def run_groups(
    data: np.ndarray, next_byte: np.ndarray, symbol: np.ndarray, begins: np.ndarray, group: int
) -> np.ndarray:
    """Runs an automaton whose symbols begin groups. Returns int64 [len(data)]; `group`: before the first."""
    out = np.empty(len(data), np.int64)
    state = 0
    for i in range(len(data)):
        at = state + data[i]
        state = next_byte[at]
        if begins[symbol[at]] >= 0:
            group = begins[symbol[at]]
        out[i] = group
    return out
