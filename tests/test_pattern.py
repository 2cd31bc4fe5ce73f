"""Your own patterns against the library `regex`: accepted ones equal it, refused ones do look ahead."""

import itertools

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from splitters import LawError, build, check
from splitters.rules.pattern import matched


def places(rule, text):
    """Boundaries of the rule, as indices of characters."""
    boundary = rule.split(text.encode())
    ends = np.cumsum([len(character.encode()) for character in text], dtype=int) - 1
    assert boundary.sum() == boundary[ends].sum()
    return set(np.flatnonzero(boundary[ends]).tolist())


def peeks(pattern, at, text) -> bool:
    """Whether a beginning of the text has other matches than the text has there."""
    whole = matched(pattern, at, text)
    return any(matched(pattern, at, text[:n]) != {p for p in whole if p < n} for n in range(len(text)))


CAUSAL = [
    (r"\s", "end"),
    (r"\S+\s", "end"),
    (r"\S+?\s", "end"),
    (r"(\S+?\s){2}", "end"),
    (r"[^\s]*?[\s]", "end"),
    (r"\p{Han}|\p{Script=Thai}", "end"),
    (r"[\p{L}--\p{Lu}]", "end"),
    (r"(?<=\s)\S", "end"),
    (r"(?<![\p{L}\p{M}])\p{L}", "end"),
    (r"^\p{L}|\n", "end"),
    (r"(?i)the\s", "end"),
    (r"\p{N}{3}", "end"),
    (r"(?:ab|cd)e", "end"),
    (r"[.!?]\s|[。！？]", "end"),
    (r"\p{L}+", "start"),
    (r"\p{N}{1,3}", "start"),
    (r"[^\s\p{L}\p{M}\p{N}]{1,3}", "start"),
    (r"\p{L}+(?:['’]\p{L}+)*", "start"),
    (r"\w\S*", "start"),
    (r"\r?\n", "end"),
    (r"aa^|b(?<=a)c", "end"),
    (r"(?i)[äß]é\s", "end"),
]
PEEKING = [
    (r"\s+(?!\S)", "end", "  "),
    (r"\s+(?=\S)", "end", " a"),
    (r" ?\p{L}+", "end", "aa"),
    (r" ?\p{L}+", "start", " a"),
    (r"\s*\n", "end", "\n\n"),
    (r"\s*\n", "start", " \n"),
    (r"\p{L}+", "end", "aa"),
    (r"\p{N}{1,3}", "end", "11"),
    (r"\S+\s", "start", "a "),
    (r"abc|b", "end", "abc"),
    (r"\w+\b", "end", "aa"),
    (r"a$", "end", "aa"),
    (r"a(?=b)", "end", "ab"),
    (r"a|bc", "start", "bc"),
    (r"\X", "end", None),
    (r"\r?\n", "start", "\r\n"),
    (r"a*", "end", "aa"),
]
TEXT = st.text("ab cd.\n\r19'é中ก์Ae", max_size=12)


@pytest.mark.parametrize(("pattern", "at"), CAUSAL)
def test_an_accepted_pattern_equals_regex(pattern, at):
    rule = build("pattern", patterns=pattern, at=at)
    check(rule)

    @settings(max_examples=60)
    @given(TEXT)
    def equals(text):
        assert places(rule, text) == matched(pattern, at, text)

    equals()


@pytest.mark.parametrize(("pattern", "at", "shortest"), PEEKING)
def test_a_pattern_that_looks_ahead_is_refused_with_the_shortest_text(pattern, at, shortest):
    with pytest.raises(LawError) as error:
        build("pattern", patterns=[r"\s", pattern], at=at)
    text = error.value.text.decode()
    assert peeks(pattern, at, text)
    assert error.value.law == "prefix"
    assert repr(pattern) in str(error.value)
    if shortest is not None:
        assert len(text) == len(shortest)
        assert peeks(pattern, at, shortest)


ATOMS = st.sampled_from(["a", "b", "[ab]", "[^a]", ".", r"\s", r"(?<=a)", r"(?<!b)", "^"])
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("(?:{}|{})".format, inner, inner),
        st.builds(
            "(?:{}){}".format, inner, st.sampled_from(["?", "*", "+", "??", "*?", "+?", "{2}", "{1,2}", "{2,}?"])
        ),
    ),
    max_leaves=5,
)
SHORT = ["".join(letters) for n in range(1, 6) for letters in itertools.product("ab ", repeat=n)]


@settings(max_examples=150)
@given(PATTERNS, st.sampled_from(["end", "start"]))
def test_any_pattern_equals_regex_or_peeks(pattern, at):
    try:
        rule = build("pattern", patterns=pattern, at=at)
    except LawError as error:
        text = error.text.decode()
        assert peeks(pattern, at, text)
        shorter = [short for short in SHORT if len(short) < len(text)]
        assert not any(peeks(pattern, at, short) for short in shorter)
    except ValueError as error:  # bounded memory does not do
        assert "not supported" in str(error) or "left open" in str(error)  # noqa: PT017
    else:
        for text in SHORT:
            assert places(rule, text) == matched(pattern, at, text), text


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (r"(a)\1", r"\\1 is not a single character"),
        (r"\012", r"\\0 is not a single character"),
        (r"(?<=ab)c", "look-behind that is not one character"),
        (r"(?<=\s)", "matches the empty text"),
        (r"a++b", "possessive"),
        (r"(?>ab)c", r"the group \(\?>"),
        (r"(?:a?)+b", "repetition of what may be empty"),
        (r"a{2000}", "more than 1000 repetitions"),
    ],
)
def test_an_unsupported_construct_is_named(pattern, words):
    with pytest.raises(ValueError, match=words) as error:
        build("pattern", patterns=pattern)
    assert not isinstance(error.value, LawError)


def test_several_patterns_are_searched_independently():
    rule = build("pattern", patterns=[r"\S+\s", r"\d"])
    assert np.flatnonzero(rule.split(b"ab1c d")).tolist() == [2, 4]


def test_an_invalid_byte_is_a_character_but_not_a_letter():
    rule = build("pattern", patterns=r"\S\s")
    assert rule.split(b"\xff a ").tolist() == [False, True, False, True]


def test_the_memory_of_a_stepper_does_not_grow():
    stepper = build("pattern", patterns=r"\S+\s").stepper()
    for byte in b"a" * 100_000:
        stepper.push(byte)
    assert stepper.push(ord(" "))
    assert regex.search(r"\S+\s", "a" * 100_000 + " ").end() == 100_001
