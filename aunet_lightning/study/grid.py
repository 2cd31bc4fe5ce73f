"""The grid of a study: from one YAML to the settings of each run.

A cell's settings are those of `fit` (files, later ones win), `settings`, its stage count, its splitter, its rate and
factors, its text and its seed, in this order: mappings are merged, lists replaced.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import yaml

from aunet_lightning.errors import UserError
from aunet_lightning.evaluation.task import TASKS
from aunet_lightning.numbers import Range, check
from aunet_lightning.paths import is_remote, user_path
from aunet_lightning.study.rows import Factor, Fit, Row, factors_of, rows
from aunet_lightning.study.settings import Settings, merge

ROBUSTNESS = "robustness"
EVALUATIONS = ("minimal_pairs", "spelling", "parts", ROBUSTNESS)
NAME = re.compile(r"\w[\w .+-]*")
Measure = Literal["flops", "bytes", "seconds"]
Adjust = Literal["bytes", "trunk_layers", "trunk_dim"]


@dataclass
class Match:
    """What is equal between the cells of a study."""

    budget: float = 0.0
    """what each cell may spend: FLOPs, bytes or seconds; where there are `budgets`, the largest of them"""
    by: Measure = "flops"
    """flops, bytes of training text, or seconds of training"""
    adjust: Adjust = "bytes"
    """at equal FLOPs, what compensates for costlier units: the number of bytes read; or the trunk's layers or width,
    so that all cells read about `bytes`"""
    bytes: float | None = None
    """with trunk_layers or trunk_dim: the bytes that every cell should read"""
    budgets: list[float] = field(default_factory=list)
    """several budgets, each a cell of its own"""

    def __post_init__(self) -> None:
        for name, allowed in (("by", get_args(Measure)), ("adjust", get_args(Adjust))):
            if getattr(self, name) not in allowed:
                raise UserError(f"match.{name} is {getattr(self, name)!r}: choose one of {', '.join(allowed)}")
        if bool(self.budget) == bool(self.budgets):
            raise UserError(f"match has {'both budget and budgets' if self.budgets else 'no budget'}: name one")
        self.budgets = sorted({_positive("budget", value) for value in self.budgets or [self.budget]})
        self.budget = self.budgets[-1]
        if self.bytes is not None:
            self.bytes = _positive("bytes", self.bytes)
        if self.adjust != "bytes" and (self.by != "flops" or self.bytes is None):
            raise UserError(
                f"match.adjust is {self.adjust}, which needs by: flops and match.bytes (how much text every cell "
                "should read), so that FLOPs per byte are known"
            )


@dataclass
class Tune:
    """How the learning rates of rows are searched."""

    multiples: list[float] = field(default_factory=lambda: [0.5, 0.7, 1.0, 1.4, 2.0])
    """of each row's own learning rates"""
    languages: list[str] = field(default_factory=list)
    """on whose text; empty: the study's first"""
    seed: int = 1000
    """which is none of the study's"""
    holdout_every: int = 10
    """every n-th training document is held out of the search, and measured on"""

    def __post_init__(self) -> None:
        check("tune.multiples", self.multiples, Range(above=0, most=1000))
        check("tune.holdout_every", self.holdout_every, Range(least=2, most=10**6))
        self.multiples = sorted({*map(float, self.multiples)})
        if len(self.multiples) < 3:
            raise UserError(f"tune.multiples is {self.multiples}, it must have three or more: one with neighbours")


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
    other_text: dict[str, str] = field(default_factory=dict)
    """a name, and the path of text of another kind, which cells are measured on after training; languages without it
    are left out"""
    fit: list[str] = field(default_factory=list)
    """settings files of aunet fit for every cell"""
    settings: Settings = field(default_factory=dict)
    """settings of aunet fit for every cell"""
    stages: dict[int, Settings] = field(default_factory=lambda: {2: {}})
    """stage counts, and what each sets; models of one stage (splitter: null) are run once"""
    seeds: list[int] = field(default_factory=lambda: [1, 2])
    description: str = ""
    """a sentence or two, for the report"""
    question: str = ""
    """what the study asks, the report's first sentence"""
    result: str = ""
    """what counts as a result, said before it is run (--plan)"""
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
    submitit: Settings | None = None
    """runs each cell as a job of a cluster: what submitit's AutoExecutor takes (cluster, timeout_min, slurm_partition,
    …); null: on this machine"""
    tracking_uri: str | None = None
    """MLflow store; null: $MLFLOW_TRACKING_URI, or runs/mlflow.db"""
    rates: list[float] = field(default_factory=list)
    """bytes per unit: each row that has a knob is run at each of them, fitted in each language"""
    tune: Tune | None = None
    """how the learning rate of each row is searched; null: all have their settings'"""
    factors: Settings = field(default_factory=dict)
    """what is crossed with the rows: an option's name, or a path of keys → its values"""
    evaluate: list[str] = field(default_factory=list)
    """what cells are asked after training: groups of tasks, or tasks (aunet eval tasks), and robustness"""
    evaluate_items: int = 100
    """of each task and language, at most"""
    evaluate_kilobytes: float = 50.0
    """of each language's validation text at most, in documents taken evenly, whose changes robustness reads"""
    columns: list[str] = field(default_factory=list)
    """further columns of the report: each a module:Class, or a metric that the runs log, such as val/mean_p_stage2"""

    @property
    def folder(self) -> Path:
        return Path("runs") / self.study

    @property
    def limits(self) -> dict[str, float]:
        """Of each evaluation, how many items a task has at most, or how many kB of text are changed."""
        return {name: self.evaluate_kilobytes if name == ROBUSTNESS else self.evaluate_items for name in self.evaluate}


class Branch(NamedTuple):
    """Where a cell branches from the run of another one."""

    cell: str  # its name
    share: float  # of its budget


@dataclass(frozen=True)
class StudyCell:
    """One run of a study: a splitter at a number of stages, a language and a seed."""

    name: str
    splitter: str  # its row in the table
    language: str
    stages: int
    seed: int
    settings: Settings
    budget: float
    rule: str  # the entry of `splitters` that the row comes from
    rate: float | None = None  # bytes per unit that were asked for; None: its own
    levels: Mapping[str, str] = field(default_factory=dict)  # of the study's factors
    parallel: str | None = None  # text for parallel bits
    evaluate: Mapping[str, float] = field(default_factory=dict)  # evaluations with their limits
    other_text: Mapping[str, Sequence[str]] = field(default_factory=dict)  # files by the name of the text
    branch: Branch | None = None  # None: it begins at its beginning
    multiple: float | None = None  # of its row's learning rates, where it is one of their search

    @property
    def asked(self) -> dict[str, Any]:
        """What the cell is asked after training."""
        return {**self.evaluate, **{name: [*files] for name, files in self.other_text.items()}}


def load(files: Sequence[Path]) -> tuple[Study, str]:
    """Returns the study that YAML files describe (later ones win), and its YAML. Raises UserError for bad settings."""
    merged: Settings = {}
    for path in files:
        merged = _over(merged, _read(path))
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
    return read if base is None else _over(_read(path.parent / str(base)), read)


def _over(base: Settings, over: Settings) -> Settings:
    """Returns `base` overridden by `over`, without the rows of `base` that are null in `over`."""
    merged, known, ours = merge(base, over), base.get("splitters") or {}, over.get("splitters") or {}
    for row in [row for row in known if row in ours and ours[row] is None]:
        del merged["splitters"][row]
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
    read["match"] = _part(Match, "match", read["match"])
    if read.get("tune") is not None:
        read["tune"] = _part(Tune, "tune", read["tune"])
    if not isinstance(read.get("submitit"), dict | None):
        raise UserError(f"submitit is {read['submitit']!r}: it must be a mapping, such as {{cluster: slurm, …}}")
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
    _check_evaluations(study)
    if study.reference is not None and study.reference not in study.splitters:
        raise UserError(f"reference is {study.reference!r}: choose one of {', '.join(study.splitters)}")
    for name, least in (("jobs", 1), ("validations", 1), ("gpus_per_cell", 0)):
        if getattr(study, name) < least:
            raise UserError(f"{name} is {getattr(study, name)}, it must be {least} or more")
    return study


def _check_evaluations(study: Study) -> None:
    if wrong := [name for name in study.other_text if not NAME.fullmatch(name)]:
        raise UserError(f"other_text: {wrong[0]!r} also names files: use only letters, digits, blanks and . _ + -")
    for name in study.evaluate:
        if name not in EVALUATIONS and name not in TASKS.built_in and ":" not in str(name):
            raise UserError(
                f"evaluate has {name!r}: choose of {', '.join(EVALUATIONS)}, or name a task (aunet eval tasks, or your "
                "own as module:Class)"
            )
    try:
        for name in {*study.evaluate} - {*EVALUATIONS}:
            TASKS.check(name)
        check("evaluate_items", study.evaluate_items, Range(least=1), whole=True)
        check("evaluate_kilobytes", study.evaluate_kilobytes, Range(above=0, most=1e9))
    except ValueError as error:
        raise UserError(str(error)) from None


def _part(of: Callable[..., Any], name: str, read: Any) -> Any:
    try:
        return of(**read)
    except TypeError as error:
        valid = ", ".join(one.name for one in fields(of))  # type: ignore[arg-type]
        raise UserError(f"{name}: {error}; valid keys: {valid}") from None


def cells(study: Study, fit: Fit) -> list[StudyCell]:
    """Returns the study's cells, seed by seed, so that a stopped study has complete tables of the first seeds; of
    several budgets the largest first, since smaller ones may branch from it.

    Raises UserError for missing text.
    """
    if without := [
        name for name in study.other_text if not any(other_files(study, name, of) for of in study.languages)
    ]:
        raise UserError(
            f"other_text.{without[0]}: {study.other_text[without[0]]} names no file in any language of the study "
            f"(looked from {Path.cwd()})"
        )
    base: Settings = {}
    for path in study.fit:
        try:
            base = merge(base, yaml.safe_load(Path(path).read_text(encoding="utf-8")))
        except (OSError, yaml.YAMLError) as error:
            raise UserError(f"fit: {path} cannot be read ({str(error).splitlines()[0]})") from None
    base = merge(base, study.settings)
    factors = factors_of(study.factors)
    table = {language: [*_rows(study, base, language, factors, fit)] for language in study.languages}
    found: dict[str, StudyCell] = {}
    for seed, budget, language in itertools.product(study.seeds, reversed(study.match.budgets), study.languages):
        files = {part: files_of(study, part, language) for part in study.text}
        data = {"train_files": files["train"], "val_files": files["val"]}
        parallel = files.get("parallel", [])
        other = {name: of for name in study.other_text if (of := other_files(study, name, language))}
        for rule, stages, row in table[language]:
            name = f"{language}-{row.name}-{stages}stages-seed{seed}"
            name += f"-{budget:g}" if len(study.match.budgets) > 1 else ""
            settings = merge(row.settings, {"seed_everything": seed, "data": data})
            cell = StudyCell(
                name, row.name, language, stages, seed, settings, budget, rule, row.rate, row.levels,
                parallel[0] if parallel else None, study.limits, other,
            )  # fmt: skip
            first = found.setdefault(name, cell)
            if (first.splitter, first.language) != (row.name, language):
                raise UserError(
                    f"{first.splitter} of {first.language} and {row.name} of {language} are both named {name}: "
                    "rename one"
                )
    return list(found.values())


def _rows(
    study: Study, base: Settings, language: str, factors: Sequence[Factor], fit: Fit
) -> Iterator[tuple[str, int, Row]]:
    """Yields the rows of a language with their entry of `splitters` and their number of stages."""
    one_stage: set[str] = set()  # which come up once per stage count
    for (rule, of_rule), (stages, of_stages) in itertools.product(study.splitters.items(), study.stages.items()):
        settings = merge(merge(base, of_stages), of_rule)
        if settings.get("splitter") is None:
            stages, settings = 1, merge(merge(base, {"upper_splitters": []}), of_rule)
            if rule in one_stage:
                continue
            one_stage.add(rule)
        n_stages = len(settings.get("model", {}).get("net", {}).get("stages", []))
        if n_stages != stages:
            raise UserError(
                f"splitters.{rule} with stages {stages}: model.net.stages has {n_stages} stages; set it "
                f"under stages.{stages} or splitters.{rule}"
            )
        for row in rows(rule, language, settings, study.rates, factors, fit):
            if not NAME.fullmatch(row.name):
                raise UserError(
                    f"the row {row.name!r} also names folders: name a factor's values by letters and digits"
                )
            yield rule, stages, row


def files_of(study: Study, part: str, language: str) -> list[str]:
    """Returns the files of a part (train, val or parallel) of a language's text. Raises UserError for missing ones."""
    paths = [study.text[part].replace("{language}", one) for one in study.languages[language]]
    there = [path for path in paths if is_remote(path) or user_path(path, f"text.{part}").exists()]
    if part != "parallel" and len(there) < len(paths):
        lost = next(path for path in paths if path not in there)
        raise UserError(
            f"text.{part}: there is no {lost} (looked from {Path.cwd()}): set text.{part} to the path of your text, "
            "for example in a second -c; JSON lines with a key text, one file per language"
        )
    return there if len(there) == len(paths) == 1 or part != "parallel" else []


def other_files(study: Study, name: str, language: str) -> list[str]:
    """Returns the files of a language's text of another kind; none where one of them is missing."""
    paths = [study.other_text[name].replace("{language}", one) for one in study.languages[language]]
    there = all(is_remote(path) or user_path(path, f"other_text.{name}").exists() for path in paths)
    return paths if there else []


def _positive(name: str, value: Any) -> float:
    """Returns a number, also from a string: YAML reads 2e12 as one."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UserError(f"match: {value!r} is not a number") from None
    check("match", number, Range())
    if not number > 0:
        raise UserError(f"match.{name} is {number}, it must be a number above 0")
    return number
