"""Runs begun by earlier versions: the names of their folders, and the defaults they had.

Up to commit ba12ae9 a folder's digest was that of all defining settings, defaults included.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from aunet_lightning.effects import flat

STAGE = {"dim": None, "layers": None, "head_dim": 64, "window": None, "conv": None, "skip": True, "max_units": None}
SETTINGS: dict[str, Any] = {  # the defining ones of then, with their defaults
    "seed_everything": 1,
    "splitter": "script_aware",
    "upper_splitters": [],
    "tokenizer": None,
    "trainer": {
        "precision": None, "gradient_clip_val": 1.0, "gradient_clip_algorithm": None, "accumulate_grad_batches": 1,
        "overfit_batches": 0.0, "limit_train_batches": None, "max_steps": -1, "max_epochs": -1,
    },
    "data": {
        "train_files": None, "val_files": None, "test_files": None, "holdout_every": None, "languages": None,
        "text_key": "text", "language_key": "lang", "row_bytes": 1024, "batch_rows": 16,
    },
    "model": {
        "net": {
            "stages": [STAGE], "upsampling": "multi_linear", "max_offset": 16, "offsets": "clamp",
            "document_masking": True, "rope_theta": 500000.0, "norm_eps": 1e-5, "ffn_multiple_of": 16,
            "ffn_multiplier": 1.0, "round_units_to": 16,
        },
        "optimizer": {
            "lr": 2e-3, "warmup_steps": 100, "final_lr_ratio": 0.1, "weight_decay": 0.1, "betas": [0.9, 0.95],
            "eps": 1e-8, "stage_lr": None, "splitter_lr": 1.0, "max_skipped": 10,
        },
        "budget": {"flops": None, "bytes": None, "seconds": None},
    },
}  # fmt: skip
UNRECORDED = {"document_masking": False}  # of model.net: what a run had that does not record it


def digest(config: Mapping[str, Any], definition: Mapping[str, Any]) -> str | None:
    """Returns the digest that named a run's folder, or None for a run that could not be configured then.

    definition: what defines the run now, flat and without defaults
    """
    then = dict(flat(_as_then(config, SETTINGS)))
    if not definition.keys() <= then.keys():
        return None
    return hashlib.sha256(json.dumps(then, sort_keys=True, default=str).encode()).hexdigest()[:6]


def _as_then(config: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings known then, absent ones with their defaults."""
    found: dict[str, Any] = {}
    for name, default in known.items():
        value = config.get(name, default)
        if isinstance(default, dict):
            value = _as_then(value, default)
        elif name == "stages":
            value = [_as_then(stage, STAGE) for stage in value]
        found[name] = value
    return found


def completed(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that a run kept, with those that its version did not record."""
    net = UNRECORDED | kept["model"]["net"]
    return {**kept, "model": {**kept["model"], "net": net}}
