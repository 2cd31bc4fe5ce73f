"""The grid of a study: from one YAML to the settings of each run.

A cell's settings are those of `fit` (files, later ones win), `settings`, its stage count, its splitter, its text and
its seed, in this order: mappings are merged, lists replaced.
"""

import copy
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from aunet_lightning.errors import UserError
from aunet_lightning.numbers import Range, check
from aunet_lightning.paths import user_path

Settings = dict[str, Any]
NAME = re.compile(r"\w[\w .+-]*")
Measure = Literal["flops", "bytes", "seconds"]
Adjust = Literal["bytes", "trunk_layers", "trunk_dim"]


@dataclass
class Match:
    """What is equal between the cells of a study."""

    budget: float
    """what each cell may spend: FLOPs, bytes or seconds"""
    by: Measure = "flops"
    """flops, bytes of training text, or seconds of training"""
    adjust: Adjust = "bytes"
    """at equal FLOPs, what compensates for costlier units: the number of bytes read; or the trunk's layers or width,
    so that all cells read about `bytes`"""
    bytes: float | None = None
    """with trunk_layers or trunk_dim: the bytes that every cell should read"""

    def __post_init__(self) -> None:
        for name, allowed in (("by", get_args(Measure)), ("adjust", get_args(Adjust))):
            if getattr(self, name) not in allowed:
                raise UserError(f"match.{name} is {getattr(self, name)!r}: choose one of {', '.join(allowed)}")
        for name in ("budget", "bytes"):
            value = _number(getattr(self, name))
            setattr(self, name, value)
            if value is not None and not value > 0:
                raise UserError(f"match.{name} is {value}, it must be a number above 0")
        if self.adjust != "bytes" and (self.by != "flops" or self.bytes is None):
            raise UserError(
                f"match.adjust is {self.adjust}, which needs by: flops and match.bytes (how much text every cell "
                "should read), so that FLOPs per byte are known"
            )


@dataclass
class Study:
    """A comparison, as its YAML describes it."""

    study: str
    """its name: the MLflow experiment, and the folder runs/NAME"""
    splitters: dict[str, Settings]
    """rows of the table: a name, and what it sets (splitter, tokenizer, model, …)"""
    languages: dict[str, list[str]]
    """columns: a name, and the languages of its text (one, or a mix)"""
    match: Match
    text: dict[str, str]
    """train, val and (for parallel bits) parallel: paths, where {language} is replaced by each language"""
    fit: list[str] = field(default_factory=list)
    """settings files of aunet fit for every cell"""
    settings: Settings = field(default_factory=dict)
    """settings of aunet fit for every cell"""
    stages: dict[int, Settings] = field(default_factory=lambda: {2: {}})
    """stage counts, and what each sets; models of one stage (splitter: null) are run once"""
    seeds: list[int] = field(default_factory=lambda: [1, 2])
    description: str = ""
    """a sentence or two, for the report"""
    reference: str | None = None
    """the row that others are compared with"""
    validations: int = 8
    """points of each learning curve"""
    jobs: int = 1
    """cells that run at once"""
    threads: int | None = None
    """threads of each; null: the cores divided by jobs"""
    gpus_per_cell: int = 0
    """GPUs of each job (sets trainer.devices); 0: on the CPU"""
    tracking_uri: str | None = None
    """MLflow store; null: $MLFLOW_TRACKING_URI, or runs/mlflow.db"""
    columns: list[str] = field(default_factory=list)
    """further columns of the report: each a module:Class, or a metric that the runs log, such as val/mean_p_stage2"""

    @property
    def folder(self) -> Path:
        return Path("runs") / self.study


@dataclass(frozen=True)
class StudyCell:
    """One run of a study: a splitter at a number of stages, a language and a seed."""

    name: str
    splitter: str
    language: str
    stages: int
    seed: int
    settings: Settings
    parallel: str | None = None  # text for parallel bits


def load(files: Sequence[Path]) -> tuple[Study, str]:
    """Returns the study that YAML files describe (later ones win), and its YAML. Raises UserError for bad settings."""
    merged: Settings = {}
    for path in files:
        merged = merge(merged, _read(path))
    return _study(merged), yaml.safe_dump(merged, sort_keys=False, allow_unicode=True)


def _read(path: Path) -> Settings:
    """Returns the settings of a file, merged over those of its `base`, a file beside it."""
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"-c {path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"-c {path}: is not UTF-8 ({error.reason} at byte {error.start})") from None
    except yaml.YAMLError as error:
        raise UserError(f"-c {path}: is not YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(read, dict):
        raise UserError(f"-c {path}: contains no settings")
    base = read.pop("base", None)
    return read if base is None else merge(_read(path.parent / str(base)), read)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Settings:
    """Returns `base` overridden by `over`: mappings key by key, everything else replaced."""
    merged = dict(copy.deepcopy(dict(base)))
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        # A splitter is replaced as a unit, so that no option of another one is left.
        if both and key != "splitter":
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _study(read: Settings) -> Study:
    known = {of.name: of for of in fields(Study)}
    if unknown := sorted(read.keys() - known.keys()):
        raise UserError(f"{unknown[0]} is not a key of a study; valid keys: {', '.join(known)}")
    needed = [name for name, of in known.items() if of.default is MISSING and of.default_factory is MISSING]
    if missing := [name for name in needed if name not in read]:
        raise UserError(f"the study has no {missing[0]}: see experiments/compare/nonspace-short.yaml")
    read = dict(read)
    languages = read["languages"]
    if odd := [name for name in languages if not isinstance(name, str)]:
        raise UserError(f"languages: {odd[0]!r} is not a name; put quotes around it (YAML reads no as false)")
    if isinstance(languages, list):
        languages = {str(name): [str(name)] for name in languages}
    read["languages"] = {str(name): [name] if of in (None, {}) else list(of) for name, of in languages.items()}
    read["splitters"] = {str(name): dict(settings or {}) for name, settings in read["splitters"].items()}
    stages = read.get("stages", {2: {}})
    stages = {int(n): {} for n in stages} if isinstance(stages, list) else stages
    read["stages"] = {int(n): dict(settings or {}) for n, settings in stages.items()}
    read["text"] = {part: path for part, path in read["text"].items() if path is not None}
    try:
        read["match"] = Match(**read["match"])
    except TypeError as error:
        raise UserError(f"match: {error}; valid keys: {', '.join(of.name for of in fields(Match))}") from None
    study = Study(**read)
    for name in ("splitters", "languages", "seeds", "stages"):
        if not getattr(study, name):
            raise UserError(f"{name} is empty: name at least one")
    for key in ("splitters", "languages"):
        if wrong := [name for name in getattr(study, key) if not NAME.fullmatch(name)]:
            raise UserError(f"{key}: {wrong[0]!r} also names folders: use only letters, digits, blanks and . _ + -")
    if "train" not in study.text or "val" not in study.text or study.text.keys() - {"train", "val", "parallel"}:
        raise UserError(
            f"text has {', '.join(study.text) or 'no keys'}: it needs train and val, and may have parallel: paths, "
            "where {language} is replaced by each language"
        )
    if study.reference is not None and study.reference not in study.splitters:
        raise UserError(f"reference is {study.reference!r}: choose one of {', '.join(study.splitters)}")
    for name, least in (("jobs", 1), ("validations", 1), ("gpus_per_cell", 0)):
        if getattr(study, name) < least:
            raise UserError(f"{name} is {getattr(study, name)}, it must be {least} or more")
    return study


def cells(study: Study) -> list[StudyCell]:
    """Returns the study's cells, seed by seed, so that a stopped study has complete tables of the first seeds.

    Raises UserError for missing text.
    """
    base: Settings = {}
    for path in study.fit:
        try:
            base = merge(base, yaml.safe_load(Path(path).read_text(encoding="utf-8")))
        except (OSError, yaml.YAMLError) as error:
            raise UserError(f"fit: {path} cannot be read ({str(error).splitlines()[0]})") from None
    base = merge(base, study.settings)
    found: dict[str, StudyCell] = {}
    for seed, language, (splitter, of_splitter), (stages, of_stages) in itertools.product(
        study.seeds, study.languages, study.splitters.items(), study.stages.items()
    ):
        settings = merge(merge(base, of_stages), of_splitter)
        if settings.get("splitter") is None:
            stages, settings = 1, merge(merge(base, {"upper_splitters": []}), of_splitter)
        n_stages = len(settings.get("model", {}).get("net", {}).get("stages", []))
        if n_stages != stages:
            raise UserError(
                f"splitters.{splitter} with stages {stages}: model.net.stages has {n_stages} stages; set it "
                f"under stages.{stages} or splitters.{splitter}"
            )
        name = f"{language}-{splitter}-{stages}stages-seed{seed}"
        files = {part: _files(study, part, language) for part in study.text}
        data = {"train_files": files["train"], "val_files": files["val"]}
        settings = merge(settings, {"seed_everything": seed, "data": data})
        parallel = files.get("parallel", [])
        cell = StudyCell(name, splitter, language, stages, seed, settings, parallel[0] if parallel else None)
        other = found.setdefault(name, cell)  # a one-stage model comes up once per stage count
        if (other.splitter, other.language) != (splitter, language):
            raise UserError(
                f"{other.splitter} of {other.language} and {splitter} of {language} are both named {name}: rename one"
            )
    return list(found.values())


def _files(study: Study, part: str, language: str) -> list[str]:
    paths = [study.text[part].replace("{language}", one) for one in study.languages[language]]
    there = [path for path in paths if user_path(path, f"text.{part}").exists()]
    if part != "parallel" and len(there) < len(paths):
        lost = next(path for path in paths if path not in there)
        raise UserError(
            f"text.{part}: there is no {lost} (looked from {Path.cwd()}): set text.{part} to the path of your text, "
            "for example in a second -c; JSON lines with a key text, one file per language"
        )
    return there if len(there) == len(paths) == 1 or part != "parallel" else []


def _number(value: Any) -> Any:
    """Returns a number, also from a string: YAML reads 2e12 as one."""
    try:
        number = None if value is None else float(value)
    except (TypeError, ValueError):
        raise UserError(f"match: {value!r} is not a number") from None
    check("match", number, Range())
    return number
