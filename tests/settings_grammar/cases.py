"""Settings drawn from the values: good ones, and ones with exactly one thing wrong."""

import copy
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.helpers import UDHR
from tests.settings_grammar.values import (
    BAD_SPLITTERS,
    BESIDE,
    CLASH,
    GOOD,
    KINDS,
    LONG,
    OPTIMIZER,
    TOGETHER,
    UNKNOWN,
    WRONG,
    stages,
)


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


def write_text(folder: Path, lines: int = 6) -> None:
    for name in ("en", "th"):
        text = (UDHR / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[1 : lines + 1]
        (folder / f"{name}.jsonl").write_text("\n".join(text) + "\n", encoding="utf-8")


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
    return one if isinstance(one, Case) else made(rng, folder, *one)


def made(rng: random.Random, folder: Path, what: str, changes: dict[str, Any], says: str) -> Case:
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
