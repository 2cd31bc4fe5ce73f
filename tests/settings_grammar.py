"""Settings of `aunet fit` drawn from a grammar: good ones, and ones with exactly one thing wrong.

`python -m tests.settings_grammar --draws 200` runs as many in this process and prints what came of each.
"""

import argparse
import contextlib
import copy
import io
import math
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

UDHR = Path(__file__).parent.parent / "experiments" / "data" / "udhr"
NAN, INF = math.nan, math.inf
LONG = "n" * 300


@dataclass
class Case:
    """Settings, and what should come of them."""

    good: bool
    what: str
    arguments: list[str] = field(default_factory=lambda: ["-c", "settings.yaml"])
    files: dict[str, bytes] = field(default_factory=dict)
    says: str = ""
    """what the error of a bad one has to name"""


def base(folder: Path) -> dict[str, Any]:
    """A run of a second, on text that `write_text` puts into `folder`."""
    return {
        "seed_everything": 1,
        "splitter": "whitespace",
        "upper_splitters": [],
        "data": {
            "train_files": [str(folder / "en.jsonl"), str(folder / "th.jsonl")],
            "holdout_every": 3,
            "row_bytes": 64,
            "batch_rows": 2,
            "workers": 0,
            "cache_dir": str(folder / "cache"),
        },
        "model": {"net": {"stages": stages(2)}, "optimizer": {"lr": 0.003, "warmup_steps": 1}},
        "trainer": {
            "accelerator": "cpu",
            "max_steps": 2,
            "check_val_every_n_epoch": None,
            "val_check_interval": 2,
            "limit_val_batches": 1,
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "logger": False,
        },
        "run": {"experiment": "t", "tracking_uri": f"sqlite:///{folder / 'mlflow.db'}"},
        "report": {"ngrams": []},
    }


def stages(count: int) -> list[dict[str, Any]]:
    return [{"dim": 16, "layers": 1, "head_dim": 8, "window": 16} for _ in range(count)]


def write_text(folder: Path, lines: int = 6) -> None:
    for name in ("en", "th"):
        text = (UDHR / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[1 : lines + 1]
        (folder / f"{name}.jsonl").write_text("\n".join(text) + "\n", encoding="utf-8")


STAGE = "model.net.stages.1."
OPTIMIZER = "model.optimizer."

# Values that run, whatever the others are.
GOOD: dict[str, list[Any]] = {
    "seed_everything": [0, 7, 2**32 - 1, True, False],
    "splitter": [
        "whitespace", "aunet_word", "cjk_character", "grapheme", "script_aware", "sentence_end", "spacelike",
        "syllable", "utf8_character", "router", "trie",
        {"name": "fixed", "n": 3}, {"name": "fixed", "n": 2, "of": "characters"},
        {"name": "cap", "of": "whitespace", "max_bytes": 5}, {"name": "union", "of": ["whitespace", "sentence_end"]},
        {"name": "reset_at", "of": {"name": "fixed", "n": 3}, "at": "whitespace"},
        {"name": "every", "n": 2, "of": "grapheme"}, {"name": "pattern", "patterns": r"\S+\s", "at": "start"},
        {"name": "script_aware", "n": 1}, {"name": "aunet_word", "words": 2}, {"name": "trie", "align": "byte"},
        {"name": "router", "bytes_per_unit": 4, "alpha": 0.1, "smoothing": False},
        {"name": "distilled", "teacher": "whitespace", "balance": 1.0}, "splitters.rules.whitespace:Whitespace",
    ],
    "data.row_bytes": [5, 17, 300], "data.batch_rows": [1, 3, 8], "data.holdout_every": [2, 4],
    "data.languages": [["en"], ["en", "th"], None], "data.text_key": ["text"], "data.language_key": ["lang"],
    "data.workers": [0, 1],
    "model.net.upsampling": ["multi_linear", "repeat", "copy", "insert"], "model.net.offsets": ["clamp", "modulo"],
    "model.net.max_offset": [1, 3, 40], "model.net.rope_theta": [1.5, 10000, 1e7], "model.net.norm_eps": [1e-8, 1e-3],
    "model.net.ffn_multiple_of": [1, 7, 64], "model.net.ffn_multiplier": [0.1, 2],
    "model.net.round_units_to": [1, 5, 64], "model.net.document_masking": [True, False],
    STAGE + "dim": [8, 24], STAGE + "layers": [1, 2], STAGE + "head_dim": [2, 4], STAGE + "window": [1, 1000, None],
    STAGE + "conv": [1, 4, None], STAGE + "skip": [True, False], STAGE + "max_units": [1, 9, None],
    "model.net.stages.0.skip": [False], "model.net.stages.0.conv": [3], "model.net.stages.0.window": [None, 1],
    OPTIMIZER + "lr": [1e-6, 0.1, "1e-3"], OPTIMIZER + "warmup_steps": [0, 1000], OPTIMIZER + "eps": [1e-10, 1e-3],
    OPTIMIZER + "final_lr_ratio": [0, 1], OPTIMIZER + "weight_decay": [0, 1], OPTIMIZER + "betas": [[0, 0], [0.9, 0.999]],
    OPTIMIZER + "stage_lr": [None, [1, 0]], OPTIMIZER + "splitter_lr": [0, 3], OPTIMIZER + "max_skipped": [0, 5],
    OPTIMIZER + "name": ["adamw"], "model.net.embedding": ["byte", "aunet_lightning.model.embedding:ByteEmbedding"],
    "model.metrics": [None, [], ["aunet_lightning.training.metrics:BitsPerByte"]],
    "model.budget": [{}, {"flops": 1e7}, {"bytes": 200}, {"seconds": 0.5}], "model.compile": [False],
    "model.parallel": [
        {"activation_checkpointing": True}, {"activation_checkpointing": [True, False]}, {"wrap": "stage"},
        {"wrap": ["stage", "block"], "reshard_after_forward": False}, {"shard_size": 1},
    ],
    "trainer.max_steps": [1, 3], "trainer.max_epochs": [1, -1, None], "trainer.min_steps": [0, 1],
    "trainer.min_epochs": [0, 1], "trainer.max_time": ["00:00:01:00", None],
    "trainer.limit_train_batches": [1, 2, 0.9, 1.0, None], "trainer.limit_val_batches": [0, 1, 0.9, 1.0],
    "trainer.overfit_batches": [0.0, 2], "trainer.val_check_interval": [1, 2, 100],
    "trainer.log_every_n_steps": [1, 50], "trainer.accumulate_grad_batches": [1, 2],
    "trainer.gradient_clip_val": [None, 0.5, 1], "trainer.gradient_clip_algorithm": [None, "norm"],
    "trainer.precision": [None, 32, "32-true", "bf16-mixed"], "trainer.devices": [1, "auto", "1"],
    "trainer.accelerator": ["cpu", "auto"], "trainer.num_nodes": [1], "trainer.deterministic": [True, False, "warn"],
    "trainer.detect_anomaly": [True], "trainer.fast_dev_run": [True, 1, False], "trainer.num_sanity_val_steps": [0, 1, -1],
    "trainer.profiler": [None, "simple"], "trainer.enable_progress_bar": [True, False],
    "trainer.enable_model_summary": [True, False], "trainer.enable_checkpointing": [False, None],
    "trainer.inference_mode": [True, False], "trainer.reload_dataloaders_every_n_epochs": [0],
    "trainer.default_root_dir": [".", None], "trainer.logger": [False, True, None],
    "trainer.callbacks": [None, [{"class_path": "lightning.pytorch.callbacks.ModelSummary"}]],
    "trainer.benchmark": [True, False], "trainer.sync_batchnorm": [True, False],
    "run.experiment": ["x", "ünï cödé", "a/b"], "run.name": ["r", "ünï", None], "run.folder": ["runs/here", None],
    "run.tags": [{}, {"a": "b"}], "run.checkpoint_every": [1, 1000], "run.checkpoint_minutes": [None, 0.5],
    "run.keep_last": [1, 3], "run.keep_best": [0, 2], "run.rank_timeout": [1.0, 1e4],
    "report.ngrams": [[], [1, 3]], "report.pictures_every": [0, 1], "report.sample_prompts": [[], [""], ["All ", "คน"]],
    "report.sample_bytes": [0, 3], "report.sample_temperature": [0, 0.8, 100.0],
}  # fmt: skip
BESIDE = [
    path for path in GOOD if path.startswith((OPTIMIZER, "run.", "report.", "model.net.")) and "stage" not in path
]
CLASH = [  # of these, one at a time
    {"trainer.logger", "trainer.callbacks"},
    {"model.budget", "trainer.max_steps"},
    {"data.languages", "data.language_key"},
    {"data.languages", "data.holdout_every"},
    {"trainer.fast_dev_run", "trainer.overfit_batches", "trainer.callbacks", "trainer.max_time"},
    {STAGE + "dim", STAGE + "head_dim"},
    {"data.batch_rows", "trainer.devices"},
]

WRONG: dict[str, list[Any]] = {  # for each kind of value, what it is not
    "whole": ["abc", "", [1], {"a": 1}, NAN, INF, -INF, 1.5, True, -(10**30), "1e"],
    "number": ["abc", "", [0.1], {"a": 1}, NAN, INF, -INF, False, -1e308],
    "flag": ["abc", "", 2, [], {}, NAN],
    "text": [[1], {"a": 1}, True],
    "choice": ["wrong", "", 3, [], {"a": 1}],
    "list": ["abc", 3, {"a": 1}, True],
    "mapping": ["abc", 3, [], [1], True],
}
KINDS: dict[str, tuple[str, list[Any]]] = {  # the kind of each key, and what else it cannot be
    "seed_everything": ("whole", [-1, 2**32, 2**63, 10**30]),
    "data": ("mapping", []), "model": ("mapping", []), "trainer": ("mapping", []), "run": ("mapping", []),
    "report": ("mapping", []), "model.net": ("mapping", [None]), "model.optimizer": ("mapping", []),
    "model.budget": ("mapping", []), "model.parallel": ("mapping", []),
    "data.row_bytes": ("whole", [0, -1, None, 10**9, 10**30]), "data.batch_rows": ("whole", [0, -1, None, 10**8]),
    "data.holdout_every": ("whole", [0, 1, -3, 10**30]), "data.workers": ("whole", [-1, None, 10**6]),
    "data.languages": ("list", [[], ["xx"], [False], [None], [1]]), "data.text_key": ("text", [None]),
    "data.language_key": ("text", [None]), "data.cache_dir": ("text", ["/proc/no"]),
    "data.train_files": ("list", [[], ["none.jsonl"], [3], [""], [{"lang": "x"}], None, [{"path": "*.jsonl", "lang": False}],
                                  [{"path": "*.jsonl", "long": "x"}], [{"path": "*.jsonl", "format": "x"}], [LONG]]),
    "data.val_files": ("list", [["none.jsonl"], [{"path": 3}]]), "data.test_files": ("list", [["none.jsonl"]]),
    "model.net.stages": ("list", [[], [3], [{}], [{"dim": 16}], ["a", "b"], None, stages(1), stages(3), stages(5)]),
    "model.net.upsampling": ("choice", [None, "math:sqrt", "no:thing", ":", "a:"]), "model.net.embedding": ("choice", [None, "os:x"]),
    OPTIMIZER + "name": ("choice", [None, "math:sqrt"]), "model.metrics": ("list", [["bpb"], [3], ["os:x"], [None]]),
    "model.net.offsets": ("choice", [None]),
    "model.net.max_offset": ("whole", [0, -1, None, 10**9]), "model.net.rope_theta": ("number", [0, -1, None]),
    "model.net.norm_eps": ("number", [0, -1, None, 10]), "model.net.ffn_multiple_of": ("whole", [0, -1, None, 10**9]),
    "model.net.ffn_multiplier": ("number", [0, -1, None, 1e308, 1e9]), "model.net.round_units_to": ("whole", [0, -2, None, 10**9]),
    "model.net.document_masking": ("flag", [None]),
    STAGE + "dim": ("whole", [0, -8, None, 10**6, 10**30, 12]), STAGE + "layers": ("whole", [0, -1, None, 10**6]),
    STAGE + "head_dim": ("whole", [0, -2, 1, 3, 32, None]), STAGE + "window": ("whole", [0, -1]),
    STAGE + "conv": ("whole", [0, -1, 10**9]), STAGE + "skip": ("flag", [None]), STAGE + "max_units": ("whole", [0, -1]),
    "model.net.stages.0.max_units": ("whole", [1, 5]),
    OPTIMIZER + "lr": ("number", [0, -1, None, 1e308]), OPTIMIZER + "warmup_steps": ("whole", [-1, None, 10**30]),
    OPTIMIZER + "final_lr_ratio": ("number", [-0.1, None, 1e9]), OPTIMIZER + "weight_decay": ("number", [-0.1, None, 1e308]),
    OPTIMIZER + "betas": ("list", [[0.9], [0.9, 0.95, 0.99], [0.9, 1], [1.0, 0.9], [-0.1, 0.9], [NAN, 0.9], ["a", "b"], None, []]),
    OPTIMIZER + "eps": ("number", [0, -1, None, 1e308]), OPTIMIZER + "stage_lr": ("list", [[1], [1, 2, 3], [-1, 1], [NAN, 1], ["a", 1]]),
    OPTIMIZER + "splitter_lr": ("number", [-1, None]), OPTIMIZER + "max_skipped": ("whole", [-1, None]),
    "model.budget.flops": ("number", [0, -1]), "model.budget.bytes": ("number", [0, -1]), "model.budget.seconds": ("number", [0, -1]),
    "model.compile": ("flag", [None]),
    "model.parallel.activation_checkpointing": ("flag", [None, [True], [True, 3]]), "model.parallel.wrap": ("choice", [None, ["block"], ["block", "x"]]),
    "model.parallel.param_dtype": ("choice", ["float16", ["bfloat16"]]), "model.parallel.reduce_dtype": ("choice", [None]),
    "model.parallel.reshard_after_forward": ("flag", [None]), "model.parallel.cpu_offload": ("flag", [None]),
    "model.parallel.shard_size": ("whole", [0, -1]),
    "trainer.max_steps": ("whole", [0, -2, None, 10**30]), "trainer.max_epochs": ("whole", [0, -2, 10**30]),
    "trainer.min_steps": ("whole", [-1, 10**30]), "trainer.min_epochs": ("whole", [-1]),
    "trainer.max_time": ("text", ["abc", "", "1", "1:2", "00:00:00:xx", {"hour": 1}, {"hours": "x"}, {"hours": NAN}, {}, "-1:00:00:00", "00:00:00:00"]),
    "trainer.limit_train_batches": ("number", [0, -1, 1.5, -0.5, 0.0]), "trainer.limit_val_batches": ("number", [-1, 1.5, -0.5]),
    "trainer.limit_test_batches": ("number", [-1, 1.5]), "trainer.limit_predict_batches": ("number", [-1, 1.5]),
    "trainer.overfit_batches": ("number", [-1, 1.5, None]), "trainer.val_check_interval": ("number", [0, -1, 1.5, 0.5, 0.0]),
    "trainer.check_val_every_n_epoch": ("whole", [0, -1]), "trainer.num_sanity_val_steps": ("whole", [-2]),
    "trainer.log_every_n_steps": ("whole", [0, -1]), "trainer.accumulate_grad_batches": ("whole", [0, -1, None]),
    "trainer.gradient_clip_val": ("number", [-1]), "trainer.gradient_clip_algorithm": ("choice", []),
    "trainer.precision": ("choice", ["8", "fp8", "16-true-mixed", NAN]), "trainer.devices": ("whole", [0, -1, -2, [0, 0], "0", [], "a,b"]),
    "trainer.accelerator": ("choice", ["gpu", "cuda", "tpu", None]), "trainer.strategy": ("choice", [None, "ddp_sharded"]),
    "trainer.num_nodes": ("whole", [0, -1, None]), "trainer.deterministic": ("flag", []), "trainer.detect_anomaly": ("flag", [None]),
    "trainer.fast_dev_run": ("flag", [-1, None]), "trainer.profiler": ("choice", []),
    "trainer.enable_progress_bar": ("flag", []), "trainer.enable_model_summary": ("flag", []), "trainer.enable_checkpointing": ("flag", []),
    "trainer.inference_mode": ("flag", [None]), "trainer.barebones": ("flag", [None]), "trainer.reload_dataloaders_every_n_epochs": ("whole", [-1, None]),
    "trainer.default_root_dir": ("text", []), "trainer.logger": ("flag", [{"class_path": "Nothing"}, {"class_path": 3}]),
    "trainer.callbacks": ("list", [[3], ["abc"], [{"class_path": "Nope"}], [{"class_path": "ModelCheckpoint", "init_args": {"wrong": 1}}],
                                   [{"class_path": "lightning.pytorch.callbacks.EarlyStopping"}]]),
    "trainer.plugins": ("list", [[3], ["abc"]]), "trainer.benchmark": ("flag", []), "trainer.sync_batchnorm": ("flag", [None]),
    "trainer.use_distributed_sampler": ("flag", [None]),
    "run.experiment": ("text", ["", LONG, "a\0b", None]), "run.name": ("text", ["", LONG, "a\0b"]), "run.folder": ("text", ["", LONG, "a\0b", "/proc/no"]),
    "run.tracking_uri": ("text", ["sqlite:////proc/no/m.db", "nothing://x", "sqlite:////proc"]), "run.tags": ("mapping", [{"a": 1}, {"a": [1]}]),
    "run.checkpoint_every": ("whole", [0, -1, None]), "run.checkpoint_minutes": ("number", [0, -1, 1e308]),
    "run.keep_last": ("whole", [0, -1, None]), "run.keep_best": ("whole", [-1, None]), "run.rank_timeout": ("number", [0, -1, None, 1e308]),
    "report.ngrams": ("list", [[0], [-1], [10**6], ["a"], [1.5], None, [NAN]]), "report.pictures_every": ("whole", [-1, None]),
    "report.sample_prompts": ("list", [[1], [False], None]), "report.sample_bytes": ("whole", [-1, None]),
    "report.sample_temperature": ("number", [-1, 1e-38, None]),
}  # fmt: skip
BAD_SPLITTERS: list[Any] = [
    "whitespce", "", 3, True, [], ["whitespace"], {}, {"name": 3}, {"n": 3}, {"name": "fixed", "n": 0},
    {"name": "fixed", "n": -1}, {"name": "fixed", "n": NAN}, {"name": "fixed", "n": 1.5}, {"name": "fixed", "n": "a"},
    {"name": "fixed", "n": True}, {"name": "fixed", "n": None}, {"name": "fixed", "m": 2}, {"name": "fixed", "of": "words"},
    {"name": "fixed", "of": 3}, {"name": "fixed", "n": [2]}, {"name": "fixed", "n": {"a": 1}},
    {"name": "cap", "of": "nothing"}, {"name": "cap", "max_bytes": 0}, {"name": "cap", "max_bytes": NAN},
    {"name": "cap", "of": None}, {"name": "cap", "of": 3}, {"name": "cap", "of": "router"}, {"name": "union", "of": []},
    {"name": "union", "of": "whitespace"}, {"name": "union", "of": [3]}, {"name": "union", "of": {"a": 1}},
    {"name": "union", "of": None}, {"name": "reset_at", "at": 3},
    {"name": "every", "n": 0, "of": "whitespace"}, {"name": "every", "n": NAN, "of": "whitespace"},
    {"name": "every", "sentence_end": 3, "of": "whitespace"}, {"name": "pattern", "patterns": "("}, {"name": "pattern", "patterns": ""},
    {"name": "pattern", "patterns": 3}, {"name": "pattern", "patterns": []}, {"name": "pattern", "patterns": [3]},
    {"name": "pattern", "patterns": None}, {"name": "pattern", "at": "middle"}, {"name": "pattern", "at": []},
    {"name": "trie", "vocabulary": "none.json"}, {"name": "trie", "vocabulary": 3}, {"name": "trie", "align": "x"},
    {"name": "script_aware", "n": 0}, {"name": "script_aware", "n": "a"}, {"name": "script_aware", "n": INF},
    {"name": "aunet_word", "words": 0}, {"name": "aunet_word", "words": NAN}, {"name": "aunet_word", "words": 10**30},
    {"name": "spacelike", "align": 3}, {"name": "entropy"}, {"name": "entropy", "checkpoint": "none.ckpt", "threshold": 1},
    {"name": "entropy", "checkpoint": 3, "threshold": NAN}, {"name": "router", "bytes_per_unit": 0},
    {"name": "router", "bytes_per_unit": NAN}, {"name": "router", "bytes_per_unit": INF}, {"name": "router", "alpha": -1},
    {"name": "router", "alpha": NAN}, {"name": "router", "control": INF}, {"name": "router", "smoothing": 3},
    {"name": "distilled", "teacher": "nothing"}, {"name": "distilled", "teacher": 3}, {"name": "distilled", "alpha": 0},
    {"name": "distilled", "balance": 2}, {"name": "distilled", "balance": NAN}, {"name": "distilled", "teacher_steps": -1},
    {"name": "distilled", "teacher_steps": NAN}, {"name": "whitespace", "n": 2}, "nomodule:X", "math:sqrt", "os:nothing",
    ":", "a:", ":b", {"name": "whitespace", 3: 4}, {"name": "fixed", "n": 10**30},
]  # fmt: skip
TOGETHER: list[tuple[str, dict[str, Any], str]] = [  # settings that contradict each other
    ("two budgets", {"model.budget": {"flops": 1e7, "bytes": 100}}, "budget"),
    ("no end", {"trainer.max_steps": -1}, "max_steps"),
    ("no splitter", {"splitter": None}, "splitter"),
    ("upper without splitter", {"splitter": None, "upper_splitters": [{"name": "every", "n": 2}]}, "splitter"),
    ("too many splitters", {"upper_splitters": [{"name": "every", "n": 2}]}, "upper_splitters"),
    ("upper is unknown", {"upper_splitters": ["evry"], "model.net.stages": stages(3)}, "evry"),
    ("upper is no rule of units", {"upper_splitters": [3], "model.net.stages": stages(3)}, "upper_splitters"),
    ("upper is a text", {"upper_splitters": "every"}, "upper_splitters"),
    ("tokens with a splitter", {"tokenizer": {"vocab_size": 300}}, "tokenizer|vocabulary"),
    ("tokens of no size", {"tokenizer": {"vocab_size": 3}, "splitter": None, "model.net.stages": stages(1)}, "vocab_size"),
    ("tokens of no file", {"tokenizer": "none.json", "splitter": None, "model.net.stages": stages(1)}, "tokenizer"),
    ("tokens, wrong key", {"tokenizer": {"size": 300}, "splitter": None, "model.net.stages": stages(1)}, "tokenizer"),
    ("tokens, nan", {"tokenizer": {"vocab_size": NAN}, "splitter": None, "model.net.stages": stages(1)}, "tokenizer"),
    ("tokens, a list", {"tokenizer": [300], "splitter": None, "model.net.stages": stages(1)}, "tokenizer"),
    ("batch not of devices", {"trainer.devices": 2, "data.batch_rows": 3}, "batch_rows"),
    ("min beyond max", {"trainer.min_steps": 9}, "min_steps"),
    ("interval beyond the epoch", {"trainer.check_val_every_n_epoch": 1, "trainer.val_check_interval": 10**6}, "val_check_interval"),
    ("fraction without epochs", {"trainer.val_check_interval": 0.5}, "val_check_interval"),
    ("a set link", {"data.seed": 3}, "data.seed"),
    ("a linked vocabulary", {"model.net.vocabulary": 300}, "model.net.vocabulary"),
    ("linked splitters", {"model.splitters": ["whitespace"]}, "model.splitters"),
    ("a linked splitter", {"data.splitter": "whitespace"}, "data.splitter"),
    ("barebones with a logger", {"trainer.barebones": True, "trainer.logger": True}, "barebones"),
    ("large network", {"model.net.stages.1.dim": 65536, "model.net.stages.1.layers": 200}, "memory"),
    ("fsdp2 of a param type with bf16", {"trainer.strategy": "fsdp2", "model.parallel.param_dtype": "bfloat16",
                                         "trainer.precision": "bf16-mixed"}, "param_dtype"),
]  # fmt: skip
UNKNOWN = [
    "splittr", "upper_splitter", "optimizer", "lr", "data.train_file", "data.rowbytes", "model.nett", "model.net.stage",
    "model.net.upsampeling", "model.net.stages.0.dims", "model.net.stages.1.windows", "model.optimizer.learning_rate",
    "model.optimizer.wramup_steps", "model.budget.flop", "model.parallel.warp", "trainer.max_step", "trainer.gpus",
    "trainer.x", "run.nam", "report.ngram", "report.sample_temprature", "model.lr", "modle",
]  # fmt: skip


def put(settings: dict[str, Any], path: str, value: Any) -> None:
    """Sets a dotted key, and makes the mappings that lead to it."""
    *above, last = path.split(".")
    place: Any = settings
    for key in above:
        place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
    place[last] = copy.deepcopy(value)


def good(rng: random.Random, folder: Path, changes: int | None = None) -> tuple[dict[str, Any], str]:
    """Returns settings that run, and what is special about them."""
    settings = base(folder)
    count = rng.choice((1, 2, 2, 2, 3, 4))
    taken: list[str] = []
    for path in rng.sample(sorted(GOOD), rng.randint(1, 6) if changes is None else changes):
        if not any(path in clash and clash & {*taken} for clash in CLASH):
            value = rng.choice(GOOD[path])
            put(settings, path, value)
            taken.append(f"{path}={value!r}")
            taken.append(path)
    if not changes and not any(
        path.startswith(("model.net.stages", "model.parallel", OPTIMIZER + "stage_lr")) for path in taken
    ):
        put(settings, "model.net.stages", stages(count))
        put(settings, "upper_splitters", [{"name": "every", "n": rng.choice((2, 3))} for _ in range(count - 2)])
        if count == 1:
            put(settings, "splitter", None)
        taken.append(f"{count} stages")
    return settings, ", ".join(one for one in taken if one not in GOOD)


def bad_values() -> list[tuple[str, Any]]:
    """Every key with every value that it cannot have."""
    pairs = [(path, value) for path, (kind, more) in KINDS.items() for value in [*WRONG[kind], *more]]
    return [pair for pair in pairs if not _fits(*pair)] + [("splitter", rule) for rule in BAD_SPLITTERS]


def _fits(path: str, value: Any) -> bool:
    """Whether a value that is wrong for its kind is right for this key."""
    also: dict[str, tuple[Any, ...]] = {
        "seed_everything": (True,), "trainer.fast_dev_run": (2,), "trainer.logger": ([],), "trainer.plugins": ([],),
        "model.parallel.activation_checkpointing": ([],), "model.parallel.reshard_after_forward": ([],),
    }  # fmt: skip
    return any(value is other or (value == other and type(value) is type(other)) for other in also.get(path, ()))


def case(settings: dict[str, Any], what: str, says: str, is_good: bool = False) -> Case:
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    return Case(is_good, what, files={"settings.yaml": text.encode()}, says=says)


def odd_files(folder: Path) -> list[Case]:
    """Configurations that are no settings at all."""
    text = yaml.safe_dump(base(folder), sort_keys=False)
    raw: list[tuple[str, bytes, str]] = [
        ("empty", b"", "settings.yaml"), ("a list", b"- a\n- b\n", "settings.yaml"), ("a word", b"hello\n", "settings.yaml"),
        ("a number", b"3\n", "settings.yaml"), ("binary", bytes(range(256)), "settings.yaml"),
        ("random bytes", b"\x89PNG\r\n\x1a\n\x00\x00\xff\xfe", "settings.yaml"), ("UTF-16", text.encode("utf-16-le"), "settings.yaml"),
        ("Latin-1", b"run: {name: caf\xe9}\n", "settings.yaml"), ("open brace", b"run: {name: a\n", "settings.yaml"),
        ("tab", b"run:\n\tname: a\n", "settings.yaml"), ("colon", b"run: name: a\n", "settings.yaml"),
        ("quote", b"run: {name: 'a}\n", "settings.yaml"), ("indent", b"run:\n  name: a\n experiment: b\n", "settings.yaml"),
        ("alias", b"run: *nothing\n", "settings.yaml"), ("tag", b"run: !!python/object:os.system {}\n", "settings.yaml"),
        ("two documents", b"run: {name: a}\n---\nrun: {name: b}\n", "settings.yaml"), ("key twice", (text + "run: {name: a}\n").encode(), "run"),
        ("deep", b"run: " + b"[" * 3000 + b"]" * 3000, "settings.yaml"), ("only a comment", b"# nothing\n", "settings.yaml"),
        ("a key that is a list", b"? [a, b]\n: 3\n", "settings.yaml"), ("a number as key", (text + "3: 4\n").encode(), "3"),
        ("a null key", (text + "null: 4\n").encode(), ""), ("nested", b"run: {a: {b: {c: 1}}}\n", "run.a"),
        ("another command", b"fit:\n  run: {name: a}\n", "fit"), ("recursive", b"run: &a {tags: *a}\n", "settings.yaml"),
    ]  # fmt: skip
    cases = [Case(False, f"file: {what}", files={"settings.yaml": data}, says=says) for what, data, says in raw]
    whole = {"settings.yaml": text.encode()}
    for arguments, says in (
        (["-c", ""], "-c"), (["-c", "."], "."), (["-c", "none.yaml"], "none.yaml"), (["-c"], "-c"), (["-c", LONG], "n"),
        (["-c", "settings.yaml", "--nothing", "3"], "nothing"), (["-c", "settings.yaml", "more"], "more"),
        (["-c", "settings.yaml", "--trainer.max_steps"], "max_steps"), (["-c", "settings.yaml", "--trainer.max_steps", ""], "max_steps"),
        (["-c", "settings.yaml", "--trainer.max_steps", "nan"], "max_steps"), (["-c", "settings.yaml", "--model.optimizer.lr", ".nan"], "lr"),
        (["-c", "settings.yaml", "--model.optimizer.lr=inf"], "lr"), (["-c", "settings.yaml", "--model.net.stages", "[{dim: x}]"], "dim"),
        (["-c", "settings.yaml", "--splitter", "{name: fixed, n"], "splitter"), (["-c", "settings.yaml", "--data.languages", "[no]"], "false"),
        (["-c", "settings.yaml", "--data.languages", "en"], "languages"), (["-c", "settings.yaml", "--data.train_files", "a.jsonl"], "train_files"),
        (["-c", "settings.yaml", "--trainer.callbacks", "Nope"], "callbacks"), (["-c", "settings.yaml", "--trainer.logger", "Nope"], "logger"),
        (["-c", "settings.yaml", "--trainer.accelerator", "gpuu"], "gpuu"), (["-c", "settings.yaml", "--ckpt_path", ""], "checkpoint|ckpt_path"),
        (["-c", "settings.yaml", "--ckpt_path", "none.ckpt"], "none.ckpt"), (["-c", "settings.yaml", "--ckpt_path", "."], "checkpoint|ckpt_path"),
        (["-c", "settings.yaml", "-c", "none.yaml"], "none.yaml"), (["--splitter", "whitespace"], "model.net"), ([], "model.net"),
        (["-c", "settings.yaml", "--trainer.devices", "0"], "devices"), (["-c", "settings.yaml", "--trainer", "none.yaml"], "none.yaml"),
        (["-c", "settings.yaml", "--trainer.precision", "17"], "precision"), (["-c", "settings.yaml", "--seed_everything", "-1"], "seed"),
    ):  # fmt: skip
        cases.append(Case(False, f"arguments: {arguments}", ["--" * 0 + one for one in arguments], whole, says))
    return cases


def bad(rng: random.Random, folder: Path, everything: list[Any]) -> Case:
    """Returns one case out of `everything` (see `every_bad`), its other settings drawn."""
    one = rng.choice(everything)
    return one if isinstance(one, Case) else _made(rng, folder, *one)


def _made(rng: random.Random, folder: Path, what: str, changes: dict[str, Any], says: str) -> Case:
    settings = base(folder)
    elsewhere = [path for path in BESIDE if not any(path.startswith(one.partition(".")[0]) for one in changes)]
    for path in rng.sample(elsewhere, min(rng.randint(0, 3), len(elsewhere))):
        put(settings, path, rng.choice(GOOD[path]))
    for path, value in changes.items():
        put(settings, path, value)
    return case(settings, what, says)


WITH = {path: {"trainer.logger": None} for path in ("run.tracking_uri", "run.experiment", "run.tags", "run.name")}


def every_bad(folder: Path) -> list[Any]:
    """All that can be wrong: cases, or (what, changes, says)."""
    found: list[Any] = [
        (f"{path}={value!r}"[:120], {path: value} | WITH.get(path, {}), _named(path, value))
        for path, value in bad_values()
    ]
    found += TOGETHER
    found += [(f"unknown {path}", {path: 3}, path.split(".")[-1]) for path in UNKNOWN]
    return [*found, *odd_files(folder)]


def _named(path: str, value: Any) -> str:
    """What an error has to name: the setting, or of a splitter its name."""
    rule = value.get("name", "splitter") if path == "splitter" and isinstance(value, dict) else None
    return f"{rule}|splitter|teacher" if isinstance(rule, str) else path.rpartition(".")[2]


@dataclass
class Result:
    """What came of a case."""

    code: int | str
    """0, 1, 2, or what went wrong: 'traceback', 'hang'"""
    out: str
    error: str
    seconds: float


def run(one: Case, folder: Path, limit: float = 20.0) -> Result:
    """Runs `aunet fit` in this process and in an empty folder under `folder`."""
    from aunet_lightning.cli.main import main

    place = Path(tempfile.mkdtemp(dir=folder))
    for name, data in one.files.items():
        (place / name).write_bytes(data)
    out, error = io.StringIO(), io.StringIO()
    begin, before = time.perf_counter(), os.getcwd()
    code: int | str
    os.chdir(place)
    try:
        with _within(limit), contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            code = main(["fit", *one.arguments])
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else "traceback"
    except Hang:
        code = "hang"
        error.write(traceback.format_exc())
    except BaseException:  # what a user would see as a traceback
        code = "traceback"
        error.write(traceback.format_exc())
    finally:
        os.chdir(before)
        torch.use_deterministic_algorithms(False)  # which a trainer sets for the whole process
        torch.autograd.set_detect_anomaly(False)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return Result(code, out.getvalue(), error.getvalue(), time.perf_counter() - begin)


class Hang(BaseException):
    """The time is over."""


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


INTERNAL = (
    "typing.", "<class", "NoneType", "jsonargparse", "Subtypes", "ArgumentError", "Parser key", "Traceback", "Does not validate",
    "Namespace(", "PosixPath", "object at 0x", "Problem with given", "Union[", "Literal[",
)  # fmt: skip
LONGEST = 400


def faults(one: Case, got: Result) -> list[str]:
    """Returns what is not as it should be."""
    if one.good:
        return [] if got.code == 0 else [f"a good one ends with {got.code}"]
    found = [] if got.code in (1, 2) else [f"ends with {got.code}"]
    lines = [line for line in got.error.splitlines() if "error:" in line]
    if len(lines) != 1:
        found.append(f"{len(lines)} lines with error:")
    last = got.error.rpartition("error:")[2].strip()
    if not any(word in last.casefold() for word in one.says.casefold().split("|")):
        found.append(f"does not name {one.says!r}")
    if len(last) > LONGEST:
        found.append(f"{len(last)} characters")
    found += [f"says {word!r}" for word in INTERNAL if word in last]
    return found


def script() -> None:
    parser = argparse.ArgumentParser(description="Draws settings and runs them.")
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=("good", "bad", "all-bad"), default="bad")
    parser.add_argument("--only", default="", help="a word in what is drawn")
    parser.add_argument("--part", default="0/1", help="of all-bad: i/n")
    parser.add_argument("--limit", type=float, default=20.0)
    parser.add_argument("--show", action="store_true", help="print every error, not only the wrong ones")
    options = parser.parse_args()
    import resource

    import aunet_lightning.cli.training  # noqa: F401 (so that its seconds are those of no case)

    resource.setrlimit(resource.RLIMIT_AS, (14 * 2**30, 14 * 2**30))
    rng = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp())
    write_text(folder)
    everything = every_bad(folder)
    if options.kind == "good":
        cases = [case(settings, what, "", True) for settings, what in (good(rng, folder) for _ in range(options.draws))]
    elif options.kind == "bad":
        cases = [bad(rng, folder, everything) for _ in range(options.draws)]
    else:
        i, n = map(int, options.part.split("/"))
        cases = [one if isinstance(one, Case) else _made(rng, folder, *one) for one in everything][i::n]
    cases = [one for one in cases if options.only in one.what]
    wrong, slowest = 0, 0.0
    for one in cases:
        got = run(one, folder, options.limit)
        found = faults(one, got)
        wrong, slowest = wrong + bool(found), max(slowest, got.seconds)
        if found or options.show:
            tail = (
                got.error.strip()[-1500:]
                if got.code in ("traceback", "hang")
                else got.error.rpartition("error:")[2].strip()
            )
            print(f"[{got.code}, {got.seconds:.1f} s] {one.what}\n    {found}\n    {tail[:1600]}", flush=True)
    print(f"{len(cases)} drawn, {wrong} wrong, slowest {slowest:.1f} s")


if __name__ == "__main__":
    sys.exit(script())
