"""Rules as finite automata over characters, run over bytes: causal and streamable by construction.

A rule defines in `step` the effect of one character. It is tabulated once, over every state the rule can reach, and
run with two look-ups per byte: compiled for a complete text, and in plain Python as a stepper.
"""

from abc import abstractmethod
from collections.abc import Hashable
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np

from splitters.contract import Splitter, Stepper
from splitters.engine.align import aligned
from splitters.engine.characters import INVALID, ByteClasses, Classes, byte_classes
from splitters.engine.compiled import compiled, run_tables

State = Hashable
MAX_STATES = 20_000


class _Tables(NamedTuple):
    """Arrays for the compiled loop."""

    next_byte: np.ndarray
    symbol: np.ndarray
    next_rule: np.ndarray  # for `state + symbol` the next state, both multiples of the number of symbols
    fires: np.ndarray


class CharacterRule(Splitter):
    """A splitter that decides at the last byte of each character, from a state and the character's class.

    Named in YAML, each takes `align` (`engine.align`), without a word in its `__init__`.
    """

    shared_options: ClassVar = {"align": aligned}

    classes: ClassVar[Classes]
    start: ClassVar[State]

    @abstractmethod
    def step(self, state: State, kind: str) -> tuple[State, bool]:
        """Returns the state after a character of class `kind`, and whether a boundary falls on it.

        `kind` is a name in `classes`, `characters.REST` or `characters.INVALID`. Invalid bytes may change the state,
        but a boundary on them is ignored: they are often recognised too late.
        """

    def byte_classes(self) -> ByteClasses:
        """Returns the automaton from bytes to classes."""
        return byte_classes(self.classes)

    @cached_property
    def _tables(self) -> _Tables:
        table = self.byte_classes()
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
                                "a count in a state must be bounded, for example by a modulo"
                            )
                        index[after] = len(reached)
                        reached.append(after)
                    next_state.append(index[after] * n_symbols)
                    fires.append(fire and kind != INVALID)
        return _Tables(table.next, table.symbol, np.array(next_state, np.int32), np.array(fires, bool))

    @cached_property
    def _lists(self) -> tuple[list, list, list, list]:
        """The tables for a stepper: plain Python reads lists several times faster than arrays."""
        next_byte, symbol, next_rule, fires = (table.tolist() for table in self._tables)
        return next_byte, symbol, next_rule, fires

    def split(self, data: bytes) -> np.ndarray:
        return compiled(run_tables)(np.frombuffer(data, np.uint8), *self._tables)

    def stepper(self) -> Stepper:
        return _Stepper(*self._lists)


class _Stepper(Stepper):
    __slots__ = ("byte_state", "fires", "next_byte", "next_rule", "rule_state", "symbol")

    def __init__(self, next_byte: list[int], symbol: list[int], next_rule: list[int], fires: list[bool]) -> None:
        self.next_byte, self.symbol, self.next_rule, self.fires = next_byte, symbol, next_rule, fires
        self.byte_state = self.rule_state = 0

    def push(self, byte: int) -> bool:
        at = self.byte_state + byte
        self.byte_state = self.next_byte[at]
        at = self.rule_state + self.symbol[at]
        self.rule_state = self.next_rule[at]
        return self.fires[at]

    def __deepcopy__(self, memo: dict) -> "_Stepper":
        copy = _Stepper(self.next_byte, self.symbol, self.next_rule, self.fires)  # tables are shared
        copy.byte_state, copy.rule_state = self.byte_state, self.rule_state
        return copy
