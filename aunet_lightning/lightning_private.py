"""Every private or undocumented name of Lightning, jsonargparse and torch's DataLoader that the package relies on.

Each function says what it relies on, and raises RuntimeError with one sentence where the installed version lacks it;
`type_of` and `link_sources`, whose names some options rightly lack, leave that to the test. IN_PLACE lists names that
cannot be used through a function, those of torch.distributed and MLflow among them. tests/test_lightning_private.py
checks all of them.
"""

from argparse import Action, ArgumentParser
from collections.abc import Mapping, MutableMapping, Sequence
from copy import copy
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # whoever only loads data needs no Lightning
    from lightning.pytorch import LightningModule, Trainer
    from torch.utils.data import DataLoader

IN_PLACE = {  # module or class: names that a subclass of ours overrides, calls or sets, or that one file imports
    "lightning.pytorch.cli:LightningCLI": ("_parse_ckpt_path", "_parser", "_add_subcommands"),
    "lightning.pytorch.strategies:ModelParallelStrategy": (
        "_get_process_group_backend", "_determine_device_ids", "_data_parallel_size", "_tensor_parallel_size",
        "_process_group_backend", "_save_distributed_checkpoint", "_timeout",
    ),
    "torch.distributed.distributed_c10d": ("_get_default_store",),
    "mlflow.store.db.utils": ("_initialize_tables",),
    "mlflow.tracking._tracking_service.utils": ("_tracking_store_registry",),
}  # fmt: skip


def need(owner: Any, name: str, package: str = "lightning") -> Any:
    """Returns a private attribute. Raises RuntimeError, which names it and the package, where it does not exist."""
    try:
        return owner[name] if isinstance(owner, Mapping) else getattr(owner, name)
    except (AttributeError, KeyError):
        kind = getattr(owner, "__name__", type(owner).__name__)
        raise RuntimeError(_lacks(f"{kind}.{name}", package)) from None


def _lacks(what: str, package: str) -> str:
    try:
        installed = f"{package} {version(package)}"
    except PackageNotFoundError:
        installed = package
    return f"{installed} has no {what}, on which aunet_lightning.lightning_private relies: install an earlier {package}"


# A step, and the validation after it


def validation_is_due(trainer: "Trainer") -> bool:
    """Returns whether a validation follows this step by its number, rather than because the run stops.

    Relies on `_should_check_val_fx` of the training loop, which reads `trainer.should_stop`, and on the fit loop's
    `_data_fetcher`.
    """
    loop = need(trainer.fit_loop, "epoch_loop")
    stops, trainer.should_stop = trainer.should_stop, False
    try:
        return bool(need(loop, "_should_check_val_fx")(need(trainer.fit_loop, "_data_fetcher")))
    finally:
        trainer.should_stop = stops


def log_step_metrics(trainer: "Trainer") -> None:
    """Sends a step's metrics to the loggers at once. Lightning itself does so after `on_train_batch_end`.

    Relies on `_logger_connector.update_train_step_metrics`.
    """
    need(need(trainer, "_logger_connector"), "update_train_step_metrics")()


def logs_are_due(trainer: "Trainer") -> bool:
    """Returns whether the metrics of the step that ends now are sent to the loggers.

    Relies on `_logger_connector.should_update_logs`.
    """
    return bool(need(need(trainer, "_logger_connector"), "should_update_logs"))


# What a checkpoint says about the place of a run


def set_logged_steps(checkpoint: Mapping[str, Any], steps: int) -> None:
    """Sets the number of steps at which a resumed run's loggers continue.

    Relies on `_batches_that_stepped` in the state of the training loop.
    """
    state = _loop_state(checkpoint, "epoch_loop.state_dict")
    need(state, "_batches_that_stepped")
    state["_batches_that_stepped"] = steps


def set_validation_begun(checkpoint: Mapping[str, Any]) -> None:
    """Records that a validation has started and seen no batch: a resumed run then runs it first.

    Relies on `epoch_loop.val_loop.batch_progress` in the state of the fit loop, and on its fields.
    """
    begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    progress = _loop_state(checkpoint, "epoch_loop.val_loop.batch_progress")
    for name in ("total", "current"):
        if need(progress, name).keys() != begun.keys():
            raise RuntimeError(_lacks(f"batch_progress.{name} of {', '.join(begun)}", "lightning"))
    progress.update(total=dict(begun), current=dict(begun), is_last_batch=False)


def _loop_state(checkpoint: Mapping[str, Any], name: str) -> MutableMapping[str, Any]:
    found: MutableMapping[str, Any] = need(need(need(checkpoint, "loops"), "fit_loop"), name)
    return found


# A module and its devices


def device_mesh(module: "LightningModule") -> Any:
    """Returns the mesh of devices that ModelParallelStrategy gives a module, or None under another strategy.

    Relies on `LightningModule._device_mesh`.
    """
    return need(module, "_device_mesh")


def has_trainer(module: "LightningModule") -> bool:
    """Returns whether a module is attached to a trainer (`module.trainer` raises where it is not).

    Relies on `LightningModule._trainer`.
    """
    return need(module, "_trainer") is not None


def inner_optimizer(optimizer: Any) -> Any:
    """Returns torch's optimizer inside one that Lightning has wrapped, else the optimizer itself.

    Relies on `LightningOptimizer._optimizer`.
    """
    from lightning.pytorch.core.optimizer import LightningOptimizer

    return need(optimizer, "_optimizer") if isinstance(optimizer, LightningOptimizer) else optimizer


# Parsers


def parser_actions(parser: ArgumentParser) -> Sequence[Action]:
    """Returns the options of a parser. Relies on `ArgumentParser._actions`."""
    found: Sequence[Action] = need(parser, "_actions", "jsonargparse")
    return found


def subcommands(parser: ArgumentParser) -> Mapping[str, ArgumentParser]:
    """Returns the parsers of a parser's subcommands. Relies on jsonargparse's `_subcommands_action`."""
    action = need(parser, "_subcommands_action", "jsonargparse")
    return action.choices if action else {}


def type_of(action: Action) -> Any:
    """Returns the type of an option, or None where it has none. Relies on jsonargparse's `_typehint`."""
    return getattr(action, "_typehint", None)


def set_type(action: Action, kind: Any) -> None:
    """Sets the type of an option that has one. Relies on jsonargparse's `_typehint`."""
    need(action, "_typehint", "jsonargparse")
    action._typehint = kind  # type: ignore[attr-defined]


def link_sources(action: Action) -> list[str]:
    """Returns the options from which a linked option follows, [] for others. Relies on jsonargparse's `source`."""
    return [name for name, _ in getattr(action, "source", None) or []]


def help_of(parser: ArgumentParser, usage: str, sections: Mapping[str, Sequence[Action]]) -> str:
    """Returns a parser's help for some of its options, by title, which takes its other help away.

    Relies on `ArgumentParser._action_groups`, and on `_group_actions` of a group.
    """
    groups = need(parser, "_action_groups", "jsonargparse")
    need(groups[0], "_group_actions", "jsonargparse")
    made = []
    for title, actions in sections.items():
        group = copy(groups[0])
        group.title, group.description, group._group_actions = title, None, [*actions]
        made.append(group)
    parser.usage, parser.description = usage, None
    parser._action_groups = made
    return parser.format_help()


# Data loaders


def end_workers(loader: "DataLoader[Any]") -> None:
    """Ends a loader's worker processes, if they have begun.

    Relies on `DataLoader._iterator` and its `_shutdown_workers`.
    """
    iterator = need(loader, "_iterator", "torch")
    if iterator is not None:
        need(iterator, "_shutdown_workers", "torch")()
