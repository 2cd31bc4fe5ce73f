"""Mistakes of a user, as opposed to mistakes of ours, and how each is told."""

import errno
import hashlib
import os
import re
import sys
import sysconfig
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import splitters
from aunet_lightning import __version__
from aunet_lightning.terminal import printable
from splitters import Stack

OURS = tuple(os.path.dirname(os.path.realpath(str(home))) + os.sep for home in (__file__, splitters.__file__))
INSTALLED = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})
FRAMEWORK = ("lightning", "jsonargparse")  # packages that read what users write
IN_WORKER = re.compile(r"Caught \w+ in (?:DataLoader )?\w+ process")
TOLD_WITHIN = 3.0  # seconds that another process waits for rank 0 to tell the same error


class UserError(ValueError):
    """Something the user can put right: shown as one sentence, without a traceback."""


def check_boundaries(checkpoint: Mapping[str, Any], stack: Stack) -> None:
    """Raises UserError where the checkpoint's splitters, as `stack` has them, no longer do what it was trained with."""
    if checkpoint.get("boundaries") not in (None, stack.fingerprint()):
        rules = checkpoint["splitters"]
        raise UserError(
            f"splitter: {rules} no longer places the boundaries that the checkpoint was trained with. "
            "A vocabulary file, the code of a splitter or the Unicode tables of regex have changed: restore them"
        )


def check_documents(checkpoint: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    """Raises UserError where a checkpoint that training continues from has read other documents than are there."""
    then = (checkpoint.get("data") or {}).get("train")
    if then is not None and digests.get("train", then) != then:
        raise UserError(
            "ckpt_path: the documents of data.train_files are not those the checkpoint was trained on, and its place "
            "in them means nothing here. Restore the files; or take its weights alone: aunet export CKPT --out "
            "w.safetensors, then --ckpt_path w.safetensors"
        )


def tell(error: Exception, command: str = "aunet") -> int:
    """Prints an error that ended a command, and returns the exit code 1.

    A user's mistake is one sentence, told by one process of a run; what is not one comes with its traceback, and with
    where to report it.
    """
    said = sentence(error)
    if said is None:
        traceback.print_exception(error)
        whose = "of your own code" if _origin(error) == "theirs" else f"of aunet-lightning {__version__}"
        said = f"this is a fault {whose} ({type(error).__name__}: {_first_line(error)})"
        if _origin(error) != "theirs":
            said += ". Please report it, with the lines above and the command: README.md, 'When something is wrong'"
    elif _told_by_rank_zero(said):
        return 1
    print(f"{command}: error: {printable(' '.join(said.split()))}", file=sys.stderr, flush=True)
    return 1


def sentence(error: Exception, of_framework: tuple[type[Exception], ...] = (ValueError, TypeError)) -> str | None:
    """Returns what a user can do something about in one sentence, or None for a fault of a program.

    of_framework: errors by which Lightning and jsonargparse speak to their users, as Lightning's callbacks always do.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) or is_disk_full(error):
        return _of_system(error)
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error):
        return (
            f"there is not enough memory ({_first_line(error) or 'MemoryError'}): lower data.batch_rows or "
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
    said = (where == "ours" and isinstance(error, ValueError)) or (
        where == "framework" and isinstance(error, of_framework)
    )
    return str(error) if said else None


def is_disk_full(error: BaseException) -> bool:
    """Whether there was no room for what was to be written, or is none left where it was."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or os.strerror(errno.ENOSPC) in str(error)  # libraries have errors of their own


def _of_system(error: Exception) -> str:
    named = f"{error.filename}: " if isinstance(error, OSError) and isinstance(error.filename, str) else ""
    if is_disk_full(error):
        return f"{named}no space left on the disk: make room, and give the same command again"
    return f"{named}{(error.strerror if isinstance(error, OSError) else None) or error}"


def _of_worker(text: str) -> str | None:
    """The sentence in what a worker process raised, which arrives as its traceback."""
    files = re.findall(r'File "([^"]+)", line', text)
    last = text.rstrip().splitlines()[-1]
    kind, _, message = last.partition(": ")
    deliberate = kind.rpartition(".")[2] in ("ValueError", "UserError") and bool(files) and _whose(files[-1]) == "ours"
    return message if deliberate else None


def _origin(error: BaseException, deepest: bool = False) -> str:
    """Returns whose code raised an error, libraries passed over unless it is the `deepest` frame that is asked for:
    ours, theirs (a user's), a framework's or a library's."""
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


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:300]


def _told_by_rank_zero(said: str) -> bool:
    """Whether rank 0 of this run tells the same, on this host: what fails on all devices is told once."""
    rank = os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or "0"
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "MASTER_PORT" not in os.environ:
        return False
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ['MASTER_PORT']}:{os.getuid()}:{' '.join(said.split())}"
    digest = hashlib.sha256(where.encode("utf-8", "replace")).hexdigest()[:32]
    note = Path(tempfile.gettempdir()) / f"aunet-told-{digest}"
    begun = time.time()
    if rank == "0":
        note.touch()
        return False
    while time.time() - begun < TOLD_WITHIN:
        if note.exists() and note.stat().st_mtime > begun - 10 * TOLD_WITHIN:
            return True
        time.sleep(0.1)
    return False
