"""A mix: each language has its share after any number of ids, no document comes again before its language is read to
its end, and an epoch continues where the last one stopped."""

import heapq
import json
from collections import Counter
from itertools import chain, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aunet_lightning import ByteDataModule
from aunet_lightning.data.order import Interleaved
from aunet_lightning.reports.run.known import amount
from aunet_lightning.training.outlook import three_digits
from tests.helpers import fit, points, write


def corpus_of(groups):
    """Documents by group, and their sizes."""
    sizes = np.array(list(chain.from_iterable(groups)), np.int64)
    ends = np.cumsum([len(group) for group in groups])
    return [np.arange(end - len(group), end) for group, end in zip(groups, ends, strict=True)], sizes


GROUPS = st.lists(st.lists(st.integers(2, 40), min_size=1, max_size=6), min_size=1, max_size=4)


@settings(max_examples=60)
@given(GROUPS, st.data(), st.integers(1, 30), st.integers(1, 4), st.integers(1, 400), st.integers(0, 3))
def test_epochs_are_one_endless_stream_in_the_shares_asked_for(groups, drawn, row, batch, epoch, seed):
    weights = drawn.draw(st.lists(st.integers(1, 50), min_size=len(groups), max_size=len(groups)))
    shares = [weight / sum(weights) for weight in weights]
    documents, sizes = corpus_of(groups)
    order = Interleaved(documents, shares, sizes, row, batch, epoch, seed)
    length = order.n_rows * row
    assert order.n_rows % batch == 0
    known: dict[int, int] = {}  # of the endless stream: where a document begins, and which
    for number in (2, 0, 3, 1):  # in no order: an epoch depends on no other
        placed, starts = order.laid(number)
        assert starts[0] <= 0
        assert starts[-1] + sizes[placed[-1]] >= length + 1  # with the last target
        for document, start in zip(placed.tolist(), (starts + number * length).tolist(), strict=True):
            assert known.setdefault(start, document) == document
    begin, read, times = 0, Counter[int](), Counter[int]()
    group_of = {int(d): g for g, members in enumerate(documents) for d in members}
    while begin in known:  # without a gap
        document = known[begin]
        group = group_of[document]
        turn = [times[int(d)] for d in documents[group]]
        assert times[document] == min(turn)  # all others of its group have come as often
        times[document] += 1
        read[group] += sizes[document]
        begin += int(sizes[document])
        for other, share in enumerate(shares):
            assert abs(read[other] - share * begin) <= sum(sizes[members].max() for members in documents)
    assert begin >= 4 * length + 1


@pytest.mark.parametrize("seed", [0, 5])
def test_the_order_is_that_of_a_plain_merge(seed):
    rng = np.random.default_rng(seed)
    documents, sizes = corpus_of([rng.integers(2, 60, n).tolist() for n in (7, 30, 3)])
    shares = [0.6, 0.3, 0.1]
    order = Interleaved(documents, shares, sizes, row=10, batch=4, epoch=700, seed=seed)

    def due(number):
        begin = 0
        for turn in range(1000):
            philox = np.random.Philox(np.random.SeedSequence([seed, number, turn]))
            for document in np.random.Generator(philox).permutation(documents[number]):
                yield begin / shares[number], number, int(document)
                begin += int(sizes[document])

    plain = [document for *_, document in islice(heapq.merge(*map(due, range(3))), 400)]
    starts = np.cumsum(sizes[plain]) - sizes[plain]
    for epoch in range(5):
        placed, where = order.laid(epoch)
        first = int(np.searchsorted(starts, where[0] + epoch * order.n_rows * 10))
        assert placed.tolist() == plain[first : first + len(placed)]


def test_one_to_a_thousand():
    rng = np.random.default_rng(0)
    documents, sizes = corpus_of([rng.integers(100, 900, 3000).tolist(), rng.integers(100, 900, 50).tolist()])
    order = Interleaved(documents, [1000 / 1001, 1 / 1001], sizes, row=512, batch=8, epoch=float(sizes.sum()), seed=1)
    placed = np.concatenate([order.laid(epoch)[0] for epoch in range(20)])
    rare = sizes[placed[np.isin(placed, documents[1])]].sum()
    assert rare == pytest.approx(sizes[placed].sum() / 1001, rel=0.05)


# In a run


TEXTS = {"th": ["ทุกคน" * n for n in (3, 9, 4)], "en": ["all human beings " * n for n in range(1, 30)]}


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUNET_CACHE", str(tmp_path / "cache"))
    for language, texts in TEXTS.items():
        write(tmp_path / f"{language}.jsonl", [{"text": text} for text in texts])
    return ["th.jsonl", "en.jsonl"]


def data_of(train_files, **options) -> ByteDataModule:
    data = ByteDataModule(train_files, **{"workers": 0, "row_bytes": 50, "batch_rows": 4} | options)
    data.prepare_data()
    data.setup()
    return data


def size(language):
    return sum(len(text.encode()) for text in TEXTS[language])


@pytest.mark.parametrize(
    ("mix", "read"),
    [
        ({"temperature": 1}, {"th": size("th"), "en": size("en")}),
        ({"temperature": 0}, {"th": (size("th") + size("en")) / 2, "en": (size("th") + size("en")) / 2}),
        ({"weights": {"th": 3, "en": 1}, "until": "first_exhausted"}, {"th": size("th"), "en": size("th") / 3}),
        ({"weights": {"th": 1, "en": 3}, "until": "all_exhausted"}, {"th": size("en") / 3, "en": size("en")}),
        ({"bytes": {"th": 900}}, {"th": 900, "en": size("en")}),
    ],
    ids=str,
)
def test_a_run_reads_what_its_mix_says(files, mix, read):
    data = data_of(files, mix=mix)
    assert {portion.name: portion.read for portion in data.portions} == pytest.approx(read)
    batches, counted = data.batches("train"), Counter[str]()
    names = data.language_names("train")
    for epoch in range(3):
        of_epoch = np.zeros(len(names), int)
        for k in range(len(batches)):
            assert batches.drawn(epoch, k).tolist() == of_epoch.tolist()
            batch = batches[epoch, k]
            for i in range(len(names)):
                of_epoch[i] += int(batch["sizes"][batch["languages"] == i].sum())
        assert batches.drawn(epoch, len(batches)).tolist() == of_epoch.tolist()
        counted.update(dict(zip(names, of_epoch.tolist(), strict=True)))
    longest = max(len(text.encode()) for texts in TEXTS.values() for text in texts)
    for language in TEXTS:
        share = read[language] / sum(read.values())
        assert counted[language] == pytest.approx(share * counted.total(), abs=longest)
    assert counted.total() / 3 == pytest.approx(sum(read.values()), abs=50 * 4 / 2)  # whole batches


def test_entries_have_weights(files):
    entries = [{"path": "th.jsonl", "weight": 1}, {"path": "en.jsonl", "weight": 4.5}]
    found = {portion.name: portion.read for portion in data_of(entries).portions}
    assert found["en.jsonl"] == pytest.approx(4.5 * found["th.jsonl"])


def test_drawn_without_a_mix_and_of_tokens(files):
    for options in ({}, {"splitter": None, "tokenizer": {"vocab_size": 280}}):
        data = data_of(files, **options)
        batches = data.batches("train")
        total = dict(zip(data.language_names("train"), batches.drawn(1, len(batches)).tolist(), strict=True))
        assert total == {language: size(language) for language in TEXTS}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mix": {"temperature": 1, "weights": {"th": 1}}}, "temperature and weights are given: name only one"),
        ({"mix": {"temperature": -1}}, "data.mix.temperature is -1, it must be 0 or more"),
        ({"mix": {"weights": {"th": 1}}}, "data.mix.weights: en has no weight"),
        ({"mix": {"weights": {"th": 1, "en": 0}}}, "data.mix.weights: en is 0: leave its text out"),
        ({"mix": {"bytes": {"km": 10}}}, "data.mix.bytes: the training text has no km; it has en, th"),
        ({"mix": {"bytes": {"th": 10}, "until": "all_exhausted"}}, "leave out until"),
        ({"mix": {"weights": {}}}, "data.mix.weights is empty"),
        ({"train_files": ["th.jsonl", {"path": "en.jsonl", "weight": 2}]}, "'th.jsonl' has no weight"),
        ({"train_files": [{"path": "*.jsonl", "weight": 0}]}, r"the weight of \*.jsonl is 0: leave its text out"),
        ({"train_files": [{"path": "*.jsonl", "weight": 2}], "mix": {"temperature": 0}}, "name only one"),
        ({"mix": {"temperature": 0}, "rows": "documents"}, "data.rows: a mix is one stream"),
    ],
    ids=str,
)
def test_a_mix_that_cannot_be_is_told(files, options, says):
    with pytest.raises(ValueError, match=says):
        data_of(**{"train_files": files} | options)


def test_a_run_tells_what_it_read(here, capsys):
    write(here / "th.jsonl", [{"text": "ทุกคน" * n} for n in range(1, 12)])
    mixed = [
        "--data.train_files", "[en.jsonl, th.jsonl]", "--data.mix", "{weights: {th: 3, en: 1}, until: first_exhausted}",
        "--trainer.val_check_interval", "2", "--trainer.check_val_every_n_epoch", "null", "--report.page", "true",
    ]  # fmt: skip
    assert fit(*mixed, "--run.folder", "whole", "--trainer.max_steps", "6") == 0
    told = capsys.readouterr().out.splitlines()
    at = next(number for number, line in enumerate(told) if line.startswith("language  documents"))
    titles, first = told[at].split(), told[at + 1].split()
    assert titles == ["language", "documents", "bytes", "share", "read", "times", "an", "epoch"]
    assert (first[0], first[-2]) == ("en", "25.0%")
    last = {key: value for (step, key), value in points(here / "whole").items() if step == 5}
    assert last["train/bytes_th"] == pytest.approx(3 * last["train/bytes_en"], rel=0.5)
    assert last["train/bytes_th"] + last["train/bytes_en"] == last["bytes_seen"]
    sizes = json.loads((here / "whole" / "data.json").read_text())["train"]
    assert last["train/times_read_th"] == pytest.approx(last["train/bytes_th"] / sizes["bytes_by_language"]["th"])
    assert sizes["mix"] == {"en": 0.25, "th": 0.75}
    page = (here / "whole" / "report.html").read_text()
    for name, size in sizes["bytes_by_language"].items():
        assert f"<td>{amount(size, 'B')} × {three_digits(last[f'train/bytes_{name}'] / size)}</td>" in page
