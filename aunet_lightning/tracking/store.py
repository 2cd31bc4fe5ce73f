"""MLflow's store: its URI, opening it, and one sentence for each reason why it cannot be opened.

The path in an SQLite URI is decoded as SQLAlchemy, which opens the file, decodes it: `%20` is a space.
"""

import fcntl
import logging
import os
import re
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from aunet_lightning.errors import UserError, describe
from aunet_lightning.loading import without_collection
from aunet_lightning.paths import user_path
from aunet_lightning.tracking.store_checks import check_database, check_place, check_server, check_sqlite
from aunet_lightning.tracking.views import RUNS

DEFAULT_STORE = Path("runs") / "mlflow.db"
DEFAULT_URI = f"sqlite:///{DEFAULT_STORE}"
SETTING = "run.tracking_uri"
VARIABLE = "MLFLOW_TRACKING_URI"
NOTE = (
    "[Charts of all runs]({}) · Bits per byte: `val/bpb` (lower is better), `best/val_bpb` the lowest. Filter by "
    "`params.splitter`."
)
WORKFLOW = "workflowType=machine_learning"  # of a link: no tag of an experiment does what it does in MLflow 3.17
PATIENCE = 60.0  # seconds that another process may take to open the same file
_DATABASE = re.compile(r"(mysql|postgresql|mssql)(\+\w+)?:", re.IGNORECASE)
_SERVER = re.compile(r"https?:", re.IGNORECASE)
_HOST = re.compile(r"[\w.\-]+:\d+(/|$)")  # a server without its http://


def tracking_uri(configured: str | None, setting: str = SETTING) -> str:
    """Returns where runs are tracked: the URI configured under `setting`, $MLFLOW_TRACKING_URI, or runs/mlflow.db,
    with `~` expanded. Raises UserError for what is not a store."""
    if configured is not None:
        return store_uri(configured, setting)
    if given := os.environ.get(VARIABLE):
        return store_uri(given, f"${VARIABLE}")
    return DEFAULT_URI


def store_uri(uri: str, setting: str = SETTING) -> str:
    """Returns the form of a URI that SQLAlchemy, MLflow and this module read alike. Raises UserError."""
    uri = uri.strip()
    if not uri:
        raise UserError(f"{setting} is empty: name a store, such as {DEFAULT_URI} or http://HOST:PORT, or leave it out")
    if not _is_sqlite(uri):
        return uri
    driver, _, rest = uri.partition(":")
    uri = f"{driver.lower()}:{rest}"
    database = _database(uri, setting)
    if database.startswith("~"):
        try:
            database = str(user_path(database, setting))
        except ValueError as error:
            raise UserError(str(error)) from None
    return _at(uri, database, setting)


def _at(uri: str, database: str, setting: str = SETTING) -> str:
    """Returns an SQLite URI with another file."""
    query = "?" + uri.partition("?")[2] if "?" in uri else ""
    quoted = database.replace("%", "%25").replace("?", "%3F")
    written = (f"{uri.partition(':')[0]}:///{path}{query}" for path in (database, quoted))
    return next((one for one in written if _database(one, setting) == database), uri)


def sqlite_path(uri: str) -> Path | None:
    """Returns the file of an SQLite store, or None for a store of another kind. Raises UserError for a malformed
    URI."""
    database = _database(uri) if _is_sqlite(uri) else ""
    return Path(database) if database and not database.startswith(("file:", ":memory:")) else None


def shown(uri: str) -> str:
    """Returns a URI, or a text that contains one, without its password."""
    return re.sub(r"(://[^/@\s:]*):[^/@\s]*@", r"\1:***@", uri)


def open_store(uri: str, setting: str | None = None) -> Any:
    """Returns MLflow's client of a store; a missing SQLite file is created.

    Raises UserError at once, in one sentence that names `setting`, for whatever is wrong with the store.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # tracebacks of errors reported in a sentence
    setting = setting or _setting_of(uri)
    uri = store_uri(uri, setting)

    def fail(fault: str) -> NoReturn:
        what = "MLflow at" if _SERVER.match(uri) else "the store"
        raise UserError(f"{setting}: {what} {shown(uri)[:200]} {shown(fault)}")

    try:
        with without_collection():
            return _open(uri, fail)
    except UserError:
        raise
    except Exception as error:  # the client raises what its store raises
        raise explained(error, uri, setting) from None


def _open(uri: str, fail: Any) -> Any:
    if "\0" in uri or not uri.isprintable():
        fail("cannot be: it holds control characters")
    if _is_sqlite(uri):
        path = sqlite_path(uri)
        if path is None and "file:" not in uri:
            fail(f"would be in memory, and lost when the command ends: name a file, such as {DEFAULT_URI}")
        if path is not None:
            check_place(path, _database(uri), fail)
            with _alone(path, fail):
                check_sqlite(path, uri, fail)
                if not path.stat().st_size:
                    _create(path)
                # MLflow keeps a connection per URI: a relative one would stay with the folder it was first opened in.
                return _client(_at(uri, str(path.absolute())))
    elif _SERVER.match(uri):
        check_server(uri, fail)
    elif _DATABASE.match(uri):
        check_database(uri, fail)
        return _client(uri)
    else:
        _check_kind(uri, fail)
    from mlflow.tracking import MlflowClient

    return MlflowClient(uri)


def _create(path: Path) -> None:
    """Makes MLflow's tables beside an empty file, and puts them in its place: MLflow would wait for the disk after each
    of its migrations."""
    from mlflow.store.db.utils import _initialize_tables
    from sqlalchemy import URL, create_engine, event

    path = path.resolve()
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    engine = create_engine(URL.create("sqlite", database=str(part)))
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    try:
        _initialize_tables(engine)
    finally:
        engine.dispose()
    with part.open("rb+") as made:
        os.fsync(made.fileno())
    shutil.copymode(path, part)
    part.replace(path)


def _client(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    client.search_experiments(max_results=1)  # the store is opened by the first request
    return client


@contextmanager
def _alone(path: Path, fail: Any) -> Iterator[None]:
    """Lets one process at a time open a store: two that create its tables fail."""
    with path.with_name(f".{path.name}.lock").open("a", encoding="utf-8") as lock:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    fail(
                        f"has been opening in another process for {PATIENCE:.0f} seconds (which holds the lock "
                        f"{lock.name}): end that process"
                    )
                time.sleep(0.05)
            except OSError:
                break  # a file system without locks
        yield


def _check_kind(uri: str, fail: Any) -> None:
    """Checks that MLflow has stores of this kind, which is neither a server nor a database."""
    if uri in ("databricks", "databricks-uc", "uc"):
        return
    if _HOST.match(uri):
        fail(f"cannot be: write http://{uri}")
    kind = uri.partition(":")[0] if ":" in uri else ""
    if kind in ("", "file"):
        if os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1"):
            return
        path = re.sub(r"^file:(//)?", "", uri).rstrip("/") or "."
        if path.endswith((".db", ".sqlite", ".sqlite3")):
            fail(f"cannot be: write sqlite:///{path}")
        fail(
            f"would be a folder of files, which MLflow no longer supports: write sqlite:///{path}/mlflow.db (mlflow "
            "migrate-filestore moves an old folder's contents)"
        )
    from mlflow.tracking._tracking_service.utils import _tracking_store_registry as kinds

    if kind not in kinds._registry:
        fail(f"cannot be: MLflow has no stores of the kind {kind}: write sqlite:///FILE, or http://HOST:PORT")


def explained(error: BaseException, uri: str, setting: str | None = None) -> UserError:
    """Returns an error of a store as one sentence."""
    if isinstance(error, UserError):
        return error
    what = "refuses the request" if is_refusal(error) else "does not answer"
    return UserError(f"{setting or _setting_of(uri)}: MLflow at {shown(uri)} {what} ({short(error)})")


def is_refusal(error: BaseException) -> bool:
    """Returns whether a store answered and refused a request, which it would refuse again."""
    if type(error).__name__ == "MlflowException" and "Invalid artifact path" in str(error):
        return True
    return getattr(error, "error_code", None) in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS")


def is_gone(error: BaseException) -> bool:
    """Returns whether a store answered that it has no such run or experiment."""
    return getattr(error, "error_code", None) in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")


def short(error: BaseException) -> str:
    """Returns an error as one line, without passwords."""
    return shown(describe(error))


def experiment_id(client: Any, uri: str, name: str, setting: str = "run.experiment") -> str:
    """Returns the id of an experiment, creating it if necessary. Raises UserError for a deleted one."""
    existing = client.get_experiment_by_name(name)
    if existing is None:
        location = None
        if (path := sqlite_path(uri)) is not None:  # beside the store, wherever the UI is started
            location = (path.resolve().parent / "mlartifacts").as_uri()
        try:
            made = str(client.create_experiment(name, location))
            client.set_experiment_tag(made, "mlflow.note.content", NOTE.format(ui_path(made).removeprefix("/")))
            return made
        except Exception:  # another run has just created it
            existing = client.get_experiment_by_name(name)
            if existing is None:
                raise
    if existing.lifecycle_stage == "deleted":
        raise UserError(
            f"{setting}: the experiment {name!r} was deleted from MLflow at {shown(uri)}: choose another name, or "
            f"restore it: {restore_command(uri, 'experiments', '--experiment-id', existing.experiment_id)}"
        )
    return str(existing.experiment_id)


def same_store(known: str, uri: str) -> bool:
    """Returns whether a URI that a run was logged to, perhaps by an older version, is that of a given store."""
    try:
        return known == uri or ("~" not in known and store_uri(known) == uri)
    except UserError:
        return False


def restore_command(uri: str, what: str, option: str, known_as: str) -> str:
    """Returns the command that restores what was deleted."""
    return f"{VARIABLE}={shlex.quote(shown(uri))} mlflow {what} restore {option} {known_as}"


def ui_path(experiment_id: str, view: str = RUNS) -> str:
    """Returns the path of an experiment's charts in the MLflow UI, as a view (`views`) arranges them."""
    page = f"/#/experiments/{experiment_id}/runs?compareRunsMode=CHART&{WORKFLOW}"
    return f"{page}&viewStateShareKey={view}"


def ui_command(uri: str) -> str:
    """Returns the command that starts the UI of a store that is not a server."""
    makes = sqlite_path(uri) == DEFAULT_STORE and (Path(__file__).parents[2] / "Makefile").exists()
    return "make ui" if makes else f"mlflow ui --backend-store-uri {shlex.quote(uri)}"


def _is_sqlite(uri: str) -> bool:
    return uri.lower().startswith("sqlite")


def _database(uri: str, setting: str = SETTING) -> str:
    """Returns the file of an SQLite URI as written, '' without one."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(uri)
        if url.host or url.username:
            raise ArgumentError
    except (ArgumentError, ValueError):
        raise UserError(
            f"{setting} is {shown(uri)!r}, which is not an SQLite store: write sqlite:/// and a path (three slashes "
            "before a relative path, four before an absolute one)"
        ) from None
    return url.database or ""


def _setting_of(uri: str) -> str:
    """Returns the setting that a URI comes from, as far as that can be determined."""
    given = os.environ.get(VARIABLE, "").strip()
    try:
        same = bool(given) and (given == uri.strip() or store_uri(given) == uri)
    except UserError:
        same = False
    return f"${VARIABLE}" if same else SETTING
