"""The boundaries of splitters made of others: cap, union, reset_at, every."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitters import Stack, build
from splitters.contract import push_all
from tests.helpers import BYTES, cut, pieces


@pytest.mark.parametrize(
    ("options", "text", "expected"),
    [
        ({"n": 2}, "a b c d e ", ["a b ", "c d ", "e "]),
        ({"n": 3}, "a b. c d e f ", ["a b. ", "c d e ", "f "]),
        ({"n": 3, "sentence_end": False}, "a b c d ", ["a b c ", "d "]),
        ({"n": 4}, "pi 3.14 is\nb c ", ["pi 3.1", "4 is\n", "b c "]),
        ({"n": 9}, "是。不是。", ["是。", "不是。"]),
        ({"n": 9}, "है। और ", ["है।", " और "]),
    ],
)
def test_every_groups_units_and_ends_with_the_sentence(options, text, expected):
    stack = Stack(["whitespace", {"name": "every", **options}])
    assert cut(text.encode(), stack.levels(text.encode()) == 2) == expected


@given(BYTES, st.integers(1, 9), st.sampled_from(["whitespace", "fixed", "utf8_character"]))
def test_cap_equals_counting(data, most, of):
    length, expected = 0, []
    for fires in build(of).split(data):
        length += 1
        expected.append(bool(fires) or length == most)
        length = 0 if expected[-1] else length
    assert build("cap", of=of, max_bytes=most).split(data).tolist() == expected


@given(BYTES, st.integers(4, 9), st.sampled_from(["whitespace", "fixed", "unicode_word"]))
def test_cap_at_characters_equals_counting(data, most, of):
    fires, ends = build(of).split(data).tolist(), build("utf8_character").split(data).tolist()
    length = size = 0
    for at, end in enumerate(ends):
        size += 1
        if end:
            fires[at] |= length + size > most
            length, size = size + (0 if fires[at] else length), 0
    cap = build("cap", of=of, max_bytes=most, align="last")
    assert cap.split(data).tolist() == fires
    assert push_all(cap.stepper(), data).tolist() == fires


def test_a_cap_at_characters_holds_one():
    with pytest.raises(ValueError, match="cap: max_bytes is 3, it must be 4 or more with align 'last'"):
        build("cap", max_bytes=3, align="last")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"bytes": 4}, ["a be ", "sea ", "deep ", "e f ", "g"]),
        ({"bytes": 4, "mean": True}, ["a be ", "sea ", "deep ", "e ", "f g"]),
        ({"bytes": 1}, ["a ", "be ", "sea ", "deep ", "e ", "f ", "g"]),
        ({"bytes": 30}, ["a be sea deep e f g"]),
    ],
)
def test_at_least(options, expected):
    assert pieces(build("at_least", of="whitespace", **options), "a be sea deep e f g") == expected
    stack = Stack(["whitespace", {"name": "at_least", **options}])  # of the stage below
    assert cut(b"a be sea deep e f g", stack.levels(b"a be sea deep e f g") == 2) == expected


@given(BYTES, st.integers(1, 9), st.sampled_from(["spacelike", "fixed", "unicode_word"]))
def test_at_least_keeps_each_boundary_that_leaves_units_long_enough(data, least, of):
    fires = build(of).split(data)
    units, mean = (build("at_least", of=of, bytes=least, mean=mean).split(data) for mean in (False, True))
    last = -1
    for at in np.flatnonzero(fires).tolist():
        assert units[at] == (at - last >= least)
        last = at if units[at] else last
        assert mean[at] == ((mean[:at].sum() + 1) * least <= at + 1)
    assert not ((units | mean) & ~fires).any()
    np.testing.assert_array_equal(push_all(build("at_least", of=of, bytes=least, mean=True).stepper(), data), mean)


@given(BYTES)
def test_union_is_either(data):
    either = build("whitespace").split(data) | build("fixed", n=5).split(data)
    union = build("union", of=["whitespace", {"name": "fixed", "n": 5}])
    np.testing.assert_array_equal(union.split(data), either)
    np.testing.assert_array_equal(push_all(union.stepper(), data), either)


@given(st.lists(BYTES.filter(lambda line: b"\n" not in line), max_size=5))
def test_reset_at_splits_line_by_line(lines):
    reset = build("reset_at", of={"name": "fixed", "n": 3}, at={"name": "pattern", "patterns": "\n"})
    expected = [build("fixed", n=3).split(line + b"\n") for line in lines]
    for line in expected:
        line[-1] = True
    np.testing.assert_array_equal(
        reset.split(b"".join(line + b"\n" for line in lines)), np.concatenate([np.zeros(0, bool), *expected])
    )


def test_reset_at_ends_a_unit_with_each_line():
    assert pieces(build("reset_at", of={"name": "fixed", "n": 4}), "abcdef\nabcdef\r\ng") == [
        "abcd",
        "ef\n",
        "abcd",
        "ef\r\n",
        "g",
    ]


@pytest.mark.parametrize(
    ("options", "text", "expected"),
    [
        ({"of": "whitespace"}, "a b c d e ", ["a b ", "c d ", "e "]),
        ({"of": "whitespace", "n": 3}, "a b. c d e f ", ["a b. ", "c d e ", "f "]),
        ({"of": {"name": "fixed", "n": 2}, "sentence_end": False}, "abcdefgh", ["abcd", "efgh"]),
        ({"n": 3}, "abcdef", ["abc", "def"]),
    ],
)
def test_every_of_another(options, text, expected):
    assert pieces(build("every", **options), text) == expected


def test_every_of_another_above_waits_for_a_unit():
    stack = Stack([{"name": "fixed", "n": 5}, {"name": "every", "n": 2, "of": "whitespace"}])
    assert cut(b"a b c d e f g h", stack.levels(b"a b c d e f g h") == 2) == ["a b c", " d e ", "f g h"]
