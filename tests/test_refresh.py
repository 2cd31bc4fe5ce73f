"""Refreshes inside units: the laws of a network that has them, and the plain form of one."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import splitters
from aunet_lightning import AUNet, AUNetConfig, StageConfig
from aunet_lightning.costs import Cost, counter, memory
from aunet_lightning.costs.memory import Kept
from aunet_lightning.generation import generate, read
from aunet_lightning.model import joined
from aunet_lightning.model.captured import Captured
from aunet_lightning.reader.reader import ByteReader
from aunet_lightning.vocabulary import BOS, EOS
from splitters import Stack
from splitters.combinators.refresh import Inside
from tests.helpers import BYTES, MIXED, UPPER, aunet, error_of, fit, inside, points, stepped_levels
from tests.plain_aunet import plain_logits
from tests.test_carried import saved

RULE = {"name": "refresh", "of": "whitespace", "by": {"name": "fixed", "n": 2}}
UPSAMPLINGS = ["multi_linear", "repeat", "copy", "insert"]
TEXTS = [MIXED, "nothing alike: 人人生而自由".encode() + b" a" * 30, b"x" * 90]


def network(stages=2, window=3, conv=None, rule=RULE, upper=UPPER, caps=(None, None), **options):
    """A network whose stages above bytes are small in every way, and its stack."""
    above = [StageConfig(24 - 8 * s, 1, 8, window, conv, max_units=caps[s]) for s in range(stages - 1)]
    config = AUNetConfig([StageConfig(16, 1, 8, 5, conv), *above], max_offset=3, **options)
    stack = Stack([rule, *[upper] * (stages - 2)])
    torch.manual_seed(0)
    return AUNet(config, stack).eval(), stack


def rows(stack, n=80, texts=TEXTS):
    """Rows of two documents with levels and refreshes."""
    ids = torch.tensor([[BOS, *text[: n - 1]] for text in texts])
    ids[:, 36:38] = torch.tensor([EOS, BOS])
    return ids, torch.tensor([stepped_levels(stack, row) for row in ids.tolist()]), inside(stack, ids)


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
@pytest.mark.parametrize(
    "options",
    [
        {"document_masking": True},
        {"window": None, "document_masking": False},
        {"window": 1, "conv": 1, "offsets": "modulo"},
        {"stages": 3, "conv": 3, "document_masking": True},
        {"stages": 3, "window": None, "conv": 3, "document_masking": False, "caps": (7, 2)},
    ],
    ids=str,
)
@torch.no_grad()
def test_equals_the_plain_form(upsampling, options):
    """Of which each refresh is a row of its own: the units up to its own, and it as one more at their end."""
    model, stack = network(upsampling=upsampling, **options)
    ids, levels, refreshes = rows(stack, 48, TEXTS[:1])
    got = model(ids, levels, refreshes=refreshes)
    at = refreshes[0].nonzero()[:, 0].tolist()
    assert len(at) > 5
    expected = plain_logits(model, ids[0].tolist(), levels[0].tolist(), at)
    torch.testing.assert_close(got.logits[0], expected, atol=2e-5, rtol=1e-4)


STEPPED = {
    "two stages": {},
    "three stages": {"stages": 3, "conv": 3},
    "unmasked, no window": {"window": None, "conv": 2, "document_masking": False},
    "capped": {"stages": 3, "caps": (6, 2), "upsampling": "repeat"},
    "a window of one": {"window": 1, "upsampling": "insert"},
    "a router above": {"stages": 3, "upper": {"name": "router", "bytes_per_unit": 4}, "window": 4},
    "every byte": {"rule": {**RULE, "by": {"name": "fixed", "n": 1}}, "stages": 3},
    "by a rule that reads": {"rule": {**RULE, "by": "utf8_character"}},
    "by a byte model": {"rule": {**RULE, "by": {"name": "entropy", "checkpoint": "teller.ckpt", "threshold": 5.0}}},
}


@pytest.mark.parametrize("case", STEPPED)
@torch.no_grad()
def test_stepping_equals_the_full_forward(case, tmp_path, monkeypatch):
    """Byte by byte, and in pieces of random lengths, of which each row reads as many bytes as it likes."""
    monkeypatch.chdir(tmp_path)
    saved(Path("teller.ckpt"))
    model, stack = network(**STEPPED[case])
    ids, levels, refreshes = rows(stack)
    full = model(ids, levels, refreshes=refreshes)
    assert full.refreshes.any(1).all()
    for seed in (None, 1):
        drawn = random.Random(seed)
        state, at = model.initial_state(len(ids), stack, constant=seed is None), [0] * len(ids)
        logits = torch.zeros_like(full.logits)
        found = torch.zeros_like(refreshes)
        while min(at) < ids.shape[1]:
            lengths = [1 if seed is None else min(drawn.choice([0, 1, 1, 2, 7]), ids.shape[1] - a) for a in at]
            most = max(*lengths, 1)
            part = torch.full((len(ids), most), EOS)
            for row, (a, n) in enumerate(zip(at, lengths, strict=True)):
                part[row, :n] = ids[row, a : a + n]
            if not any(lengths):
                continue
            output = model(part, state=state, lengths=lengths)
            state = output.state
            for row, n in enumerate(lengths):
                logits[row, at[row] : at[row] + n] = output.logits[row, :n]
                found[row, at[row] : at[row] + n] = output.refreshes[row, :n]
                at[row] += n
        torch.testing.assert_close(logits, full.logits, atol=1e-4, rtol=1e-4)
        assert torch.equal(found, full.refreshes)


def test_gradients_reach_a_state_too():
    """Where tapes may not be written to, a refresh is a position of a call that leaves nothing behind."""
    model, stack = network(3, conv=3)
    ids, levels, refreshes = rows(stack, 50)
    full = model(ids, levels, refreshes=refreshes).logits
    for size in (1, 7):
        state, logits = model.initial_state(len(ids), stack), []
        for part in ids.split(size, 1):
            output = model(part, state=state)
            state = output.state
            logits.append(output.logits)
        torch.testing.assert_close(torch.cat(logits, 1), full, atol=1e-4, rtol=1e-4)
    full.logsumexp(-1).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("stages", [2, 3])
@torch.no_grad()
def test_later_units_do_not_see_refreshes(stages):
    """Wherever they fall: their vectors are the same, of the trunk and of the stages between."""
    model, stack = network(stages, conv=3)
    ids, levels, refreshes = rows(stack)
    seen = []
    hook = model.upsamplings[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    torch.manual_seed(1)
    falls = [refreshes, torch.zeros_like(refreshes), torch.ones_like(refreshes), torch.rand(ids.shape) < 0.3]
    logits = [model(ids, levels, refreshes=fall).logits for fall in falls]
    hook.remove()
    n = seen[1].shape[1]
    assert all(vectors.shape[1] > n for vectors in (seen[0], *seen[2:]))
    for vectors in seen:
        torch.testing.assert_close(vectors[:, :n], seen[1], atol=1e-5, rtol=1e-5)
    assert all((one - logits[1]).abs().max() > 1e-2 for one in (logits[0], *logits[2:]))


@torch.no_grad()
def test_without_refreshes_nothing_changes():
    model, stack = network(3)
    ids, levels, _ = rows(stack)
    plain = AUNet(model.config).eval()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(
        model(ids, levels, refreshes=torch.zeros_like(ids, dtype=torch.bool)).logits, plain(ids, levels).logits
    )


@torch.no_grad()
def test_room_is_made_for_them():
    model, stack = network(3)
    ids, levels, refreshes = rows(stack)
    n_units = [[1 + int(n) for n in (levels[:, 1:] > s).sum(1)] for s in range(2)]
    counts = refreshes.sum(1).tolist()
    expected = model(ids, levels, refreshes=refreshes).logits
    rooms = model.rooms_for(n_units, counts)
    torch.testing.assert_close(model(ids, levels, rooms=rooms, refreshes=refreshes).logits, expected)
    least = [room._replace(inside=room.inside and room.inside._replace(row=1)) for room in rooms]
    with pytest.raises((IndexError, RuntimeError)):
        model(ids, levels, rooms=least, refreshes=refreshes)


@pytest.mark.parametrize("options", [{}, {"stages": 3, "upper": "router", "window": None}, {"conv": 3}], ids=str)
@pytest.mark.parametrize("every", [1, 3])
def test_flops_and_memory_are_counted(options, every, monkeypatch):
    monkeypatch.setattr(joined, "WORTH", 0)  # what is counted here has padding
    model, stack = network(**{"rule": {**RULE, "by": {"name": "fixed", "n": every}}, **options})
    ids = torch.randint(97, 123, (2, 96))
    levels = (torch.arange(96) % 12 == 0).long().expand(2, -1)
    refreshes = torch.tensor(np.stack([stack.refreshes.by.split(bytes(96))] * 2)) & (levels == 0)
    with counter() as count, Kept(model) as kept:
        out = model(ids, levels, refreshes=refreshes)
        loss = F.cross_entropy(out.logits.flatten(0, 1), ids.flatten(), reduction="none").sum()
        held = kept.bytes
        (loss + sum(t.log_odds.sum() for t in out.decisions if t.log_odds is not None)).backward()
    n = -(-int(out.refreshes[0].sum()) // 16) * 16
    positions = [96, 16, *([16] if len(model.stages) == 3 else [])]
    found = Cost(model).step_flops(torch.tensor([positions] * 2), torch.tensor([n] * 2))
    assert float(found) == pytest.approx(count.get_total_flops(), rel=0.02 if model.predictors else 1e-9)
    parts = Cost(model).parts(positions, n)
    assert parts["stage2/refreshes"] > 0.1 * sum(parts.values())
    if not model.predictors:
        expected = memory(model.config, positions, 2, stack, refreshes=n)
        assert expected.activations + expected.copies == pytest.approx(held, rel=0.05)


@given(BYTES, st.integers(1, 4))
@settings(max_examples=20)
def test_a_count_begins_with_each_unit(data, n):
    stack = Stack([{**RULE, "by": {"name": "fixed", "n": n}}])
    found, begins, since = stack.refreshes.split(data), stack.levels(data) > 0, 0
    for t in range(len(data)):
        since = 0 if begins[t] else since + 1
        assert found[t] == (since > 0 and since % n == 0)


def test_a_rule_that_reads_is_not_begun_anew():
    stack = Stack([{"name": "refresh", "of": {"name": "fixed", "n": 3}, "by": "whitespace"}])
    text = b"one two three four"
    alone = splitters.build("whitespace").split(text)
    assert np.array_equal(stack.refreshes.split(text), alone & (stack.levels(text) == 0))


def test_the_laws_are_tested_inside_units():
    class Peeking(splitters.build("whitespace").__class__):
        def split(self, data):
            return np.append(super().split(data)[1:], False)

    rule = splitters.build("refresh")
    rule.refreshes = Inside(rule.of, Peeking())
    with pytest.raises(splitters.LawError, match="Refresh, inside units, breaks the prefix law"):
        splitters.check(rule)


def test_a_fingerprint_tells_refreshes_apart():
    prints = {Stack([rule]).fingerprint() for rule in ("whitespace", RULE, {**RULE, "by": {"name": "fixed", "n": 3}})}
    assert len(prints) == 3


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ([{"name": "cap", "of": "refresh"}], "cap: 'refresh' refreshes units, so it stands alone"),
        (["whitespace", "refresh"], "upper_splitters: refresh .* name it as splitter"),
        ([{"name": "refresh", "of": "router"}], "refresh: 'router' reads the hidden states"),
        ([{"name": "refresh", "by": "every"}], "refresh: 'every' groups the units"),
        ([{"name": "distilled", "teacher": "refresh"}], "distilled: 'refresh' refreshes units"),
    ],
)
def test_wrong_places_are_named(rules, words):
    with pytest.raises(ValueError, match=words):
        _ = Stack(rules).teachers


@torch.no_grad()
def test_wrong_calls_are_named():
    model, stack = network()
    ids, levels, refreshes = rows(stack)
    with pytest.raises(ValueError, match="refreshes are missing"):
        model(ids, levels)
    with pytest.raises(ValueError, match=r"refreshes \[3, 79\]"):
        model(ids, levels, refreshes=refreshes[:, 1:])
    with pytest.raises(ValueError, match="the model refreshes units, the stack does not"):
        model.initial_state(1, Stack(["whitespace"]))
    with pytest.raises(ValueError, match="the stack refreshes units, the model does not"):
        AUNet(model.config).initial_state(1, stack)
    with pytest.raises(ValueError, match="can't be compiled: the splitter refreshes units"):
        Captured(model, read(model, [[BOS, 65]], model.initial_state(1, stack))[1])


def test_text_is_generated():
    model, _ = network(3)
    reader = ByteReader([RULE, UPPER])
    once, again = (generate(model, reader, [b"a few words"], 40, 0) for _ in range(2))
    alone, with_others = generate(model, reader, [b"a few"], 30, 0), generate(model, reader, [b"a few", b"x"], 30, 0)
    assert once == again
    assert alone[0] == with_others[0]


def test_a_plan_does_not_count_them(capsys):
    assert aunet("plan", "--flops", "1e15", "--splitter", "refresh") != 0
    assert "a plan does not count refreshes" in error_of(capsys)


def test_a_run_with_refreshes(here, capsys):
    """It measures them, its text is written, and it does not go on with others."""
    rule = ["--splitter", "{name: refresh, of: whitespace, by: {name: fixed, n: %d}}", "--run.folder", "r"]
    assert fit(rule[0], rule[1] % 2, *rule[2:]) == 0
    found = points(Path("r"))
    for name in (
        "train/refreshes_per_byte_stage2",
        "val/refreshes_per_byte_stage2",
        "val_stage2/refreshes_per_byte_en",
    ):
        (*_, last) = (value for (_, key), value in found.items() if key == name)
        assert 0.25 < last < 0.5
    capsys.readouterr()
    assert aunet("generate", "r/checkpoints/last.ckpt", "--prompt", "the", "--bytes", 9) == 0
    assert capsys.readouterr().out.startswith("the")
    assert fit(rule[0], rule[1] % 3, *rule[2:]) != 0
    assert "splitter.by.n (there 2, here 3)" in error_of(capsys)
