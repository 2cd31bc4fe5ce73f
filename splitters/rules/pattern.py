"""Your own regular expressions, as in AU-Net's RegexPool, run as an automaton.

Later characters can change a match of `regex`, and must not change a boundary. So a pattern is accepted only if no
later character can change a boundary, which is decided here for all texts at once. Otherwise it is refused with the
shortest counter-example.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import product
from typing import Literal, NamedTuple, NoReturn

import numpy as np
import regex

from splitters.contract import LawError, one_of
from splitters.engine.automaton import MAX_STATES, CharacterRule
from splitters.engine.characters import INVALID, ByteClasses, automaton_of
from splitters.engine.regular import Program, Threads, Unsupported, accepting, closure, memberships, parse, read
from splitters.registry import register

INVALID_BYTE = 0xDC80  # an invalid byte as Python reads it (surrogateescape): neither a letter nor a blank
SEARCHED = 4000  # texts searched if a pattern cannot be decided
NICE = " ab1.\n,A-é中"  # readable characters, preferred in a counter-example


REMEDY = {
    "end": r"Let the pattern end with the deciding character (words: \S+\s), or put the boundary at: start",
    "start": r"Let each beginning of a match be a match (words: \p{L}+), or put the boundary at: end",
}


class _Run(NamedTuple):
    """The progress of the matches of one pattern."""

    threads: Threads = ()  # best first: for at="start" those of one match, else all that may still match
    inside: bool = False  # a match, for at="start"


class _Peeks(Exception):
    """A later character decides: `threads` may still match."""

    def __init__(self, threads: Threads) -> None:
        self.threads = threads


@register("pattern")
class Pattern(CharacterRule):
    """A boundary at the last character (`at: end`) or the first (`at: start`) of each match of your own `patterns`.

    They are regular expressions of the library `regex`, each searched independently from the beginning of the text.
    Raises LawError, with the shortest counter-example, for a pattern whose matches depend on later characters, and
    ValueError for an invalid regular expression, or one that cannot run in bounded memory.
    """

    source = "AU-Net's RegexPool, arXiv 2506.14761"
    start = "start"

    def __init__(self, patterns: str | Sequence[str] = (r"\S+\s",), at: Literal["end", "start"] = "end") -> None:
        self.at = one_of("pattern", "at", at, ("end", "start"))
        listed = [patterns] if isinstance(patterns, str) else patterns
        if (
            not isinstance(listed, list | tuple)
            or not listed
            or not all(isinstance(pattern, str) for pattern in listed)
        ):
            raise ValueError(f"pattern: patterns is {patterns!r}, it must be a regular expression or a list of some")
        self.patterns = tuple(listed)
        self.programs = [_checked(pattern, at) for pattern in listed]
        try:
            self._tables  # noqa: B018 (built now, so that too many states fail here)
        except ValueError:
            raise ValueError(
                f"pattern: {patterns!r} together need more than {MAX_STATES} states: make a union of one pattern each"
            ) from None

    @cached_property
    def _kinds(self) -> tuple[np.ndarray, list[frozenset[int]], list[int]]:
        """The kind of each code point; the sets of each kind, over all programs; where each program's begin."""
        begins = np.cumsum([0, *(len(program.sets) for program in self.programs)]).tolist()
        kinds, members = memberships(tuple(pattern for program in self.programs for pattern in program.sets))
        return kinds, members, begins

    def byte_classes(self) -> ByteClasses:
        kinds, members, _ = self._kinds
        return automaton_of(kinds, tuple(map(str, range(len(members)))))

    def step(self, state, kind):
        kinds, members, begins = self._kinds
        here = int(kinds[INVALID_BYTE]) if kind == INVALID else int(kind)
        before, runs = (None, [_Run()] * len(self.programs)) if state == "start" else state
        after, fires = [], False
        for program, begin, run in zip(self.programs, begins, runs, strict=False):
            # Sets are numbered within this program; those of other programs fall outside its range.
            last = None if before is None else frozenset(index - begin for index in members[before])
            character = frozenset(index - begin for index in members[here])
            moved, fired = ADVANCE[self.at](program, run, last, character)
            after.append(moved)
            fires |= fired
        return (here, tuple(after)), fires


Sets = frozenset[int]  # the sets that contain a character


def _to_end(program: Program, run: _Run, before: Sets | None, character: Sets) -> tuple[_Run, bool]:
    """One character for at="end": it may end a match, or extend matches begun here or earlier."""
    begun = closure(program, (*run.threads, 0), before)  # earlier beginnings are better
    threads = read(program, begun, character)
    rank = accepting(program, threads)
    if rank is None:
        return _Run(threads), False
    if rank > 0:
        raise _Peeks(threads[:rank])
    return _Run(), True


def _to_start(program: Program, run: _Run, before: Sets | None, character: Sets) -> tuple[_Run, bool]:
    """One character for at="start": it may continue a match, or begin one."""
    begun = read(program, closure(program, (0,), before), character)
    further = read(program, run.threads, character) if run.inside else ()
    if further:
        rank = accepting(program, further)
        if rank is None and begun:  # inside a match, or at the beginning of one: later characters decide
            raise _Peeks(begun if accepting(program, begun) is None else further)
        return _Run(further[:rank], True), False
    if not begun:
        return _Run(), False
    rank = accepting(program, begun)
    if rank is None:
        raise _Peeks(begun)
    return _Run(begun[:rank], True), True


ADVANCE: dict[str, Callable[[Program, _Run, Sets | None, Sets], tuple[_Run, bool]]] = {
    "end": _to_end,
    "start": _to_start,
}


def _checked(pattern: str, at: str) -> Program:
    """Returns the pattern's program if it does not look ahead."""
    try:
        regex.compile(pattern, regex.V1)
    except regex.error as error:
        raise ValueError(f"pattern {pattern!r} is not a regular expression: {error}") from None
    except RecursionError:
        raise ValueError(f"pattern {pattern[:40]!r}… is nested too deep") from None
    try:
        program = parse(pattern)
    except Unsupported as error:
        with suppress(MemoryError, RecursionError):  # of regex itself, on patterns that call themselves
            _search_counter_example(pattern, at)
        raise ValueError(f"pattern {error}: not supported") from None
    _explore(pattern, program, at)
    return program


def _explore(pattern: str, program: Program, at: str) -> None:
    """Visits every reachable state. Raises LawError if a later character decides anywhere."""
    kinds, members = memberships(program.sets)
    shown = _examples(kinds, len(members))
    texts: dict[tuple[int | None, _Run], str] = {(None, _Run()): ""}
    shortest: str | None = None
    for before, run in (queue := list(texts)):  # grows during the loop: nearest states first
        text = texts[before, run]
        if shortest is not None and len(text) + 2 >= len(shortest):
            break
        last = None if before is None else members[before]
        for kind, character in enumerate(shown):
            try:
                after, _ = ADVANCE[at](program, run, last, members[kind])
            except _Peeks as peek:
                found = text + character + _continuation(program, peek.threads, members, shown)
                shortest = found if shortest is None or len(found) < len(shortest) else shortest
                continue
            if (kind, after) not in texts:
                if len(texts) == MAX_STATES:
                    raise ValueError(f"pattern {pattern!r} needs more than {MAX_STATES} states")
                texts[kind, after] = text + character
                queue.append((kind, after))
    if shortest is not None:
        _refuse(pattern, at, shortest)


def _continuation(program: Program, threads: Threads, members: list[frozenset[int]], shown: str) -> str:
    """Returns the shortest text after which one of `threads` accepts."""
    queue, seen = deque([(threads, "")]), {threads}
    while queue:
        here, text = queue.popleft()
        for kind, character in enumerate(shown):
            after = read(program, here, members[kind])
            if accepting(program, after) is not None:
                return text + character
            if after and after not in seen:
                seen.add(after)
                queue.append((after, text + character))
    raise AssertionError(f"{program} has a thread that never accepts")


def _examples(kinds: np.ndarray, n_kinds: int) -> str:
    """Returns a character of each kind, a readable one if there is one."""
    nice = {int(kinds[ord(character)]): character for character in reversed(NICE)}
    return "".join(nice.get(kind) or chr(int(np.argmax(kinds == kind))) for kind in range(n_kinds))


def matched(pattern: str, at: str, text: str) -> set[int]:
    """Returns where matches of `regex` end (or start), as character indices: the plain form of the rule."""
    found = (match for match in regex.finditer(f"(?-f:{pattern})", text, regex.V1) if match.end() > match.start())
    return {match.start() if at == "start" else match.end() - 1 for match in found}


def _search_counter_example(pattern: str, at: str) -> None:
    """Searches short texts for one on which `regex` itself looks ahead. Raises LawError with the shortest."""
    letters = dict.fromkeys(character for character in pattern if character.isalnum() or character.isspace())
    alphabet = "".join(dict.fromkeys([*" a1.\n\u0301", *list(letters)[:3]]))
    for text in _texts(alphabet):
        whole = {place for place in matched(pattern, at, text) if place < len(text) - 1}
        if whole != matched(pattern, at, text[:-1]):
            _refuse(pattern, at, text)


def _texts(alphabet: str) -> Iterator[str]:
    count, length = 0, 1
    while count < SEARCHED:
        for characters in product(alphabet, repeat=length):
            yield "".join(characters)
        count += len(alphabet) ** length
        length += 1


def _refuse(pattern: str, at: str, text: str) -> NoReturn:
    """Raises LawError for a pattern that looks ahead on `text`, with the boundary that `regex` itself moves there."""
    whole = matched(pattern, at, text)
    for size in range(1, len(text)):
        alone = matched(pattern, at, text[:size])
        if different := alone ^ {place for place in whole if place < size}:
            place = min(different)
            had, has = ("a", "no") if place in alone else ("no", "a")
            how = (
                f"pattern {pattern!r} (at: {at}) gives {had} boundary there when the text ends after {text[:size]!r}, "
                f"and {has} boundary when {text[size:]!r} follows. {REMEDY[at]}"
            )
            raise LawError("pattern", "prefix", text.encode("utf-8", "surrogatepass"), _byte(text, place), how)
    raise ValueError(f"pattern {pattern!r}: whether a match continues or another begins is left open by {text!r}")


def _byte(text: str, place: int) -> int:
    return len(text[: place + 1].encode("utf-8", "surrogatepass")) - 1
