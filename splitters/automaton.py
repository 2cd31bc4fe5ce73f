"""Rules as finite automata over characters, run over bytes: causal and streamable by construction.

A rule says in `step` what one character does; here that is tabulated once, over every state the rule
can reach, and run with two table look-ups a byte. `split` and `push` are the same loop.
"""

from abc import abstractmethod
from collections.abc import Hashable, Iterable
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np

from splitters.characters import INVALID, ByteClasses, Classes, byte_classes
from splitters.contract import Splitter, Stepper

State = Hashable
MAX_STATES = 20_000


class _Tables(NamedTuple):
    bytes: ByteClasses
    next: list[int]  # for `state + symbol` the next state, both multiples of the number of symbols
    fires: list[bool]


class CharacterRule(Splitter):
    """A splitter that decides at the last byte of each character, from a state and the character's class."""

    classes: ClassVar[Classes]
    start: ClassVar[State]

    @abstractmethod
    def step(self, state: State, kind: str) -> tuple[State, bool]:
        """Returns the state after a character of class `kind`, and whether a boundary falls on it.

        `kind` is a name in `classes`, `characters.REST` or `characters.INVALID`. Invalid bytes may
        change the state, but a boundary on them is ignored: they are often known too late.
        """

    @cached_property
    def _tables(self) -> _Tables:
        table = byte_classes(self.classes)
        kinds = [None, *table.names, INVALID]
        n_symbols = 2 * len(kinds)
        index: dict[State, int] = {self.start: 0}
        reached, next_state, fires = [self.start], [], []
        for state in reached:  # grows while it is read
            for late in (False, True):
                for kind in kinds:
                    after, fire = (self.step(state, INVALID)[0] if late else state), False
                    if kind is not None:
                        after, fire = self.step(after, kind)
                    if after not in index:
                        if len(reached) == MAX_STATES:
                            raise ValueError(
                                f"{type(self).__name__}.step reaches more than {MAX_STATES} states ({after!r}): "
                                "a count in a state must come back to its beginning, for example by a modulo"
                            )
                        index[after] = len(reached)
                        reached.append(after)
                    next_state.append(index[after] * n_symbols)
                    fires.append(fire and kind != INVALID)
        return _Tables(table, next_state, fires)

    def split(self, data: bytes) -> np.ndarray:
        return self.run(data, (0, 0))[0]

    def stepper(self) -> Stepper:
        return _Stepper(self)

    def run(self, data: Iterable[int], state: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
        """Runs from `state` ((0, 0) is the beginning) and returns the boundaries, bool, and the state after."""
        (next_byte, symbols, _), next_rule, fires = self._tables
        byte_state, rule_state = state
        out = bytearray()
        for byte in data:
            at = byte_state + byte
            byte_state = next_byte[at]
            at = rule_state + symbols[at]
            rule_state = next_rule[at]
            out.append(fires[at])
        return np.frombuffer(out, dtype=bool), (byte_state, rule_state)


class _Stepper(Stepper):
    def __init__(self, rule: CharacterRule) -> None:
        self.rule = rule
        self.state = (0, 0)

    def push(self, byte: int) -> bool:
        fired, self.state = self.rule.run((byte,), self.state)
        return bool(fired[0])

    def __deepcopy__(self, memo: dict) -> "_Stepper":
        copy = _Stepper(self.rule)  # the tables are shared: only the state moves
        copy.state = self.state
        return copy
