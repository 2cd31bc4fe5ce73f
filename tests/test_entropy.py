"""The splitter `entropy`: a small model's uncertainty, at once, byte by byte, and kept beside the documents."""

import copy
import json
import os
import pickle
import re
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import regex
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from aunet_lightning import AUNet, AUNetConfig, StageConfig
from aunet_lightning.cli.main import main
from aunet_lightning.entropy import Entropy, byte_model
from aunet_lightning.entropy.byte_model import CHUNK, load
from aunet_lightning.entropy.threshold import Bounds, find, find_by_script, fires
from aunet_lightning.vocabulary import BOS, EOS
from splitters import Stack, build, check
from splitters.contract import push_all
from splitters.edge_texts import INVALID, SCRIPTS
from splitters.engine.script_runs import ScriptRuns
from tests.helpers import BYTES, ROOT, UDHR

LONG = ("ABC 中文 " * 200).encode()  # longer than several chunks
TEXTS = [
    b"",
    b"a",
    *[SCRIPTS[name].encode() for name in ("Latin", "Thai", "Chinese", "Arabic", "emoji")],
    *INVALID.values(),
]
MIDDLE = 7.3  # of the tiny model's entropies


def saved(path, seed=0, stages=None):
    """A checkpoint as training writes it, of a model with random weights."""
    stages = stages or [StageConfig(dim=16, layers=2, head_dim=8, window=8)]
    config = AUNetConfig(stages=stages)
    torch.manual_seed(seed)
    net = AUNet(config)
    net.head.weight.data *= 2.5  # so that entropies differ
    checkpoint = {
        "hyper_parameters": {"net": asdict(config)},
        "state_dict": {"net." + name: tensor for name, tensor in net.state_dict().items()},
        "splitters": ["fixed"] * config.depth,
        "boundaries": Stack(["fixed"] * config.depth).fingerprint(),
    }
    torch.save(checkpoint, path)
    return str(path)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("model") / "last.ckpt")


@pytest.fixture(scope="module")
def rule(checkpoint):
    return Entropy(checkpoint, threshold=middle(checkpoint))


def middle(checkpoint):
    """A threshold that half of a text's bytes pass."""
    return float(np.median(Entropy(checkpoint, threshold=0).bits(LONG))) + 1e-4


def plain(checkpoint, data):
    """H after BOS and after each byte, by one forward over the whole text."""
    net = load(checkpoint).net
    logits = net(torch.tensor([[BOS, *data]])).logits[0]
    p = torch.cat([logits[:, :BOS], logits[:, EOS:]], 1).softmax(-1)
    return (-(p * p.log2()).sum(-1)).detach().numpy()


@pytest.mark.parametrize(
    "bounds",
    [
        {"threshold": MIDDLE}, {"rise": 0.0}, {"threshold": MIDDLE, "rise": 0.1},
        {"threshold": {"Han": 7.2, "Thai": 7.4, "default": MIDDLE}, "rise": 0.0, "bytes_per_unit": 3, "follow": 0.2},
    ],
    ids=lambda b: "-".join(b),
)  # fmt: skip
def test_laws_hold(checkpoint, bounds):
    check(build("entropy", checkpoint=checkpoint, **bounds), TEXTS if len(bounds) == 2 else [*TEXTS[:3], b"a" * 200])


@pytest.mark.parametrize("data", [b"", b"x", LONG, SCRIPTS["Thai"].encode(), *INVALID.values()], ids=len)
def test_split_equals_the_plain_version(checkpoint, data):
    bits = plain(checkpoint, data)
    level, rise = bits[1:], np.diff(bits)
    np.testing.assert_allclose(Entropy(checkpoint, 1.0).bits(data), bits, atol=1e-6)
    a = float(np.median(bits)) + 1e-4
    np.testing.assert_array_equal(Entropy(checkpoint, threshold=a).split(data), level > a)
    np.testing.assert_array_equal(Entropy(checkpoint, rise=0.05).split(data), rise > 0.05)
    both = Entropy(checkpoint, threshold=a, rise=0.05).split(data)
    np.testing.assert_array_equal(both, (level > a) & (rise > 0.05))


def test_the_thresholds_are_met_by_some_bytes_and_not_by_others(checkpoint, rule):
    assert 0.3 < rule.split(LONG).mean() < 0.7
    both = Entropy(checkpoint, rule.threshold, 0.1)
    assert 0 < both.split(LONG).sum() < rule.split(LONG).sum()


SCRIPT_TEXT = "中文 abc 12 ก็ดี, ok 人\u0301 й 한"


def test_a_byte_is_in_the_script_of_the_last_character_that_has_one():
    runs = ScriptRuns(("Han", "Thai"))
    group, expected = 2, []
    for character in SCRIPT_TEXT:
        expected += [group] * (len(character.encode()) - 1)  # a character is known at its last byte
        found = [i for i, name in enumerate(runs.names) if regex.match(rf"\p{{Script={name}}}", character)]
        shared = regex.match(r"\p{Script=Common}|\p{Script=Inherited}", character)
        group = found[0] if found else group if shared else 2
        expected.append(group)
    assert runs.groups(SCRIPT_TEXT.encode()).tolist() == expected
    assert {0, 1, 2} == set(expected)
    assert ScriptRuns(()).groups(b"ab").tolist() == [0, 0]
    for name in ("Hann", "Han}|\\p{Script=Thai", ""):
        with pytest.raises(ValueError, match="is not a script of Unicode"):
            ScriptRuns((name,))


@given(data=BYTES, cut=st.integers(0, 60))
def test_scripts_are_decided_from_what_was_read(data, cut):
    runs = ScriptRuns(("Han", "Latin"))
    groups, state, stepped = runs.groups(data), runs.start(), []
    for byte in data:
        state = runs.push(state, byte)
        stepped.append(state[1])
    assert stepped == groups.tolist()
    assert groups[:cut].tolist() == runs.groups(data[:cut]).tolist()


def following(bits, groups, threshold, rise, rates, follow):
    """`Bounds.fires` in plain words."""
    fired, own = [], {g: [] for g in range(len(rates))}
    for before, now, g in zip(bits, bits[1:], groups, strict=False):
        shift = follow * (sum(own[g]) - len(own[g]) / rates[g])
        fired.append(now > threshold[g] + shift and now - before > rise[g] + shift)
        own[g].append(fired[-1])
    return fired


LEVELS = st.lists(st.floats(0, 8, width=32), min_size=1, max_size=80)


@given(levels=LEVELS, seed=st.integers(0, 99), rate=st.floats(1, 9), follow=st.floats(0.01, 8), rise=st.booleans())
def test_bounds_that_follow_hold_the_rate_on_any_text(levels, seed, rate, follow, rise):
    g = np.random.default_rng(seed)
    bits, groups = np.array([3.0, *levels], np.float32), g.integers(0, 2, len(levels))
    bounds = Bounds(
        g.uniform(0, 8, 2), g.uniform(-1, 1, 2) if rise else np.full(2, -np.inf), np.array([rate, 2.5]), follow
    )
    fired = bounds.fires(bits, groups)
    exact = bits.astype(float)
    assert fired.tolist() == following(exact, groups, bounds.threshold, bounds.rise, bounds.rates, follow)
    for group in (0, 1) if not rise else ():
        so_far = np.cumsum(np.where(groups == group, fired - 1 / bounds.rates[group], 0))
        assert np.abs(so_far).max() <= 8.02 / follow + 1


def test_bounds_that_follow_get_the_rate_where_fixed_ones_do_not(checkpoint):
    text = SCRIPTS["Thai"].encode() * 40
    fixed = {"checkpoint": checkpoint, "threshold": float(np.quantile(Entropy(checkpoint, 0).bits(text), 0.9))}
    assert len(text) / Entropy(**fixed).split(text).sum() > 8
    for rate in (3.0, {"Thai": 3.0, "default": 99}):
        rule = Entropy(**fixed, bytes_per_unit=rate, follow=0.2)
        assert len(text) / rule.split(text).sum() == pytest.approx(3, rel=0.05)
        np.testing.assert_array_equal(rule.split(text[:300]), rule.split(text)[:300])  # each text begins anew


def test_a_bound_per_script_is_that_of_its_bytes(checkpoint):
    data = ("ABC" * 9 + "中文" * 9 + " ไทย" * 9).encode()
    bits, groups = plain(checkpoint, data), ScriptRuns(("Thai", "Han")).groups(data)
    of = {"Thai": 7.2, "Han": 7.4, "default": MIDDLE}
    bound = np.array([*of.values()])[groups]
    np.testing.assert_array_equal(Entropy(checkpoint, threshold=of).split(data), bits[1:] > bound)
    np.testing.assert_array_equal(
        Entropy(checkpoint, threshold=MIDDLE, rise={"Thai": 0.1, "Han": -9, "default": 0}).split(data),
        (bits[1:] > MIDDLE) & (np.diff(bits) > np.array([0.1, -9, 0])[groups]),
    )


@settings(max_examples=20)
@given(data=st.binary(max_size=CHUNK + 20), rise=st.sampled_from([None, 0.0, 0.1]))
def test_stepping_equals_splitting_on_any_bytes(checkpoint, rule, data, rise):
    for more in ({}, {"bytes_per_unit": {"Latin": 2.5, "default": 4}, "follow": 0.3}):
        one = Entropy(checkpoint, rule.threshold, rise, **more)
        np.testing.assert_array_equal(push_all(one.stepper(), data), one.split(data))


def test_a_bound_is_compared_in_full_precision_and_must_be_passed():
    bits = np.array([1, 2, np.nextafter(np.float32(2), np.float32(3))], np.float32)
    assert fires(bits, 2.0, None).tolist() == [False, True]
    assert fires(bits, 2 + 1e-8, None).tolist() == [False, True]  # as float32 it would be 2
    assert fires(bits, None, 1.0).tolist() == [False, False]
    assert fires(bits, 1.5, 0.0).tolist() == [True, True]


def test_copies_of_a_stepper_share_the_model_and_part_ways(rule):
    stepper = rule.stepper()
    push_all(stepper, LONG[:40])
    branch = copy.deepcopy(stepper)
    push_all(stepper, b"another text")
    np.testing.assert_array_equal(push_all(branch, LONG[40:90]), rule.split(LONG)[40:90])
    assert branch.rule is stepper.rule
    assert len(pickle.dumps(rule)) < 1000


def test_two_rules_of_one_file_share_its_model_and_a_pickled_one_finds_it(checkpoint, rule, monkeypatch):
    assert Entropy(checkpoint, rise=1).model is rule.model
    there, here = pickle.loads(pickle.dumps(rule)), rule.model
    assert there.model is here
    monkeypatch.setattr(byte_model, "loaded", {})
    byte_model._load.cache_clear()  # as in another process
    assert there.model is not here
    np.testing.assert_array_equal(there.split(LONG), rule.split(LONG))


def test_it_runs_inside_combinators_and_above_a_stage(rule):
    union = build("union", of=[rule, "whitespace"])
    np.testing.assert_array_equal(union.split(LONG), rule.split(LONG) | build("whitespace").split(LONG))
    for stack in (Stack(["whitespace", rule]), Stack([rule, "every"])):
        check(stack, TEXTS[:4])
    capped = {"name": "cap", "of": {"name": "entropy", "checkpoint": rule.checkpoint, "threshold": 99}, "max_bytes": 5}
    assert build(**capped).split(b"a" * 20).sum() == 4


def test_another_model_is_another_fingerprint(tmp_path, checkpoint):
    one = Stack([{"name": "entropy", "checkpoint": checkpoint, "threshold": 2}]).fingerprint()
    for number, stages in enumerate((None, [StageConfig(dim=16, layers=2, head_dim=8, window=9)])):
        path = saved(tmp_path / f"{number}.ckpt", seed=1 - number, stages=stages)
        assert Stack([{"name": "entropy", "checkpoint": path, "threshold": 2}]).fingerprint() != one
    again = saved(tmp_path / "again.ckpt")
    assert Stack([{"name": "entropy", "checkpoint": again, "threshold": 2}]).fingerprint() == one


def documents():
    return [np.frombuffer(text, np.uint8) for text in [*TEXTS, LONG, LONG[:700], b"a" * 1000, LONG]]


def break_the_net(monkeypatch):
    def broken(*_):
        raise RuntimeError("the net was run")

    monkeypatch.setattr(AUNet, "forward", broken)


def test_kept_entropies_equal_computed_ones_and_are_used(tmp_path, checkpoint, rule, monkeypatch, capsys):
    texts = documents()
    kept = [Entropy(checkpoint, rule.threshold), Entropy(checkpoint, rise=0.1)]
    expected = [[one.split(text.tobytes()) for text in texts] for one in kept]
    kept[0].prepare(tmp_path, texts)
    assert f"{len(texts)} documents" in capsys.readouterr().err
    assert len(list(tmp_path.glob("*.seal"))) == 2
    break_the_net(monkeypatch)
    kept[1].prepare(tmp_path, texts)  # another threshold, the same files
    assert capsys.readouterr().err == ""
    for one, boundaries in zip(kept, expected, strict=True):
        for text, wanted in zip(texts, boundaries, strict=True):
            np.testing.assert_array_equal(one.split(text.tobytes()), wanted)
            np.testing.assert_array_equal(pickle.loads(pickle.dumps(one)).split(text.tobytes()), wanted)
        with pytest.raises(RuntimeError, match="the net was run"):
            one.split(b"a text that is not kept")
    capped = build("cap", of=Entropy(checkpoint, rise=0.1))
    capped.prepare(tmp_path, texts)
    capped.split(LONG)


def test_several_folders_serve_one_rule(tmp_path, checkpoint, monkeypatch):
    one, texts = Entropy(checkpoint, rise=0.1), documents()
    expected = [one.split(text.tobytes()) for text in texts]
    for name, some in (("a", texts[:5]), ("b", texts[5:]), ("none", [])):
        (tmp_path / name).mkdir()
        one.prepare(tmp_path / name, some)
    break_the_net(monkeypatch)
    for text, wanted in zip(texts, expected, strict=True):
        np.testing.assert_array_equal(one.split(text.tobytes()), wanted)


@pytest.mark.parametrize("file", ["*.f32", "*.npy"])
def test_files_cut_off_are_made_anew(tmp_path, rule, file):
    one = Entropy(rule.checkpoint, rule.threshold)
    one.prepare(tmp_path, documents())
    (path,) = tmp_path.glob(file)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    again = Entropy(rule.checkpoint, rule.threshold)
    np.testing.assert_array_equal(copy.copy(again).split(LONG), rule.split(LONG))
    again.prepare(tmp_path, documents())
    assert path.read_bytes() == whole


def test_a_failing_preparation_leaves_nothing_behind(tmp_path, checkpoint, monkeypatch):
    one = Entropy(checkpoint, rise=0.1)
    with pytest.raises(ValueError, match=r"cannot write to .*missing.*data.cache_dir"):
        one.prepare(tmp_path / "missing", documents())
    break_the_net(monkeypatch)
    with pytest.raises(RuntimeError):
        one.prepare(tmp_path, documents())
    assert list(tmp_path.iterdir()) == []


class Boundaries(torch.utils.data.Dataset):
    def __init__(self, rule, texts):
        self.rule, self.texts = rule, texts

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, number):
        return torch.from_numpy(self.rule.split(self.texts[number]))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_split_too(rule, start):
    texts = [LONG, LONG[:1000]]
    torch.set_num_threads(2)
    _ = torch.ones(600, 600) @ torch.ones(600, 600)  # the threads of this process have run, and a fork has none
    expected = [rule.split(text) for text in texts]
    loader = DataLoader(
        Boundaries(rule, texts), batch_size=None, num_workers=1, multiprocessing_context=start, timeout=60
    )
    for got, wanted in zip(loader, expected, strict=True):
        np.testing.assert_array_equal(got.numpy(), wanted)


def test_what_no_model_can_be_made_from_is_named(tmp_path, checkpoint):
    with pytest.raises(ValueError, match=r"checkpoint is None.*aunet fit"):
        build("entropy", threshold=1)
    with pytest.raises(ValueError, match=r"neither threshold nor rise.*aunet entropy .*last.ckpt .*--bytes_per_unit"):
        build("entropy", checkpoint=checkpoint)
    for wrong in ("2", True, float("nan")):
        with pytest.raises(ValueError, match=r"rise is .* must be a number of bits"):
            build("entropy", checkpoint=checkpoint, threshold=1, rise=wrong)
    for options, words in (
        ({"threshold": {"Han": 1}}, "threshold is .* it must have a default"),
        ({"threshold": {"Hann": 1, "default": 2}}, "'Hann' is not a script of Unicode: choose"),
        ({"threshold": {"Han": "a", "default": 2}}, "threshold of 'Han' is 'a', it must be a number of bits"),
        ({"threshold": 1, "bytes_per_unit": 0.5}, "bytes_per_unit is 0.5, it must be a number of bytes, 1 or more"),
        ({"threshold": 1, "bytes_per_unit": 4, "follow": 0}, "follow is 0, it must be a number above 0"),
    ):
        with pytest.raises(ValueError, match=words):
            build("entropy", checkpoint=checkpoint, **options)
    with pytest.raises(ValueError, match=r"no file '.*absent.ckpt'.*aunet fit"):
        build("entropy", checkpoint=str(tmp_path / "absent.ckpt"), threshold=1)
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    torch.save({"some": "thing"}, tmp_path / "other.ckpt")
    for name in ("text.ckpt", "other.ckpt", "."):
        with pytest.raises(ValueError, match=r"cannot be read as a checkpoint.*aunet fit") as error:
            build("entropy", checkpoint=str(tmp_path / name), threshold=1)
        assert str(tmp_path) in str(error.value)
    two = [StageConfig(dim=16, layers=1, head_dim=8, window=8), StageConfig(dim=16, layers=1, head_dim=8)]
    with pytest.raises(ValueError, match=r"two.ckpt has 2 stages.*one entry"):
        build("entropy", checkpoint=saved(tmp_path / "two.ckpt", stages=two), threshold=1)
    with pytest.raises(ValueError, match=r"endless.ckpt has no window.*window: 64"):
        build("entropy", checkpoint=saved(tmp_path / "endless.ckpt", stages=[two[1]]), threshold=1)


def test_a_file_that_changes_under_a_rule_is_noticed(tmp_path, monkeypatch):
    path = saved(tmp_path / "last.ckpt")
    there = pickle.dumps(Entropy(path, 2))
    saved(path, seed=1)
    os.utime(path, (0, 0))
    monkeypatch.setattr(byte_model, "loaded", {})  # as in another process
    with pytest.raises(ValueError, match="has changed since"):
        pickle.loads(there).split(b"a")


def test_listing_the_splitters_loads_neither_torch_nor_lightning():
    code = (
        "import sys, splitters; assert 'entropy' in splitters.available('model'); "
        "print([m for m in ('torch', 'lightning', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_the_model_loads_without_lightning(checkpoint):
    code = (
        f"import sys, splitters; splitters.build('entropy', checkpoint={checkpoint!r}, rise=1).split(b'ab'); "
        "print([m for m in ('lightning', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("by", ["global", "rise", "both"])
@pytest.mark.parametrize("rate", [3.0, 6.5])
def test_the_command_reaches_the_rate(checkpoint, tmp_path, capsys, by, rate):
    file = tmp_path / "some.jsonl"
    lines = [line for language in ("en", "th") for line in (UDHR / f"{language}.jsonl").read_text().splitlines()[:12]]
    texts = [json.loads(line)["text"].encode() for line in lines]
    file.write_text("\n".join(lines))
    assert main(["entropy", checkpoint, str(file), "--bytes_per_unit", str(rate), "--by", by]) == 0
    out = capsys.readouterr().out
    rule = Stack([yaml.safe_load(out.splitlines()[-1])["splitter"]]).rules[0]
    assert {"global": (True, False), "rise": (False, True), "both": (True, True)}[by] == (
        rule.threshold is not None,
        rule.rise is not None,
    )
    n_bytes, n_boundaries = sum(map(len, texts)), sum(int(rule.split(text).sum()) for text in texts)
    assert abs(n_bytes / n_boundaries - rate) < 0.01 * rate
    table = {line.split()[0]: line.split()[1:] for line in out.splitlines()[:4]}
    assert table["(all)"] == [str(n_bytes), str(n_boundaries), f"{n_bytes / n_boundaries:.2f}"]
    assert {"en", "th"} <= table.keys()


def test_a_bound_lies_in_the_middle_of_a_gap():
    bits = [np.array([0, 1, 3, 2, 7], np.float32), np.array([0, 5, 6], np.float32)]
    assert find(bits, 2, "global") == {"threshold": 4.0}  # 7 6 5 | 3 2 1
    assert find(bits, 3, "rise") == {"rise": 3.5}  # 5 5 | 2 1 1 -1
    with pytest.raises(ValueError, match=r"6 cannot be reached: 1 of 6 bytes should .* gives 2"):
        find(bits, 6, "rise")  # 5 and 5 are equal
    assert find(bits, 1, "global") == {"threshold": 0.5}


def test_bounds_of_each_script_are_found_on_its_bytes():
    bits = [np.array([0, 1, 3, 2, 7], np.float32), np.array([0, 5, 6], np.float32)] * 20
    groups = [np.array([0, 0, 1, 1]), np.array([1, 0])] * 20
    found = find_by_script(bits, groups, {"Han": 3.0, "default": 3.0}, "global")
    assert found == {"threshold": {"Han": 4.5, "default": 6.0}}  # 6 | 3 1 and 7 | 5 2
    with pytest.raises(ValueError, match="names Thai, and the text has none"):
        find_by_script(bits, groups, {"Han": 3.0, "x": 3.0, "Thai": 1, "default": 2.0}, "global")
    # Hardly any text in another script: the first characters of a text begin in none.
    few = find_by_script(bits[:4], groups[:4], {"Han": 3.0, "default": 2.0}, "global")
    assert few["threshold"]["default"] == 4.0
    everywhere = find_by_script(bits, [g * 0 for g in groups], {"Han": 2.0, "default": 2.0}, "global")
    assert everywhere["threshold"]["default"] == everywhere["threshold"]["Han"] == 4.0


@pytest.mark.parametrize("follow", [False, True])
def test_the_command_tells_the_rate_on_other_text(checkpoint, tmp_path, capsys, follow):
    lines = (UDHR / "th.jsonl").read_text().splitlines()
    (tmp_path / "here.jsonl").write_text("\n".join(lines[:4]))
    other = [{"text": "ABC ABD " * 60, "lang": "en"}, {"text": "ไทย " * 30, "lang": "th"}]
    (tmp_path / "other.jsonl").write_text("\n".join(json.dumps(line) for line in other))
    arguments = ["--bytes_per_unit", "{Thai: 3, default: 4}", "--check", str(tmp_path / "other.jsonl")]
    assert (
        main(["entropy", checkpoint, str(tmp_path / "here.jsonl"), *arguments, *["--follow", "2"][: 2 * follow]]) == 0
    )
    shown = capsys.readouterr()
    rule = Stack([yaml.safe_load(shown.out.splitlines()[-1])["splitter"]]).rules[0]
    assert rule.bytes_per_unit == ({"Thai": 3.0, "default": 4.0} if follow else None)
    fired = [(rule.split(one["text"].encode()), rule.scripts.groups(one["text"].encode())) for one in other]
    off = {}
    for group, (script, asked) in enumerate({"Thai": 3, "default": 4}.items()):
        n, k = (
            sum(int(x) for x in column)
            for column in zip(*((sum(g == group), sum(f[g == group])) for f, g in fired), strict=True)
        )
        off[script] = n / k / asked - 1
        assert re.search(rf"^{script} +{n} +{asked} +{n / k:.2f} +{off[script]:+.0%}$", shown.out, re.M)
        assert (f"warning: {script} of" in shown.err) == (abs(off[script]) > 0.1)
    assert any(abs(one) > 0.1 for one in off.values()) is not follow
    assert ("--follow holds it" in shown.err) is not follow


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["abc", "--bytes_per_unit", "{Hann: 4, default: 6}"], "'Hann' is not a script of Unicode"),
        (["abc", "--bytes_per_unit", "{Han: 4}"], "it must have a default"),
        (["abc", "--bytes_per_unit", "{Han: 0, default: 6}"], "--bytes_per_unit of Han is 0, it must be 1 or more"),
        (["abc", "--bytes_per_unit", "{Han: 4, default: 6}"], "names Han, and the text has none"),
        (["abc", "--bytes_per_unit", "2", "--follow", "0"], "--follow is 0, it must be above 0"),
        (["abc", "--bytes_per_unit", "2", "--check", "./absent.jsonl"], "'./absent.jsonl' is not a file"),
        (["abc", "--bytes_per_unit", "0.5"], "--bytes_per_unit is 0.5, it must be 1 or more"),
        (["abc", "--bytes_per_unit", "nan"], "--bytes_per_unit is nan, it must be a finite number, 1 or more"),
        (["abc", "--bytes_per_unit", "2", "--megabytes", "0"], "--megabytes is 0, it must be above 0"),
        (["", "--bytes_per_unit", "2"], "there is no text"),
        (["./absent.jsonl", "--bytes_per_unit", "2"], "'./absent.jsonl' is not a file"),
        (["abc", "--bytes_per_unit", "400"], "--bytes_per_unit 400 cannot be reached"),
        (["b" * 900, "--bytes_per_unit", "2"], "--bytes_per_unit 2 cannot be reached"),
    ],
)
def test_the_command_says_what_is_wrong(checkpoint, capsys, arguments, message):
    assert main(["entropy", checkpoint, *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
