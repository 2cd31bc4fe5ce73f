"""The BPE baseline: its tokens spell the text out, and their bits are those of the same bytes."""

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from aunet_lightning import AUNet, AUNetConfig, ByteDataModule
from aunet_lightning.cli.main import main
from aunet_lightning.data.corpus import Corpus, prepare
from aunet_lightning.data.sources import expand
from aunet_lightning.data.token_ids import TokenIds, prepare_tokens, trained
from aunet_lightning.generation import generate
from aunet_lightning.reader.bpe import train_bpe
from aunet_lightning.reader.reader import TokenReader, vocabulary_size
from aunet_lightning.reader.tokens import Tokenizer
from aunet_lightning.training.metrics import BitsPerByte
from aunet_lightning.vocabulary import BOS, EOS, IGNORE, VOCABULARY
from splitters import Stack
from splitters.edge_texts import short_texts
from tests.helpers import UDHR, place_store

FILES = [UDHR / "en.jsonl", UDHR / "zh-Hans.jsonl", UDHR / "th.jsonl"]


@pytest.fixture(scope="module")
def tokenizer():
    texts = [json.loads(line)["text"].encode() for path in FILES for line in path.open()]
    return Tokenizer(train_bpe(texts, 600))


def data_of(tmp_path, **options):
    made = ByteDataModule(
        [str(path) for path in FILES], holdout_every=10, splitter=None, row_bytes=256, batch_rows=4, workers=0,
        cache_dir=str(tmp_path), **options,
    )  # fmt: skip
    made.prepare_data()
    made.setup()
    return made


@settings(max_examples=200)
@given(text=st.text())
def test_tokens_spell_out_any_text(tokenizer, text):
    ids = tokenizer.encode([text.encode()])[0]
    assert tokenizer.decode(ids) == text.encode()
    assert int(tokenizer.sizes[ids].sum()) == len(text.encode())
    assert int(TokenReader(tokenizer).levels(text.encode()).sum()) == len(ids)


def test_ids_are_bytes_bos_and_eos_first(tokenizer):
    assert [tokenizer.bytes[i] for i in range(256)] == [bytes([i]) for i in range(256)]
    assert tokenizer.sizes[[BOS, EOS]].tolist() == [0, 0]
    assert tokenizer.size == 600 - 256 + VOCABULARY == vocabulary_size({"vocab_size": 600})
    assert min(map(len, tokenizer.bytes[VOCABULARY:])) > 1
    for data in short_texts().values():
        text = data.decode("utf-8", "ignore").encode()
        assert tokenizer.decode(tokenizer.encode([text])[0]) == text


def test_every_byte_of_text_is_predicted_once(tmp_path):
    by_bytes, by_tokens = data_of(tmp_path), data_of(tmp_path, tokenizer={"vocab_size": 600})
    for part in ("train", "val"):
        batches = by_tokens.batches(part)
        found = [batches[0, k] for k in range(len(batches))]
        expected = int(by_bytes.corpora[part].lengths[by_bytes.documents[part]].sum())
        assert sum(int(batch["sizes"].sum()) for batch in found) == expected
        read = {}
        for row in (batches.row(0, r) for r in range(batches.n_rows)):
            for document, target, size in zip(row["documents"], row["targets"], row["sizes"], strict=True):
                if size:
                    read[document] = read.get(document, b"") + by_tokens.reader.bytes_of[target]
        if part == "val":  # whose documents are in order, so that rows join up
            assert read == {d: by_bytes.corpora[part].text(d).tobytes() for d in by_bytes.documents[part]}


def test_rows_hold_about_as_many_bytes_as_those_of_byte_models(tmp_path):
    data = data_of(tmp_path, tokenizer={"vocab_size": 600})
    batches = data.batches("train")
    sizes = [int(batches.row(0, r)["sizes"].sum()) for r in range(batches.n_rows - 1)]
    assert np.mean(sizes) == pytest.approx(256, rel=0.1)


def test_bpb_is_all_bits_of_the_text_over_its_bytes(tmp_path, tokenizer):
    """Against a document scored alone, token by token."""
    torch.manual_seed(0)
    net = AUNet(AUNetConfig(stages=[{"dim": 16, "layers": 1, "head_dim": 8}], vocabulary=tokenizer.size)).eval()
    text = "All human beings 人人生而自由。".encode()
    ids = [BOS, *tokenizer.encode([text])[0], EOS]
    with torch.no_grad():
        log_p = net(torch.tensor([ids[:-1]])).logits[0].log_softmax(-1)
    bits = -sum(float(log_p[t, ids[t + 1]]) for t in range(len(ids) - 2)) / math.log(2)  # EOS is no text
    targets = torch.tensor([ids[1:]])
    sizes = torch.from_numpy(tokenizer.sizes)[targets]
    nats = F.cross_entropy(log_p, targets[0], reduction="none")[None]
    metric, languages = BitsPerByte(["x"], of_tokens=True), torch.zeros_like(targets)
    metric.update({"targets": targets, "languages": languages, "sizes": sizes}, nats)
    padding = {
        "targets": torch.full_like(targets, IGNORE),
        "languages": languages - 1,
        "sizes": torch.zeros_like(sizes),
    }
    metric.update(padding, nats)
    assert metric.compute()["bpb"] == pytest.approx(bits / len(text), rel=1e-6)
    assert metric.compute()["bytes_per_token"] == pytest.approx(len(text) / (len(ids) - 2))


def test_the_same_text_trains_the_same_vocabulary_once(tmp_path):
    one = data_of(tmp_path, tokenizer={"vocab_size": 500}).reader.tokenizer
    kept = list(tmp_path.glob("bpe-500-*.json"))
    assert len(kept) == 1
    before = kept[0].stat().st_mtime_ns
    assert data_of(tmp_path, tokenizer={"vocab_size": 500}).reader.tokenizer.digest == one.digest
    assert kept[0].stat().st_mtime_ns == before
    assert data_of(tmp_path, tokenizer=str(kept[0])).reader.tokenizer.digest == one.digest
    assert data_of(tmp_path, tokenizer={"vocab_size": 500}, languages=["th"]).reader.tokenizer.digest != one.digest


@pytest.mark.parametrize("embedding", ["byte", "ngrams"])
def test_it_goes_on_with_a_text(tokenizer, embedding):
    torch.manual_seed(0)
    shape = [{"dim": 16, "layers": 1, "head_dim": 8}]
    net = AUNet(AUNetConfig(stages=shape, vocabulary=tokenizer.size + 7, embedding=embedding, ngram_rows=97)).eval()
    prompts = [b"", "人人生而".encode(), b"All human beings are born"]
    first = generate(net, TokenReader(tokenizer), prompts, 30, 1.0, 3)
    assert all(text.startswith(prompt) for text, prompt in zip(first, prompts, strict=True))
    assert all(len(text) <= len(prompt) + 30 for text, prompt in zip(first, prompts, strict=True))
    assert first == generate(net, TokenReader(tokenizer), prompts, 30, 1.0, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tokenizer": {"vocab_size": 100}}, "vocab_size is 100, it must be a whole number from 257"),
        ({"tokenizer": {"vocab_size": 10**9}}, "vocab_size is 1000000000, .* to 1048576"),
        ({"tokenizer": {"vocab_size": 1e9}}, "vocab_size is 1000000000.0, it must be a whole number"),
        ({"tokenizer": {"vocab_size": 300.0}}, "vocab_size is 300.0, it must be a whole number"),
        ({"tokenizer": {"vocab_size": True}}, "vocab_size is True, it must be a whole number"),
        ({"tokenizer": {"vocab_size": "300"}}, "vocab_size is '300', it must be a whole number"),
        ({"tokenizer": {"vocab_size": None}}, "vocab_size is None, it must be a whole number"),
        ({"tokenizer": {"vocab_size": 300, "seed": 1}}, "is not understood"),
        ({"tokenizer": {}}, "is not understood"),
        ({"tokenizer": {"merges": "parity"}}, "is not understood"),
        ({"tokenizer": {"vocab_size": 300, "merges": "fair"}}, "merges is 'fair': choose one of frequency, parity"),
        ({"tokenizer": {"vocab_size": 300, "merges": ["parity"]}}, "merges is .'parity'.: choose one of"),
        ({"tokenizer": "{vocab_size: 300.0}"}, "'{vocab_size: 300.0}' is not understood.* whole number from 257"),
        ({"tokenizer": 300}, "300 is not understood"),
        ({"tokenizer": Path("x.json")}, "is not understood"),
        ({"tokenizer": {"size": 1000}}, "is not understood"),
        ({"tokenizer": "nowhere.json"}, "there is no file 'nowhere.json'"),
        ({"tokenizer": {"vocab_size": 600}, "splitter": "whitespace"}, "splitter must be null"),
    ],
)
def test_what_is_wrong_is_said(options, words):
    with pytest.raises(ValueError, match=words):
        ByteDataModule(["x.jsonl"], **{"splitter": None, **options})


def prepared(tmp_path, texts, name="some.jsonl"):
    """The folder of a prepared source."""
    path = tmp_path / name
    path.write_text("".join(json.dumps({"text": text, "lang": "th"}) + "\n" for text in texts))
    return prepare(expand([str(path)], "data.train_files", text_key="text", language_key="lang")[0], tmp_path / "cache")


def test_a_vocabulary_that_loses_text_names_the_document(tmp_path):
    fields = json.loads(train_bpe([b"some text"], 260))
    fields["normalizer"] = {"type": "Lowercase"}
    folder = prepared(tmp_path, ["lower"] * 1500 + ["lower ทุก, then Upper", "Upper"])
    lossy = Tokenizer(json.dumps(fields), "lossy.json")
    words = (
        r"lossy.json loses text.* document '1501' of some \(language th\), at byte 22, 'Upper' comes back as 'upper'"
    )
    with pytest.raises(ValueError, match=words):
        prepare_tokens(folder, lossy)
    assert not list(folder.glob("*tokens*"))


def damaged(path, how):
    data = bytearray(path.read_bytes())
    if how == "zeros":
        begin = len(data) // 3
        data[begin : begin + 2000] = bytes(len(data[begin : begin + 2000]))
    if how == "cut short":
        del data[-5:]
    if how == "empty":
        data.clear()
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["zeros", "cut short", "empty", "missing"])
@pytest.mark.parametrize("kind", ["bin", "npy"])
def test_damaged_tokens_are_made_again_with_a_word(tmp_path, tokenizer, how, kind):
    texts = [f"text {n} " * (n % 7 + 1) for n in range(900)]
    folder = prepared(tmp_path, texts)
    path = prepare_tokens(folder, tokenizer) / f"tokens-{tokenizer.digest}.{kind}"
    whole = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        damaged(path, how)
    if (how, kind) == ("missing", "npy"):  # as if they were never written to their end
        prepare_tokens(folder, tokenizer)
    else:
        with pytest.warns(UserWarning, match="is damaged or truncated: it is made again") as warned:
            prepare_tokens(folder, tokenizer)
        assert len(warned) == 1
    assert path.read_bytes() == whole
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        corpus = TokenIds(Corpus([folder]), tokenizer)
    assert [tokenizer.decode(corpus.ids(d)).decode() for d in range(len(corpus.lengths))] == texts


@pytest.mark.parametrize("how", ["zeros", "cut short", "empty"])
def test_a_damaged_vocabulary_is_trained_again_with_a_word(tmp_path, how):
    corpus = Corpus([prepared(tmp_path, ["the end of the garden"])])
    documents = np.arange(len(corpus))
    with pytest.warns(UserWarning, match="no more than 269 entries in it, and vocab_size is 300"):
        one = trained(corpus, documents, 300, tmp_path)
    (path,) = tmp_path.glob("bpe-*.json")
    damaged(path, how)
    with pytest.warns(UserWarning, match="is damaged or truncated"):
        assert trained(corpus, documents, 300, tmp_path).digest == one.digest
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert trained(corpus, documents, 265, tmp_path).size == 267
        assert trained(corpus, documents, 265, tmp_path).size == 267


def test_text_that_is_not_utf8_is_refused(tokenizer):
    with pytest.raises(ValueError, match="the trained vocabulary reads UTF-8"):
        tokenizer.encode([b"a\xff"])


def test_tokens_are_read_by_one_stage():
    with pytest.raises(ValueError, match="read by a model of one"):
        AUNetConfig(stages=[{"dim": 16, "layers": 1, "head_dim": 8}] * 2, vocabulary=1000)


@pytest.mark.slow
def test_a_run_says_what_it_costs_and_its_checkpoint_keeps_the_vocabulary(
    tmp_path, monkeypatch, capsys, store_template
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place_store(store_template, tmp_path / "mlflow.db"))
    monkeypatch.setenv("AUNET_CACHE", str(tmp_path / "cache"))
    stages = '[{"dim": 16, "layers": 1, "head_dim": 8}]'
    settings = [
        "--splitter=null", "--tokenizer={vocab_size: 400}", f"--data.train_files=[{FILES[0]}]", "--data.holdout_every=10",
        "--data.row_bytes=128", "--data.workers=0", f"--model.net.stages={stages}", "--run.folder=run",
    ]  # fmt: skip
    once = ["--trainer.max_steps=5", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    assert main(["fit", *settings, *once]) == 0
    shown = capsys.readouterr().out
    assert "training FLOPs per byte of text: stage1/linear" in shown
    assert "training memory per device" in shown
    checkpoint = "run/checkpoints/last.ckpt"
    assert main(["generate", checkpoint, "--prompt", "All ", "--bytes", "5"]) == 0
    assert capsys.readouterr().out.startswith("All ")
    assert main(["split", "All human beings", "--checkpoint", checkpoint]) == 0
    assert "│" in capsys.readouterr().out
    assert main(["predict", *settings, f"--ckpt_path={checkpoint}"]) == 0
    lines = list(map(json.loads, Path("run/predictions.jsonl").read_text(encoding="utf-8").splitlines()))
    held_out = [json.loads(line)["text"].encode() for line in FILES[0].open()][9::10]
    assert [line["bytes"] for line in lines] == [len(text) for text in held_out]
    with pytest.raises(ValueError, match="reads tokens, it must read bytes"):
        Stack([{"name": "entropy", "checkpoint": checkpoint, "threshold": 1.0}]).levels(b"text")
    other = [option.replace("400", "401") for option in settings]
    assert main(["predict", *other, f"--ckpt_path={checkpoint}"]) == 1
    assert "ckpt_path: the checkpoint's network differs in vocabulary" in capsys.readouterr().err
