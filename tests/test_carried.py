"""Folders to carry away: read where they were not written, by our own commands and by `transformers`."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aunet_lightning import AUNet, AUNetConfig
from aunet_lightning.checkpoints.carried import export_folder
from aunet_lightning.checkpoints.load import load
from aunet_lightning.errors import UserError
from aunet_lightning.generation import Request, Sampling, read, texts
from aunet_lightning.reader.bpe import train_bpe
from aunet_lightning.reader.reader import ByteReader, TokenReader
from aunet_lightning.reader.tokens import Tokenizer
from aunet_lightning.vocabulary import BOS, EOS
from tests.helpers import ROOT, UPPER, as_trained, aunet, error_of, sentences

TEXTS = ["All human beings ", "人人生而自由", "a", "ทุกคนมีสิทธิ one two"]
KEPT = ROOT / "tests" / "kept_run" / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def vocabulary():
    return train_bpe([text.encode() for text in [*TEXTS, *sentences(0)]], 300)


def saved(path, rules=(), vocabulary=None, window=9):
    """Writes a checkpoint of a small network, as `aunet fit` does; returns the network."""
    reader = TokenReader(Tokenizer(vocabulary)) if vocabulary else ByteReader(rules)
    stages = [{"dim": dim, "layers": 1, "head_dim": 8, "window": window, "conv": 3} for dim in (16, 24, 16)]
    config = AUNetConfig(
        stages=stages[: len(rules) + 1], vocabulary=reader.size, embedding="ngrams", ngram_rows=97, max_offset=5
    )
    torch.manual_seed(0)
    net = as_trained(AUNet(config, reader.stack))
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        {
            "hyper_parameters": {"net": asdict(config)}, "splitters": list(rules), "tokenizer": vocabulary,
            "boundaries": reader.stack.fingerprint(), "global_step": 7, "loops": None,
            "state_dict": {f"net.{name}": weight for name, weight in net.state_dict().items()},
        },
        path,
    )  # fmt: skip
    net.reader = reader
    return net


def carried(tmp_path, rules=(), vocabulary=None):
    """The network of a checkpoint, and the folder it was carried away in."""
    net = saved(tmp_path / "run" / "checkpoints" / "last.ckpt", rules, vocabulary)
    assert aunet("export", tmp_path / "run" / "checkpoints" / "last.ckpt", "--out", tmp_path / "carried") == 0
    return net, tmp_path / "carried"


def logits_of(net, text=b"some words of a text"):
    (ids,) = net.reader.encode([text])
    return read(net, [[BOS, *map(int, ids)]], net.initial_state(1, net.reader.stack))[0]


@pytest.mark.parametrize("above", ["trie", "refresh", "entropy"])
@torch.no_grad()
def test_a_folder_brings_the_files_of_its_splitters_along(tmp_path, vocabulary, above):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "v.json").write_text(vocabulary)
    trie = {"name": "trie", "vocabulary": str(tmp_path / "files" / "v.json")}
    if above == "entropy":
        saved(tmp_path / "files" / "teller.ckpt")
        rule = {"name": "entropy", "checkpoint": str(tmp_path / "files" / "teller.ckpt"), "threshold": 5.0}
    else:
        rule = trie if above == "trie" else {"name": "refresh", "of": trie, "by": {"name": "fixed", "n": 3}}
    net, folder = carried(tmp_path, [rule, UPPER])
    expected, text = logits_of(net), texts(net, net.reader, [Request(b"some ")], Sampling(30))[0].text
    shutil.rmtree(tmp_path / "files")
    shutil.rmtree(tmp_path / "run")
    elsewhere = shutil.move(folder, tmp_path / "elsewhere")
    again = AUNet.from_pretrained(elsewhere)
    torch.testing.assert_close(logits_of(again), expected, rtol=0, atol=0)
    assert texts(again, again.reader, [Request(b"some ")], Sampling(30))[0].text == text
    config = json.loads((elsewhere / "config.json").read_text())
    assert str(tmp_path) not in json.dumps(config)
    assert config["boundaries"] == net.reader.stack.fingerprint()
    own = next(path for path in elsewhere.glob("splitter-*"))
    assert str(own.name) in json.dumps(config)
    if above != "entropy":
        own.write_text(train_bpe([b"quite another text, which merges other bytes " * 9], 270))
        with pytest.raises(UserError, match="no longer places the boundaries"):
            AUNet.from_pretrained(elsewhere)


def test_nothing_of_a_folder_is_unpickled(tmp_path, monkeypatch, vocabulary):
    _, folder = carried(tmp_path, ["whitespace", UPPER])
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors", ".md", ".py"}

    def refuse(*_, **__):
        raise AssertionError("unpickled")

    for name in ("torch.load", "pickle.load", "pickle.loads", "pickle.Unpickler"):
        monkeypatch.setattr(name, refuse)
    AUNet.from_pretrained(folder)


def test_a_folder_is_read_with_torch_safetensors_and_this_package_alone(tmp_path):
    _, folder = carried(tmp_path, ["whitespace", UPPER])
    code = (
        "import sys\n"
        "for name in ('lightning', 'mlflow', 'torchmetrics', 'transformers', 'tokenizers', 'jsonargparse', 'pandas'):\n"
        "    sys.modules[name] = None\n"
        "from aunet_lightning import AUNet\n"
        "from aunet_lightning.generation import generate\n"
        f"net = AUNet.from_pretrained({str(folder)!r})\n"
        "print(len(generate(net, net.reader, [b'All human '], 20, temperature=0)[0]))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=os.environ)
    assert found.returncode == 0, found.stderr
    assert 10 < int(found.stdout) <= 30


@pytest.mark.parametrize("damage", ["weights", "name", "no header"])
def test_a_folder_that_was_changed_is_refused(tmp_path, damage, vocabulary):
    (tmp_path / "v.json").write_text(vocabulary)
    _, folder = carried(tmp_path, [{"name": "trie", "vocabulary": str(tmp_path / "v.json")}, UPPER])
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    if damage == "weights":
        weights.write_bytes(data[:-3] + bytes(3))
    elif damage == "name":
        name = next(folder.glob("splitter-*")).name.encode()
        weights.write_bytes(data.replace(name, b"../" + name[3:], 1))
    else:
        weights.write_bytes(data.replace(b"aunet", b"other", 1))
    with pytest.raises(
        UserError, match={"weights": "damaged", "name": "does not lie beside", "no header": "header"}[damage]
    ):
        AUNet.from_pretrained(folder)


def test_what_is_there_is_not_written_over(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    assert aunet("export", KEPT, "--out", tmp_path / "mine") == 1
    assert "exists, and aunet export did not write it" in error_of(capsys)
    assert aunet("export", KEPT, "--out", tmp_path / "model.pt") == 1
    assert "must end in .safetensors, or name a folder" in error_of(capsys)
    assert aunet("export", KEPT, "--out", f"{tmp_path}/v1.0/") == 0
    assert aunet("export", KEPT, "--out", f"{tmp_path}/v1.0/") == 0  # an export may be written again
    assert not list(tmp_path.glob("*.part"))


def test_the_card_tells_what_the_run_folder_knows(tmp_path):
    run = shutil.copytree(ROOT / "tests" / "kept_run", tmp_path / "run")
    file = tmp_path / "some.jsonl"
    file.write_text('{"text": "a", "license": "CC0-1.0"}\n')
    data = {
        "train": {"documents": 1, "bytes": 5, "languages": ["en"], "bytes_by_language": {"en": 5}, "files": [str(file)]}
    }
    (run / "data.json").write_text(json.dumps(data))
    (run / "val_bpb.md").write_text("| language | BPB |\n|---|---:|\n| en | 1.234 |\n")
    assert aunet("export", run / "checkpoints" / "last.ckpt", "--out", tmp_path / "carried") == 0
    card = (tmp_path / "carried" / "README.md").read_text()
    for said in ("license: cc0-1.0", "language:\n- en", "| en | 5 |", "1.234", "CC0-1.0", "AUNet.from_pretrained"):
        assert said in card
    assert aunet("export", tmp_path / "carried", "--out", tmp_path / "again.safetensors") == 0
    assert aunet("generate", tmp_path / "carried", "--bytes", 3) == 0


# transformers


CASES = {"rules": (["script_aware", UPPER], False), "learned": (["router", UPPER], False), "tokens": ([], True)}


@pytest.fixture(scope="module", params=CASES)
def pair(request, tmp_path_factory, vocabulary):
    """Our network, and the model and tokenizer that `transformers` loads."""
    transformers = pytest.importorskip("transformers")
    rules, tokens = CASES[request.param]
    net, folder = carried(tmp_path_factory.mktemp("hf"), rules, vocabulary if tokens else None)
    auto = transformers.AutoModelForCausalLM, transformers.AutoTokenizer
    return net, *(one.from_pretrained(folder, trust_remote_code=True) for one in auto)


def test_its_generate_is_ours_and_its_cache_changes_nothing(pair):
    net, model, tokenizer = pair
    given = tokenizer(TEXTS, return_tensors="pt", padding=True)
    new = {"max_new_tokens": 24}
    out = model.generate(**given, **new, do_sample=False)
    ours = texts(
        net, net.reader, [Request(text.encode()) for text in TEXTS], Sampling(24, temperature=0, valid_utf8=False)
    )
    for row, text in zip(out, ours, strict=True):
        ids = row[given["input_ids"].shape[1] :].tolist()
        ids = ids[: ids.index(EOS)] if EOS in ids else ids
        assert net.reader.decode(ids)[:24] == text.text
    assert torch.equal(model.generate(**given, **new, do_sample=False, use_cache=False), out)
    for options in ({"do_sample": True, "top_k": 40}, {"num_beams": 3}):
        made = []
        for cached in (True, False):
            torch.manual_seed(3)
            made.append(model.generate(**given, **new, **options, use_cache=cached))
        assert torch.equal(*made)


@torch.no_grad()
def test_its_logits_are_those_of_each_row_alone(pair):
    net, model, tokenizer = pair
    for side in ("left", "right"):
        given = tokenizer(TEXTS, return_tensors="pt", padding=True, padding_side=side)
        logits = model(**given).logits
        for row, text in enumerate(TEXTS):
            here = given["attention_mask"][row].bool()
            alone = model(tokenizer(text, return_tensors="pt")["input_ids"]).logits[0]
            torch.testing.assert_close(logits[row, here], alone, atol=1e-5, rtol=1e-4)
            assert not logits[row, ~here].any()
            torch.testing.assert_close(alone[-1:], logits_of(net, text.encode()), atol=1e-5, rtol=1e-4)


@given(text=st.text(max_size=40))
def test_its_tokenizer_reads_and_writes_any_text(pair, text):
    net, _, tokenizer = pair
    text = text.encode("utf-8", "replace").decode() + "<eos><bos>"
    ids = tokenizer(text)["input_ids"]
    assert ids == [BOS, *net.reader.encode([text.encode()])[0].tolist()]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_its_files_are_written_by_transformers_too(pair, tmp_path):
    _, model, tokenizer = pair
    tokenizer.save_pretrained(tmp_path)
    again = type(tokenizer).from_pretrained(tmp_path)
    assert again(TEXTS[1])["input_ids"] == tokenizer(TEXTS[1])["input_ids"]
    assert type(model.config).from_dict(model.config.to_dict()).net == model.config.net


def test_a_folder_needs_no_run_folder(tmp_path):
    saved(tmp_path / "alone.ckpt", ["whitespace", UPPER])
    export_folder(tmp_path / "alone.ckpt", tmp_path / "out", "a card")
    assert load(tmp_path / "out")[1].rules == ["whitespace", UPPER]
