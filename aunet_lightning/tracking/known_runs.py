"""What an SQLite store of MLflow knows of runs, read without MLflow, which takes seconds to load."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

WAIT = 2.0  # seconds that another process may be writing
TAGS = ("folder_on_host", "host", "died")
QUERY = (
    "SELECT runs.run_uuid, runs.status, tags.key, tags.value FROM runs LEFT JOIN tags ON tags.run_uuid = runs.run_uuid "
    f"AND tags.key IN {TAGS} WHERE runs.lifecycle_stage = 'active'"
)


class KnownRun(NamedTuple):
    """A run as the store shows it."""

    status: str  # RUNNING, FINISHED, FAILED or KILLED
    folder: str | None  # on its host; None for a run that has none, such as the summary of a study
    host: str | None
    died: bool


def known_runs(store: Path) -> dict[str, KnownRun]:
    """Returns the runs of a store by id, without deleted ones; none where it does not exist or cannot be read."""
    if not store.is_file():
        return {}
    found: dict[str, tuple[str, dict[str, str]]] = {}
    try:
        for run_id, status, key, value in _rows(store):
            found.setdefault(run_id, (str(status), {}))[1][key] = value
    except sqlite3.Error:  # not a store of MLflow, damaged, or locked for long
        return {}
    return {
        run_id: KnownRun(status, tags.get("folder_on_host"), tags.get("host"), "died" in tags)
        for run_id, (status, tags) in found.items()
    }


def _rows(store: Path) -> Iterator[tuple[str, str, str, str]]:
    uri = f"file:{quote(str(store.absolute()))}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=WAIT)) as database:
        yield from database.execute(QUERY)
