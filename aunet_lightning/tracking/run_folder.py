"""One folder per run: its configuration, checkpoints, metrics and MLflow id. The same command continues it."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from aunet_lightning.errors import UserError


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
    checkpoint_every: int = 100
    """steps between checkpoints that a killed run continues from"""


# What makes a run this run and not another. The rest (how long, on what machine, how reported) may change.
DEFINING = ("seed_everything", "splitter", "upper_splitters", "data", "model")
NOT_DEFINING = ("data.workers", "data.cache_dir", "model.compile")


def defining(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that define a run, flat: {'model.net.upsampling': 'repeat', …}."""
    flat = dict(_flat({key: config[key] for key in DEFINING if key in config}))
    return {key: value for key, value in flat.items() if key not in NOT_DEFINING}


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
    """Returns a rule as one word: `fixed-n4`."""
    if rule is None:
        return "bytes"
    if isinstance(rule, str):
        return rule.rpartition(":")[2]
    options = [f"{key}{value}" for key, value in rule.items() if key != "name"]
    return "-".join([str(rule["name"]).rpartition(":")[2], *options])


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

    @classmethod
    def of(cls, run: RunConfig, name: str, config: Mapping[str, Any]) -> "RunFolder":
        """Returns the folder of a run with this configuration; nothing is made yet."""
        if run.folder is not None:
            return cls(Path(run.folder))
        digest = hashlib.sha256(json.dumps(defining(config), sort_keys=True, default=str).encode()).hexdigest()[:6]
        return cls(Path("runs") / run.experiment / f"{name}-{digest}")

    @classmethod
    def around(cls, checkpoint: Path) -> "RunFolder":
        """Returns the folder that a checkpoint lies in."""
        return cls(checkpoint.resolve().parent.parent)

    def begin(self, config: Mapping[str, Any], text: str) -> Path | None:
        """Makes the folder, keeps the configuration, and returns the checkpoint to go on from, if there is one.

        Raises UserError if the folder holds a run that was defined otherwise, or cannot be written.
        """
        if self.config.exists() and (differences := self.differences(config)):
            raise UserError(
                f"run.folder: {self.path} holds another run; it differs in {'; '.join(differences)}. "
                "Choose another run.folder, or leave it out to have one made"
            )
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self.config.write_text(text)
        except OSError as error:
            raise UserError(f"run.folder: cannot write to {self.path} ({error}): choose another run.folder") from None
        return self.last if self.last.exists() else None

    def differences(self, config: Mapping[str, Any]) -> list[str]:
        """Returns the defining settings in which `config` differs from the run that is kept here."""
        kept = defining(yaml.safe_load(self.config.read_text()))
        ours = defining(config)
        keys = sorted(kept.keys() | ours.keys())
        return [f"{key} (there {kept.get(key)!r}, here {ours.get(key)!r})" for key in keys if kept.get(key) != ours.get(key)]
