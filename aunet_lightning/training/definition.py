"""The definition of a run: the settings its numbers depend on. Its digest names the run's folder.

Each option declares its effect (`aunet_lightning.effects`); the trainer's are Lightning's, and listed here. Only what
differs from a default counts, so a new option with a default moves no existing run.
"""

import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

from aunet_lightning.data.datamodule import ByteDataModule
from aunet_lightning.effects import Effect, Option, Options, Setting, flat, settings_of
from aunet_lightning.errors import UserError
from aunet_lightning.paths import user_path
from aunet_lightning.tracking.names import SEED, run_name
from aunet_lightning.tracking.run_folder import RunConfig, RunFolder
from aunet_lightning.training import older
from aunet_lightning.training.module import AUNetModule
from aunet_lightning.training.report_config import ReportConfig
from splitters import DEFAULT

TRAINER_DEFAULTS = {
    "max_epochs": -1,  # max_steps says how long
    "gradient_clip_val": 1.0,
    "log_every_n_steps": 10,
    "use_distributed_sampler": False,  # ByteDataModule deals rows to ranks itself
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,  # RunReport describes the network
}
TRAINER_EFFECTS = {  # the trainer's other options change no training number
    "precision": Effect.DEFINES,
    "gradient_clip_val": Effect.DEFINES,
    "gradient_clip_algorithm": Effect.DEFINES,
    "accumulate_grad_batches": Effect.DEFINES,
    "overfit_batches": Effect.DEFINES,
    "limit_train_batches": Effect.DEFINES,
    "max_steps": Effect.LENGTH,
    "max_epochs": Effect.LENGTH,
    "devices": Effect.ORDER,
    "num_nodes": Effect.ORDER,
    "strategy": Effect.ORDER,
    "accelerator": Effect.ORDER,
    "val_check_interval": Effect.VALIDATION,
    "limit_val_batches": Effect.VALIDATION,
    "check_val_every_n_epoch": Effect.VALIDATION,
}
NUMBERS = (Effect.LENGTH, Effect.ROUNDING)  # change the numbers of a run that continues under them


def options() -> Options:
    """Returns all options of a run, as its config.yaml nests them."""
    return {
        "seed_everything": Option(SEED),
        "splitter": Option(DEFAULT),
        "upper_splitters": Option([]),
        "tokenizer": Option(None),
        "trainer": Option(kind=_trainer_options(), effect=Effect.NONE),
        "model": Option(kind=AUNetModule),
        "data": Option(kind=ByteDataModule),
        "run": Option(kind=RunConfig, effect=Effect.NONE),
        "report": Option(kind=ReportConfig, effect=Effect.NONE),
    }


def _trainer_options() -> Options:
    parameters = inspect.signature(Trainer).parameters
    return {
        name: Option(TRAINER_DEFAULTS.get(name, parameter.default), effect=TRAINER_EFFECTS.get(name, Effect.NONE))
        for name, parameter in parameters.items()
    }


def settings_by_key(config: Mapping[str, Any]) -> dict[str, Setting]:
    """Returns every option of a run with its key: {'model.net.upsampling': …}; `config`: plain data, nested."""
    known = options()
    return dict(settings_of(known, {key: value for key, value in config.items() if key in known}))


def definition(config: Mapping[str, Any], *more: Effect) -> dict[str, Any]:
    """Returns what defines a run, flat and without defaults: {'model.net.upsampling': 'repeat', …}.

    more: further effects whose settings count.
    """
    found = settings_by_key(config)
    return {
        inner: value
        for key, setting in found.items()
        if setting.effect in (Effect.DEFINES, *more) and not setting.is_default
        for inner, value in flat(setting.value, key)
    }


def digest(config: Mapping[str, Any]) -> str:
    """Returns six hex digits of what defines a run, its length included: the learning rate depends on it."""
    return hashlib.sha256(as_json(definition(config, Effect.LENGTH)).encode()).hexdigest()[:6]


def as_json(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True, default=str)


def folder_of(config: Mapping[str, Any]) -> RunFolder:
    """Returns the folder of a run; nothing is made yet. Where only an earlier version's digest names one that exists,
    the run is in that."""
    run = config["run"]
    if run.get("folder") is not None:
        return RunFolder(user_path(run["folder"], "run.folder"))
    experiment, name = run.get("experiment") or RunConfig.experiment, run.get("name") or run_name(config)
    for key, part in (("experiment", experiment), ("name", name)):
        if Path(part).is_absolute() or {"..", "."} & {*Path(part).parts, part}:
            raise UserError(
                f"run.{key} is {part!r}, which leaves the folder runs: name run.folder, or a name without .."
            )
    home = Path("runs") / experiment
    folder = RunFolder(home / f"{name}-{digest(config)}")
    if folder.config.exists() or (before := older.digest(config, definition(config, Effect.LENGTH))) is None:
        return folder
    earlier = RunFolder(home / f"{name}-{before}")
    return earlier if earlier.config.exists() else folder


def differences(kept: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Returns the defining settings in which `config` differs from the `kept` one."""
    return _by_effect(kept, config).get(Effect.DEFINES, [])


def changes(kept: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Returns what else differs between a run's settings and those it continues with, grouped by effect."""
    found = _by_effect(kept, config)
    return [
        f"{'; '.join(found[effect])}: {effect.value}"
        for effect in Effect
        if effect in found and effect != Effect.DEFINES
    ]


def kept_settings(folder: RunFolder) -> dict[str, Any]:
    """Returns the configuration that a folder keeps, with settings that an earlier version did not record."""
    return older.completed(folder.settings())


def changes_numbers(folder: RunFolder, config: Mapping[str, Any]) -> bool:
    """Returns whether a folder's run has other numbers from here on under these settings than under those it keeps."""
    return folder.config.exists() and not _by_effect(kept_settings(folder), config).keys().isdisjoint(NUMBERS)


def check_same_run(folder: RunFolder, config: Mapping[str, Any]) -> None:
    """Raises UserError where a folder holds a run of another definition; warns of other changes."""
    if not folder.config.exists():
        return
    kept = kept_settings(folder)
    if different := differences(kept, config):
        raise UserError(
            f"run.folder: {folder.path} holds another run; it differs in {'; '.join(different)}. "
            "Choose another run.folder, or leave it out to have one made"
        )
    for change in changes(kept, config):
        rank_zero_warn(f"{folder.path} continues with changed settings: {change}")


def _by_effect(kept: Mapping[str, Any], config: Mapping[str, Any]) -> dict[Effect, list[str]]:
    """Returns the settings that differ, each as `key (there …, here …)`; absent ones have their defaults."""
    there, here = settings_by_key(kept), settings_by_key(config)
    found: dict[Effect, list[str]] = {}
    for key in sorted(there.keys() | here.keys()):
        effect = (here.get(key) or there[key]).effect
        before, now = (dict(flat(one[key].value, key)) if key in one else {} for one in (there, here))
        for inner in sorted(before.keys() | now.keys()):
            if before.get(inner) != now.get(inner):
                found.setdefault(effect, []).append(f"{inner} (there {before.get(inner)!r}, here {now.get(inner)!r})")
    return found
