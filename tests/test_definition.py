"""What defines a run, and the folder it is in: under today's digest, or under an earlier version's."""

import json
from dataclasses import dataclass, field, make_dataclass

import pytest
import yaml

from aunet_lightning.data.datamodule import ByteDataModule
from aunet_lightning.effects import Effect, Option, effects, options_of
from aunet_lightning.errors import UserError
from aunet_lightning.model.config import AUNetConfig, StageConfig
from aunet_lightning.tracking.names import run_name
from aunet_lightning.tracking.run_folder import RunFolder
from aunet_lightning.training import definition as module
from aunet_lightning.training import older
from aunet_lightning.training.definition import (
    changes,
    check_same_run,
    definition,
    differences,
    digest,
    folder_of,
    options,
    settings_by_key,
)
from aunet_lightning.training.module import AUNetModule
from aunet_lightning.training.optimizer import OptimizerConfig

STAGE = {"dim": 8, "layers": 1}
SETTINGS = {
    "splitter": "fixed",
    "data": {"row_bytes": 5, "workers": 1},
    "model": {"net": {"stages": [STAGE]}},
    "trainer": {"max_steps": 5, "precision": "32-true", "devices": 1},
    "run": {"experiment": "e"},
}
# What `aunet fit` at commit ba12ae9 made of some options of tests/helpers.TINY, and the digest in its folder's name.
THEN = {
    "seed_everything": 1,
    "splitter": "whitespace",
    "data": {"train_files": ["en.jsonl"], "holdout_every": 4, "row_bytes": 64, "batch_rows": 2, "workers": 0},
    "model": {
        "net": {"stages": [{"dim": 16, "layers": 1, "head_dim": 8, "window": 16}, {"dim": 16, "layers": 1, "head_dim": 8}]},
        "optimizer": {"lr": 0.003, "warmup_steps": 2},
    },
    "trainer": {"max_steps": 6, "val_check_interval": 3},
    "run": {"experiment": "t"},
}  # fmt: skip
DIGEST_THEN = "7e67b4"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def changed(settings, **sections):
    """The settings with some sections changed, inside of mappings."""
    inside = {key: {**settings[key], **value} if isinstance(value, dict) else value for key, value in sections.items()}
    return {**settings, **inside}


def test_what_defines_a_run():
    assert definition(SETTINGS) == {
        "splitter": "fixed", "data.row_bytes": 5, "model.net.stages[0].dim": 8, "model.net.stages[0].layers": 1,
        "trainer.precision": "32-true",
    }  # fmt: skip
    assert definition({"model": {"net": {"stages": []}}}) == {}
    assert definition(SETTINGS | {"splitter": {"name": "fixed", "n": 4}})["splitter.n"] == 4


def test_what_defines_a_run_names_its_folder():
    first = folder_of(SETTINGS).path
    assert first.parent.as_posix() == "runs/e"
    assert folder_of(changed(SETTINGS, trainer={"devices": 2}, data={"workers": 7})).path == first
    for change in (
        {"splitter": "whitespace"},
        {"data": {"row_bytes": 6}},
        {"trainer": {"precision": "bf16-true"}},
        {"trainer": {"max_steps": 9}},
    ):
        assert folder_of(changed(SETTINGS, **change)).path != first


@pytest.mark.parametrize(("key", "part"), [("name", "a/../b"), ("experiment", "/a"), ("name", "..")])
def test_names_stay_in_the_folder_of_runs(key, part):
    with pytest.raises(UserError, match=f"run.{key} is '{part}', which leaves the folder runs"):
        folder_of(changed(SETTINGS, run={key: part}))


def test_defaults_are_not_part_of_a_definition():
    everything = yaml.safe_load(yaml.safe_dump(older.SETTINGS))
    everything["model"]["net"]["stages"] = [older.STAGE | STAGE]
    least = {"model": {"net": {"stages": [STAGE]}}, "run": {}}
    assert digest(everything) == digest(least)
    assert run_name(everything) == run_name(least) == "script_aware-1stages-8-seed1"
    assert folder_of(least).path.as_posix() == f"runs/aunet/script_aware-1stages-8-seed1-{digest(least)}"
    assert digest(least | {"seed_everything": True}) != digest(least)  # true is not 1


def longer(kind, name, default):
    """A class of settings with one more option."""
    return make_dataclass(kind.__name__, [(name, type(default), field(default=default))], bases=(kind,))


@pytest.mark.parametrize("where", ["stage", "net", "optimizer", "data", "trainer"])
def test_a_new_option_with_a_default_moves_no_run(where, monkeypatch):
    names, before = (run_name(SETTINGS), folder_of(SETTINGS).path), definition(SETTINGS)
    path, given = {
        "stage": ("model.net.stages[0].new", changed(SETTINGS, model={"net": {"stages": [STAGE | {"new": 3}]}})),
        "net": ("model.net.new", changed(SETTINGS, model={"net": {"stages": [STAGE], "new": 3}})),
        "optimizer": ("model.optimizer.new", changed(SETTINGS, model={"optimizer": {"new": 3}})),
        "data": ("data.new", changed(SETTINGS, data={"new": 3})),
        "trainer": ("trainer.new", changed(SETTINGS, trainer={"new": 3})),
    }[where]
    if where == "stage":
        monkeypatch.setitem(AUNetConfig.__annotations__, "stages", list[longer(StageConfig, "new", 2)])
    elif where in ("net", "optimizer"):
        kind = {"net": AUNetConfig, "optimizer": OptimizerConfig}[where]
        monkeypatch.setitem(AUNetModule.__init__.__annotations__, where, longer(kind, "new", 2))
    elif where == "data":
        more = type("More", (ByteDataModule,), {"__init__": lambda self, row_bytes=1024, workers=2, new=2: None})
        monkeypatch.setattr(module, "ByteDataModule", more)
    else:
        more = {**options()["trainer"].kind, "new": Option(2)}
        monkeypatch.setattr(module, "_trainer_options", lambda: more)
    assert (run_name(SETTINGS), folder_of(SETTINGS).path) == names
    assert definition(SETTINGS) == before
    assert definition(given) == before | {path: 3}
    assert folder_of(given).path != names[1]


def test_every_class_says_what_its_options_do():
    @effects(Effect.NONE, x=Effect.ORDER)
    @dataclass
    class Inner:
        x: int = 1
        y: list[int] = field(default_factory=list)

    assert {name: one.effect for name, one in options_of(Inner).items()} == {"x": Effect.ORDER, "y": Effect.NONE}
    assert {one.effect for one in options_of(longer(Inner, "z", 1)).values()} == {Effect.ORDER, Effect.NONE}
    assert {one.effect for one in options_of(StageConfig).values()} == {Effect.DEFINES}
    assert module.TRAINER_EFFECTS.keys() <= options()["trainer"].kind.keys()


@pytest.mark.parametrize(
    ("key", "effect"),
    [
        ("model.parallel.param_dtype", Effect.ROUNDING),
        ("model.parallel.wrap", Effect.ORDER),
        ("model.compile", Effect.ORDER),
        ("trainer.val_check_interval", Effect.VALIDATION),
        ("trainer.max_epochs", Effect.LENGTH),
        ("data.workers", Effect.NONE),
        ("run.keep_best", Effect.NONE),
        ("trainer.log_every_n_steps", Effect.NONE),
        ("model.budget.flops", Effect.DEFINES),
    ],
)
def test_what_a_change_means(key, effect):
    changed = {}
    *above, last = key.split(".")
    inside = changed
    for name in above:
        inside = inside.setdefault(name, {})
    inside[last] = "other"
    default = settings_by_key({})[key].default
    expected = [f"{key} (there {default!r}, here 'other'): {effect.value}"] if effect != Effect.DEFINES else []
    assert changes({}, changed) == expected
    assert bool(differences({}, changed)) == (effect == Effect.DEFINES)


def test_a_named_folder_continues_longer_but_not_as_another_run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    settings = {"splitter": "fixed", "trainer": {"max_steps": 5}, "model": {"net": {"document_masking": True}}}
    folder.make()
    check_same_run(folder, settings)
    folder.keep(json.dumps(settings))
    with pytest.warns(UserWarning, match=r"trainer\.max_steps \(there 5, here 9\)"):
        check_same_run(folder, settings | {"trainer": {"max_steps": 9}})
    with pytest.raises(UserError, match=r"splitter \(there 'fixed', here 'whitespace'\)"):
        check_same_run(folder, settings | {"splitter": "whitespace"})
    rules = [{"name": "every", "n": 2}]
    with pytest.raises(UserError, match=r"upper_splitters\[0\]\.n \(there None, here 2\)"):
        check_same_run(folder, settings | {"upper_splitters": rules})


def test_an_absent_setting_has_its_default(tmp_path):
    """Whether the kept configuration lacks it, as an earlier version's does, or this one's."""
    folder = RunFolder(tmp_path / "run")
    folder.make()
    folder.keep(json.dumps(changed(SETTINGS, model={"net": {"stages": [STAGE], "document_masking": True}})))
    net = {"stages": [STAGE | {"window": None}], "max_offset": 16}
    full = SETTINGS | {"model": {"net": net, "optimizer": {"betas": [0.9, 0.95]}}, "report": {"pictures_every": 200}}
    check_same_run(folder, full)
    assert changes(folder.settings(), full) == []
    gone = {"of_an_older_lightning": True}
    assert changes(changed(full, trainer=gone), full) == [
        f"trainer.of_an_older_lightning (there True, here None): {Effect.NONE.value}"
    ]
    with pytest.raises(UserError, match=r"stages\[0\]\.window \(there None, here 3\)"):
        check_same_run(folder, changed(full, model={"net": {"stages": [STAGE | {"window": 3}]}}))


def test_a_run_that_did_not_record_masking_had_none(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.make()
    folder.keep(json.dumps(SETTINGS))
    check_same_run(folder, changed(SETTINGS, model={"net": {"stages": [STAGE], "document_masking": False}}))
    with pytest.raises(UserError, match=r"document_masking \(there False, here True\)"):
        check_same_run(folder, SETTINGS)


def test_the_folder_of_an_earlier_version_is_found():
    name = "whitespace-2stages-16-16-seed1"
    assert older.digest(THEN, definition(THEN, Effect.LENGTH)) == DIGEST_THEN
    assert folder_of(THEN).path.name == f"{name}-{digest(THEN)}"
    before = RunFolder(folder_of(THEN).path.with_name(f"{name}-{DIGEST_THEN}"))
    before.make()
    assert folder_of(THEN).path != before.path  # it holds no run
    before.keep(json.dumps(THEN))
    assert folder_of(THEN).path == before.path
    assert folder_of(changed(THEN, trainer={"max_steps": 9})).path != before.path
    now = RunFolder(before.path.with_name(f"{name}-{digest(THEN)}"))
    now.make()
    now.keep(json.dumps(THEN))
    assert folder_of(THEN).path == now.path


def test_settings_unknown_then_are_of_no_earlier_run(monkeypatch):
    monkeypatch.setitem(AUNetModule.__init__.__annotations__, "optimizer", longer(OptimizerConfig, "new", 2))
    given = changed(THEN, model={**THEN["model"], "optimizer": {"lr": 0.003, "warmup_steps": 2, "new": 2}})
    assert older.digest(given, definition(given, Effect.LENGTH)) == DIGEST_THEN
    given["model"]["optimizer"]["new"] = 3
    assert older.digest(given, definition(given, Effect.LENGTH)) is None
