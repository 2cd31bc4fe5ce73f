"""One folder per run: its configuration, checkpoints, metrics and MLflow id. The same command continues it."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.utilities import rank_zero_warn

from aunet_lightning.errors import UserError
from aunet_lightning.numbers import Range, check_fields, show
from aunet_lightning.paths import user_path

LONGEST_PART = 255  # bytes of a name in a path, in most file systems
LONGEST_NAME = 200  # of a run, which gets a digest


@dataclass
class RunConfig:
    """Where the run is kept."""

    experiment: str = "aunet"
    """name of the MLflow experiment, which groups runs"""
    name: str | None = None
    """name of the run; null: made of splitter, stages, width and seed"""
    folder: str | None = None
    """folder of the run; null: runs/EXPERIMENT/NAME-DIGEST, where the digest is that of what defines the run"""
    tracking_uri: str | None = None
    """MLflow server or store; null: $MLFLOW_TRACKING_URI, or the SQLite file runs/mlflow.db"""
    tags: dict[str, str] = field(default_factory=dict)
    """further MLflow tags"""
    checkpoint_every: int = 100
    """steps between checkpoints that a killed run continues from"""
    checkpoint_minutes: float | None = None
    """minutes between further ones; null: none"""
    keep_last: int = 1
    """how many of the latest checkpoints are kept"""
    keep_best: int = 1
    """how many are kept besides for their val/bpb"""
    check_memory: bool = True
    """refuse a run that is expected to need more memory than there is"""
    rank_timeout: float = 60.0
    """seconds without a sign of life from another process of the run after which this one ends, and says so"""

    def __post_init__(self) -> None:
        check_fields(
            self, "run",
            checkpoint_every=Range(least=1, most=10**15), checkpoint_minutes=Range(above=0, most=10**7),
            keep_last=Range(least=1, most=10**6), keep_best=Range(least=0, most=10**6),
            rank_timeout=Range(above=0, most=10**7),
        )  # fmt: skip
        for name in ("experiment", "name"):
            if (value := getattr(self, name)) is not None:
                _check_name(f"run.{name}", value)
        for part in [] if self.folder is None else Path(self.folder).parts or [""]:
            _check_name("run.folder", part, LONGEST_PART)


def _check_name(key: str, name: str, longest: int = LONGEST_NAME) -> None:
    """Raises ValueError for a name that cannot be that of a folder too."""
    if not name.strip() or re.search(r"[\0-\x1f\x7f]", name) or len(name.encode("utf-8", "replace")) > longest:
        wanted = f"a name of 1 to {longest} bytes, without control characters"
        raise ValueError(f"{key} is {show(name)}, it must be {wanted}")


# What makes a run this run and not another: all that its numbers depend on. The rest (on what machine,
# how reported) may change.
DEFINING = (
    "seed_everything", "splitter", "upper_splitters", "tokenizer", "data", "model", "trainer.precision",
    "trainer.gradient_clip_val",
    "trainer.gradient_clip_algorithm", "trainer.accumulate_grad_batches", "trainer.overfit_batches",
    "trainer.limit_train_batches",
)  # fmt: skip
NOT_DEFINING = ("data.workers", "data.cache_dir", "model.compile", "model.parallel")
# Another length is another run too, as the learning rate ends elsewhere; but a named folder may be gone on with.
LENGTH = ("trainer.max_steps", "trainer.max_epochs")
# What may change while a run goes on, and what that means.
MEANING = (
    (LENGTH, "the learning rate ends elsewhere, so numbers from here on are those of no run of one length"),
    (("model.parallel.param_dtype", "model.parallel.reduce_dtype"), "other rounding from here on"),
    (
        ("trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.accelerator", "model.compile",
         "model.parallel"),
        "the same batches; sums are made in another order, so numbers differ in their last digits",
    ),
    (("trainer.val_check_interval", "trainer.limit_val_batches", "trainer.check_val_every_n_epoch"),
     "validations at other steps, or on other text: val/… before and after are not of one kind"),
    (("trainer", "run", "report", "data.workers", "data.cache_dir"), "no number of the training changes"),
)  # fmt: skip
LONGEST_OPTION = 30  # characters of an option in a name; the digest tells runs apart


def defining(config: Mapping[str, Any], keys: Sequence[str] = DEFINING) -> dict[str, Any]:
    """Returns the settings under `keys`, flat: {'model.net.upsampling': 'repeat', …}."""

    return {key: value for key, value in _flat(config) if _under(key, keys) and not _under(key, NOT_DEFINING)}


def differences(kept: Mapping[str, Any], config: Mapping[str, Any], keys: Sequence[str] = DEFINING) -> list[str]:
    """Returns the settings under `keys` in which `config` differs from the `kept` one."""
    there, here = defining(kept, keys), defining(config, keys)
    names = [name for name in sorted(there.keys() | here.keys()) if there.get(name) != here.get(name)]
    return [f"{name} (there {there.get(name)!r}, here {here.get(name)!r})" for name in names]


def changes(kept: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Returns what differs between the settings of a run and those it goes on with, each kind with its meaning."""
    there, here = dict(_flat(kept)), dict(_flat(config))
    told: dict[str, list[str]] = {}
    for key in sorted(there.keys() | here.keys()):
        meaning = next((meaning for roots, meaning in MEANING if _under(key, roots)), None)
        new = key not in there and meaning == MEANING[-1][1]  # a setting that came with a newer version
        if there.get(key) != here.get(key) and meaning is not None and not new:
            told.setdefault(meaning, []).append(f"{key} (there {there.get(key)!r}, here {here.get(key)!r})")
    return [f"{'; '.join(keys)}: {meaning}" for meaning, keys in told.items()]


def _under(key: str, roots: Sequence[str]) -> bool:
    return any(key == root or key.startswith((root + ".", root + "[")) for root in roots)


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(inner, Mapping) for inner in value):
        for i, inner in enumerate(value):
            yield from _flat(inner, f"{prefix}[{i}]")
    else:
        yield prefix, list(value) if isinstance(value, tuple) else value


def rule_name(rule: str | Mapping[str, Any] | None) -> str:
    """Returns a rule as one word that can name a folder: `fixed-n4`, `cap-of-whitespace-max_bytes64`."""
    if rule is None:
        return "bytes"
    if isinstance(rule, str):
        return rule.rpartition(":")[2]
    options = [f"{key}{_word(value)}" for key, value in rule.items() if key != "name"]
    return "-".join([str(rule["name"]).rpartition(":")[2], *options])


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return "-" + rule_name(value)
    if isinstance(value, list | tuple):
        return "+".join(map(_word, value))
    text = Path(value).stem if isinstance(value, str) and "/" in value else str(value)
    return re.sub(r"[^\w.]+", "_", text)[:LONGEST_OPTION]


def run_name(settings: Mapping[str, Any]) -> str:
    """Returns a run's name where none is given: its units, stages, widths and seed."""
    stages = settings["model"]["net"]["stages"]
    widths = "-".join(str(stage["dim"]) for stage in stages)
    return f"{units_name(settings)}-{len(stages)}stages-{widths}-seed{settings['seed_everything']}"


def units_name(settings: Mapping[str, Any]) -> str:
    """Returns what a model reads text by: its first splitter, its vocabulary, or plain bytes."""
    tokenizer = settings["tokenizer"]
    if tokenizer is None:
        return rule_name(settings["splitter"])
    return rule_name({"name": "bpe"} | (tokenizer if isinstance(tokenizer, dict) else {"file": tokenizer}))


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.checkpoints = path / "checkpoints"
        self.last = self.checkpoints / "last.ckpt"
        self.best = self.checkpoints / "best.ckpt"
        self.metrics = path / "metrics.jsonl"
        self.mlflow = path / "mlflow.json"
        self.predictions = path / "predictions.jsonl"
        self.table = path / "val_bpb.md"
        self.units = path / "units.json"  # of the example sentences
        self.data = path / "data.json"  # what text the run was begun with

    @classmethod
    def of(cls, run: RunConfig, name: str, config: Mapping[str, Any]) -> "RunFolder":
        """Returns the folder of a run with this configuration; nothing is made yet."""
        return cls.named({"folder": run.folder, "experiment": run.experiment}, name, config)

    @classmethod
    def named(cls, run: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> "RunFolder":
        """The same, of `run` as plain data."""
        if run["folder"] is not None:
            return cls(user_path(run["folder"], "run.folder"))
        for key, part in (("experiment", run["experiment"]), ("name", name)):
            if Path(part).is_absolute() or {"..", "."} & {*Path(part).parts, part}:
                raise UserError(
                    f"run.{key} is {part!r}, which leaves the folder runs: name run.folder, or a name without .."
                )
        settings = json.dumps(defining(config, (*DEFINING, *LENGTH)), sort_keys=True, default=str)
        digest = hashlib.sha256(settings.encode()).hexdigest()[:6]
        return cls(Path("runs") / run["experiment"] / f"{name}-{digest}")

    @classmethod
    def around(cls, checkpoint: Path) -> "RunFolder":
        """Returns the folder that a checkpoint lies in."""
        return cls(checkpoint.resolve().parent.parent)

    def step(self, step: int) -> Path:
        """Where the checkpoint of a step is."""
        return self.checkpoints / f"step-{step:08}.ckpt"

    def saved(self) -> dict[int, Path]:
        """Returns the checkpoints that are there, by step; each is whole."""
        there = self.checkpoints.glob("step-*.ckpt") if self.checkpoints.is_dir() else ()
        return {int(path.stem.removeprefix("step-")): path for path in there}

    def newest(self) -> Path | None:
        """Returns the checkpoint that a run goes on from."""
        if there := self.saved():
            return there[max(there)]
        return self.last if self.last.exists() else None

    def make(self) -> None:
        """Makes the folder. Raises UserError where it cannot be made."""
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"run.folder: cannot write to {str(self.path)[:200]} ({error.strerror}): choose another run.folder"
            ) from None

    def check(self, config: Mapping[str, Any]) -> None:
        """Raises UserError where the folder holds a run that was defined otherwise; says what else has changed."""
        if not self.config.exists():
            return
        if differences := self.differences(config, DEFINING):
            raise UserError(
                f"run.folder: {self.path} holds another run; it differs in {'; '.join(differences)}. "
                "Choose another run.folder, or leave it out to have one made"
            )
        for told in changes(self.settings(), config):
            rank_zero_warn(f"{self.path} continues with changed settings: {told}")

    def keep(self, text: str) -> None:
        """Writes the configuration, whole or not at all. Raises UserError where it cannot be written."""
        part = self.config.with_name(self.config.name + ".part")
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(self.config)
        except OSError as error:
            raise UserError(
                f"run.folder: cannot write to {self.path} ({error.strerror}): choose another run.folder"
            ) from None

    def settings(self) -> dict[str, Any]:
        """Returns the configuration that is kept here. Raises UserError where it is damaged."""
        try:
            kept = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError):
            kept = None
        model = kept.get("model") if isinstance(kept, dict) else None
        if not isinstance(kept, dict) or not isinstance(model, dict) or not isinstance(model.get("net"), dict):
            raise UserError(
                f"{self.config} is damaged: restore it, delete it (the next aunet fit writes it anew), or choose "
                "another run.folder"
            )
        return kept

    def changes_numbers(self, config: Mapping[str, Any]) -> bool:
        """Returns whether a run with these settings has other numbers from here on than one with those kept here."""
        if not self.config.exists():
            return False
        there, here = dict(_flat(self.settings())), dict(_flat(config))
        changed = [key for key in there.keys() | here.keys() if there.get(key) != here.get(key)]
        return any(_under(key, roots) for key in changed for roots, _ in MEANING[:2])

    def differences(self, config: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
        """Returns the settings under `keys` in which `config` differs from the run that is kept here."""
        return differences(self.settings(), config, keys)
