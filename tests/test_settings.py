"""Settings that cannot be: one sentence that names what is wrong; and settings that can: they run."""

import math
import random
from dataclasses import asdict, fields
from typing import Optional, Union, get_args

import pytest
import yaml

from aunet_lightning.cli import sources
from aunet_lightning.cli.explain import mismatches
from aunet_lightning.cli.parser import int_first, short_error
from aunet_lightning.cli.settings import check
from aunet_lightning.distributed.sharding import ParallelConfig
from aunet_lightning.errors import UserError
from aunet_lightning.generation import check_sampling
from aunet_lightning.model.config import AUNetConfig, StageConfig
from aunet_lightning.numbers import Range, check_fields, show
from aunet_lightning.tracking.run_folder import RunConfig
from aunet_lightning.training.budget import BudgetConfig
from aunet_lightning.training.optimizer import OptimizerConfig
from aunet_lightning.training.report_config import ReportConfig
from tests import settings_grammar as grammar

STAGE = {"dim": 16, "layers": 1, "head_dim": 8}
CONFIGS = {
    StageConfig: STAGE, AUNetConfig: {"stages": [STAGE]}, OptimizerConfig: {}, BudgetConfig: {}, ParallelConfig: {},
    RunConfig: {}, ReportConfig: {},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("settings")
    grammar.write_text(folder)
    return folder


def told_wrongly(cases, folder):
    """What did not end as it should, with what it said."""
    found = []
    for case in cases:
        got = grammar.run(case, folder)
        if faults := grammar.faults(case, got):
            found.append(f"{case.what}: {faults}: {got.error[-300:]}")
    return "\n".join(found)


def test_bad_settings_are_told_in_a_sentence(folder):
    rng, everything = random.Random(3), grammar.every_bad(folder)
    assert told_wrongly([grammar.bad(rng, folder, everything) for _ in range(60)], folder) == ""


def test_files_that_are_no_settings(folder):
    assert told_wrongly(grammar.odd_files(folder), folder) == ""


@pytest.mark.slow
def test_more_bad_settings(folder):
    rng, everything = random.Random(4), grammar.every_bad(folder)
    assert told_wrongly([grammar.bad(rng, folder, everything) for _ in range(40)], folder) == ""


@pytest.mark.slow
def test_good_settings_run(folder):
    rng = random.Random(5)
    drawn = [grammar.good(rng, folder) for _ in range(6)]
    assert told_wrongly([grammar.case(settings, what, "", True) for settings, what in drawn], folder) == ""


def numbers_of(config):
    """Every field that holds a number."""
    return [field.name for field in fields(config) if any(kind in str(field.type) for kind in ("int", "float"))]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, 10**50, "x"], ids=str)
def test_no_number_is_taken_unchecked(config, value):
    """A field that somebody adds without bounds fails here."""
    right = CONFIGS[config]
    for name in numbers_of(config):
        if name == "sample_temperature" and value == 10**50:
            continue
        for wrong in (value, [value, value]):
            with pytest.raises((ValueError, TypeError), match=r"must be|has"):
                config(**right | {name: wrong})


def test_a_list_of_numbers_is_checked():
    with pytest.raises(ValueError, match=r"optimizer\.betas is 1, it must be below 1"):
        OptimizerConfig(betas=(0.9, 1.0))
    with pytest.raises(ValueError, match=r"optimizer\.stage_lr is nan, it must be a finite number, 0 or more"):
        OptimizerConfig(stage_lr=[1.0, math.nan])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"splitter": {"name": "own", "x": [1, math.nan]}}, "splitter.x[1] is nan, it must be a finite number"),
        ({"data": {"workers": 10**6}}, "data.workers is 1000000, it must be at most 1024"),
        ({"seed_everything": 2**32}, "seed_everything is 4294967296, it must be at most 4294967295"),
        ({"trainer": {"limit_train_batches": 0}}, "trainer.limit_train_batches is 0, it must be"),
        ({"trainer": {"limit_val_batches": 1.5}}, "a share from 0 to 1.0 (0: none)"),
        ({"trainer": {"max_steps": -2}}, "trainer.max_steps (-1: no such end) is -2, it must be 1 or more"),
        ({"trainer": {"max_time": "1:2"}}, "for example '00:12:00:00'"),
        ({"trainer": {"max_time": {"hour": 1}}}, "for example '00:12:00:00'"),
        ({"trainer": {"accelerator": "gpuu"}}, "trainer.accelerator is 'gpuu', which is unknown. Did you mean gpu?"),
        ({"trainer": {"max_steps": 3, "min_steps": 4}}, "trainer.min_steps is 4, which is more than"),
        ({"trainer": {"devices": [0, 0]}}, "trainer.devices is [0, 0], it must be a number of devices"),
        ({"trainer": {"check_val_every_n_epoch": None, "val_check_interval": 0.5}}, "give a whole number of steps"),
        ({"model": {"net": {"stages": [STAGE, STAGE | {"dim": 0}]}}}, "model.net.stages[1].dim is 0, it must be 1 or more"),
        ({"model": {"optimizer": {"lr": -1}}}, "model.optimizer.lr is -1, it must be above 0"),
        ({"run": {"folder": "n" * 300}}, "run.folder is"),
        ({"run": {"name": "a\0"}}, "text must not contain the byte 0"),
    ],
)  # fmt: skip
def test_what_is_checked_before_anything_is_built(settings, message):
    with pytest.raises(UserError) as error:
        check(settings)
    assert message in str(error.value)


def test_defaults_pass():
    check({"trainer": {"max_steps": -1, "max_epochs": -1, "limit_val_batches": 0, "devices": "auto", "max_time": None}})
    check(
        {
            "run": asdict(RunConfig()),
            "report": asdict(ReportConfig()),
            "model": {"optimizer": asdict(OptimizerConfig())},
        }
    )


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (int, "abc", "k is 'abc', it must be a whole number"),
        (int | None, 1.5, "k is 1.5, it must be a whole number or null"),
        (list[str], ["en", False], "k[1] is false, it must be text (YAML reads no, off and false as false: put quotes around the word)"),
        (str | dict[str, str], {"lang": False}, "k.lang is false, it must be text (YAML reads"),
        (str, 3, "k is 3, it must be text (put quotes around it)"),
        (bool | list[bool], [True, 3], "k[1] is 3, it must be true or false"),
        (tuple[float, float], [1.0], "k is [1.0], it must be a list of 2 values"),
        (list[StageConfig], [{"dim": 3, "layer": 1}], "k[0].layer is unknown. Did you mean layers?"),
        (list[StageConfig], [{"dim": 3}], "k[0] lacks layers"),
        (list[StageConfig], [{"dim": "x", "layers": 1}], "k[0].dim is 'x', it must be a whole number"),
    ],
)  # fmt: skip
def test_a_wrong_type_in_words(kind, value, message):
    assert str(next(mismatches(kind, value, "k"))).startswith(message)


@pytest.mark.parametrize(
    ("kind", "value"),
    [(float, "1e-3"), (float, 3), (int | None, None), (str | dict[str, int], {"a": 1}), (list[int], [])],
)
def test_a_right_type(kind, value):
    assert not [*mismatches(kind, value, "k")]


def test_a_whole_number_of_batches_stays_one():
    """typing.Optional[Union[float, int]] and the other way round are one object: that which was made first."""
    assert get_args(int_first(Optional[Union[float, int]]))[0] is int  # noqa: UP007, UP045
    assert get_args(int_first(Optional[Union[int, float]]))[0] is int  # noqa: UP007, UP045
    assert int_first(int | None) == int | None


def test_what_a_command_line_says(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("run: {name: a}")
    assert sources.read(["-c", str(file), "--run.name=b", "--trainer.callbacks+", "X"]) == [
        ("", {"run": {"name": "a"}}), ("run.name", "b"), ("trainer.callbacks", "X"),
    ]  # fmt: skip
    assert sources.read(["--print_config", "-c", str(file)])[1] == ("", {"run": {"name": "a"}})
    assert sources.read(["--trainer.max_epochs", "-1"]) == [("trainer.max_epochs", "-1")]
    assert sources.read(["-c", "{run: {name: a}}"]) == [("", {"run": {"name": "a"}})]
    file.write_text("run:\n  name: a\n  name: b\n")
    with pytest.raises(ValueError, match=r"line 3: the key name appears twice"):
        sources.read([f"--config={file}"])


def test_an_internal_message_becomes_a_plain_one():
    inside = (
        "Parser key \"trainer.logger\":\n  Does not validate against any of the Union subtypes\n  Subtypes: [<class 'bool'>, <class 'NoneType'>]"
        "\n  Errors:\n    - Expected a dot import path string: Nope\n    - Expected a <class 'bool'>\n  Given value type: <class 'str'>\n  Given value: Nope"
    )
    assert short_error(inside) == "trainer.logger: Nope is not a known class: write its path, package.module.Class"


@pytest.mark.parametrize("temperature", [math.nan, math.inf, -1, 1e-38, 1e308])
def test_a_temperature_that_would_give_no_numbers(temperature):
    with pytest.raises(ValueError, match=r"temperature is .*, it must be"):
        check_sampling(3, temperature)


def test_a_range_says_what_was_missed():
    assert str(Range(above=0, most=3)) == "above 0 and at most 3"
    assert Range(least=0, below=1).violated(1) == "below 1"
    assert 10**400 not in Range(most=5)
    assert show(10**30) == "1e30"


def test_null_only_where_it_may_be():
    check_fields(StageConfig(**STAGE), "stage", window=Range(least=1))
    with pytest.raises(ValueError, match=r"stage\.dim is null, it must be a number, 1 or more"):
        StageConfig(dim=None, layers=1)


def test_the_grammar_repeats(folder):
    def drawn(seed):
        rng = random.Random(seed)
        return yaml.safe_dump([grammar.good(rng, folder)[0] for _ in range(5)])

    assert drawn(1) == drawn(1) != drawn(2)
