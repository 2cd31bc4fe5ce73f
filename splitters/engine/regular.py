"""Regular expressions as programs of threads, which run character by character.

Syntax and meaning are those of the library `regex` (version 1 behaviour, but without full case-folding, which equates
one character with several): the leftmost match, alternatives in their written order, greedy unless marked lazy.
`regex` interprets single characters and sets; this module parses only how they are combined. Threads in order of
priority follow R. Cox, "Regular Expression Matching: the Virtual Machine Approach" (2009).
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import regex

from splitters.engine.characters import N_CODE_POINTS, code_point_classes

MAX_REPEAT = 1000
MAX_CODE = 10_000  # instructions
_ESCAPE = regex.compile(
    r"\\(?:[pP]\{[^}]*\}|[pP]\w|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|N\{[^}]+\}|.)", regex.S
)
_QUANTIFIER = regex.compile(r"([*+?])|\{(\d*)(,?)(\d*)\}")
_GROUP = regex.compile(r"\?:|\?P?<\w+>")
_LOOK_BEHIND = regex.compile(r"\?<([=!])")
_FLAGS = regex.compile(r"\(\?([is]+)\)")
_NOT_CHARACTERS = "bBZzGXRKmMLghk0123456789"  # escapes that are not a single character, or octal


class Unsupported(ValueError):
    """A construct that depends on later characters, or needs more memory than a finite state."""


class Instruction(NamedTuple):
    """`read` a character in the set `argument`; `behind`: the previous character is (not) in the set; `start` of the
    text; `split` into the threads at `argument`, best first; `accept`."""

    name: str
    argument: int | tuple[int, ...] = ()
    negated: bool = False


class Program(NamedTuple):
    code: tuple[Instruction, ...]
    sets: tuple[str, ...]  # regular expressions for one character


Threads = tuple[int, ...]  # positions of reading or accepting instructions, best first


def closure(program: Program, places: Iterator[int] | Threads, before: frozenset[int] | None) -> Threads:
    """Returns the threads reached from `places` without reading; `before`: the sets of the previous character."""
    found: dict[int, None] = {}
    seen: set[int] = set()
    stack = list(reversed(tuple(places)))
    while stack:
        at = stack.pop()
        if at in seen:
            continue
        seen.add(at)
        name, argument, negated = program.code[at]
        if name == "split":
            stack.extend(reversed(argument))  # type: ignore[arg-type]
        elif name == "start":
            stack.extend([at + 1] if before is None else [])
        elif name == "behind":
            stack.extend([at + 1] if (before is not None and argument in before) != negated else [])
        else:
            found[at] = None
    return tuple(found)


def read(program: Program, threads: Threads, character: frozenset[int]) -> Threads:
    """Returns the threads after reading a character of the sets `character`."""
    after = (at + 1 for at in threads if program.code[at].argument in character)
    return closure(program, after, character)


def accepting(program: Program, threads: Threads) -> int | None:
    """Returns the rank of the best accepting thread, or None."""
    return next((rank for rank, at in enumerate(threads) if program.code[at].name == "accept"), None)


@lru_cache(maxsize=32)
def memberships(sets: tuple[str, ...]) -> tuple[np.ndarray, list[frozenset[int]]]:
    """Returns int64 [0x110000], the kind of each code point, and per kind the sets that contain it."""
    keys = np.zeros(N_CODE_POINTS, np.int64)
    for index, pattern in enumerate(sets):
        keys *= 2
        if len(pattern) == 1 and pattern != ".":
            keys[ord(pattern)] += 1
        else:
            keys += code_point_classes(((pattern, pattern),)) == 0
        if index % 48 == 47:
            keys = np.unique(keys, return_inverse=True)[1]
    _, first, kinds = np.unique(keys, return_index=True, return_inverse=True)
    compiled = [regex.compile(pattern, regex.V1) for pattern in sets]
    found = [
        frozenset(index for index, one in enumerate(compiled) if one.fullmatch(chr(character)))
        for character in first.tolist()
    ]
    return kinds, found


@lru_cache(maxsize=64)
def parse(pattern: str) -> Program:
    """Returns the program of a regular expression. Raises Unsupported, naming the construct and its position."""
    parser = _Parser(pattern)
    try:
        tree = parser.alternatives()
    except RecursionError:
        raise Unsupported(f"{pattern[:40]!r}… is nested too deep") from None
    if parser.at < len(pattern):
        raise Unsupported(f"{pattern!r}: {pattern[parser.at]!r} at {parser.at} closes nothing")
    if _nullable(tree):
        raise Unsupported(f"{pattern!r} matches the empty text, where there is no character for a boundary")
    code: list[Instruction] = []
    _emit(tree, code)
    return _pruned(Program((*code, Instruction("accept")), tuple(parser.sets)))


def _pruned(program: Program) -> Program:
    """Removes instructions that never lead to a match, as in `a^` and `a(?<=b)`: a thread there decides nothing."""
    kinds = memberships(program.sets)[1]
    reads = [at for at, instruction in enumerate(program.code) if instruction.name == "read"]
    live = {len(program.code) - 1}
    while more := {
        at
        for at in reads
        if at not in live
        and any(
            live.intersection(closure(program, (at + 1,), kind)) for kind in kinds if program.code[at].argument in kind
        )
    }:
        live |= more
    code = list(program.code)
    for at in set(reads) - live:
        code[at] = Instruction("split")
    return program._replace(code=tuple(code))


Tree = tuple  # (name, …): read, behind, start, cat, alt, repeat


class _Parser:
    def __init__(self, pattern: str) -> None:
        self.pattern, self.at = pattern, 0
        self.sets: dict[str, int] = {}
        self.flags = ""
        if flags := _FLAGS.match(pattern):
            self.at, self.flags = flags.end(), flags.group(1)

    def alternatives(self) -> Tree:
        branches = [self.sequence()]
        while self.pattern[self.at : self.at + 1] == "|":
            self.at += 1
            branches.append(self.sequence())
        return branches[0] if len(branches) == 1 else ("alt", branches)

    def sequence(self) -> Tree:
        items = []
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            items.append(self.repeated(self.item()))
        return ("cat", items)

    def item(self) -> Tree:
        begin, character = self.at, self.pattern[self.at]
        if character == "(":
            return self.group()
        if character == "^":
            self.at += 1
            return ("start",)
        if character == "$":
            raise self.unsupported("$ depends on the next character")
        if character == "[":
            self.at = self.end_of_set(begin)
        elif character == "\\":
            escape = _ESCAPE.match(self.pattern, begin)
            if escape is None:
                raise self.unsupported("a lone backslash")
            self.at = escape.end()
            if self.pattern[begin + 1] == "A":
                return ("start",)
            if self.pattern[begin + 1] in _NOT_CHARACTERS:
                raise self.unsupported(f"{escape.group()} is not a single character", begin)
        elif character in "*+?{":
            raise self.unsupported(f"{character} repeats nothing")
        else:
            self.at += 1
        return ("read", self.set_of(self.pattern[begin : self.at]))

    def group(self) -> Tree:
        begin = self.at
        self.at += 1
        if behind := _LOOK_BEHIND.match(self.pattern, self.at):
            self.at = behind.end()
            inner = self.alternatives()
            self.close(begin)
            if inner[0] == "cat" and len(inner[1]) == 1:
                inner = inner[1][0]
            if inner[0] != "read":
                raise self.unsupported("a look-behind that is not one character or set", begin)
            return ("behind", inner[1], behind.group(1) == "!")
        if plain := _GROUP.match(self.pattern, self.at):
            self.at = plain.end()
        elif self.pattern[self.at : self.at + 1] in ("?", "*"):
            raise self.unsupported(f"the group {self.pattern[begin : begin + 4]}…", begin)
        inner = self.alternatives()
        self.close(begin)
        return inner

    def close(self, begin: int) -> None:
        if self.pattern[self.at : self.at + 1] != ")":
            raise self.unsupported("a group that is not closed", begin)
        self.at += 1

    def repeated(self, item: Tree) -> Tree:
        while quantifier := _QUANTIFIER.match(self.pattern, self.at):
            sign, low, comma, high = quantifier.groups()
            if not sign and not (low or (comma and high)):
                raise self.unsupported("a { that is not a quantifier: write \\{")
            self.at = quantifier.end()
            least = {"*": 0, "+": 1, "?": 0}[sign] if sign else int(low or 0)
            most = {"*": None, "+": None, "?": 1}[sign] if sign else (int(high) if high else None if comma else least)
            if max(least, most or 0) > MAX_REPEAT:
                raise self.unsupported(f"more than {MAX_REPEAT} repetitions")
            mark = self.pattern[self.at : self.at + 1]
            if mark == "+":
                raise self.unsupported("a possessive quantifier")
            self.at += mark == "?"
            if _nullable(item) and most != 1:
                raise self.unsupported("a repetition of what may be empty")
            item = ("repeat", item, least, most, mark != "?")
        return item

    def end_of_set(self, begin: int) -> int:
        depth, at = 0, begin
        while at < len(self.pattern):
            character = self.pattern[at]
            if character == "\\":
                at += 1
            elif character == "[":
                depth += 1
                at += self.pattern[at + 1 : at + 2] == "^"
                at += self.pattern[at + 1 : at + 2] == "]"  # first in a set, it stands for itself
            elif character == "]":
                depth -= 1
                if depth == 0:
                    return at + 1
            at += 1
        raise self.unsupported("a set that is not closed", begin)

    def set_of(self, source: str) -> int:
        flagged = f"(?{self.flags}-f:{source})" if self.flags else source
        return self.sets.setdefault(flagged, len(self.sets))

    def unsupported(self, what: str, at: int | None = None) -> Unsupported:
        return Unsupported(f"{self.pattern!r}: {what} (at {self.at if at is None else at})")


def _nullable(tree: Tree) -> bool:
    name = tree[0]
    if name == "cat":
        return all(map(_nullable, tree[1]))
    if name == "alt":
        return any(map(_nullable, tree[1]))
    if name == "repeat":
        return tree[2] == 0 or _nullable(tree[1])
    return name != "read"


def _emit(tree: Tree, code: list[Instruction]) -> None:
    if len(code) > MAX_CODE:
        raise Unsupported("a pattern of so many repetitions")
    name = tree[0]
    if name == "cat":
        for item in tree[1]:
            _emit(item, code)
    elif name == "alt":
        _emit_alternatives(tree[1], code)
    elif name == "repeat":
        _emit_repeat(tree, code)
    elif name == "behind":
        code.append(Instruction("behind", tree[1], tree[2]))
    else:
        code.append(Instruction(*tree))


def _emit_alternatives(branches: list[Tree], code: list[Instruction]) -> None:
    fork = len(code)
    code.append(Instruction("split"))
    begins, ends = [], []
    for branch in branches:
        begins.append(len(code))
        _emit(branch, code)
        ends.append(len(code))
        code.append(Instruction("split"))  # to what follows the last branch
    code[fork] = Instruction("split", tuple(begins))
    for end in ends:
        code[end] = Instruction("split", (len(code),))


def _emit_repeat(tree: Tree, code: list[Instruction]) -> None:
    _, item, least, most, greedy = tree

    def fork(at: int, inner: int, after: int) -> None:
        code[at] = Instruction("split", (inner, after) if greedy else (after, inner))

    for _ in range(least):
        _emit(item, code)
    if most is None:
        at = len(code)
        code.append(Instruction("split"))
        _emit(item, code)
        code.append(Instruction("split", (at,)))
        fork(at, at + 1, len(code))
        return
    forks = []
    for _ in range(most - least):
        forks.append(len(code))
        code.append(Instruction("split"))
        _emit(item, code)
    for at in forks:
        fork(at, at + 1, len(code))
