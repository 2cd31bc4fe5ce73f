"""Checks of a store before MLflow opens it, which would try a bad SQLite file ten times, for 100 seconds."""

import errno
import os
import re
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from aunet_lightning.errors import first_line

LOCKED = 10.0  # seconds that another process may hold an SQLite store
ANSWER = 10.0  # seconds that a server may take to answer first
Fail = Callable[[str], NoReturn]  # raises UserError: the store and this text


def check_place(path: Path, named: str, fail: Fail) -> None:
    """Checks that a store's file is a file or can be created, and creates its folder; `named`: the file as the URI
    writes it."""
    try:
        _check_place(path, named, fail)
    except OSError as error:
        fail(f"cannot be opened ({error.strerror}): name a file in a folder that you can write to")


def check_sqlite(path: Path, uri: str, fail: Fail) -> None:
    """Checks that a store's file can be written, and is new or of this MLflow version."""
    try:
        connection = sqlite3.connect(path, timeout=LOCKED)
        try:
            connection.execute("BEGIN IMMEDIATE")  # as every write begins
            _check_tables(connection, uri, fail)
            connection.rollback()
        finally:
            connection.close()
    except sqlite3.Error as error:
        fail(_of_sqlite(error, path))


def _check_place(path: Path, named: str, fail: Fail) -> None:
    if path.is_dir() or named.endswith("/"):
        fail(f"is a folder, and an SQLite store is a file: name one in it, sqlite:///{str(path).rstrip('/')}/mlflow.db")
    there = next(parent for parent in path.parents if parent.exists() or not parent.name)
    if not there.is_dir():
        fail(f"cannot be made, as {there} is a file and not a folder: name a file in a folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(f"cannot be made, as the folder {path.parent} cannot ({error.strerror}): name a file in another folder")
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        fail("is not a plain file: name one")
    for place in (path, path.parent):
        if place.exists() and not os.access(place, os.R_OK | os.W_OK):
            fail(f"cannot be written, as {place} is read-only for this user: allow it, or name another file")


def _of_sqlite(error: sqlite3.Error, path: Path) -> str:
    name = getattr(error, "sqlite_errorname", "")
    aside = f"move {path} away, and the same command makes a new store and sends all points"
    if name == "SQLITE_NOTADB":
        return "is a file, but not an SQLite database: name another file"
    if name.startswith("SQLITE_CORRUPT"):
        return f"is damaged ({error}): restore it; or {aside}"
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return (
            f"has been locked by another process for {LOCKED:.0f} seconds: end that process (fuser {path} shows it), "
            "or name another file"
        )
    if name == "SQLITE_FULL":
        return "cannot be written (no space left on the disk): make room and repeat the command"
    return f"cannot be written ({error}): allow it, or name another file"


def _check_tables(connection: sqlite3.Connection, uri: str, fail: Fail) -> None:
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
    tables = {name for (name,) in found}
    others = sorted(tables - {"alembic_version"})
    if not others:
        return  # new, or a store whose creation was interrupted
    if not {"experiments", "runs", "metrics"} <= tables:
        fail(f"is an SQLite database, but not MLflow's (it has a table {others[0][:50]}): name another file")
    if "alembic_version" not in tables:
        return
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    known, newest = revisions()
    if row is None or row[0] == newest or not newest:
        return
    from mlflow import __version__

    if row[0] in known:
        fail(f"was made by an older MLflow than {__version__}: copy the file, then run mlflow db upgrade '{uri}'")
    fail(
        f"was made by a newer MLflow than {__version__} (its schema is {str(row[0])[:50]}): install that version, or "
        "name another file"
    )


def revisions() -> tuple[set[str], str]:
    """Returns all schemas known to MLflow, and the newest, or '' where that is unclear. (Alembic takes 0.5 s.)"""
    import mlflow

    folder = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"
    known, followed = set(), set()
    for file in folder.glob("*.py"):
        said = dict(re.findall(r'^(revision|down_revision)\b[^=\n]*=\s*"(\w+)"', file.read_text("utf-8"), re.MULTILINE))
        known.add(said.get("revision", ""))
        followed.add(said.get("down_revision", ""))
    newest = known - followed - {""}
    return known, newest.pop() if len(newest) == 1 else ""


def check_server(uri: str, fail: Fail) -> None:
    """Checks by one request that an MLflow server answers at an address."""
    import requests
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        if not urlsplit(uri).hostname:
            raise ValueError
    except ValueError:
        fail("is not an address: write http://HOST:PORT")
    try:
        answer = http_request(
            get_default_host_creds(uri), "/api/2.0/mlflow/experiments/search", "POST", max_retries=0, timeout=ANSWER,
            raise_on_status=False, json={"max_results": 1},
        )  # fmt: skip
    except Exception as error:  # MLflow wraps errors of requests without naming a cause
        fail(_of_connection(error, requests.exceptions))
    fault = _of_answer(answer)
    if fault:
        fail(fault)


def _of_connection(error: BaseException, known: Any) -> str:
    """Returns why a connection failed, from the errors that led to it."""
    chain: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting:
        link = waiting.pop(0)
        if isinstance(link, BaseException) and link not in chain:
            chain.append(link)
            waiting += [link.__cause__, link.__context__, getattr(link, "reason", None), *link.args]
    names = {type(link).__name__ for link in chain}
    text = " ".join(map(str, chain))
    if "NameResolutionError" in names or "gaierror" in names or "Failed to resolve" in text:
        return "does not answer, as there is no such host: check the name and the network"
    if names & {"InvalidURL", "InvalidSchema", "MissingSchema", "LocationParseError", "InvalidUrlException"}:
        return "is not an address: write http://HOST:PORT"
    if "SSLError" in names or "CERTIFICATE" in text or "WRONG_VERSION_NUMBER" in text:
        return (
            "does not answer with a certificate that is trusted here: write http:// for a plain server, name its "
            "certificate in REQUESTS_CA_BUNDLE, or set MLFLOW_TRACKING_INSECURE_TLS=true"
        )
    if "ProxyError" in names:
        return "does not answer, as the proxy of $http_proxy or $https_proxy does not: repair it, or set $no_proxy"
    if any(isinstance(link, known.Timeout) for link in chain) or "timed out" in text:
        return f"does not answer within {ANSWER:.0f} seconds: check that it is up (mlflow server), and its port"
    if "Connection refused" in text or any(getattr(link, "errno", 0) == errno.ECONNREFUSED for link in chain):
        return "does not answer (connection refused): start it (mlflow server), or name another store"
    if "unreachable" in text or "No route" in text:
        return "does not answer (its network is unreachable): check the network, or name another store"
    if "RemoteDisconnected" in names or "ProtocolError" in names or "BadStatusLine" in text:
        return "does not answer in HTTP: check the port, and whether it is https://"
    return f"does not answer ({first_line(chain[0])}): start it (mlflow server), or name another store"


def _of_answer(answer: Any) -> str | None:
    """Returns what is wrong with the answer of a server, or None."""
    status, text = answer.status_code, " ".join(re.sub(r"<[^>]*>", " ", answer.text[:2000]).split())[:150]
    if status == 401:
        return (
            "requires authentication (401): set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN"
        )
    if status == 403:
        return f"denies access (403: {text}): ask for permission, or see mlflow server --allowed-hosts"
    if status == 404:
        return "has no MLflow there (404): check the port, and the path after it"
    if status in (429, 502, 503, 504):
        return f"is not ready ({status}): try again in a minute, or check its log"
    if status >= 500:
        return f"has an internal error ({status}: {text}): check its log"
    try:
        valid = status == 200 and isinstance(answer.json(), dict)
    except ValueError:
        valid = False
    return None if valid else f"is a web server, but not MLflow's (it answers {status}: {text}): check the port"


def check_database(uri: str, fail: Fail) -> None:
    """Checks once that a database server can be reached."""
    import sqlalchemy
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    try:
        engine = sqlalchemy.create_engine(uri)
        engine.connect().close()
        engine.dispose()
    except ModuleNotFoundError as error:
        fail(f"needs the Python package {error.name}: install it, or name another store")
    except (ArgumentError, NoSuchModuleError) as error:
        fail(f"is not an address of a database ({first_line(error)}): write postgresql://USER:PASSWORD@HOST/DATABASE")
    except (SQLAlchemyError, OSError) as error:
        fail(f"does not answer ({first_line(error)}): check that it is up, or name another store")
