"""Reports errors and warnings: a user's mistake as one sentence, a fault of a program with its traceback."""

import errno
import hashlib
import os
import re
import sys
import sysconfig
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import splitters
from aunet_lightning import __version__
from aunet_lightning.terminal import printable

OURS = tuple(os.path.dirname(os.path.realpath(str(home))) + os.sep for home in (__file__, splitters.__file__))
INSTALLED = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})
FRAMEWORK = ("lightning", "jsonargparse")  # packages that read what users write
IN_WORKER = re.compile(r"Caught \w+ in (?:DataLoader )?\w+ process")
REPORT_WAIT = 3.0  # seconds that other ranks wait for rank 0 to report the same error


class UserError(ValueError):
    """An error that the user can correct: shown as one sentence, without a traceback."""


def describe(error: BaseException, length: int = 200) -> str:
    """Returns an error's type and the first line of its message, cut to a length."""
    return f"{type(error).__name__}: {first_line(error, length)}"


def first_line(error: BaseException, length: int = 200) -> str:
    """Returns the first line of an error's message, cut to a length; an empty one where it has none."""
    return (str(error).splitlines() or [""])[0][:length]


def reason(error: BaseException) -> str:
    """Returns in a few words why something could not be read or written: a full disk, if that is among the causes."""
    causes = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    return "no space left on the disk" if any(map(is_disk_full, causes)) else describe(error)


def plain_warnings() -> None:
    """Shows warnings of this package as one line without their place in its source, and others as they are.

    Lightning sets a form of its own when it is imported, so that this is called after it.
    """
    if not isinstance(warnings.formatwarning, _PlainWarning):
        warnings.formatwarning = _PlainWarning(warnings.formatwarning)


class _PlainWarning:
    def __init__(self, usual: Any) -> None:
        self._usual = usual

    def __call__(self, message: Any, category: Any, filename: str, lineno: int, line: str | None = None) -> str:
        if _whose(filename) == "ours":
            return f"aunet: {printable(' '.join(str(message).split()))}\n"
        return printable(self._usual(message, category, filename, lineno, line))


def report(error: Exception, command: str = "aunet") -> int:
    """Prints an error that ended a command, and returns the exit code 1.

    A user's mistake is one sentence, printed by one process of a run; any other error comes with its traceback, and
    with where to report it.
    """
    message = sentence(error)
    if message is None:
        traceback.print_exception(error)
        whose = "of your own code" if _origin(error) == "theirs" else f"of aunet-lightning {__version__}"
        message = f"this is a fault {whose} ({describe(error, 300)})"
        if _origin(error) != "theirs":
            message += ". Please report it, with the lines above and the command: README.md, 'When something is wrong'"
    elif _reported_by_rank_zero(message):
        return 1
    print(f"{command}: error: {printable(' '.join(message.split()))}", file=sys.stderr, flush=True)
    return 1


def sentence(error: Exception, of_framework: tuple[type[Exception], ...] = (ValueError, TypeError)) -> str | None:
    """Returns a user's mistake in one sentence, or None for a fault of a program.

    of_framework: the types with which Lightning and jsonargparse report mistakes of users (Lightning's callbacks use
    RuntimeError too).
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) or is_disk_full(error):
        return _of_system(error)
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error):
        return (
            f"there is not enough memory ({first_line(error, 300) or 'MemoryError'}): lower data.batch_rows or "
            "data.row_bytes, take a smaller model, or set model.parallel.activation_checkpointing"
        )
    if IN_WORKER.search(str(error)):
        return _of_worker(str(error))
    if type(error).__module__.startswith("yaml") or type(error).__name__ == "MisconfigurationException":
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    if frames and "/lightning/pytorch/callbacks/" in frames[-1].filename:
        of_framework = (*of_framework, RuntimeError)
    where = _origin(error, deepest=True)
    meant = (where == "ours" and isinstance(error, ValueError)) or (
        where == "framework" and isinstance(error, of_framework)
    )
    return str(error) if meant else None


def is_disk_full(error: BaseException) -> bool:
    """Whether an error means that a disk or a quota is full."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or os.strerror(errno.ENOSPC) in str(error)  # libraries have errors of their own


def _of_system(error: Exception) -> str:
    named = f"{error.filename}: " if isinstance(error, OSError) and isinstance(error.filename, str) else ""
    if is_disk_full(error):
        return f"{named}no space left on the disk: make room, and give the same command again"
    return f"{named}{(error.strerror if isinstance(error, OSError) else None) or error}"


def _of_worker(text: str) -> str | None:
    """Returns the message of a user's mistake from the traceback (as text) that a worker process sent, or None."""
    files = re.findall(r'File "([^"]+)", line', text)
    last = text.rstrip().splitlines()[-1]
    kind, _, message = last.partition(": ")
    deliberate = kind.rpartition(".")[2] in ("ValueError", "UserError") and bool(files) and _whose(files[-1]) == "ours"
    return message if deliberate else None


def _origin(error: BaseException, deepest: bool = False) -> str:
    """Returns whose code raised an error: "ours", "theirs" (a user's), "framework" or "library".

    deepest: take the frame that raised; otherwise the deepest one that is ours or theirs.
    """
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    owners = [_whose(file) for file in reversed(files)]
    if deepest:
        return owners[0] if owners else "ours"
    return next((owner for owner in owners if owner in ("ours", "theirs")), "ours")


def _whose(file: str) -> str:
    path = os.path.realpath(file)
    if path.startswith(OURS):
        return "ours"
    if path.startswith(INSTALLED) and any(f"/{name}/" in path for name in FRAMEWORK):
        return "framework"
    return "library" if path.startswith(INSTALLED) or file.startswith("<") or "site-packages" in path else "theirs"


def _reported_by_rank_zero(message: str) -> bool:
    """Whether rank 0 of this run, on this host, reports the same message: what fails on all devices is printed once."""
    rank = os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or "0"
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "MASTER_PORT" not in os.environ:
        return False
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ['MASTER_PORT']}:{os.getuid()}:{' '.join(message.split())}"
    digest = hashlib.sha256(where.encode("utf-8", "replace")).hexdigest()[:32]
    note = Path(tempfile.gettempdir()) / f"aunet-reported-{digest}"
    begun = time.time()
    if rank == "0":
        note.touch()
        return False
    while time.time() - begun < REPORT_WAIT:
        if note.exists() and note.stat().st_mtime > begun - 10 * REPORT_WAIT:
            return True
        time.sleep(0.1)
    return False
