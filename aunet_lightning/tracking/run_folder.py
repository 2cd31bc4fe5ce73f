"""The folder of a run: its configuration, checkpoints, metrics and MLflow id. The same command continues it."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from aunet_lightning.effects import Effect, effects
from aunet_lightning.errors import UserError
from aunet_lightning.numbers import Range, check_fields, show
from aunet_lightning.paths import replace_text

TABLE, UNITS = "val_bpb.md", "units.json"  # BPB by language; units of the example sentences
FAST_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # six times as fast
FAST_UP_TO = 10_000  # characters: text that nests without an end overflows its stack
COLUMNS, PAGE = "val_bpb.csv", "report.html"  # the table once more; the page of the run
LONGEST_PART = 255  # bytes of a name in a path, in most file systems
LONGEST_NAME = 200  # of a run, which gets a digest


@effects(Effect.NONE)
@dataclass
class RunConfig:
    """Where a run is kept and how often it is saved."""

    experiment: str = "aunet"
    """MLflow experiment, which groups runs"""
    name: str | None = None
    """name of the run; null: splitter, stages, widths and seed"""
    folder: str | None = None
    """folder of the run; null: runs/EXPERIMENT/NAME-DIGEST, with the digest of the settings that define the run"""
    tracking_uri: str | None = None
    """MLflow server or store; null: $MLFLOW_TRACKING_URI, or the SQLite file runs/mlflow.db"""
    tags: dict[str, str] = field(default_factory=dict)
    """further MLflow tags"""
    checkpoint_every: int = 100
    """steps between checkpoints, from which a killed run continues"""
    checkpoint_minutes: float | None = None
    """minutes between further checkpoints; null: none"""
    keep_last: int = 1
    """number of latest checkpoints to keep"""
    keep_best: int = 1
    """number of further checkpoints to keep for their val/bpb"""
    keep_at: list[float] = field(default_factory=list)
    """shares of the run (of its budget or its steps) just before which a further checkpoint is saved and kept, from
    which shorter runs can branch: with optimizer.cooldown 0.3 a run of a tenth branches at 0.07"""
    log_model: bool = True
    """at its end, log the run's best weights to MLflow as a model, which `mlflow models serve` serves"""
    register_as: str | None = None
    """name in MLflow's registry of models, of which the logged model becomes the newest version"""
    check_memory: bool = True
    """refuse a run that is expected to need more memory than the machine has"""
    rank_timeout: float = 60.0
    """seconds without a sign of life from another process of the run before this one ends with an error"""

    def __post_init__(self) -> None:
        check_fields(
            self, "run",
            checkpoint_every=Range(least=1, most=10**15), checkpoint_minutes=Range(above=0, most=10**7),
            keep_last=Range(least=1, most=10**6), keep_best=Range(least=0, most=10**6),
            keep_at=Range(above=0, below=1),
            rank_timeout=Range(above=0, most=10**7),
        )  # fmt: skip
        for name in ("experiment", "name"):
            if (value := getattr(self, name)) is not None:
                _check_name(f"run.{name}", value)
        if self.register_as is not None:
            _check_name("run.register_as", self.register_as)
            if {"/", ":"} & {*self.register_as}:
                raise ValueError(f"run.register_as is {show(self.register_as)}, and MLflow's names have no / and no :")
            if not self.log_model:
                raise ValueError("run.register_as names a model, and run.log_model is false: set it to true")
        for part in [] if self.folder is None else Path(self.folder).parts or [""]:
            _check_name("run.folder", part, LONGEST_PART)


def _check_name(key: str, name: str, longest: int = LONGEST_NAME) -> None:
    """Raises ValueError for a name that cannot also name a folder."""
    if not name.strip() or re.search(r"[\0-\x1f\x7f]", name) or len(name.encode("utf-8", "replace")) > longest:
        wanted = f"a name of 1 to {longest} bytes, without control characters"
        raise ValueError(f"{key} is {show(name)}, it must be {wanted}")


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.checkpoints = path / "checkpoints"
        self.kept_at = self.checkpoints / "kept.json"
        self.last = self.checkpoints / "last.ckpt"
        self.best = self.checkpoints / "best.ckpt"
        self.metrics = path / "metrics.jsonl"
        self.mlflow = path / "mlflow.json"
        self.predictions = path / "predictions.jsonl"
        self.documents = path / "val_documents.jsonl"  # bits of each, at the last validation
        self.table, self.columns = path / TABLE, path / COLUMNS
        self.units = path / UNITS
        self.page = path / PAGE
        self.looks = path / "looks.jsonl"  # what the page says of the model at each validation
        self.close_look = path / "close_look.json"  # what it says of the model at the last one
        self.failed = path / "failed"  # of a run that an error ended: what went wrong
        self.data = path / "data.json"  # the text that the run began with
        self.set_aside = path / "set_aside"  # what the run had when it went back to an older checkpoint
        self.moving = self.set_aside / "moving.json"  # what is still to move there

    @classmethod
    def around(cls, checkpoint: Path) -> "RunFolder":
        """Returns the run folder that contains a checkpoint."""
        return cls(checkpoint.resolve().parent.parent)

    def step(self, step: int) -> Path:
        """Returns the path of a step's checkpoint."""
        return self.checkpoints / f"step-{step:08}.ckpt"

    def saved(self) -> dict[int, Path]:
        """Returns the existing checkpoints by step; each is complete."""
        there = self.checkpoints.glob("step-*.ckpt") if self.checkpoints.is_dir() else ()
        return {int(path.stem.removeprefix("step-")): path for path in there}

    def kept(self) -> dict[float, int]:
        """Returns the steps of checkpoints that are kept for a share of the run (`RunConfig.keep_at`), by share."""
        saved = self.saved()
        pairs = json.loads(self.kept_at.read_text(encoding="utf-8")) if self.kept_at.exists() else []
        return {share: step for share, step in pairs if step in saved}

    def record_kept(self, steps: Mapping[float, int]) -> None:
        """Records such steps, before they are saved."""
        replace_text(self.kept_at, json.dumps([*steps.items()]))

    def newest(self) -> Path | None:
        """Returns the checkpoint from which a run continues, or None."""
        if there := self.saved():
            return there[max(there)]
        return self.last if self.last.exists() else None

    def record_failure(self, problem: str) -> None:
        """Records the error that ended the run, as far as the disk allows."""
        with suppress(OSError):
            replace_text(self.failed, problem + "\n")

    @property
    def weights(self) -> Path | None:
        """The best checkpoint, or the last one where none is known to be; None without one."""
        return next((path for path in (self.best, self.last) if path.exists()), None)

    def make(self) -> None:
        """Makes the folder. Raises UserError where that fails."""
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"run.folder: cannot write to {str(self.path)[:200]} ({error.strerror}): choose another run.folder"
            ) from None

    def keep(self, text: str) -> None:
        """Writes the configuration, completely or not at all. Raises UserError where that fails."""
        try:
            replace_text(self.config, text)
        except OSError as error:
            raise UserError(
                f"run.folder: cannot write to {self.path} ({error.strerror}): choose another run.folder"
            ) from None

    def settings(self) -> dict[str, Any]:
        """Returns the kept configuration. Raises UserError where it is damaged."""
        try:
            text = self.config.read_text(encoding="utf-8")
            kept = yaml.load(text, FAST_LOADER if len(text) <= FAST_UP_TO else yaml.SafeLoader)
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
            kept = None
        model = kept.get("model") if isinstance(kept, dict) else None
        if not isinstance(kept, dict) or not isinstance(model, dict) or not isinstance(model.get("net"), dict):
            raise UserError(
                f"{self.config} is damaged: restore it, delete it (the next aunet fit writes it anew), or choose "
                "another run.folder"
            )
        return kept
