"""The command `aunet runs`: the runs of this machine as a table, and what of them may be deleted."""

import argparse
import contextlib
import fnmatch
import math
import os
import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aunet_lightning.errors import UserError
from aunet_lightning.paths import user_path
from aunet_lightning.reports import leftovers
from aunet_lightning.reports.run_list import Run, State, find, is_run, read
from aunet_lightning.reports.table import aligned
from aunet_lightning.terminal import one_line
from aunet_lightning.tracking.known_runs import KnownRun, known_runs
from aunet_lightning.tracking.lock import host
from aunet_lightning.tracking.store import DEFAULT_STORE, VARIABLE, sqlite_path, tracking_uri

HOME = "runs"
HEADER = ("state", "step", "last BPB", "best BPB", "age", "splitter", "folder")
LEFT = ("state", "splitter", "folder")
SHORTEST = 12  # columns of a splitter's name that is cut
MOST_NAMED = 5  # folders in a sentence
UNITS = ((86400 * 365, "y"), (86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
ORDERS: dict[str, Callable[[Run], Any]] = {  # what is best, newest or furthest comes first, and what has none last
    "age": lambda run: _last_if_nan(-run.changed),
    "bpb": lambda run: _last_if_nan(run.bpb),
    "step": lambda run: -1 * (-1 if run.step is None else run.step),
    "folder": lambda run: str(run.files.path),
}


def runs(arguments: list[str]) -> int:
    """`aunet runs`: the runs under runs/, or in the folders that are named; `aunet runs clean`: what may go."""
    cleans = arguments[:1] == ["clean"]
    options = _clean_parser().parse_args(arguments[1:]) if cleans else _parser().parse_args(arguments)
    every, gone = _read(options.folders)
    chosen = [run for run in every if _is_chosen(run, options)]
    chosen.sort(key=lambda run: str(run.files.path))
    if cleans:
        return _clean(chosen, leftovers.named_by(every), options.yes, arguments)
    if not every:
        print(_nothing(options.folders))
        return 0
    chosen.sort(key=ORDERS[options.sort])
    if chosen:
        _show([_row(run) for run in chosen])
    _tell(every, chosen, gone)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "aunet runs",
        description="List the runs of this machine: the folders under runs/, those of studies too, and those elsewhere "
        "that runs/mlflow.db knows. A run that died was killed: the same command continues it.",
        epilog="BPB is of held-out text: of the last validation, and the lowest; age is the time since the run last "
        "wrote. aunet runs clean lists what may be deleted.",
    )
    _add_choice(parser)
    parser.add_argument(
        "--sort", choices=[*ORDERS], default="age", help="lowest last BPB, newest (default), furthest, or name first"
    )
    return parser


def _clean_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "aunet runs clean",
        description="List what may be deleted: failed runs (not of studies) without a checkpoint, checkpoints that are "
        "neither last nor best, and what runs set aside when they went back. Running runs, checkpoints from which "
        "cells of a study branch, and what the settings of other runs name stay.",
    )
    _add_choice(parser)
    parser.add_argument("--yes", action="store_true", help="delete it; without this, nothing is deleted")
    return parser


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help=f"where to look (default {HOME})")
    parser.add_argument(
        "--only", action="append", metavar="PATTERN",
        help="runs whose folder or splitter matches, as in 'th-*' or trie; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--state", action="append", choices=[str(state) for state in State], metavar="STATE",
        help=f"runs in this state: {', '.join(State)}; may be repeated",
    )  # fmt: skip


def _read(folders: Sequence[str]) -> tuple[list[Run], int]:
    """Returns the runs, and the number of those that MLflow knows here and whose folder is gone. Tells of folders that
    hold none. Raises ValueError for a folder that does not exist."""
    roots = [user_path(folder, "FOLDER") for folder in folders]
    for root in roots:
        if not root.is_dir():
            raise ValueError(f"{root} is not a folder (looked from {Path.cwd()})")
    found = [find(root) for root in roots or [Path(HOME)]]
    paths = {os.path.realpath(path): path for one in found for path in one.runs}
    others = [path for one in found for path in one.others]
    known = _known(roots)
    gone = 0
    for run in known.values() if not roots else ():
        if run.folder is None or run.host not in (None, host()) or os.path.realpath(run.folder) in paths:
            continue
        if is_run(Path(run.folder)):
            paths[os.path.realpath(run.folder)] = Path(run.folder)
        else:
            gone += 1
    if others:
        named = ", ".join(one_line(str(path)) for path in others[:MOST_NAMED])
        more = f" and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
        _say(f"no runs in {named}{more}")
    return [read(path, known) for path in paths.values()], gone


def _known(roots: Sequence[Path]) -> Mapping[str, KnownRun]:
    """Returns the runs of the SQLite stores in the folders and of $MLFLOW_TRACKING_URI, by id."""
    stores = [DEFAULT_STORE, *(root / DEFAULT_STORE.name for root in roots)]
    if os.environ.get(VARIABLE):
        with contextlib.suppress(UserError):  # not a store: aunet fit says so
            stores.append(sqlite_path(tracking_uri(None)) or DEFAULT_STORE)
    return {run_id: run for store in stores for run_id, run in known_runs(store).items()}


def _is_chosen(run: Run, options: argparse.Namespace) -> bool:
    if options.state and run.state not in options.state:
        return False
    names = (str(run.files.path), run.files.path.name, run.splitter)
    return not options.only or any(_matches(name, pattern) for name in names for pattern in options.only)


def _matches(name: str, pattern: str) -> bool:
    """Whether a name matches a pattern, or holds a text without wildcards."""
    return fnmatch.fnmatchcase(name, pattern if set(pattern) & {*"*?["} else f"*{pattern}*")


def _row(run: Run) -> list[str]:
    step = "–" if run.step is None else str(run.step)
    return [run.state, step, _bpb(run.bpb), _bpb(run.best), _age(run.changed), run.splitter, str(run.files.path)]


def _bpb(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _age(changed: float) -> str:
    if math.isnan(changed):
        return "–"
    seconds = max(time.time() - changed, 0)
    size, unit = next((one for one in UNITS if seconds >= one[0]), UNITS[-1])
    return f"{seconds / size:.0f} {unit}"


def _show(rows: Sequence[Sequence[str]]) -> None:
    """Prints the table. On a terminal that is too narrow for it, each folder has a line of its own; nothing but the
    name of a splitter is ever cut, and that in no file or pipe."""
    lines = aligned([HEADER, *rows], LEFT)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else math.inf
    if max(map(len, lines)) > width:
        lines = []
        room = max(int(width) - len(aligned([HEADER[:5], *(row[:5] for row in rows)], LEFT)[0]) - 2, SHORTEST)
        figures = aligned([HEADER[:6], *([*row[:5], _cut(row[5], room)] for row in rows)], LEFT)
        for line, row in zip(figures, [HEADER, *rows], strict=True):
            lines += [line.rstrip(), f"  {one_line(row[6])}"]
    print(*(line.rstrip() for line in lines), sep="\n")


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _tell(every: Sequence[Run], chosen: Sequence[Run], gone: int) -> None:
    """Prints, on stderr, how many runs there are, and why some cannot be read."""
    counts = Counter(run.state for run in chosen)
    states = ", ".join(f"{counts[state]} {state}" for state in State if state in counts)
    of = f" of {len(every)}" if len(chosen) < len(every) else ""
    _say(f"{len(chosen)}{of} run{'s' * (len(every) != 1)}{': ' * bool(states)}{states}")
    for run in chosen:
        if run.problem:
            _say(run.problem)
    if died := [run for run in chosen if run.state is State.DIED]:
        config = shlex.quote(str(died[0].files.config))
        _say(f"a run that died was ended from outside, as by kill -9; it continues with aunet fit -c {config}")
    if gone:
        _say(f"{gone} more that MLflow knows have no folder any more")


def _nothing(folders: Sequence[str]) -> str:
    if folders:
        return f"There are no runs in {', '.join(map(one_line, folders))}."
    return f"There are no runs in {Path.cwd() / HOME} yet: aunet fit -c experiments/quickstart.yaml begins one."


def _clean(runs: Sequence[Run], named: set[Path], yes: bool, arguments: Sequence[str]) -> int:
    found = leftovers.leftovers(runs, named)
    if not found:
        print("There is nothing to delete.")
        return 0
    rows = [(_bytes(one.size), one.why, str(one.path)) for one in found]
    print(*aligned([("size", "why", "path"), *rows], ("why", "path")), sep="\n")
    total = _bytes(sum(one.size for one in found))
    if not yes:
        command = shlex.join(["aunet", "runs", *arguments, "--yes"])
        print(f"\n{total} in all, and nothing is deleted yet: {one_line(command)}")
        return 0
    refused = [(one, why) for one in found if (why := leftovers.delete(one)) is not None]
    freed = _bytes(sum(one.size for one in found) - sum(one.size for one, _ in refused))
    print(f"\n{freed} deleted; MLflow keeps what it knows of these runs")
    for one, why in refused:
        _say(f"{one.path} is not deleted: {why}")
    return int(bool(refused))


def _bytes(size: float) -> str:
    """Returns a number of bytes to three digits, in units of a thousand."""
    step = next((step for step in range(4) if size < 999.5 * 1000**step), 4)
    return f"{size / 1000**step:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[step]}"


def _last_if_nan(value: float) -> tuple[bool, float]:
    return math.isnan(value), value


def _say(line: str) -> None:
    print(f"aunet: {one_line(line)}", file=sys.stderr)
