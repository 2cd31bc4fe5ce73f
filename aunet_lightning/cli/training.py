"""fit, validate, test and predict: LightningCLI, with one folder per run and short errors."""

import itertools
import logging
import os
import re
import warnings
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from aunet_lightning.checkpoints.forms import check_complete, check_contents
from aunet_lightning.checkpoints.lightning_io import AnyForm
from aunet_lightning.cli.older import began_unmasked
from aunet_lightning.cli.parser import ShortErrorParser, short_error
from aunet_lightning.cli.settings import check
from aunet_lightning.data.datamodule import ByteDataModule, Rule
from aunet_lightning.distributed import strategy  # noqa: F401 (registers fsdp2)
from aunet_lightning.distributed.watchdog import Watchdog
from aunet_lightning.errors import UserError, sentence
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.paths import user_path
from aunet_lightning.reader.tokens import TokenizerSpec, vocabulary_size
from aunet_lightning.tracking.lock import RunLock
from aunet_lightning.tracking.mlflow_logger import MLflowRunLogger, tracking_uri, ui_command, ui_path
from aunet_lightning.tracking.run_folder import DEFINING, RunConfig, RunFolder, rule_name, run_name, units_name
from aunet_lightning.training.beginning import (
    check_held_out,
    check_memory,
    checkpoint_of,
    continue_from,
    expect,
    keep,
    other_text,
    take_folder,
)
from aunet_lightning.training.budget import Spent
from aunet_lightning.training.callbacks import (
    BoundaryPictures,
    BpbProgressBar,
    PredictionWriter,
    Report,
    ReportConfig,
    Throughput,
)
from aunet_lightning.training.checkpointing import Checkpointing
from aunet_lightning.training.module import AUNetModule
from aunet_lightning.training.stopping import EndsAsStopped, Stopped, stoppable
from splitters import DEFAULT

TRAINER_DEFAULTS = {
    "max_epochs": -1,  # max_steps says how long
    "gradient_clip_val": 1.0,
    "log_every_n_steps": 10,
    "use_distributed_sampler": False,  # ByteDataModule deals rows to ranks itself
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,  # Report says what the network has
}


def run(arguments: list[str]) -> int:
    """Runs `fit`, `validate`, `test` or `predict` with its options; returns the exit code."""
    _quieten()
    warnings.filterwarnings("ignore", message="(?s).*(LeafSpec|does not have many workers|exists and is not empty).*")
    # Keys and values that blocks hand on are views, and nothing is written into them.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`.*")
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # what is logged is reduced over devices before
    lock = RunLock()
    try:
        with stoppable():
            AUNetCLI(_with_config_of_checkpoint(arguments), lock)
    except Stopped as stopped:
        _say(f"aunet {arguments[0]}: {stopped if arguments[0] == 'fit' else 'stopped'}")
        return stopped.exit_code
    finally:
        lock.release()
    return 0


class AUNetCLI(LightningCLI):
    """LightningCLI for one fixed module and data module, with `run`, `report` and the splitters beside them."""

    def __init__(self, arguments: list[str], lock: RunLock) -> None:
        self.folder: RunFolder | None = None
        self.run_logger: MLflowRunLogger | None = None
        self.report: Report | None = None
        self.checkpointing: Checkpointing | None = None
        self.lock = lock
        self.given = arguments[0]
        super().__init__(
            AUNetModule,
            ByteDataModule,
            args=arguments,
            save_config_callback=None,  # the run folder keeps it
            seed_everything_default=1,
            trainer_defaults=TRAINER_DEFAULTS,
            parser_class=ShortErrorParser,
            auto_configure_optimizers=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--splitter",
            type=Rule | None,
            default=DEFAULT,
            help="the rule from bytes to stage 2: a name (aunet splitters lists them), or {name: fixed, n: 4}",
        )
        parser.add_argument(
            "--upper_splitters",
            type=list[Rule],
            default=[],
            help="one rule per further stage, among the units below it",
        )
        parser.add_argument(
            "--tokenizer",
            type=TokenizerSpec | None,
            default=None,
            help="for the BPE baseline: {vocab_size: n} (trained on the training text) or a tokenizers JSON",
        )
        parser.add_class_arguments(RunConfig, "run")
        parser.add_class_arguments(ReportConfig, "report")
        parser.link_arguments("splitter", "data.splitter")
        parser.link_arguments("upper_splitters", "data.upper_splitters")
        parser.link_arguments(("splitter", "upper_splitters"), "model.splitters", compute_fn=_splitters)
        parser.link_arguments("tokenizer", "data.tokenizer")
        parser.link_arguments("tokenizer", "model.net.vocabulary", compute_fn=vocabulary_size)
        parser.link_arguments("seed_everything", "data.seed", compute_fn=_data_seed)

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        """Adds the subcommand that was given: a parser of each takes longer than all the rest of a command's start."""
        self.subcommands = lambda: {self.given: LightningCLI.subcommands()[self.given]}  # type: ignore[method-assign]
        super()._add_subcommands(parser, **kwargs)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)
        self.subcommand = self.config["subcommand"]
        settings = self.settings()
        check(
            settings
            | {name: _plain(self.config[self.subcommand].get(name)) for name in ("splitter", "upper_splitters")}
        )
        if began_unmasked(settings, args):
            self.config[self.subcommand].model.net.document_masking = False
            rank_zero_info("model.net.document_masking is false, as it was by default when this run began")

    def _parse_ckpt_path(self) -> None:
        """Leaves the settings as they were given: stock Lightning lets a checkpoint overrule them."""

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except Exception as error:  # what classes say of their arguments
            told = sentence(error, (ValueError, TypeError, ImportError, RuntimeError))
            if told is None:
                raise
            raise UserError(short_error(told)) from error

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        config = self.config_init[self.subcommand]
        trainer = config["trainer"]
        self._check_depth()
        endless = trainer["max_steps"] < 1 and (trainer["max_epochs"] or -1) < 1
        if self.subcommand == "fit" and endless and self.model.budget.progress(Spent()) is None:
            raise UserError(
                "trainer.max_steps is not set: say how many steps, or trainer.max_epochs, or what model.budget may be "
                "spent, so that the run ends"
            )
        self.report = Report(config["report"])
        pictures = BoundaryPictures(config["report"].pictures_every)
        callbacks: list[pl.Callback] = [Throughput(), self.report, pictures, EndsAsStopped()]
        if trainer["enable_progress_bar"] is not False:
            callbacks.append(BpbProgressBar())
        if not trainer["fast_dev_run"]:
            name = config["run"].name or run_name(self.settings())
            self.folder = RunFolder.of(config["run"], name, self.settings())
            callbacks.append(Watchdog(config["run"].rank_timeout))
            if self.subcommand == "fit" and trainer["enable_checkpointing"] is not False:
                self.checkpointing = Checkpointing(self.folder, config["run"])
                callbacks.append(self.checkpointing)
            if self.subcommand == "predict":
                callbacks.append(PredictionWriter(self.folder.path / "predictions.jsonl"))
            if trainer["logger"] in (None, True):
                trainer["logger"] = self.run_logger = MLflowRunLogger(
                    self.folder, config["run"].experiment, name, tracking_uri(config["run"].tracking_uri),
                    self._params(), {"splitter": units_name(self.settings())} | config["run"].tags,
                )  # fmt: skip
        if self.subcommand == "predict" or trainer["fast_dev_run"]:
            trainer["logger"] = False
        plugins = trainer["plugins"] or []
        trainer["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), AnyForm()]
        trainer["callbacks"] = [*(trainer["callbacks"] or []), *callbacks]
        if trainer["enable_checkpointing"] is None:
            trainer["enable_checkpointing"] = self.subcommand == "fit" and self.folder is not None
        return super().instantiate_trainer(**kwargs)

    def after_instantiate_classes(self) -> None:
        """Reads the data before anything is begun, so that a mistake there costs no time."""
        devices = self.trainer.num_devices * self.trainer.num_nodes
        started = int(os.environ.get("WORLD_SIZE", devices)) if "TORCHELASTIC_RUN_ID" in os.environ else devices
        if started != devices:
            raise UserError(
                f"torchrun has started {started} processes, but trainer.devices and trainer.num_nodes make {devices} "
                f"(auto is 1 on a CPU): set trainer.devices to {started // self.trainer.num_nodes}"
            )
        if self.datamodule.batch_rows % devices:
            raise UserError(
                f"data.batch_rows is {self.datamodule.batch_rows}: it must be a multiple of the devices ({devices})"
            )
        self.datamodule.prepare_data()
        self.datamodule.setup()

    def before_fit(self) -> None:
        assert self.report is not None
        check_held_out(self.model, self.datamodule, self.trainer)
        self.report.expected = expect(self.model, self.datamodule, self.trainer)
        if self.config_init["fit"]["run"].check_memory:
            check_memory(self.report.expected, self.trainer)
        if self.folder is None:
            return
        options, settings = self.config_init["fit"], self.settings()
        options["weights_only"] = True  # a checkpoint is data, and loads as nothing else
        take_folder(self.folder, self.lock, settings, self.datamodule)
        path = checkpoint_of(self.folder, options["ckpt_path"])
        options["ckpt_path"] = None if path is None else str(path)
        if path is not None:
            continue_from(path, self.folder, settings, self.datamodule, self.model, self.trainer, self.run_logger)
        keep(self.folder, self.dump(), self.datamodule)
        if self.run_logger is not None:
            self.run_logger.start()
            self.run_logger.log_text(self.dump(), "config.yaml")

    def before_validate(self) -> None:
        if "val" not in self.datamodule.corpora:
            raise UserError("there is no held-out text: name data.val_files, or data.holdout_every")
        self._find_checkpoint()

    def before_test(self) -> None:
        self._find_checkpoint()

    def before_predict(self) -> None:
        self._find_checkpoint()
        if not self.model.config.document_masking:
            _say(
                "model.net.document_masking is off: a document's bits depend on those before it in its row, and so on "
                "the order of the documents"
            )

    def after_fit(self) -> None:
        if self.model.failure is not None:
            if self.run_logger is not None:
                self.run_logger.finalize("failed")
            raise UserError(self.model.failure)
        if self.folder is None:
            return
        if self.checkpointing is not None and self.checkpointing.lost is not None:
            if self.run_logger is not None:
                self.run_logger.finalize("failed")
            newest = self.folder.newest()
            left = f"the newest that is there is {newest}" if newest else "there is none"
            raise UserError(
                f"training is done, but {self.checkpointing.lost}; {left}. Make room, and give the command again"
            )
        if self.model.continues and self.model.steps_trained == self.trainer.global_step:
            table = self.folder.path / "val_bpb.md"
            _say(
                f"\nThis run was finished before, at step {self.model.steps_trained}: nothing was left to train.",
                table.read_text(encoding="utf-8") if table.exists() else "",
            )
        _say(*self._where_to_look())

    def dump(self) -> str:
        """The run's whole configuration as YAML, which `aunet fit -c` takes."""
        return self._parser(self.subcommand).dump(self.config[str(self.subcommand)], skip_none=False)

    def settings(self) -> dict[str, Any]:
        """The same as plain data."""
        return cast(dict[str, Any], yaml.safe_load(self.dump()))

    def _check_depth(self) -> None:
        rules, stages = len(self.datamodule.rules), len(self.model.config.stages)
        if rules != stages - 1:
            raise UserError(
                f"model.net.stages has {stages} stages, which takes {stages - 1} splitters, but splitter and "
                f"upper_splitters name {rules}: add to upper_splitters, for example {{name: every, n: 2}}, or remove"
                if rules
                else f"model.net.stages has {stages} stages but splitter is null: name one"
            )

    def _params(self) -> dict[str, Any]:
        """The dozen settings by which runs are told apart in MLflow; all of them are in config.yaml."""
        config, net = self.config_init[self.subcommand], self.model.config
        stages = net.stages
        with torch.device("meta"):
            parameters = sum(parameter.numel() for parameter in AUNet(net, self.datamodule.stack).parameters())
        return {
            "splitter": units_name(self.settings()),
            "upper_splitters": ", ".join(map(rule_name, config["upper_splitters"])) or "none",
            "languages": ", ".join(config["data"].languages or ["all"]),
            "stages": len(stages),
            "widths": "-".join(str(stage.dim) for stage in stages),
            "layers": "-".join(str(stage.layers) for stage in stages),
            "windows": "-".join(str(stage.window or "all") for stage in stages),
            "upsampling": net.upsampling,
            "parameters": parameters,
            "row_bytes": self.datamodule.row_bytes,
            "batch_rows": self.datamodule.batch_rows,
            "lr": self.model.optimizer_config.lr,
            "max_steps": config["trainer"]["max_steps"],
            "precision": config["trainer"]["precision"] or "32-true",
            "seed": config["seed_everything"],
        }

    def _find_checkpoint(self) -> None:
        """Takes the best checkpoint of the run where none is named."""
        options = self.config_init[self.subcommand]
        options["weights_only"] = True
        if "verbose" in options:
            options["verbose"] = False  # Report shows the table
        named = options["ckpt_path"]
        if named is None or named in ("best", "last"):
            if self.folder is None:
                raise UserError("ckpt_path is missing: with fast_dev_run there is no run folder to find one in")
            candidates = (
                [self.folder.last, self.folder.best] if named == "last" else [self.folder.best, self.folder.last]
            )
            found = next((path for path in candidates if path.exists()), None)
            if found is None:
                raise UserError(
                    f"ckpt_path is missing, and {self.folder.path} has no checkpoint: run aunet fit with the same "
                    "options first, or name a checkpoint"
                )
            options["ckpt_path"] = found
        path = user_path(options["ckpt_path"], "ckpt_path")
        options["ckpt_path"] = str(path)
        check_complete(path)
        rank_zero_only(check_contents)(path)
        _say(f"Checkpoint {options['ckpt_path']}")
        if self.run_logger is not None and self.subcommand != "predict":
            around = RunFolder.around(Path(options["ckpt_path"]))
            # Results belong to the run that made the checkpoint, unless they were asked for under other settings.
            if around.mlflow.exists() and not around.differences(self.settings(), DEFINING):
                if other_text(around, self.datamodule):
                    _say(f"The text is not that of the run in {around.path}: the results are shown, and not kept there")
                    self.trainer.loggers = []
                    return
                self.run_logger.folder = around
            else:
                self.run_logger.folder.path.mkdir(parents=True, exist_ok=True)
            self.run_logger.start(training=False)

    def _where_to_look(self) -> list[str]:
        assert self.folder is not None
        lines = [f"\nThe run is in {self.folder.path}"]
        if kept := next((path for path in (self.folder.best, self.folder.last) if path.exists()), None):
            lines.append(f"Its weights: aunet validate --ckpt_path {kept}  (or test, predict; aunet generate CKPT)")
        if self.run_logger is not None:
            uri, page = self.run_logger.uri, ui_path(self.run_logger.experiment_id)
            if uri.startswith("http"):
                return [*lines, f"See it in MLflow: {uri.rstrip('/')}{page}"]
            lines += [f"See it in MLflow: {ui_command(uri)}, then open", f"  http://127.0.0.1:5000{page}"]
        return lines


def _plain(value: Any) -> Any:
    """Returns what was parsed as plain data. (A dump reads a text such as [。，] once more, and makes a list of it.)"""
    if isinstance(value, Namespace):
        return {key: _plain(one) for key, one in vars(value).items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _splitters(splitter: Rule | None, upper_splitters: list[Rule]) -> list[Rule]:
    return [] if splitter is None else [splitter, *upper_splitters]


def _data_seed(seed: bool | int) -> int:
    return int(seed)


def _with_config_of_checkpoint(arguments: list[str]) -> list[str]:
    """Where only a checkpoint is named, takes the configuration of its run folder."""
    named = [value for key, value in itertools.pairwise(arguments) if key == "--ckpt_path"]
    named += [argument.partition("=")[2] for argument in arguments if argument.startswith("--ckpt_path=")]
    has_config = any(re.match(r"(-c|--config)(=|$)", argument) for argument in arguments)
    if named and named[-1] not in ("best", "last"):
        check_complete(user_path(named[-1], "ckpt_path"))
    if arguments[0] == "fit" or has_config or not named:
        return arguments
    config = RunFolder.around(user_path(named[-1], "ckpt_path")).config
    return [arguments[0], "-c", str(config), *arguments[1:]] if config.exists() else arguments


def _quieten() -> None:
    """Leaves out lines that tell the user of this program nothing: advertisement, and a store that is made."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.trainer.connectors.checkpoint_connector"):
        logging.getLogger(name).addFilter(lambda record: not re.search("Tip:|weights_only", record.getMessage()))
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # the logger says it in a line


@rank_zero_only
def _say(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)
