"""`aunet plan`: what it chooses, what it says, and that `aunet fit` takes what it writes."""

import json
from dataclasses import asdict

import pytest
import yaml

from aunet_lightning import AUNetConfig
from aunet_lightning.cli.main import main
from aunet_lightning.cli.plan import plan as command
from aunet_lightning.costs import Cost
from aunet_lightning.planning import Machine, data_bytes, head_dim, plan, rounded, shape
from splitters import Stack
from tests.helpers import ROOT, UDHR

EVERY = {"name": "every", "n": 2}
RULES = ["aunet_word", EVERY, EVERY]
RATES = [5.0, 9.5, 18.0]


@pytest.mark.parametrize(
    ("stages", "trunk", "widths"),
    [(2, 25, [512, 2048]), (3, 18, [512, 2048, 3072]), (4, 10, [512, 2048, 3072, 4608])],
)
def test_proportions_are_the_published_ones(stages, trunk, widths):
    made = shape(stages, 2048, trunk)
    assert [stage.dim for stage in made.stages] == widths
    assert [stage.layers for stage in made.stages] == [*[3] * (stages - 1), trunk]
    assert [stage.head_dim for stage in made.stages] == [64, *[128] * (stages - 1)]
    assert [stage.window for stage in made.stages] == [512, *[4096] * (stages - 1)]


def test_a_plan_for_the_published_size_is_the_published_network():
    made = plan(["aunet_word"], [5.09], Machine(8), parameters=1.324e9)
    assert [(stage.dim, stage.layers) for stage in made.net.stages] == [(512, 3), (2048, 25)]
    assert made.row_bytes == 8192
    assert made.bytes == pytest.approx(4.56**2 * 10 * made.published_per_byte, rel=0.01)
    assert made.extrapolated


@pytest.mark.parametrize(("stages", "flops"), [(1, 5e20), (2, 1e16), (3, 5e20), (4, 1e16)])
def test_a_budget_is_spent(stages, flops):
    rules, rates = RULES[: stages - 1], RATES[: stages - 1]
    made = plan(rules, rates, Machine(4), flops=flops)
    cost = Cost.of(made.net, rules)
    assert made.flops == pytest.approx(flops, rel=0.01)
    assert made.bytes * cost.per_byte(made.row_bytes, rates) == pytest.approx(made.flops)
    assert made.bytes == pytest.approx(data_bytes(made.published_per_byte, 10), rel=0.25)
    assert made.batch_bytes == pytest.approx(0.66 * (made.published_per_byte * made.bytes) ** 0.321, rel=0.3)
    assert made.rule_lr == pytest.approx(6.6 * (made.published_per_byte * made.bytes) ** -0.176, rel=0.01)
    assert made.extrapolated == (not 25e6 <= made.parameters <= 500e6)
    assert made.fits


def test_more_data_for_the_model_makes_it_smaller():
    few, many = (plan(RULES[:1], RATES[:1], Machine(), flops=1e18, ratio=ratio) for ratio in (5, 40))
    assert few.parameters > many.parameters
    assert few.bytes < many.bytes


def test_what_does_not_fit_is_read_in_parts_or_warned_of():
    alone = plan(["aunet_word"], [5.0], Machine(1), parameters=7.9e9)
    assert not alone.fits
    assert alone.strategy == "auto"
    shared = plan(["aunet_word"], [5.0], Machine(16), parameters=7.9e9)
    assert shared.fits
    assert shared.strategy == "fsdp2"
    assert shared.accumulate > 1
    assert shared.at_once > 80e9 > shared.memory.total
    small = plan(["aunet_word"], [5.0], Machine(16), parameters=1e8)
    assert small.strategy == "ddp"
    assert small.settings()["data"]["batch_rows"] == small.rows * 16


def test_widths_hold_heads():
    for width in [*range(16, 700, 7), *range(700, 9000, 100)]:
        dim = rounded(width)
        assert dim == pytest.approx(width, rel=0.5)
        assert dim % head_dim(dim, 128) == 0


def test_settings_say_all_of_the_network():
    made = plan(RULES, RATES, Machine(), flops=1e17)
    settings = made.settings()
    assert asdict(AUNetConfig(**settings["model"]["net"])) == asdict(made.net)
    assert settings["model"]["optimizer"]["warmup_steps"] == round(made.steps / 10)


def said(capsys, *arguments):
    assert command(list(arguments)) == 0
    return capsys.readouterr().out


def test_rates_are_those_of_the_mix(tmp_path, capsys):
    texts = {"en": "one two three four. " * 40, "zh": "人人有权享有生命" * 20}
    file = tmp_path / "mix.jsonl"
    file.write_text("\n".join(json.dumps({"text": text, "lang": language}) for language, text in texts.items()))
    levels = {language: Stack(["script_aware", EVERY]).levels(text.encode()) for language, text in texts.items()}
    positions = sum(len(of_text) + 2 for of_text in levels.values())
    rates = [positions / sum(1 + (of_text > s).sum() for of_text in levels.values()) for s in range(2)]
    out = said(capsys, "--flops", "1e16", "--data", str(file))
    assert out.splitlines()[1].split() == ["(all)", f"{positions / 1e6:.2f}", *(f"{rate:.2f}" for rate in rates)]
    assert f"units of {rates[0]:.2f} bytes" in out
    assert "times over" in out


def test_what_it_says(capsys):
    out = said(capsys, "--flops", "1e19", "--stages", "2", "--bytes_per_unit", "5", "--devices", "4")
    assert out.startswith("Budget    1e+19 FLOPs: 1.76 hours on 4 × 9.89e+14 FLOP/s at 40%\nNetwork   AU-Net 2, ")
    assert "extrapolated" not in out
    assert "extrapolated" in said(capsys, "--parameters", "1e6", "--stages", "2", "--bytes_per_unit", "5")
    hours = said(capsys, "--gpu_hours", "7.0216", "--stages", "2", "--bytes_per_unit", "5", "--devices", "4")
    assert hours.splitlines()[1:4] == out.splitlines()[1:4]


def test_without_text_it_says_that_text_is_missing(tmp_path, capsys):
    out = tmp_path / "new" / "plan.yaml"
    said(capsys, "--flops", "1e16", "--splitter", "{name: router, bytes_per_unit: 6}", "--stages", "2",
         "--bytes_per_unit", "6", "--out", str(out))  # fmt: skip
    assert "It names no text" in out.read_text()
    assert yaml.safe_load(out.read_text())["splitter"] == {"name": "router", "bytes_per_unit": 6}
    assert "train_files" not in yaml.safe_load(out.read_text())["data"]


def test_fit_takes_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("AUNET_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "plan.yaml"
    text = [str(UDHR / name) for name in ("en.jsonl", "th.jsonl")]
    said(capsys, "--flops", "2e12", "--ratio", "0.5", "--row_bytes", "256", "--precision", "32-true",
         "--data", *text, "--out", str(out))  # fmt: skip
    options = ["--trainer.fast_dev_run", "true", "--trainer.accelerator", "cpu", "--data.workers", "0"]
    assert main(["fit", "-c", str(out), *options]) == 0


@pytest.mark.parametrize("path", sorted((ROOT / "experiments" / "models").glob("*.yaml")), ids=lambda path: path.stem)
def test_fit_takes_published_models(path, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["fit", "-c", str(ROOT / "experiments" / "quickstart.yaml"), "-c", str(path), "--print_config"])
    assert exit_.value.code == 0
    taken, given = yaml.safe_load(capsys.readouterr().out), yaml.safe_load(path.read_text())
    assert taken["upper_splitters"] == given["upper_splitters"]
    unused = {name: taken["model"]["net"].pop(name) for name in ("ngram_rows", "ngram_dropout")}  # with embedding byte
    assert unused
    assert AUNetConfig(**taken["model"]["net"]) == AUNetConfig(**given["model"]["net"])
    assert taken["model"]["optimizer"]["name"] == "adamw"
    assert given["model"]["optimizer"]["warmup_steps"] == given["trainer"]["max_steps"] / 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no budget is given: give one of --flops, --gpu_hours and --parameters"),
        (["--flops", "1e18", "--gpu_hours", "3"], "--flops and --gpu_hours are both budgets: give one"),
        (["--flops", "-1"], "--flops is -1, it must be above 0"),
        (["--flops", "nan"], "--flops is nan, it must be a finite number, above 0"),
        (["--gpu_hours", "1", "--utilisation", "40"], "--utilisation is 40: it is a share of the peak, give 1 or less"),
        (["--flops", "1e18", "--devices", "0"], "--devices is 0, it must be 1 or more"),
        (["--flops", "1e18"], "--data is missing: name text, .* or give --bytes_per_unit, as in 5 10"),
        (
            ["--flops", "1e18", "--stages", "5", "--bytes_per_unit", "4", "8", "16", "32"],
            "--stages is 5: .* give fewer",
        ),
        (["--flops", "1e18", "--stages", "1", "--splitter", "fixed"], "--stages is 1: .* leave out --splitter"),
        (
            ["--flops", "1e18", "--stages", "2", "--upper_splitters", "every"],
            "--upper_splitters names 1 rules: 2 stages take 0",
        ),
        (["--flops", "1e18", "--bytes_per_unit", "4"], "--bytes_per_unit is 4: give 2 numbers"),
        (["--flops", "1e18", "--bytes_per_unit", "4", "3"], "--bytes_per_unit is 4 3: give 2 numbers"),
        (["--flops", "1e18", "--splitter", "router"], "--bytes_per_unit is missing: router is learned"),
        (["--flops", "1e18", "--splitter", "nonsense", "--bytes_per_unit", "4", "8"], "nonsense"),
        (["--flops", "1e18", "--data", "nowhere.jsonl"], "--data: no file matches 'nowhere.jsonl'"),
        (["--flops", "1e6", "--bytes_per_unit", "4", "8"], "--flops is 1e.06: too small, .* Give more, or"),
        (["--gpu_hours", "1e-12", "--bytes_per_unit", "4", "8"], "--gpu_hours is .*: too small"),
        (["--parameters", "1e15", "--bytes_per_unit", "4", "8"], "--parameters is 1e.15: too large, .* Give less, or"),
    ],
)
def test_mistakes_are_told(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        command(arguments)
    assert "\n" not in str(error.value)


def test_no_text_in_files(tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"words": "x"}\n')
    with pytest.raises(ValueError, match=r'--data: there is no text in .* "text"'):
        command(["--flops", "1e18", "--data", str(empty)])
