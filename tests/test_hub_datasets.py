"""Datasets as Hugging Face's hub has them: the text that was written, whole in every process, known by its contents."""

import os
import shutil
import sys
import tracemalloc

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, IterableDataset

from aunet_lightning import ByteDataModule
from aunet_lightning.data.documents import Report
from aunet_lightning.data.sources import expand
from tests import web_servers
from tests.test_formats import LONG, expected, lines, parquet, table

datasets = pytest.importorskip("datasets")

WRITE = {"parquet": parquet, "jsonl": lines, "csv": lambda records: table(records)}
CONFIGS = ("tha_Thai", "deu_Latn")


@pytest.fixture(autouse=True)
def caches(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setenv("AUNET_CACHE", str(tmp_path / "cache"))


def write(root, ending="parquet", files=2, records=LONG):
    """A dataset of two configurations with two splits, each of so many files, which its README.md tells."""
    told = []
    for config in CONFIGS:
        told += [f"- config_name: {config}", "  data_files:"]
        for split in ("train", "test"):
            told += [f"  - split: {split}", f"    path: data/{config}/{split}/*"]
            folder = root / "data" / config / split
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(files):
                of = [one | {"id": f"{config} {split} {i} {one['id']}"} for one in records]
                (folder / f"{i:03}.{ending}").write_bytes(WRITE[ending](of))
    (root / "README.md").write_text("\n".join(["---", "configs:", *told, "---", "# x"]))
    return root


def entry(path, config="tha_Thai", split="test", **more):
    given = {"path": str(path), "format": "datasets", "config": config, "split": split} | more
    return {key: value for key, value in given.items() if value is not None}


def read(of, **keys):
    """Documents as (text, language, name), and the report."""
    report = Report()
    found = [one for source in expand([of], "x", **keys) for one in source.documents(report)]
    return [(one.text.decode(), one.language, one.name) for one in found], report


# The text that was written


@pytest.mark.parametrize("ending", WRITE)
def test_a_split_gives_the_documents_that_were_written_each_time(ending, tmp_path):
    root = write(tmp_path / "set", ending)
    for config in CONFIGS:
        for split in ("train", "test"):
            found, report = read(entry(root, config, split))
            assert found == [
                (text, config if language == "of-file" else language, f"{config} {split} {i} {name}")
                for i in range(2)
                for text, language, name in expected(LONG)
            ]
            assert (report.documents, report.skipped) == (2 * len(LONG), {})
            assert read(entry(root, config, split))[0] == found
    assert {language for _, language, _ in read(entry(root, lang="xx", language_key="none"))[0]} == {"xx"}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(min_size=1), min_size=1, max_size=4))
def test_any_text_comes_back(tmp_path_factory, texts):
    root = tmp_path_factory.mktemp("any")
    (root / "train.parquet").write_bytes(parquet([{"text": text, "id": f"{i}"} for i, text in enumerate(texts)]))
    assert read(entry(root, None, None, lang="en"))[0] == [(text, "en", f"{i}") for i, text in enumerate(texts)]


def test_what_is_unusable_is_counted_with_its_place(tmp_path):
    root = write(tmp_path / "set", files=1, records=[{"text": text, "id": "1"} for text in ("a", "", None, "b")])
    found, report = read(entry(root))
    assert [text for text, _, _ in found] == ["a", "b"]
    assert report.examples == {
        "empty text": [f"{root} tha_Thai test, row 2"],
        "no string under 'text'": [f"{root} tha_Thai test, row 3"],
    }


def test_a_folder_that_datasets_saved_is_read_by_its_path(tmp_path):
    made = datasets.Dataset.from_list(LONG)
    made.save_to_disk(tmp_path / "one", num_shards=2)
    datasets.DatasetDict({"train": made, "test": made}).save_to_disk(tmp_path / "all")
    for path in (tmp_path / "one", tmp_path / "all" / "train"):
        assert read(str(path))[0] == [
            (text, path.name if of == "of-file" else of, name) for text, of, name in expected(LONG)
        ]
    with pytest.raises(ValueError, match=r"save_to_disk wrote the folder .*one, which is read without a format"):
        read(entry(tmp_path / "one"))


def test_no_more_is_held_than_some_rows(tmp_path):
    """50 MB in 20 groups of rows, none like another."""
    made = pa.table({"text": [f"{i:010} " * 909 for i in range(5000)]})
    (tmp_path / "big").mkdir()
    pa.parquet.write_table(made, tmp_path / "big" / "train.parquet", 250, compression="none", use_dictionary=False)
    (source,) = expand([entry(tmp_path / "big", None, None, lang="en")], "x")
    next(source.documents(Report()))  # loads the package
    before, most = pa.total_allocated_bytes(), 0
    tracemalloc.start()
    try:
        for number, _ in enumerate(source.documents(Report())):
            most = max(most, pa.total_allocated_bytes() - before) if number % 50 == 0 else most
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert number == 4999
    assert peak + most < 16e6, (peak, most)


class Everything(IterableDataset):
    def __init__(self, source):
        self.source = source

    def __iter__(self):
        yield from self.source.documents(Report())


@pytest.mark.parametrize("ending", WRITE)
def test_every_worker_reads_all_of_a_split(ending, tmp_path):
    source = expand([entry(write(tmp_path / "set", ending))], "x")[0]
    here = list(source.documents(Report()))
    found = list(DataLoader(Everything(source), batch_size=None, num_workers=2))
    assert sorted(found) == sorted(here * 2)


def test_a_run_has_the_digest_of_the_same_text_in_files(tmp_path):
    root = write(tmp_path / "set", files=1)
    digests = []
    for of in (entry(root), {"path": str(root / "data" / "tha_Thai" / "test"), "lang": "tha_Thai"}):
        module = ByteDataModule([of], workers=0, cache_dir=str(tmp_path / "flat"))
        module.prepare_data()
        module.setup()
        digests.append(module.digests)
    assert digests[0] == digests[1]


# Known by its contents


def test_the_cached_copy_is_known_by_files_configuration_and_split(tmp_path):
    root = write(tmp_path / "set")

    def folder(**of):
        return expand([entry(**{"path": root} | of)], "x")[0].folder(tmp_path / "flat").name

    first = folder()
    ways = [first, folder(config="deu_Latn"), folder(split="train"), folder(text_key="id"), folder(lang="xx")]
    assert len({*ways}) == 5
    shutil.copytree(root, tmp_path / "elsewhere" / "set")
    os.utime(root / "README.md", (1, 1))
    (root / ".cache").mkdir()
    (root / ".cache" / "x").touch()
    assert folder() == folder(path=tmp_path / "elsewhere" / "set") == first
    changed = root / "data" / "tha_Thai" / "test" / "001.parquet"
    changed.write_bytes(parquet(LONG[:1]))
    assert folder() != first
    changed.rename(changed.with_name("002.parquet"))
    assert len({first, folder()}) == 2


# Faults are one sentence

FAULTS = [
    ({"config": None}, r"set test cannot be read .*Config name is missing.*\['tha_Thai', 'deu_Latn'\].*: is the folder laid out as on the hub\?"),
    ({"config": "x"}, "set x test cannot be read .*'x' not found. Available: .*deu_Latn"),
    ({"split": None}, "set tha_Thai has the splits train, test: name one, split: test"),
    ({"split": "dev"}, "set tha_Thai dev has no split 'dev': it has train, test"),
    ({"text_key": "body"}, "000.parquet has no column 'body', which text_key names; it has 'text', 'lang', 'id'"),
    ({"revision": "main"}, "x: .*set is a folder, which has no revisions: leave out revision"),
    ({"name": "x"}, r"neither a path nor {path: …, lang: …, format: …, weight: …, text_key: …, language_key: …, config: …, split: …, revision: …}"),
    ({"format": "parquet"}, r"neither a path nor {path: …, lang: …, format: …, weight: …, text_key: …, language_key: …}"),
    ({"path": "nothing"}, "x: 'nothing' is neither a folder nor the name of a dataset of the hub, OWNER/NAME"),
    ({"config": 3}, "has a value that is not text: put quotes around it"),
]  # fmt: skip


@pytest.mark.parametrize(("of", "words"), FAULTS)
def test_a_fault_names_the_dataset_the_problem_and_the_remedy(of, words, tmp_path):
    root = write(tmp_path / "set")
    with pytest.raises(ValueError, match=words) as raised:
        read(entry(**{"path": root} | of))
    assert "\n" not in str(raised.value)


def test_a_damaged_file_is_told(tmp_path):
    root = write(tmp_path / "set", files=1)
    (file,) = (root / "data" / "tha_Thai" / "test").iterdir()
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"/000\.parquet cannot be read as parquet to its end"):
        read(entry(root))


def test_the_package_that_is_missing_is_named_with_its_install_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ValueError, match=r"format datasets needs the package datasets: pip install 'aunet-lightning\[datasets\]'"
    ):
        read(entry(write(tmp_path / "set")))


# The hub


def test_a_dataset_of_the_hub(tmp_path):
    write(tmp_path / "hub")
    entries = [entry("owner/name", "deu_Latn", "train"), entry("owner/name", revision="main"), entry("owner/none")]
    *found, fault = web_servers.from_hub("owner/name", tmp_path, entries)
    of = [(text, language) for _ in range(2) for text, language, _ in expected(LONG)]
    assert found == [
        [config if language == "of-file" else language, text]
        for config in ("deu_Latn", "tha_Thai")
        for text, language in of
    ]
    assert fault[0] == "error"
    assert fault[1].startswith("x: the dataset owner/none cannot be read (RepositoryNotFoundError: 404")
