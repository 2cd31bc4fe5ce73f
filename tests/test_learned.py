"""Learned splitters: the laws in models of random and of trained weights."""

import copy
import json
import warnings
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aunet_lightning import AUNet, ByteDataModule
from aunet_lightning.data.rates import mean_row
from aunet_lightning.model.deciders import select_in_rows, select_in_stream
from aunet_lightning.model.steppers import Track
from aunet_lightning.model.units import deferred
from aunet_lightning.reader.model_units import ModelUnits
from aunet_lightning.reader.reader import ByteReader
from aunet_lightning.training.calibration import Taught, calibrate
from aunet_lightning.training.learning import PATIENCE, Learning
from aunet_lightning.vocabulary import BOS, EOS
from splitters import Stack, available
from splitters.learned.networks import RouterSums
from tests.helpers import MIXED, MIXED_CHUNKS, UDHR, UPPER, detached, stepped_levels, tiny
from tests.plain_aunet import plain_logits

LEARNED = available("learned")
STACKS = [
    *([name] for name in LEARNED),
    *([name, UPPER] for name in LEARNED),
    *(["utf8_character", name] for name in LEARNED),
    ["router", "distilled", "router"],
    ["utf8_character", "router", "whitespace"],
    [{"name": "router", "bytes_per_unit": {"th": 3, "default": 5}, "one_sided": True,
      "bytes_per_unit_from": 2, "target_steps": 6}],
]  # fmt: skip
TEXTS = [MIXED, "nothing alike: 人人生而自由, ok? ภาษาไทย".encode() + bytes(range(33, 90)), bytes(range(200, 32, -2))]
CLOSE = 1e-11  # log-odds so near to 0 may fall either way in another order of summation


def conv(config, width=4):
    for stage in config.stages:
        stage.conv = width
    return config


def data(stack, texts=TEXTS, length=80):
    """Rows [BOS, bytes …] with levels of the rules below the learned splitter; a second document in each."""
    ids = torch.tensor([[BOS, *text[: length - 1]] for text in texts])
    ids[:, 36], ids[:, 37] = EOS, BOS
    return ids, torch.tensor([stepped_levels(stack, row) for row in ids.tolist()])


def taught(stack, ids):
    """Boundaries of each teacher on the bytes, bool [B, L] by transition."""
    return {
        s: torch.tensor(np.array([rule.teacher.split(bytes(b % 256 for b in row)) for row in ids.tolist()]))
        for s, rule in enumerate(stack.rules)
        if rule.kind == "learned" and rule.teacher is not None
    }


def model_of(rules, seed=0, trained=False, **options):
    """A model, calibrated on the texts; `trained` by some large steps on them. Of weights that make no near tie."""
    return copy.deepcopy(_model_of(json.dumps(rules), seed, trained, **options)), Stack(rules)


@cache
@torch.enable_grad()
def _model_of(rules, seed, trained, **options):
    stack = Stack(json.loads(rules))
    torch.manual_seed(seed)
    model = AUNet(conv(tiny(stack.depth + 1, **options)), stack)
    ids, levels = data(stack)
    calibrate(model, ids, levels, taught(stack, ids))
    if trained:
        learning, optimizer = Learning(model), torch.optim.Adam(model.parameters(), 0.01)
        learning.announce(0, ["en", "th"])
        for step in range(8):
            learning.begin(step)
            output = model(ids, levels)
            batch = {"marks": sum(t.long() << s for s, t in taught(stack, ids).items())}
            batch |= {"languages": (torch.arange(len(ids)) % 2)[:, None].expand_as(ids), "sizes": (ids < 256).int()}
            sums = learning.sums(batch, output)
            loss = F.cross_entropy(output.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
            (loss + learning.loss(sums, detached(sums), ids.numel())).backward()
            optimizer.step()
            optimizer.zero_grad()
            learning.adjust()
    with torch.no_grad():
        tied = near_a_tie(model.eval()(ids, levels))
    return _model_of(rules, seed + 1000, trained, **options) if tied else model


def near_a_tie(output):
    return any(bool((t.log_odds.abs()[t.open] < CLOSE).any()) for t in output.decisions if t.log_odds is not None)


def differing(a, b):
    return (a - b).abs().max().item()


@pytest.fixture(params=STACKS, ids=lambda rules: "-".join(r if isinstance(r, str) else r["name"] for r in rules))
def rules(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["random", "trained"])
def trained(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["", "masked"])
def masked(request):
    return request.param


# Each with each stack; of both at once, the tests of documents and of chunks.
TRAINED_OR_MASKED = pytest.mark.parametrize(
    ("trained", "masked"), [(True, False), (False, True)], ids=["trained", "masked"]
)


@TRAINED_OR_MASKED
@torch.no_grad()
def test_a_later_byte_changes_nothing_before(rules, trained, masked):
    model, stack = model_of(rules, trained=trained, document_masking=masked)
    ids, _ = data(stack)
    places = [(t, byte) for t in (1, 17, 30, 50, 78) for byte in (0x20, 0x61, 0x0A, 0xE4)]
    changed = ids.repeat(1 + len(places), 1, 1)
    for variant, (t, byte) in zip(changed[1:], places, strict=True):
        variant[:, t] = byte
    flat = changed.flatten(0, 1)
    output = model(flat, torch.tensor([stepped_levels(stack, row) for row in flat.tolist()]))
    before, *after = zip(output.levels.split(len(ids)), output.logits.split(len(ids)), strict=True)
    assert (output.units[: len(ids)] > 2).all()
    for (t, _), one in zip(places, after, strict=True):
        assert torch.equal(one[0][:, :t], before[0][:, :t])
        torch.testing.assert_close(one[1][:, :t], before[1][:, :t], atol=1e-5, rtol=1e-5)


@TRAINED_OR_MASKED
@torch.no_grad()
def test_stepping_equals_the_full_forward(rules, trained, masked):
    assert_steps(rules, trained, masked, MIXED_CHUNKS)


@torch.no_grad()
@pytest.mark.parametrize("chunks", [[1] * 80, [7, 1, 1, 40, 31], [79, 1]], ids=["bytes", "chunks", "prefill"])
def test_stepping_in_any_chunks(rules, chunks):
    assert_steps(rules, True, True, chunks)


def assert_steps(rules, trained, masked, chunks):
    model, stack = model_of(rules, trained=trained, document_masking=masked)
    ids, levels = data(stack)
    full = model(ids, levels)
    state, logits, stepped = model.initial_state(len(ids)), [], []
    for part in ids.split(chunks, 1):
        output = model(part, state=state)
        state = output.state
        logits.append(output.logits)
        stepped.append(output.levels)
    assert torch.equal(torch.cat(stepped, 1), full.levels)
    torch.testing.assert_close(torch.cat(logits, 1), full.logits, atol=1e-4, rtol=1e-4)


@TRAINED_OR_MASKED
@torch.no_grad()
def test_a_row_does_not_see_its_company(rules, trained, masked):
    model, stack = model_of(rules, trained=trained, document_masking=masked)
    ids, levels = data(stack)
    together = model(F.pad(ids, (0, 23), value=EOS), F.pad(levels, (0, 23)))
    assert not together.levels[:, 80:].any()  # padding begins nothing
    for row in range(len(ids)):
        alone = model(ids[row : row + 1], levels[row : row + 1])
        assert torch.equal(alone.levels[0], together.levels[row, :80])
        torch.testing.assert_close(together.logits[row, :80], alone.logits[0], atol=1e-5, rtol=1e-4)
        for all_, one in zip(together.decisions, alone.decisions, strict=True):
            if one.log_odds is not None:  # so much alike that no boundary depends on company
                n = int(one.valid.sum())
                torch.testing.assert_close(all_.log_odds[row, :n], one.log_odds[0, :n], atol=CLOSE, rtol=0)


@torch.no_grad()
def test_a_masked_document_does_not_see_the_one_before(rules, trained):
    model, stack = model_of(rules, trained=trained, document_masking=True)
    ids, levels = data(stack)
    both = model(ids, levels)
    alone = model(ids[:, 37:], levels[:, 37:])
    assert torch.equal(alone.levels, both.levels[:, 37:])
    torch.testing.assert_close(both.logits[:, 37:], alone.logits, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_state_is_a_value_and_evaluation_repeats(rules):
    model, stack = model_of(rules)
    ids, levels = data(stack)
    assert torch.equal(model(ids, levels).logits, model(ids, levels).logits)
    state = model(ids[:, :40], state=model.initial_state(len(ids))).state
    first = model(ids[:, 40:], state=state)
    model(ids[:, 40:53], state=state)
    again = model(ids[:, 40:], state=state)
    assert torch.equal(first.logits, again.logits)
    assert torch.equal(first.levels, again.levels)


@settings(max_examples=25)
@given(
    st.sampled_from(STACKS), st.booleans(), st.integers(0, 10**6), st.text(min_size=1, max_size=60), st.integers(1, 59)
)
@torch.no_grad()
def test_laws_on_unseen_weights_and_text(rules, recipe, seed, text, cut):
    model, stack = model_of(
        rules, seed, **({"embedding": "ngrams", "ngram_rows": 50, "qk_norm": True} if recipe else {})
    )
    text = text.encode()
    row = torch.tensor([[BOS, *text]])
    levels = torch.tensor([stepped_levels(stack, row[0].tolist())])
    full = model(row, levels)
    assume(not near_a_tie(full))
    cut = min(cut, row.shape[1])
    assert torch.equal(model(row[:, :cut], levels[:, :cut]).levels, full.levels[:, :cut])
    assert torch.equal(torch.from_numpy(ModelUnits(model, ByteReader(stack.rules)).levels(text)), full.levels[0, 1:])


@pytest.mark.parametrize("upsampling", ["multi_linear", "repeat", "copy", "insert"])
@pytest.mark.parametrize(
    "rules", [["router"], ["router", UPPER], ["utf8_character", "router"], ["router", "router"]], ids=str
)
@torch.no_grad()
def test_equals_the_plain_form(rules, upsampling, masked):
    model, stack = model_of(rules, upsampling=upsampling, document_masking=masked, max_offset=5)
    ids, levels = data(stack)
    output = model(ids, levels)
    for row in range(len(ids)):
        given_levels = output.levels if stack.n_byte_rules == 0 else levels  # rules above a learned splitter
        expected = plain_logits(model, ids[row].tolist(), given_levels[row].tolist())
        torch.testing.assert_close(output.logits[row], expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("width", [1, 2, 4, 7])
@torch.no_grad()
def test_convolutions_equal_the_plain_form_and_step(width, masked):
    torch.manual_seed(0)
    model = AUNet(conv(tiny(3, document_masking=masked), width)).eval()
    stack = Stack(["whitespace", UPPER])
    ids, levels = data(stack)
    output = model(ids, levels)
    for row in range(len(ids)):
        expected = plain_logits(model, ids[row].tolist(), levels[row].tolist())
        torch.testing.assert_close(output.logits[row], expected, atol=2e-5, rtol=1e-4)
    state, logits = model.initial_state(len(ids), stack), []
    for t in range(ids.shape[1]):
        stepped = model(ids[:, t : t + 1], levels[:, t : t + 1], state)
        state = stepped.state
        logits.append(stepped.logits)
    torch.testing.assert_close(torch.cat(logits, 1), output.logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("forward", [True, False], ids=["trained", "train()"])
def test_decisions_follow_weights_that_a_fused_optimizer_has_changed(forward):
    """It does not count the versions of what it changes."""
    model, stack = model_of(["router"])
    ids, levels = data(stack)

    def decided():
        with torch.no_grad():
            return model(ids, levels).decisions[0].log_odds

    before, optimizer = decided(), torch.optim.AdamW(model.parameters(), 0.1, fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    if forward:
        model(ids, levels)
    optimizer.step()
    if not forward:
        model.train().eval()
    fresh = copy.deepcopy(model)
    assert not torch.equal(before, decided())
    with torch.no_grad():
        assert torch.equal(fresh(ids, levels).decisions[0].log_odds, decided())


def test_a_student_begins_at_its_teachers_rate():
    stack = Stack([{"name": "distilled", "teacher": {"name": "fixed", "n": 5}}])
    model = AUNet(tiny(2), stack)
    ids = torch.randint(33, 126, (4, 400))
    calibrate(model, ids, None, taught(stack, ids))
    assert ids.numel() / model(ids).units.sum().item() == pytest.approx(5, rel=0.05)


def test_every_parameter_learns_even_from_one_unit(rules):
    stack = Stack(rules)
    model = AUNet(conv(tiny(stack.depth + 1, max_offset=2)), stack)
    ids = torch.tensor([[BOS, 97, 98, 99]])
    output = model(ids, torch.zeros_like(ids))
    learning = Learning(model)
    sums = learning.sums({name: torch.zeros_like(ids) for name in ("marks", "languages", "sizes")}, output)
    (output.logits.logsumexp(-1).sum() + learning.loss(sums, detached(sums), 4)).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_the_decision_gets_a_gradient_from_the_bytes():
    model, _ = model_of(["router"])
    ids, levels = data(Stack(["router"]))
    model(ids, levels).logits.logsumexp(-1).sum().backward()
    weights = [model.predictors["0"].query.weight, model.predictors["0"].key.weight]
    assert all(weight.grad.abs().max() > 0 for weight in weights)


def test_initialisation_reaches_everything(rules):
    stack = Stack(rules)
    model, again = (AUNet(conv(tiny(stack.depth + 1)), stack) for _ in range(2))
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.fill_(torch.nan)
    for net in (model, again):
        torch.manual_seed(1)
        net.init_weights()
    for a, b in zip((*model.parameters(), *model.buffers()), (*again.parameters(), *again.buffers()), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", LEARNED)
def test_networks_of_other_types(name, dtype):
    model, stack = model_of([name])
    ids, levels = data(stack)
    output = model.to(dtype)(ids, levels)
    assert output.logits.dtype == dtype
    assert output.decisions[0].log_odds.dtype == torch.promote_types(dtype, torch.float32)
    output.logits.float().logsumexp(-1).sum().backward()


def test_pooling_at_given_boundaries():
    model, stack = model_of(["utf8_character", {"name": "distilled", "teacher": "whitespace"}])
    ids, levels = data(stack)
    given_ = taught(stack, ids)[1]
    output = model(ids, levels, deciders={1: Taught(model.stages[1].predictor, given_)})
    below = output.levels > 0
    expected = deferred(given_, output.decisions[1].at, output.decisions[1].valid) | output.decisions[1].forced
    assert torch.equal(output.decisions[1].boundary, expected)
    assert (output.levels > 1).sum() < below.sum()


@pytest.mark.parametrize("rule", [UPPER, "whitespace", {"name": "fixed", "n": 7}], ids=str)
def test_a_rule_above_selects_as_it_does_in_the_data(rule):
    stack = Stack(["utf8_character", rule])
    ids, levels = data(stack)
    text = ids < 256
    units = (levels > 0) & text
    rule = stack.rules[1]
    selected = select_in_rows(rule, ids, units)
    assert torch.equal(selected & text, (levels > 1) & text)
    steppers, got = tuple(Track.of(rule.unit_stepper) for _ in ids), []
    for t in range(ids.shape[1]):
        one, steppers = select_in_stream(steppers, range(len(ids)), ids[:, t : t + 1], units[:, t : t + 1])
        got.append(one)
    assert torch.equal(torch.cat(got, 1), selected)


@pytest.mark.parametrize(("share", "words"), [(1.0, "nearly every position"), (0.0, "almost no position")])
def test_collapse_is_told_in_plain_words(share, words):
    model, _ = model_of(["router"])
    learning = Learning(model)
    sums = {0: RouterSums(*torch.tensor([1000.0, 1000 * share, 500.0, 0.0]))}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(3 * PATIENCE):
            learning.loss(sums, sums, 1000)
    assert words in str(told[0].message)
    assert len(told) == 1
    assert learning.logged["collapsed_stage2"] == 1
    sums = {0: RouterSums(*torch.tensor([1000.0, 160.0, 500.0, 0.0]))}
    learning.loss(sums, sums, 1000)
    assert learning.logged["collapsed_stage2"] == 0


def test_text_without_a_target_is_refused(tmp_path):
    def data(**lengths):
        router = {"name": "router", "bytes_per_unit": lengths}
        files = [str(UDHR / "en.jsonl"), str(UDHR / "th.jsonl")]
        made = ByteDataModule(files, splitter=router, row_bytes=512, cache_dir=str(tmp_path))
        made.prepare_data()
        made.setup()
        return made

    with pytest.raises(ValueError, match="bytes_per_unit of router has no length for text in th: add it, or default"):
        data(en=4, lo=5)
    for lengths in ({"en": 3, "default": 12}, {"en": 3, "th": 12}):
        whole = data(**lengths)
        of = {
            name: sum(len(text) for language, text in whole.texts("train") if language == name) for name in ("en", "th")
        }
        expected = sum(of.values()) / (of["en"] / 3 + of["th"] / 12)
        assert mean_row(whole).bytes_per_unit[0] == pytest.approx(expected, rel=0.1)  # whole numbers


@pytest.mark.gpu
def test_cuda_gives_what_the_cpu_gives(rules):
    model, stack = model_of(rules)
    ids, levels = data(stack)
    with torch.no_grad():
        cpu = model(ids, levels)
        cuda = model.cuda()(ids.cuda(), levels.cuda())
    assert torch.equal(cuda.levels.cpu(), cpu.levels)
    torch.testing.assert_close(cuda.logits.cpu(), cpu.logits, atol=1e-3, rtol=1e-3)
