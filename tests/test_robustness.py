"""Robustness: what each change makes of a text, and bits that are those of `score` on the changed text."""

import math
import random
import unicodedata
from collections import Counter

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from aunet_lightning.evaluation.language_text import characters, is_word
from aunet_lightning.evaluation.robustness import (
    CHANGES,
    Changed,
    Sums,
    as_metrics,
    changes_of,
    details,
    effects,
    exchanged,
    robustness,
    table,
)
from aunet_lightning.reader.bpe import train_bpe
from aunet_lightning.reader.reader import ByteReader, TokenReader
from aunet_lightning.reader.tokens import Tokenizer
from aunet_lightning.reports.table import aligned
from aunet_lightning.scoring import score
from tests.helpers import sentences, tiny, tiny_model

SAMPLE = (
    "Straße İi 42 Άλφα ёжик й",
    "Tất cả mọi người sinh ra đều được hưởng tự do, e\u0301te\u0301",
    "أُولَئِكَ آدَم שָׁלוֹם",
    "ทุกคนเกิดมามีอิสระ มนุษย์ मनुष्य हिन्दी មនុស្ស ကျွန်",
    "サーバー ガッツ パリ カ\u3099 が 日本　語 자유 🤝🏽 ｱﾊﾟ",
    "a\tb\u00a0c  d\r\ne\n\n f",
)
TEXTS = st.text(st.sampled_from("".join(SAMPLE)), max_size=40) | st.text(max_size=30)
FORMS = ("full_width", "half_width", "nfc", "nfd")  # of the same characters
EXCHANGES = {"exchanged_2": 0.02, "exchanged_10": 0.1}


def of(name, text, seed=0):
    return CHANGES[name](text, random.Random(seed))


@pytest.mark.parametrize(
    ("change", "text", "becomes"),
    [
        ("upper", "Straße İi é я ω ก", "STRASSE İI É Я Ω ก"),
        ("swapped_case", "aB Яю 1ก", "Ab яЮ 1ก"),
        ("no_diacritics", "Crème brûlée, Đường đi, Łódź, e\u0301", "Creme brulee, Đuong đi, Łodz, e"),
        ("no_diacritics", "ёй ΐά أُولَئِكَ آدَم שָׁלוֹם", "еи ια اوليك ادم שלום"),
        ("no_diacritics", "ที่ हिन्दी ខ្មែរ ကျွန် ガが 자유 ཀྱི", "ที่ हिन्दी ខ្មែរ ကျွန် ガが 자유 ཀྱི"),
        ("no_blanks", "a b\tc\u00a0d\u3000e\n f\r\n", "abcde\nf\r\n"),
        ("double_blanks", "a b\t\n", "a  b\t\t\n"),
        ("full_width", "Az 09 é, я", "Ａｚ ０９ é, я"),
        ("half_width", "サーバー、ガ ヷパ が ヰ", "ｻｰﾊﾞｰ、ｶﾞ ﾜﾞﾊﾟ が ヰ"),
        ("nfc", "e\u0301 가", "é 가"),
        ("nfd", "é 가", "e\u0301 \u1100\u1161"),
    ],
)  # fmt: skip
def test_what_changes_make_of_text(change, text, becomes):
    assert of(change, text) == becomes


@given(TEXTS)
def test_other_forms_are_forms_of_the_same_text(text):
    for name in FORMS:
        assert unicodedata.normalize("NFKC", of(name, text)) == unicodedata.normalize("NFKC", text)
    assert of("nfc", of("nfd", text)) == of("nfc", text)


@given(TEXTS)
def test_what_is_taken_off_is_off(text):
    assert of("no_blanks", of("double_blanks", text)) == of("no_blanks", text)
    assert len(of("double_blanks", text)) - len(text) == len(text) - len(of("no_blanks", text))
    bare = of("no_diacritics", text)
    assert not regex.search(r"[\p{Latin}\p{Greek}\p{Cyrillic}\p{Arabic}\p{Hebrew}]\p{Mn}", bare)
    assert of("no_diacritics", bare) == bare
    if not regex.search(r"[^\p{Latin}\p{Greek}\p{Cyrillic} ]", text):  # scripts whose marks are all in Mn
        apart = unicodedata.normalize("NFD", text)
        assert bare == "".join(one for one in apart if unicodedata.category(one) != "Mn")


@given(TEXTS, st.integers(0, 5))
def test_an_exchange_keeps_all_characters(text, seed):
    for name in EXCHANGES:
        assert Counter(of(name, text, seed)) == Counter(text)
        assert of(name, text, seed) == of(name, text, seed)


@given(st.lists(st.sampled_from(["a", "B", "กี", "e\u0301", "日", "1", " ", "."]), max_size=60), st.integers(0, 5))
def test_an_exchange_is_of_neighbours_in_a_word(old, seed):
    for share in (0.02, 0.1, 0.7):
        new = characters(exchanged(share)("".join(old), random.Random(seed)))
        found = i = 0
        while i < len(old):
            if new[i] == old[i]:
                i += 1
                continue
            assert new[i : i + 2] == old[i : i + 2][::-1]
            assert all(map(is_word, old[i : i + 2]))
            found, i = found + 1, i + 2
        assert found <= share * sum(map(is_word, old)) + 1


def test_as_many_are_exchanged_as_the_share_says():
    text = " ".join(sentences(1, 40))
    for name, share in EXCHANGES.items():
        news = [of(name, text, seed) for seed in range(4)]
        assert len({*news}) == 4
        words = sum(map(is_word, text))
        for new in news:
            assert sum(a != b for a, b in zip(new, text, strict=True)) / 2 / words == pytest.approx(
                share, abs=1 / words
            )
            assert [is_word(one) for one in new] == [is_word(one) for one in text]  # words stay where they are
    short = [of("exchanged_2", "abcdefghij", seed) != "abcdefghij" for seed in range(400)]
    assert 0.1 < sum(short) / len(short) < 0.3  # a text of 10 characters has 0.2 of them


READERS = {
    "whitespace": lambda: ByteReader(["whitespace"]),
    "tokens": lambda: TokenReader(Tokenizer(train_bpe([text.encode() for text in SAMPLE], 300))),
}
DOCUMENTS = {"xx": [text.encode() for text in SAMPLE[:3]], "th": [SAMPLE[3].encode(), b"", "ๆ".encode()]}


@pytest.fixture(scope="module", params=READERS)
def model(request):
    reader = READERS[request.param]()
    stages = 1 if reader.tokenizer else 2
    return tiny_model(tiny(stages, vocabulary=reader.size), stack=reader.stack), reader


def test_bits_are_those_of_the_changed_text(model):
    net, reader = model
    found = list(robustness(net, reader, DOCUMENTS, row_ids=60, seed=3))
    assert len(found) == len(CHANGES) * 6
    for one in found:
        text = DOCUMENTS[one.language][one.document].decode()
        new = CHANGES[one.change](text, random.Random(f"3/{one.change}/{text}"))
        assert (one.after is None) == (new == text)
        for sums, version in [(one.before, text), *([(one.after, new)] if one.after else [])]:
            (plain,) = score(net, reader, [version.encode()], 60)
            assert sums.bytes == len(version.encode())
            assert sums.bits == pytest.approx(plain.bits, rel=1e-4, abs=1e-6)
            assert sums.units == (plain.levels > 0).sum()


def test_a_document_depends_on_no_other(model):
    net, reader = model
    alone = robustness(net, reader, {"th": DOCUMENTS["th"][:1]}, changes_of(["exchanged_10", "no_blanks"]), seed=1)
    beside = {(one.language, one.document, one.change): one for one in robustness(net, reader, DOCUMENTS, seed=1)}
    for one in alone:
        other = beside[one.language, one.document, one.change]
        assert one.after is not None
        assert one.after[::2] == other.after[::2]
        assert one.after.bits == pytest.approx(other.after.bits, rel=1e-4)


def test_a_text_that_a_change_leaves_as_it_is_is_in_no_sum():
    found = [
        Changed("upper", "en", 0, Sums(10, 20.0, 2), Sums(12, 30.0, 3)),
        Changed("upper", "en", 1, Sums(1000, 1.0, 9), None),
        Changed("upper", "en", 2, Sums(10, 10.0, 2), Sums(12, 30.0, 2)),
        Changed("nfd", "en", 0, Sums(10, 20.0, 2), None),
        Changed("upper", "th", 0, Sums(10, 20.0, 2), None),
        Changed("nfd", "th", 0, Sums(10, 20.0, 2), Sums(20, 20.0, 0)),
    ]
    english, *others = effects(found)
    assert (english.documents, english.same) == (2, 1)
    assert english.before == (20, 30.0, 4)
    assert english.after == (24, 60.0, 5)
    assert (english.before.bpb, english.after.bpb, english.bits_per_original_byte) == (1.5, 2.5, 3.0)
    assert (english.relative_bits, english.relative_units) == (2.0, 1.25)
    assert english.relative_bpb == pytest.approx(5 / 3)
    assert [(one.documents, one.same, math.isnan(one.relative_bits)) for one in others] == [
        (0, 1, True),
        (0, 1, True),
        (1, 0, False),
    ]
    rows = table([english, *others])
    assert rows == [
        ["language", "upper", "nfd"],
        ["en", "2.000", "–"],
        ["th", "–", "1.000"],
        ["(mean)", "2.000", "1.000"],
    ]
    assert len(aligned(details([english, *others]), left=("language",))) == 5
    assert as_metrics([english, *others]) == {"eval/robustness_upper_en": 2.0, "eval/robustness_nfd_th": 1.0}


def test_what_cannot_be_changed_is_told(model):
    with pytest.raises(ValueError, match="'uper' is no change of a text: choose among upper"):
        changes_of(["uper"])
    with pytest.raises(ValueError, match="document 1 of en is not UTF-8 at byte 1"):
        next(robustness(*model, {"en": [b"a", b"a\xff"]}))
