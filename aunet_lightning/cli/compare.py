"""`aunet compare`: a grid of runs at equal cost, and the report of what they found."""

import argparse
import fcntl
import io
import multiprocessing
import shlex
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import yaml

from aunet_lightning.errors import UserError
from aunet_lightning.terminal import printable


def compare(arguments: list[str]) -> int:
    """Runs what is left of a study, and writes its report; returns 1 where a cell failed."""
    parser = argparse.ArgumentParser(
        "aunet compare",
        description="Train a grid of splitters, languages, stages and seeds at equal cost, and report. The same "
        "command again continues where it was stopped; failed cells are tried again.",
    )
    parser.add_argument(
        "-c", "--config", action="append", required=True, type=Path, metavar="FILE",
        help="the study (experiments/compare/*.yaml); of several files, later ones win",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, help="cells at once, in place of the study's")
    parser.add_argument("--dry_run", action="store_true", help="show the cells and what they cost, and run nothing")
    parser.add_argument("--report", action="store_true", help="write the report of what there is, and run nothing")
    options = parser.parse_args(arguments)
    from aunet_lightning.study.grid import cells, load

    study, grid = load(options.config)
    if options.jobs is not None:
        if options.jobs < 1:
            raise UserError(f"--jobs is {options.jobs}, it must be 1 or more")
        study.jobs = options.jobs
    found = cells(study)
    print(f"Study {study.study}: {len(found)} cells. Measuring units on the training text …", flush=True)
    from aunet_lightning.study.sizing import Sizer

    sizer = Sizer(study)
    sized = [sizer.sized(cell) for cell in found]
    for warning in sizer.warnings:
        print(f"aunet compare: {warning}", file=sys.stderr)
    _check_folders(sized)
    if not options.report:
        _check_settings(sized)
    if options.dry_run:
        _show(study, sized)
        return 0
    study.folder.mkdir(parents=True, exist_ok=True)
    with (study.folder / "lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"study {study.study} is being run by another aunet compare: wait for it, or name another study"
            ) from None
        except OSError as error:
            print(f"aunet compare: {study.folder} cannot be locked ({error.strerror}): run it once", file=sys.stderr)
        (study.folder / "grid.yaml").write_text(grid, encoding="utf-8")
        command = shlex.join(["aunet", "compare", *(part for path in options.config for part in ("-c", str(path)))])
        return _run(study, sized, grid, command, run=not options.report)


def _run(study: Any, sized: Sequence[Any], grid: str, command: str, run: bool) -> int:
    from aunet_lightning.reports.study.report import write_report
    from aunet_lightning.study.collect import collect
    from aunet_lightning.study.mlflow_study import begin, finish
    from aunet_lightning.study.running import run_cells

    where = _apart(begin, study.tracking_uri, study.study, f"{study.match.by} {study.match.budget:g}")
    print(f"See it in MLflow as it runs: {where}", flush=True)
    stopped = False
    if run:
        from tqdm import tqdm

        try:
            run_cells(sized, study.jobs, study.threads, study.gpus_per_cell, lambda line: tqdm.write(line))
        except KeyboardInterrupt:
            stopped = True
            print("\nStopped; the same command continues from here.", flush=True)
    result = collect(study, sized, grid, command)
    write_report(result, study.folder)
    failed = [cell for cell in result.cells if cell.status == "failed"]
    done = sum(cell.status == "done" for cell in result.cells)
    print(f"\n{done} of {len(result.cells)} cells are done, {len(failed)} failed.")
    for cell in failed:
        print(f"  {cell.name}: {cell.error}")
    print(f"Report: {study.folder / 'report.html'}  (report.md, table.csv and heatmap.png beside it)")
    try:
        _apart(finish, study.tracking_uri, study.study, str(study.folder), done == len(result.cells))
        print(f"MLflow: {where}", flush=True)
    except UserError as error:
        message = f"aunet compare: the report is not in MLflow; aunet compare --report puts it there. {error}"
        print(printable(message), file=sys.stderr, flush=True)
    return 130 if stopped else int(bool(failed))


def _apart(function: Any, *arguments: Any) -> Any:
    """Calls a function in a process of its own: what MLflow opens is not for those that come after."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(function, arguments)


def _check_folders(sized: Sequence[Any]) -> None:
    """Raises UserError where a cell's folder holds another run: the study has changed, and keeps its old name."""
    from aunet_lightning.study.running import changed

    for one in sized:
        if difference := changed(one):
            raise UserError(
                f"{one.folder} holds a run of another study of this name; it differs in {difference}. Give this study "
                "another name (study: …), or move the folder away"
            )


def _check_settings(sized: Sequence[Any]) -> None:
    """Tells of settings that aunet fit will not take, before hours are spent on other cells; cells that differ by
    language or seed alone are looked at once."""
    from aunet_lightning.cli.main import main
    from aunet_lightning.cli.settings import check

    looked_at = {(one.cell.splitter, one.cell.stages): one for one in reversed(sized)}
    with tempfile.TemporaryDirectory() as folder:
        for one in looked_at.values():
            path = Path(folder) / "settings.yaml"
            path.write_text(yaml.safe_dump(one.settings, allow_unicode=True), encoding="utf-8")
            told, code = io.StringIO(), 0
            with redirect_stdout(io.StringIO()), redirect_stderr(told):
                try:
                    check(one.settings)
                    code = main(["fit", "-c", str(path), "--print_config"])
                except UserError as error:
                    code = bool(told.write(str(error)))
                except SystemExit as done:
                    code = int(bool(done.code))
            if code:
                wrong = told.getvalue().strip().rpartition("error: ")[2]
                print(f"aunet compare: {one.cell.name} will fail: {wrong}", file=sys.stderr)


def _show(study: Any, sized: Sequence[Any]) -> None:
    from aunet_lightning.reports.table import aligned

    header = ["cell", "parameters", "FLOPs/byte", "bytes/unit", "bytes", "steps"]
    rows = []
    for one in sized:
        steps = one.steps or float("nan")
        rows.append([
            one.cell.name, f"{one.parameters:,}", f"{one.flops_per_byte:.3g}",
            " ".join(f"{rate:.2f}" for rate in one.row.bytes_per_unit) or "–",
            f"{steps * one.row.text_bytes * one.settings['data'].get('batch_rows', 16):.3g}", f"{steps:.0f}",
        ])  # fmt: skip
    print(*aligned([header, *rows], left=("cell",)), sep="\n")
    total = sum(one.steps * one.row.text_bytes * one.flops_per_byte for one in sized if one.steps)
    print(f"{len(sized)} cells, about {total * study.settings.get('data', {}).get('batch_rows', 16):.3g} FLOPs")
    without = [name for name in study.languages if not any(c.cell.parallel for c in sized if c.cell.language == name)]
    if "parallel" in study.text and without:
        print(f"no parallel text for {', '.join(without)}")
