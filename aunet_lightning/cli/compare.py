"""The command `aunet compare`: a grid of runs at equal cost, and the report of their results."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import fnmatch
import io
import math
import multiprocessing
import shlex
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from aunet_lightning.errors import UserError
from aunet_lightning.terminal import printable

if TYPE_CHECKING:
    from aunet_lightning.study.cell_process import Main
    from aunet_lightning.study.grid import Study
    from aunet_lightning.study.results import StudyResult, Tuned
    from aunet_lightning.study.sizing import Sized


def compare(arguments: list[str], main: Main) -> int:
    """Runs the rest of a study, each cell by `main`, and writes its report; returns 1 if a cell failed."""
    options = _parsed(arguments)
    if not options.config:
        return _redraw(options.results, options.out, options.reference)
    from aunet_lightning.reports.study.columns import columns_of
    from aunet_lightning.study.branching import branched
    from aunet_lightning.study.fitting import Fitter
    from aunet_lightning.study.grid import cells, load

    study, grid = load(options.config)
    if options.jobs is not None:
        if options.jobs < 1:
            raise UserError(f"--jobs is {options.jobs}, it must be 1 or more")
        study.jobs = options.jobs
    columns_of(study.columns)  # unknown ones are refused now
    if study.submitit is not None and not (options.report or options.dry_run):
        from aunet_lightning.study.cluster import check

        check(study)
    fitter = Fitter(study)
    found = branched(study, cells(study, fitter))
    for note in dict.fromkeys(fitter.notes):
        print(f"aunet compare: {note}", file=sys.stderr)
    print(f"Study {study.study}: {len(found)} cells. Measuring units on the training text …", flush=True)
    from aunet_lightning.study.sizing import Sizer
    from aunet_lightning.study.space import shortage
    from aunet_lightning.study.tuning import at_best, trials

    sizer = Sizer(study)
    search = [sizer.sized(cell) for cell in trials(study, found)]
    sized = [sizer.sized(cell) for cell in found]
    for warning in sizer.warnings:
        print(f"aunet compare: {warning}", file=sys.stderr)
    kept = _kept(options.results, sized)
    chosen = _chosen(sized, options.only, {cell.name for cell in kept.cells} if kept else set())
    _check_folders([*search, *([] if search else sized)])
    to_run = [one for one in [*search, *(of for of in sized if of.cell.name in chosen)] if not one.is_done]
    if not options.report:
        _check_settings(sized, main)
        if full := shortage(study, to_run):
            print(f"aunet compare: {full}", file=sys.stderr)
    if options.dry_run:
        _show(study, [*search, *sized])
        return 0
    if options.plan:
        with _alone(study):
            print(f"Plan: {_plan(study, [*search, *sized], to_run, grid, main)}")
        return 0
    command = shlex.join(["aunet", "compare", *(part for path in options.config for part in ("-c", str(path)))])
    with _alone(study):
        rows = _search(study, search, None if options.report else main) if search else []
        if search:
            sized = [sizer.sized(cell) for cell in at_best(found, rows)]
            _check_folders(sized)
        main_of = None if options.report else main
        return _run(study, sized, rows, grid, command, main_of, chosen, kept, options.results)


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.config and (options.results is None or options.out is None):
        parser.error("name a study (-c FILE), or --results FILE --out FOLDER to draw a report of results again")
    if options.config and (options.out is not None or options.reference is not None):
        parser.error("--out and --reference are for --results without -c: a study's YAML says where, and against what")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "aunet compare",
        description="Train a grid of splitters, languages, stages and seeds at equal cost, and report. The same "
        "command again continues a stopped study and retries failed cells.",
    )
    parser.add_argument(
        "-c", "--config", action="append", type=Path, metavar="FILE",
        help="the study (experiments/compare/*.yaml); of several files, later ones win",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, help="cells to run at once, overriding the study's jobs")
    parser.add_argument("--dry_run", action="store_true", help="list the cells and their cost, and run nothing")
    parser.add_argument(
        "--plan", action="store_true",
        help="train some cells for a minute in all, and write what will be run, what counts as a result and how long "
        "it takes here; the report then says what was changed after",
    )  # fmt: skip
    parser.add_argument("--report", action="store_true", help="report the results so far, and run nothing")
    parser.add_argument(
        "--only", action="append", default=[], metavar="PATTERN",
        help="run the cells of this name, as in 'zh-Hans-*' or '*-seed1' (repeatable, in this order), and what they "
        "branch from; the report has all that were run",
    )  # fmt: skip
    parser.add_argument(
        "--results", type=Path, metavar="FILE.csv.xz",
        help="results of finished cells, also of other machines: cells that are there are not run here, and those that "
        "finish here are added. Without -c, the report is drawn from it into --out",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for the report of --results without -c")
    parser.add_argument("--reference", metavar="ROW", help="in that report, what rows are compared with")
    return parser


def _redraw(results: Path, out: Path, reference: str | None) -> int:
    """Writes the report of results that were kept, against the study's reference or another row."""
    from aunet_lightning.reports.study.report import write_report
    from aunet_lightning.study.kept import read
    from aunet_lightning.study.study_folder import StudyFolder

    study = read(results)
    if reference is not None:
        rows = list(dict.fromkeys(cell.rule or cell.splitter for cell in study.cells))
        if reference not in rows:
            raise UserError(f"--reference {reference} is not a row of {results}: choose one of {', '.join(rows)}")
        study = replace(study, reference=reference)
    write_report(study, out)
    print(f"Report: {StudyFolder(out).page}")
    return 0


def _kept(path: Path | None, sized: Sequence[Sized]) -> StudyResult | None:
    """Returns the kept results of cells that are as they were, and says how many are not."""
    if path is None or not path.exists():
        return None
    from aunet_lightning.study.kept import read, valid

    found = read(path)
    kept = valid(found, {one.cell.name: one.definition for one in sized})
    if others := len(found.cells) - len(kept.cells):
        print(
            f"aunet compare: {others} of {len(found.cells)} results in {path} are of other settings or text than this "
            "study's: they are left out, and will not be in the file when it is written again",
            file=sys.stderr,
        )
    return kept


def _chosen(sized: Sequence[Sized], patterns: Sequence[str], kept: Collection[str]) -> list[str]:
    """Returns the names of the cells that match one of the patterns and have no kept results, in the order of the
    patterns, each after the one that it branches from; of all without patterns. Raises UserError for a pattern that
    matches none."""
    names = [one.cell.name for one in sized]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise UserError(f"--only {pattern} is the name of no cell; they are called {', '.join(names[:3])}, …")
    wanted = [one.cell for one in sized if one.cell.name not in kept]
    found = [one for pattern in patterns or ["*"] for one in wanted if fnmatch.fnmatchcase(one.name, pattern)]
    with_trunks = [name for one in found for name in ([one.branch.cell] if one.branch else []) + [one.name]]
    return [*dict.fromkeys(with_trunks)]


@contextlib.contextmanager
def _alone(study: Study) -> Iterator[None]:
    """Creates the study's folder and locks it. Raises UserError where another process runs the study."""
    from aunet_lightning.study.study_folder import StudyFolder

    files = StudyFolder(study.folder)
    files.path.mkdir(parents=True, exist_ok=True)
    with files.lock.open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another aunet compare is running study {study.study}: wait for it, or give this study another name"
            ) from None
        except OSError as error:
            print(
                f"aunet compare: cannot lock {study.folder} ({error.strerror}): do not run this study twice at once",
                file=sys.stderr,
            )
        yield


def _search(study: Study, search: Sequence[Sized], main: Main | None) -> list[Tuned]:
    """Runs the rest of the search of learning rates, and returns what it found."""
    from aunet_lightning.study.running import run_cells
    from aunet_lightning.study.tuning import tuned

    if main is not None:
        from tqdm import tqdm

        print(f"Searching learning rates: {len(search)} cells.", flush=True)
        run_cells(search, study, main, tqdm.write)
    return tuned(search)


def _plan(study: Study, sized: Sequence[Sized], to_run: Sequence[Sized], grid: str, main: Main) -> Path:
    from tqdm import tqdm

    from aunet_lightning.study.protocol import write_plan
    from aunet_lightning.study.timing import measure

    return write_plan(study, sized, to_run, grid, measure(sized, study, main, tqdm.write))


def _run(
    study: Study,
    sized: Sequence[Sized],
    tuned: Sequence[Tuned],
    grid: str,
    command: str,
    main: Main | None,
    chosen: Sequence[str],
    kept: StudyResult | None = None,
    results: Path | None = None,
) -> int:
    """Runs the chosen cells, reports all, with kept results, and writes those. main: None to report alone."""
    from aunet_lightning.reports.study.report import write_report
    from aunet_lightning.study.collect import collect
    from aunet_lightning.study.evaluating import make_items
    from aunet_lightning.study.kept import completed, write
    from aunet_lightning.study.mlflow_study import begin, finish
    from aunet_lightning.study.running import run_cells
    from aunet_lightning.study.study_folder import StudyFolder

    files = StudyFolder(study.folder)
    files.grid.write_text(grid, encoding="utf-8")
    where = _apart(begin, study.tracking_uri, study.study, f"{study.match.by} {study.match.budget:g}")
    print(f"Live results in MLflow: {where}", flush=True)
    stopped = False
    if main is not None:
        from tqdm import tqdm

        try:
            make_items(study, main)
            by_name = {one.cell.name: one for one in sized}
            run_cells([by_name[name] for name in chosen], study, main, tqdm.write)
        except KeyboardInterrupt:
            stopped = True
            print("\nStopped; the same command continues from here.", flush=True)
    result = completed(collect(study, sized, grid, command, tuned), kept)
    if results is not None:
        write(result, results)
    write_report(result, study.folder)
    failed = [cell for cell in result.cells if cell.status == "failed"]
    done = sum(cell.status == "done" for cell in result.cells)
    print(f"\n{done} of {len(result.cells)} cells are done, {len(failed)} failed.")
    for cell in failed:
        print(f"  {cell.name}: {cell.error}")
    beside = f"{files.markdown.name}, {files.table.name} and {files.heatmap.name} beside it"
    print(f"Report: {files.page}  ({beside})")
    try:
        _apart(finish, study.tracking_uri, study.study, str(study.folder), done == len(result.cells))
        print(f"MLflow: {where}", flush=True)
    except UserError as error:
        message = f"aunet compare: the report is not in MLflow; aunet compare --report puts it there. {error}"
        print(printable(message), file=sys.stderr, flush=True)
    return 130 if stopped else int(bool(failed))


def _apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in a process of its own, as MLflow's connections do not survive a fork."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(function, arguments)


def _check_folders(sized: Sequence[Sized]) -> None:
    """Raises UserError if a cell's folder contains another run: the study has changed, but not its name."""
    from aunet_lightning.study.running import changed

    for one in sized:
        if difference := changed(one):
            raise UserError(
                f"{one.folder} contains a run of another study of this name; it differs in {difference}. Give this "
                "study another name (study: …), or move the folder away"
            )


def _check_settings(sized: Sequence[Sized], main: Main) -> None:
    """Warns of settings that aunet fit will refuse, before hours are spent on other cells. Of cells that differ only in
    language or seed, one is checked."""
    from aunet_lightning.cli.settings import check
    from aunet_lightning.study.fork_server import kinds

    with tempfile.TemporaryDirectory() as folder:
        for one in kinds(sized):
            path = Path(folder) / "settings.yaml"
            path.write_text(yaml.safe_dump(one.settings, allow_unicode=True), encoding="utf-8")
            printed, code = io.StringIO(), 0
            with redirect_stdout(io.StringIO()), redirect_stderr(printed):
                try:
                    check(one.settings)
                    code = main(["fit", "-c", str(path), "--print_config"])
                except UserError as error:
                    code = bool(printed.write(str(error)))
                except SystemExit as done:
                    code = int(bool(done.code))
            if code:
                wrong = printed.getvalue().strip().rpartition("error: ")[2]
                print(f"aunet compare: {one.cell.name} will fail: {wrong}", file=sys.stderr)


def _show(study: Study, sized: Sequence[Sized]) -> None:
    from aunet_lightning.reports.table import aligned

    header = ["cell", "parameters", "embeddings", "FLOPs/byte", "bytes/unit", "bytes", "steps"]
    rows = []
    for one in sized:
        rows.append([
            one.cell.name, f"{one.parameters:,}", f"{one.embedding_parameters / one.parameters:.0%}",
            f"{one.flops_per_byte:.3g}",
            " ".join(f"{rate:.2f}" for rate in one.rates) or "–",
            f"{one.bytes:.3g}", f"{math.nan if one.steps is None else one.steps:.0f}",
        ])  # fmt: skip
    print(*aligned([header, *rows], left=("cell",)), sep="\n")
    total = sum(one.bytes * one.flops_per_byte for one in sized if one.steps is not None)
    print(f"{len(sized)} cells, about {total:.3g} FLOPs")
    without = [name for name in study.languages if not any(c.cell.parallel for c in sized if c.cell.language == name)]
    if "parallel" in study.text and without:
        print(f"no parallel text for {', '.join(without)}")
