"""Assembly of a command: settings in; callbacks, run folder, logger and the trainer's arguments out. Needs no parser.

`assemble` comes before the trainer is made, `begin_fit` or `begin_reading` before it works, `end_fit` and `keep_model`
after it.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from aunet_lightning.checkpoints.forms import check_intact
from aunet_lightning.checkpoints.lightning_io import AnyForm
from aunet_lightning.data.datamodule import ByteDataModule
from aunet_lightning.distributed.watchdog import Watchdog
from aunet_lightning.effects import Effect
from aunet_lightning.errors import UserError
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.reports.boundary_pictures import BoundaryPictures
from aunet_lightning.reports.run.callback import RunPage
from aunet_lightning.reports.run_report import RunReport
from aunet_lightning.reports.text_read import TextRead
from aunet_lightning.tracking.lock import RunLock
from aunet_lightning.tracking.mlflow_logger import MLflowRunLogger, tracking_uri, ui_command, ui_path
from aunet_lightning.tracking.names import metric_name, rule_name, run_name, units_name
from aunet_lightning.tracking.run_folder import RunConfig, RunFolder
from aunet_lightning.tracking.store import short
from aunet_lightning.training.access import say
from aunet_lightning.training.beginning import (
    checkpoint_of,
    checkpoint_to_read,
    continue_from,
    keep,
    other_text,
    take_folder,
)
from aunet_lightning.training.budget import Spent
from aunet_lightning.training.checkpointing import Checkpointing
from aunet_lightning.training.definition import definition, differences, folder_of, kept_settings
from aunet_lightning.training.expectation import check_held_out, check_memory, expect
from aunet_lightning.training.module import AUNetModule
from aunet_lightning.training.outlook import Outlook
from aunet_lightning.training.parallel import ParallelBits
from aunet_lightning.training.predictions import PredictionWriter, ValidationWriter
from aunet_lightning.training.progress import BpbProgressBar, Throughput
from aunet_lightning.training.report_config import ReportConfig
from aunet_lightning.training.speed_warnings import SpeedWarnings, wide_windows
from aunet_lightning.training.stopping import EndsAsStopped


@dataclass(frozen=True)
class Request:
    """A command and its settings."""

    command: str  # fit, validate, test or predict
    settings: Mapping[str, Any]  # all options as plain data, nested as in config.yaml
    trainer: Mapping[str, Any]  # the trainer's arguments, instantiated
    run: RunConfig
    report: ReportConfig
    module: AUNetModule
    data: ByteDataModule


@dataclass
class Assembly:
    """The trainer's keyword arguments, and what among them is needed again."""

    trainer: dict[str, Any]
    report: RunReport
    folder: RunFolder | None  # None with fast_dev_run
    logger: MLflowRunLogger | None  # None too where results are not tracked
    checkpointing: Checkpointing | None


def assemble(request: Request) -> Assembly:
    """Returns what a trainer needs for a command. Raises UserError for settings that contradict each other."""
    check_depth(request)
    check_end(request)
    check_stream(request)
    trainer, fits = request.trainer, request.command == "fit"
    folder = None if trainer["fast_dev_run"] else folder_of(request.settings)
    logger = None
    if folder is not None and trainer["logger"] in (None, True) and request.command != "predict":
        logger = _logger(request, folder)
    checkpointing = None
    if folder is not None and fits and trainer["enable_checkpointing"] is not False:
        checkpointing = Checkpointing(folder, request.run)
    report = RunReport(request.report)
    arguments = {
        **trainer,
        "logger": _trainer_logger(request, logger),
        "callbacks": [*_listed(trainer["callbacks"]), *_callbacks(request, report, folder, checkpointing)],
        "plugins": [*_listed(trainer["plugins"]), AnyForm()],
    }
    if trainer["enable_checkpointing"] is None:
        arguments["enable_checkpointing"] = checkpointing is not None
    return Assembly(arguments, report, folder, logger, checkpointing)


def _callbacks(
    request: Request, report: RunReport, folder: RunFolder | None, checkpointing: Checkpointing | None
) -> list[Callback]:
    pictures = BoundaryPictures(request.report.pictures_every)
    ends = EndsAsStopped(folder if request.command == "fit" else None)
    callbacks = [Throughput(), Outlook(), SpeedWarnings(), report, pictures, ends]
    if request.trainer["enable_progress_bar"] is not False:
        callbacks.append(BpbProgressBar())
    if folder is not None:
        callbacks.append(Watchdog(request.run.rank_timeout))
    if request.command == "fit":
        callbacks.append(TextRead())
        if request.data.files["parallel"] is not None:
            callbacks.append(ParallelBits())
    if folder is not None and request.command == "fit":
        callbacks.append(ValidationWriter(folder.documents, "val"))
        if request.report.page:
            callbacks.append(RunPage(folder, request.report))
    if checkpointing is not None:
        callbacks.append(checkpointing)
    if folder is not None and request.command == "predict":
        callbacks.append(PredictionWriter(folder.predictions, "test"))
    return callbacks


def _logger(request: Request, folder: RunFolder) -> MLflowRunLogger:
    run, settings = request.run, request.settings
    params = shown_settings(request)
    tags = {
        "splitter": params["splitter"], "language": params["languages"], "stages": str(params["stages"]), **run.tags,
    }  # fmt: skip
    uri = tracking_uri(run.tracking_uri)
    return MLflowRunLogger(
        folder,
        run.experiment,
        run.name or run_name(settings),
        uri,
        params | _more(request, params),
        tags,
        _about(request, params),
    )


def _about(request: Request, shown: Mapping[str, Any]) -> str:
    """The run in a sentence, for people."""
    files = request.data.files["train"]
    named = [files] if isinstance(files, str) else list(files or [])
    text = ", ".join(str(one["path"] if isinstance(one, Mapping) else one) for one in named[:3])
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""
    return (
        f"{shown['splitter']}, {shown['stages']} stages ({shown['widths']} wide, {shown['parameters']:,} parameters), "
        f"on {text or 'no training text'}{more}"
    )


def _more(request: Request, shown: Mapping[str, Any]) -> dict[str, Any]:
    """All other settings that define a run and are not the defaults."""
    found = definition(request.settings, Effect.LENGTH)
    named = {re.sub(r"\[(\d+)\]", r".\1", key): value for key, value in found.items()}
    other = {key for key in named if not {key.partition(".")[0], key.rpartition(".")[2]} & shown.keys()}
    return {metric_name(key): named[key] for key in sorted(other)}


def _trainer_logger(request: Request, logger: MLflowRunLogger | None) -> Any:
    if request.command == "predict" or request.trainer["fast_dev_run"]:
        return False
    return logger if logger is not None else request.trainer["logger"]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def shown_settings(request: Request) -> dict[str, Any]:
    """Returns the dozen settings that distinguish runs in MLflow; config.yaml has all of them."""
    settings, net, data = request.settings, request.module.config, request.data
    stages = net.stages
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in AUNet(net, data.reader.stack).parameters())
    return {
        "splitter": units_name(settings),
        "upper_splitters": ", ".join(map(rule_name, data.reader.rules[1:])) or "none",
        "languages": ", ".join(data.languages or ["all"]),
        "stages": len(stages),
        "widths": "-".join(str(stage.dim) for stage in stages),
        "layers": "-".join(str(stage.layers) for stage in stages),
        "windows": "-".join(str(stage.window or "all") for stage in stages),
        "upsampling": net.upsampling,
        "parameters": parameters,
        "row_bytes": data.row_bytes,
        "batch_rows": data.batch_rows,
        "lr": request.module.optimizer_config.lr,
        "max_steps": request.trainer["max_steps"],
        "precision": request.trainer["precision"] or "32-true",
        "seed": settings["seed_everything"],
    }


def check_depth(request: Request) -> None:
    """Raises UserError unless there is a splitter for each stage transition."""
    rules, stages = len(request.data.reader.rules), len(request.module.config.stages)
    if rules != stages - 1:
        raise UserError(
            f"model.net.stages has {stages} stages, which takes {stages - 1} splitters, but splitter and "
            f"upper_splitters name {rules}: add to upper_splitters, for example {{name: every, n: 2}}, or remove"
            if rules
            else f"model.net.stages has {stages} stages but splitter is null: name one"
        )


def check_end(request: Request) -> None:
    """Raises UserError for training without an end."""
    trainer = request.trainer
    endless = trainer["max_steps"] < 1 and (trainer["max_epochs"] or -1) < 1
    if request.command == "fit" and endless and request.module.budget.progress(Spent()) is None:
        raise UserError(
            "trainer.max_steps is not set: give a number of steps, trainer.max_epochs, or a limit in model.budget, so "
            "that the run ends"
        )


def check_stream(request: Request) -> None:
    """Raises UserError where a run counts epochs of a stream, which has no end."""
    trainer = request.trainer
    if request.command != "fit" or request.data.shuffle_buffer_bytes is None:
        return
    if trainer["max_steps"] < 1 and request.module.budget.progress(Spent()) is None:
        raise UserError(
            "data.shuffle_buffer_bytes: the training files are a stream without epochs: set trainer.max_steps, or a "
            "limit in model.budget"
        )
    in_steps = isinstance(trainer["val_check_interval"], int) and trainer["check_val_every_n_epoch"] is None
    if request.data.files["val"] is not None and trainer["limit_val_batches"] != 0 and not in_steps:
        raise UserError(
            "data.shuffle_buffer_bytes: a stream has no epoch after which to validate: set trainer.val_check_interval "
            "to a number of steps, and trainer.check_val_every_n_epoch to null"
        )


def check_devices(trainer: Trainer, data: ByteDataModule) -> None:
    """Raises UserError where the devices are not those that torchrun started, or do not divide a batch."""
    devices = trainer.num_devices * trainer.num_nodes
    started = int(os.environ.get("WORLD_SIZE", devices)) if "TORCHELASTIC_RUN_ID" in os.environ else devices
    if started != devices:
        raise UserError(
            f"torchrun has started {started} processes, but trainer.devices and trainer.num_nodes make {devices} "
            f"(auto is 1 on a CPU): set trainer.devices to {started // trainer.num_nodes}"
        )
    if data.batch_rows % devices:
        raise UserError(f"data.batch_rows is {data.batch_rows}: it must be a multiple of the devices ({devices})")


def begin_fit(
    request: Request, parts: Assembly, trainer: Trainer, lock: RunLock, config: str, named: str | None
) -> str | None:
    """Checks that a run can train, and takes its folder; returns the checkpoint from which it continues, if any.

    config: all settings as YAML, for the folder. named: `ckpt_path` as given. Raises UserError.
    """
    module, data, folder = request.module, request.data, parts.folder
    check_held_out(module, data, trainer)
    parts.report.expected = expect(module, data, trainer)
    if request.run.check_memory:
        check_memory(parts.report.expected, trainer)
    if sentence := wide_windows(module.config.stages, parts.report.expected.row.positions):
        rank_zero_warn(sentence)
    if folder is None:
        return named
    take_folder(folder, lock, request.settings, data)
    path = checkpoint_of(folder, named)
    if path is not None:
        continue_from(path, folder, request.settings, data, module, trainer, parts.logger)
    keep(folder, config, data)
    if parts.logger is not None:
        parts.logger.start()
        parts.logger.log_text(config, folder.config.name)
    rank_zero_only(folder.failed.unlink)(missing_ok=True)
    return None if path is None else str(path)


def begin_reading(request: Request, parts: Assembly, trainer: Trainer, named: str | None) -> str:
    """Returns the checkpoint that validate, test or predict read, and opens the MLflow run of their results.

    named: `ckpt_path` as given. Raises UserError where there is no such checkpoint.
    """
    path = checkpoint_to_read(parts.folder, named)
    rank_zero_only(check_intact)(path)
    say(f"Checkpoint {path}")
    if parts.logger is not None:
        _open_results(request, parts.logger, trainer, path)
    return str(path)


def _open_results(request: Request, logger: MLflowRunLogger, trainer: Trainer, checkpoint: Path) -> None:
    """Keeps results with the run that made the checkpoint, unless they are of other settings or of other text."""
    around = RunFolder.around(checkpoint)
    if around.mlflow.exists() and not differences(kept_settings(around), request.settings):
        if other_text(around, request.data):
            say(f"The text differs from that of the run in {around.path}: the results are shown, and not kept there")
            trainer.loggers = []
            return
        logger.folder = around
    else:
        logger.folder.path.mkdir(parents=True, exist_ok=True)
    logger.start(training=False)


def end_fit(request: Request, parts: Assembly, trainer: Trainer) -> list[str]:
    """Returns the last lines that a run prints. Raises UserError where it failed or could not be saved."""
    module, folder = request.module, parts.folder
    if module.failure is not None:
        _fail(parts, module.failure)
    if folder is None:
        return []
    if parts.checkpointing is not None and parts.checkpointing.lost is not None:
        newest = folder.newest()
        left = f"the newest checkpoint is {newest}" if newest else "there is no checkpoint"
        _fail(parts, f"training is done, but {parts.checkpointing.lost}; {left}. Make room and repeat the command")
    lines = []
    if module.continues and module.steps_trained == trainer.global_step:
        lines.append(f"\nThis run was finished before, at step {module.steps_trained}: nothing was left to train.")
        lines.append(folder.table.read_text(encoding="utf-8") if folder.table.exists() else "")
    return lines + where_to_look(folder, parts.logger)


def keep_model(request: Request, parts: Assembly) -> list[str]:
    """Logs a finished run's model to MLflow, and returns a line that says how to serve it. The run has ended, so an
    error is a warning."""
    folder, logger, run = parts.folder, parts.logger, request.run
    if folder is None or not run.log_model:
        return []
    if logger is None or (weights := folder.weights) is None:
        if run.register_as is not None:
            rank_zero_warn(f"run.register_as: the run has no {'MLflow run' if logger is None else 'checkpoint'}")
        return []
    if logger.run_id is None:  # another rank's
        return []
    from aunet_lightning.serving.logged import log_model, serve_command

    try:
        model = log_model(weights, logger.run_id, logger.experiment_id, logger.uri, folder.path, run.register_as)
    except Exception as error:  # of the store, the disk or a splitter's file
        rank_zero_warn(f"MLflow has not got the run's model ({short(error)}): the same command tries again")
        return []
    return [f"Serve it: {serve_command(model, logger.uri)}"]


def _fail(parts: Assembly, problem: str) -> None:
    if parts.folder is not None:
        parts.folder.record_failure(problem)
    if parts.logger is not None:
        parts.logger.finalize("failed")
    raise UserError(problem)


def where_to_look(folder: RunFolder, logger: MLflowRunLogger | None) -> list[str]:
    """Returns lines that name a run's folder, its weights and its page in MLflow."""
    lines = [f"\nThe run is in {folder.path}"]
    if folder.page.exists():
        lines.append(f"Its page, for a browser: {folder.page}")
    if weights := folder.weights:
        lines.append(f"Its weights: aunet validate --ckpt_path {weights}  (or test, predict; aunet generate CKPT)")
    if logger is not None:
        page = ui_path(logger.experiment_id)
        if logger.uri.startswith("http"):
            return [*lines, f"See it in MLflow: {logger.uri.rstrip('/')}{page}"]
        lines += [f"See it in MLflow: {ui_command(logger.uri)}, then open", f"  http://127.0.0.1:5000{page}"]
    return lines
