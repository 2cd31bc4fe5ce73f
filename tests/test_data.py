"""Data: every byte once per epoch, batch k from the seed and k alone, and nothing lost without a count."""

import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aunet_lightning import AUNet, ByteDataModule
from aunet_lightning.data.json_lines import licences
from aunet_lightning.data.order import shuffled
from aunet_lightning.data.packing import refreshes_of
from aunet_lightning.vocabulary import BOS, EOS, IGNORE
from splitters import available, build
from tests.helpers import ROOT, UDHR, tiny

UPPER = [{"name": "every", "n": 2}]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AUNET_CACHE", str(tmp_path / "cache"))


def module(files, **options) -> ByteDataModule:
    options = {"workers": 0, "row_bytes": 32, "batch_rows": 3, "upper_splitters": UPPER} | options
    made = ByteDataModule([str(file) for file in files], **options)
    made.prepare_data()
    made.setup()
    return made


def write(path, documents):
    path.write_text("".join(json.dumps(d, ensure_ascii=False) + "\n" for d in documents))
    return path


def small(tmp_path):
    texts = ["one two three. Four five", "人人生而自由", "x", "a longer document " * 9, "naïve café\n\nline"]
    return write(tmp_path / "mixed.jsonl", [{"text": t, "lang": "en" if t.isascii() else "xx"} for t in texts]), texts


def predicted(batches, epoch):
    """All (document, target) pairs of an epoch."""
    pairs = Counter()
    for k in range(len(batches)):
        batch = batches[epoch, k]
        scored = batch["targets"] != IGNORE
        pairs.update(zip(batch["documents"][scored].tolist(), batch["targets"][scored].tolist(), strict=True))
    return pairs


@pytest.mark.parametrize("row_bytes", [1, 7, 32, 1000])
@pytest.mark.parametrize("batch_rows", [1, 3, 50])
@pytest.mark.parametrize("epoch", [0, 3])
@pytest.mark.parametrize(("part", "rows"), [("train", "stream"), ("train", "documents"), ("val", "stream")])
def test_every_byte_is_predicted_once_per_epoch(tmp_path, row_bytes, batch_rows, epoch, part, rows):
    path, texts = small(tmp_path)
    data = module([path], val_files=[str(path)], row_bytes=row_bytes, batch_rows=batch_rows, rows=rows)
    data.keeps_whole = True
    batches = data.batches(part)
    read = batches.drawn(epoch, len(batches))
    assert read.sum() == sum(len(text.encode()) for text in texts)
    expected = Counter()
    for document, text in enumerate(texts):
        expected.update((document, byte) for byte in [*text.encode(), EOS])
    assert predicted(batches, epoch) == expected


@settings(max_examples=40)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 20), st.randoms())
@example([3, 4], 9, SimpleNamespace(sample=lambda texts, n: texts[::-1]))  # of both, all but an EOS would fit
def test_what_a_row_holds_of_a_whole_document_does_not_depend_on_its_neighbours(lengths, row_bytes, drawn):
    with tempfile.TemporaryDirectory() as folder:
        texts = [chr(65 + i) * length for i, length in enumerate(lengths)]
        found = []
        for order in (texts, drawn.sample(texts, len(texts))):
            path = write(Path(folder) / "a.jsonl", [{"text": text, "id": text[0]} for text in order])
            data = ByteDataModule(None, [str(path)], cache_dir=folder, row_bytes=row_bytes, batch_rows=3)
            data.setup()
            data.keeps_whole = True
            batches, pieces = data.batches("val"), Counter()
            for r in range(batches.n_rows):
                row = batches.row(0, r)
                assert 0 < len(row["ids"]) <= row_bytes
                for document in set(row["documents"].tolist()) - {-1}:
                    ours = row["documents"] == document
                    pieces[data.corpora["val"].name(document), bytes(row["ids"][ours].astype(np.uint16))] += 1
            found.append(pieces)
        assert found[0] == found[1]


@settings(max_examples=60)
@given(st.lists(st.text("aé人𐍈", max_size=40), min_size=1, max_size=20), st.integers(5, 30), st.integers(0, 9))
def test_fitted_rows_cut_no_document_that_fits_and_no_character(texts, row, seed):
    ids = SimpleNamespace(
        lengths=np.array([len(text.encode()) for text in texts]),
        ids=lambda document: np.frombuffer(texts[document].encode(), np.uint8),
    )
    order = shuffled("documents", ids, np.arange(len(texts)), row, seed, of_bytes=True)
    sizes, found = ids.lengths + 2, Counter()
    for r in range(order.n_rows):
        pieces = order.pieces(seed, r)
        assert sum(piece.until - piece.since for piece in pieces) <= row + 1
        for piece in pieces:
            is_cut = piece.since > 0 or piece.until < sizes[piece.document]
            assert is_cut == (sizes[piece.document] > row + 1)
            data = texts[piece.document].encode()
            data[max(piece.since, 0) : piece.until - 1].decode()  # what it predicts is whole characters
            found.update((piece.document, p) for p in range(piece.since + 1, piece.until))
    assert found == Counter((document, p) for document, size in enumerate(sizes) for p in range(1, size))
    rooms = []  # of a plain best fit
    for size in sorted((size for size in sizes if size <= row + 1), reverse=True):
        best = min((room for room in rooms if room >= size), default=None)
        rooms = (
            [*rooms, row + 1 - size]
            if best is None
            else [*rooms[: (i := rooms.index(best))], best - size, *rooms[i + 1 :]]
        )
    if max(sizes) <= row + 1:
        assert order.n_rows == len(rooms)


def test_the_loader_gives_an_epoch_of_real_text():
    data = module([UDHR / "th.jsonl", UDHR / "en.jsonl"], row_bytes=128, batch_rows=8, holdout_every=10, workers=2)
    count = sum(int(((b["targets"] >= 0) & (b["targets"] < 256)).sum()) for b in data.train_dataloader())
    assert count == sum(len(text) for _, text in data.texts("train"))


def test_rows_hold_bos_bytes_eos_and_the_levels_of_the_whole_document(tmp_path):
    path, _ = small(tmp_path)
    data = module([path], row_bytes=10)
    batches = data.batches("train")
    batches.order.seed = None
    stream, levels = [], []
    for r in range(batches.n_rows):
        row = batches.row(0, r)
        np.testing.assert_array_equal(
            row["ids"][1:][row["targets"][:-1] >= 0], row["targets"][:-1][row["targets"][:-1] >= 0]
        )
        stream += row["ids"].tolist()
        levels += row["levels"].tolist()
    expected_ids, expected_levels = [], []
    stack = data.reader.stack
    for _, text in data.texts("train"):
        expected_ids += [BOS, *text, EOS]
        expected_levels += [2, *stack.levels(text).tolist(), 0]
    assert stream == expected_ids[:-1]  # the last EOS is predicted only
    assert levels == expected_levels[:-1]


def test_marks_lie_on_the_bytes_of_their_document(tmp_path):
    path, _ = small(tmp_path)
    data = module([path], row_bytes=10)
    batches = data.batches("train")
    batches.order.seed, batches.marks = None, {2: build("utf8_character"), 5: build("fixed", n=3)}
    marks = np.concatenate([batches.row(0, r)["marks"] for r in range(batches.n_rows)])
    for bit, marker in batches.marks.items():
        expected = [fire for _, text in data.texts("train") for fire in (False, *marker.split(text), False)]
        assert (marks >> bit & 1 == 1).tolist() == expected[:-1]


def test_bos_and_padding_are_no_targets(tmp_path):
    path, _ = small(tmp_path)
    batches = module([path], row_bytes=10_000).batches("train")
    batch = batches[0, 0]
    assert BOS not in batch["targets"]
    assert torch.equal(batch["targets"] == IGNORE, batch["documents"] == -1)
    assert torch.equal(batch["targets"] == IGNORE, batch["languages"] == -1)
    assert torch.equal(batch["sizes"] == 1, (batch["targets"] >= 0) & (batch["targets"] < BOS))
    assert not batch["sizes"][batch["targets"] == EOS].any()


def test_a_batch_depends_on_seed_epoch_and_index_alone():
    files = [UDHR / "en.jsonl", UDHR / "my.jsonl"]
    one, other = (module(files, workers=w, row_bytes=64).batches("train") for w in (0, 2))
    for index in [(0, 5), (2, 0), (0, 5), (1, 3)]:
        torch.testing.assert_close(one[index], other[index], rtol=0, atol=0)
    assert not torch.equal(one[0, 0]["ids"], one[1, 0]["ids"])
    assert not torch.equal(one[0, 0]["ids"], module(files, seed=1, row_bytes=64).batches("train")[0, 0]["ids"])


@pytest.mark.parametrize("upper", [[], UPPER, [*UPPER, "whitespace"], ["router"], ["router", *UPPER]], ids=str)
@pytest.mark.parametrize("name", available("rule"))
@torch.no_grad()
def test_a_batch_carries_the_units_that_the_network_counts(tmp_path, name, upper):
    data = module([small(tmp_path)[0]], splitter=name, upper_splitters=upper, row_bytes=48)
    rules, batches = data.reader.stack.n_byte_rules, data.batches("train")
    last = data.batches("train")
    last.rank = last.batch_rows - 1  # which has a row of padding where others have text
    for masked in (True, False):
        net = AUNet(tiny(data.reader.depth + 1, document_masking=masked), data.reader.stack).eval()
        for batch in (batches[0, 0], batches[1, len(batches) - 1], last[0, len(batches) - 1]):
            output = net(batch["ids"], batch["levels"], refreshes=refreshes_of(batch))
            assert batch["n_units"] == output.units.T.tolist()[:rules]
            if name == "refresh" and rules:
                assert batch["n_refreshes"] == output.refreshes.sum(1).tolist()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [0, 1, 4])
def test_a_loader_goes_on_where_another_stopped(tmp_path, workers, stop):
    path, _ = small(tmp_path)
    data = module([path], workers=workers, row_bytes=16)
    n = len(data.batches("train"))
    loader = data.train_dataloader()
    straight = [batch["ids"] for _ in range(2) for batch in loader]
    assert len(straight) == 2 * n
    first = data.train_dataloader()
    iterator = iter(first)
    taken = [next(iterator)["ids"] for _ in range(stop)]
    second = data.train_dataloader()
    second.load_state_dict(first.state_dict())
    rest = [batch["ids"] for _ in range(2) for batch in second]
    assert all(torch.equal(a, b) for a, b in zip(straight, taken + rest, strict=True))


def test_an_epoch_follows_though_nobody_asked_for_more_than_its_length(tmp_path):
    """Lightning takes len(loader) batches of an iterator and drops it."""
    path, _ = small(tmp_path)
    loader = module([path], row_bytes=16).train_dataloader()
    epochs = [[batch["ids"] for batch, _ in zip(loader, range(len(loader)), strict=False)] for _ in range(3)]
    assert [len(epoch) for epoch in epochs] == [len(loader)] * 3
    for epoch, batches in enumerate(epochs):
        assert torch.equal(batches[0], loader.batches[epoch, 0]["ids"])


def test_a_data_module_goes_on_where_another_stopped(tmp_path):
    path, _ = small(tmp_path)
    first, second = module([path], row_bytes=16), module([path], row_bytes=16)
    iterator = iter(first.train_dataloader())
    next(iterator)
    second.load_state_dict(first.state_dict())
    assert torch.equal(next(iter(second.train_dataloader()))["ids"], next(iterator)["ids"])


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_together_have_the_batch_of_one(tmp_path, world):
    path, _ = small(tmp_path)
    whole = module([path], row_bytes=16, batch_rows=4).batches("train")
    parts = []
    for rank in range(world):
        part = module([path], row_bytes=16, batch_rows=4).batches("train")
        part.rank, part.world = rank, world
        parts.append(part)
    for k in range(len(whole)):
        together = Counter(map(tuple, whole[0, k]["ids"].tolist()))
        shared = Counter(tuple(row) for part in parts for row in part[0, k]["ids"].tolist() if len(row) > 1)
        assert sum(shared.values()) == sum(together.values())


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_files_plain_and_compressed_give_the_same(tmp_path, suffix):
    content = (UDHR / "zh-Hans.jsonl").read_bytes()
    path = tmp_path / f"zh{suffix}"
    compress = {".jsonl": bytes, ".jsonl.gz": gzip.compress, ".jsonl.zst": zstandard.ZstdCompressor().compress}[suffix]
    path.write_bytes(compress(content))
    expected = [(line["lang"], line["text"].encode()) for line in map(json.loads, content.splitlines())]
    assert module([path]).texts("train") == expected


def test_language_by_line_by_entry_and_by_file_name(tmp_path):
    first = write(tmp_path / "sw.jsonl", [{"text": "a"}, {"text": "b", "lang": "yo"}])
    second = write(tmp_path / "other.jsonl", [{"text": "c"}])
    data = ByteDataModule([str(first), {"path": str(second), "lang": "fi"}], workers=0)
    data.setup()
    assert data.texts("train") == [("sw", b"a"), ("yo", b"b"), ("fi", b"c")]


def test_good_files_are_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module([UDHR / "en.jsonl"])


def test_a_changed_file_is_read_anew(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"text": "before"}])
    assert module([path]).texts("train") == [("a", b"before")]
    write(path, [{"text": "after it"}])
    assert module([path]).texts("train") == [("a", b"after it")]


def test_held_out_documents_are_not_trained_on():
    data = module([UDHR / "en.jsonl", UDHR / "de.jsonl"], holdout_every=10)
    train, val = set(data.texts("train")), set(data.texts("val"))
    assert len(val) == 2 * 3
    assert not train & val
    assert data.texts("test") == data.texts("val")


def test_languages_are_selected():
    data = module([UDHR / "*.jsonl"], languages=["th", "lo"])
    assert {language for language, _ in data.texts("train")} == {"th", "lo"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train_files": ["nowhere/*.jsonl"]}, "data.train_files: no file matches 'nowhere"),
        ({"val_files": ["gone.jsonl"]}, "data.val_files: no file matches 'gone"),
        ({"train_files": [{"lang": "th"}]}, "neither a path nor"),
        ({"train_files": [{"path": "x", "language": "th"}]}, "neither a path nor"),
        ({"languages": ["en", "tlh"]}, "data.languages: tlh not in the files; they hold en"),
        ({"row_bytes": 0}, "data.row_bytes is 0"),
        ({"holdout_every": 1}, "data.holdout_every is 1"),
        ({"holdout_every": 100}, "no document is left for val.*holdout_every"),
        ({"splitter": "nope"}, "unknown splitter 'nope'"),
        ({"splitter": None}, "upper_splitters needs a splitter"),
        ({"cache_dir": "/proc/nowhere"}, "data.cache_dir: cannot write"),
    ],
)
def test_mistakes_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        ByteDataModule(**{"train_files": [str(UDHR / "en.jsonl")], "upper_splitters": UPPER} | options).setup()


def test_a_splitter_that_peeks_is_refused_before_training():
    data = ByteDataModule([str(UDHR / "en.jsonl")], splitter="tests.test_splitter_laws:PeekingSplitter")
    with pytest.raises(ValueError, match="prefix law"):
        data.prepare_data()


WORKER = """
import multiprocessing, sys, time
from aunet_lightning.data.loader import EpochLoader

class Batches:
    def __len__(self):
        return 9
    def __getitem__(self, at):
        return multiprocessing.current_process().pid

if __name__ == "__main__":
    multiprocessing.set_start_method("forkserver")
    batches = iter(EpochLoader(Batches(), 1))
    print(next(batches), flush=True)
    time.sleep(60)
"""


def test_workers_end_with_a_killed_process(tmp_path):
    (tmp_path / "reads.py").write_text(WORKER)
    command = [sys.executable, str(tmp_path / "reads.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:
        worker = Path(f"/proc/{int(process.stdout.readline())}")
        assert worker.exists()
        process.kill()
    deadline = time.monotonic() + 20
    while worker.exists() and "\nState:\tZ" not in worker.joinpath("status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_licences_are_what_lines_say(tmp_path):
    lines = [{"text": "a", "license": "CC0"}, {"text": "b", "licence": "MIT"}, {"text": "license"}, {"license": None}]
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join([*map(json.dumps, lines), '{"license', ""]).encode()))
    assert licences(path) == {"CC0", "MIT"}
