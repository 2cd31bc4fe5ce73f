"""The command aunet eval: items from any text, and what a model answers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from aunet_lightning.cli.options import add_device, device_of
from aunet_lightning.cli.texts import FORMATS
from aunet_lightning.paths import user_path
from aunet_lightning.terminal import one_line

if TYPE_CHECKING:
    from aunet_lightning.evaluation.answers import Tally
    from aunet_lightning.evaluation.language_text import LanguageText

ITEMS, SUFFIX = 100, ".jsonl"
LEFT = ("task", "language", "group", "what")  # columns of words
MEGABYTES = 2.0  # of each language


def evaluate(arguments: list[str]) -> int:
    """`aunet eval make`, `run` and `tasks`."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "aunet eval",
        description="What a model knows beside its bits per byte: items made from any text, in any language, and "
        "answered by likelihood.",
    )
    parts = parser.add_subparsers(dest="what", metavar="make|run|tasks", required=True)

    tasks = parts.add_parser("tasks", help="list the tasks", description="List the tasks.")
    tasks.set_defaults(run=_tasks)

    make = parts.add_parser(
        "make", help="make items of texts", description="Make items of texts, a file for each task and language.",
        epilog=FORMATS + ". Words are those of ICU (pip install 'aunet-lightning[words]').",
    )  # fmt: skip
    make.add_argument("files", nargs="+", metavar="FILE", help="files or globs, as data.train_files names them")
    make.add_argument("--out", required=True, metavar="DIR", help="a folder for the items, and for tasks of lm_eval")
    make.add_argument("--language", action="append", help="only this language; may be repeated")
    make.add_argument("--task", action="append", help="only this task (default: all); may be repeated")
    make.add_argument("--items", type=int, default=ITEMS, help=f"of each task and language, at most (default {ITEMS})")
    make.add_argument("--seed", type=int, default=0)
    make.set_defaults(run=_make)

    run = parts.add_parser("run", help="answer items", description="Answer items, and count what is right.")
    run.add_argument("ckpt_path", metavar="CKPT", help="a checkpoint of a run, or what aunet export wrote")
    run.add_argument("items", nargs="+", metavar="ITEMS", help="folders or files of aunet eval make")
    run.add_argument("--out", metavar="FILE", help="keeps the answers (.jsonl); the same command continues them")
    run.add_argument("--row_ids", type=int, help="ids that a row reads (default: as in training)")
    add_device(run)
    run.set_defaults(run=_run)
    return parser


def _tasks(options: argparse.Namespace) -> int:
    from aunet_lightning.evaluation.task import TASKS

    rows = [("task", "group", "what")]
    for name in TASKS.built_in:
        task = TASKS.get(name)
        rows.append((name, task.group, (task.__doc__ or "").split("\n")[0]))
    _print(rows)
    return 0


# aunet eval make


def _make(options: argparse.Namespace) -> int:
    from aunet_lightning.evaluation.items import write_items
    from aunet_lightning.evaluation.task import TASKS
    from aunet_lightning.numbers import Range, check

    check("--items", options.items, Range(least=1), whole=True)
    names = options.task or list(TASKS.built_in)
    for name in names:
        TASKS.check(name)
    out = user_path(options.out, "--out")
    rows = [("language", "task", "items")]
    for text in _by_language(options.files, options.language):
        for name in _progress(names, one_line(text.language)):
            items = TASKS.get(name)().items(name, text, options.items, options.seed)
            path = out / f"{name}_{text.language}{SUFFIX}"
            out.mkdir(parents=True, exist_ok=True)
            n = write_items(path, items)
            rows.append((text.language, name, f"{n}"))
            if not n:
                path.unlink()
    _print(rows)
    return 0


def _by_language(files: Sequence[str], wanted: Sequence[str] | None) -> Iterable[LanguageText]:
    from aunet_lightning.data.documents import Report
    from aunet_lightning.data.sources import expand
    from aunet_lightning.evaluation.language_text import LanguageText

    found: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    report = Report()
    for source in expand(files, "FILE", text_key="text", language_key="lang"):
        for document in source.documents(report):
            language = document.language
            if (wanted is None or language in wanted) and sizes.get(language, 0) < MEGABYTES * 1e6:
                found.setdefault(language, []).append(document.text.decode())
                sizes[language] = sizes.get(language, 0) + len(document.text)
    if warning := report.warning():
        print(f"aunet: warning: {one_line(warning)}", file=sys.stderr)
    if missing := sorted({*(wanted or ())} - found.keys()):
        raise ValueError(
            f"--language: no document is in {', '.join(missing)}; the files have {', '.join(sorted(found))}"
        )
    return [LanguageText(language, found[language]) for language in sorted(found)]


# aunet eval run


def _run(options: argparse.Namespace) -> int:
    from aunet_lightning import scoring
    from aunet_lightning.checkpoints.load import load_with_contents
    from aunet_lightning.data.contents import digest
    from aunet_lightning.evaluation.answers import as_metrics, tallied
    from aunet_lightning.evaluation.running import Asked, answered
    from aunet_lightning.tracking.results import keep_results
    from aunet_lightning.tracking.run_folder import RunFolder

    items = list(_items(options.items))
    device = device_of(options.device)
    path = user_path(options.ckpt_path, "CKPT")
    net, reader, contents = load_with_contents(path)
    row = options.row_ids or contents.row_ids or scoring.ROW
    scoring.check_rows(row, 0, None, "--")
    file = path if path.is_file() else next(iter(sorted(path.glob("*.safetensors"))), None)
    asked = Asked(net.to(device), reader, digest(file) if file is not None else str(path), row)
    out = user_path(options.out, "--out") if options.out else None
    tallies = tallied(_progress(answered(asked, items, out), "items", len(items)))
    _report(tallies)
    if keep_results(RunFolder.around(path), as_metrics(tallies), contents.global_step):
        print(f"aunet: kept with the run in {RunFolder.around(path).path}", file=sys.stderr)
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


def _report(tallies: dict[tuple[str, str], Tally]) -> None:
    rows = [("task", "language", "items", "right", "95 %", "chance", "copies", "by all bits")]
    for (task, language), tally in sorted(tallies.items()):
        low, high = tally.interval
        rows.append((
            task, language, f"{tally.n}", f"{tally.accuracy:.1%}", f"{low:.1%} to {high:.1%}",
            f"{tally.chance / tally.n:.1%}", f"{tally.copies / tally.n:.1%}", f"{tally.right_by_bits / tally.n:.1%}",
        ))  # fmt: skip
    _print(rows)


def _progress(items: Iterable[Any], name: str, total: int | None = None) -> Iterable[Any]:
    from tqdm import tqdm

    return tqdm(items, name, total=total, leave=False, disable=None)  # None: where there is no terminal


def _print(rows: Sequence[Sequence[str]]) -> None:
    from aunet_lightning.reports.table import aligned

    print("\n".join(line.rstrip() for line in aligned(rows, left=LEFT)))
