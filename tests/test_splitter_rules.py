"""The boundaries of each rule: tables of texts and pieces, and plain forms of the same rules."""

import json

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from splitters import Stack, available, build
from splitters.edge_texts import SCRIPTS, long_texts, short_texts
from splitters.engine.automaton import CharacterRule
from splitters.engine.compiled import run_tables, walk_trie
from splitters.registry import resolve
from splitters.rules.scripts import UNSPACED_SCRIPTS
from tests.helpers import BYTES, GOLDEN, pieces


def units(splitter, text: str) -> list[str]:
    """The text cut before each character that carries a boundary at its last byte."""
    boundary = splitter.split(text.encode())
    found, at = [""], 0
    for character in text:
        at += len(character.encode())
        if boundary[at - 1]:
            found.append("")
        found[-1] += character
    return [unit for unit in found if unit]


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
        ("👩\u200d👩\u200d👧❤\ufe0f❤ 1\ufe0f2", ["👩", "\u200d👩\u200d👧❤\ufe0f❤ ", "1", "\ufe0f2"]),
        ("सभी मनुष्यों को", ["सभी ", "मनुष्यों ", "को"]),
        ("มนุษย์ทั้งหลาย เกิด", ["มนุษย์ทั้งหลาย ", "เกิด"]),
        ("ទាំង\u200bអស់", ["ទាំង\u200b", "អស់"]),
        ("می\u200cخواهم رفت", ["می\u200cخواهم ", "رفت"]),
        ("人人生而自由,在", ["人人生而自由,", "在"]),
        ("a\ufffdb", ["a\ufffd", "b"]),
    ],
)
def test_whitespace(text, expected):
    assert pieces(build("whitespace"), text) == expected


@pytest.mark.parametrize("name", [name for name in available("rule") if isinstance(build(name), CharacterRule)])
def test_no_boundary_falls_on_bytes_of_no_character(name):
    data = b"a\x80\xff \x80b \xe4\xb8\xff.\xc0\n\xf8"
    fires = build(name).split(data)
    assert not fires[[at for at, byte in enumerate(data) if byte >= 0x80]].any()


@pytest.mark.parametrize("data", [b"\xff ", b"\xe4 ", b"\xe4\xb8 ", b" \xf0\x9f\x91 "])
def test_bytes_of_no_character_are_part_of_a_word(data):
    """Also where they are known only once the blank has come."""
    assert np.flatnonzero(build("whitespace").split(data)).tolist() == [len(data) - 1]


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
        ("e\u0301te\u0301 сімʼя Tie\u0302\u0301ng", ["e\u0301te\u0301 ", "сімʼя ", "Tie\u0302\u0301ng"]),
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
        before = regex.sub(r"(?<=[^\s\u200b])\u0301+", "", before)  # a mark changes nothing, but after a blank
        if character == "\n":
            return True
        if character in " \u200b":
            return bool(regex.search(r"[^\s\u200b]\Z", before))
        if character == "1":
            return len(regex.search(r"1*\Z", before).group()) % 3 == 0
        return character == "." and not before.endswith(".")

    check_each_character("whitespace", text, expected)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(BYTES)
def test_spacelike_is_the_published_formula(data):
    def spacelike(byte):
        return not (chr(byte).isascii() and chr(byte).isalnum()) and not 0x80 <= byte <= 0xBF

    expected = [spacelike(b) and (t == 0 or not spacelike(data[t - 1])) for t, b in enumerate(data)]
    assert build("spacelike").split(data).tolist() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the cat, sat", ["the", " cat", ", sat"]),
        ("人人 été", ["人", "人", " ét", "é"]),
        ("a\n\nb", ["a", "\n\nb"]),
    ],
)
def test_spacelike_at_the_last_byte(text, expected):
    assert units(build("spacelike", align="character"), text) == expected


def test_spacelike_as_published_cuts_a_character_at_its_first_byte():
    assert build("spacelike").split("a人".encode()).tolist() == [False, True, False, False]
    assert build("spacelike", align="character").split("a人".encode()).tolist() == [False, False, False, True]


@given(TEXT)
def test_utf8_character_is_every_character(text):
    assert units(build("utf8_character"), text) == list(text)


# Characters of every class that grapheme clusters are made of, so that sequences of them are common.
CLUSTERED = "\r\n\0 a\u0301\u0308\u200c\u200d\u0915\u094d\u0937\u093e\u0e33\u0600🇯🇩🇪👩🏽❤\ufe0f\u1112\u1161\u11ab한하က္"


@pytest.mark.parametrize("characters", [st.characters(exclude_categories=["Cs"]), CLUSTERED], ids=["any", "clustered"])
def test_grapheme_equals_the_clusters_of_regex(characters):
    @settings(max_examples=400)
    @given(st.text(characters, max_size=12))
    def check(text):
        assert units(build("grapheme"), text) == regex.findall(r"\X", text)

    check()


def test_grapheme_equals_the_clusters_of_regex_beside_every_character():
    """Each code point after a letter, a mark, a consonant with virama, an emoji with joiner, and before a mark."""
    every = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)
    characters = regex.findall(r"[\P{Cn}--\p{Han}]", every, regex.V1)
    text = "".join(f"a{c}\u0301{c}\u0915\u094d{c}👩\u200d{c}" for c in characters)
    assert units(build("grapheme"), text) == regex.findall(r"\X", text)


HAT = json.loads((GOLDEN / "hat_splitter.json").read_text(encoding="utf-8"))["texts"]


@pytest.mark.parametrize(
    "rule",
    ["unicode_word", {"name": "cap", "of": "unicode_word", "max_bytes": 9, "align": "last"}],
    ids=["words", "9 bytes"],
)
def test_unicode_word_equals_hat_splitter(rule):
    for case in HAT:
        text = "".join(case["units"])
        assert units(resolve(rule), text) == case["units" if rule == "unicode_word" else "units_of_9_bytes"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("don't stop at 3.14!", ["don'", "t", " stop", " at", " 3.", "14!"]),
        (
            "camelCase e\u0301E aB\u00adC",
            ["camel", "Case", " e\u0301", "E", " a", "B\u00adC"],
        ),  # hat-splitter: e\u0301E
        ("a,\u200f b \u0301c", ["a,\u200f", " b", " \u0301c"]),  # marks change nothing; hat-splitter cuts around them
        ("1\u20442 3\u2044 4\u2044x", ["1\u20442", " 3\u2044", " 4\u2044", "x"]),  # hat-splitter: 3│\u2044│ 4│\u2044│x
        ("\ufeffa b\n\u0301c", ["\ufeff", "a", " b", "\n", "\u0301", "c"]),
        ("  a b", ["  ", "a", " b"]),
        ("ภาษาไทย", ["ภ", "า", "ษ", "า", "ไ", "ท", "ย"]),
    ],
)
def test_unicode_word(text, expected):
    assert units(build("unicode_word"), text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the cat", ["the", " cat"]),
        ("ภาษาไทย", ["ภา", "ษา", "ไท", "ย"]),
        ("เรียนที่เมืองกั้น", ["เรีย", "น", "ที่", "เมือ", "ง", "กั้น"]),
        ("น้ำ แก้ว ๆ", ["น้ำ", " ", "แก้", "ว", " ๆ"]),
        ("ມະນຸດທຸກຄົນ", ["ມະ", "ນຸ", "ດ", "ທຸ", "ກ", "ຄົນ"]),
        ("ເຂົາມາ ເຈົ້າຂອງ", ["ເຂົາ", "ມາ", " ", "ເຈົ້າ", "ຂ", "ອ", "ງ"]),
        ("เปลี่ยนเกวียน", ["เป", "ลี่ย", "น", "เก", "วีย", "น"]),
        ("ൎക", ["ൎക"]),
        ("ខ្មែរ\u200bស្រី", ["ខ្មែ", "រ", "\u200b", "ស្រី"]),
        ("မြန်မာ ကျွန်ုပ် အင်္ဂ", ["မြ", "န်", "မာ", " ", "ကျွ", "န်ု", "ပ်", " ", "အ", "င်္ဂ"]),
        ("क्षमा स्त्री", ["क्ष", "मा", " ", "स्त्री"]),
        ("தமிழ்", ["த", "மி", "ழ்"]),
        ("බුද්ධ ශ්\u200dරී", ["බු", "ද්", "ධ", " ", "ශ්\u200dරී"]),
        ("བོད་ཡིག།", ["བོད", "་ཡིག", "།"]),
        ("ልጅ፡ሁሉ።", ["ልጅ", "፡ሁሉ", "።"]),
        ("人人 是", ["人", "人", " ", "是"]),
        ("チョコレートと学校", ["チョ", "コ", "レー", "ト", "と", "学", "校"]),
        (
            "한국 \u1112\u1161\u11ab\u1100\u1173 ㅋㅋ",
            ["한", "국", " ", "\u1112\u1161\u11ab", "\u1100\u1173", " ", "ㅋ", "ㅋ"],
        ),
        ("e\u0301te\u0301 ok", ["e\u0301te\u0301", " ok"]),
    ],
)
def test_syllable(text, expected):
    assert units(build("syllable"), text) == expected


@pytest.mark.parametrize(
    ("n", "text", "expected"),
    [
        (2, "the cat sat.", ["the", " cat", " sat", "."]),
        (2, "人人生而自由,在", ["人人", "生而", "自由", ",", "在"]),
        (3, "人人生而自由", ["人人生", "而自由"]),
        (1, "人人生", ["人", "人", "生"]),
        (2, "Linux内核module", ["Linux", "内核", "module"]),
        (2, "漢字かなカナABC", ["漢字", "かな", "カナ", "ABC"]),
        (2, "食べるカーネル", ["食", "べる", "カー", "ネル"]),
        (2, "모든 인간은", ["모든", " 인간은"]),
        (2, "ภาษาไทยok", ["ภา", "ษา", "ไท", "ย", "ok"]),
        (2, "सभी मनुष्यों", ["सभी", " मनुष्यों"]),
        (2, "e\u0301te\u0301 Tiê\u0301ng", ["e\u0301te\u0301", " Tiê\u0301ng"]),
        (2, "བོད་ཡིག", ["བོད", "་ཡིག"]),
        (2, "すへ\u3099ての ｱｶﾞｻ", ["すへ\u3099", "ての", " ", "ｱｶﾞ", "ｻ"]),
        (2, "ㄇㄚˊㄇㄚ˙", ["ㄇㄚˊ", "ㄇㄚ˙"]),
        (2, "⼀⼆⼈ 〆切", ["⼀⼆", "⼈", " ", "〆切"]),
        (2, "ᦟᦹᧉ ꦲꦏꧏ", ["ᦟᦹᧉ", " ", "ꦲ", "ꦏꧏ"]),
        (2, "第3條 123", ["第", "3", "條", " ", "123"]),
        (2, "می\u200cخواهم رفت", ["می\u200cخواهم", " رفت"]),
    ],
)
def test_script_aware(n, text, expected):
    assert units(build("script_aware", n=n), text) == expected


SPACED = (
    "Latin",
    "Latin marks",
    "Cyrillic",
    "Greek",
    "Arabic",
    "Hebrew",
    "Devanagari",
    "Tamil",
    "Georgian",
    "Cherokee",
)


@pytest.mark.parametrize("script", SPACED)
def test_script_aware_is_whitespace_in_spaced_scripts(script):
    text = SCRIPTS[script]
    assert units(build("script_aware"), text) == units(build("whitespace"), text)


@pytest.mark.parametrize("script", ["Thai", "Lao", "Khmer", "Burmese", "Tibetan"])
def test_script_aware_is_syllable_in_south_east_asia(script):
    text = SCRIPTS[script]
    assert units(build("script_aware"), text) == units(build("syllable"), text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is 3.14. No! ok?", ["It is 3.14. ", "No! ", "ok?"]),
        ("是。不是？是", ["是。", "不是？", "是"]),
        ("है। और", ["है।", " और"]),
        ("a\nb", ["a\n", "b"]),
    ],
)
def test_sentence_end(text, expected):
    assert pieces(build("sentence_end"), text) == expected


@pytest.mark.parametrize("name", [name for name in available("rule") if isinstance(build(name), CharacterRule)])
@pytest.mark.parametrize("text", [*short_texts(), "all scripts"])
def test_the_compiled_loop_equals_the_plain_one(name, text):
    rule, data = build(name), (short_texts() | long_texts())[text]
    plain = run_tables(np.frombuffer(data, np.uint8), *rule._tables)
    np.testing.assert_array_equal(rule.split(data), plain)


@pytest.mark.parametrize("text", [*short_texts(), "all scripts"])
def test_the_compiled_walk_equals_the_plain_one(text):
    walk, data = build("trie", align="byte").rule, (short_texts() | long_texts())[text]
    np.testing.assert_array_equal(walk.split(data), walk_trie(np.frombuffer(data, np.uint8), *walk._arrays))
