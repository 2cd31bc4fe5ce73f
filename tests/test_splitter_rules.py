"""What each rule does: tables of texts and pieces, and plain forms of the same rules."""

import itertools
import json

import numpy as np
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from splitters import Stack, build
from splitters.cjk_character import UNSPACED_SCRIPTS
from tests.conftest import GOLDEN


def pieces(splitter, text: str) -> list[str]:
    """The text cut after each boundary."""
    return cut(text.encode(), splitter.split(text.encode()))


def cut(data: bytes, boundary: np.ndarray) -> list[str]:
    ends = [*(np.flatnonzero(boundary) + 1).tolist(), len(data)]
    parts = [data[begin:end].decode() for begin, end in itertools.pairwise([0, *ends])]
    return [part for part in parts if part]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the cat sat", ["the ", "cat ", "sat"]),
        ("two  blanks", ["two ", " blanks"]),
        ("  indented", ["  indented"]),
        ("tab\tand\u00a0nbsp\u3000wide", ["tab\t", "and\u00a0", "nbsp\u3000", "wide"]),
        ("one\ntwo\n\nthree", ["one\n", "two\n", "\n", "three"]),
        ("dos\r\nline", ["dos\r", "\n", "line"]),
        ("end... no", ["end.", ".. ", "no"]),
        ("a,b;;c", ["a,", "b;", ";c"]),
        ("in 1234567 years", ["in ", "1", "234", "567", " ", "years"]),
        ("e\u0301te\u0301 nai\u0308ve", ["e\u0301te\u0301 ", "nai\u0308ve"]),
        ("सभी मनुष्यों को", ["सभी ", "मनुष्यों ", "को"]),
        ("มนุษย์ทั้งหลาย เกิด", ["มนุษย์ทั้งหลาย ", "เกิด"]),
        ("ទាំង\u200bអស់", ["ទាំង\u200b", "អស់"]),
        ("می\u200cخواهم رفت", ["می\u200cخواهم ", "رفت"]),
        ("人人生而自由,在", ["人人生而自由,", "在"]),
    ],
)
def test_whitespace(text, expected):
    assert pieces(build("whitespace"), text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the cat", ["the ", "cat"]),
        ("人人生而", ["人", "人", "生", "而"]),
        ("カーネル ｱｲ", ["カ", "ー", "ネ", "ル", " ", "ｱ", "ｲ"]),
        ("자유 is", ["자", "유", " ", "is"]),
        ("น้ำดี", ["น", "้", "ำ", "ด", "ี"]),
        ("ខ្មែរ", list("ខ្មែរ")),
        ("བོད་ཡིག", list("བོད་ཡིག")),
        ("Linux内核x", ["Linux内", "核", "x"]),
        ("𠮷野", ["𠮷", "野"]),
        ("〇零", ["〇", "零"]),
        ("सभी को", ["सभी ", "को"]),
    ],
)
def test_cjk_character(text, expected):
    assert pieces(build("cjk_character"), text) == expected


@pytest.mark.parametrize("script", UNSPACED_SCRIPTS)
def test_cjk_character_cuts_every_letter_of_an_unspaced_script(script):
    every = "".join(chr(c) for c in range(0x20000) if not 0xD800 <= c < 0xE000)
    letters = regex.findall(rf"[\p{{Script={script}}}&&[\p{{L}}\p{{M}}]]", every, flags=regex.V1)[:200]
    assert letters
    assert pieces(build("cjk_character"), "".join(letters)) == letters


@pytest.mark.parametrize(
    ("options", "text", "expected"),
    [
        ({"n": 3}, "abcdefgh", ["abc", "def", "gh"]),
        ({"n": 1}, "ab", ["a", "b"]),
        ({"n": 2, "of": "characters"}, "añ中b🤝c", ["añ", "中b", "🤝c"]),
    ],
)
def test_fixed(options, text, expected):
    assert pieces(build("fixed", **options), text) == expected


@pytest.mark.parametrize("case", json.loads((GOLDEN / "splits.json").read_text()), ids=lambda case: case["lang"])
@pytest.mark.parametrize("groups", ["word", "word+pair", "word+pair+quad"])
def test_aunet_word_equals_the_released_rules(case, groups):
    words = {"word": 1, "pair": 2, "quad": 4}
    stack = Stack([{"name": "aunet_word", "words": words[group]} for group in groups.split("+")])
    levels = "".join(map(str, stack.levels(case["text"].encode())))
    assert levels == case["levels"][groups]


def test_aunet_word_keeps_line_breaks_with_the_punctuation_before():
    assert pieces(build("aunet_word"), "a.\n\nb\n\nc") == ["a.", "\n", "\nb\n", "\n", "c"]


def check_each_character(rule, text, expected):
    """Compares the rule with `expected(before, character)`, which sees nothing after the character."""
    got = build(rule).split(text.encode())
    ends = np.cumsum([len(c.encode()) for c in text]) - 1
    for t, character in enumerate(text):
        assert got[ends[t]] == expected(text[:t], character), (text, t)


@given(st.text("ab1.\u0301 \n中", max_size=40))
def test_aunet_word_equals_patterns_that_do_not_peek(text):
    """The rule once more, as a regular expression over the text before each character."""

    def expected(before, character):
        if regex.match(r"\s", character):
            after_word = bool(regex.search(r"\S\Z", before))
            in_punctuation = bool(regex.search(r"[^\s\p{L}\p{N}][\r\n]*\Z", before))
            return after_word or (character in "\r\n" and not in_punctuation)
        if regex.match(r"\p{L}", character):
            return False
        kind = r"\p{N}" if regex.match(r"\p{N}", character) else r"[^\s\p{L}\p{N}]"
        return len(regex.search(rf"{kind}*\Z", before).group()) % 3 == 0

    check_each_character("aunet_word", text, expected)


@given(st.text("ab1.\u0301 \u200b\n中", max_size=40))
def test_whitespace_equals_patterns_that_do_not_peek(text):
    def expected(before, character):
        if character == "\n":
            return True
        if character in " \u200b":
            return bool(regex.search(r"[^\s\u200b]\Z", before))
        if character == "1":
            return len(regex.search(r"1*\Z", before).group()) % 3 == 0
        return character == "." and not before.endswith(".")

    check_each_character("whitespace", text, expected)


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
