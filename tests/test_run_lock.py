"""The lock of a run's folder: one process trains in it."""

import os
import subprocess
import sys

import pytest

from aunet_lightning.tracking import lock as locks
from aunet_lightning.tracking.lock import LOCK, RunLock, holder, is_alive, process
from tests.helpers import ROOT


def holding(folder):
    """Starts another process that holds a folder's lock until it is killed."""
    code = f"from pathlib import Path\nfrom aunet_lightning.tracking.lock import RunLock\nlock = RunLock()\nprint(lock.acquire(Path({str(folder)!r})), flush=True)\ninput()"
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=-1, stdout=-1, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert other.stdout.readline() == "True\n"
    return other


def test_one_process_trains_in_a_folder(tmp_path):
    with holding(tmp_path) as other:
        assert holder(tmp_path) is not None
        assert RunLock.holder(tmp_path).startswith(f"process {other.pid} on ")
        lock = RunLock()
        assert not lock.acquire(tmp_path)
        assert f"process {other.pid} on " in (tmp_path / LOCK).read_text()
        other.kill()
    assert holder(tmp_path) is None  # though its text is still there
    assert lock.acquire(tmp_path)
    assert lock.acquire(tmp_path)
    assert not RunLock().acquire(tmp_path)
    assert str(os.getpid()) in holder(tmp_path)
    check = f"from pathlib import Path\nfrom aunet_lightning.tracking.lock import holder\nprint(holder(Path({str(tmp_path)!r})))"
    asked = subprocess.run(
        [sys.executable, "-c", check],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert asked.stdout.startswith(f"process {os.getpid()} on ")
    lock.release()
    lock.release()
    assert holder(tmp_path) is None
    assert RunLock().acquire(tmp_path)
    locks._held[tmp_path.resolve()].release()


def test_a_folder_that_cannot_be_locked_is_a_word(tmp_path, monkeypatch):
    def without(*args):
        raise OSError(locks.errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr(locks.fcntl, "lockf", without)
        lock = RunLock()
        with pytest.warns(UserWarning, match="cannot be locked"):
            assert lock.acquire(tmp_path)
        del locks._held[tmp_path.resolve()]  # as another process sees it
        assert str(os.getpid()) in holder(tmp_path)
        (tmp_path / LOCK).write_text((tmp_path / LOCK).read_text().replace(str(os.getpid()), "999999999"))
        assert holder(tmp_path) is None
        (tmp_path / LOCK).write_text("process 1 on elsewhere since then")
        assert holder(tmp_path) == "process 1 on elsewhere since then"
        locks._held[tmp_path.resolve()] = lock
        lock.release()
    with pytest.warns(UserWarning, match="cannot be locked"):
        assert RunLock().acquire(tmp_path / "not there")
    assert holder(tmp_path / "not there") is None


def test_processes_are_known_until_another_has_their_number():
    assert is_alive(process())
    assert not is_alive(f"{os.getpid()}/0")
    assert not is_alive("999999999/0")
    assert not is_alive("")
    assert not is_alive("x/y")
