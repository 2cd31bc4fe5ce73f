"""Checks of parsed settings before anything is built: numbers, and words that Lightning interprets."""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.strategies import StrategyRegistry

from aunet_lightning.distributed import strategy  # noqa: F401 (registers fsdp2)
from aunet_lightning.distributed.sharding import ParallelConfig
from aunet_lightning.errors import UserError
from aunet_lightning.model.config import AUNetConfig, StageConfig
from aunet_lightning.numbers import Range, listed, show
from aunet_lightning.numbers import check as check_number
from aunet_lightning.tracking.run_folder import RunConfig
from aunet_lightning.training.budget import BudgetConfig
from aunet_lightning.training.optimizer import OptimizerConfig
from aunet_lightning.training.report_config import ReportConfig
from splitters.registry import resolve

COUNT, SHARE = Range(least=1, most=10**15), Range(least=0, most=1)
INTEGERS = {  # Lightning checks few of its arguments, and those late
    "seed_everything": Range(least=0, most=2**32 - 1),
    "data.row_bytes": Range(least=1, most=2**27),
    "data.context_bytes": Range(least=0, most=2**27),
    "data.batch_rows": Range(least=1, most=2**24),
    "data.holdout_every": Range(least=2, most=10**15),
    "data.workers": Range(least=0, most=1024),
    "trainer.min_steps": Range(least=0, most=10**15),
    "trainer.min_epochs": Range(least=0, most=10**15),
    "trainer.num_nodes": Range(least=1, most=10**6),
    "trainer.log_every_n_steps": COUNT,
    "trainer.accumulate_grad_batches": COUNT,
    "trainer.check_val_every_n_epoch": COUNT,
    "trainer.reload_dataloaders_every_n_epochs": Range(least=0, most=10**15),
    "trainer.num_sanity_val_steps": Range(least=-1, most=10**15),
    "trainer.fast_dev_run": Range(least=0, most=10**15),
}
ENDLESS = ("trainer.max_steps", "trainer.max_epochs")  # -1: no such end
BATCHES = {  # a whole number of batches or a share of them: whether it may be 0
    "trainer.limit_train_batches": False,
    "trainer.limit_val_batches": True,
    "trainer.limit_test_batches": True,
    "trainer.limit_predict_batches": True,
    "trainer.overfit_batches": True,
    "trainer.val_check_interval": False,
}
WORDS: dict[str, Callable[[], list[str]]] = {  # called when needed: more can be registered at any time
    "trainer.gradient_clip_algorithm": lambda: ["norm", "value"],
    "trainer.profiler": lambda: ["simple", "advanced", "pytorch", "xla"],
    "trainer.accelerator": lambda: ["auto", "gpu", *AcceleratorRegistry.available_accelerators()],
    "trainer.strategy": lambda: ["auto", *StrategyRegistry.available_strategies()],
}
SECTIONS = {
    "model.net": AUNetConfig,
    "model.optimizer": OptimizerConfig,
    "model.budget": BudgetConfig,
    "model.parallel": ParallelConfig,
    "run": RunConfig,
    "report": ReportConfig,
}
DURATION = r"\d{1,6}:\d\d:\d\d:\d\d"
PARTS = ("weeks", "days", "hours", "minutes", "seconds")


def check(settings: Mapping[str, Any]) -> None:
    """Raises UserError for the first invalid setting, with its name and what would be valid.

    settings: nested, as in a YAML file.
    """
    try:
        for key, value in _leaves(settings):
            _check_leaf(key, value)
        _check_trainer(settings.get("trainer") or {})
        _check_sections(settings)
        _check_splitters(settings)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from None


def _check_sections(settings: Mapping[str, Any]) -> None:
    """Makes the config object of each section for its checks; errors name the setting in full."""
    for key, kind in SECTIONS.items():
        section: Any = settings
        for part in key.split("."):
            section = (section or {}).get(part)
        if section is None:
            continue
        for number, stage in enumerate(section.get("stages", [])):
            _make(f"{key}.stages[{number}]", "stage", StageConfig, stage)
        _make(key, key.rpartition(".")[2], kind, section)


def _check_splitters(settings: Mapping[str, Any]) -> None:
    upper = [(f"upper_splitters[{i}]", rule) for i, rule in enumerate(settings.get("upper_splitters") or [])]
    for key, rule in [("splitter", settings.get("splitter")), *upper]:
        try:
            if rule is not None:
                resolve(rule)
        except ValueError as error:
            raise UserError(f"{key}: {error}") from None


def _make(key: str, name: str, kind: type, section: Mapping[str, Any]) -> None:
    try:
        kind(**section)
    except ValueError as error:
        text = str(error)
        full = f"{key}{text.removeprefix(name)}" if text.startswith(f"{name}.") else f"{key}: {text}"
        raise UserError(text if text.startswith(f"{key}.") else full) from None


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every value that is neither a mapping nor a list, with its key."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            yield from _leaves(one, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for number, one in enumerate(value):
            yield from _leaves(one, f"{key}[{number}]")
    else:
        yield key, value


def _check_leaf(key: str, value: Any) -> None:
    if isinstance(value, float):
        check_number(key, value, Range())
    if isinstance(value, str) and "\0" in value:
        raise UserError(f"{key} is {show(value)}, and text must not contain the byte 0")
    if isinstance(value, str) and key in WORDS and value not in (words := WORDS[key]()):
        near = difflib.get_close_matches(value, words, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"There are {listed(words)}"
        raise UserError(f"{key} is {show(value)}, which is unknown. {hint}")
    if key in INTEGERS and not isinstance(value, bool):
        check_number(key, value, INTEGERS[key], whole=True)
    if key in ENDLESS and value != -1:
        check_number(f"{key} (-1: no such end)", value, COUNT, whole=True)
    if key in BATCHES and isinstance(value, int | float):
        _check_batches(key, value, BATCHES[key])


def _check_batches(key: str, value: float, or_none: bool) -> None:
    is_share = isinstance(value, float) and not (value > 1 and value.is_integer())  # Lightning reads 2.0 as 2
    within = SHARE if is_share else Range(least=0, most=10**15)
    if value not in within or (not value and not or_none):
        none = " (0: none)" if or_none else ""
        raise UserError(f"{key} is {show(value)}, it must be a whole number of batches or a share from 0 to 1.0{none}")


def _check_trainer(trainer: Mapping[str, Any]) -> None:
    """Checks settings of several types, and settings that depend on others."""
    check_number("trainer.gradient_clip_val", trainer.get("gradient_clip_val"), Range(least=0, most=1e9))
    for key in ("max_time", "val_check_interval"):
        if isinstance(value := trainer.get(key), str | Mapping):
            _check_duration(f"trainer.{key}", value)
    most, least = trainer.get("max_steps"), trainer.get("min_steps")
    if isinstance(most, int) and isinstance(least, int) and 0 < most < least:
        raise UserError(f"trainer.min_steps is {least}, which is more than trainer.max_steps, {most}")
    interval = trainer.get("val_check_interval")
    if trainer.get("check_val_every_n_epoch", 1) is None and isinstance(interval, float):
        raise UserError(
            f"trainer.val_check_interval is {show(interval)} with trainer.check_val_every_n_epoch null: give a whole "
            "number of steps"
        )
    accelerator = trainer.get("accelerator")
    if isinstance(accelerator, str) and not _is_there(accelerator):
        raise UserError(f"trainer.accelerator is {accelerator}, and this machine has none: use cpu or auto")
    _check_devices(trainer.get("devices"), accelerator == "cpu")


def _is_there(accelerator: str) -> bool:
    if accelerator in ("auto", "cpu"):
        return True
    kinds = ("cuda", "mps") if accelerator == "gpu" else (accelerator,)
    return any(AcceleratorRegistry[kind]["accelerator"].is_available() for kind in kinds)


def _check_duration(key: str, value: str | Mapping[str, Any]) -> None:
    if isinstance(value, str):
        right = re.fullmatch(DURATION, value) is not None and value.strip("0:") != ""
    else:
        right = bool(value) and value.keys() <= {*PARTS}
        right = right and all(isinstance(one, int) and one in Range(least=0, most=10**6) for one in value.values())
        right = right and any(value.values())
    if not right:
        raise UserError(f"{key} is {show(value)}, it must be 'DAYS:HOURS:MINUTES:SECONDS', for example '00:12:00:00'")


def _check_devices(devices: Any, on_cpu: bool) -> None:
    wanted = "a number of devices, 1 or more" + ("" if on_cpu else ", -1 for all, or a list of their numbers")
    right = True
    if isinstance(devices, int):
        right = devices >= 1 or (devices == -1 and not on_cpu)
    elif isinstance(devices, list):
        right = not on_cpu and devices != [] and len({*devices}) == len(devices) and min(devices) >= 0
    elif isinstance(devices, str) and devices != "auto":
        right = re.fullmatch(r"-1|\d+(,\d+)*", devices.replace(" ", "")) is not None
        right = right and not (on_cpu and not devices.strip().isdigit()) and devices.strip("0 ") != ""
    if not right:
        raise UserError(f"trainer.devices is {show(devices)}, it must be {wanted}, or auto")
