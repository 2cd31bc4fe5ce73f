"""A store that cannot be opened: each fault has its sentence, and it comes at once."""

import contextlib
import http.server
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from aunet_lightning.errors import UserError
from aunet_lightning.study import mlflow_study as study
from aunet_lightning.tracking import store, store_checks
from aunet_lightning.tracking.store import (
    DEFAULT_URI,
    experiment_id,
    open_store,
    same_store,
    shown,
    sqlite_path,
    store_uri,
    tracking_uri,
    ui_command,
)
from tests.helpers import place_store

AT_ONCE = 5.0  # seconds; MLflow itself takes 100


@pytest.fixture
def good(tmp_path, store_template):
    """A store that MLflow has made."""
    place_store(store_template, tmp_path / "good" / "good.db")
    return tmp_path / "good" / "good.db"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(uri):
    """Returns the sentence with which a store is refused, and checks that it comes at once."""
    begin = time.monotonic()
    with pytest.raises(UserError) as raised:
        open_store(uri)
    assert time.monotonic() - begin < AT_ONCE
    sentence = str(raised.value)
    assert "\n" not in sentence
    assert sentence.startswith("run.tracking_uri")
    return sentence


def tables(path):
    """What a store consists of; the order of a table's constraints varies."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT name, coalesce(sql, '') FROM sqlite_master").fetchall()
        versions = connection.execute("SELECT * FROM alembic_version").fetchall()
    return {name: sorted(line.strip(" \t,") for line in sql.splitlines()) for name, sql in found}, versions


def test_a_new_store_is_the_one_that_mlflow_makes(tmp_path, store_template, monkeypatch):
    waits = []
    monkeypatch.setattr(store, "_create", lambda path, make=store._create: (make(path), waits.append(path)))
    (tmp_path / "at 50%").mkdir()
    real, link = tmp_path / "at 50%" / "real.db", tmp_path / "link.db"
    real.touch(0o600)
    link.symlink_to(real)
    for _ in range(2):
        open_store(f"sqlite:///{link}")
    assert waits == [link]  # once, without waiting for the disk after each migration
    assert tables(real) == tables(store_template)
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o600
    assert not list(real.parent.glob("*.part*"))


def damaged(folder: Path, good: Path) -> None:
    """Fills a folder with files that are not stores."""
    (folder / "folder").mkdir()
    (folder / "text").write_text("hello\n" * 1000)
    os.mkfifo(folder / "fifo")
    with contextlib.closing(sqlite3.connect(folder / "cats.db")) as other:
        other.execute("CREATE TABLE cats (name)")
        other.commit()
    for name, version in (("old.db", "451aebb31d03"), ("new.db", "ffffffffffff")):
        shutil.copy(good, folder / name)
        with contextlib.closing(sqlite3.connect(folder / name)) as changed:
            changed.execute("UPDATE alembic_version SET version_num = ?", (version,))
            changed.commit()
    broken = bytearray(good.read_bytes())
    broken[100:5000] = b"\x11" * 4900
    (folder / "broken.db").write_bytes(broken)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("sqlite:///folder", "is a folder, and an SQLite store is a file: name one in it, sqlite:///folder/mlflow.db"),
        ("sqlite:///not-there/", "is a folder"),
        ("sqlite:///text", "not an SQLite database: name another file"),
        ("sqlite:///fifo", "is not a plain file"),
        ("sqlite:///cats.db", "not MLflow's (it has a table cats)"),
        ("sqlite:///old.db", "older MLflow than"),
        ("sqlite:///old.db", "mlflow db upgrade 'sqlite:///old.db'"),
        ("sqlite:///new.db", "newer MLflow than"),
        ("sqlite:///broken.db", "is damaged"),
        ("sqlite:///text/m.db", "text is a file and not a folder"),
        ("sqlite:///text/a/m.db", "text is a file and not a folder"),
        ("sqlite:////proc/none/m.db", "the folder /proc/none cannot (No such file or directory)"),
        (f"sqlite:///{'a' * 300}.db", "File name too long"),
        (f"sqlite:///{'a' * 300}/m.db", "File name too long"),
        ("sqlite://m.db", "three slashes before a relative path"),
        ("sqlite:m.db", "three slashes before a relative path"),
        ("sqlite:///:memory:", "in memory, and lost when the command ends"),
        ("sqlite://", "in memory, and lost when the command ends"),
        ("sqlite:///a\0b.db", "control characters"),
        ("sqlite:///~nobody-here/m.db", "no user nobody-here"),
        ("", "is empty: name a store"),
        (" \t", "is empty: name a store"),
        ("foo://there", "no stores of the kind foo"),
        ("file:./mlruns", "no longer supports: write sqlite:///./mlruns/mlflow.db"),
        ("mlruns", "no longer supports: write sqlite:///mlruns/mlflow.db"),
        ("file:///a/b", "write sqlite:////a/b/mlflow.db"),
        ("runs/mlflow.db", "write sqlite:///runs/mlflow.db"),
        ("localhost:5000", "write http://localhost:5000"),
        ("127.0.0.1:5000/", "write http://127.0.0.1:5000"),
        ("http://", "is not an address"),
        ("http://[", "is not an address"),
        ("http://here:99999", "is not an address"),
        ("http://127.0.0.1:9", "connection refused"),
        ("mssql://here/db", "needs the Python package pyodbc"),
    ],
)
def test_what_is_not_a_store(uri, words, here, good):
    damaged(here, good)
    assert words in refused(uri)
    assert not (here / "mlruns").exists()


def test_a_store_that_cannot_be_written(here, good, monkeypatch):
    shutil.copy(good, here / "m.db")
    monkeypatch.setattr(store_checks.os, "access", lambda path, mode: Path(path).name != "m.db")
    assert "m.db is read-only for this user" in refused("sqlite:///m.db")


def test_a_store_that_another_process_holds(here, good, monkeypatch):
    shutil.copy(good, here / "m.db")
    monkeypatch.setattr(store_checks, "LOCKED", 0.3)
    with contextlib.closing(sqlite3.connect(here / "m.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        assert "locked by another process for 0 seconds" in refused("sqlite:///m.db")


def test_a_store_that_another_process_opens_for_ever(here, good, monkeypatch):
    shutil.copy(good, here / "m.db")
    monkeypatch.setattr(store, "PATIENCE", 0.3)
    code = "import fcntl, sys; fcntl.flock(f := open('.m.db.lock', 'w'), fcntl.LOCK_EX); print(1, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as other:
        assert other.stdout.readline()
        assert ".m.db.lock): end that process" in refused("sqlite:///m.db")
        other.communicate(b"\n")


class _Wrong(http.server.BaseHTTPRequestHandler):
    """Answers /N/… with status N, /html/… with a page, and /mlflow/… as MLflow."""

    def do_POST(self):
        kind = self.path.split("/")[1]
        if kind == "drop":
            self.connection.close()
            return
        if kind == "slow":
            time.sleep(3)
            return
        page = b"{}" if kind == "mlflow" else b"<html><body>Hello <b>you</b></body></html>"
        self.send_response(int(kind) if kind.isdigit() else 200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Wrong) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("401", "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        ("403", "denies access (403: Hello you)"),
        ("404", "no MLflow there (404): check the port"),
        ("405", "a web server, but not MLflow's (it answers 405"),
        ("500", "an internal error (500: Hello you): check its log"),
        ("503", "is not ready (503): try again"),
        ("html", "a web server, but not MLflow's (it answers 200: Hello you)"),
        ("drop", "does not answer in HTTP"),
        ("slow", "does not answer within 1 second"),
    ],
)
def test_servers_that_are_not_mlflow(path, words, server, monkeypatch):
    monkeypatch.setattr(store_checks, "ANSWER", 1.0)
    assert words in refused(f"{server}/{path}")


def test_a_host_that_is_not_there(monkeypatch):
    def unknown(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "no such host" in refused("http://no-such-host.invalid:5000")


def test_a_server_that_speaks_no_tls_or_no_http(server):
    assert "certificate" in refused(server.replace("http:", "https:"))
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet():
            there, _ = other.accept()
            there.sendall(b"SSH-2.0-x\r\n")
            there.close()

        threading.Thread(target=greet, daemon=True).start()
        assert "does not answer in HTTP" in refused(f"http://127.0.0.1:{other.getsockname()[1]}")


def test_a_server_that_answers_as_mlflow_does_is_one(server):
    open_store(f"{server}/mlflow")


def test_no_sentence_has_a_password(server):
    for uri in (
        "http://me:secret@127.0.0.1:9",
        "mysql://me:secret@here/db",
        f"{server.replace('//', '//me:secret@')}/401",
    ):
        sentence = refused(uri)
        assert "secret" not in sentence
        assert "//me:***@" in sentence
    assert shown("at http://here:5000/a@b") == "at http://here:5000/a@b"


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("sqlite:///a/m.db", "a/m.db"),
        ("sqlite:////a/m.db", "/a/m.db"),
        ("sqlite:///a b/m.db", "a b/m.db"),
        ("sqlite:///a%20b/m.db", "a b/m.db"),
        ("sqlite:///a%2520b/m.db", "a%20b/m.db"),
        ("sqlite:///a%3Fb/m.db", "a?b/m.db"),
        ("sqlite:///a#b/ü.db", "a#b/ü.db"),
        ("sqlite+pysqlite:///m.db", "m.db"),
        ("SQLite:///m.db", "m.db"),
        ("sqlite:///m.db?timeout=3", "m.db"),
        ("sqlite:///file:m.db?uri=true", None),
        ("sqlite:///:memory:", None),
        ("http://there/m.db", None),
    ],
)
def test_one_reading_of_a_path(uri, path):
    assert sqlite_path(uri) == (Path(path) if path else None)
    assert sqlite_path(store_uri(uri)) == sqlite_path(uri)
    assert store_uri(store_uri(uri)) == store_uri(uri)
    assert same_store(uri, store_uri(uri))


def test_a_blank_is_read_as_mlflow_reads_it(here):
    (here / "a b").mkdir()
    client = open_store("sqlite:///a%20b/m.db")
    experiment = client.get_experiment(experiment_id(client, "sqlite:///a%20b/m.db", "e"))
    assert sorted(path.name for path in here.iterdir()) == ["a b"]
    assert sorted(path.name for path in (here / "a b").iterdir()) == [".m.db.lock", "m.db"]
    assert experiment.artifact_location == (here / "a b" / "mlartifacts").as_uri()
    assert ui_command(store_uri("sqlite:///a%20b/m.db")) == "mlflow ui --backend-store-uri 'sqlite:///a b/m.db'"


def test_where_runs_are_tracked(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(None) == "sqlite:///runs/mlflow.db"
    assert ui_command(tracking_uri(None)) == "make ui"
    assert tracking_uri("sqlite:///~/m.db") == "sqlite:////home/me/m.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///~/n.db")
    assert tracking_uri(None) == "sqlite:////home/me/n.db"
    assert tracking_uri("http://here") == "http://here"
    with pytest.raises(UserError, match=r"run\.tracking_uri is empty"):
        tracking_uri("")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///~nobody-here/n.db")
    with pytest.raises(UserError, match=r"MLFLOW_TRACKING_URI is '~nobody-here/n\.db'"):
        tracking_uri(None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "foo://there")
    with pytest.raises(UserError, match=r"^\$MLFLOW_TRACKING_URI: the store foo://there"):
        open_store(tracking_uri(None))
    assert not same_store("sqlite:///~/n.db", "sqlite:////home/me/n.db")  # an older version made a folder `~`


def test_a_relative_store_is_that_of_the_folder_one_is_in(tmp_path, monkeypatch, store_template):
    for name in ("one", "two"):
        place_store(store_template, tmp_path / name / "runs" / "mlflow.db")
        monkeypatch.chdir(tmp_path / name)
        client = open_store(DEFAULT_URI)
        assert client.get_experiment_by_name("one") is None
        experiment_id(client, DEFAULT_URI, name)


def test_a_deleted_experiment(good):
    uri = f"sqlite:///{good}"
    client = open_store(uri)
    made = experiment_id(client, uri, "gone")
    client.delete_experiment(made)
    restore = f"MLFLOW_TRACKING_URI={uri} mlflow experiments restore --experiment-id {made}"
    with pytest.raises(UserError, match=f"'gone' was deleted .*{restore}"):
        experiment_id(client, uri, "gone")


def test_the_newest_schema_is_the_one_that_mlflow_has():
    from mlflow.store.db.utils import _get_latest_schema_revision

    known, newest = store_checks.revisions()
    assert newest == _get_latest_schema_revision()
    assert len(known) > 50


def test_a_study_raises_sentences_only(here, monkeypatch):
    """Another process hears of them, which knows no errors of MLflow."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for call in (
        lambda: study.begin("foo://there", "s", "flops 1"),
        lambda: study.finish("foo://there", "s", ".", True),
    ):
        with pytest.raises(UserError, match=r"^tracking_uri: the store foo://there cannot be"):
            call()
    monkeypatch.setattr(study, "open_store", lambda *args: (_ for _ in ()).throw(ConnectionError("gone")))
    with pytest.raises(UserError, match="does not answer"):
        study.finish(None, "s", ".", True)


def test_a_report_that_mlflow_does_not_take_is_still_a_report(here, monkeypatch, capsys):
    from types import SimpleNamespace

    from aunet_lightning.cli import compare as command
    from aunet_lightning.reports.study import report
    from aunet_lightning.study import collect

    cell = SimpleNamespace(status="failed", name="c", error="broken")
    monkeypatch.setattr(collect, "collect", lambda *args: SimpleNamespace(cells=[cell]))
    monkeypatch.setattr(report, "write_report", lambda *args: None)

    def apart(function, *arguments):
        if function.__name__ == "finish":
            raise UserError("tracking_uri: gone")
        return "there"

    monkeypatch.setattr(command, "_apart", apart)
    made = SimpleNamespace(
        tracking_uri=None, study="s", folder=here, match=SimpleNamespace(by="flops", budget=1.0), jobs=1
    )
    assert command._run(made, [], [], "", "", None, ()) == 1
    told = capsys.readouterr()
    assert "report.html" in told.out
    assert "the report is not in MLflow; aunet compare --report puts it there. tracking_uri: gone" in told.err


@pytest.mark.slow
def test_errors_of_another_process_arrive_as_sentences(here):
    from aunet_lightning.cli.compare import _apart

    with pytest.raises(UserError, match=r"^tracking_uri: the store sqlite:///\. is a folder"):
        _apart(study.begin, "sqlite:///.", "s", "flops 1")


@pytest.mark.parametrize("jobs", ["0", "-2"])
def test_jobs_are_one_or_more(jobs, here, monkeypatch):
    from aunet_lightning.cli.compare import compare
    from aunet_lightning.study import grid

    monkeypatch.setattr(grid, "load", lambda files: (None, ""))
    with pytest.raises(UserError, match=f"--jobs is {jobs}, it must be 1 or more"):
        compare(["-c", "x.yaml", "--jobs", jobs], lambda arguments: 0)
