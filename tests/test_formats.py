"""Formats of text: the same documents from each, and nothing lost without a count."""

import bz2
import csv
import gzip
import io
import json
import lzma
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
import yaml
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from aunet_lightning import ByteDataModule
from aunet_lightning.cli.main import main
from aunet_lightning.cli.score import _items
from aunet_lightning.data.documents import Report, told_format
from aunet_lightning.data.sources import FORMATS, Source, expand
from tests.helpers import ROOT

RECORDS: list[dict[str, Any]] = [
    {"text": "one, two", "lang": "en", "id": "a"}, {"text": "คน \"人々\"", "lang": "th", "id": "b"},
    {"text": "\ufeff 'x' \\ é🤝🏽", "lang": None, "id": "c"}, {"text": "end", "lang": "en", "id": "d"},
]  # fmt: skip
LONG = [*RECORDS, {"text": "line\nline\r\n\n\tend\r", "lang": "en", "id": "e"}]
OTHERS = ("datasets", "tsv_parallel")  # test_hub_datasets.py and test_parallel.py have these
OF_FILES = [name for name in FORMATS.built_in if name not in OTHERS]
PLAIN = ("text", "text_lines", "text_paragraphs")
PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress}


def table(records, delimiter=",", **how):
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, ["id", "lang", "text"], delimiter=delimiter, **how)
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue().encode()


def arrow(records, write=None):
    columns = pa.schema([("text", pa.string()), ("lang", pa.string()), ("id", pa.string())])
    out, made = io.BytesIO(), pa.Table.from_pylist(records, columns)
    if write:
        write(made, out)
    else:
        with pa.ipc.new_stream(out, columns) as stream:
            stream.write_table(made)
    return out.getvalue()


def parquet(records):
    return arrow(records, pa.parquet.write_table)


def lines(records):
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


WRITE = {  # what each format makes of records
    "jsonl": lines,
    "json": lambda records: json.dumps(records, indent=1).encode(),
    "text": lambda records: records[0]["text"].encode(),
    "text_lines": lambda records: b"".join(record["text"].encode() + b"\r\n" for record in records),
    "text_paragraphs": lambda records: b"\n \n\n".join(record["text"].encode() for record in records),
    "csv": table,
    "tsv": lambda records: table(records, "\t"),
    "tsv_unquoted": lambda records: table(records, "\t", quoting=csv.QUOTE_NONE, quotechar=None),
    "parquet": parquet,
    "arrow": arrow,
}


def read(path, format, **options):
    """Documents as (text, language, name), and the report; the file's language is `of-file`."""
    report = Report()
    documents = list(Source(path, "of-file", format=format, **options).documents(report, ""))
    assert report.documents == len(documents)
    return [(one.text.decode(), one.language, one.name) for one in documents], report


def of(path, data):
    path.write_bytes(data)
    return path


def expected(records):
    return [(record["text"], record["lang"] or "of-file", record["id"]) for record in records]


# The same documents


@pytest.mark.parametrize("format", OF_FILES)
def test_every_format_gives_the_documents_that_were_written_each_time(format, tmp_path):
    can = LONG if format not in (*PLAIN, "tsv_unquoted") else RECORDS[:1] if format == "text" else RECORDS
    path = of(tmp_path / "x", WRITE[format](can))
    documents, report = read(path, format)
    if format in PLAIN:
        assert [text for text, _, _ in documents] == [record["text"] for record in can]
        assert {language for _, language, _ in documents} == {"of-file"}
    else:
        assert documents == expected(can)
        assert read(path, format, language_key="none")[0] == [(text, "of-file", name) for text, _, name in documents]
    assert report.skipped == {}
    assert read(path, format)[0] == documents


@pytest.mark.parametrize("format", sorted(WRITE.keys() - {"parquet", "arrow"}))
@pytest.mark.parametrize("suffix", PACK)
def test_formats_of_text_may_be_compressed_whatever_the_name(format, suffix, tmp_path):
    data = WRITE[format](RECORDS)
    plain = read(of(tmp_path / "x", data), format)[0]
    packed = of(tmp_path / "y", PACK[suffix](data))
    assert read(packed, format)[0] == plain
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"/y cannot be read to its end"):
        read(packed, format)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(min_size=1).filter(lambda text: "\0" not in text), min_size=1, max_size=4))
@pytest.mark.parametrize("format", ["json", "csv", "tsv", "parquet", "arrow"])
def test_any_text_comes_back(format, tmp_path_factory, texts):
    records = [{"text": text, "lang": "en", "id": f"{i}"} for i, text in enumerate(texts)]
    path = of(tmp_path_factory.getbasetemp() / "any", WRITE[format](records))
    assert read(path, format)[0] == expected(records)


def test_other_forms_of_the_same(tmp_path):
    """Strings in place of objects, JSON lines named .json, Feather, types of text, columns of one's own, a mark."""
    assert read(of(tmp_path / "a", b'\xef\xbb\xbf\n ["a", "b"]'), "json")[0] == [
        ("a", "of-file", "1"),
        ("b", "of-file", "2"),
    ]
    assert read(of(tmp_path / "a", b"\xef\xbb\xbf\n" + lines(LONG)), "json")[0] == expected(LONG)
    feather = of(tmp_path / "f", arrow(LONG, lambda made, out: pa.feather.write_feather(made, out)))
    assert read(feather, "arrow")[0] == expected(LONG)
    for kind in (pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()):
        made = pa.table({"body": pa.array(["a", "ü"]).cast(kind), "n": [1, 2], "lang": pa.nulls(2), "id": [8, 9]})
        with pa.ipc.new_stream(tmp_path / "t", made.schema) as stream:
            stream.write_table(made)
        assert read(tmp_path / "t", "arrow", text_key="body")[0] == [("a", "of-file", "8"), ("ü", "of-file", "9")]
    assert read(of(tmp_path / "m.csv", b"\xef\xbb\xbf" + table(LONG)), "csv")[0] == expected(LONG)
    for format in PLAIN:
        assert read(of(tmp_path / "m", b"\xef\xbb\xbfa\n"), format)[0][0][0].strip() == "a"


def test_paragraphs_are_named_by_their_first_lines(tmp_path):
    path = of(tmp_path / "x", b"\na\nb\n\n \r\nc\r\nd\n\n")
    assert read(path, "text_paragraphs")[0] == [("a\nb", "of-file", "2"), ("c\nd", "of-file", "6")]


# What is unusable

SKIPPED = [  # format, contents, the texts that are read, what is skipped with its first place
    ("json", b'["a", 3, {"title": "b"}, {"text": ""}, {"text": "\\ud800"}, {"text": "c", "lang": 4}, "d"]', "ad",
     {"no string under 'text'": ", item 2", "empty text": ", item 4", "lone surrogate in text": ", item 5", "'lang' is not a string": ", item 6"}),
    ("json", b" \n", "", {}),
    ("text", b"", "", {"empty text": ""}),
    ("text", b"\xef\xbb\xbf", "", {"empty text": ""}),
    ("text", b"a\n\0b", "", {"NUL byte": ":2"}),
    ("text", b"a\n\nb\xff", "", {"not UTF-8": ":3"}),
    ("text_lines", b"a\n\n\xff\nb\0\nc", "ac", {"empty line": ":2", "not UTF-8": ":3", "NUL byte": ":4"}),
    ("text_lines", b"", "", {}),
    ("text_lines", "a\n".encode("utf-16-le"), "", {"NUL byte": ":1"}),
    ("text_paragraphs", b"a\n\n\nx\n\xed\xa0\x80\n\nc", "ac", {"not UTF-8": ":5"}),
    ("text_paragraphs", b"\n\n", "", {}),
    ("csv", b"text,id\na,1\n\n,2\nb\xff,3\nb\0,4\nb,5,6\nb\n\"c\",\n", "ac",
     {"empty line": ":3", "empty text": ":4", "not UTF-8": ":5", "NUL byte": ":6", "not 2 fields, as in the header": ":7"}),
    ("csv", b"text,x\na,\xff\n\"c\n\n\",1\n,2", "ac", {"empty text": ":6"}),
    ("csv", b"", "", {}),
    ("csv", b"text\n", "", {}),
    ("tsv_unquoted", b'text\tid\n"a\t1\nc"\t2\n', '"ac"', {}),
    ("parquet", parquet([]), "", {}),
    ("parquet", parquet([{"text": "a"}, {"text": None}, {"text": ""}, {"text": "c"}]), "ac",
     {"no string under 'text'": ", row 2", "empty text": ", row 3"}),
]  # fmt: skip


@pytest.mark.parametrize(("format", "data", "texts", "skipped"), SKIPPED)
def test_what_is_unusable_is_counted_with_its_place(format, data, texts, skipped, tmp_path):
    documents, report = read(of(tmp_path / "x", data), format)
    assert "".join(text.strip() for text, _, _ in documents) == texts
    assert {reason: places[0] for reason, places in report.examples.items()} == skipped


def test_bytes_that_are_not_text_in_a_column_of_text(tmp_path):
    strings = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"\xffb"))
    pa.parquet.write_table(pa.table({"text": strings}), tmp_path / "x")
    assert read(tmp_path / "x", "parquet")[0] == [("b", "of-file", "2")]
    assert read(tmp_path / "x", "parquet")[1].examples == {"not UTF-8": [", row 1"]}


@pytest.mark.parametrize("format", ["jsonl", "json", "text_lines", "csv", "tsv", "parquet", "arrow"])
def test_documents_and_what_is_skipped_are_all_that_there_is(format, tmp_path):
    records = [record | ({"text": ""} if i % 3 == 0 else {}) for i, record in enumerate(RECORDS * 300)]
    report = read(of(tmp_path / "x", WRITE[format](records)), format)[1]
    assert report.documents + sum(report.skipped.values()) == len(records)
    assert sum(report.skipped.values()) == 400
    assert report.bytes == sum(len(record["text"].encode()) for record in records)


BROKEN = [  # format, contents, what the error says
    ("json", b'[{"text": "a"},\n {"text"', r"x:2 is not JSON .*: is it complete\? JSON lines are format: jsonl"),
    ("json", b'["a",\n"\xff"]', r"x:2 is not UTF-8"),
    ("json", b"[" * 200_000, "nested too deep"),
    ("json", '["a"]'.encode("utf-16"), "is UTF-16, not UTF-8: convert it"),
    ("text", "a".encode("utf-16"), "is UTF-16, not UTF-8: convert it"),
    ("text_paragraphs", "a".encode("utf-32"), "is UTF-32, not UTF-8: convert it"),
    ("csv", "text\na".encode("utf-16"), "is UTF-16, not UTF-8: convert it"),
    ("csv", b"title,body\na,b\n", "x has no column 'text', which text_key names; it has 'title', 'body'"),
    ("csv", b"text,text\na,b\n", "x has the column 'text' more than once: rename"),
    ("csv", b'text,id\na,1\n"b" c,2\n', "x:3 is not CSV: put quotes around"),
    ("csv", b'text\na\nb\n"c\nd\n', "x:4 is not CSV: .*double the quotes"),
    ("tsv", b'text\tid\n"a\t1\nb"\t2 "c"\n"d\t', "x:4 is not TSV .*format: tsv_unquoted"),
    ("parquet", b"", "x cannot be read as parquet to its end"),
    ("parquet", parquet(RECORDS)[:-30], "x cannot be read as parquet to its end .*is it complete"),
    ("parquet", b"PAR1" + parquet(RECORDS)[20:], "x cannot be read as parquet to its end"),
    ("parquet", arrow(RECORDS), "x cannot be read as parquet .*of the format its name says"),
    ("arrow", b"", "x cannot be read as arrow to its end"),
    ("arrow", arrow(RECORDS)[:-60], "x cannot be read as arrow to its end"),
    ("arrow", parquet(RECORDS), "x cannot be read as arrow to its end"),
]  # fmt: skip


@pytest.mark.parametrize(("format", "data", "words"), BROKEN)
def test_broken_files_are_named_with_the_remedy(format, data, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        read(of(tmp_path / "x", data), format)


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_columns_that_are_missing_or_not_text(format, tmp_path):
    path = of(tmp_path / "x", WRITE[format]([]))
    with pytest.raises(ValueError, match="x has no column 'body', which text_key names; it has 'text', 'lang', 'id'"):
        read(path, format, text_key="body")
    made = pa.table({"text": [1, 2]})
    if format == "parquet":
        pa.parquet.write_table(made, path)
    else:
        pa.feather.write_feather(made, path)
    with pytest.raises(ValueError, match=r"x: the column 'text' is of type int64, not text: name another \(text_key"):
        read(path, format)


def test_a_package_that_is_missing_is_named_with_its_install_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"x: format parquet needs pyarrow: pip install 'aunet-lightning\[parquet\]'"):
        read(tmp_path / "x", "parquet")


# Memory


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """50 MB in 5000 documents, none like another."""
    folder = tmp_path_factory.mktemp("big")
    columns = {"id": [f"{i}" for i in range(5000)], "text": [f"{i:010} " * 909 for i in range(5000)]}
    for format, between in (("csv", ","), ("tsv", "\t")):
        rows = zip(*([name, *column] for name, column in columns.items()), strict=True)
        (folder / format).write_text("\n".join(map(between.join, rows)))
    (folder / "text_lines").write_text("\n".join(columns["text"]))
    (folder / "text_paragraphs").write_text("\n\n".join(columns["text"]))
    made = pa.table(columns)
    pa.parquet.write_table(made, folder / "parquet", compression="none", use_dictionary=False)
    with pa.ipc.new_stream(folder / "arrow", made.schema) as stream:
        stream.write_table(made)
    return folder


@pytest.mark.parametrize("format", ["csv", "tsv", "text_lines", "text_paragraphs", "parquet", "arrow"])
def test_no_more_of_a_file_is_held_than_some_documents(format, big):
    before, most = pa.total_allocated_bytes(), 0
    tracemalloc.start()
    try:
        for number, _ in enumerate(Source(big / format, "en", format=format).documents(Report())):
            most = max(most, pa.total_allocated_bytes() - before) if number % 50 == 0 else most
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert number == 4999
    assert peak + most < 16e6, (peak, most)


# Files, folders and languages


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.jsonl", "jsonl"), ("a.jsonl.zst", "jsonl"), ("a.NDJSON", "jsonl"), ("a.jsonl.txt", "jsonl"), ("a.json.gz", "json"),
        ("a.txt", "text"), ("a.b.TXT.bz2", "text"), ("a.csv", "csv"), ("a.tsv.xz", "tsv"), ("a.parquet", "parquet"),
        ("a.arrow", "arrow"), ("a.feather", "arrow"), ("a", None), ("a.gz", None), ("a.md", None), ("parquet", None),
    ],
)  # fmt: skip
def test_a_name_tells_the_format(name, format, tmp_path):
    assert told_format(Path(name)) == format
    of(tmp_path / name, b"x")
    assert expand(str(tmp_path / name), "x")[0].format == (format or "jsonl")


def test_a_folder_has_files_of_known_endings_in_a_fixed_order(tmp_path):
    root = tmp_path / "texts"
    for name in (
        "b/2.txt",
        "b/1.csv",
        "a.parquet",
        "B.jsonl.gz",
        "README.md",
        ".hidden.txt",
        ".git/x.txt",
        "b/c/d.json",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    sources = expand(str(root), "x")
    assert [str(source.path.relative_to(root)) for source in sources] == [
        "B.jsonl.gz",
        "a.parquet",
        "b/1.csv",
        "b/2.txt",
        "b/c/d.json",
    ]
    assert [source.format for source in sources] == ["jsonl", "parquet", "csv", "text", "json"]
    assert {source.language for source in sources} == {"texts"}
    assert len(expand([{"path": str(root), "format": "text"}], "x")) == 6
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"x: the folder .*empty' holds no file that ends in \.jsonl, .*name a format"):
        expand(str(tmp_path / "empty"), "x")


def test_a_dataset_that_was_saved_to_disk_is_what_its_state_names(tmp_path):
    table = tmp_path / "all" / "train"
    table.mkdir(parents=True)
    for name in ("data-00001-of-00002.arrow", "data-00000-of-00002.arrow", "cache-1.arrow"):
        of(table / name, arrow(RECORDS))
    files = [{"filename": f"data-0000{i}-of-00002.arrow"} for i in (0, 1)]
    (table / "state.json").write_text(json.dumps({"_data_files": files}))
    (table / "dataset_info.json").write_text("{}")
    sources = expand(str(table), "x")
    assert [source.path.name for source in sources] == [file["filename"] for file in files]
    (tmp_path / "all" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(ValueError, match=r"holds splits of a dataset, train: name one, such as .*all/train"):
        expand(str(tmp_path / "all"), "x")


@pytest.mark.parametrize(
    ("pattern", "languages"),
    [
        ("f/{language}/train/*.parquet", ["khm_Khmr", "tha_Thai"]), ("f/{language}/**/*.txt", ["tha_Thai"]),
        ("**/{language}/train/*.parquet", ["khm_Khmr", "tha_Thai"]), ("f/{language}-*.jsonl", ["en", "zh"]),
        ("f/{language}.jsonl", ["en-1", "zh-Hans-1"]), ("f/x.{language}.csv*", ["de"]),
    ],
)  # fmt: skip
def test_a_path_names_the_language(pattern, languages, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "tha_Thai/train/0.parquet", "khm_Khmr/train/1.parquet", "tha_Thai/a/b/c.txt", "en-1.jsonl", "zh-Hans-1.jsonl",
        "x.de.csv.gz",
    ):  # fmt: skip
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / name).touch()
    sources = expand([pattern], "x")
    assert [source.language for source in sources] == languages
    assert all(source.named for source in sources)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"path": "{language}.csv", "lang": "en"}, "names the language as lang and as {language}"), ("{language}/{language}.csv", "more than once"),
        ("**/{language}/**/*.csv", r"between two \*\*"), ("*{language}.csv*", None), ("{language}.nothing", "no file matches"),
        ({"path": "a.csv", "text_keys": "x"}, "neither a path nor"), ({"path": "a.csv", "format": "tvs"}, "Did you mean tsv"),
    ],
)  # fmt: skip
def test_mistakes_in_an_entry_are_named(entry, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").touch()
    if words is None:
        assert expand([entry], "x")[0].language == "a"
        return
    with pytest.raises(ValueError, match=words):
        expand([entry], "x")
    both = [{"path": "a.csv", "text_key": "a"}, {"path": "a.csv", "text_key": "b"}]
    with pytest.raises(ValueError, match="is given the text_keys 'a' and 'b': name it once"):
        expand(both, "x")


def module(tmp_path, train_files, **options) -> ByteDataModule:
    made = ByteDataModule(train_files, workers=0, cache_dir=str(tmp_path / "cache"), **options)
    made.prepare_data()
    made.setup()
    return made


def test_an_entry_has_keys_of_its_own(tmp_path):
    one = of(tmp_path / "one.csv", b"body,language\na,th\n")
    two = of(tmp_path / "two.jsonl", b'{"text": "b"}\n')
    own = {"path": str(one), "text_key": "body", "language_key": "language"}
    assert module(tmp_path, [own, str(two)]).texts("train") == [("th", b"a"), ("two", b"b")]
    with pytest.raises(ValueError, match=r"no line has the key 'tongue' .*lines have 'body', 'language'"):
        module(tmp_path, [own | {"language_key": "tongue"}, str(two)])


def test_the_cached_text_is_that_of_format_and_keys(tmp_path):
    path = of(tmp_path / "x", b"text,body\na,b\n")
    ways = [{}, {"text_key": "body"}, {"language_key": "body"}, *({"format": name} for name in OF_FILES)]
    assert len({Source(path, "en", **way).folder(tmp_path) for way in ways}) == len(ways) - 1  # jsonl is what {} is


def test_every_nth_of_files_that_are_a_document_each_is_held_out(tmp_path):
    (tmp_path / "texts").mkdir()
    for i in range(10):
        of(tmp_path / "texts" / f"{i}.txt", f"{i}\n".encode())
    data = module(tmp_path, [{"path": str(tmp_path / "texts"), "lang": "en"}], holdout_every=5)
    assert [text for _, text in data.texts("val")] == [b"4\n", b"9\n"]
    assert len(data.texts("train")) == 8


# Ready files, and commands


def test_ready_files_read_what_they_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ready = {
        path.stem: yaml.safe_load(path.read_text())["data"] for path in (ROOT / "experiments" / "data").glob("*.yaml")
    }
    texts = [{"text": f"{i}", "id": f"{i}"} for i in range(100)]
    for language in ready["fineweb2_local"]["languages"]:
        for part in ("train", "test"):
            folder = tmp_path / "fineweb-2" / "data" / language / part
            folder.mkdir(parents=True)
            of(folder / "000_00000.parquet", parquet([{"text": f"{language} {part}"}]))
    data = module(tmp_path, **ready.pop("fineweb2_local"))
    assert sorted(data.texts("val")) == sorted((name, f"{name} test".encode()) for name in data.languages)
    for folder in ("texts", "tables/saved"):
        (tmp_path / folder).mkdir(parents=True)
    for i in range(10):
        of(tmp_path / "texts" / f"{i}.txt", b"%d" % i)
    assert len(module(tmp_path, **ready.pop("text_folder")).texts("val")) == 1
    rows = gzip.compress(table(texts).replace(b"id,lang,text", b"id,language,body"))
    of(tmp_path / "tables" / "a.csv.gz", rows)
    of(tmp_path / "tables" / "a.parquet", parquet([text | {"text": "p" + text["text"]} for text in texts]))
    made = pa.table({"content": ["s" + text["text"] for text in texts]})
    with pa.ipc.new_stream(tmp_path / "tables" / "saved" / "data.arrow", made.schema) as stream:
        stream.write_table(made)
    assert len(module(tmp_path, **ready.pop("tables")).texts("val")) == 3
    assert sorted(ready) == ["fineweb2", "udhr"]  # fineweb2: test_remote.py


@pytest.mark.parametrize("format", ["json", "csv", "tsv", "parquet", "arrow"])
def test_commands_read_what_the_name_tells(format, tmp_path, capsys):
    path = of(tmp_path / f"en.{format}", WRITE[format](RECORDS))
    assert main(["split", str(path), "--color", "never", "--splitter", "whitespace"]) == 0
    assert "one│,│ two" in capsys.readouterr().out
    assert [(item.text.decode(), item.language) for item in _items([str(path)])] == [
        (record["text"], record["lang"] or "en") for record in RECORDS
    ]
