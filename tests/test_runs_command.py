"""`aunet runs`: what it shows of each folder, and that cleaning loses nothing that is needed."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
import yaml

from aunet_lightning.cli import runs as command
from aunet_lightning.reports import run_list
from aunet_lightning.tracking.lock import LOCK, host, kept_out, last_holder
from aunet_lightning.tracking.run_folder import RunFolder
from tests.helpers import ROOT, aunet

CONFIG = {
    "splitter": "whitespace",
    "trainer": {"max_steps": 6},
    "model": {"net": {"stages": [{"dim": 8}, {"dim": 8}]}, "budget": {"flops": None}},
    "run": {"keep_last": 1, "keep_best": 1},
}
HELD = """
import sys
from pathlib import Path
from aunet_lightning.tracking.lock import RunLock
lock = RunLock()
print(lock.acquire(Path(sys.argv[1])), flush=True)
input()
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def made(path, steps=(), points=(), best=None, lock=None, **settings):
    """A run's folder with checkpoints of 100 bytes at some steps, and points {metric: value} by step."""
    files = RunFolder(path)
    files.make()
    files.config.write_text(yaml.safe_dump(CONFIG | settings))
    lines = [json.dumps({"step": step, "time": 0, "metrics": metrics}) + "\n" for step, metrics in points]
    files.metrics.write_text("".join(lines))
    for step in steps:
        files.step(step).write_bytes(b"x" * 100)
    for link, step in ((files.last, max(steps, default=None)), (files.best, best)):
        if step is not None:
            link.symlink_to(files.step(step).name)
    (path / LOCK).write_text("" if lock is None else f"process 1 on {lock} since 2026-01-01 00:00:00\n")
    return files


def rows(capsys, *arguments):
    """{the end of each folder's name: the cells of its row}."""
    assert aunet("runs", *arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.split(r" {2,}", lines[0]) == ["state", "step", "last BPB", "best BPB", "age", "splitter", "folder"]
    return {line.split("/")[-1]: re.split(r" {2,}", line) for line in lines[1:]}


def states(capsys, *arguments):
    return {name: row[0] for name, row in rows(capsys, *arguments).items()}


def store(path, runs):
    """An SQLite file with the tables of MLflow that are read: {id: (status, tags)}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE runs (run_uuid, status, lifecycle_stage)")
        database.execute("CREATE TABLE tags (key, value, run_uuid)")
        for run_id, (status, tags) in runs.items():
            database.execute("INSERT INTO runs VALUES (?, ?, 'active')", (run_id, status))
            database.executemany("INSERT INTO tags VALUES (?, ?, ?)", [(*tag, run_id) for tag in tags.items()])
    database.close()


EPOCHS = {"trainer": {"max_steps": -1, "max_epochs": 2}}
BUDGET = {"trainer": {"max_steps": -1}, "model": CONFIG["model"] | {"budget": {"bytes": 100.0}}}


@pytest.mark.parametrize(
    ("run", "beside", "status", "state"),
    [
        ({"steps": [6]}, [], None, "finished"),
        ({"steps": [4]}, [], None, "stopped"),
        ({"steps": [4], "lock": host()}, [], None, "died"),
        ({"steps": [6], "lock": host()}, [], None, "finished"),  # killed once all was saved
        ({"lock": "elsewhere"}, [], None, "running"),  # a moment ago, where no lock is seen
        ({"steps": [4]}, [], "KILLED", "stopped"),
        ({"steps": [4]}, [], "FAILED", "failed"),
        ({"steps": [6]}, [], "FAILED", "failed"),  # its last save was lost
        ({"steps": [4]}, [], "FINISHED", "finished"),
        ({"steps": [4]}, [], "RUNNING", "died"),
        ({"steps": [4], "lock": host()}, [], "FINISHED", "died"),  # a longer run, in the same folder
        ({**BUDGET, "points": [(1, {"bytes_seen": 99.0})]}, [], None, "stopped"),
        ({**BUDGET, "points": [(1, {"bytes_seen": 101.0}), (2, {"val/bpb": 1.0})]}, [], None, "finished"),
        (EPOCHS, [], None, "stopped"),
        (EPOCHS, ["units.json"], None, "finished"),
        (EPOCHS, ["units.json"], "KILLED", "stopped"),
        ({"steps": [4]}, ["failed"], None, "failed"),
        ({"steps": [4]}, ["cell.json"], None, "finished"),
    ],
)
def test_a_run_is_shown_as_what_became_of_it(run, beside, status, state, tmp_path, capsys):
    files = made(tmp_path / "runs" / "t" / "one", **run)
    for name in beside:
        (files.path / name).write_text("{}")
    if status is not None:
        files.mlflow.write_text('{"run_id": "a"}')
        store(tmp_path / "runs" / "mlflow.db", {"a": (status, {})})
    assert states(capsys) == {"one": state}


def test_a_process_that_trains_is_running_and_a_killed_one_has_died(tmp_path, capsys):
    files = made(tmp_path / "runs" / "t" / "one", [2])
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", HELD, files.path], stdin=-1, stdout=-1, text=True, env=env) as other:
        assert other.stdout.readline() == "True\n"
        assert states(capsys) == {"one": "running"}
        with kept_out(files.path) as free:
            assert not free
        other.send_signal(signal.SIGKILL)
    assert states(capsys) == {"one": "died"}
    with kept_out(files.path) as free:
        assert free
    assert last_holder(files.path).startswith(f"process {other.pid} on ")  # looking has not changed it
    assert states(capsys) == {"one": "died"}


def test_the_last_and_the_lowest_bpb_are_shown(tmp_path, capsys, monkeypatch):
    trained = [(step, {"train/bpb": 2.0, "bytes_seen": 1.0 * step}) for step in range(200)]
    validated = {49: (3.0, 3.0), 99: (1.5, 1.5), 149: (1.75, 1.5)}
    points = [
        (step, metrics | dict(zip((run_list.BPB, run_list.BEST), validated.get(step, ()), strict=False)))
        for step, metrics in trained
    ]
    made(tmp_path / "runs" / "t" / "new", points=points)
    older = [(step, {key: value for key, value in metrics.items() if key != run_list.BEST}) for step, metrics in points]
    files = made(tmp_path / "runs" / "t" / "older", [250], points=older)
    with files.metrics.open("a") as file:
        file.write('{"step": 201, "time": 0, "metr')  # being written
    for block in (40, 1 << 16):
        monkeypatch.setattr(run_list, "BLOCK", block)
        found = rows(capsys)
        assert found["new"][1:4] == ["199", "1.750", "1.500"]
        assert found["older"][1:4] == ["250", "1.750", "1.500"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--sort", "bpb"], ["b", "a", "c"]),
        (["--sort", "age"], ["c", "b", "a"]),
        (["--sort", "step"], ["c", "a", "b"]),
        (["--sort", "folder"], ["a", "b", "c"]),
        (["--only", "trie", "--sort", "folder"], ["b"]),
        (["--only", "[ac]", "--only", "*cap*", "--sort", "folder"], ["a", "c"]),
        (["--only", "t/a"], ["a"]),
        (["--state", "died", "--state", "failed"], ["c"]),
    ],
)
def test_runs_are_sorted_and_chosen(options, expected, tmp_path, capsys):
    now = time.time()
    for i, (name, splitter, bpb, lock) in enumerate(
        [("a", "cap", 2.0, None), ("b", {"name": "trie"}, 1.0, None), ("c", None, None, host())]
    ):
        points = [] if bpb is None else [(1, {"val/bpb": bpb})]
        files = made(tmp_path / "runs" / "t" / name, [(4, 2, 5)[i]], points, lock=lock, splitter=splitter)
        for path in (files.path, *files.path.iterdir()):
            os.utime(path, (now - 1000 * (3 - i),) * 2, follow_symlinks=False)
    assert [*states(capsys, *options)] == expected


def test_what_is_no_run_or_cannot_be_read_is_told(tmp_path, capsys):
    home = tmp_path / "runs"
    made(home / "t" / "good", [6])
    (home / "mine" / "notes").mkdir(parents=True)
    (home / "mine" / "notes" / "a.txt").write_text("x")
    (home / "study" / "vocabularies").mkdir(parents=True)
    (home / "study" / "rates.json").write_text("{}")
    (home / "mlartifacts" / "x").mkdir(parents=True)
    broken = ["not: [yaml", "\xff", "[1, 2]", "a: " + "[" * 11_000, "model: {net: {}}\nsplitter: {n: 4}"]
    for i, text in enumerate(broken):
        made(home / "t" / f"broken{i}").config.write_text(text, encoding="latin-1")
    made(home / "t" / "lost", [3]).config.unlink()
    made(home / "t" / "name").step(1).with_name("step-abc.ckpt").write_text("")
    (home / "t" / "loop").symlink_to(home)
    (home / "t" / "nowhere").symlink_to("nowhere")
    (home / "mlflow.db").write_bytes(b"not a database" * 100)
    assert aunet("runs", "--sort", "folder") == 0
    shown = capsys.readouterr()
    found = {line.split("/")[-1]: line.split()[0] for line in shown.out.splitlines()[1:]}
    bad = [f"broken{i}" for i in range(len(broken))] + ["lost", "name"]
    assert found == dict.fromkeys(bad, "damaged") | {"good": "finished"}
    assert "no runs in runs/mine\n" in shown.err
    assert len([line for line in shown.err.splitlines() if "runs/t/" in line]) == len(bad)
    assert aunet("runs", "clean") == 0
    assert "nothing to delete" in capsys.readouterr().out


def test_without_runs_a_sentence_says_how_to_begin(tmp_path, capsys):
    assert aunet("runs") == 0
    assert "aunet fit -c experiments/quickstart.yaml begins one" in capsys.readouterr().out
    (tmp_path / "elsewhere").mkdir()
    assert aunet("runs", "elsewhere") == 0
    assert capsys.readouterr().out == "There are no runs in elsewhere.\n"
    assert aunet("runs", "nowhere") == 1
    assert "nowhere is not a folder" in capsys.readouterr().err


def test_runs_elsewhere_are_known_from_mlflow(tmp_path, capsys):
    made(tmp_path / "runs" / "t" / "here", [6])
    away = made(tmp_path / "scratch" / "away", [6]).path
    tags = {"host": host(), "folder_on_host": str(away)}
    gone = tags | {"folder_on_host": str(tmp_path / "gone")}
    known = {"a": tags, "b": gone, "c": tags | {"host": "other"}, "d": {}}
    store(tmp_path / "runs" / "mlflow.db", {name: ("FINISHED", one) for name, one in known.items()})
    assert aunet("runs", "--sort", "folder") == 0
    shown = capsys.readouterr()
    assert [line.split("/")[-1] for line in shown.out.splitlines()[1:]] == ["away", "here"]
    assert "1 more that MLflow knows have no folder any more" in shown.err
    assert [*states(capsys, "runs/t")] == ["here"]


def test_cells_of_a_study_are_runs(tmp_path, capsys):
    cells = tmp_path / "runs" / "study" / "cells"
    made(cells / "a", [6], run={"tags": {"splitter": "trie 3 B"}})
    (cells / "b").mkdir()
    (cells / "b" / "settings.yaml").write_text(yaml.safe_dump(CONFIG))
    found = rows(capsys)
    assert (found["a"][0], found["a"][-2]) == ("finished", "trie 3 B")
    assert (found["b"][0], found["b"][-2]) == ("waiting", "whitespace")


@pytest.mark.parametrize("width", [80, 200, None])
def test_a_table_fits_the_terminal_and_is_whole_in_a_pipe(width, tmp_path, capsys, monkeypatch):
    name = "en-a very long name of a cell with many words in it-2stages-seed1"
    made(tmp_path / "runs" / "s" / "cells" / name, [6], splitter={"name": "cap", "of": "x" * 30, "max_bytes": 64})
    if width is not None:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr("aunet_lightning.terminal.SafeStream.isatty", lambda self: True, raising=False)
    assert aunet("runs") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.endswith(f"runs/s/cells/{name}") for line in lines)
    assert "\x1b" not in "".join(lines)
    assert len(lines) == (4 if width == 80 else 2)
    if width is not None:
        assert max(map(len, lines)) <= width
    assert ("max_bytes64" in lines[1]) == (width != 80) or width == 80


def listed(capsys):
    """{path: why} of what may be deleted."""
    assert aunet("runs", "clean") == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    found = [re.split(r" {2,}", line.strip()) for line in lines if "runs/" in line and "--yes" not in line]
    return {path.removeprefix("runs/"): why for _, why, path in found}


def test_cleaning_lists_and_deletes_nothing_else(tmp_path, capsys):
    home = tmp_path / "runs"
    points = [(1, {"val/bpb": 1.0}), (2, {"val/bpb": 2.0}), (3, {"val/bpb": 3.0})]
    kept = made(home / "t" / "kept", range(1, 6), points, best=2)
    kept.record_kept({0.2: 1})
    kept.step(3).with_name("step-00000009.ckpt.part").mkdir()
    for part in ("01", "02"):
        (kept.set_aside / part).mkdir(parents=True)
        (kept.set_aside / part / "step-00000007.ckpt").write_bytes(b"x" * 50)
    made(home / "t" / "more", range(1, 8), points, best=2, run={"keep_last": 2, "keep_best": 2})
    made(home / "t" / "died", lock=host())
    made(home / "t" / "noted", lock=host()).path.joinpath("notes.md").write_text("mine")
    made(home / "t" / "stopped")
    made(home / "s" / "cells" / "a", lock=host())
    made(home / "t" / "moving", [1]).set_aside.joinpath("01").mkdir(parents=True)
    (home / "t" / "moving" / "set_aside" / "moving.json").write_text("{}")
    made(home / "t" / "wrong", range(1, 4)).kept_at.write_text("[[")
    made(home / "t" / "other", [6], ckpt_path="runs/t/kept/checkpoints/step-00000004.ckpt")
    neither, aside = "neither last nor best", "set aside when the run went back"
    wanted = {
        "t/died": "died, without a checkpoint",
        "t/kept/checkpoints/step-00000003.ckpt": neither,
        "t/kept/checkpoints/step-00000009.ckpt.part": "not written to its end",
        "t/kept/set_aside/01": aside,
        "t/kept/set_aside/02": aside,
        **{f"t/more/checkpoints/step-{step:08}.ckpt": neither for step in (1, 4, 5)},
    }
    before = set(home.rglob("*"))
    assert listed(capsys) == wanted
    assert {*home.rglob("*")} == before
    assert aunet("runs", "clean", "--yes") == 0
    shown = capsys.readouterr().out
    assert "deleted; MLflow keeps" in shown
    gone = {home / path for path in wanted}
    assert {*home.rglob("*")} == {path for path in before if not gone & {path, *path.parents}}
    assert listed(capsys) == {}


def test_what_is_at_work_is_not_cleaned(tmp_path, capsys):
    import fcntl

    home = tmp_path / "runs"
    one, cell = made(home / "t" / "one", [1, 2, 3]), made(home / "s" / "cells" / "a", [1, 2, 3])
    assert len(listed(capsys)) == 4
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with (
        (home / "s" / "lock").open("w") as study,
        subprocess.Popen([sys.executable, "-c", HELD, one.path], stdin=-1, stdout=-1, text=True, env=env) as other,
    ):
        assert other.stdout.readline() == "True\n"
        fcntl.flock(study, fcntl.LOCK_EX)
        assert listed(capsys) == {}
        found = command.leftovers.leftovers([run_list.read(one.path, {})._replace(state=run_list.State.DIED)], set())
        assert [command.leftovers.delete(it) for it in found] == ["its run has begun again"] * 2
        other.kill()
    assert len(one.saved()) == len(cell.saved()) == 3


def test_a_name_from_data_reaches_no_terminal_raw(tmp_path, capsys):
    made(tmp_path / "runs" / "t" / "a\x1b]0;x\x07b", [6], splitter="\x1b[31mred")
    assert aunet("runs") == 0
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert "␛" in shown.out


def test_it_is_quick_and_loads_no_library(tmp_path):
    for i in range(50):
        made(tmp_path / "runs" / "t" / str(i), [6], [(5, {"val/bpb": 1.0})])
    code = (
        "import sys\nfrom aunet_lightning.cli.main import main\nmain(['runs'])\nmain(['runs', 'clean'])\n"
        "print({'torch', 'lightning', 'mlflow', 'sqlalchemy', 'numba'} & set(sys.modules))"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.splitlines()[-1] == "set()"
    assert time.perf_counter() - begin < 5  # 0.6 s on two cores


def test_a_run_of_aunet_fit_is_read(tmp_path, capsys):
    shutil.copytree(ROOT / "tests" / "kept_run", tmp_path / "runs" / "t" / "kept", symlinks=True)
    assert rows(capsys)["kept"][:2] == ["stopped", "4"]
