"""Files of other machines: the same documents as from files of this one, known by what their filesystem tells."""

import hashlib
import io
import os
import pickle
import sys
import time
from types import SimpleNamespace

import fsspec
import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml
from fsspec.implementations.http import HTTPFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, IterableDataset

from aunet_lightning import ByteDataModule
from aunet_lightning.cli.main import main
from aunet_lightning.cli.score import _items
from aunet_lightning.cli.texts import read_texts
from aunet_lightning.data.corpus import prepare
from aunet_lightning.data.documents import Report
from aunet_lightning.data.sources import expand
from aunet_lightning.study.grid import files_of
from tests import web_servers
from tests.helpers import ROOT
from tests.test_formats import LONG, OF_FILES, RECORDS, WRITE, lines

TEXT = lines(RECORDS)


class Bucket(MemoryFileSystem):
    """A filesystem that knows digests of its files, as s3 does. copies: of files that were copied from it."""

    protocol = "bucket"
    store: dict = {}  # noqa: RUF012 (of the class, as its base has it)
    pseudo_dirs = [""]  # noqa: RUF012
    copies: list = []  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.removeprefix("bucket://"))

    def ls(self, path, detail=True, **options):
        return [self._told(info) for info in super().ls(path, detail=True)]

    def info(self, path, **options):
        return self._told(super().info(path))

    def get_file(self, path, to, **options):
        self.copies.append(path)
        super().get_file(path, to, **options)

    def _told(self, info):
        told = {key: info[key] for key in ("name", "size", "type")}
        held = self.store[info["name"]].getvalue() if info["type"] == "file" else b""
        return told | {"ETag": hashlib.md5(held).hexdigest()}


@pytest.fixture(autouse=True)
def stores(monkeypatch, tmp_path):
    """Empty stores, and a cache of the test's own."""
    fsspec.register_implementation("bucket", Bucket, clobber=True)
    monkeypatch.setenv("AUNET_CACHE", str(tmp_path / "cache"))
    for kind in (MemoryFileSystem, Bucket):
        kind.store.clear()
        kind.pseudo_dirs[:] = [""]
    Bucket.copies.clear()


def put(url, data):
    fs, path = fsspec.core.url_to_fs(url)
    fs.pipe_file(path, data)
    return url


def documents(entry, **options):
    """Documents of all sources of an entry, and what they report."""
    report = Report()
    found = [one for source in expand([entry], "x", **options) for one in source.documents(report)]
    return found, report


# The same as from files of this machine

NAMES = ("a.jsonl", "b.txt", "ab.x", ".h.jsonl", "c d.jsonl")
FOLDERS = ("", "en/", "th/", "en/train/", "th/train/", ".git/", "a[1]/", "th/.x/")
GLOBS = (
    "", "*", "*.jsonl", "?.*", "[ab]*", "{language}.jsonl", "{language}/*.jsonl", "{language}/**/*.jsonl", "*/train/*.jsonl",
    "**/*.jsonl", "**/{language}/train/?.*", "e*/*", "{language}/train/a.jsonl", "th/.*/*", ".h.*", "a[1]/b.txt", "no/*", "en/a.jsonl",
    "**/train/**/*", "{language}-x/*",
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(names=st.sets(st.builds(str.__add__, st.sampled_from(FOLDERS), st.sampled_from(NAMES)), min_size=1, max_size=9))
@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_a_url_names_the_files_that_a_path_does(protocol, names, tmp_path_factory):
    here = tmp_path_factory.mktemp("here")
    there = f"file://{here}" if protocol == "file" else f"memory://{here}"
    for name in names:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(TEXT)
        if protocol == "memory":
            put(f"{there}/{name}", TEXT)

    def found(root, glob, **more):
        try:
            sources = expand([{"path": f"{root}/{glob}".rstrip("/")} | more], "x")
        except ValueError:
            return None
        return [(str(one.path).partition(str(here))[2], one.language, one.named, one.format) for one in sources]

    for glob in GLOBS:
        assert found(there, glob) == found(here, glob), glob
    assert found(there, "", format="text_lines") == found(here, "", format="text_lines")


@pytest.mark.parametrize("format", OF_FILES)
def test_every_format_gives_the_same_documents_by_url(format, tmp_path):
    can = LONG if format in ("jsonl", "json", "csv", "parquet", "arrow") else RECORDS[:1]
    local, url = tmp_path / "of-file", put("memory://b/of-file", WRITE[format](can))
    local.write_bytes(WRITE[format](can))
    (by_path, first), (by_url, second) = (documents({"path": str(path), "format": format}) for path in (local, url))
    assert by_url == by_path
    assert by_url
    assert (second.documents, second.bytes, second.keys) == (first.documents, first.bytes, first.keys)
    assert [*(tmp_path / "cache").iterdir()] == []


def test_places_and_errors_name_the_url_and_no_copy_is_left(tmp_path):
    url = put("memory://b/a.jsonl", b'{"text": 3}\n')
    assert documents(url)[1].examples == {"no string under 'text'": ["memory:///b/a.jsonl:1"]}
    put(url, b"text\n\xff\xfe".replace(b"text", b"\xff\xfe"))
    with pytest.raises(ValueError, match=r"^memory:///b/a.jsonl is UTF-16, not UTF-8"):
        documents(url)
    for name, data, words in (
        ("a.csv", b"title\nx\n", "a.csv has no column 'text'"),
        ("a.parquet", b"PAR1", r"a.parquet cannot be read as parquet to its end"),
        ("a.jsonl.gz", b"text", r"a.jsonl.gz cannot be read to its end"),
    ):
        with pytest.raises(ValueError, match=f"^memory:///b/{words}") as raised:
            documents(put(f"memory://b/{name}", data))
        assert str(tmp_path) not in str(raised.value)
    unfinished = expand([put(url, TEXT)], "x")[0].documents(Report())
    next(unfinished)
    assert len([*(tmp_path / "cache").iterdir()]) == 1
    unfinished.close()
    assert [*(tmp_path / "cache").iterdir()] == []


def module(tmp_path, train_files, **options) -> ByteDataModule:
    made = ByteDataModule(train_files, workers=0, cache_dir=str(tmp_path / "flat"), **options)
    made.prepare_data()
    made.setup()
    return made


def test_a_run_reads_the_same_text_and_has_its_digest(tmp_path, capsys):
    for language in ("de", "th"):
        data = lines([{"text": f"{language} {i}"} for i in range(20)])
        (tmp_path / f"{language}.jsonl").write_bytes(data)
        put(f"bucket://b/{language}.jsonl", data)
    here = module(tmp_path, [str(tmp_path / "*.jsonl")], holdout_every=10)
    there = module(tmp_path, ["bucket://b/{language}.jsonl"], holdout_every=10)
    assert there.digests == here.digests
    assert sorted(Bucket.copies) == ["/b/de.jsonl", "/b/th.jsonl"]
    assert not (tmp_path / "cache").exists()  # copies were made in data.cache_dir
    assert capsys.readouterr().err == ""  # a bar is for terminals


def test_a_bar_shows_how_far_a_copy_is(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    documents(put("memory://b/some.jsonl", TEXT * 1000))
    assert "some.jsonl:   0%" in terminal.getvalue()


# Known by what the filesystem tells


def flat(url, tmp_path):
    """The folder of a file's flat form, and its text."""
    folder = prepare(expand([url], "x")[0], tmp_path / "flat")
    return folder, (folder / "text.bin").read_bytes()


def test_a_cached_copy_is_found_again_without_the_file(tmp_path):
    url = put("bucket://b/a.jsonl", b'{"text": "one"}')
    folder, text = flat(url, tmp_path)
    assert text == b"one"
    for _ in range(2):
        put(url, b'{"text": "one"}')  # written again, with the same contents
        assert flat(url, tmp_path) == (folder, b"one")
    assert len(Bucket.copies) == 1
    put(url, b'{"text": "two"}')  # as long
    assert flat(url, tmp_path) == (folder.with_name(flat(url, tmp_path)[0].name), b"two")
    assert flat(url, tmp_path)[0] != folder
    assert len(Bucket.copies) == 2


def test_times_stand_for_contents_where_there_are_no_digests(tmp_path):
    url = put("memory://b/a.jsonl", b'{"text": "one"}')
    first = flat(url, tmp_path)
    assert flat(url, tmp_path) == first
    put(url, b'{"text": "two"}')
    assert flat(url, tmp_path)[1] == b"two"


class Silent(web_servers.Folder):
    """A server that tells nothing of a file but its length."""

    def send_header(self, keyword, value):
        if keyword in ("Content-Length", "Content-type"):
            super().send_header(keyword, value)


def test_a_file_of_which_nothing_is_told_is_known_by_its_digest(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one"}')
    with web_servers.folder(tmp_path, handler=Silent) as url:
        first = flat(f"{url}/a.jsonl", tmp_path)
        os.utime(tmp_path / "a.jsonl", (1, 1))
        assert flat(f"{url}/a.jsonl", tmp_path) == first
        (tmp_path / "a.jsonl").write_bytes(b'{"text": "two"}')
        assert flat(f"{url}/a.jsonl", tmp_path)[1] == b"two"


@pytest.mark.parametrize("protocol", ["memory", "bucket"])
def test_a_file_that_changes_or_goes_is_told(protocol, tmp_path):
    url = put(f"{protocol}://b/a.jsonl", TEXT)
    source = expand([url], "x")[0]
    put(url, TEXT[:-9])
    for read in (lambda: list(source.documents(Report())), lambda: prepare(source, tmp_path / "flat")):
        with pytest.raises(ValueError, match=r"/b/a\.jsonl has changed since it was found: start again"):
            read()
    assert not [path for path in (tmp_path / "flat").iterdir() if path.name != "digests"]
    assert len(documents(url)[0]) == len(RECORDS) - 1  # a new look finds the new file
    fsspec.core.url_to_fs(url)[0].rm(url)
    with pytest.raises(
        ValueError, match=r"/b/a\.jsonl cannot be read .FileNotFoundError.*: check the name, the network"
    ):
        list(source.documents(Report()))


# Web servers


class Odd(web_servers.Folder):
    """A server with faults: by the name of the file that is asked for."""

    def send_head(self):
        for name, status in {"forbidden": 403, "broken": 500}.items():
            if name in self.path:
                self.send_error(status)
                return None
        return super().send_head()

    def send_header(self, keyword, value):
        more = keyword == "Content-Length" and "short" in self.path and self.command == "HEAD"
        super().send_header(keyword, str(int(value) + 5) if more else value)

    def copyfile(self, source, out):
        if "slow" in self.path:
            out.write(source.read(5))
            out.flush()
            time.sleep(0.4)
        super().copyfile(source, out)


@pytest.fixture
def web(tmp_path):
    root = tmp_path / "web"
    for name in (
        "f/de/a b.jsonl",
        "f/th/1.jsonl",
        "f/th/short.jsonl",
        "f/th/slow.jsonl",
        "f/th/README.md",
        "x/forbidden.jsonl",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(TEXT)
    with web_servers.folder(root, handler=Odd) as url:
        yield url


def test_files_of_a_web_server(web):
    expected = [(one["text"], one["lang"] or "th", one["id"]) for one in RECORDS]
    for path in (
        f"{web}/f/th/1.jsonl?download=true",
        f"{web}/f/{{language}}/1.jsonl",
        f"{web}/f/{{language}}/[1-9].jsonl",
    ):
        found = documents({"path": path} | ({} if "{" in path else {"lang": "th"}))[0]
        assert [(one.text.decode(), one.language, one.name) for one in found] == expected
    listed = expand([f"{web}/f/"], "x")
    assert [str(one.path).removeprefix(web) for one in listed] == [
        "/f/de/a%20b.jsonl", "/f/th/1.jsonl", "/f/th/short.jsonl", "/f/th/slow.jsonl"
    ]  # fmt: skip
    assert [(one.language, one.format) for one in listed] == [("f", "jsonl")] * 4
    assert expand([f"{web}/f/de/*.jsonl"], "x")[0].language == "a b"
    assert len(documents(f"{web}/f/de/a*b.jsonl")[0]) == len(RECORDS)


def test_a_copy_may_take_longer_than_requests_do(web, monkeypatch):
    import aiohttp

    url = f"{web}/f/th/slow.jsonl"
    monkeypatch.setattr(aiohttp.client, "DEFAULT_TIMEOUT", aiohttp.ClientTimeout(total=0.2))
    HTTPFileSystem.clear_instance_cache()
    assert len(documents(url)[0]) == len(RECORDS)
    HTTPFileSystem.clear_instance_cache()


class Everything(IterableDataset):
    def __init__(self, source):
        self.source = source

    def __iter__(self):
        yield from self.source.documents(Report())


def test_a_source_reads_the_same_in_each_worker(web):
    source = expand([f"{web}/f/th/1.jsonl"], "x")[0]
    here = list(source.documents(Report()))  # the parent has connections
    assert list(pickle.loads(pickle.dumps(source)).documents(Report())) == here
    found = list(DataLoader(Everything(source), batch_size=None, num_workers=2))
    assert sorted(found) == sorted(here * 2)


# Faults are one sentence

FAULTS = [
    ("memory://b/none.jsonl", "x: no file matches 'memory://b/none.jsonl'"), ("memory://b/{language}/*.x", "x: no file matches"),
    ("memory://empty", "x: no file matches"), ("memory://b", "x: the folder 'memory://b' holds no file that ends in .*name a format"),
    ("memory://b/{language}/{language}.md", "has {language} more than once"), ("nofs://b/a.jsonl", "x: nofs://b/a.jsonl cannot be read .*Protocol not known"),
    ("lacking://b/a.jsonl", "x: lacking://b/a.jsonl needs a package: pip install none_such$"),
    ("zip://a.jsonl::memory://b/a.zip", "is a filesystem inside another, which is not read: copy its files first"),
    ("http://127.0.0.1:9/a.jsonl", r"x: http://127.0.0.1:9/a.jsonl cannot be read \(ClientConnectorError: Cannot connect to host"),
    ("http://127.0.0.1:9/*.jsonl", r"x: http://127.0.0.1:9/\*.jsonl cannot be read \(ClientConnectorError: Cannot connect to host"),
    ("{web}/f/none.jsonl", "x: no file matches"), ("{web}/none/*.jsonl", "x: no file matches"),
    ("{web}/x/forbidden.jsonl", "forbidden.jsonl cannot be read .*403, message='Forbidden'.*check the name, the network"),
    ("{web}/x/broken/*.jsonl", "cannot be read .*500"), ("{web}/f/th/short.jsonl", "short.jsonl was cut short: 2.. of 2.. bytes have come: start again"),
]  # fmt: skip


@pytest.mark.parametrize(("url", "words"), FAULTS)
def test_a_fault_names_the_path_the_problem_and_the_remedy(url, words, web, monkeypatch):
    monkeypatch.setitem(known_implementations, "lacking", {"class": "none_such.Filesystem", "err": ""})
    put("memory://b/a.md", b"x")
    put("memory://b/c/c.md", b"x")
    with pytest.raises(ValueError, match=words) as raised:
        documents(url.replace("{web}", web))
    assert "\n" not in str(raised.value)


def test_a_full_disk_is_told(monkeypatch):
    def full(*args, **options):
        raise OSError(28, os.strerror(28))

    url = put("memory://b/a.jsonl", TEXT)
    monkeypatch.setattr(MemoryFileSystem, "get_file", full)
    with pytest.raises(
        ValueError, match=r"no space left for a copy of .*/b/a.jsonl: make room, or name another data.cache_dir"
    ):
        documents(url)


def test_what_cannot_be_listed_is_not_left_out(monkeypatch):
    put("memory://b/th/a.jsonl", TEXT)
    put("memory://b/de/a.jsonl", TEXT)
    whole = MemoryFileSystem.ls

    def ls(self, path, **options):
        if path.endswith("/de"):
            raise ConnectionResetError(104, "reset")
        return whole(self, path, **options)

    monkeypatch.setattr(MemoryFileSystem, "ls", ls)
    for path in ("memory://b", "memory://b/*/*.jsonl", "memory://b/**/*.jsonl"):
        with pytest.raises(ValueError, match=r"cannot be read \(ConnectionResetError: .*reset"):
            expand([path], "x")


# Commands


def test_commands_take_urls(tmp_path, capsys):
    texts = lines([{"text": "All human beings are born free. " * 20, "lang": "en"}] * 3)
    (tmp_path / "a.jsonl").write_bytes(texts)
    url, plain = put("memory://b/en/a.jsonl", texts), put("memory://b/words.md", b"All human")
    for command in (
        ["data", "inspect", url], ["split", url], ["rate", "--splitter", "fixed", "--bytes_per_unit", "4", url],
        ["plan", "--flops", "1e16", "--splitter", "whitespace", "--data", url],
        ["vocabulary", url, "--size", "300", "--out", str(tmp_path / "v.json")],
    ):  # fmt: skip
        results = []
        for path in (url, str(tmp_path / "a.jsonl")):
            assert main([path if part == url else part for part in command]) == 0, capsys.readouterr().err
            results.append(capsys.readouterr().out)
        assert results[0] == results[1]
    told = [(one.language, one.data) for one in read_texts([plain, "https://example.org/page"])]
    assert told == [("words", b"All human"), ("text", b"https://example.org/page")]  # no file, by its ending
    assert {one.language for one in read_texts(["memory://b/{language}/a.jsonl"], must_exist=True)} == {"en"}
    assert [(one.text, one.language, one.id) for one in _items([url])] == [
        (one.text, one.language, one.id) for one in _items([str(tmp_path / "a.jsonl")])
    ]
    assert main(["data", "inspect", "memory://b/none.jsonl"]) == 1
    assert capsys.readouterr().err == "aunet: error: FILE: no file matches 'memory://b/none.jsonl'\n"


def test_a_study_takes_urls():
    study = SimpleNamespace(text={"train": "s3://b/{language}.jsonl"}, languages={"en": ["en"]})
    assert files_of(study, "train", "en") == ["s3://b/en.jsonl"]


# The hub


def test_the_ready_file_reads_the_hub(tmp_path):
    ready = yaml.safe_load((ROOT / "experiments" / "data" / "fineweb2.yaml").read_text())["data"]
    entries = ready["train_files"] + ready["val_files"]
    root = "hf://datasets/HuggingFaceFW/fineweb-2/"
    for entry in entries:
        inside = tmp_path / "hub" / entry["path"].removeprefix(root)
        inside.parent.mkdir(parents=True)
        pa.parquet.write_table(pa.table({"text": [entry["path"], "x"], "language": ["xx", "yy"]}), inside)
    more = [f"{root}data/{{language}}/test/*.parquet", f"{root}data/tha_Thai"]
    found = web_servers.from_hub("HuggingFaceFW/fineweb-2", tmp_path, [*entries, *more])
    expected = [[entry["lang"], entry["path"]] for entry in entries]
    assert [one for one in found[: 2 * len(entries)] if one[1] != "x"] == expected
    inside = [one for one in found[2 * len(entries) :] if one[1] != "x"]
    assert inside[:-2] == sorted(one for one in expected if "/test/" in one[1])
    assert inside[-2:] == [one for one in reversed(expected) if "tha_Thai" in one[1]]
