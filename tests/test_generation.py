"""Laws of generated text: of its bytes, of its choice among them, and of texts that share a batch."""

import io
import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aunet_lightning import AUNet, AUNetConfig
from aunet_lightning.checkpoints.load import load
from aunet_lightning.generation import Batch, DraftingBatch, Request, Sampling, read, stream, texts, utf8
from aunet_lightning.generation.drafting import AGAIN, LENGTHS, Pace
from aunet_lightning.generation.sampling import choose, softmax
from aunet_lightning.reader.model_units import units_of
from aunet_lightning.reader.reader import ByteReader
from aunet_lightning.reports.pictures import as_line
from aunet_lightning.vocabulary import BOS, BYTES
from splitters import Stack
from tests.helpers import BYTES as SOME_BYTES
from tests.helpers import ROOT, UPPER, as_trained, aunet, error_of

KEPT = ROOT / "tests" / "kept_run" / "checkpoints" / "last.ckpt"
PROMPTS = [
    b"",
    "人人生而".encode(),
    b"a much longer prompt than the others, with words",
    b"All human",
    b"x",
    b"All human",
]
KINDS = {
    "rules": ({}, {}, ["whitespace", UPPER]),
    "convolution and n-grams": ({"conv": 3}, {"embedding": "ngrams", "ngram_rows": 97}, ["script_aware", UPPER]),
    "documents that see each other": ({"conv": 3}, {"document_masking": False, "embedding": "ngrams"}, ["whitespace", UPPER]),
    "learned": ({}, {}, ["router", UPPER]),
    "refreshed": ({}, {}, [{"name": "refresh", "of": "whitespace", "by": {"name": "fixed", "n": 3}}, UPPER]),
    "one stage": ({"conv": 3}, {}, []),
}  # fmt: skip


def model_of(kind="rules"):
    of_stages, options, rules = KINDS[kind]
    torch.manual_seed(0)
    stages = [{"dim": dim, "layers": 1, "head_dim": 8, "window": 9, **of_stages} for dim in (16, 24, 16)]
    config = AUNetConfig(stages=stages[: len(rules) + 1], max_offset=5, **options)
    return as_trained(AUNet(config, Stack(rules) if kind in ("learned", "refreshed") else ())), ByteReader(rules)


# UTF-8


def test_utf8_is_every_character_of_python_and_nothing_else():
    points = [*range(0xD800), *range(0xE000, 0x110000)]
    characters = {chr(point).encode() for point in points}
    begun = {character[:n] for character in characters for n in range(len(character))}  # with nothing
    for begin in sorted(begin for begin in begun if len(begin) < 3 or begin[-1] in (0x80, 0xBF)):
        state = utf8.run(begin)
        assert (state == utf8.COMPLETE) == (begin == b"")
        assert utf8.resumed(begin) == state
        assert utf8.incomplete(b"a" + begin) == len(begin)
        for byte in range(256):
            more = begin + bytes([byte])
            expected = utf8.COMPLETE if more in characters else None if more in begun else utf8.NEVER
            after = utf8.TABLE[state, byte]
            assert after == expected if expected is not None else after > 0


@given(SOME_BYTES)
def test_a_text_goes_on_whatever_in_it_is_malformed(data):
    state = utf8.COMPLETE
    for byte in data:
        state = max(utf8.TABLE[state, byte], utf8.TABLE[utf8.COMPLETE, byte] if utf8.TABLE[state, byte] < 0 else -1, 0)
    assert utf8.resumed(data) == state


def test_tokens_are_read_as_their_bytes():
    tokens = [b"", b"a", "é".encode(), b"\xa9", b"\xc3", b"\xa9\xe4", b"\xff"]
    of_tokens = utf8.table_of(tokens)
    assert [[utf8.run(token, state) for token in tokens] for state in range(len(of_tokens))] == of_tokens.tolist()
    assert (utf8.table_of(BYTES)[:, :256] == utf8.TABLE).all()


@pytest.mark.parametrize("kind", ["rules", "learned"])
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_text_is_always_valid_and_never_has_half_a_character(kind, temperature):
    net, reader = model_of(kind)
    cut = ["人".encode()[:n] for n in (1, 2)] + ["😀".encode()[:3], b"\xff\xe4\xb8", b"\xc3", b"a"]
    for n_bytes in (1, 2, 3, 40):
        sampling = Sampling(n_bytes, temperature=temperature)
        for text in texts(net, reader, [Request(prompt, seed) for seed, prompt in enumerate(cut)], sampling):
            assert len(text.text) <= n_bytes
            prompt = text.request.prompt
            head = prompt[len(prompt) - utf8.incomplete(prompt) :] if text.text else b""
            (head + text.text).decode()  # no UnicodeDecodeError
            assert n_bytes < 4 or len(text.text) > n_bytes - 4 or text.finish == "document"
            assert 0 < text.removed < 1
    (free,) = texts(net, reader, [Request(b"a")], Sampling(40, temperature=1, valid_utf8=False))
    assert free.removed == 0
    assert utf8.run(free.text) == utf8.NEVER


# The choice


def plainly(logits, sampling, draw, allowed, seen):
    """The same for one row, a step at a time."""
    logits = [x if i != BOS else -np.inf for i, x in enumerate(logits.tolist())]
    r = sampling.repetition_penalty
    logits = [(x / r if x > 0 else x * r) if s else x for x, s in zip(logits, seen, strict=True)]
    logits = [x if a else -np.inf for x, a in zip(logits, allowed, strict=True)]
    powers = [np.exp((x - max(logits)) / sampling.temperature) for x in logits]
    ranked = sorted(((power / sum(powers), -i) for i, power in enumerate(powers)), reverse=True)
    kept, before = [], 0.0
    ranked = ranked[: sampling.top_k]
    mass = sum(p for p, _ in ranked)
    for p, i in ranked:
        if before < sampling.top_p * mass and p >= sampling.min_p * ranked[0][0] and p > 0:
            kept.append((-i, p))
        before += p
    point, sums = draw * sum(p for _, p in kept), 0.0
    for i, p in sorted(kept):
        sums += p
        if point < sums:
            return i
    return max(i for i, _ in kept)


@pytest.mark.parametrize(
    "options",
    [
        {}, {"top_k": 5}, {"top_p": 0.6}, {"min_p": 0.3}, {"repetition_penalty": 1.7}, {"repetition_penalty": 0.8},
        {"temperature": 0.3, "top_k": 20, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.2}, {"top_k": 1},
    ],
    ids=str,
)  # fmt: skip
def test_the_choice_is_the_plain_one(options):
    generator = np.random.default_rng(0)
    sampling = Sampling(**{"temperature": 1.0} | options)
    logits = 3 * generator.standard_normal((60, 258))
    allowed, seen = generator.random(logits.shape) < 0.4, generator.random(logits.shape) < 0.3
    draws = [*generator.random(58), 0.0, 1 - 2**-53]
    penalised = sampling.repetition_penalty != 1
    chosen, removed = choose(logits, sampling, draws, allowed, seen if penalised else None)
    assert chosen == [
        plainly(row, sampling, *of)
        for row, *of in zip(logits, draws, allowed, seen if penalised else seen * 0, strict=True)
    ]
    logits[:, BOS] = -np.inf
    assert removed == pytest.approx((softmax(logits) * ~allowed).sum(1).tolist())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_bytes": -1}, "bytes is -1"), ({"temperature": -1}, "temperature is -1"), ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0}, "top_p is 0"), ({"top_p": 1.5}, "top_p is 1.5"), ({"min_p": 2}, "min_p is 2"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0"), ({"stop": (b"",)}, "stop: an empty string"),
        ({"max_units": 0}, "units is 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_sampled_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Sampling(**options)


def test_a_model_that_diverged_is_said_so():
    with pytest.raises(ValueError, match="it has diverged"):
        choose(np.full((1, 258), np.nan), Sampling(), [0.5])


# Texts that share a batch


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_row_begins_anew_as_if_nothing_had_been(kind):
    net, reader = model_of(kind)
    rows = [[BOS, *b"some words of a text "], [BOS, *b"another one, which goes on and on"], [BOS, 97]]
    _, used = read(net, rows, net.initial_state(3, reader.stack))
    anew = used.anew([0, 2])
    assert anew.fresh == [True, False, True]
    new = [[BOS, *b"yet another text, longer than the window"], [*b" and on"], [BOS, *"人人".encode()]]
    got, _ = read(net, new, anew)
    expected, _ = read(net, [new[0], rows[1] + new[1], new[2]], net.initial_state(3, reader.stack))
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    again, _ = read(net, [[], new[1], []], used)  # the state from which it began stays valid
    torch.testing.assert_close(again[1], expected[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_a_text_is_the_same_in_any_company(kind, temperature):
    net, reader = model_of(kind)
    sampling = Sampling(25, temperature=temperature, stop=(b"q", "é".encode()))
    requests = [Request(prompt, seed=7, sample=n % 4) for n, prompt in enumerate(PROMPTS)]
    alone = [texts(net, reader, [request], sampling, levels=True)[0] for request in requests]
    assert len({text.text for text in alone}) > 2
    for rows in (2, 4, 9):
        together = texts(net, reader, requests, sampling, rows, levels=True)
        assert [text.removed for text in together] == pytest.approx([text.removed for text in alone], rel=1e-4)
        assert [replace(text, removed=0.0) for text in together] == [replace(text, removed=0.0) for text in alone]
    copies = texts(net, reader, [requests[1]] * 10, sampling, 4)
    assert {text.text for text in copies} == {alone[1].text}
    for text in alone:
        if kind not in ("learned", "one stage"):
            whole = reader.levels(text.whole)
            assert text.levels == whole[len(text.request.prompt) :].tolist()


@pytest.mark.parametrize("kind", ["rules", "learned"])
@pytest.mark.parametrize("cut", [1, 10, 29])
def test_a_text_that_was_stopped_goes_on_as_if_it_had_not_been(kind, cut):
    net, reader = model_of(kind)
    (unbroken,) = texts(net, reader, [Request(b"All ", seed=3)], Sampling(30, temperature=1.0))
    (first,) = texts(net, reader, [Request(b"All ", seed=3)], Sampling(cut, temperature=1.0))
    request = Request(first.whole, seed=3, drawn=len(first.text))
    (rest,) = texts(net, reader, [request], Sampling(30 - len(first.text), temperature=1.0))
    assert first.text + rest.text == unbroken.text


@pytest.mark.parametrize("stop", [(b"e",), (b"the", b"q"), ("人".encode(), b"zz"), (b"\x01\x02",)], ids=str)
def test_it_ends_before_a_stop_string_and_says_nothing_that_it_takes_back(stop):
    net, reader = model_of()
    drawn = random.Random(0)
    requests = [Request(b"x", seed) for seed in range(12)]
    free = texts(net, reader, requests, Sampling(60, temperature=1.0))
    stop = (*stop, free[0].text[20:22] or b"qq", free[1].text[9:10] or b"q")  # some that do occur
    pieces = [*stream(net, reader, requests, Sampling(60, temperature=1.0, stop=stop), rows=drawn.randint(1, 5))]
    for number, whole in enumerate(free):
        own = [piece for piece in pieces if piece.number == number]
        ends = [at for one in stop if (at := whole.text.find(one)) >= 0]
        assert own[-1].done.text == b"".join(piece.text for piece in own)
        assert [piece.done is None for piece in own] == [True] * (len(own) - 1) + [False]
        if ends:
            assert own[-1].done.finish == "stop"
            assert own[-1].done.text == whole.text[: min(ends)].decode("utf-8", "ignore").encode()
        else:
            assert own[-1].done.text == whole.text
        for piece in own:
            piece.text.decode()  # whole characters


@pytest.mark.parametrize("kind", ["rules", "convolution and n-grams", "learned"])
@pytest.mark.parametrize("n_units", [1, 3])
def test_so_many_units_are_begun(kind, n_units):
    net, reader = model_of(kind)
    limits, ended = Sampling(60, n_units, temperature=1.0), 0
    for seed in range(6):
        request = [Request(b"some ", seed)]
        (free,) = texts(net, reader, request, Sampling(60, temperature=1.0), levels=True)
        (text,) = texts(net, reader, request, limits)
        begins = [at for at, level in enumerate(free.levels) if level]
        if len(begins) > n_units:
            ended += 1
            assert text.finish == "units"
            assert text.text == free.text[: begins[n_units]].decode("utf-8", "ignore").encode()
        else:
            assert text.text == free.text
    assert ended


def test_units_need_a_model_with_units():
    net, reader = model_of("one stage")
    with pytest.raises(ValueError, match="the model reads bytes alone"):
        texts(net, reader, [Request()], Sampling(max_units=1))


# The command


def lines_of(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_json_lines_come_back_with_their_text(tmp_path, capsys, monkeypatch):
    prompts = [{"prompt": "ทุก", "id": 7}, {"prompt": "a\udcff", "seed": 3}, {"prompt": ""}]
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(map(json.dumps, prompts)) + "\n\n")
    options = "--bytes", 12, "--samples", 2, "--rows", 2, "--show_units"
    assert aunet("generate", KEPT, "--prompts", file, *options) == 0
    found = lines_of(capsys)
    assert [line | {"sample": None} for line in found] == [
        prompts[n // 2] | {key: found[n][key] for key in ("text", "finish", "removed", "levels")} | {"sample": None}
        for n in range(6)
    ]
    assert [line["sample"] for line in found] == [0, 1] * 3
    assert all(len(line["levels"]) == len(line["text"].encode("utf-8", "surrogateescape")) <= 12 for line in found)
    assert found[0]["text"] != found[1]["text"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    assert aunet("generate", KEPT, "--prompts", "-", *options) == 0
    assert lines_of(capsys) == found


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2 is not JSON"), ('{"text": "a"}', "line 2 has no prompt"), ('["a"]', "line 2 has no prompt"),
        ('{"prompt": "a", "drawn": -1}', "line 2: drawn is -1"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_prompt_is_named(tmp_path, capsys, line, said):
    file = tmp_path / "prompts.jsonl"
    file.write_text(f'{{"prompt": "a"}}\n{line}\n')
    assert aunet("generate", KEPT, "--prompts", file) == 1
    assert said in error_of(capsys)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--prompts", "nowhere.jsonl"], "--prompts nowhere.jsonl is not a file"),
        (["--file", "nowhere.txt"], "--file nowhere.txt is not a file"), (["--samples", 0], "--samples is 0"),
        (["--interactive", "--prompt", "a"], "--interactive asks for prompts itself"), (["--top_p", 2], "top_p is 2"),
        (["--prompts", "a", "--prompt", "a"], "--prompts has all prompts"), (["--rows", 0], "--rows is 0"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_refused(options, said, capsys):
    assert aunet("generate", KEPT, *options) == 1
    assert said in error_of(capsys)


def test_texts_are_printed_with_their_units(tmp_path, capsys):
    (tmp_path / "one.txt").write_text("All human beings ")
    shared = "generate", KEPT, "--file", tmp_path / "one.txt", "--bytes", 8, "--seed", 2
    assert aunet(*shared) == 0
    plain = capsys.readouterr()
    assert "of the probability was of bytes that are not UTF-8 there" in plain.err
    assert aunet(*shared, "--show_units") == 0
    marked = capsys.readouterr().out
    assert marked.startswith(as_line(b"All human beings", units_of(*load(KEPT))))
    assert marked.translate(dict.fromkeys(map(ord, "│║⏎"))) == plain.out
    assert aunet(*shared, "--show_units", "--color", "always", "--samples", 2) == 0
    assert capsys.readouterr().out.count("\x1b[48;5;") > 6


def test_it_converses(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("All human \n\n"))
    assert aunet("generate", KEPT, "--interactive", "--bytes", 6) == 0
    found = capsys.readouterr().out
    assert aunet("generate", KEPT, "--prompt", "All human ", "--bytes", 12) == 0
    unbroken = capsys.readouterr().out
    last = found.splitlines()[-2].removeprefix("» ")
    assert unbroken.endswith(last + "\n")
    assert last.startswith("All human ")


def test_a_prompt_of_a_megabyte_is_read():
    net, reader = model_of("one stage")
    prompt = b"some words " * 100_000
    (text,) = texts(net, reader, [Request(prompt)], Sampling(3, temperature=0))
    (short,) = texts(net, reader, [Request(prompt[-11_000:])], Sampling(3, temperature=0))
    assert text.text == short.text  # of a window of 9


# Drafts


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "one stage"])
@pytest.mark.parametrize(
    ("draft", "options"),
    [(16, {"temperature": 0}), (5, {"temperature": 1.0, "repetition_penalty": 1.3, "top_k": 30, "stop": (b"q",)}), (2, {"max_units": 2})],
    ids=str,
)  # fmt: skip
def test_drafts_change_no_text(kind, draft, options):
    net, reader = model_of(kind)
    sampling = Sampling(**{"max_bytes": 30, "temperature": 0.9} | options)
    requests = [Request(prompt, seed=7, sample=n % 4) for n, prompt in enumerate(PROMPTS)]
    plain = texts(net, reader, requests, sampling, 3, levels=True)
    for rows in (1, 3):
        batch = DraftingBatch(net, reader, sampling, rows, levels=True, draft=draft)
        pieces = [*batch.run(requests)]
        drafted = {piece.number: piece.done for piece in pieces if piece.done is not None}
        assert [replace(drafted[n], removed=0.0) for n in range(len(requests))] == [
            replace(text, removed=0.0) for text in plain
        ]
        assert 0 < batch.drafts.accepted < batch.drafts.made
        for number, text in drafted.items():
            assert b"".join(piece.text for piece in pieces if piece.number == number) == text.text


def test_drafts_are_chosen_with_the_draws_of_their_bytes():
    net, reader = model_of()
    with torch.no_grad():
        net.upsamplings[0].up.weight.zero_()  # nothing comes from above, so stage 1 is right by itself
        net.upsamplings[0].by_offset.zero_()
    batch = DraftingBatch(net, reader, Sampling(60, temperature=1.0), 1, draft=8)
    assert [*batch.run([Request(b"some words ")])][-1].done is not None
    assert batch.drafts.accepted == batch.drafts.made > 20


def test_drafts_cost_upper_stages_less_and_say_so():
    net, reader = model_of()
    request, sampling = [Request(b"some words ")], Sampling(120, temperature=0)
    plain, drafting = (DraftingBatch(net, reader, sampling, 1, draft=draft) for draft in (1, 8))
    assert [*plain.run(request)][-1].done.text == [*drafting.run(request)][-1].done.text
    assert plain.drafts.made == 0
    assert plain.drafts.ids == drafting.drafts.ids
    units = sum(level > 0 for level in texts(net, reader, request, sampling, levels=True)[0].levels)
    assert abs(plain.drafts.passes[1] - units) <= 1 + len(b"some words ")  # one a unit, and those of the prompt
    assert str(drafting.drafts).startswith(f"{drafting.drafts.accepted / drafting.drafts.made:.0%} of")
    with pytest.raises(ValueError, match="a model of one stage has no cheaper stage"):
        texts(*model_of("one stage"), request, sampling, draft=None)


def test_the_pace_is_that_of_the_fastest_and_is_tried_again():
    pace, costs = Pace(), {1: 3.0, 4: 2.0, 8: 1.0, 16: 4.0}
    chosen = []
    for _ in range(600):
        length = pace.length()
        chosen.append(length)
        pace.tell(length, costs[length] * length, length)
        costs = costs if len(chosen) < 300 else costs | {1: 0.5}
    assert {*chosen[:120]} == set(LENGTHS)
    assert {*chosen[200:300]} == {8}
    pace = Pace(fixed=4)
    assert [pace.length() for _ in range(3)] == [4] * 3
    again = Pace(seconds={length: (costs[length] * 50, 50) for length in LENGTHS}, since=AGAIN)
    again.tell(1, 1.0, 1)
    assert again.seconds == {}


@torch.no_grad()
def test_a_stream_goes_on_from_where_it_is_wound_back_to():
    net, reader = model_of("convolution and n-grams")
    _, state = read(net, [[BOS, *b"some words"]], net.initial_state(1, reader.stack))
    tapes = [stage.cache.tape for stage in state.stages]
    other, _ = read(net, [[*b" of another text"]], state)
    state.rewind()
    expected, after = read(net, [[*b" and more"]], state)
    assert after.stages[0].cache.tape is tapes[0]  # nothing was copied
    plain, _ = read(net, [[BOS, *b"some words and more"]], net.initial_state(1, reader.stack))
    torch.testing.assert_close(expected, plain, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(other, plain)


FUZZED = st.fixed_dictionaries(
    {
        "max_bytes": st.integers(0, 12),
        "max_units": st.none() | st.integers(1, 3),
        "temperature": st.sampled_from([0, 0.001, 0.7, 1000.0]),
        "top_k": st.none() | st.integers(1, 300),
        "top_p": st.floats(1e-6, 1),
        "min_p": st.floats(0, 1),
        "repetition_penalty": st.floats(0.01, 100),
        "stop": st.lists(st.binary(min_size=1, max_size=3), max_size=3).map(tuple),
        "valid_utf8": st.booleans(),
    }
)
_FUZZED_MODELS: dict = {}


@given(
    FUZZED, st.lists(SOME_BYTES, min_size=1, max_size=4), st.sampled_from(["rules", "learned"]), st.sampled_from([1, 3])
)
@settings(max_examples=30)
def test_any_prompt_goes_on_with_any_options(options, prompts, kind, draft):
    net, reader = _FUZZED_MODELS.setdefault(kind, model_of(kind))
    sampling = Sampling(**options)
    requests = [Request(prompt, seed=-n, sample=n) for n, prompt in enumerate(prompts)]
    pieces = [*stream(net, reader, requests, sampling, rows=2, levels=True, draft=draft)]
    for number, request in enumerate(requests):
        own = [piece for piece in pieces if piece.number == number]
        text = own[-1].done
        assert text.request == request
        assert b"".join(piece.text for piece in own) == text.text
        assert len(text.levels) == len(text.text) <= sampling.max_bytes
        assert [level for piece in own for level in piece.levels] == text.levels
        assert text.finish in ("bytes", "units", "stop", "document")
        assert not any(stop in text.text for stop in sampling.stop)
        assert sum(level > 0 for level in text.levels) <= (sampling.max_units or len(text.levels))
        if sampling.valid_utf8 and text.text:
            begun = request.prompt[len(request.prompt) - utf8.incomplete(request.prompt) :]
            (begun + text.text).decode()


def test_a_batch_refuses_what_would_be_mixed_up():
    net, reader = model_of()
    batch = Batch(net, reader, Sampling(3), 2)
    batch.join(0, Request(b"a"))
    with pytest.raises(ValueError, match="a text with the number 0 is in the batch"):
        batch.join(0, Request(b"b"))
    batch.join(1, Request(b"b"))
    with pytest.raises(ValueError, match="no row is free, all 2 continue a text"):
        batch.join(2, Request(b"c"))
    for wrong, said in (
        ({"prompt": "a"}, "prompt is a str"),
        ({"drawn": -1}, "drawn is -1"),
        ({"sample": 0.5}, "sample is 0.5"),
    ):
        with pytest.raises(ValueError, match=said):
            Request(**wrong)
