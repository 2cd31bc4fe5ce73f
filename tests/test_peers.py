"""Published models of others, held against their own code."""

import json
import math

import pytest
import torch

from aunet_lightning import scoring
from aunet_lightning.peers import is_peer, load_peer
from tests.helpers import ROOT, aunet, error_of

TEXTS = [b"All human beings are born free and equal.", "人人生而自由".encode(), b"a", b""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small BLT with random weights, as `transformers` writes one."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    stage = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    stage |= {"vocab_size": 260, "max_position_embeddings": 512}
    config = transformers.BltConfig(
        patcher_config=stage, encoder_config=stage | {"cross_attn_k": 2, "hidden_size_global": 64},
        decoder_config=stage | {"cross_attn_k": 2, "hidden_size_global": 64}, global_config=stage | {"hidden_size": 64},
        encoder_hash_byte_group_size=[3, 4], encoder_hash_byte_group_vocab=97,
        local_attention_window_len=16,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("blt")
    model = transformers.BltForCausalLM(config)
    ids = torch.tensor([[1, *(byte + 4 for byte in TEXTS[0])]])
    with torch.no_grad():
        entropies = model.model.patcher(ids, patch_size=4, threshold=0.0)[0]
    model.config.patching_threshold = float(entropies.median())  # so that half of the bytes begin a unit
    model.save_pretrained(path)
    return path


@torch.no_grad()
def test_bits_are_those_of_its_own_code(folder):
    from transformers import BltForCausalLM

    assert is_peer(folder)
    net, reader = load_peer(folder)
    model = BltForCausalLM.from_pretrained(folder).eval()
    for batch in (1, 10_000):
        for text, found in zip(TEXTS, scoring.score(net, reader, TEXTS, batch_ids=batch), strict=True):
            ids = torch.tensor([[1, *(byte + 4 for byte in text)]])
            nats = -model(ids, use_cache=False).logits[0].log_softmax(-1)
            expected = [float(nats[t, id_]) / math.log(2) for t, id_ in enumerate(ids[0, 1:].tolist())]
            assert found.surprisal.tolist() == pytest.approx(expected, rel=1e-4)
    ids = torch.tensor([[1, *(byte + 4 for byte in TEXTS[0])]])
    lengths = model.model.patcher(ids, patch_size=4, threshold=model.config.patching_threshold)[1]
    begins = torch.cat([torch.zeros(1), lengths[0].cumsum(0)[:-1]]).long().tolist()
    (score,) = scoring.score(net, reader, TEXTS[:1])
    assert [at + 1 for at, level in enumerate(score.levels) if level] == [at for at in begins if 0 < at < ids.shape[1]]
    assert 2 < len(begins) < ids.shape[1]


def test_the_command_scores_it(folder, tmp_path, capsys):
    (tmp_path / "en.txt").write_bytes(TEXTS[0])
    assert aunet("score", folder, tmp_path / "en.txt") == 0
    line = json.loads(capsys.readouterr().out)
    (score,) = scoring.score(*load_peer(folder), TEXTS[:1])
    assert line["bits"] == pytest.approx(score.bits, abs=1e-3)


def test_what_is_no_such_blt_is_refused(folder, tmp_path, capsys):
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert aunet("score", tmp_path, ROOT / "README.md") == 1
    assert "cannot be read as a BLT" in error_of(capsys)
