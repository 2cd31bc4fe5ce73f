"""Streamed text: every document once a turn, in its share, the same batches whatever the workers, ranks and restarts."""

import json
from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from aunet_lightning import ByteDataModule
from aunet_lightning.data.documents import Report
from aunet_lightning.data.remote import RemoteFile
from aunet_lightning.data.skipped import HELD_OUT
from aunet_lightning.data.sources import Source, expand
from aunet_lightning.data.streaming import OTHER, Cursor, Group, Place, ahead, stream_of
from aunet_lightning.vocabulary import BOS, EOS, IGNORE
from tests.helpers import error_of, fit, points, write
from tests.ranks import killed_at, ranks

TEXTS = {
    "th": [["ทุกคน" * n for n in range(1, 9)], ["อ" * n for n in range(1, 30, 3)]],
    "en": [["all human beings " * n for n in range(1, 20)]],
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUNET_CACHE", str(tmp_path / "cache"))
    for language, texts in TEXTS.items():
        for number, of_file in enumerate(texts):
            write(tmp_path / f"{language}.{number}.jsonl", of_file)
    return ["*.jsonl"]


def data_of(train_files, **options) -> ByteDataModule:
    options = {"workers": 0, "row_bytes": 50, "batch_rows": 4, "shuffle_buffer_bytes": 700} | options
    data = ByteDataModule(train_files, **options)
    data.prepare_data()
    data.setup()
    return data


def same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key], key


def text_of(batches):
    """The documents that complete batches predict, with the times of each."""
    found, lanes = Counter(), {}
    for batch in batches:
        for lane, (targets, documents) in enumerate(zip(batch["targets"], batch["documents"], strict=True)):
            for target, document in zip(targets.tolist(), documents.tolist(), strict=True):
                if target == EOS:
                    found[bytes(lanes.pop((lane, document), b""))] += 1
                elif target != IGNORE:
                    lanes.setdefault((lane, document), bytearray()).append(target)
    return found


def test_shares_are_those_of_files_here_and_elsewhere(files, tmp_path):
    elsewhere = [RemoteFile(f"memory://th.{n}.jsonl", size=n) for n in (300, 500)] + [RemoteFile("memory://my.jsonl")]
    sources = [*expand(["en.*"], "data.train_files"), *(Source(place, place.name[:2]) for place in elsewhere)]
    here = (tmp_path / "en.0.jsonl").stat().st_size
    shares = {
        group.name: group.share for group in stream_of(sources, None, None, 0, 1e3, np.zeros(0, np.uint64)).groups
    }
    mean = round((here + 800) / 3)
    assert shares == pytest.approx(
        {name: n / (here + 800 + mean) for name, n in {"en": here, "th": 800, "my": mean}.items()}
    )


def test_a_buffer_holds_what_a_plain_merge_gives(files):
    stream = data_of(files, mix={"weights": {"th": 3, "en": 1}}).stream
    report, position, taken = Report(), dict.fromkeys(range(2), 0), []
    alone = [stream.documents(number, Cursor(), Report()) for number in range(2)]
    for held, cursors in islice(stream.buffers([Cursor()] * 2, report), 9):
        plain, n_bytes = [], 0
        while n_bytes < 700:
            number = min(range(2), key=lambda g: (position[g] / stream.groups[g].share, g))
            document, _ = next(alone[number])
            position[number] += len(document.text) + 2
            n_bytes += len(document.text)
            plain.append(document)
        assert held == plain
        assert [cursor.size for cursor in cursors] == [*position.values()]
        taken += held
    assert position[0] / sum(position.values()) == pytest.approx(
        stream.groups[0].share, abs=400 / sum(position.values())
    )


def test_every_document_of_a_group_comes_once_a_turn_from_any_place(files):
    stream = data_of(files).stream
    for number, group in enumerate(stream.groups):
        n = sum(len(of_file) for of_file in TEXTS[group.name])
        read = list(islice(stream.documents(number, Cursor(), Report()), 3 * n))
        expected = Counter(text.encode() for of_file in TEXTS[group.name] for text in of_file)
        for turn in range(3):
            assert Counter(document.text for document, _ in read[turn * n : (turn + 1) * n]) == expected
        for at in (0, 4, n - 1, n, 2 * n - 1):
            assert next(stream.documents(number, read[at][1], Report())) == read[at + 1]


def test_each_turn_reads_the_files_in_another_order(files):
    stream = data_of(files).stream
    first = [document for document, _ in islice(stream.documents(1, Cursor(), Report()), 180)][::18]
    assert len(set(first)) == 2


def test_batches_hold_each_document_of_a_buffer_once_and_count_it(files):
    data = data_of(files)
    loader = data.train_dataloader()
    assert loader.drawn().tolist() == [0, 0, 0]
    ((held, _),) = islice(data.stream.buffers([Cursor()] * 2, Report()), 1)
    expected = Counter(document.text for document in held)
    batches = iter(loader)
    first = [next(batches)]
    while loader.batches.place.buffer == 0:
        first.append(next(batches))
    targets = sum(int(batch["sizes"].sum()) for batch in first)
    assert targets == sum(len(document.text) for document in held) == loader.drawn().sum()
    names = data.language_names("train")
    assert names == ["en", "th", OTHER]
    by_language = Counter(document.language for document in held for _ in document.text)
    assert dict(zip(names, loader.drawn().tolist(), strict=True)) == {name: by_language[name] for name in names}
    assert sum(expected.values()) == sum(int((batch["targets"] == EOS).sum()) for batch in first)
    assert all(batch["ids"][0, 0] != IGNORE for batch in first)
    assert BOS in first[0]["ids"]


@pytest.mark.parametrize("tokenizer", [None, {"vocab_size": 280}], ids=["bytes", "tokens"])
def test_batches_do_not_depend_on_workers_and_continue_at_any_place(files, tokenizer):
    options = {"splitter": None, "tokenizer": tokenizer} if tokenizer else {}
    straight = list(islice(data_of(files, **options).train_dataloader(), 30))
    for workers, stops in ((2, (3, 7, 12)), (1, (1,)), (3, ())):
        found, state = [], None
        for stop in (*stops, 30):
            data = data_of(files, workers=workers, **options)
            data.load_state_dict(state or {})
            loader = data.train_dataloader()
            found += islice(loader, stop - len(found))
            state = json.loads(json.dumps(data.state_dict()))  # plain data
            loader.close()
        for one, other in zip(straight, found, strict=True):
            same(one, other)


def test_ranks_together_have_the_batch_of_one(files):
    whole = list(islice(data_of(files).train_dataloader(), 12))
    parts = []
    for rank in range(2):
        data = data_of(files)
        loader = data.train_dataloader()
        loader.batches.rank, loader.batches.world = rank, 2
        parts.append(list(islice(loader, 12)))
    for batch, *of_ranks in zip(whole, *parts, strict=True):
        together = Counter(
            tuple(row) for part in of_ranks for row in part["targets"].tolist() if row != [IGNORE] * len(row)
        )
        full = Counter(tuple(row) for row in batch["targets"].tolist())
        cut = {tuple(value for value in row if value != IGNORE) for row in full}
        assert {tuple(value for value in row if value != IGNORE) for row in together} <= cut
        assert sum(int(part["sizes"].sum()) for part in of_ranks) == int(batch["sizes"].sum())


def test_held_out_text_is_left_out_and_told(files, tmp_path):
    write(tmp_path / "val.json.x", [TEXTS["th"][0][3], "other text"])
    data = data_of(files, val_files=["val.json.x"])
    read = [document.text for document, _ in islice(data.stream.documents(1, Cursor(), Report()), 40)]
    assert TEXTS["th"][0][3].encode() not in read
    with pytest.warns(UserWarning, match=f"train files, so far: .* × {HELD_OUT} .*th.0.jsonl, document 4"):
        for _ in islice(data.train_dataloader(), 60):
            pass
    assert data.skipped[HELD_OUT] >= 1


@pytest.mark.parametrize(
    ("limit", "line"), [(0, 3), (0.005, 63), (0.01, 63), (0.02, 123), (0.03, 1_388), (0.2, None), (None, None)]
)
def test_a_share_of_skipped_lines_over_the_limit_stops_at_its_line(files, tmp_path, limit, line):
    broken = {*range(3, 150, 6), *range(1_340, 1_990, 3), 2_500}  # of 3000 lines, counted from 1
    text = "".join("broken\n" if n in broken else json.dumps({"text": f"line {n}"}) + "\n" for n in range(1, 3001))
    (tmp_path / "de.jsonl").write_text(text + "\n" * 500)  # which hold nothing that could be lost
    lost = [n for n in sorted(broken) if limit is not None]
    first = next((n for i, n in enumerate(lost, 1) if i > max(limit * max(n, 1000), 10 if limit else 0)), None)
    assert first == line
    stream = data_of(["en.*"], skipped_limit=limit).stream
    stream = replace(
        stream, groups=(Group("de", tuple(expand(["de.jsonl"], "data.train_files")), 1.0),), names=("de", OTHER)
    )
    read = stream.documents(0, Cursor(), Report())
    if line is None:
        assert [document.text for document, _ in islice(read, 4_000)][2_999 - len(broken)] == b"line 3000"
        return
    says = rf"data.train_files: .*de.jsonl:{line}: .* × invalid JSON .*more than data.skipped_limit, {limit:g}. Correct"
    for cursor, passed in ((Cursor(), 0), (Cursor(0, 0, 2), 2)):  # also of a run that continues
        found = []
        with pytest.raises(ValueError, match=says):
            found.extend(islice(stream.documents(0, cursor, Report()), 4_000))
        assert passed + len(found) == line - 1 - sum(n < line for n in broken)


def test_documents_of_other_languages_are_left_out_or_named_other(files, tmp_path):
    write(tmp_path / "en.1.jsonl", [{"text": "ein Satz", "lang": "de"}, {"text": "one"}])
    read = [document.language for document, _ in islice(data_of(files).stream.documents(0, Cursor(), Report()), 21)]
    assert Counter(read) == {"en": 20, "de": 1}
    data = data_of(files, languages=["en"])
    assert data.language_names("train") == ["en"]
    batches = islice(data.train_dataloader(), 40)
    assert b"ein Satz" not in text_of(batches)


def test_items_are_made_ahead_in_order():
    assert list(islice(ahead(iter(range(100))), 10)) == list(range(10))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"shuffle_buffer_bytes": 0}, "data.shuffle_buffer_bytes is 0, it must be"),
        ({"holdout_every": 10}, "data.holdout_every: a stream .* name data.val_files"),
        ({"mix": {"bytes": {"th": 10}}}, "which a stream does not know"),
        ({"mix": {"weights": {"th": 10}}}, "data.mix.weights: en has no weight"),
        ({"text_key": "body"}, "no line has the key 'body'"),
        ({"languages": ["km"]}, "no document that can be used|not in the files"),
    ],
    ids=str,
)
def test_a_stream_that_cannot_be_is_told(files, options, says):
    with pytest.raises(ValueError, match=says):
        data_of(files, **options)


def test_memory_of_a_place_is_a_few_numbers(files):
    loader = data_of(files).train_dataloader()
    list(islice(loader, 50))
    assert len(json.dumps(loader.state_dict())) < 1000
    assert Place(**loader.state_dict()).buffer > 1


# Runs


STREAMED = [
    "--data.train_files", "[en.jsonl, th.jsonl]", "--data.val_files", "[held.jsonl]", "--data.holdout_every", "null",
    "--data.shuffle_buffer_bytes", "2000", "--data.mix", "{temperature: 0.3}", "--data.workers", "2", "--trainer.accumulate_grad_batches", "2",
    "--trainer.val_check_interval", "12", "--trainer.check_val_every_n_epoch", "null",
]  # fmt: skip


@pytest.fixture
def streamed(here):
    write(here / "th.jsonl", ["ทุกคน" * n for n in range(1, 12)])
    write(here / "held.jsonl", ["another sentence"])
    return here


def test_a_run_on_a_stream(streamed, capsys):
    assert fit(*STREAMED, "--run.folder", "r", "--trainer.max_steps", "6") == 0
    told = capsys.readouterr().out
    assert "streamed  files  bytes on disk" in told
    assert (5, "data/skipped_lines") in points(streamed / "r")
    last = points(streamed / "r")
    step = max(step for step, key in last if key == "train/bytes_en")
    assert last[step, "train/bytes_en"] + last[step, "train/bytes_th"] == pytest.approx(
        last[step, "bytes_seen"], rel=0.2
    )
    for options, says in (
        (["--trainer.max_steps", "-1", "--trainer.max_epochs", "2"], "a stream without epochs: set trainer.max_steps"),
        (["--trainer.check_val_every_n_epoch", "1"], "set trainer.val_check_interval to a number of steps"),
    ):
        assert fit(*STREAMED, "--run.folder", "q", "--trainer.max_steps", "6", *options) == 1
        assert says in error_of(capsys)


def test_too_many_skipped_lines_stop_a_run_which_keeps_its_checkpoint(streamed, capsys):
    good = json.dumps({"text": "a sentence that can be read"}) + "\n"
    (streamed / "en.jsonl").write_text(good * 400 + "broken\n" * 20)
    ours = [
        *STREAMED,
        "--data.train_files",
        "[en.jsonl]",
        "--data.mix",
        "null",
        "--run.folder",
        "r",
        "--trainer.max_steps",
        "90",
    ]
    assert fit(*ours) == 1
    said = error_of(capsys)
    assert "data.train_files: " in said
    assert "en.jsonl:411: 11 of 411 lines hold no usable document: 11 × invalid JSON (" in said
    assert "more than data.skipped_limit, 0.01. Correct or leave out the files (JSON lines have" in said
    kept = sorted((streamed / "r" / "checkpoints").glob("step-*.ckpt"))
    assert kept
    assert fit(*ours, "--data.skipped_limit", "null") == 0
    assert min(step for step, _ in points(streamed / "r")) == 0
    assert max(step for step, _ in points(streamed / "r")) >= 89


@pytest.mark.slow
def test_a_killed_run_on_a_stream_continues_with_the_very_same_losses(streamed):
    arguments = ["fit", "-c", "tiny.yaml", *STREAMED, "--trainer.max_steps", "30", "--run.checkpoint_every", "7"]
    ranks(1, streamed, *arguments, "--run.folder", "straight")
    killed = [*arguments, "--run.folder", "killed"]
    for step in (9, 19):
        killed_at(step, streamed, killed)
    ranks(1, streamed, *killed, "--data.workers", "0")
    assert points(streamed / "straight") == points(streamed / "killed")
    weights = [
        torch.load(streamed / of / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for of in ("straight", "killed")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
