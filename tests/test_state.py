"""Laws of a stream on the paths that only a step takes: tapes, rows that go on at their own times, forks."""

import copy
import pickle
import random

import pytest
import torch

from aunet_lightning import AUNet, AUNetConfig
from aunet_lightning.generation import generate, read
from aunet_lightning.model.captured import Captured
from aunet_lightning.model.steppers import COPY_EVERY, Track
from aunet_lightning.reader.reader import ByteReader
from aunet_lightning.vocabulary import BOS, EOS
from splitters import Stack
from tests.helpers import MIXED, UPPER, as_trained, stepped_levels, tiny_model

RULES = [["whitespace", {"name": "every", "n": 2}], ["router", UPPER], ["utf8_character", "router"]]


def model_of(rules, conv=None, masked=True, window=5, qk_norm=False):
    torch.manual_seed(0)
    stages = [{"dim": dim, "layers": 1, "head_dim": 8, "window": window, "conv": conv} for dim in (16, 24, 16)]
    config = AUNetConfig(stages=stages, document_masking=masked, max_offset=5, qk_norm=qk_norm)
    model = tiny_model(config) if rules is RULES[0] else as_trained(AUNet(config, rules))
    return model, Stack(rules)


def texts(n_rows, n, seed=0):
    """Rows of words of very different lengths, with documents that end at different places."""
    drawn, rows = random.Random(seed), []
    for r in range(n_rows):
        row = [BOS]
        while len(row) < n:
            row += [*(b"x" * drawn.randint(1, 3 + 9 * (r % 2)) + b" ")]
            row += [EOS, BOS] if drawn.random() < 0.05 else []
        rows.append(row[:n])
    return torch.tensor(rows)


def stepped(model, ids, state):
    logits = []
    for t in range(ids.shape[1]):
        output = model(ids[:, t : t + 1], state=state)
        state = output.state
        logits.append(output.logits)
    return torch.cat(logits, 1), state


def full(model, stack, ids):
    return model(ids, torch.tensor([stepped_levels(stack, row) for row in ids.tolist()])).logits


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize(
    ("conv", "masked", "window", "qk_norm", "rows"),
    [(None, True, 5, False, 12), (3, True, 5, False, 1), (3, False, 9, True, 12), (None, True, None, True, 1)],
)
@torch.no_grad()
def test_rows_step_at_their_own_times_through_many_tapes(rules, conv, masked, window, qk_norm, rows):
    model, stack = model_of(rules, conv, masked, window, qk_norm)
    ids = texts(rows, 150)
    expected = full(model, stack, ids)
    got, state = stepped(model, ids, model.initial_state(rows, stack))
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    got, _ = stepped(model, ids[:, :80], model.initial_state(rows, stack, constant=True))
    torch.testing.assert_close(got, expected[:, :80], atol=1e-4, rtol=1e-4)
    if window is not None:
        assert state.stages[0].cache.tape.size < 100  # of 150 positions
    if rows > 1:
        assert len(set(state.stages[1].cache.count)) > 1


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("conv", [None, 3])
@torch.no_grad()
def test_rows_of_different_lengths_are_read_at_once(rules, conv, monkeypatch):
    monkeypatch.setattr("aunet_lightning.generation.reading.PART", 64)
    model, stack = model_of(rules, conv)
    ids, lengths = texts(5, 160), [1, 150, 20, 64, 65]
    together, state = read(
        model, [row[:n] for row, n in zip(ids.tolist(), lengths, strict=True)], model.initial_state(5, stack)
    )
    after = torch.stack([row[n : n + 8] for row, n in zip(ids, lengths, strict=True)])
    going, _ = stepped(model, after, state)
    for row, n in enumerate(lengths):
        alone = full(model, stack, ids[row : row + 1, : n + 8])[0, n - 1 :]
        torch.testing.assert_close(torch.cat([together[row : row + 1], going[row]]), alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rules", RULES, ids=str)
@torch.no_grad()
def test_rows_that_rest_go_on_where_they_were(rules):
    model, stack = model_of(rules, 3)
    ids, state, drawn = texts(4, 90), model.initial_state(4, stack), random.Random(1)
    at, logits = [0] * 4, [[] for _ in range(4)]
    while min(at) < 80:
        n = drawn.choice([1, 1, 3])
        lengths = [drawn.randint(0, min(n, 80 - a)) for a in at]
        if any(lengths):
            parts = torch.stack([row[a : a + n] for row, a in zip(ids, at, strict=True)])
            output = model(parts, state=state, lengths=lengths)
            state = output.state
            for row, m in enumerate(lengths):
                logits[row].append(output.logits[row, :m])
                at[row] += m
    torch.testing.assert_close(
        torch.stack([*map(torch.cat, logits)]), full(model, stack, ids[:, :80]), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("rules", RULES, ids=str)
@torch.no_grad()
def test_two_texts_go_on_from_one_state(rules):
    model, stack = model_of(rules, 3)
    ids, others = texts(2, 140), texts(2, 60, seed=7)
    _, state = stepped(model, ids[:, :80], model.initial_state(2, stack))
    branch = state
    for t in range(60):  # turn by turn, on the tapes and steppers that both began with
        state = model(ids[:, 80 + t : 81 + t], state=state).state
        output = model(others[:, t : t + 1], state=branch)
        branch = output.state
    expected = full(model, stack, torch.cat([ids[:, :80], others], 1))[:, -1:]
    torch.testing.assert_close(output.logits, expected, atol=1e-4, rtol=1e-4)
    kept = (copy.deepcopy(state), pickle.loads(pickle.dumps(state)))
    again = [model(ids[:, :1], state=one).logits for one in (*kept, state)]
    assert torch.equal(again[0], again[2])
    assert torch.equal(again[1], again[2])


def test_a_stream_goes_on_in_another_mode_and_with_gradients():
    model, stack = model_of(RULES[0])
    ids, state = texts(2, 40), model.initial_state(2, stack)
    expected = full(model, stack, ids)
    with torch.inference_mode():
        _, state = stepped(model, ids[:, :20], state)
    with torch.no_grad():
        got, state = stepped(model, ids[:, 20:30], state)
    torch.testing.assert_close(got, expected[:, 20:30], atol=1e-4, rtol=1e-4)
    state = model.initial_state(2, stack)
    got, _ = stepped(model, ids, state)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    for logits in (got, expected):
        model.zero_grad()
        logits.logsumexp(-1).sum().backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        if logits is got:
            first = [gradient.clone() for gradient in gradients]
    for a, b in zip(first, gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_a_track_is_a_value():
    stack = Stack(RULES[0])
    track, levels = Track.of(stack.stepper), stack.levels(MIXED).tolist()
    states = []
    for byte, level in zip(MIXED[: 3 * COPY_EVERY], levels, strict=False):
        states.append(track)
        found, track = track.read([(byte,)])
        assert found == [level]
    for n in (5, COPY_EVERY, COPY_EVERY + 9):
        assert states[n].read([(byte,) for byte in MIXED[n : n + 30]])[0] == levels[n : n + 30]


COMPILED = {
    "windows": {"window": 9, "masked": False, "qk_norm": True},
    "no window, documents": {"window": None, "masked": True},
    "convolution, modulo": {"window": 100, "masked": True, "conv": 3, "offsets": "modulo"},
    "insert, n-grams": {"window": 4, "masked": True, "upsampling": "insert", "embedding": "ngrams"},
}


@pytest.mark.parametrize("case", COMPILED)
@torch.no_grad()
def test_compiled_steps_are_those_of_the_forward(case):
    """Rings that grow, come round and take new angles, in documents that began before; the state stays valid."""
    options = {"conv": None, "upsampling": "multi_linear", "offsets": "clamp", "embedding": "byte", "qk_norm": False}
    options |= COMPILED[case]
    stages = [
        {"dim": dim, "layers": 1, "head_dim": 8, "window": options["window"], "conv": options["conv"]}
        for dim in (16, 24)
    ]
    config = AUNetConfig(
        stages, document_masking=options["masked"], max_offset=5, ngram_rows=97,
        **{name: options[name] for name in ("upsampling", "offsets", "embedding", "qk_norm")},
    )  # fmt: skip
    model, stack = tiny_model(config), Stack(["whitespace"])
    ids = torch.tensor([[BOS, *b"before it ", EOS, BOS, *b"a few words of different lengths, " * 12]])
    at = 40
    _, state = read(model, ids[:, :at].tolist(), model.initial_state(1, stack, constant=True))
    captured = Captured(model, state, backend="eager")
    expected, _ = stepped(model, ids[:, at:], state)
    got = torch.stack([captured(id_) for id_ in ids[0, at:].tolist()], 1)
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=2e-5)
    again, _ = stepped(model, ids[:, at:], state)
    torch.testing.assert_close(again, expected, atol=0, rtol=0)
    with pytest.raises(ValueError, match="does not begin a document"):
        captured(BOS)


@torch.no_grad()
def test_what_is_not_compiled():
    model, stack = model_of(RULES[1])
    begun = read(model, [[BOS, 65]], model.initial_state(1, stack))[1]
    with pytest.raises(ValueError, match="can't be compiled: a learned splitter decides"):
        Captured(model, begun)
    model, stack = model_of(RULES[0])
    with pytest.raises(ValueError, match="nothing has been read yet"):
        Captured(model, model.initial_state(1, stack))
    state = read(model, [[BOS, 65]], model.initial_state(1, stack))[1]
    nowhere = torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler")})
    with nowhere, pytest.raises(ValueError, match=r"there is no C\+\+ compiler \(no-such-compiler\)"):
        Captured(model, state)
    with pytest.raises(ValueError, match="one text at a time, and here are 2"):
        Captured(model, read(model, [[BOS, 65], [BOS, 66]], model.initial_state(2, stack))[1])


@pytest.mark.slow
def test_compiled_text_is_the_text():
    model, reader = (
        tiny_model(AUNetConfig([{"dim": 16, "layers": 1, "head_dim": 8, "window": 9}] * 2)),
        ByteReader(["whitespace"]),
    )
    texts_ = [generate(model, reader, [b"a word"], 80, 0, compiled=compiled) for compiled in (False, True)]
    assert texts_[0] == texts_[1]
