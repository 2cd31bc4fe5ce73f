"""`aunet data split`: a document's part is of its text alone, and no near-duplicates are in two parts."""

import gzip
import hashlib
import io
import itertools
import json
import sys
import tempfile
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aunet_lightning.data import progress, splitting
from aunet_lightning.data.duplicates import HASHES, SHINGLE, connect, normal, rows_of_band
from aunet_lightning.data.sources import expand
from aunet_lightning.data.splitting import Shares, split
from splitters.engine.compiled import compiled
from tests.helpers import UDHR, aunet, data_of, error_of, sentences, write

SHARES = Shares(0.3, 0.3)
BASES = [
    " ".join(json.loads(line)["text"] for line in (UDHR / f"{name}.jsonl").read_text("utf-8").splitlines()[:4])[:500]
    for name in ("en", "th", "zh-Hans", "ru")
]


def made(folder, files, shares=SHARES, **options):
    """{part: lines} of a split of files, each a list of documents."""
    paths = [write(folder / f"{i}.jsonl", documents) for i, documents in enumerate(files)]
    sources = expand([str(path) for path in paths], "x", text_key="text", language_key="lang")
    done = split(sources, folder / "out", shares, **options)
    return read(folder / "out"), done


def read(folder):
    found = {part.name: [] for part in folder.iterdir()}
    for path in sorted(folder.glob("*/*.jsonl.gz")):
        found[path.parent.name] += [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    return found


def parts_of(lines):
    return {line["text"]: part for part, of_part in lines.items() for line in of_part}


# The plain version: sets of shingles, and what pairs connect


def shingles_of(text):
    data = normal(text.encode())
    return {data[i : i + SHINGLE] for i in range(max(len(data) - SHINGLE + 1, 1))}


def jaccard(a, b):
    a, b = shingles_of(a), shingles_of(b)
    return len(a & b) / len(a | b)


def connected(n, alike):
    """The clusters of 0 … n-1."""
    cluster = [*range(n)]
    for _ in range(n):
        for a, b in alike:
            cluster[a] = cluster[b] = min(cluster[a], cluster[b])
    return cluster


def plain_parts(texts, shares, threshold):
    indices = {pair: jaccard(texts[pair[0]], texts[pair[1]]) for pair in itertools.combinations(range(len(texts)), 2)}
    assume(not any(0.6 < value < 0.9 for value in indices.values()))  # where an estimate may be on either side
    clusters = connected(len(texts), [pair for pair, value in indices.items() if value >= threshold])
    hashes = [int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) for text in texts]
    smallest = {c: min(hashes[i] for i in range(len(texts)) if clusters[i] == c) for c in clusters}
    return {text: shares.part(smallest[c]) for text, c in zip(texts, clusters, strict=True)}


def edited(base, at, put, how):
    return {
        "put": base[:at] + put + base[at:], "case": base.upper(), "blanks": base.replace(" ", "\n  "),
        "half": base[: len(base) // 2], "short": put or "x", "twice": base + put + base,
    }[how]  # fmt: skip


HOW = ("put", "case", "blanks", "half", "short", "twice")
TEXTS = st.builds(edited, st.sampled_from(BASES), st.integers(0, 400), st.text(max_size=2), st.sampled_from(HOW))


@settings(max_examples=25)
@given(st.lists(TEXTS, min_size=1, max_size=8, unique=True), st.integers(0, 2), st.randoms())
def test_a_part_is_of_the_text_and_its_near_duplicates_alone(texts, seed, drawn):
    shares = Shares(0.3, 0.3, seed)
    expected = plain_parts(texts, shares, 0.8)
    order = drawn.sample(texts, len(texts))
    cut = drawn.randrange(len(texts) + 1)
    with tempfile.TemporaryDirectory() as folder:
        found = parts_of(made(Path(folder), [order[:cut], [*order[cut:], "unlike all others"]], shares)[0])
    assert {text: found[text] for text in texts} == expected


def test_clusters_are_those_of_all_pairs_that_have_a_band_in_common():
    drawn = np.random.default_rng(0)
    centres = drawn.integers(0, 1 << 32, (6, HASHES), np.uint32)
    sketches = centres[drawn.integers(0, 6, 80)]
    other = drawn.random(sketches.shape) < drawn.uniform(0, 0.4, (80, 1))
    sketches[other] = drawn.integers(0, 1 << 32, int(other.sum()))
    band, order = drawn.integers(0, 3, 80).astype(np.uint64), None
    order = np.argsort(band)
    equal = (sketches[:, None] == sketches).sum(2)
    alike = [(a, b) for a in range(80) for b in range(a) if band[a] == band[b] and equal[a, b] >= 90]
    for loop in (connect, compiled(connect)):
        first = np.arange(80)
        loop(order, band[order], sketches, 90, first)
        for _ in range(80):
            first = first[first]
        assert first.tolist() == connected(80, alike)
    assert 6 < len({*first.tolist()}) < 80


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95, 0.99])
def test_bands_find_all_but_few_pairs_at_the_threshold(threshold):
    rows = rows_of_band(threshold)
    assert (1 - threshold**rows) ** (HASHES // rows) <= 0.01 < (1 - threshold ** (rows + 1)) ** (HASHES // (rows + 1))


def test_shares_are_met_by_clusters_of_any_size_and_seeds_draw_others(tmp_path):
    """The smallest of many hashes is small, so it is not what the part is drawn by."""
    texts = [f"text {i}" for i in range(1000)]
    lines, done = made(tmp_path, [texts, *[texts[:500]] * 7], Shares(0.1, 0.1), jaccard=1)
    assert done.clusters == 500
    for some in (texts[:500], texts[500:]):
        counts = Counter(parts_of(lines)[text] for text in some)
        assert all(abs(counts[part] - 50) < 4 * 7 for part in ("valid", "test"))
    numbers = range(10_000)
    more = [Shares(0.2, 0.1).part(number) for number in numbers]
    fewer = [Shares(0.1, 0.1).part(number) for number in numbers]
    assert {pair for pair in zip(fewer, more, strict=True) if pair[0] != pair[1]} == {("train", "valid")}
    same = sum(a == b == "valid" for a, b in zip(fewer, map(Shares(0.1, 0.1, 1).part, numbers), strict=True))
    assert same < 150  # a tenth of a tenth


STRANGE = ["zh//x", "en/", "a/../b", "l" * 260, "EN", "en", "a b", "a_b", "..", ".x", "ไทย", "en\x1b[31m", "new\nline"]


def test_what_is_written_is_what_was_read(tmp_path):
    documents = [
        {"text": f"{text}\n\u2028\0\x1b🤝", "lang": STRANGE[i % len(STRANGE)], "id": f"n{i}"}
        for i, text in enumerate(sentences(1, 150))
    ]
    lines, done = made(tmp_path, [documents, [{"text": "no language", "id": 7}]])
    written = [line for part in lines.values() for line in part]
    expected = [*documents, {"text": "no language", "lang": "1", "id": "7"}]
    assert sorted(map(json.dumps, written)) == sorted(map(json.dumps, expected))
    assert sum(row.documents for row in done.written.values()) == done.report.documents == 151
    assert sum(row.bytes for row in done.written.values()) == done.report.bytes
    data = data_of(f"{tmp_path}/out/train/{{language}}.jsonl.gz", val_files=[f"{tmp_path}/out/valid/*.jsonl.gz"])
    for part, name in (("train", "train"), ("val", "valid")):
        assert sorted(data.texts(part)) == sorted((line["lang"], line["text"].encode()) for line in lines[name])


def test_one_of_each_cluster_is_kept_whatever_the_order(tmp_path):
    texts = [f"{base[:at]} {base[at:]}" for base in BASES for at in (100, 250, 400)] + ["single"]
    kept = []
    for name, order in (("a", texts), ("b", texts[::-1])):
        (tmp_path / name).mkdir()
        lines, done = made(tmp_path / name, [order, texts[:3]], drop_duplicates=True)
        kept.append(sorted(line["text"] for part in lines.values() for line in part))
        assert (done.clusters, done.dropped) == (4, 11)
    assert kept[0] == kept[1]
    assert [sum(text[:50] == base[:50] for text in kept[0]) for base in BASES] == [1, 1, 1, 1]


# Not half of it


def fail_at(monkeypatch, n, error):
    calls, usual = itertools.count(1), splitting._File.write

    def write_(file, document):
        if next(calls) == n:
            raise error
        usual(file, document)

    monkeypatch.setattr(splitting._File, "write", write_)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(28, "No space left on device")], ids=["Ctrl-C", "full disk"]
)
def test_what_is_stopped_leaves_nothing(error, tmp_path, monkeypatch):
    fail_at(monkeypatch, 15, error)
    with pytest.raises(type(error)):
        made(tmp_path, [sentences(1)])
    assert [path.name for path in tmp_path.iterdir()] == ["0.jsonl"]


def test_what_is_killed_leaves_no_files_that_anything_reads(tmp_path, monkeypatch):
    fail_at(monkeypatch, 15, KeyboardInterrupt())
    monkeypatch.setattr(splitting, "remove", lambda path: None)
    monkeypatch.setattr(splitting, "HELD", 0)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, [sentences(1)])
    assert list(tmp_path.glob(".out-*.part/made/*/*.jsonl.gz"))
    assert [source.path.name for source in expand(str(tmp_path), "x")] == ["0.jsonl"]
    monkeypatch.undo()
    made(tmp_path, [sentences(1)])


@pytest.mark.parametrize(
    "change",
    [lambda texts: texts[:-1], lambda texts: [*texts, "more"], lambda texts: texts[::-1]],
    ids=["shorter", "longer", "other"],
)
def test_a_file_that_changes_meanwhile_is_named(change, tmp_path, monkeypatch):
    usual = splitting._write

    def later(*arguments):
        write(tmp_path / "0.jsonl", change(sentences(1)))
        return usual(*arguments)

    monkeypatch.setattr(splitting, "_write", later)
    with pytest.raises(ValueError, match=r"(0\.jsonl has changed|has become shorter) while it was read"):
        made(tmp_path, [sentences(1)])
    assert [path.name for path in tmp_path.iterdir()] == ["0.jsonl"]


def test_memory_grows_with_documents_not_with_text(tmp_path):
    made(tmp_path, [sentences(1)])  # what is loaded once
    peaks = []
    for n in (20, 60):
        path = write(tmp_path / "a.jsonl", [f"{i:08} " * 500 for i in range(n)])
        tracemalloc.start()
        try:
            split(expand(str(path), "x"), tmp_path / f"{n}", SHARES)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] - peaks[0] < 40_000  # of 180 kB


# The command


def test_the_command_shows_what_went_where(tmp_path, capsys):
    path = write(
        tmp_path / "en.jsonl", [*sentences(1, 60), *BASES, BASES[0].upper(), {"text": 3}, {"text": "ไทย", "lang": "th"}]
    )
    assert aunet("data", "split", path, "--out", tmp_path / "out", "--valid", 0.2, "--test", 0.1, "--seed", 5) == 0
    shown = capsys.readouterr()
    rows = [line.split() for line in shown.out.splitlines()]
    assert rows[0] == ["part", "language", "documents", "bytes", "of", "language", "alike"]
    lines = read(tmp_path / "out")
    for part, language, documents, size, share, _ in rows[1:]:
        texts = [line["text"].encode() for line in lines[part] if line["lang"] == language]
        whole = sum(len(line["text"].encode()) for of in lines.values() for line in of if line["lang"] == language)
        assert (int(documents), int(size)) == (len(texts), sum(map(len, texts)))
        assert share == f"{sum(map(len, texts)) / whole:.1%}"
    assert sum(int(row[-1]) for row in rows[1:]) == 2
    assert "1 of 67 lines hold no usable document" in shown.err
    assert "no document of th is in test" in shown.err
    assert "aunet: 2 documents are alike, in 1 cluster, each in one part" in shown.err
    assert f"--data.train_files '{tmp_path}/out/train/*.jsonl.gz' --data.val_files '{tmp_path}/out/valid/" in shown.err
    assert "\r" not in shown.err  # no bar
    assert aunet("data", "split", path, "--out", tmp_path / "out") == 1
    assert "is there already, and not empty: name a new folder" in error_of(capsys)
    assert aunet("data", "split", path, "--out", tmp_path / "one", "--drop_duplicates", "--test", 0) == 0
    assert "2 documents are alike, in 1 cluster, 1 of them dropped" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["en.jsonl"], "--out is missing"), (["en.jsonl", "--out", "en.jsonl"], "is there already"),
        (["--out", "o"], "no file is named"), (["en.jsonl", "--out", "o", "--valid", "1"], "--valid is 1"),
        (["en.jsonl", "--out", "o", "--valid", "0.5", "--test", "0.5"], "leave nothing to train on"),
        (["en.jsonl", "--out", "o", "--jaccard", "0.1"], "--jaccard is 0.1, it must be 0.5 or more"),
        (["en.jsonl", "--out", "o", "--text_key", "body"], "no line has the key 'body' (text_key); lines have 'text'"),
        (["en.jsonl", "none.jsonl", "--out", "o"], "no file matches"), (["en.jsonl", "--out", "en.jsonl/o"], "en.jsonl/o cannot be written (File exists)"),
    ],
)  # fmt: skip
def test_what_cannot_be_split_is_said(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "en.jsonl", sentences(1))
    assert aunet("data", "split", *arguments) == 1
    assert said in error_of(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["en.jsonl"]


def test_without_datasketch_equal_texts_are_found(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(
        ValueError, match=r"need datasketch: pip install 'aunet-lightning\[dedup\]', or give --jaccard 1"
    ):
        made(tmp_path, [["a", "b", "a"]])
    assert made(tmp_path, [["a", "b", "a"]], jaccard=1)[1].clusters == 1


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bars_are_for_terminals(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "MOMENT", 0)
    monkeypatch.setattr(sys, "stderr", Terminal())
    made(tmp_path, [sentences(1), sentences(2)])
    assert "files:   0%" in sys.stderr.getvalue()
    assert "1.jsonl" in sys.stderr.getvalue()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    data_of(str(tmp_path / "*.jsonl"))
    assert sys.stderr.getvalue() == ""
