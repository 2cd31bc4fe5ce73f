"""Teachers: hand-written examples, plain versions, any bytes, and the errors of a wrong name or option."""

import itertools
import pickle
import subprocess
import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from splitters import available, build, registry
from splitters.edge_texts import SCRIPTS, short_texts
from splitters.engine.compiled import compiled
from splitters.registry import TEACHERS, register, resolve_teacher
from splitters.teachers import Teacher
from splitters.teachers.bpe_merged import merge_pairs
from tests.helpers import MIXED
from tests.teaching import GPT2, SPECS, THAI, marked, places, teacher

CASES = [(name, at) for name in SPECS for at in ("start", "end")]
SCRIPT_TEXT = st.text("".join(SCRIPTS.values()), max_size=24)


def test_every_teacher_is_tested_here_and_documented():
    assert set(SPECS) == set(TEACHERS.classes())
    for cls in TEACHERS.classes().values():
        assert cls.source
        assert cls.__doc__


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("start", "│a, │b (│c) │don't │3.14! │ok👍🏽 - │1️⃣ │e\u0301te\u0301"),
        ("end", "a│, b│ (c│) don't│ 3.14│! ok│👍🏽 - 1️⃣│ e\u0301te\u0301│"),
        ("start", "│ทุก│คน│เกิด│มา │จะ│เรียน"),
        ("end", "ทุก│คน│เกิด│มา│ จะ│เรียน│"),
        ("start", "│尊严│和│权利，│一律│平等。"),
        ("end", "尊严│和│权利│，一律│平等│。"),
        ("start", "│人間│は、│漢字│ABC"),
        ("start", "│មនុស្ស│ទាំងអស់│កើតមក។"),
        ("start", "│Linux│世界 │จะ│เรียน"),
        ("start", "… │모든 │인간은"),
    ],
)
def test_words(at, expected):
    text = expected.replace("│", "")
    assert marked(teacher("words", at=at), text) == expected


@settings(max_examples=80)
@given(SCRIPT_TEXT)
def test_words_equal_the_plain_ones(text):
    breakers = pytest.importorskip("icu4py.breakers")
    clusters, words, begin = {match.start() for match in regex.finditer(r"\X", text)}, [""], 0
    for segment in breakers.WordBreaker(text, "root"):
        words += [segment] if begin in clusters else [words.pop() + segment]
        begin += len(segment)
    begins = np.cumsum([0, *map(len, words)]).tolist()
    spelled = [(begin, word) for begin, word in zip(begins, words, strict=False) if regex.search(r"[\p{L}\p{N}]", word)]
    assert places(teacher("words"), text) == {begin for begin, _ in spelled}
    assert places(teacher("words", at="end"), text) == {begin + len(word) - 1 for begin, word in spelled}


@pytest.mark.parametrize("locale", ["en", "th", "zh", "km", "root", "xx"])
def test_the_locale_does_not_choose_the_dictionary(locale):
    text = "ทุกคนเกิดมา 人人生而自由 すべての人間 មនុស្សទាំងអស់ all men"
    assert places(teacher("words", locale=locale), text) == places(teacher("words"), text)


def test_words_leave_stacked_consonants_intact():
    text = "".join(f"{a}{joint}{b}" for joint in "\u1039\u17d2" for a in "\u1010\u1789\u1793" for b in "\u1010\u1794")
    starts = places(build("grapheme"), text)
    assert places(teacher("words"), text) <= starts


def test_words_without_icu4py_name_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "icu4py.breakers", None)
    with pytest.raises(ValueError, match=r"pip install 'aunet-lightning\[words\]'"):
        resolve_teacher("words")


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("end", "មនុស្ស│\u200bទាំង│\u200bអស់│ កើត។│\u200b\u200b \u200bក│"),
        ("start", "│មនុស្ស\u200b│ទាំង\u200b│អស់ │កើត។\u200b\u200b \u200b│ក"),
        ("end", "\u200b a│ -│\n中文│ 👍🏽│\u3000"),
    ],
)
def test_zero_width_spaces(at, expected):
    assert marked(teacher("zero_width_space", at=at), expected.replace("│", "")) == expected


@settings(max_examples=80)
@given(SCRIPT_TEXT, st.sampled_from(["start", "end"]))
def test_zero_width_spaces_equal_the_plain_ones(text, at):
    found = [match.span() for match in regex.finditer(r"[^\s\u200b]+", text)]
    expected = {begin if at == "start" else end - 1 for begin, end in found}
    assert places(teacher("zero_width_space", at=at), text) == expected


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("start", "│camel│Case│ don'│t│ 3.│14,│ 人│人│ 👩\u200d👧│🇯🇵│\n│(│a)"),
        ("end", "camel│Case│ don'│t│ 3.│14,│ 人│人│ 👩\u200d👧│🇯🇵│\n│(│a)│"),
        ("start", "│1\u20442│ 3│\u2044.│ 4\u0301│\u2044│x"),
    ],
)
def test_unicode_words(at, expected):
    assert marked(teacher("unicode_words", at=at), expected.replace("│", "")) == expected


WORDY = "\r\n\v\t  aabBZ1\u0301\u200d\u00ad.'_\",\u2044\u202f\u2003\u00a0🇯🇩👩❤Ⓜℹא׳՛‼ǅ$"  # no script with a dictionary
MARKS = r"[\p{WB=Extend}\p{WB=Format}\u200d]"


def plain_unicode_words(text, segments):
    """The words of HAT from the segments of UAX #29, which ICU finds."""
    cut = rf"(?<=\p{{P}}{MARKS}*)(?!{MARKS})(?=.)|(?<=\p{{Ll}}{MARKS}*)(?=\p{{Lu}})"
    found, before = [], "\n"
    for piece in (piece for segment in segments for piece in regex.split(cut, segment, flags=regex.V1)):
        bare = regex.sub(rf"(?<=[^\r\n\v]){MARKS}+", "", piece, flags=regex.V1)
        blank = [each.isspace() and each[0] != "\u202f" for each in (before, bare)]
        joins = before == " " or not blank[0] if regex.match(r"\p{P}", bare) else before == " " and not blank[1]
        found += [found.pop() + piece if joins else piece]
        before = bare
    return found


def test_unicode_words_equal_the_plain_ones():
    breakers = pytest.importorskip("icu4py.breakers")
    start, end = (teacher("unicode_words", at=at) for at in ("start", "end"))

    @settings(max_examples=300)
    @given(st.text(WORDY, max_size=8))
    @example("\t\u200d‼.")  # a blank, and an emoji that a joiner binds to it
    def check(text):
        sizes = list(map(len, plain_unicode_words(text, breakers.WordBreaker(text, "root") if text else [])))
        ends = np.cumsum(sizes, dtype=int)
        assert places(end, text) == set((ends - 1).tolist())
        assert places(start, text) == set((ends - sizes).tolist())

    check()


def test_unicode_words_differ_from_the_rule_in_unfinished_fractions_alone():
    subject, rule = teacher("unicode_words", at="start"), build("unicode_word")

    @settings(max_examples=200)
    @given(st.text(WORDY + "中かカ〱ไ한🏽\u0e31", max_size=12))
    def check(text):
        assert all(text[at] == "\u2044" for at in places(subject, text) ^ places(rule, text))

    check()


def plain_merges(symbols, sizes, n_units):
    """Counts all pairs before each merge."""
    symbols, sizes, begins = list(symbols), list(sizes), list(range(len(symbols)))
    while len(symbols) > n_units:
        pairs = list(itertools.pairwise(symbols))
        key = [(-pairs.count(pair), sum(sizes[at : at + 2]), at) for at, pair in enumerate(pairs)]
        best, at = pairs[min(key)[2]], 0
        while at < len(symbols) - 1 and len(symbols) > n_units:
            if (symbols[at], symbols[at + 1]) == best:
                symbols[at : at + 2], sizes[at : at + 2] = [best], [sum(sizes[at : at + 2])]
                del begins[at + 1]
            at += 1
    return begins


@settings(max_examples=200)
@given(
    st.lists(st.integers(0, 3), min_size=2, max_size=24),
    st.integers(1, 23),
    st.sampled_from([merge_pairs, compiled(merge_pairs)]),
)
def test_merges_equal_the_plain_ones(symbols, n_units, merge):
    symbols = np.array(symbols) % len(symbols)
    sizes, n_units = symbols % 2 + 1, min(n_units, len(symbols) - 1)
    assert np.flatnonzero(merge(symbols, sizes, n_units)).tolist() == plain_merges(
        symbols.tolist(), sizes.tolist(), n_units
    )


@pytest.mark.parametrize("at", ["start", "end"])
def test_bpe_merged_reaches_its_rate_by_dropping_boundaries_of_tokens(at):
    subject = teacher("bpe_merged", at=at)

    @settings(max_examples=40)
    @given(st.text(THAI + "the and of é👍🏽 \n", max_size=60), st.floats(3, 16))
    def check(text, rate):
        subject.bytes_per_unit = rate
        tokens, merged = places(subject.tokens, text), places(subject, text)
        assert merged <= tokens
        assert len(merged) == min(max(round(len(text.encode()) / rate), 1), len(tokens))

    check()


def test_bpe_merged_merges_the_most_frequent_pair_of_the_text_first():
    text = "of the, of the; of the mill"
    assert marked(teacher("bpe_merged", bytes_per_unit=4), text) == "of│ the,│ of the│;│ of the│ m│ill│"


@pytest.mark.parametrize(
    ("patterns", "at", "expected"),
    [
        (GPT2, "end", "Hello│ world│'s│  │ 12│中文│\n│"),
        (GPT2, "start", "│Hello│ world│'s│  │ 12│中文│\n"),
        (r"\s+(?!\S)", "end", "a b  │ c"),
        (["b(?=c)", r"\d+"], "end", "ab│c bb 12│"),
        (r"\b", "end", "empty matches"),
        (r"\X", "start", "│e\u0301│👩\u200d👧│ก้│中"),
    ],
)
def test_regex(patterns, at, expected):
    text = expected.replace("│", "")
    assert marked(teacher("regex", patterns=patterns, at=at), text) == expected


@pytest.mark.parametrize(("pattern", "at"), [(r"\S+\s", "end"), (r"\p{L}+", "start"), (r"(?<=\s)\S", "end")])
def test_regex_equals_the_rule_pattern_where_nothing_peeks(pattern, at):
    rule, same = build("pattern", patterns=pattern, at=at), teacher("regex", patterns=pattern, at=at)
    for data in [MIXED, *(text.encode() for text in SCRIPTS.values())]:
        assert same.split(data).tolist() == rule.split(data).tolist()


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        ("a(b", r"'a\(b' is not a regular expression: missing \) at position 3"),
        (["a", "[b"], r"'\[b' is not a regular expression: .* at position 2"),
        ([], r"patterns is \[\]"),
        (3, "patterns is 3"),
        ("(?R)?a", "calls itself"),
        ("(?:" * 5000 + ")" * 5000, "nested too deep"),
    ],
)
def test_an_invalid_expression_is_named(patterns, words):
    with pytest.raises(ValueError, match=words):
        teacher("regex", patterns=patterns)


@pytest.mark.parametrize(("name", "at"), CASES)
def test_any_bytes_have_boundaries_of_the_right_form(name, at):
    subject = teacher(name, at=at)
    copied = pickle.loads(pickle.dumps(subject))  # for data workers

    def holds(data):
        boundary = subject.split(data)
        assert boundary.dtype == bool
        assert boundary.shape == (len(data),)
        assert np.array_equal(copied.split(data), boundary)

    for data in short_texts().values():
        holds(data)
    settings(max_examples=40)(given(st.binary(max_size=40))(holds))()


@pytest.mark.parametrize("name", SPECS)
def test_invalid_bytes_do_not_move_other_boundaries(name):
    data = b"\xe4\xb8 ab\xff \x80cd \xf0\x9f"
    text = data.decode("utf-8", "surrogateescape")
    as_text = "".join("\ufffd" if c >= "\udc80" else c for c in text)
    ends = np.cumsum([len(c.encode("utf-8", "surrogateescape")) for c in text]) - 1
    expected = sorted(ends[list(places(teacher(name), as_text))].tolist())
    assert np.flatnonzero(teacher(name).split(data)).tolist() == expected


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("text", [THAI.encode() * 3000, b"a" * 1_000_000])
def test_a_long_text(name, text):
    assert teacher(name).split(text).any()


@pytest.mark.parametrize(
    ("name", "at", "begin", "text"),
    [
        ("words", "start", "研究生", "研究生命"),  # postgraduate; to study life
        ("zero_width_space", "end", "a", "ab"),
        ("regex", "end", "a  ", "a  b"),
        ("tokenizer", "end", "he", "hello"),
        ("tokenizer", "start", "he", "hello"),
        ("unicode_words", "end", "he", "hello"),
        ("unicode_words", "start", "1\u2044", "1\u20442"),
        ("bpe_merged", "end", "he", "hello"),
    ],
)
def test_a_teacher_looks_ahead(name, at, begin, text):
    subject = teacher(name, at=at)
    assert places(subject, begin) != {place for place in places(subject, text) if place < len(begin)}
    assert subject.looks_ahead


@pytest.mark.parametrize("name", SPECS)
def test_a_teacher_is_not_a_splitter(name):
    assert name not in available()
    with pytest.raises(ValueError, match="unknown splitter"):
        build(name)


class Halves(Teacher):
    """A boundary in the middle, which no splitter can know."""

    def split(self, data):
        return np.arange(len(data)) == len(data) // 2


class Unfinished(Teacher):
    pass


def test_every_rule_can_teach():
    for spec in ("whitespace", {"name": "fixed", "n": 3}, build("fixed"), "splitters.rules.fixed:Fixed"):
        subject = resolve_teacher(spec)
        assert not subject.looks_ahead
        assert subject.split(b"ab cd").any()
    assert np.flatnonzero(resolve_teacher({"name": "fixed", "n": 3}).split(b"abcdef")).tolist() == [2, 5]


@pytest.fixture
def clean_registry(monkeypatch):
    monkeypatch.setattr(TEACHERS, "registered", dict(TEACHERS.classes()))
    monkeypatch.setattr(TEACHERS, "loaded", set())


def test_a_teacher_registers_as_a_splitter_does(clean_registry):
    register("halves")(Halves)
    assert isinstance(resolve_teacher("halves"), Halves)
    assert "halves" not in available()
    with pytest.raises(ValueError, match=r"teacher 'words' is already splitters\.teachers\.words\.Words"):
        register("words")(Halves)
    with pytest.raises(TypeError, match="teacher 'half': Unfinished lacks split"):
        register("half")(Unfinished)


def test_a_package_adds_a_teacher_by_an_entry_point(clean_registry, monkeypatch):
    points = [EntryPoint("halves", "tests.test_teachers:Halves", "aunet.teachers")]
    monkeypatch.setattr(registry, "_announced", lambda group: points if group == "aunet.teachers" else [])
    assert isinstance(resolve_teacher("halves"), Halves)
    points.append(EntryPoint("half", "tests.test_teachers:Unfinished", "aunet.teachers"))
    with pytest.raises(ValueError, match=r"the teacher 'half' of package .* cannot be registered: .*lacks split"):
        resolve_teacher("words")


def test_your_own_teacher():
    own = resolve_teacher("tests.test_teachers:Halves")
    assert own.split(b"abcd").tolist() == [False, False, True, False]
    assert resolve_teacher(own) is own


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("word", r"unknown teacher 'word': known are bpe_merged, regex, tokenizer, unicode_words, words, zero_width_space, every splitter .* Did you mean 'words'\?"),
        ({"name": "whitespac"}, "Did you mean 'whitespace'"),
        ({"name": "zero_width_space", "when": "end"}, r"teacher 'zero_width_space': .*'when'; its options are \(at: "),
        ({"name": "fixed", "m": 3}, r"splitter 'fixed': .*its options are"),
        ({"name": "zero_width_space", "at": "middle"}, "zero_width_space: at is 'middle', it must be 'start' or 'end'"),
        ("regex", "missing a required argument: 'patterns'"),
        ("every", "distilled: 'every' groups the units"),
        ("router", "distilled: 'router' reads the hidden states"),
        ("tests.test_teachers:Unfinished", "Unfinished lacks split"),
        ("tests.test_teachers:GPT2", "must be a class that inherits from splitters.teachers.Teacher"),
        ("no_such_module:Teacher", "cannot be imported: ModuleNotFoundError"),
        ({"at": "end"}, "has no name"),
        (3, "expected a name"),
    ],
)  # fmt: skip
def test_a_wrong_teacher_is_named(spec, words):
    with pytest.raises(ValueError, match=words):
        resolve_teacher(spec)


def test_importing_the_teachers_loads_none_of_their_libraries():
    heavy = "{'icu4py', 'tokenizers', 'torch', 'numba'}"
    code = f"import sys, splitters.registry as r; r.TEACHERS.classes(); print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
