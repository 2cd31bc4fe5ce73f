"""The laws of a splitter, tried on texts in every script and on bytes that are no text at all.

Prefix: appending bytes never changes an earlier boundary. Stream: stepping gives what splitting at
once gives. Form: one entry a byte, of the right type, the same at every call, and nothing raised.
Nesting: a rule above picks among the boundaries below.
"""

import copy
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

from splitters.contract import LawError, LearnedSplitter, Splitter, push_all
from splitters.edge_texts import block_texts, long_texts, short_texts
from splitters.registry import Spec, resolve
from splitters.stack import Stack

EVERY_CUT = 400  # texts up to this length are cut at every byte, longer ones at 100 places,
MANY_CUTS = 100_000  # and those past this length at 3; of these, this many bytes are stepped
UNSTEADY = "another result for the same text: a splitter may keep no state between calls, that is the stepper's"


def check(splitter: Spec | Stack, texts: Iterable[bytes] | None = None) -> None:
    """Tries the laws on `splitter`, on `texts` or (in about a second) on the shared edge texts.

    Of a stack, the rules below the first learned splitter. Raises LawError, with the shortest text found that shows
    the failure, and TypeError for a learned splitter, which is nothing without its model.
    """
    subject = splitter if isinstance(splitter, Stack) else resolve(splitter)
    if isinstance(subject, LearnedSplitter):
        raise TypeError(f"{type(subject).__name__} is a learned splitter: its laws are those of the model it is in")
    if isinstance(texts, str | bytes):
        raise TypeError(f"texts is {type(texts).__name__}: give a list of bytes")
    name = type(subject).__name__
    if texts is None:
        texts = [*sorted(short_texts().values(), key=len), *block_texts().values(), *long_texts().values()]
    tried = list(texts)
    _check(name, subject, tried)
    if isinstance(subject, Splitter) and _groups_units(type(subject)):
        for below in ({"name": "fixed", "n": 3}, "whitespace"):
            _check(f"{name} above a splitter", Stack([below, subject]), tried)


def check_foreign(stack: Stack) -> None:
    """Tries the laws on those of a stack's splitters that are not built in, or not wholly. (The built-in ones are
    tried by the tests, and so are those made from models, on which it takes minutes.) Raises LawError."""
    for rule in stack.rules:
        if isinstance(rule, Splitter) and not rule.needs_model() and not _built_in(rule):
            check(rule)


def _built_in(rule: Splitter) -> bool:
    return type(rule).__module__.startswith("splitters.") and all(map(_built_in, rule.parts()))


def _groups_units(cls: type[Splitter]) -> bool:
    return cls.select is not Splitter.select or cls.unit_stepper is not Splitter.unit_stepper


def _check(name: str, subject: Splitter | Stack, tried: list[bytes]) -> None:
    for law, violation in LAWS.items():
        for data in tried:
            if _fails(violation, subject, data):
                shortest = _shrink(data, partial(_fails, violation, subject))
                byte, how = _try(violation, subject, shortest) or (0, UNSTEADY)
                raise LawError(name, law, shortest, byte, how)


def _try(violation: "Violation", subject: Splitter | Stack, text: bytes) -> tuple[int, str] | None:
    try:
        return violation(subject, text)
    except Exception as error:  # a splitter never raises, whatever the bytes
        return 0, f"raised {type(error).__name__}: {error}"


def _fails(violation: "Violation", subject: Splitter | Stack, text: bytes) -> bool:
    return _try(violation, subject, text) is not None


def _whole(subject: Splitter | Stack, data: bytes) -> np.ndarray:
    return subject.levels(data) if isinstance(subject, Stack) else subject.split(data)


def _form(subject: Splitter | Stack, data: bytes) -> tuple[int, str] | None:
    wanted = np.dtype(np.uint8 if isinstance(subject, Stack) else np.bool_)
    got = _whole(subject, data)
    if not isinstance(got, np.ndarray) or got.dtype != wanted or got.shape != (len(data),):
        form = f"{got.dtype} {list(got.shape)}" if isinstance(got, np.ndarray) else type(got).__name__
        return 0, f"returned {form}, not {wanted} [{len(data)}]"
    before = got.copy()
    _whole(subject, b"something else")
    if not np.array_equal(got, before):
        return 0, "its result changes at a later call: return a new array each time"
    again = _whole(subject, data)
    return (int(np.flatnonzero(again != before)[0]), UNSTEADY) if not np.array_equal(again, before) else None


def _nesting(subject: Splitter | Stack, data: bytes) -> tuple[int, str] | None:
    if isinstance(subject, Stack) and subject.below:
        units = subject.below[0].split(data)
        for rule in subject.below[1:]:
            selected = rule.select(data, units)
            for byte in np.flatnonzero(selected & ~units)[:1].tolist():
                return byte, f"{type(rule).__name__} selects a byte where no unit of the stage below ends"
            units = selected
    return None


def _prefix(subject: Splitter | Stack, data: bytes) -> tuple[int, str] | None:
    whole = _whole(subject, data)
    n_cuts = len(data) if len(data) <= EVERY_CUT else 100 if len(data) <= MANY_CUTS else 3
    for cut in np.linspace(0, len(data) - 1, n_cuts).astype(int).tolist():
        difference = _difference(
            _whole(subject, data[:cut]), whole[:cut], f"the first {cut} bytes alone", "the whole text"
        )
        if difference:
            return difference[0], f"{difference[1]}; a boundary may not depend on a later byte"
    return None


def _stream(subject: Splitter | Stack, data: bytes) -> tuple[int, str] | None:
    whole = _whole(subject, data)[:MANY_CUTS].astype(np.uint8)
    data = data[:MANY_CUTS]
    stepper, middle = subject.stepper(), len(data) // 2
    first = push_all(stepper, data[:middle])  # type: ignore[arg-type]
    try:
        branch = copy.deepcopy(stepper)
    except Exception as error:
        return middle, f"copy.deepcopy of its stepper raised {type(error).__name__}: {error}; generation copies it"
    push_all(subject.stepper(), data[:50])  # type: ignore[arg-type]
    stepped = np.concatenate([first, push_all(stepper, data[middle:])])  # type: ignore[arg-type]
    if difference := _difference(stepped, whole, "stepping", "splitting at once"):
        return difference
    copied = np.concatenate([first, push_all(branch, data[middle : middle + EVERY_CUT])])  # type: ignore[arg-type]
    return _difference(copied, whole[: len(copied)], "a deep copy of the stepper", "splitting at once")


Violation = Callable[[Splitter | Stack, bytes], tuple[int, str] | None]  # (byte, how), or None where it holds
LAWS: dict[str, Violation] = {
    "form": _form,
    "nesting": _nesting,
    "prefix": _prefix,
    "stream": _stream,
}


def _difference(a: np.ndarray, b: np.ndarray, a_name: str, b_name: str) -> tuple[int, str] | None:
    for byte in np.flatnonzero(a != b)[:1].tolist():
        return byte, f"{a_name} gives {a[byte]!s}, {b_name} gives {b[byte]!s}"
    return None


def _shrink(data: bytes, fails: Callable[[bytes], bool]) -> bytes:
    """Leaves out pieces, halves first and single bytes last, as long as the rest still fails."""
    size = max(len(data) // 2, 1)
    while True:
        at, before = 0, len(data)
        while at < len(data):
            shorter = data[:at] + data[at + size :]
            if fails(shorter):
                data = shorter
            else:
                at += size
        if size == 1 and len(data) == before:
            return data
        size = max(size // 2, 1)
