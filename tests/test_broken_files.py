"""Broken text: it stops before training, with file, place and remedy, or is skipped, counted and shown.

(JSON lines, and what all formats share; tests/test_formats.py has what breaks others.)
"""

import bz2
import gzip
import json
import lzma
import re
import tracemalloc
import warnings
from types import SimpleNamespace

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from aunet_lightning.data.documents import Report
from aunet_lightning.data.skipped import FEW, check_skipped
from tests.helpers import aunet, data_of, error_of, fit, points, sentences, write

pytestmark = pytest.mark.usefixtures("here")

PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress}
GOOD = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in sentences(1, 20))
TEXT = GOOD.decode()


def many(line):
    return line * 30


# What stops: the files by name, settings, and what the error says: file, place where there is one, remedy

STOPS = {
    "missing": ({}, [], r"data\.train_files: no file matches 'a\.jsonl' \(looked from /"),
    "empty": ({"a.jsonl": b""}, [], r"nothing is in a\.jsonl: name a file that holds text"),
    "empty, compressed": ({"a.jsonl": gzip.compress(b"")}, [], r"nothing is in a\.jsonl: name a file that holds text"),
    "blank lines": ({"a.jsonl": b"\n \n"}, [], r"2 × empty line \(a\.jsonl:1, a\.jsonl:2\): name a file that holds text"),
    "no JSON": ({"a.jsonl": many(b"abc\n")}, [], r"30 × invalid JSON \(a\.jsonl:1, .*: JSON lines have an object on each"),
    "an array": ({"a.jsonl": b"[" + b",\n".join(GOOD.splitlines()) + b"]"}, [], r"invalid JSON \(a\.jsonl:1.*\(format: json\)"),
    "absent fields": ({"a.jsonl": many(b'{"body": "x"}\n')}, [], r"no line has the key 'text' \(data\.text_key\); lines have 'body'"),
    "fields of no text": ({"a.jsonl": many(b'{"text": 3}\n')}, [], r"no string under 'text' \(a\.jsonl:1.*\(text_key\), if it is another"),
    "not UTF-8": ({"a.jsonl": many(b'{"text": "\xff"}\n')}, [], r"not UTF-8 \(a\.jsonl:1.*: convert the file to UTF-8, iconv"),
    "UTF-16": ({"a.jsonl": TEXT.encode("utf-16")}, [], r"a\.jsonl is UTF-16, not UTF-8: convert it, iconv -f UTF-16 "),
    "UTF-32": ({"a.jsonl": TEXT.encode("utf-32")}, [], r"a\.jsonl is UTF-32, not UTF-8: convert it, iconv -f UTF-32 "),
    "UTF-16 LE": ({"a.jsonl": TEXT.encode("utf-16-le")}, [], r"NUL byte \(a\.jsonl:1, .*: if it is UTF-16, convert it, iconv"),
    "UTF-16 BE": ({"a.jsonl": TEXT.encode("utf-16-be")}, [], r"NUL byte \(a\.jsonl:1, .*: if it is UTF-16, convert it, iconv"),
    "not as its name says": ({"a.jsonl.gz": GOOD}, [], r"a\.jsonl\.gz cannot be read to its end \(it does not begin as \.gz files do\)"),
    "rubbish at the end": ({"a.jsonl.gz": gzip.compress(GOOD) + b"x"}, [], r"a\.jsonl\.gz cannot be read .*is it complete"),
    "rubbish inside": ({"a.jsonl.gz": gzip.compress(GOOD)[:40] + bytes(9) + gzip.compress(GOOD)[49:]}, [], r"a\.jsonl\.gz cannot be read .*is it"),
    "too many": ({"a.jsonl": GOOD + many(b"abc\n")}, [], r"30 of 50 lines .* 30 × invalid JSON \(a\.jsonl:21, a\.jsonl:22, a\.jsonl:23, …\): that is more than data\.skipped_limit, 0\.01\. Correct .*or raise the limit"),
    "too many of validation": ({"a.jsonl": GOOD, "b.jsonl": b"1\n" + GOOD}, ["--data.val_files", "b.jsonl", "--data.skipped_limit", 0], r"data\.val_files: 1 of 21 lines .*\(b\.jsonl:1\): that is more than data\.skipped_limit, 0\."),
    "one document": ({"a.jsonl": b'{"text": "one"}\n'}, ["--data.holdout_every", 2], r"no document is left for val: no file has 2 documents of a language; lower"),
    **{f"{name} held out": ({"a.jsonl": GOOD}, ["--data.holdout_every", name], rf"data\.holdout_every is {name}, it must be 2 or more") for name in ("0", "-3", "1")},
    **{f"{suffix} cut by {n} bytes": ({f"a.jsonl{suffix}": pack(GOOD)[:-n]}, [], rf"a\.jsonl\{suffix} cannot be read to its end \(.*\): is it complete") for suffix, pack in PACK.items() for n in (1, 4, 150)},
}  # fmt: skip


@pytest.mark.parametrize(("files", "given", "words"), STOPS.values(), ids=[*STOPS])
def test_what_stops_is_named_with_place_and_remedy(files, given, words, here, capsys):
    for name, data in files.items():
        (here / name).write_bytes(data)
    assert aunet("data", "check", "--data.train_files", next(iter(files), "a.jsonl"), *given) == 1
    said = error_of(capsys)
    assert re.search(words, said), said
    if "cannot be read" in said:
        assert not list((here / "cache").glob("a-*"))  # no half of it is kept


def test_a_run_stops_before_its_first_step(here, capsys):
    (here / "en.jsonl").write_bytes(GOOD + many(b"abc\n"))
    assert fit("--run.folder", "x") == 1
    assert "30 × invalid JSON (en.jsonl:21, " in error_of(capsys)
    assert not (here / "x" / "metrics.jsonl").exists()
    assert fit("--run.folder", "x", "--data.skipped_limit", "null") == 0
    assert (5, "train/bpb") in points(here / "x")


# What is skipped: one line of 21, with its reason; and what is as good as any

SKIPPED = {
    "no JSON": (b"{nope", "invalid JSON"), "no object": (b"[1]", "no string under 'text'"), "nested": (b"[" * 99_999, "invalid JSON"),
    "blank": (b"", "empty line"), "empty": (b'{"text": ""}', "empty text"), "absent": (b'{"title": "x"}', "no string under 'text'"),
    "a number": (b'{"text": 3}', "no string under 'text'"), "null": (b'{"text": null}', "no string under 'text'"),
    "a language of no text": (b'{"text": "x", "lang": 5}', "'lang' is not a string"), "not UTF-8": (b'{"text": "\xff"}', "not UTF-8"),
    "a surrogate in UTF-8": (b'{"text": "\xed\xa0\x80"}', "not UTF-8"), "NUL": (b'{"text": "\0"}', "NUL byte"),
    "a lone surrogate": (b'{"text": "a\\ud800"}', "lone surrogate in text"), "in the id": (b'{"text": "a", "id": "\\ud83d"}', "lone surrogate in 'id'"),
    "in the language": (b'{"text": "a", "lang": "\\udc00"}', "lone surrogate in 'lang'"),
}  # fmt: skip
FINE = {
    "a mark of UTF-8": ("\ufeff" + '{"text": "word"}', "word"), "a pair of surrogates": ('{"text": "\\ud83e\\udd1d"}', "🤝"),
    "a NUL that is written": ('{"text": "\\u0000"}', "\0"), "a line end of Windows": ('{"text": "word"}\r', "word"),
}  # fmt: skip


@pytest.mark.parametrize(("line", "reason"), SKIPPED.values(), ids=[*SKIPPED])
def test_a_line_that_is_skipped_is_counted_and_shown(line, reason, here, capsys):
    (here / "a.jsonl").write_bytes(line + b"\n" + GOOD)
    for _ in range(2):  # told again when the flat copy is used
        assert aunet("data", "check", "a.jsonl") == 0
        shown = capsys.readouterr()
        assert f"1 of 21 lines hold no usable document: 1 × {reason} (a.jsonl:1)" in shown.err
        assert shown.out.splitlines()[1].split()[:3] == ["train", "a", "20"]
    with pytest.warns(UserWarning, match="1 of 21 lines"):
        data = data_of("a.jsonl")
    assert data.skipped == {reason: 1}
    assert [text.decode() for _, text in data.texts("train")] == sentences(1, 20)


@pytest.mark.parametrize(("line", "text"), FINE.values(), ids=[*FINE])
def test_what_is_unusual_is_read(line, text, here):
    (here / "a.jsonl").write_bytes(line.encode() + b"\n" + GOOD)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert data_of("a.jsonl").texts("train")[0] == ("a", text.encode())


def test_a_file_without_documents_among_others_is_shown(here):
    for name in ("a", "b"):
        (here / f"{name}.jsonl").write_bytes(b"")
    with pytest.warns(UserWarning, match="no document is in") as told:
        assert len(data_of("a.jsonl", "en.jsonl", "b.jsonl").documents["train"]) == 40
    assert [str(one.message) for one in told] == ["train files: no document is in a.jsonl, b.jsonl"]


def test_text_that_is_trained_and_validated_on_and_languages_without_validation_are_shown(here, capsys):
    assert aunet("data", "check", "en.jsonl", "--data.val_files", "en.jsonl") == 0
    assert "100.0% of the val text (40 of 40 documents) is in the training text too" in capsys.readouterr().err
    write(here / "th.jsonl", ["คน"])
    assert aunet("data", "check", "en.jsonl", "th.jsonl", "--data.holdout_every", 10) == 0
    assert (
        "no document of th is held out: no file has data.holdout_every (10) documents of it" in capsys.readouterr().err
    )


# How much may be skipped


@given(
    st.integers(0, 3000),
    st.dictionaries(st.sampled_from(["invalid JSON", "not UTF-8", "empty line", "empty text"]), st.integers(1, 900)),
    st.none() | st.sampled_from([0.0, 0.01, 0.2, 1.0]),
)
@example(1000, {"invalid JSON": FEW}, 0.0)
@example(20, {"invalid JSON": FEW}, 0.01)
@example(1000, {"invalid JSON": FEW + 1}, 0.01)
@example(1100, {"invalid JSON": FEW + 1}, 0.01)
@example(1000, {"empty line": 900}, 0.0)
def test_a_share_and_more_than_a_few_of_what_holds_text_stop(documents, skipped, limit):
    lost = skipped.get("invalid JSON", 0) + skipped.get("not UTF-8", 0)
    stops = limit is not None and documents and lost and lost / (documents + lost) > limit and (lost > FEW or not limit)
    report = Report(documents, skipped=skipped, examples={reason: [":1"] for reason in skipped})
    corpus = SimpleNamespace(report=report, reports=[report], paths=["a"])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if stops:
            with pytest.raises(ValueError, match=r"that is more than data\.skipped_limit"):
                check_skipped("train", corpus, limit)
        else:
            check_skipped("train", corpus, limit)
    assert len(told) == bool(documents and skipped and not stops)


# A very long document


@pytest.mark.parametrize("megabytes", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_a_long_document_is_read_in_memory_of_its_size(megabytes, here):
    line = "word ไทย 🤝 " * (megabytes * 1_000_000 // 20)
    (here / "a.jsonl").write_text(json.dumps({"text": line}, ensure_ascii=False) + "\n", encoding="utf-8")
    size = len(line.encode())
    del line
    tracemalloc.start()
    try:
        data = data_of("a.jsonl", row_bytes=1000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert data.corpora["train"].lengths.tolist() == [size]
    assert peak < 8 * size  # characters past U+FFFF take four bytes each, in the line and in its text
    batch = data.batches("train")[0, 1]
    assert batch["ids"].shape == (2, 1000)
    assert bytes(batch["ids"][1].tolist()[:100]).decode("utf-8", "ignore").strip() in "word ไทย 🤝 " * 20
