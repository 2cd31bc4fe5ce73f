"""The commands about splitters: pictures, statistics, words, vocabularies."""

import csv
import io
import json
import math
import re

import numpy as np
import pytest

from aunet_lightning.cli.main import main
from aunet_lightning.cli.plan import _parser as _plan_parser
from aunet_lightning.cli.split import _split_parser
from aunet_lightning.reports import units
from aunet_lightning.reports.table import TOTAL
from aunet_lightning.reports.word_agreement import agreement, marked_words
from splitters import Stack, build
from tests.helpers import UDHR

WORDS = {
    "zh-Hans": (
        "人人生而自由，在尊严和权利上一律平等",
        ["人生", "而", "自由", "在", "尊严", "和", "权利", "上", "一律", "平等"],
    ),
    "th": ("มนุษย์ทั้งหลายเกิดมามีอิสระ", ["ทั้ง", "เกิด", "มี", "อิสระ"]),
    "ja": ("すべての人間は、生まれながらにして自由", ["人間", "は", "自由"]),
}


def plain_statistics(documents, splitter):
    """Lengths of units, and bytes at offset 16 and more, byte by byte; BOS stands before each document."""
    lengths, past, characters = [], 0, 0
    for data in documents:
        offset, length = 0, 0  # of BOS
        for fires in build(splitter).split(data):
            if fires and length:
                lengths.append(length)
            offset, length = (0, 1) if fires else (offset + 1, length + 1)
            past += offset >= 16
        lengths += [length] if length else []
        characters += len(data.decode())
    return lengths, past, characters


@pytest.mark.parametrize("splitter", ["whitespace", "script_aware", "trie", "fixed"])
def test_statistics_equal_plain_counting(splitter):
    lines = (UDHR / "th.jsonl").open().readlines()[:5]
    documents = [*(json.loads(line)["text"].encode() for line in lines), b"x", b" "]
    (total, row) = units.measure([("th", data) for data in documents], {splitter: Stack([splitter])})
    lengths, past, characters = plain_statistics(documents, splitter)
    assert total.language == TOTAL
    assert (row.language, row.splitter, row.stage, row.documents) == ("th", splitter, 2, 7)
    assert (row.units, row.longest, row.bytes) == (len(lengths), max(lengths), sum(lengths))
    assert row.bytes_per_unit == pytest.approx(np.mean(lengths))
    assert (row.p50, row.p90, row.p99) == tuple(np.percentile(lengths, [50, 90, 99]))
    assert row.units_per_character == pytest.approx(len(lengths) / characters)
    assert row.past_offset_16 == pytest.approx(past / sum(lengths))
    assert row.mb_per_second > 0


def test_stages_above_have_longer_units():
    stack = Stack(["whitespace", {"name": "every", "n": 2}])
    rows = units.measure([("en", b"a b c d e f g h i j. k l m n")], {"words": stack})
    assert [row.stage for row in rows] == [2, 3, 2, 3]
    assert rows[3].units < rows[2].units


def test_offsets_of_a_higher_stage_count_positions_of_the_stage_below():
    text = b"a" * 40 + b" " + b"b " * 40
    stack = Stack(["whitespace", {"name": "every", "n": 30, "sentence_end": False}])
    words, groups = units.measure([("en", text)], {"words": stack})[2:]
    assert words.past_offset_16 == pytest.approx((40 - 15) / len(text))  # BOS is at offset 0 of the first unit
    positions = int((stack.levels(text) > 0).sum())  # 41 blanks: the 30th begins a unit of 12, BOS one of 30
    assert groups.past_offset_16 == pytest.approx((30 - 16) / positions)


@pytest.mark.parametrize("language", sorted(WORDS))
def test_words_of_a_dictionary(language):
    pytest.importorskip("icu4py")
    text, words = WORDS[language]
    found = marked_words(text, language)
    assert {text.index(word) for word in words} <= found.begins
    assert 0 not in found.begins  # the first word of a text is no achievement


def test_words_after_characters_that_take_two_of_utf_16():
    pytest.importorskip("icu4py")
    text, _ = WORDS["ja"]
    moved = {begin + 3 for begin in marked_words(text, "ja").begins}
    assert moved <= marked_words("😀😀。" + text, "ja").begins


def test_words_of_zero_width_spaces():
    text = "ខ្ញុំ\u200bទៅ\u200bផ្សារ\u200bទិញ បាយ។"
    found = marked_words(text, "km")
    assert found.text == text.replace("\u200b", "")
    assert sorted(found.begins) == [found.text.index(word) for word in ("ទៅ", "ផ្សារ", "ទិញ", "បាយ")]


@pytest.mark.parametrize(("text", "language"), [("All human beings", "en"), ("", "en"), ("a\u200bb", "en")])
def test_nobody_marked_the_words(text, language):
    assert marked_words(text, language) is None


def test_agreement_is_precision_and_recall():
    words = marked_words("ខ្ញុំ\u200bទៅ\u200bផ្សារ\u200bទិញ", "km")
    every = agreement([words], Stack(["utf8_character"]))
    assert every.recall == 1
    assert every.precision == pytest.approx(3 / (len(words.text) - 1))
    assert every.f1 == pytest.approx(2 / (1 / every.precision + 1))
    none = agreement([words], Stack(["whitespace"]))
    assert (none.recall, none.f1) == (0, 0)
    assert agreement([], Stack(["whitespace"])) is None


def test_a_rule_that_cuts_at_the_marks_agrees_fully():
    words = marked_words("ab\u200bcd\u200bef\u200bgh, ij", "km")
    rule = build("pattern", patterns=[r"(?<=[bdf])\p{L}", r"\s"])
    assert tuple(agreement([words], Stack([rule]))) == (1, 1, 1)


def show(capsys, *arguments):
    assert main([*arguments]) == 0
    return capsys.readouterr()


def test_split_reads_text_files_and_standard_input(tmp_path, capsys, monkeypatch):
    (tmp_path / "plain.txt").write_text("one two")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"one two"), encoding="utf-8"))
    for source in (["one two"], [str(tmp_path / "plain.txt")], []):
        assert show(capsys, "split", *source).out.startswith("one│ two\n")


def test_a_text_may_end_like_a_file(capsys):
    assert show(capsys, "split", "see my notes.txt").out.startswith("see│ my│ notes│.txt\n")


def test_split_shows_several_splitters_and_stages(capsys):
    shown = show(
        capsys, "split", "人人生而 a b", "--splitter", "whitespace", "--splitter", "script_aware", "--stages", "3"
    )
    assert "text · whitespace\n人人生而│ a║ b" in shown.out
    assert "text · script_aware\n│人人║生而│ a║ b" in shown.out
    assert "stage 3: 2 boundaries in 16 bytes, 5.33 bytes per unit" in shown.out


def test_split_colours_a_terminal_only(capsys, monkeypatch):
    assert "\x1b[" not in show(capsys, "split", "a b").out
    assert "\x1b[48;5;" in show(capsys, "split", "a b", "--color", "always").out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in show(capsys, "split", "a b").out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in show(capsys, "split", "a b").out


def test_split_says_what_it_leaves_out(capsys):
    shown = show(capsys, "split", str(UDHR / "en.jsonl"), "--characters", "20")
    assert "the first 20 of" in shown.err
    assert "the first of each language and file, 1 of 31 documents" in shown.err
    shown = show(capsys, "split", str(UDHR / "en.jsonl"), "--stats", "--megabytes", "0.005")
    assert re.search(r"--megabytes 0.005 left out documents: en \d+", shown.err)


def test_statistics_as_table_csv_plot_and_page(tmp_path, capsys):
    pytest.importorskip("icu4py")
    files = [str(UDHR / f"{language}.jsonl") for language in ("en", "zh-Hans", "th")]
    shown = show(
        capsys, "split", *files, "--stats", "--splitter", "whitespace", "--splitter", "{name: fixed, n: 6}",
        "--csv", str(tmp_path / "s.csv"), "--plot", str(tmp_path / "s.png"), "--html", str(tmp_path / "s.html"),
    )  # fmt: skip
    header, *lines = shown.out.splitlines()
    assert header.split()[:3] == ["language", "splitter", "bytes/unit"]
    assert "precision" in header
    assert len(lines) == 8
    rows = list(csv.DictReader((tmp_path / "s.csv").open()))
    assert [row["language"] for row in rows] == [TOTAL] * 2 + ["en"] * 2 + ["th"] * 2 + ["zh-Hans"] * 2
    assert rows[2]["f1"] == ""
    assert 0 < float(rows[4]["f1"]) < 1
    assert float(rows[3]["bytes_per_unit"]) == pytest.approx(6, abs=0.1)
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "s.html").read_text().count("<tr>") == 6


@pytest.mark.parametrize(
    ("parser", "old", "new"),
    [
        (_split_parser, ["--checkpoint", "a.ckpt", "--no-words"], ["--ckpt_path", "a.ckpt", "--no_words"]),
        (_split_parser, ["--upper", "every", "--upper", "fixed"], ["--upper_splitters", "every", "fixed"]),
        (_plan_parser, ["--upper", "every", "fixed"], ["--upper_splitters", "every", "fixed"]),
    ],
)
def test_older_spellings_of_options_work_and_are_not_listed(parser, old, new):
    assert parser().parse_args(old) == parser().parse_args(new)
    listed = parser().format_help().split()
    assert not {option for option in old if option.startswith("--")} & set(listed)


def test_a_table_without_words_has_no_columns_for_them():
    rows = units.measure([("en", b"a b c")], {"whitespace": Stack(["whitespace"])})
    assert math.isnan(rows[0].f1)
    assert "precision" not in units.as_text(rows)


def test_a_vocabulary_is_trained_and_used(tmp_path, capsys):
    out = tmp_path / "deep" / "th.json"
    shown = show(capsys, "vocabulary", str(UDHR / "th.jsonl"), "--size", "600", "--out", str(out)).out
    assert "trained on 31 documents" in shown
    assert "600 entries" in shown
    spec = re.search(r"--splitter '(.*)'", shown)[1]
    assert "bytes per unit" in show(capsys, "split", "ทุกคนมีสิทธิ", "--splitter", spec).out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["split", "gone.jsonl"], ["'gone.jsonl' is not a file"]),
        (["split", ""], ["no text"]),
        (["split", "a", "--stages", "1"], ["--stages is 1", "2 to 32"]),
        (["split", "a", "--stages", "3", "--upper_splitters", "every"], ["--stages and --upper_splitters"]),
        (["split", "a", "--plot", "/nowhere/a.png"], ["/nowhere/a.png"]),
        (["split", "a", "--plot", "a.doc"], ["a.doc", ".png"]),
        (["split", "a", "--characters", "-5"], ["--characters is -5", "1 or more"]),
        (["split", "a", "--stats", "--megabytes", "nan"], ["--megabytes is nan", "above 0"]),
        (["split", "/tmp"], ["'/tmp' is not a file"]),
        (["split", "a", "--splitter", "builtins:object"], ["builtins:object", "must be a class that inherits"]),
        (
            ["split", "a", "--splitter", "tests.test_splitter_laws:PeekingSplitter"],
            ["PeekingSplitter breaks the prefix law"],
        ),
        (["split", "a", "--splitter", "{name: fixed, 5: 3}"], ["fixed", "'5'"]),
        (["vocabulary", "gone", "--out", "v.json"], ["'gone' is not a file"]),
        (["vocabulary", str(UDHR / "en.jsonl"), "--size", "9", "--out", "v.json"], ["vocabulary is 9", "257"]),
    ],
)
def test_mistakes_get_one_sentence(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("aunet: error: ")
    assert all(word in error for word in words), error
    assert not list(tmp_path.iterdir())
