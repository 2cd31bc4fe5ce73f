"""The laws of a splitter, tested on texts in every script and on invalid UTF-8.

Prefix: appending bytes never changes an earlier boundary. Stream: stepping gives the same boundaries as splitting at
once. Form: one entry per byte, of the right type, the same at every call, and no exception. Nesting: a rule above
selects among the boundaries below.
"""

import copy
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

from splitters.contract import LawError, LearnedSplitter, Splitter, Teacher, push_all
from splitters.edge_texts import block_texts, long_texts, short_texts
from splitters.registry import Spec, resolve
from splitters.stack import Stack

EVERY_CUT = 400  # texts up to this length are cut at every byte, longer ones at 100 places,
MANY_CUTS = 100_000  # and those past this length at 3; of these, this many bytes are stepped
UNSTEADY = "another result for the same text: a splitter may keep no state between calls; state belongs in the stepper"


def check(splitter: Spec | Stack, texts: Iterable[bytes] | None = None) -> None:
    """Tests the laws of `splitter` on `texts` or (in about a second) on the shared edge texts.

    Of a stack, the rules below the first learned splitter. Raises LawError, with the shortest counter-example found,
    and TypeError for a learned splitter, which cannot run without its model.
    """
    subject = splitter if isinstance(splitter, Stack) else resolve(splitter)
    if isinstance(subject, LearnedSplitter):
        raise TypeError(f"{type(subject).__name__} is a learned splitter: the tests of a model cover its laws")
    if isinstance(texts, str | bytes):
        raise TypeError(f"texts is {type(texts).__name__}: give a list of bytes")
    name = type(subject).__name__
    if texts is None:
        texts = [*sorted(short_texts().values(), key=len), *block_texts().values(), *long_texts().values()]
    tested = list(texts)
    _check(name, subject, tested)
    if isinstance(subject, Splitter) and subject.refreshes is not None:
        _check(f"{name}, inside units,", subject.refreshes, tested)
    if isinstance(subject, Splitter) and _groups_units(type(subject)):
        for below in ({"name": "fixed", "n": 3}, "whitespace"):
            _check(f"{name} above a splitter", Stack([below, subject]), tested)


def check_foreign(stack: Stack) -> None:
    """Tests the laws of a stack's splitters that are not built in, or have a part that is not.

    Built-in splitters are covered by the tests, and so are those made from models, on which this takes minutes.
    Raises LawError.
    """
    for rule in stack.rules:
        if isinstance(rule, Splitter) and not rule.needs_model() and not _built_in(rule):
            check(rule)


def check_form(teacher: Splitter | Teacher) -> None:
    """Tests the form of your own teacher's boundaries on the shared short texts. Raises ValueError."""
    if isinstance(teacher, Splitter) or _is_ours(teacher):
        return
    name = type(teacher).__name__
    for data in short_texts().values():
        try:
            got = teacher.split(data)
        except Exception as error:  # it can raise anything
            raise ValueError(f"teacher {name} raised {type(error).__name__} on {data!r}: {error}") from error
        if form := _wrong_form(got, np.bool_, len(data)):
            raise ValueError(f"teacher {name} returned {form} for {data!r}, not bool [{len(data)}]")


def _wrong_form(got: object, dtype: type, length: int) -> str | None:
    """Returns the form of what a `split` returned, if it is not an array of this type and length."""
    if not isinstance(got, np.ndarray):
        return type(got).__name__
    right = got.dtype == np.dtype(dtype) and got.shape == (length,)
    return None if right else f"{got.dtype} {list(got.shape)}"


def _is_ours(plug_in: object) -> bool:
    return type(plug_in).__module__.startswith("splitters.")


def _built_in(rule: Splitter) -> bool:
    return _is_ours(rule) and all(map(_built_in, rule.parts()))


def _groups_units(cls: type[Splitter]) -> bool:
    return cls.select is not Splitter.select or cls.unit_stepper is not Splitter.unit_stepper


def _check(name: str, subject: Splitter | Stack, texts: list[bytes]) -> None:
    for law, violation in LAWS.items():
        for data in texts:
            if _fails(violation, subject, data):
                shortest = _shrink(data, partial(_fails, violation, subject))
                byte, how = _try(violation, subject, shortest) or (0, UNSTEADY)
                raise LawError(name, law, shortest, byte, how)


def _try(violation: "Violation", subject: Splitter | Stack, text: bytes) -> tuple[int, str] | None:
    try:
        return violation(subject, text)
    except Exception as error:  # a splitter must not raise on any bytes
        return 0, f"raised {type(error).__name__}: {error}"


def _fails(violation: "Violation", subject: Splitter | Stack, text: bytes) -> bool:
    return _try(violation, subject, text) is not None


def _at_once(subject: Splitter | Stack, data: bytes) -> np.ndarray:
    return subject.levels(data) if isinstance(subject, Stack) else subject.split(data)


def _form(subject: Splitter | Stack, data: bytes) -> tuple[int, str] | None:
    dtype = np.uint8 if isinstance(subject, Stack) else np.bool_
    got = _at_once(subject, data)
    if form := _wrong_form(got, dtype, len(data)):
        return 0, f"returned {form}, not {np.dtype(dtype)} [{len(data)}]"
    before = got.copy()
    _at_once(subject, b"something else")
    if not np.array_equal(got, before):
        return 0, "a later call changes its result: return a new array each time"
    again = _at_once(subject, data)
    return (int(np.flatnonzero(again != before)[0]), UNSTEADY) if not np.array_equal(again, before) else None


def _nesting(subject: Splitter | Stack, data: bytes) -> tuple[int, str] | None:
    if isinstance(subject, Stack) and subject.byte_rules:
        units = subject.byte_rules[0].split(data)
        for rule in subject.byte_rules[1:]:
            selected = rule.select(data, units)
            for byte in np.flatnonzero(selected & ~units)[:1].tolist():
                return byte, f"{type(rule).__name__} selects a byte where no unit of the stage below ends"
            units = selected
    return None


def _prefix(subject: Splitter | Stack, data: bytes) -> tuple[int, str] | None:
    whole = _at_once(subject, data)
    n_cuts = len(data) if len(data) <= EVERY_CUT else 100 if len(data) <= MANY_CUTS else 3
    for cut in np.linspace(0, len(data) - 1, n_cuts).astype(int).tolist():
        difference = _difference(
            _at_once(subject, data[:cut]), whole[:cut], f"the first {cut} bytes alone", "the whole text"
        )
        if difference:
            return difference[0], f"{difference[1]}; a boundary may not depend on a later byte"
    return None


def _stream(subject: Splitter | Stack, data: bytes) -> tuple[int, str] | None:
    whole = _at_once(subject, data)[:MANY_CUTS].astype(np.uint8)
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
    """Removes pieces, halves first and single bytes last, while the rest still fails."""
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
