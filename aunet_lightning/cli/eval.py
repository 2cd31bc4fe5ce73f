"""The command aunet eval: items from any text, and what a model answers."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from aunet_lightning.cli.options import add_device, device_of, print_table, warn
from aunet_lightning.cli.texts import FORMATS, MEGABYTES, MEGABYTES_RANGE, add_megabytes
from aunet_lightning.paths import user_path
from aunet_lightning.terminal import one_line

if TYPE_CHECKING:
    from aunet_lightning.evaluation.language_text import LanguageText

ITEMS, SUFFIX = 100, ".jsonl"
TABLE = "evaluation/tasks.csv"  # of a run: what is right of each task, by the last `aunet eval run`
LEFT = ("task", "language", "group", "what", "why no more")  # columns of words


def evaluate(arguments: list[str]) -> int:
    """`aunet eval make`, `run`, `robustness`, `translation` and `tasks`."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "aunet eval",
        description="What a model knows beside its bits per byte: items made from any text, in any language, and "
        "answered by likelihood.",
    )
    parts = parser.add_subparsers(dest="what", metavar="make|run|robustness|translation|tasks", required=True)

    tasks = parts.add_parser("tasks", help="list the tasks", description="List the tasks.")
    tasks.set_defaults(run=_tasks)

    make = parts.add_parser(
        "make", help="make items of texts", description="Make items of texts, a file for each task and language.",
        epilog=FORMATS + ". Words are those of ICU (pip install 'aunet-lightning[evaluation]').",
    )  # fmt: skip
    make.add_argument("files", nargs="+", metavar="FILE", help="files or globs, as data.train_files names them")
    make.add_argument("--out", required=True, metavar="DIR", help="a folder for the items, and for tasks of lm_eval")
    make.add_argument("--language", action="append", help="only this language; may be repeated")
    make.add_argument("--task", action="append", help="only this task (default: all); may be repeated")
    make.add_argument("--items", type=int, default=ITEMS, help=f"of each task and language, at most (default {ITEMS})")
    make.add_argument("--seed", type=int, default=0)
    make.set_defaults(run=_make)

    run = _asking(parts, "run", "answer items", "Answer items, and count what is right.", _run)
    run.add_argument("items", nargs="+", metavar="ITEMS", help="folders or files of aunet eval make")

    described = "Bits of texts that are changed."
    changed = _asking(parts, "robustness", "bits of changed text", described, _robustness)
    changed.add_argument("files", nargs="+", metavar="FILE", help="files or globs, as data.train_files names them")
    changed.add_argument("--change", action="append", help="only this change (default: all); may be repeated")
    add_megabytes(changed)
    changed.add_argument("--seed", type=int, default=0)

    described = "Translation of parallel text into English, chosen by likelihood and written."
    into = _asking(parts, "translation", "translation into English", described, _translation)
    into.add_argument("files", nargs="+", metavar="FILE", help="parallel text, as data.parallel_files names it")
    into.add_argument("--items", type=int, default=ITEMS, help=f"sentences of each language, at most (default {ITEMS})")
    into.add_argument(
        "--no_generation", action="store_true", help="choices by likelihood alone, which needs no sacrebleu"
    )
    into.add_argument("--seed", type=int, default=0)
    return parser


def _asking(parts: Any, name: str, what: str, described: str, run: Callable[..., int]) -> argparse.ArgumentParser:
    """Adds a command that asks a model."""
    parser: argparse.ArgumentParser = parts.add_parser(name, help=what, description=described)
    parser.add_argument("ckpt_path", metavar="CKPT", help="a checkpoint of a run, or what aunet export wrote")
    parser.add_argument("--out", metavar="FILE", help="keeps what was found (.jsonl); the same command continues it")
    parser.add_argument("--row_ids", type=int, help="ids that a row reads (default: as in training)")
    add_device(parser)
    parser.set_defaults(run=run)
    return parser


def _tasks(options: argparse.Namespace) -> int:
    from aunet_lightning.evaluation.task import TASKS

    rows = [("task", "group", "what")]
    for name in TASKS.built_in:
        task = TASKS.get(name)
        rows.append((name, task.group, (task.__doc__ or "").split("\n")[0]))
    print_table(rows, LEFT)
    return 0


# aunet eval make


def _make(options: argparse.Namespace) -> int:
    from aunet_lightning.evaluation.items import write_items
    from aunet_lightning.evaluation.lm_eval_tasks import write_lm_eval
    from aunet_lightning.evaluation.task import TASKS
    from aunet_lightning.numbers import Range, check
    from aunet_lightning.tracking.names import metric_name

    check("--items", options.items, Range(least=1), whole=True)
    names = options.task or list(TASKS.built_in)
    for name in names:
        TASKS.check(name)
    out = user_path(options.out, "--out")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out is {out}, which is a file: name a folder, in which each task has a file")
    rows = [("language", "task", "items", "why no more")]
    for text in _by_language(options.files, options.language, MEGABYTES):
        for name in _progress(names, one_line(text.language)):
            task = TASKS.get(name)()
            path = out / f"{name}_{metric_name(text.language)}{SUFFIX}"
            out.mkdir(parents=True, exist_ok=True)
            n = write_items(path, task.items(name, text, options.items, options.seed))
            reason = task.left_out(text) or ("" if n == options.items else "the text has no more that differ")
            rows.append((text.language, name, f"{n}", reason))
            if n:
                write_lm_eval([path])
            else:
                path.unlink()
    print_table(rows, LEFT)
    return 0


def _by_language(files: Sequence[str], wanted: Sequence[str] | None, megabytes: float) -> Iterable[LanguageText]:
    from aunet_lightning.data.documents import Report
    from aunet_lightning.data.sources import expand
    from aunet_lightning.evaluation.language_text import Evenly, LanguageText
    from aunet_lightning.numbers import check

    check("--megabytes", megabytes, MEGABYTES_RANGE)
    found: dict[str, Evenly] = {}
    report = Report()
    for source in expand(files, "FILE", text_key="text", language_key="lang"):
        for document in source.documents(report):
            found.setdefault(document.language, Evenly(int(megabytes * 1e6))).add(document.text)
    warn(report.warning())
    if missing := sorted({*(wanted or ())} - found.keys()):
        raise ValueError(
            f"--language: no document is in {', '.join(missing)}; the files have {', '.join(sorted(found))}"
        )
    return [LanguageText(language, found[language].documents) for language in sorted({*(wanted or found)})]


# aunet eval run


def _run(options: argparse.Namespace) -> int:
    from aunet_lightning.evaluation.answers import as_metrics, shortened, table, tallied
    from aunet_lightning.evaluation.running import Asked, answered

    items, out = list(_items(options.items)), _out(options)
    model = _model(options)
    asked = Asked(model.net, model.reader, model.digest, model.row_ids)
    tallies = tallied(_progress(answered(asked, items, out), "items", len(items)))
    print_table(rows := table(tallies), LEFT)
    if cut := shortened(model.reader, items, model.row_ids):
        print(
            f"aunet eval: {cut} of {len(items)} items do not fit into a row of {model.row_ids} ids, which has the end "
            "of their context alone: the first of their examples were not read. Give longer rows (--row_ids) if the "
            "model was trained with such, or leave those tasks out",
            file=sys.stderr,
        )
    csv.writer(text := io.StringIO(), lineterminator="\n").writerows(rows)
    _keep(model, as_metrics(tallies), {TABLE: text.getvalue()})
    return 0


def _out(options: argparse.Namespace) -> Path | None:
    """The file that --out names, in a folder that is there."""
    if not options.out:
        return None
    out = user_path(options.out, "--out")
    if out.is_dir():
        raise ValueError(f"--out is {out}, which is a folder: name a file in it, such as {out / 'out.jsonl'}")
    out.parent.mkdir(parents=True, exist_ok=True)
    return out


class _Model(NamedTuple):
    path: Path
    net: Any
    reader: Any
    row_ids: int
    step: int
    digest: str


def _model(options: argparse.Namespace) -> _Model:
    from aunet_lightning import scoring
    from aunet_lightning.checkpoints.load import load_with_contents
    from aunet_lightning.evaluation.running import model_digest

    device = device_of(options.device)
    path = user_path(options.ckpt_path, "CKPT")
    net, reader, contents = load_with_contents(path)
    row = (contents.row_ids or scoring.ROW) if options.row_ids is None else options.row_ids
    scoring.check_rows(row, 0, None, "--")
    return _Model(path, net.to(device), reader, row, contents.global_step, model_digest(net, contents))


def _keep(model: _Model, metrics: dict[str, float], texts: Mapping[str, str] = MappingProxyType({})) -> None:
    from aunet_lightning.tracking.results import keep_results
    from aunet_lightning.tracking.run_folder import RunFolder

    folder = RunFolder.around(model.path)
    if keep_results(folder, metrics, model.step, texts):
        print(f"aunet: kept with the run in {folder.path}", file=sys.stderr)


# aunet eval robustness, aunet eval translation


def _robustness(options: argparse.Namespace) -> int:
    from aunet_lightning.evaluation.kept import Kept
    from aunet_lightning.evaluation.robustness import CHANGES, as_metrics, changes_of, effects, robustness, table

    changes, out = changes_of(options.change or CHANGES), _out(options)
    texts = {
        of.language: [one.encode() for one in of.documents]
        for of in _by_language(options.files, None, options.megabytes)
    }
    model = _model(options)
    total = len(changes) * sum(map(len, texts.values()))
    with Kept(out, {"model": model.digest, "row_ids": model.row_ids, "seed": options.seed}) as kept:
        read = robustness(model.net, model.reader, texts, changes, model.row_ids, options.seed, kept)
        found = list(_progress(read, "documents", total))
    print("bits of changed text ÷ bits of the text as it was")
    print_table(table(known := effects(found)), LEFT)
    _keep(model, as_metrics(known))
    return 0


def _translation(options: argparse.Namespace) -> int:
    from aunet_lightning.data.datamodule import ByteDataModule
    from aunet_lightning.evaluation.kept import Kept
    from aunet_lightning.evaluation.translation import (
        as_metrics,
        questions,
        sentences,
        table,
        trained_languages,
        translation,
    )
    from aunet_lightning.numbers import Range, check
    from aunet_lightning.training.parallel import aligned, named_texts

    check("--items", options.items, Range(least=1), whole=True)
    out = _out(options)
    data = ByteDataModule(parallel_files=options.files, workers=0)
    data.prepare_data()
    data.setup()
    found = sentences(aligned(named_texts(data)))
    for reason, n in found.left_out.items():
        print(f"aunet: {n} {reason} left out", file=sys.stderr)
    asked = questions(found.found, options.items, seed=options.seed)
    model = _model(options)
    trained = trained_languages(model.path)
    total = len(asked[0].sentence.texts) - 1
    with Kept(out, {"model": model.digest, "row_ids": model.row_ids}) as kept:
        results = translation(model.net, model.reader, asked, trained, not options.no_generation, model.row_ids, kept)
        known = list(_progress(results, "languages", total))
    print_table(table(known), LEFT)
    _keep(model, as_metrics(known))
    return 0


def _items(given: Sequence[str]) -> Iterable[Any]:
    from aunet_lightning.evaluation.items import read_items

    for one in given:
        path = user_path(one, "ITEMS")
        files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
        if not files or not files[0].is_file():
            raise ValueError(f"{one} is neither a file of items nor a folder with some: aunet eval make writes them")
        for file in files:
            yield from read_items(file)


def _progress(items: Iterable[Any], name: str, total: int | None = None) -> Iterable[Any]:
    from tqdm import tqdm

    return tqdm(items, name, total=total, leave=False, disable=None)  # None: where there is no terminal
