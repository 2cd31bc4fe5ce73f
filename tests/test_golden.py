"""Parity with the published formulation, on weights and numbers computed by the released implementation."""

import itertools
import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from aunet_lightning import AUNetConfig, StageConfig
from aunet_lightning.interop import load_reference, our_name
from tests.helpers import GOLDEN, tiny_model

CASE = GOLDEN / "three_stage.safetensors"
CONFIG = json.loads((GOLDEN / "cases.json").read_text())["three_stage"]


def test_logits_loss_and_every_gradient():
    case = load_file(CASE)
    model = load_reference(CASE, CONFIG)
    ids, levels = case["bytes"].long(), case["levels"]
    output = model(ids[:, :-1], levels[:, :-1])
    loss = F.cross_entropy(output.logits.flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()

    assert (output.logits - case["logits"]).abs().max() < 1e-4
    assert abs(loss.item() - case["loss"].item()) < 1e-5
    assert output.units.sum(0).tolist() == CONFIG["units"]
    gradients = {our_name(name[2:]): value for name, value in case.items() if name.startswith("g.")}
    parameters = dict(model.named_parameters())
    assert gradients.keys() == parameters.keys()
    for name, expected in gradients.items():
        assert (parameters[name].grad - expected).norm() < 1e-3 * expected.norm(), name


def test_the_case_steps_too():
    case = load_file(CASE)
    model = load_reference(case, CONFIG)
    ids, levels = case["bytes"][:, :-1].long(), case["levels"][:, :-1]
    state, logits = model.initial_state(len(ids)), []
    with torch.no_grad():
        for t in range(ids.shape[1]):
            output = model(ids[:, t : t + 1], levels[:, t : t + 1], state)
            state = output.state
            logits.append(output.logits)
    assert (torch.cat(logits, 1) - case["logits"]).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("stages", "upsampling"),
    [(1, "insert"), *itertools.product([2, 4], ["multi_linear", "repeat", "insert"])],  # one stage has no upsampling
)
def test_published_names_there_and_back(stages, upsampling):
    """A model with the published behaviour, renamed to the published names, loads as itself."""
    dims, layers = [16, 24, 32, 8][:stages], [2, 1, 1, 2][:stages]
    made = [
        StageConfig(d, n, 8, 12, skip=False, max_units=9 if s else None)
        for s, (d, n) in enumerate(zip(dims, layers, strict=True))
    ]
    made[-1].skip = True
    original = tiny_model(
        AUNetConfig(made, upsampling=upsampling, offsets="modulo", max_offset=4, document_masking=False)
    )
    theirs = {their_name(name): tensor for name, tensor in original.state_dict().items()}
    config = {"dims": dims, "layers": layers, "head_dims": [8] * stages, "sliding_windows": [12] * stages}
    config |= {
        "max_seqlens": [64, *[9] * (stages - 1)],
        "residuals": [False] * (stages - 1),
        "multiple_of": 16,
        "pool_positions": 4,
    }
    loaded = load_reference(theirs, config)
    assert loaded.config == original.config
    ids = torch.randint(0, 256, (2, 64))
    levels = torch.randint(0, stages, (2, 64))
    with torch.no_grad():
        assert torch.equal(loaded(ids, levels).logits, original(ids, levels).logits)


def their_name(name: str) -> str:
    """Our parameter name under the published scheme, written out from golden/README.md."""
    for ours, theirs in {
        "embedding.weight": "tok_embeddings.weight", "norm.weight": "vocab_norm.weight", "head.weight": "vocab.weight"
    }.items():  # fmt: skip
        if name == ours:
            return theirs
    part, *rest = name.split(".")
    if part in ("poolings", "upsamplings"):
        s, inner = rest[0], ".".join(rest[1:])
        table = {
            ("poolings", "norm.weight"): "down_norm.weight",
            ("poolings", "down.weight"): "trans_down.weight",
            ("upsamplings", "norm.weight"): "up_norm.weight",
            ("upsamplings", "up.weight"): "trans_up.weight",
            ("upsamplings", "by_offset"): "indexed_linear.weight",
            ("upsamplings", "position.weight"): "pos_encoding.weight",
        }
        return f"transitions.{s}.{table[part, inner]}"
    stage = "" if part == "trunk" else f".{rest.pop(0)}"
    layer, inner = rest[0], ".".join(rest[1:])
    for ours, theirs in (
        ("attention.query", "attention.wq"), ("attention.key", "attention.wk"), ("attention.value", "attention.wv"),
        ("attention.out", "attention.wo"), ("ffn.gate", "feed_forward.w1"), ("ffn.up", "feed_forward.w3"),
        ("ffn.down", "feed_forward.w2"),
    ):  # fmt: skip
        inner = inner.replace(ours, theirs)
    return f"{part}{stage}.layers.{layer}.{inner}"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dims": [32, 48, 96]}, "config makes it \\[16, 48, 96"),
        ({"layers": [1, 1, 2]}, "not in the model"),
        ({"layers": [2, 2, 2]}, "missing"),
        ({"head_dims": [16]}, "needs 3"),
    ],
)
def test_weights_that_do_not_fit_are_named(change, words):
    with pytest.raises(ValueError, match=words):
        load_reference(CASE, CONFIG | change)
