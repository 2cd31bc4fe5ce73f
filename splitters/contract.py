"""The contracts of splitters and teachers.

A splitter has one method for a complete text and one for a text that arrives byte by byte. A boundary at byte `t` is
decided from bytes `<= t`. The two methods must agree on every text, valid UTF-8 or not; `splitters.check` tests this
and refuses a rule that looks ahead.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from splitters.learned.predictor import Predictor


class Stepper(ABC):
    """The state of a splitter within one text. It must survive `copy.deepcopy`."""

    @abstractmethod
    def push(self, byte: int) -> bool:
        """Takes the next byte (0–255) and returns whether a boundary falls on it."""


class UnitStepper(ABC):
    """The state of a splitter above the first transition, within one text. It must survive `copy.deepcopy`."""

    @abstractmethod
    def push(self, byte: int, unit: bool) -> bool:
        """Takes the next byte and whether a boundary of the stage below falls on it. True only where `unit` is."""


class Knob(NamedTuple):
    """The option that moves a splitter's rate (bytes per unit), and the values among which `aunet rate` searches."""

    option: str
    least: float
    most: float
    grows: bool = True  # bytes per unit grow with the value; False: they fall
    whole: bool = True  # whole numbers; False: any between `least` and `most`
    entries: bool = False  # the option names a vocabulary, and the value is how many entries it has


class Rated:
    """What tells `aunet rate` how to give a class a wanted rate. Without a knob its rate is what it is."""

    knob: ClassVar[Knob | None] = None

    @classmethod
    def at_rate(
        cls, options: Mapping[str, Any], texts: Sequence[bytes], bytes_per_unit: float
    ) -> tuple[dict[str, Any], float] | None:
        """Returns the options with which it has this rate on the texts, and the rate that they give, where it can tell
        without a search; else None, and the values of the knob are searched. Raises ValueError where no value has it.
        """
        return None


class Splitter(Rated, ABC):
    """Places boundaries on bytes: the rule between stage 1 and stage 2.

    It serves higher transitions too: there `select` picks among the boundaries of the stage below. A rule that groups
    units overrides `select` and `unit_stepper`. The others inherit deferring: a boundary on a byte where the stage
    below has none waits for that stage's next boundary, so that nothing is dropped and levels nest.
    """

    source: ClassVar[str] = ""  # where the rule comes from, for `aunet splitters`
    kind: str = "rule"  # or "model": made from a trained model, so its name alone does not build it
    groups_units = False  # whether it groups the units of the stage below, which a combinator does not have
    looks_ahead: ClassVar[bool] = False
    files: ClassVar[Sequence[str]] = ()  # options that name a file (.json, or a checkpoint): an export brings it along
    # Options that every class of a base takes beside those of its own `__init__`: what makes, from the name and the
    # splitter, the one with the option. An option of the same name in `__init__` is the class's own.
    shared_options: ClassVar[Mapping[str, Callable[..., "Splitter"]]] = {}
    counts: bool = False  # whether it counts from the beginning, so that `refresh` begins it anew in a unit
    refreshes: "Splitter | None" = None  # inside its units: bytes at which a unit's vector is made anew (`refresh`)

    def parts(self) -> "list[Splitter]":
        """Returns the splitters that this one combines."""
        held = [part for value in vars(self).values() for part in (value if isinstance(value, list) else [value])]
        return [part for part in held if isinstance(part, Splitter)]

    def identity(self) -> bytes:
        """Returns what boundaries depend on besides code and options (contents of files), for a fingerprint."""
        return b"".join(part.identity() for part in self.parts())

    def needs_model(self) -> bool:
        """Returns whether it or one of its parts is made from a trained model."""
        return self.kind == "model" or any(part.needs_model() for part in self.parts())

    def prepare(self, folder: Path, texts: Sequence[np.ndarray]) -> None:
        """Computes, before training, what `split` will need of these documents (uint8 each).

        It may be kept in `folder`, which belongs to these documents alone and outlives the run.
        """
        for part in self.parts():
            part.prepare(folder, texts)

    def __deepcopy__(self, memo: dict) -> "Splitter":
        return self  # state between bytes lives in steppers, so copies of a stepper share the rule

    @abstractmethod
    def split(self, data: bytes) -> np.ndarray:
        """Returns a bool array [len(data)], True where a boundary falls. Never raises on any bytes."""

    @abstractmethod
    def stepper(self) -> Stepper:
        """Returns a new stepper, at the beginning of a text."""

    def select(self, data: bytes, units: np.ndarray) -> np.ndarray:
        """Returns a bool array [len(data)], True only where `units` (bool, [len(data)]) is."""
        return defer(self.split(data), units)

    def unit_stepper(self) -> UnitStepper:
        """Returns the stepper of `select`, at the beginning of a text."""
        return _DeferringStepper(self.stepper())


class Teacher(ABC):
    """Places boundaries on the bytes of a complete text. A student learns to place them without looking ahead."""

    source: ClassVar[str] = ""  # where it comes from
    looks_ahead: bool = True

    @abstractmethod
    def split(self, data: bytes) -> np.ndarray:
        """Returns a bool array [len(data)], True where a boundary falls. Never raises on any bytes."""


class LearnedSplitter(Rated, ABC):
    """Places boundaries by a small network on the hidden states of the stage below.

    It works between two stages of a model and has no `split`: without the model there are no hidden states.
    `aunet split --ckpt_path` shows its boundaries in a trained model.
    """

    source: ClassVar[str] = ""  # where it comes from, for `aunet splitters`
    kind: ClassVar[str] = "learned"
    bytes_per_unit: float | None = None  # the mean length it aims at (where it moves, at first), if it has a target
    by_language: Mapping[str, float] = MappingProxyType({})  # the same of text in these languages, in place of that
    teacher_steps = 0  # training steps in which the model pools at the teacher's boundaries

    @property
    def teacher(self) -> Splitter | Teacher | None:
        """The splitter or teacher whose boundaries it learns to predict, if there is one."""
        return None

    @abstractmethod
    def predictor(self, dim: int) -> "Predictor":
        """Returns its network, for hidden states of width `dim`."""


class LawError(ValueError):
    """A splitter breaks a law. Attributes: `law`, `text` (the shortest counter-example found), `byte` (its offset)."""

    def __init__(self, name: str, law: str, text: bytes, byte: int, how: str) -> None:
        self.law, self.text, self.byte = law, text, byte
        shown = text.decode("utf-8", "backslashreplace")
        super().__init__(f"{name} breaks the {law} law on {text!r} ({shown!r}) at byte {byte}: {how}")


def defer(fires: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Returns bool [len(units)]: True at each unit with a firing after the previous unit, up to this one."""
    selected = np.zeros(len(units), dtype=bool)
    ends = np.flatnonzero(units)
    fired = np.concatenate([[0], np.cumsum(fires)[ends]])
    selected[ends] = np.diff(fired) > 0
    return selected


class _DeferringStepper(UnitStepper):
    def __init__(self, stepper: Stepper) -> None:
        self.stepper = stepper
        self.pending = False

    def push(self, byte: int, unit: bool) -> bool:
        self.pending |= self.stepper.push(byte)
        fires, self.pending = self.pending and unit, self.pending and not unit
        return fires


def positive(rule: str, option: str, value: int, most: int = 1_000_000_000) -> int:
    """Returns value if it is a whole number from 1 to `most`, else raises ValueError naming rule and option."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{rule}: {option} is {value!r}, it must be a whole number, 1 or more")
    if value > most:
        raise ValueError(f"{rule}: {option} is {value!r}, it must be {most} or less")
    return value


def whole(rule: str, option: str, value: int) -> int:
    """Returns value if it is a whole number, 0 or more, else raises ValueError naming rule and option."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{rule}: {option} is {value!r}, it must be a whole number, 0 or more")
    return value


def number(rule: str, option: str, value: float, least: float, above: bool = False, most: float = math.inf) -> float:
    """Returns value as a float if it is a finite number from (or above) `least` to `most`, else raises ValueError."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or value < least or (above and value == least) or value > most:
        bound = (
            f"above {least:g}" if above else f"{least:g} or more" if most == math.inf else f"from {least:g} to {most:g}"
        )
        raise ValueError(f"{rule}: {option} is {value!r}, it must be a number {bound}")
    return float(value)


def flag(rule: str, option: str, value: bool) -> bool:
    """Returns value if it is true or false, and raises ValueError naming rule and option otherwise."""
    if not isinstance(value, bool):
        raise ValueError(f"{rule}: {option} is {value!r}, it must be true or false")
    return value


def one_of(rule: str, option: str, value: str, choices: tuple[str, ...]) -> str:
    """Returns value if it is among choices, and raises ValueError naming rule and option otherwise."""
    if value not in choices:
        raise ValueError(f"{rule}: {option} is {value!r}, it must be {' or '.join(map(repr, choices))}")
    return value


def push_all(stepper: Stepper, data: Iterable[int]) -> np.ndarray:
    """Steps through `data` and returns the result of each push, uint8 [len(data)]."""
    return np.array([stepper.push(byte) for byte in data], dtype=np.uint8)
