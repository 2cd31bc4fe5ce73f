"""`aunet rate`: the options with which a splitter has a wanted rate, for every splitter that has a knob."""

import functools
import json
import math
import re

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import splitters
from aunet_lightning.checkpoints.forms import read
from aunet_lightning.checkpoints.load import load
from aunet_lightning.reader.bpe import first_entries, train_bpe
from aunet_lightning.reader.model_units import ModelUnits
from aunet_lightning.reader.rates import (
    NEAR,
    TOLERANCE,
    Fitted,
    NoKnob,
    bytes_per_unit,
    combines,
    fit_rate,
    sample,
    search,
)
from splitters import DEFAULT, Knob, available
from splitters.contract import LearnedSplitter
from splitters.registry import class_of
from tests import test_carried
from tests.helpers import UDHR, UPPER, aunet, error_of
from tests.test_entropy import saved

SEARCHED = [name for name in available() if class_of(name).knob is not None]
WANTED = {  # rates that a rule has at some value of its knob, on text of these languages
    "aunet_word": [("en", 10.4), ("tr", 18.0)],
    "script_aware": [("zh-Hans", 3.0), ("zh-Hans", 7.0)],
    "every": [("en", 11.0), ("th", 20.0)],
    "cap": [("th", 3.0), ("zh-Hans", 3.0)],
    "at_least": [("en", 16.0), ("th", 20.0)],
}
EVERYWHERE = [("th", 6.0), ("en", 3.0), ("zh-Hans", 4.0)]


@functools.cache
def texts_of(language):
    return [json.loads(line)["text"].encode() for line in (UDHR / f"{language}.jsonl").open(encoding="utf-8")]


def plain_rate(rule, texts):
    """The definition of DESIGN.md, byte by byte."""
    units = 0
    for text in texts:
        stepper = rule.stepper()
        units += sum(stepper.push(byte) for byte in text)
    return sum(map(len, texts)) / units


def test_these_splitters_have_knobs():
    assert {"aunet_word", "cap", "entropy", "every", "fixed", "router", "script_aware", "trie"} <= set(SEARCHED)
    assert class_of("whitespace").knob is None


@pytest.mark.parametrize("name", [name for name in SEARCHED if name not in ("entropy", "router")])
def test_every_rule_with_a_knob_gets_the_rate(name, tmp_path):
    """A new rule is tried at EVERYWHERE; one that cannot have these rates needs its own in WANTED."""
    for language, wanted in WANTED.get(name, EVERYWHERE):
        texts = texts_of(language)
        spec = {"name": name, "of": DEFAULT} if combines(name) else name
        fitted = fit_rate(spec, texts, wanted, tmp_path / "v.json")
        assert fitted.reached, (language, fitted)
        rule = splitters.resolve(fitted.spec)
        assert fitted.rate == pytest.approx(plain_rate(rule, texts))
        assert fitted.error == pytest.approx(fitted.rate / wanted - 1)
        assert math.isnan(fitted.elsewhere) == (name != "trie")
        splitters.check(fitted.spec, texts[:2])


def test_entropy_and_router_tell_without_a_search(tmp_path):
    texts = texts_of("en")[1:2]
    spec = {"name": "entropy", "checkpoint": saved(tmp_path / "model.ckpt")}
    for bounds in ({}, {"rise": 0}, {"threshold": 0, "rise": 0}):
        fitted = fit_rate(spec | bounds, texts, 4.0)
        assert fitted.spec.keys() == spec.keys() | (bounds.keys() or {"threshold"})
        assert fitted.rate == pytest.approx(plain_rate(splitters.resolve(fitted.spec), texts))
        assert abs(fitted.error) < 0.02
    fitted = fit_rate({"name": "router", "alpha": 0.1}, texts, 4.5)
    assert fitted == Fitted({"name": "router", "alpha": 0.1, "bytes_per_unit": 4.5}, 4.5, 0.0)
    assert splitters.resolve(fitted.spec).bytes_per_unit == 4.5


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.1, 50), min_size=1, max_size=300), st.floats(1, 60), st.booleans())
def test_the_search_finds_the_nearest_of_any_monotone_rates_in_few_steps(steps, wanted, grows):
    rates = np.cumsum([1.0, *steps])
    rates = rates if grows else rates[::-1]
    calls = []

    def rate_at(value):
        calls.append(value)
        return float(rates[value - 3])

    found = search(Knob("n", 3, 3 + len(steps), grows), rate_at, wanted)
    nearest = np.abs(np.log(rates / wanted)).min()
    assert found.rate == rates[found.value - 3]
    assert abs(math.log(found.rate / wanted)) <= max(nearest, NEAR) + 1e-12
    assert len(calls) == len(set(calls)) <= 2 * math.log2(len(rates)) + 4
    if abs(math.log(found.rate / wanted)) > NEAR:
        assert (found.value, found.rate) in found.nearest


def test_a_knob_of_real_numbers_and_one_without_boundaries():
    falling = search(Knob("share", 0, 1, grows=False, whole=False), lambda p: 1 / p if p else math.inf, 7.3)
    assert falling.rate == pytest.approx(7.3, rel=NEAR)
    assert falling.value == pytest.approx(1 / 7.3, rel=NEAR)
    never = fit_rate({"name": "fixed", "of": "characters"}, [b"ab"], 50)
    assert never.rate <= 2
    assert not never.reached


def test_the_first_entries_of_a_vocabulary_are_what_training_stops_at():
    texts = texts_of("th")
    most = train_bpe(texts, 3000)
    for size in (257, 700, 2000):
        short, trained = json.loads(first_entries(most, size)), json.loads(train_bpe(texts, size))
        assert short == trained
        assert len(short["model"]["vocab"]) == size


def test_a_rule_without_a_knob_says_its_rate_and_what_has_one():
    texts = texts_of("th")
    for wanted, combinator in ((2.0, "cap"), (40.0, "every")):
        with pytest.raises(NoKnob) as none:
            fit_rate("cjk_character", texts, wanted)
        rate = plain_rate(splitters.build("cjk_character"), texts)
        assert none.value.rate == pytest.approx(rate)
        assert f"cjk_character has no option that moves its rate, {rate:.2f} bytes per unit" in str(none.value)
        assert f"{{name: {combinator}, of: cjk_character}}" in str(none.value)
        assert fit_rate({"name": combinator, "of": "cjk_character"}, texts, wanted).rate == pytest.approx(
            wanted, rel=0.5
        )
    with pytest.raises(NoKnob, match="distilled has no option that moves its rate, which only training tells"):
        fit_rate("distilled", texts, 4)
    with pytest.raises(NoKnob, match=r"refresh, of: whitespace.* and no combinator has it"):
        fit_rate({"name": "refresh", "of": "whitespace"}, texts, 4)


def test_a_sample_is_spread_over_the_text():
    texts = [bytes([65 + i]) * 100 for i in range(20)]
    assert sample(texts, 2000) == texts
    assert [text[:1] for text in sample(texts, 500)] == [b"A", b"E", b"J", b"O", b"T"]
    assert sample(["é".encode() * 100], 51) == ["é".encode() * 25]
    assert sample([], 5) == []


class NoOption(splitters.Splitter):
    knob = Knob("n", 1, 2)

    def split(self, data):
        return np.zeros(len(data), bool)

    def stepper(self):
        return splitters.build("whitespace").stepper()


def test_a_knob_that_is_no_option_is_refused():
    with pytest.raises(
        ValueError, match=r"NoOption\.knob is Knob.*must be a splitters\.Knob that names one of its options"
    ):
        splitters.build("tests.test_rates:NoOption")


def test_the_command_prints_yaml_to_paste(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ("--language", "th,en", "--bytes_per_unit", 6)
    assert (
        aunet("rate", "--splitter", "trie", "--splitter", "whitespace", "--splitter", "script_aware", *arguments) == 0
    )
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line.startswith("splitter: ") for line in lines] == [True, False, True] * 2
    spec = yaml.safe_load(lines[0])["splitter"]
    assert spec == {"name": "trie", "vocabulary": "vocabulary-th-6.json"}
    assert bytes_per_unit(splitters.resolve(spec), texts_of("th")) == pytest.approx(6, rel=TOLERANCE)
    assert "# th: 6.0" in lines[0]
    assert "of 6; on text that it was not trained on about 5." in lines[0]
    assert lines[1].startswith("# th: whitespace has no option")
    assert (
        lines[2]
        == "splitter: {name: script_aware, n: 1}  # th: 5.03 bytes per unit, -16.1% of 6, more than 5% off: no value has more"
    )
    assert "aunet: warning: th: under 100 kB" in err


def test_the_command_reads_files_and_takes_every_rule(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert aunet("rate", "--out", "v-{language}.json", "--bytes_per_unit", 6, UDHR / "zh-Hans.jsonl") == 0
    lines = capsys.readouterr().out.splitlines()
    named = [yaml.safe_load(line)["splitter"] for line in lines]
    assert [spec["name"] for spec in named] == [name for name in SEARCHED if class_of(name).kind == "rule"]
    assert (tmp_path / "v-zh-Hans.json").exists()
    assert "more than 5% off: 2 has 5.27 and 3 has 7.07" in next(
        line for line in lines if "{name: script_aware" in line
    )
    assert not issubclass(class_of(named[0]["name"]), LearnedSplitter)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--bytes_per_unit", "6"], "there is no text: name files, or --language for the text that comes along"),
        (
            ["--bytes_per_unit", "6", "--language", "xx"],
            "--language xx: no text of it comes along: name files, or choose one of am, ar",
        ),
        (["--bytes_per_unit", "0.5", "--language", "en"], "--bytes_per_unit is 0.5, it must be 1 or more"),
        (
            ["--bytes_per_unit", "6", "--language", "th", str(UDHR / "en.jsonl")],
            "--language th is not in the files, they hold en",
        ),
        (["--bytes_per_unit", "6", "--language", "en", "--splitter", "fxed"], "unknown splitter 'fxed'"),
        (
            ["--bytes_per_unit", "6,5", "--language", "en", "--splitter", "trie", "--out", "x.json"],
            "--out is 'x.json', it must hold {rate}",
        ),
        (["--bytes_per_unit", "6", "gone.jsonl"], "'gone.jsonl' is not a file"),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(value)[:40],
)
def test_the_command_says_what_is_wrong(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert aunet("rate", *arguments) == 1
    assert words in error_of(capsys)
    assert list(tmp_path.iterdir()) == []


LEARNED = [[name] for name in available("learned")] + [["router", UPPER], ["utf8_character", "router"]]


@pytest.mark.parametrize("rules", LEARNED, ids=str)
def test_a_learned_splitter_is_given_a_rate_on_text(rules, tmp_path, capsys):
    """By its bias alone."""
    checkpoint, out, text = tmp_path / "last.ckpt", tmp_path / "set.safetensors", tmp_path / "en.txt"
    test_carried.saved(checkpoint, rules)
    data = b"\n".join(texts_of("en"))[:3000]
    text.write_bytes(data)
    below = next(s for s, rule in enumerate(rules) if rule in available("learned"))
    for wanted in (4.0, 11.0):
        options = ["--bytes_per_unit", wanted, "--check", UDHR / "th.jsonl", "--megabytes", 0.003, "--out", out]
        assert aunet("calibrate", checkpoint, text, *options) == 0
        of_text, of_check = (line.split() for line in capsys.readouterr().out.splitlines() if "(all)" in line)
        net, reader = load(out)
        units = (ModelUnits(net, reader).levels(data) > below).sum()
        assert len(data) / units == pytest.approx(wanted, rel=0.01)
        assert of_text[-1] == f"{len(data) / units:.2f}"
        assert float(of_check[-1]) > 1
        before, after = (read(path)["state_dict"] for path in (checkpoint, out))
        assert [name for name in before if not torch.equal(before[name], after[name])] == [
            f"net.predictors.{below}.bias"
        ]


@pytest.mark.parametrize(
    ("rules", "options", "error"),
    [
        (["whitespace"], [], "has no learned splitter, and rules cut where they cut: aunet rate"),
        (
            ["router"],
            ["--bytes_per_unit", 1000],
            "1000, 0 units of this text, in which the splitter decides at 9 places",
        ),
        (["router"], ["--bytes_per_unit", 1], "--bytes_per_unit is 1, it must be above 1"),
        (["router"], ["--out", "set"], "--out is .*set: its name must end in .safetensors"),
    ],
)
def test_a_rate_that_cannot_be_given_is_an_error(rules, options, error, tmp_path, capsys):
    test_carried.saved(tmp_path / "last.ckpt", rules)
    usual = ["--bytes_per_unit", 4, "--out", tmp_path / "set.safetensors"]
    assert aunet("calibrate", tmp_path / "last.ckpt", "some text", *usual, *options) == 1
    assert re.search(error, capsys.readouterr().err)
