"""fit, validate, test and predict: LightningCLI, with one folder per run and short errors."""

import itertools
import logging
import re
import warnings
from typing import Any, cast

import lightning.pytorch as pl
import yaml
from jsonargparse import Namespace, set_parsing_settings
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info

from aunet_lightning.assembly import Request, assemble, begin_fit, begin_reading, check_devices, end_fit, keep_model
from aunet_lightning.checkpoints.forms import check_complete
from aunet_lightning.cli.help import asked
from aunet_lightning.cli.older import began_unmasked
from aunet_lightning.cli.parser import ShortErrorParser, short_error
from aunet_lightning.cli.settings import check
from aunet_lightning.data.datamodule import ByteDataModule
from aunet_lightning.distributed import strategy  # noqa: F401 (registers fsdp2)
from aunet_lightning.errors import UserError, sentence
from aunet_lightning.paths import user_path
from aunet_lightning.reader.reader import Rule, vocabulary_size
from aunet_lightning.reader.tokens import TokenizerSpec
from aunet_lightning.tracking.lock import RunLock
from aunet_lightning.tracking.names import SEED
from aunet_lightning.tracking.run_folder import RunConfig, RunFolder
from aunet_lightning.training.access import say
from aunet_lightning.training.definition import TRAINER_DEFAULTS
from aunet_lightning.training.module import AUNetModule
from aunet_lightning.training.report_config import ReportConfig
from aunet_lightning.training.stopping import Stopped, stoppable
from splitters import DEFAULT

QUIET = (  # warnings that mean nothing to a user of this program
    "(?s).*(LeafSpec|does not have many workers|exists and is not empty).*",
    "FSDP2-wrapped module .* returned a view tensor",  # keys and values passed on are views, and nothing writes to them
    "Be aware that when using `ckpt_path`.*",
    "torch.distributed is disabled, unavailable or uninitialized",  # where one process reads what several have saved
    ".*sync_dist=True.*",  # what is logged is already reduced over devices
)
GREETERS = (
    "lightning.pytorch.utilities.rank_zero", "lightning.pytorch.trainer.connectors.checkpoint_connector",
    "lightning.pytorch.accelerators.cuda", "lightning.fabric.utilities.seed",
)  # fmt: skip
GREETINGS = "Tip:|weights_only|Restor(ing|ed all) states|[GT]PU available: |CUDA_VISIBLE_DEVICES: |Seed set to"


def run(arguments: list[str]) -> int:
    """Runs `fit`, `validate`, `test` or `predict` with its options; returns the exit code."""
    _quieten()
    if asked(arguments) is not None:  # reading the sources of all settings takes time
        set_parsing_settings(docstring_parse_attribute_docstrings=True)
    lock = RunLock()
    try:
        with stoppable():
            AUNetCLI(_with_config_of_checkpoint(arguments), lock)
    except Stopped as stopped:
        say(f"aunet {arguments[0]}: {stopped if arguments[0] == 'fit' else 'stopped'}")
        return stopped.exit_code
    finally:
        lock.release()
    return 0


class AUNetCLI(LightningCLI):
    """LightningCLI for one fixed module and data module, with `run`, `report` and the splitters beside them."""

    def __init__(self, arguments: list[str], lock: RunLock) -> None:
        self.lock = lock
        self.given = arguments[0]
        super().__init__(
            AUNetModule,
            ByteDataModule,
            args=arguments,
            save_config_callback=None,  # the run folder keeps it
            seed_everything_default=SEED,
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
            help="for the BPE baseline: {vocab_size: n, merges: frequency|parity} (trained on the training text) or a "
            "tokenizers JSON",
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
        """Keeps the settings as given. (Stock Lightning lets a checkpoint's settings replace them.)"""

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except Exception as error:  # what classes report about their arguments
            problem = sentence(error, (ValueError, TypeError, ImportError, RuntimeError))
            if problem is None:
                raise
            raise UserError(short_error(problem)) from error

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        config = self.config_init[self.subcommand]
        self.request = Request(
            str(self.subcommand), self.settings(), vars(config["trainer"]), config["run"], config["report"],
            self.model, self.datamodule,
        )  # fmt: skip
        self.parts = assemble(self.request)
        return super().instantiate_trainer(**self.parts.trainer | kwargs)

    def after_instantiate_classes(self) -> None:
        """Reads the data before anything is begun, so that a mistake there costs no time."""
        check_devices(self.trainer, self.datamodule)
        self.datamodule.prepare_data()
        self.datamodule.setup()

    def before_fit(self) -> None:
        named = self.config_init["fit"]["ckpt_path"]
        checkpoint = begin_fit(self.request, self.parts, self.trainer, self.lock, self.dump(), named)
        if self.parts.folder is not None:
            self._pass(ckpt_path=checkpoint, weights_only=True)  # a checkpoint is data, and runs no code

    def before_validate(self) -> None:
        if "val" not in self.datamodule.corpora:
            raise UserError("there is no held-out text: name data.val_files, or data.holdout_every")
        self._read_checkpoint()

    def before_test(self) -> None:
        self._read_checkpoint()

    def before_predict(self) -> None:
        self._read_checkpoint()
        if not self.model.config.document_masking:
            say(
                "model.net.document_masking is off: a document's bits depend on those before it in its row, and so on "
                "the order of the documents"
            )

    def after_fit(self) -> None:
        if lines := end_fit(self.request, self.parts, self.trainer):
            say(*lines)
        if lines := keep_model(self.request, self.parts):
            say(*lines)

    def dump(self) -> str:
        """Returns the run's complete configuration as YAML, which `aunet fit -c` accepts."""
        return self._parser(self.subcommand).dump(self.config[str(self.subcommand)], skip_none=False)

    def settings(self) -> dict[str, Any]:
        """Returns the same as plain data."""
        return cast(dict[str, Any], yaml.safe_load(self.dump()))

    def _read_checkpoint(self) -> None:
        named = self.config_init[self.subcommand]["ckpt_path"]
        checkpoint = begin_reading(self.request, self.parts, self.trainer, named)
        self._pass(ckpt_path=checkpoint, weights_only=True, verbose=False)  # RunReport prints the table

    def _pass(self, **arguments: Any) -> None:
        """Passes arguments to the trainer's method, as far as it has them."""
        options = self.config_init[self.subcommand]
        for name, value in arguments.items():
            if name in options:
                options[name] = value


def _plain(value: Any) -> Any:
    """Returns what was parsed as plain data. (A dump parses a text such as [。，] once more, into a list.)"""
    if isinstance(value, Namespace):
        return {key: _plain(one) for key, one in vars(value).items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _splitters(splitter: Rule | None, upper_splitters: list[Rule]) -> list[Rule]:
    return [] if splitter is None else [splitter, *upper_splitters]


def _data_seed(seed: bool | int) -> int:
    return int(seed)


def _with_config_of_checkpoint(arguments: list[str]) -> list[str]:
    """Adds the configuration of the run folder where only a checkpoint is named."""
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
    """Suppresses lines that mean nothing to a user of this program: greetings, advertisement, the making of a store."""
    for name in GREETERS:
        logging.getLogger(name).addFilter(lambda record: not re.search(GREETINGS, record.getMessage()))
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # the logger reports it in a line
    for message in QUIET:
        warnings.filterwarnings("ignore", message=message)
