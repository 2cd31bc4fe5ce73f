"""What a network is said to cost, held against PyTorch's counter, against autograd and against the paper."""

import sys
from contextlib import nullcontext
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from aunet_lightning import AUNet, AUNetConfig, StageConfig
from aunet_lightning.costs import Cost, counter, memory, published_flops_per_byte
from aunet_lightning.costs.memory import Kept
from aunet_lightning.model import joined, kernels
from aunet_lightning.training.calibration import Taught
from tests.helpers import ROOT

MODELS = ROOT / "experiments" / "models"
# Measured on 5 MB of English (shared/corpora/bench/train/en.jsonl.gz) with aunet_word of 1, 2 and 4 words.
RATES = (5.087, 8.375, 12.374)
PUBLISHED = {
    "aunet2_1b": (1.8e9, 1.3e9),
    "aunet3_1b": (2.3e9, 2.5e9),
    "aunet4_1b": (2.8e9, 4.2e9),
    "aunet2_8b": (1.0e10, 7.9e9),
}


@pytest.fixture(autouse=True)
def padded(monkeypatch):
    """What is counted here has padding; `joined.py` leaves it out."""
    monkeypatch.setattr(joined, "WORTH", 0)


def run(config, splitters=(), rows=2, n=150, every=3, half=False, seed=0):
    """FLOPs that were counted, bytes that autograd kept, and positions [S] that ran, with padding."""
    torch.manual_seed(seed)
    net = AUNet(config, splitters)
    ids = torch.randint(0, 256, (rows, n))
    ids[:, n // 3] = 256
    levels = sum((torch.arange(n) % (every * 2**s) == 0).long() for s in range(config.depth)) + torch.zeros_like(ids)
    learned = [stage for stage in net.stages if stage.predictor is not None]
    deciders = {stage.s: Taught(stage.predictor, levels > stage.s) for stage in learned}
    with counter() as count:
        with Kept(net) as kept, torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            out = net(ids, levels, deciders=deciders)
            loss = F.cross_entropy(out.logits.flatten(0, 1).float(), ids.flatten(), reduction="none").sum()
        saved = kept.bytes
        learned = [t.log_odds.sum() for t in out.decisions if t.log_odds is not None]
        (loss + sum(learned)).backward()
    positions = [n]
    for decision in out.decisions:
        most = int(decision.boundary.sum(1).max())
        positions.append(min(-(-most // config.round_units_to) * config.round_units_to, positions[-1]))
    return count.get_total_flops(), saved, positions


def stages(draw, count):
    made = []
    for _ in range(count):
        head_dim = draw(st.sampled_from([8, 16]))
        made.append(
            StageConfig(
                dim=head_dim * draw(st.integers(1, 5)),
                layers=draw(st.integers(1, 2)),
                head_dim=head_dim,
                window=draw(st.sampled_from([None, 5, 32, 40, 300])),
                conv=draw(st.sampled_from([None, 3])),
                skip=draw(st.booleans()),
            )
        )
    return made


@st.composite
def networks(draw):
    count = draw(st.integers(1, 4))
    config = AUNetConfig(
        stages(draw, count),
        upsampling=draw(st.sampled_from(["multi_linear", "repeat", "copy", "insert"])),
        document_masking=draw(st.booleans()),
        ffn_multiplier=draw(st.sampled_from([1.0, 1.3])),
        max_offset=draw(st.sampled_from([1, 16])),
        vocabulary=draw(st.sampled_from([258, 900])) if count == 1 else 258,
        embedding=draw(st.sampled_from(["byte", "ngrams"])),
        ngram_rows=50,
    )
    rule = st.sampled_from(["fixed", "router", "distilled", {"name": "router", "smoothing": False}])
    learned = draw(st.integers(-1, config.depth - 1))
    rules = ["whitespace"] * config.depth
    if learned >= 0:
        rules[learned] = draw(rule.filter(lambda name: name != "fixed"))
    return config, rules


@settings(max_examples=40)
@given(networks(), st.integers(1, 3), st.integers(20, 200), st.integers(2, 7))
def test_flops_are_those_of_the_counter(network, rows, n, every):
    config, rules = network
    counted, _, positions = run(config, rules, rows, n, every)
    cost = Cost.of(config, rules)
    found = float(cost.step_flops(torch.tensor([positions] * rows)))
    assert found == pytest.approx(counted, rel=0.02)
    assert cost.call_flops + rows * sum(cost.parts(positions).values()) == pytest.approx(found)


SMALL = AUNetConfig([StageConfig(16, 1, 8, 40), StageConfig(32, 2, 8)])


def test_wrong_coefficients_are_found_by_that():
    """Attention with the scores computed again (10 backward and not 8), and a decoder forgotten."""
    counted, _, positions = run(SMALL)
    cost, batch = Cost.of(SMALL), torch.tensor([positions] * 2)
    assert float(cost.step_flops(batch)) == pytest.approx(counted, rel=1e-9)
    table = cost._table(batch.device)
    kept = table[1].clone()
    table[1] *= 14 / 12
    assert float(cost.step_flops(batch)) != pytest.approx(counted, rel=0.02)
    table[1] = kept
    table[0, 0] *= 0.6
    assert float(cost.step_flops(batch)) != pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize("window", [None, 5, 32, 40, 149, 150, 300])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_counts_what_the_kernels_compute(window, masked):
    """Plainly causal, with a mask, and in blocks, to the last FLOP."""
    of = [AUNetConfig([StageConfig(16, n, 8, window)], document_masking=masked) for n in (1, 2)]
    counted = [run(config)[0] for config in of]
    found = [float(Cost.of(config).step_flops(torch.tensor([[150.0]] * 2))) for config in of]
    assert found == counted


def test_pytorchs_own_counter_takes_the_flash_kernel_of_cpus_for_free():
    """And counts the plain one (`SDPBackend.MATH`) as `counter` counts both."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    query = torch.randn(1, 1, 64, 16, requires_grad=True)

    def counted(mode):
        with mode:
            F.scaled_dot_product_attention(query, query, query, is_causal=True).sum().backward()
        return mode.get_total_flops()

    assert counted(counter()) == 12 * 64 * 64 * 16
    assert counted(FlopCounterMode(display=False)) in (0, 12 * 64 * 64 * 16, 14 * 64 * 64 * 16)
    with sdpa_kernel(SDPBackend.MATH):
        assert counted(FlopCounterMode(display=False)) == counted(counter()) == 12 * 64 * 64 * 16


@pytest.mark.parametrize("masked", [False, True])
def test_flops_are_those_of_pytorchs_own_counter_with_plain_forms(masked, monkeypatch):
    """The stock counter, and nothing of ours, on a window in blocks, a trunk and document masking."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    monkeypatch.setattr(kernels, "PLAIN", True)
    config = AUNetConfig([StageConfig(32, 1, 8, 40), StageConfig(48, 2, 16)], document_masking=masked)
    net, ids = AUNet(config), torch.randint(0, 256, (2, 160))
    levels = (torch.arange(160) % 5 == 0).long().expand(2, -1)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as mode:
        net(ids, levels).logits.sum().backward()
    found = Cost(net).row_flops(torch.tensor([[160.0, 32.0]] * 2)).sum()  # 32 units, no padding
    assert float(found) == pytest.approx(mode.get_total_flops(), rel=0.02)


def test_rows_are_counted_one_by_one():
    cost = Cost.of(SMALL)
    rows = torch.rand(4, 3, 2) * 100
    each = cost.row_flops(rows)
    assert each.shape == (4, 3)
    assert each.dtype == torch.float64
    assert not each.requires_grad
    assert float(each[2, 1]) == pytest.approx(sum(cost.parts(rows[2, 1]).values()))
    assert float(cost.step_flops(rows[0])) == pytest.approx(float(each[0].sum()) + cost.call_flops)
    assert float(cost.row_flops(torch.zeros(2, dtype=torch.long))) == 0


def test_rates_are_checked():
    cost = Cost.of(SMALL)
    assert cost.per_byte(100, [4.0]) == pytest.approx(float(cost.row_flops(torch.tensor([100.0, 25.0]))) / 100)
    for wrong in ([], [4.0, 8.0], [0.5], [float("nan")]):
        with pytest.raises(ValueError, match=r"bytes_per_unit is .* takes 1 numbers"):
            cost.per_byte(100, wrong)


def model(name):
    settings_of = yaml.safe_load((MODELS / f"{name}.yaml").read_text())
    return AUNetConfig(**settings_of["model"]["net"]), [settings_of["splitter"], *settings_of["upper_splitters"]]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models(name):
    """FLOPs per byte within 6 % of figures that have two digits, parameters within 3 %."""
    config, rules = model(name)
    flops, parameters = PUBLISHED[name]
    assert Cost.of(config, rules).parameters == pytest.approx(parameters, rel=0.03)
    assert published_flops_per_byte(config, 8192, RATES[: config.depth]) == pytest.approx(flops, rel=0.06)


def test_every_model_is_among_them():
    assert {path.stem for path in MODELS.glob("*.yaml")} == set(PUBLISHED)


def test_published_convention_by_hand():
    config = AUNetConfig([StageConfig(16, 1, 8, 4), StageConfig(32, 2, 8)], max_offset=3, ffn_multiple_of=1)
    below = 2 * (4 * 16**2 + 3 * 16 * 42 + 2 * 16) + 16 * 32 + 16 + (1 + 3) * 16 * 32 + 32 + 16 + 258 * 16
    trunk = 2 * (4 * 32**2 + 3 * 32 * 85 + 2 * 32)
    by_hand = 6 * below + 6 * 16 * 2 * 4 + (6 * trunk + 6 * 32 * 2 * 25) / 4
    assert published_flops_per_byte(config, 100, [4]) == pytest.approx(by_hand)


def test_tables_are_parameters_without_flops_and_a_head_is_not():
    """A row of flat bytes, of flat bytes with n-grams, and of tokens of two vocabularies."""
    shape, n = [StageConfig(32, 2, 8)], torch.tensor([150.0])
    flat, ngrams, small, large = (
        Cost.of(AUNetConfig(shape, **options))
        for options in ({}, {"embedding": "ngrams", "ngrams": [2, 5], "ngram_rows": 70}, {"vocabulary": 1026},
                        {"vocabulary": 4098})
    )  # fmt: skip
    assert ngrams.row_flops(n) == flat.row_flops(n)
    assert ngrams.parameters - flat.parameters == 2 * 70 * 32 == ngrams.embedding_parameters - 258 * 32
    assert ngrams.published_per_byte(150, []) == flat.published_per_byte(150, [])
    assert large.embedding_parameters == 4098 * 32
    assert large.parameters - small.parameters == 2 * 3072 * 32
    assert large.row_flops(n) - small.row_flops(n) == 6 * 3072 * 32 * 150


@pytest.mark.parametrize("options", [{"embedding": "ngrams", "ngram_rows": 70}, {"vocabulary": 900}], ids=str)
def test_memory_of_tables_and_of_logits_is_what_autograd_keeps(options):
    config = AUNetConfig([StageConfig(32, 2, 16, 40)], **options)
    _, saved, positions = run(config, [], 5)
    found = memory(config, positions, 5)
    assert found.activations + found.copies == pytest.approx(saved, rel=0.03)
    assert found.parameters == 4 * Cost.of(config).parameters == found.optimizer / 2


LEARNED = [("router", "copy"), ("distilled", "multi_linear")]
RULES = [("whitespace", up) for up in ("multi_linear", "repeat", "copy", "insert")]


@pytest.mark.parametrize(("rule", "upsampling"), RULES + LEARNED)
@pytest.mark.parametrize(("masked", "precision"), [(False, "32-true"), (True, "bf16-mixed")])
def test_memory_is_what_autograd_keeps(rule, upsampling, masked, precision):
    shapes = [StageConfig(32, 1, 16, 40, conv=3), StageConfig(48, 1, 16, skip=False), StageConfig(64, 2, 16)]
    config = AUNetConfig(shapes, upsampling=upsampling, document_masking=masked)
    for rows in (2, 5):
        _, saved, positions = run(config, [rule, "whitespace"], rows, half=precision != "32-true")
        found = memory(config, positions, rows, [rule, "whitespace"], precision)
        assert found.activations + found.copies == pytest.approx(saved, rel=0.03)


@pytest.mark.parametrize("rule", ["whitespace", {"name": "router", "bytes_per_unit": 4}])
def test_memory_of_a_small_network_is_found_on_real_tensors(rule, monkeypatch):
    module = sys.modules[memory.__module__]
    without_data = mock.Mock(side_effect=module.FakeTensorMode)
    monkeypatch.setattr(module, "FakeTensorMode", without_data)
    torch.manual_seed(1)
    real = memory(SMALL, [512, 128], 4, [rule])
    assert not without_data.called
    state = torch.get_rng_state()
    monkeypatch.setattr(module, "FEW", 0)
    torch.manual_seed(1)
    assert memory(SMALL, [512, 128], 4, [rule]) == real
    assert without_data.called
    assert torch.equal(torch.get_rng_state(), state)  # what is drawn afterwards does not depend on the way


def test_memory_is_divided_among_devices(monkeypatch):
    alone, shared = (memory(SMALL, [512, 128], 4, devices=n) for n in (1, 4))
    assert alone.parameters == 4 * Cost.of(SMALL).parameters == alone.gradients == alone.optimizer / 2
    assert alone.gathered == 0
    assert shared.parameters == alone.parameters / 4
    largest = 4 * 32**2 + 3 * 32 * 96 + 2 * 32  # parameters of a trunk's block
    root = 2 * 258 * 16 + 16  # what is not in a block: embedding, norm, head
    assert shared.gathered == 4 * (2 * largest + root) + 8 * largest
    half = memory(SMALL, [512, 128], 4, precision="bf16-mixed", devices=4)
    assert half.gathered == 2 * (2 * largest + root) + 6 * largest
    assert half.copies == 0
    assert shared.activations == alone.activations
    assert memory(SMALL, [512, 128], 8).activations == pytest.approx(2 * alone.activations)
    monkeypatch.setattr(kernels, "PLAIN", True)  # fused float32 keeps less than plain bfloat16
    in_float = memory(SMALL, [512, 128], 4).activations
    assert memory(SMALL, [512, 128], 4, precision="bf16-mixed").activations < in_float
    with pytest.raises(ValueError, match="precision is '16-mixed': choose one of 32-true, bf16-mixed"):
        memory(SMALL, [512, 128], 4, precision="16-mixed")
