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
