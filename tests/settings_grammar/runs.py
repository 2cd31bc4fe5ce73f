"""Runs a case in this process, and finds what is not as it should be."""

import contextlib
import io
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.settings_grammar.cases import Case


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
