"""A lock on a run's folder: one process trains a run, and others can see which.

It is a POSIX record lock: the system releases it when its process ends, however it ends, and forked data workers do
not hold it. It belongs to the process: closing *any* descriptor of the file releases it, so a process never opens the
file of a lock it holds.
"""

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

LOCK = "run.lock"  # a cell of a study has a `lock` of its own in this folder
PATIENCE = 0.5  # seconds: a process that asks who holds a lock holds it for an instant
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_held: dict[Path, "RunLock"] = {}  # by this process


class RunLock:
    """The right to train in one folder."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._file: int | None = None

    def acquire(self, folder: Path) -> bool:
        """Takes the lock of an existing folder; returns False where another process, or another RunLock of this one,
        holds it. Warns, and returns True, where the file system has no locks."""
        folder = folder.resolve()
        if folder in _held:
            return _held[folder] is self
        self.release()
        try:
            file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            return self._unlocked(folder, error)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno in _WITHOUT_LOCKS:
                    _write(file)
                    self._keep(folder, file)
                    return self._unlocked(folder, error)
                if time.monotonic() > deadline:
                    os.close(file)
                    return False
                time.sleep(PATIENCE / 10)
        _write(file)
        self._keep(folder, file)
        return True

    def release(self) -> None:
        """Releases the lock, if it is held."""
        if self._folder is None or self._file is None:
            return
        with contextlib.suppress(OSError):  # without the lock its text means nothing
            os.ftruncate(self._file, 0)
        os.close(self._file)
        del _held[self._folder]
        self._folder = self._file = None

    @staticmethod
    def holder(folder: Path) -> str | None:
        """Returns who trains in a folder, as `process 123 on HOST since …`, or None."""
        return holder(folder)

    def _keep(self, folder: Path, file: int) -> None:
        self._folder, self._file = folder, file
        _held[folder] = self

    @staticmethod
    def _unlocked(folder: Path, error: OSError) -> bool:
        from lightning.pytorch.utilities import rank_zero_warn  # here: `aunet runs` asks for holders without Lightning

        rank_zero_warn(f"{folder} cannot be locked ({error.strerror}): a second command on it would not be refused")
        return True


def holder(folder: Path) -> str | None:
    """Returns who trains in a folder, as `process 123 on HOST since …`, or None."""
    folder = folder.resolve()
    if folder in _held:
        return f"this process ({os.getpid()})"
    try:
        file = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        text = os.pread(file, 500, 0).decode("utf-8", "replace").strip()
        if error.errno in _WITHOUT_LOCKS and not _perhaps(text):
            return None
        return text or "another process"
    finally:
        os.close(file)
    return None


def last_holder(folder: Path) -> str:
    """Returns who left a folder without releasing its lock, as `process 123 on HOST since …`: it was killed, if nobody
    holds the lock. Empty where the last one released it, or there was none."""
    try:
        return (folder / LOCK).read_bytes()[:500].decode("utf-8", "replace").strip()
    except OSError:
        return ""


@contextlib.contextmanager
def kept_out(folder: Path) -> Iterator[bool]:
    """Keeps other processes from training in a folder, and leaves the lock's text as it is. Yields False where one
    trains there, or the lock cannot be taken."""
    folder = folder.resolve()
    if folder in _held:
        yield False
        return
    try:
        file = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:  # of a run that an earlier version made
        yield True
        return
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except OSError as error:
            free = error.errno in _WITHOUT_LOCKS and holder(folder) is None
        yield free
    finally:
        os.close(file)


def host() -> str:
    """Returns the name of this machine."""
    return socket.gethostname()


def process() -> str:
    """Returns an identifier of this process on this machine, unique although numbers are reused: `PID/START`."""
    return f"{os.getpid()}/{_begin(os.getpid())}"


def is_alive(known: str) -> bool:
    """Returns whether a process of this machine, `known` by `process`, still exists."""
    pid, _, begin = known.partition("/")
    if not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return begin == _begin(int(pid))


def _begin(pid: int) -> str:
    """Returns when a process began, in clock ticks since boot; 0 where the system does not report it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return stat.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "0"


def _write(file: int) -> None:
    text = f"process {os.getpid()} on {host()} since {datetime.now().isoformat(' ', 'seconds')}\n"
    with contextlib.suppress(OSError):  # a full disk: the lock works without its text
        os.ftruncate(file, 0)
        os.pwrite(file, text.encode("utf-8", "replace"), 0)


def _perhaps(text: str) -> bool:
    """Returns whether the process that wrote this may still exist, where the file system has no locks."""
    words = text.split()
    if len(words) < 4 or words[3] != host() or not words[1].isdecimal():
        return bool(words)
    return os.path.exists(f"/proc/{words[1]}")
