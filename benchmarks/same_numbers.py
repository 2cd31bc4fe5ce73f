"""Shows that a change to the code changes no number: records every number of a checkout, and compares two records.

    python benchmarks/same_numbers.py TREE OUT.json         # TREE: a checkout of this repository
    python benchmarks/same_numbers.py --compare A.json B.json  # exit code 1, and what differs, where something does

Floats are kept to the last bit (hexadecimal), tensors and long texts as the SHA-256 of their bytes. What is recorded
goes by what outlives a refactoring: the commands, the stable names, and the files of a run. Wall clock, throughput and
MLflow's ids are left out. About three minutes on two idle cores; only numbers of one machine are comparable.
"""

import argparse
import contextlib
import csv
import hashlib
import importlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]
DATA = "experiments/data/udhr"  # of the checkout, seen from the scratch folder: settings name no absolute path
THREADS = "1"
LANGUAGES = [f"{DATA}/{name}.jsonl" for name in ("en", "th", "zh-Hans")]
TEST = [f"{DATA}/de.jsonl"]
THREE = [{"dim": 16, "layers": 1, "head_dim": 8, "window": 16}, {"dim": 24, "layers": 1, "head_dim": 8, "window": 12},
         {"dim": 16, "layers": 2, "head_dim": 8}]  # fmt: skip
UNSKIPPED = {**THREE[0], "skip": False}
CONVS = [{**stage, "conv": 4} for stage in THREE]
FLAT = [{"dim": 16, "layers": 2, "head_dim": 8, "window": 16}]
EVERY = {"name": "every", "n": 2}
SETTINGS = {
    "seed_everything": 3,
    "splitter": "whitespace",
    "upper_splitters": [EVERY],
    "data": {"train_files": LANGUAGES, "test_files": TEST, "holdout_every": 10, "row_bytes": 128,
             "batch_rows": 8, "workers": 0},
    "model": {"net": {"stages": THREE}, "optimizer": {"lr": 0.01, "warmup_steps": 5}},
    "trainer": {"accelerator": "cpu", "max_steps": 20, "log_every_n_steps": 1, "check_val_every_n_epoch": None,
                "val_check_interval": 10, "enable_progress_bar": False, "deterministic": True},
    "run": {"checkpoint_every": 7},
    "report": {"ngrams": [3], "sample_prompts": ["All ", "ทุก"], "sample_bytes": 24, "pictures_every": 8},
}  # fmt: skip
SMALL = {"trainer.max_steps": 20, "trainer.val_check_interval": 10, "trainer.log_every_n_steps": 1,
         "trainer.enable_progress_bar": False, "run.checkpoint_every": 7, "report.sample_bytes": 24}  # fmt: skip
ROUTER = {"name": "router", "bytes_per_unit": 5}
OWN_TEACHER = {"name": "regex", "patterns": r"\p{L}+(?=\s)"}
DISTILLED = {"name": "distilled", "teacher": OWN_TEACHER, "teacher_steps": 12}
ONE_STAGE = {"splitter": None, "upper_splitters": [], "model.net.stages": FLAT}
ACCUMULATED = {"trainer.accumulate_grad_batches": 3}
PROMPTS = ["All human ", "人人", "ทุกคน", ""]

# Configurations under -c, and settings on top. Those that end in a path name files of the checkout.
RUNS: dict[str, tuple[list[str], Record]] = {
    "quickstart": (["experiments/quickstart.yaml"],
                   SMALL | {"model.net.stages": THREE, "data.row_bytes": 256, "data.test_files": TEST}),
    "router": (["base.yaml", "experiments/learned/router.yaml"], {"model.net.stages": CONVS}),
    "router-bytes": (["base.yaml"], {"splitter": ROUTER, "data.workers": 1}),
    "router-free": (["base.yaml"], {"splitter": ROUTER | {"control": 0, "smoothing": False, "straight_through": False,
                                                         "calibrate": False}, "model.optimizer.splitter_lr": 0.5}),
    "distilled": (["base.yaml"], {"splitter": DISTILLED}),
    "distilled-words": (["base.yaml", "experiments/learned/distilled.yaml"], {"model.net.stages": THREE} | ACCUMULATED),
    "bpe": (["base.yaml"], ONE_STAGE | {"tokenizer": {"vocab_size": 400}}),
    "flat": (["base.yaml"], ONE_STAGE),
    "repeat": (["base.yaml"], {"model.net.upsampling": "repeat"}),
    "copy": (["base.yaml"], {"model.net.upsampling": "copy"}),
    "insert": (["base.yaml"], {"model.net.upsampling": "insert"}),
    "multi_linear": (["base.yaml"], {"model.net.upsampling": "multi_linear", "splitter": "script_aware"}),
    "conv": (["base.yaml"], {"model.net.stages": CONVS}),
    "unmasked": (["base.yaml"], {"model.net.document_masking": False}),
    "accumulated": (["base.yaml"], ACCUMULATED),
    "capped": (["base.yaml"], {"model.net.stages": [THREE[0], *({**stage, "max_units": 9} for stage in THREE[1:])]}),
    "four": (["base.yaml"], {"model.net.stages": [*THREE[:2], THREE[1], THREE[2]], "upper_splitters": [EVERY, EVERY],
                             "model.net.offsets": "modulo", "model.net.max_offset": 4}),
    "bf16": (["base.yaml"], {"trainer.precision": "bf16-mixed", "model.parallel.activation_checkpointing": True}),
    "clipped": (["base.yaml"], {"trainer.gradient_clip_algorithm": "value", "trainer.gradient_clip_val": 0.01,
                                "model.optimizer.stage_lr": [1, 0.5, 0.25]}),
    "budget": (["base.yaml"], {"model.budget.flops": 4e8,
                               "model.net.stages": [UNSKIPPED, *THREE[1:]]}),
}  # fmt: skip
GENERATED = ("quickstart", "router", "bpe", "distilled", "conv", "four")
STUDY = {
    "study": "same",
    "text": {"train": f"{DATA}/{{language}}.jsonl", "val": f"{DATA}/{{language}}.jsonl"},
    "languages": ["en", "th"],
    "seeds": [1],
    "match": {"by": "flops", "budget": "2e8"},
    "reference": "bpe",
    "splitters": {
        "whitespace": {"splitter": "whitespace"},
        "router": {"splitter": {"name": "router", "bytes_per_unit": 6}},
        "bpe": {"splitter": None, "tokenizer": {"vocab_size": 300}, "model": {"net": {"stages": FLAT}}},
    },
    "settings": {"upper_splitters": [], "data": {"row_bytes": 128, "batch_rows": 8, "workers": 0},
                 "model": {"net": {"stages": THREE[:2]}, "optimizer": {"warmup_steps": 3}},
                 "trainer": {"accelerator": "cpu", "log_every_n_steps": 1}},
    "validations": 2,
}  # fmt: skip

SENTENCE = "Everyone has the right, e.g. Dr. Who 3.14! 人人有权享有。ทุกคนมีสิทธิ मनुष्यों को 자유 🤝🏽\nEnd"
OPTIONS: dict[str, Record] = {  # splitters with options, by a name of their own
    "fixed 3": {"name": "fixed", "n": 3},
    "fixed 3 characters": {"name": "fixed", "n": 3, "of": "characters"},
    "aunet_word 2": {"name": "aunet_word", "words": 2},
    "aunet_word 4": {"name": "aunet_word", "words": 4},
    "script_aware 1": {"name": "script_aware", "n": 1},
    "script_aware 4": {"name": "script_aware", "n": 4},
    "spacelike character": {"name": "spacelike", "align": "character"},
    "trie byte": {"name": "trie", "align": "byte"},
    "pattern": {"name": "pattern", "patterns": [r"\S+\s", r"\d"]},
    "pattern start": {"name": "pattern", "patterns": r"\p{Lu}\p{Ll}*", "at": "start"},
    "cap": {"name": "cap", "of": "script_aware", "max_bytes": 5},
    "union": {"name": "union", "of": ["whitespace", {"name": "fixed", "n": 5}]},
    "reset_at": {"name": "reset_at", "of": {"name": "fixed", "n": 3}, "at": {"name": "pattern", "patterns": "\n"}},
    "every of whitespace": {"name": "every", "n": 2, "of": "whitespace"},
    "every 3, no sentences": {"name": "every", "n": 3, "of": "cjk_character", "sentence_end": False},
}
STACKS = [["script_aware", EVERY], ["whitespace", EVERY, EVERY], ["fixed", "whitespace"],
          ["spacelike", "aunet_word"], ["utf8_character", "syllable", "sentence_end"],
          ["cjk_character", OPTIONS["every of whitespace"]]]  # fmt: skip
TEACHERS: dict[str, Any] = {
    "words": "words", "words end": {"name": "words", "at": "end"}, "regex": OWN_TEACHER,
    "zero_width_space": "zero_width_space", "grapheme": "grapheme",
}  # fmt: skip


def net(stages: Sequence[Record] = tuple(THREE), **options: Any) -> Record:
    return {"stages": [dict(stage) for stage in stages]} | options


# Networks, the rules between their stages, and how many of those are known from bytes.
NETS: dict[str, tuple[Record, list[Any], int]] = {
    "flat": (net(FLAT), [], 0),
    "flat, conv, tokens": (net([FLAT[0] | {"conv": 3}], vocabulary=300), [], 0),
    "two stages": (net(THREE[:2]), ["whitespace"], 1),
    "multi_linear": (net(), ["script_aware", EVERY], 2),
    "repeat": (net(upsampling="repeat", max_offset=5), ["script_aware", EVERY], 2),
    "copy": (net(upsampling="copy"), ["script_aware", EVERY], 2),
    "insert": (net(upsampling="insert"), ["script_aware", EVERY], 2),
    "modulo, unmasked": (net(offsets="modulo", max_offset=4, document_masking=False), ["fixed", EVERY], 2),
    "four stages, conv": (net([*CONVS, CONVS[0]], round_units_to=4), ["whitespace", EVERY, EVERY], 3),
    "capped, no skip": (
        net([{**THREE[0], "skip": False}, *({**stage, "max_units": 7} for stage in THREE[1:])]),
        ["fixed", EVERY],
        2,
    ),
    "numbers": (net(rope_theta=1e4, norm_eps=1e-3, ffn_multiple_of=8, ffn_multiplier=1.3), ["whitespace", EVERY], 2),
    "router": (net(THREE[:2]), [ROUTER], 0),
    "router above, copy": (net(CONVS, upsampling="copy"), ["utf8_character", ROUTER], 1),
    "distilled below": (net(), [{"name": "distilled", "teacher": "whitespace"}, EVERY], 0),
}


def _config_class() -> Any:
    """AUNetConfig is no stable name, so it is looked for where it was and where it may be."""
    return _first(("aunet_lightning", "AUNetConfig"), ("aunet_lightning.model.config", "AUNetConfig"),
                  ("aunet_lightning.model", "AUNetConfig"), ("aunet_lightning.interop", "AUNetConfig"))  # fmt: skip


def _edge_texts() -> dict[str, dict[str, bytes]]:
    module = None
    for name in ("splitters.laws.edge_texts", "splitters.edge_texts"):
        with contextlib.suppress(ImportError):
            module = importlib.import_module(name)
            break
    if module is None:
        raise ImportError("the edge texts are in none of the places that this script knows: add theirs")
    return {"short": module.short_texts(), "long": module.long_texts(), "block": module.block_texts()}


def _first(*places: tuple[str, str]) -> Any:
    for module, name in places:
        with contextlib.suppress(ImportError, AttributeError):
            return getattr(importlib.import_module(module), name)
    raise ImportError(f"{places[0][1]} is in none of {', '.join(module for module, _ in places)}: add where it is")


def _main() -> Callable[[list[str]], int]:
    """Returns what the command `aunet` calls, by the checkout's pyproject.toml."""
    project = tomllib.loads((Path(os.environ["SAME_TREE"]) / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["scripts"]["aunet"].partition(":")
    found: Callable[[list[str]], int] = getattr(importlib.import_module(module), name)
    return found


# What is written ------------------------------------------------------------------------------------------------------


def exact(value: Any) -> Any:
    """Returns a value as JSON keeps it to the last bit."""
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        raw = value.detach().cpu().contiguous()
        data = raw.reshape(-1).view(torch.uint8).numpy().tobytes() if raw.numel() else b""
        return f"{str(raw.dtype).removeprefix('torch.')} {[*raw.shape]} {sha(data)}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {[*value.shape]} {sha(np.ascontiguousarray(value).tobytes())}"
    if isinstance(value, bool | int | str | None):
        return value
    if isinstance(value, float):
        return f"{value.hex()} ({value:.9g})"
    if isinstance(value, list | tuple):
        return [exact(one) for one in value]
    if isinstance(value, Mapping):
        return {str(key): exact(one) for key, one in value.items()}
    return repr(value)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def flat(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yields (path, leaf) of nested mappings and of lists of mappings or tensors."""
    import torch

    nested = isinstance(value, list | tuple) and any(isinstance(one, Mapping | torch.Tensor) for one in value)
    if isinstance(value, Mapping) and value:
        for key, one in value.items():
            yield from flat(one, f"{prefix}/{key}")
    elif nested:
        for i, one in enumerate(value):
            yield from flat(one, f"{prefix}/{i}")
    else:
        yield prefix, exact(value)


class Recorder:
    """Adds to a record part by part; a part that fails is an entry of the record too."""

    def __init__(self) -> None:
        self.found: Record = {}

    def add(self, key: str, value: Any) -> None:
        n = 1
        while (name := key if n == 1 else f"{key} #{n}") in self.found:
            n += 1
        self.found[name] = exact(value)

    def add_flat(self, key: str, value: Any) -> None:
        for name, one in flat(value, key):
            self.add(name, one)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        begin = time.monotonic()
        try:
            yield
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            traceback.print_exc()
            self.add(f"FAILED/{name}", f"{type(error).__name__}: {str(error)[:300]}")
        print(f"{time.monotonic() - begin:6.1f} s  {name}", file=sys.stderr, flush=True)


def aunet(*arguments: Any) -> str:
    """Runs the command in this process; returns what it printed. Raises RuntimeError with it where it fails."""
    shown = io.StringIO()
    try:
        with contextlib.redirect_stdout(shown):
            code = _main()([str(argument) for argument in arguments])
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 1
    if code:
        raise RuntimeError(f"aunet {' '.join(map(str, arguments))}: exit code {code}\n{shown.getvalue()[-3000:]}")
    return shown.getvalue()


def lines(shown: str) -> list[str]:
    """Returns printed lines without those that hold this machine's paths, MLflow's pages and times."""
    left_out = re.compile(r"MLflow|http://|mlruns|mlflow|\d+(\.\d)? s\b|seconds|" + re.escape(tempfile.gettempdir()))
    return [line.rstrip() for line in shown.splitlines() if line.strip() and not left_out.search(line)]


# What is recorded -----------------------------------------------------------------------------------------------------


def record_golden(to: Recorder) -> None:
    import torch
    import torch.nn.functional as F
    from safetensors.torch import load_file

    from aunet_lightning.interop import load_reference

    tests = Path(os.environ["SAME_TREE"]) / "tests"
    path = next(tests.rglob("three_stage.safetensors"))
    case, config = load_file(path), json.loads((path.parent / "cases.json").read_text())["three_stage"]
    model = load_reference(path, config)
    ids, levels = case["bytes"].long(), case["levels"]
    output = model(ids[:, :-1], levels[:, :-1])
    loss = F.cross_entropy(output.logits.flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    to.add("golden/logits", output.logits)
    to.add("golden/loss", loss.item())
    to.add("golden/units", output.units)
    for name, parameter in model.named_parameters():
        to.add(f"golden/parameter/{name}", parameter)
        to.add(f"golden/gradient/{name}", parameter.grad)
    with torch.no_grad():
        to.add("golden/logits of whole bytes, later half masked", model(ids[:, :64], levels[:, :64]).logits)


def record_splitters(to: Recorder) -> None:
    import numpy as np

    from splitters import Stack, available, build

    to.add("splitters/available", available())
    to.add("splitters/rules", available("rule"))
    groups = _edge_texts()
    texts = {f"{group}/{name}": text for group, found in groups.items() for name, text in found.items()}
    for name, text in texts.items():
        to.add(f"texts/{name}", f"{len(text)} bytes, {sha(text)}")

    def stepped(stepper: Any, text: bytes) -> np.ndarray:
        return np.array([stepper.push(byte) for byte in text], dtype=np.uint8)

    def at_once_and_stepped(key: str, name: str, whole: np.ndarray, stepper: Callable[[], Any], text: bytes) -> None:
        to.add(f"{key}/{name}", whole)
        if len(text) <= 12_000:
            steps = stepped(stepper(), text)
            if not np.array_equal(steps, whole):
                to.add(f"{key}, stepped/{name}", steps)
        to.found[key] = f"{int(whole.sum()) + int((to.found.get(key) or '0').split()[0])} boundaries"

    specs: dict[str, Record] = {name: {"name": name} for name in available("rule")} | OPTIONS
    vocabulary = "vocabulary.json"
    to.add("vocabulary/printed", lines(aunet("vocabulary", *LANGUAGES, "--size", 300, "--out", vocabulary)))
    to.add("vocabulary/file", sha(Path(vocabulary).read_bytes()))
    specs["trie of a file"] = {"name": "trie", "vocabulary": vocabulary}
    for key, spec in specs.items():
        with to.part(f"splitter {key}"):
            rule = build(**spec)
            for name, text in texts.items():
                at_once_and_stepped(f"splitter/{key}", name, rule.split(text), rule.stepper, text)
    others = [[name, EVERY] for name in available("rule")]
    for rules in [*STACKS, *(rules for rules in others if rules not in STACKS)]:
        with to.part(f"stack {rules}"):
            stack, key = Stack(rules), f"stack/{json.dumps(rules)}"
            to.add(f"{key}/fingerprint", stack.fingerprint())
            for name, text in groups["short"].items() if rules in STACKS else [("all", SENTENCE.encode())]:
                at_once_and_stepped(key, name, stack.levels(text), stack.stepper, text)
    for key, spec in TEACHERS.items():
        with to.part(f"teacher {key}"):
            teacher = build("distilled", teacher=spec).teacher
            for name, text in groups["short"].items():
                to.add(f"teacher/{key}/{name}", teacher.split(text))


def record_nets(to: Recorder) -> None:
    import torch
    import torch.nn.functional as F

    from aunet_lightning import AUNet
    from splitters import Stack

    config_class = _config_class()
    texts = [SENTENCE.encode(), "All human beings are born free.\nคน 人々は、ABC. ".encode() * 2]
    for key, (config, rules, known) in NETS.items():
        with to.part(f"net {key}"):
            stack = Stack(rules)
            torch.manual_seed(11)
            model = AUNet(config_class(**config), stack if rules else ())
            for name, tensor in model.state_dict().items():
                to.add(f"net/{key}/initial/{name}", tensor)
            to.add(f"net/{key}/parameters", [name for name, _ in model.named_parameters()])
            rows = []
            for text in texts:  # BOS text EOS BOS text
                levels = stack.levels(text).tolist()
                ids = [256, *text, 257, 256, *text]
                rows.append((ids[:200], [known, *levels, 0, known, *levels][:200]))
            length = min(len(ids) for ids, _ in rows)
            ids = torch.tensor([ids[:length] for ids, _ in rows])
            levels = torch.tensor([levels[:length] for _, levels in rows], dtype=torch.uint8)
            output = model(ids[:, :-1], levels[:, :-1])
            loss = F.cross_entropy(output.logits.flatten(0, 1), ids[:, 1:].flatten())
            loss.backward()
            to.add(f"net/{key}/loss", loss.item())
            for name in ("logits", "units", "dropped", "levels"):
                to.add(f"net/{key}/{name}", getattr(output, name))
            for name, parameter in model.named_parameters():
                to.add(f"net/{key}/gradient/{name}", parameter.grad)
            model.eval()
            with torch.no_grad():
                state, steps = model.initial_state(1, stack if rules else None), []
                for byte in texts[0][:60]:
                    output = model(torch.tensor([[byte]]), state=state)
                    state = output.state
                    steps.append(output.logits)
                to.add(f"net/{key}/stepped logits", torch.cat(steps, 1))
                state = model.initial_state(1, stack if rules else None)
                output = model(torch.tensor([[*texts[0][:40]]]), state=state)
                to.add(f"net/{key}/prefilled logits", output.logits)


def record_commands(to: Recorder) -> None:
    """Commands that train nothing."""
    import yaml

    def printed(key: str, *arguments: Any) -> None:
        with to.part(key):
            to.add(f"command/{key}", lines(aunet(*arguments)))

    printed("splitters", "splitters")
    rules = ["script_aware", "whitespace", "aunet_word", "trie", "syllable", "{name: fixed, n: 6}"]
    chosen = [part for rule in rules for part in ("--splitter", rule)]
    printed("split", "split", SENTENCE, *chosen)
    printed("split in stages", "split", SENTENCE, *chosen, "--stages", 3)
    with to.part("split --stats"):  # what it prints is that with its speed
        aunet("split", *LANGUAGES, "--stats", *chosen, "--csv", "stats.csv")
        _table(to, "command/split --stats", Path("stats.csv"), 2)
    for key, options in {
        "rates": ["--gpu_hours", 8, "--devices", 4, "--bytes_per_unit", 5.1, 10.2, "--out", "plan.yaml"],
        "data": ["--flops", 1e17, "--data", *LANGUAGES, "--splitter", "script_aware", "--stages", 3],
        "flat": ["--parameters", 1e8, "--stages", 1, "--precision", "32-true", "--gpu_memory", 24],
    }.items():
        printed(f"plan by {key}", "plan", *options)
    with to.part("plan.yaml"):
        to.add_flat("command/plan.yaml", yaml.safe_load(Path("plan.yaml").read_text(encoding="utf-8")))
    for path in sorted(Path("experiments/models").glob("*.yaml")):
        with to.part(f"settings of {path.name}"):
            shown = aunet("fit", "-c", path, "-c", "experiments/data/udhr.yaml", "--print_config")
            to.add_flat(f"settings/{path.stem}", yaml.safe_load(shown))
    Path("study.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False), encoding="utf-8")
    printed("compare --dry_run", "compare", "-c", "study.yaml", "--dry_run")


def record_study(to: Recorder) -> None:
    with to.part("study"):
        to.add("study/printed", lines(aunet("compare", "-c", "study.yaml", "--jobs", 1)))
        folder = next(path for path in Path("runs").rglob("table.csv") if "same" in path.parts).parent
        _table(to, "study/table", folder / "table.csv", 4)
        for cell in sorted(path.parent for path in folder.rglob("metrics.jsonl")):
            _metrics(to, f"study/{cell.relative_to(folder)}", cell)


def _table(to: Recorder, key: str, path: Path, n_names: int) -> None:
    """Records a CSV file by row and column, without what a clock has to do with."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            name = " ".join(list(row.values())[:n_names])
            for column, value in row.items():
                if not re.search("second|time|commit|/s$|speed", column):
                    to.add(f"{key}/{name}/{column}", value)


def record_runs(to: Recorder, names: Sequence[str]) -> None:
    for name in names:
        with to.part(f"run {name}"):
            configs, options = RUNS[name]
            folder = _trained(to, name, configs, options)
            last = folder / "checkpoints" / "last.ckpt"
            to.add(f"run/{name}/test, printed", lines(aunet("test", "--ckpt_path", last)))
            record_folder(to, f"run/{name}", folder)
            if name in GENERATED:
                for checkpoint in ("last", "best"):
                    generated = aunet("generate", folder / "checkpoints" / f"{checkpoint}.ckpt", "--bytes", 64,
                                      "--temperature", 0, *_prompts())  # fmt: skip
                    to.add(f"run/{name}/generated by {checkpoint}", generated)
                to.add(f"run/{name}/sampled", aunet("generate", last, "--bytes", 64, "--seed", 5, *_prompts()))
                to.add(f"run/{name}/predict, printed", lines(aunet("predict", "--ckpt_path", last)))
                _predictions(to, f"run/{name}/predictions", folder)
                shown = aunet("export", last, "--out", f"{name}.safetensors")
                to.add(f"run/{name}/export, printed", shown)
                _weights(to, f"run/{name}/exported", Path(f"{name}.safetensors"))
                to.add(f"run/{name}/split", lines(aunet("split", SENTENCE, "--checkpoint", last)))
        if name == "flat":
            with to.part("run entropy"):
                asked = aunet("entropy", last, *LANGUAGES, "--bytes_per_unit", 4)
                to.add("entropy/printed", lines(asked))
                rule = {"name": "entropy", "checkpoint": f"{last}", "threshold": 5.5}
                entropy = _trained(to, "entropy", ["base.yaml"], {"splitter": rule})
                record_folder(to, "run/entropy", entropy)


def record_continued(to: Recorder) -> None:
    with to.part("run continued"):
        options = {"run.folder": "runs/continued", "run.checkpoint_every": 4, "run.keep_last": 9}
        options |= {"splitter": DISTILLED | {"teacher_steps": 6}}
        for steps in (8, 16):
            shown = aunet("fit", "-c", "base.yaml", *_options(options | {"trainer.max_steps": steps}))
            to.add(f"run/continued/printed at {steps}", lines(shown))
        record_folder(to, "run/continued", Path("runs/continued"))
        shown = aunet("fit", "-c", "base.yaml", *_options(options | {"trainer.max_steps": 14}), "--ckpt_path",
                      "runs/continued/checkpoints/step-00000012.ckpt")  # fmt: skip
        to.add("run/taken back/printed", lines(shown))
        record_folder(to, "run/taken back", Path("runs/continued"))


def _prompts() -> list[str]:
    return [part for prompt in PROMPTS for part in ("--prompt", prompt)]


def _options(options: Record) -> list[str]:
    return [part for key, value in options.items() for part in (f"--{key}", json.dumps(value, ensure_ascii=False)
            if not isinstance(value, str) else value)]  # fmt: skip


def _trained(to: Recorder, name: str, configs: Sequence[str], options: Record) -> Path:
    given = [part for config in configs for part in ("-c", config)]
    shown = aunet("fit", *given, "--run.experiment", name, *_options(options))
    to.add(f"run/{name}/printed", lines(shown))
    return next(path for path in (Path("runs") / name).iterdir() if path.is_dir())


def record_folder(to: Recorder, key: str, folder: Path) -> None:
    """Records what a run's folder holds: its name, with the digest of its settings, among it."""
    import yaml

    to.add(f"{key}/folder", f"{folder}")
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    to.add(f"{key}/files", sorted(f"{name}" for name in names if "_0.distcp" not in name.name))
    to.add_flat(f"{key}/config", yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")))
    to.add_flat(f"{key}/data", json.loads((folder / "data.json").read_text(encoding="utf-8")))
    _metrics(to, key, folder)
    for path in sorted(folder.iterdir()):
        if path.suffix in (".csv", ".md", ".txt"):
            to.add(f"{key}/{path.name}", path.read_text(encoding="utf-8").splitlines())
        elif path.suffix == ".html" or path.name == "units.json":
            to.add(f"{key}/{path.name}", sha(path.read_bytes()))
    _checkpoint(to, f"{key}/checkpoint", folder / "checkpoints" / "last.ckpt")
    _mlflow(to, f"{key}/mlflow", folder)


def _metrics(to: Recorder, key: str, folder: Path) -> None:
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        point = json.loads(line)
        for name, value in point["metrics"].items():
            if not name.startswith("perf/"):  # throughput and wall clock
                to.add(f"{key}/metrics/{point['step']:04}/{name}", float(value))


def _predictions(to: Recorder, key: str, folder: Path) -> None:
    rows = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    to.add(f"{key}/n", len(rows))
    for i, row in enumerate(rows):
        to.add_flat(f"{key}/{i:04}", json.loads(row))


def _checkpoint(to: Recorder, key: str, path: Path) -> None:
    import torch

    if path.resolve().is_dir():  # of a sharded run
        import torch.distributed.checkpoint as dcp

        metadata = dcp.FileSystemReader(path.resolve()).read_metadata().state_dict_metadata
        to.add(f"{key}/keys", sorted(metadata))
        to.add(f"{key}/shapes", {name: [*one.size] for name, one in sorted(metadata.items()) if hasattr(one, "size")})
        exported = Path(f"{key.replace('/', '-')}.safetensors")
        aunet("export", path, "--out", exported)
        _weights(to, f"{key}/state_dict", exported)
        return
    kept = torch.load(path, weights_only=True)
    to.add(f"{key}/keys", list(kept))
    to.add(f"{key}/names", list(kept["state_dict"]))
    for name, value in kept.items():
        for where, one in flat(value, f"{key}/{name}"):
            if not where.endswith("/spent/seconds"):
                to.add(where, one)


def _weights(to: Recorder, key: str, path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        told = json.loads(file.metadata()["aunet"])
        for name in file.keys():  # noqa: SIM118 (no mapping)
            to.add(f"{key}/{name}", file.get_tensor(name))
    for name, one in flat(told, f"{key}, header"):
        if not name.endswith("/spent/seconds"):
            to.add(name, one)


def _mlflow(to: Recorder, key: str, folder: Path) -> None:
    from mlflow.tracking import MlflowClient

    known = json.loads((folder / "mlflow.json").read_text(encoding="utf-8"))
    run = MlflowClient(os.environ["MLFLOW_TRACKING_URI"]).get_run(known["run_id"])
    to.add_flat(f"{key}/params", dict(sorted(run.data.params.items())))
    to.add(f"{key}/name", run.info.run_name)
    to.add(f"{key}/status", run.info.status)
    to.add(f"{key}/metrics", sorted(name for name in run.data.metrics))
    to.add(f"{key}/tag splitter", run.data.tags.get("splitter"))


# Several processes ----------------------------------------------------------------------------------------------------

SHARDED: dict[str, Record] = {
    "fsdp2": {"splitter": ROUTER, "trainer.strategy": "fsdp2", "trainer.devices": 2,
              "model.parallel.activation_checkpointing": [True, False, True]},
}  # fmt: skip


def record_sharded(to: Recorder) -> None:
    """Reads what the runs of two processes have left."""
    for name in SHARDED:
        with to.part(f"run {name}"):
            folder = next(path for path in (Path("runs") / name).iterdir() if path.is_dir())
            to.add(f"run/{name}/printed", lines(Path("out-0.txt").read_text(encoding="utf-8")))
            record_folder(to, f"run/{name}", folder)
            to.add(f"run/{name}/generated", aunet("generate", folder / "checkpoints" / "last.ckpt", "--bytes", 64,
                                                  "--temperature", 0, *_prompts()))  # fmt: skip


def train_sharded(rank: int) -> None:
    """One of two processes, as torchrun starts them."""
    with Path(f"out-{rank}.txt").open("w", encoding="utf-8") as shown, contextlib.redirect_stdout(shown):
        for name, options in SHARDED.items():
            code = _main()(["fit", "-c", "base.yaml", "--run.experiment", name, *_options(options)])
            if code:
                raise SystemExit(code)


# From a checkout to a record ------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Recorder], None]] = {
    "rules": lambda to: [part(to) for part in (record_golden, record_splitters, record_nets, record_commands,  # type: ignore[func-returns-value]
                                               record_study, record_continued)] and None,
    "runs": lambda to: record_runs(to, [*RUNS]),
    "sharded": record_sharded,
}  # fmt: skip


def child(part: str, out: str) -> int:
    import yaml

    tree = Path(os.environ["SAME_TREE"]).resolve()
    import aunet_lightning
    import splitters

    for package in (aunet_lightning, splitters):
        assert tree in Path(str(package.__file__)).resolve().parents, f"{package.__file__} is not in {tree}"
    import torch

    torch.set_num_threads(int(THREADS))
    if not Path("base.yaml").exists():
        Path("base.yaml").write_text(yaml.safe_dump(SETTINGS, sort_keys=False, allow_unicode=True), encoding="utf-8")
    if part.startswith("rank"):
        train_sharded(int(part.removeprefix("rank")))
        return 0
    recorder = Recorder()
    PARTS[part](recorder)
    Path(out).write_text(json.dumps(recorder.found, ensure_ascii=False), encoding="utf-8")
    return 0


def record(tree: Path, out: Path, keep: bool, only: Sequence[str]) -> int:
    begin = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="same-numbers-")).resolve()
    # What is installed may be of another checkout: entry points are those of this one.
    project = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    told = scratch / "installed" / f"{project['name'].replace('-', '_')}-0.dist-info"
    told.mkdir(parents=True)
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0\n", encoding="utf-8")
    groups = [f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items())
              for group, points in project.get("entry-points", {}).items()]  # fmt: skip
    (told / "entry_points.txt").write_text("\n".join(groups), encoding="utf-8")

    def start(part: str, **extra: str) -> subprocess.Popen[bytes]:
        place = scratch / ("sharded" if part.startswith("rank") else part)
        place.mkdir(exist_ok=True)
        if not (place / "experiments").exists():
            (place / "experiments").symlink_to(tree / "experiments")
        env = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "AUNET", "SLURM"))}
        env |= {"SAME_TREE": str(tree), "PYTHONPATH": f"{told.parent}{os.pathsep}{tree}", "OMP_NUM_THREADS": THREADS,
                "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1", "MKL_NUM_THREADS": THREADS, "COLUMNS": "120",
                "AUNET_CACHE": str(place / "cache"), "MLFLOW_TRACKING_URI": f"sqlite:///{place}/mlflow.db",
                "PYTHONHASHSEED": "0", "CUDA_VISIBLE_DEVICES": "", "MPLCONFIGDIR": str(scratch / "matplotlib"),
                "NUMBA_CACHE_DIR": str(scratch / "numba")}  # fmt: skip
        log = (scratch / f"{part}.log").open("wb")
        command = [sys.executable, "-P", str(Path(__file__).resolve()), "--child", part, str(scratch / f"{part}.json")]
        return subprocess.Popen(command, cwd=place, env=env | extra, stdout=log, stderr=log)

    found: Record = {}
    failed = []
    try:
        waiting = {part: start(part) for part in ("runs", "rules") if part in only}
        if "sharded" in only:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = str(free.getsockname()[1])
            common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1",
                      "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "same"}  # fmt: skip
            ranks = {}
            for rank in "01":  # the first writes what both read
                ranks[f"rank{rank}"] = start(f"rank{rank}", **common, RANK=rank, LOCAL_RANK=rank)
            for part, process in ranks.items():
                if process.wait():
                    failed.append(part)
            waiting["sharded"] = start("sharded")
        for part, process in waiting.items():
            if process.wait():
                failed.append(part)
            else:
                found |= json.loads((scratch / f"{part}.json").read_text(encoding="utf-8"))
        for part in failed:
            found[f"FAILED/{part}"] = "see the log"
            print(f"{part} failed:\n{(scratch / f'{part}.log').read_text(errors='replace')[-4000:]}")
    finally:
        if keep or failed:
            print(f"what was run is in {scratch}")
        else:
            shutil.rmtree(scratch, ignore_errors=True)
    out.write_text(json.dumps(found, indent=0, ensure_ascii=False, sort_keys=True), encoding="utf-8")
    wrong = [key for key in found if key.startswith("FAILED/")]
    print(f"{len(found):,} values of {tree} in {out}, after {time.monotonic() - begin:.0f} s")
    for key in wrong:
        print(f"  {key}: {found[key]}")
    return int(bool(wrong))


def compare(a: Path, b: Path, most: int) -> int:
    """Prints where two records differ; returns 1 where they do."""
    first, second = (json.loads(path.read_text(encoding="utf-8")) for path in (a, b))
    differing = [key for key in sorted(first.keys() | second.keys())
                 if key not in first or key not in second or first[key] != second[key]]  # fmt: skip
    for key in differing[:most]:
        print(key)
        one, other = (found.get(key, "(is not there)") for found in (first, second))
        if isinstance(one, list) and isinstance(other, list):
            one, other = [line for line in one if line not in other], [line for line in other if line not in one]
        print(f"    {str(one)[:400]}\n    {str(other)[:400]}")
    failed = [key for key in first.keys() | second.keys() if key.startswith("FAILED/")]
    if not differing and not failed:
        print(f"all {len(first):,} values are equal")
        return 0
    if differing:
        groups: dict[str, int] = {}
        for key in differing:
            group = "/".join(key.split("/")[:3])
            groups[group] = groups.get(group, 0) + 1
        print(f"\n{len(differing):,} of {len(first.keys() | second.keys()):,} values differ:")
        for group, count in sorted(groups.items(), key=lambda item: -item[1])[:40]:
            print(f"{count:6,}  {group}")
    for key in sorted(failed):
        print(f"could not be recorded: {key}")
    return 1


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        return child(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs=2, type=Path, metavar="PATH", help="TREE OUT.json, or two records")
    parser.add_argument("--compare", action="store_true", help="compare two records")
    parser.add_argument("--most", type=int, default=60, help="differences shown one by one (default 60)")
    parser.add_argument("--keep", action="store_true", help="keep the folder in which everything was run")
    parser.add_argument("--only", nargs="+", choices=["rules", "runs", "sharded"], help="record these parts alone")
    options = parser.parse_args()
    first, second = options.paths
    if options.compare:
        return compare(first, second, options.most)
    return record(first.resolve(), second, options.keep, options.only or ["rules", "runs", "sharded"])


if __name__ == "__main__":
    sys.exit(main())
