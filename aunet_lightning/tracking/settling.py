"""The MLflow status of runs that cannot set it themselves: those that died, and those abandoned for an older
checkpoint."""

import json
import time
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from aunet_lightning.tracking.lock import holder, host, is_alive, process
from aunet_lightning.tracking.store import open_store, short, shown

MOST = 200  # runs examined, newest first


def whereabouts(folder: Path) -> dict[str, str]:
    """Returns the tags from which another command can determine whether a folder's run is still being trained."""
    path = str(folder.resolve()).encode("utf-8", "replace").decode()
    return {"host": host(), "process": process(), "folder_on_host": path}


def settle_dead_runs(client: Any, experiment_id: str, ours: str | None = None) -> list[str]:
    """Sets runs to failed in MLflow that died on this machine while shown as running; returns their names.

    A run has died if the lock of its folder is free and its process is gone. Runs of other machines, of versions that
    did not record where they ran, and `ours` are left alone. Errors of the store become a warning.
    """
    here = host()
    settled = []
    try:
        running = client.search_runs(
            [experiment_id], f"attributes.status = 'RUNNING' and tags.host = '{here}'", max_results=MOST,
            order_by=["attributes.start_time DESC"],
        )  # fmt: skip
        for run in running:
            if run.info.run_id == ours or run.data.tags.get("host") != here or not _is_dead(run):
                continue
            folder, name = Path(run.data.tags["folder_on_host"]), run.info.run_name or run.info.run_id
            known = run.data.tags["process"].partition("/")[0]
            client.set_tag(run.info.run_id, "died", f"process {known} on {here} ended without setting a status")
            client.set_terminated(run.info.run_id, "FAILED", end_time=_last_sign(folder))
            rank_zero_info(f"MLflow now shows the run {name} of {folder} as failed: it died while running")
            settled.append(name)
    except Exception as error:  # whatever the store raises, training continues
        rank_zero_warn(f"MLflow cannot be asked whether runs have died ({short(error)})")
    return settled


def abandon(uri: str, run_id: str, after_step: int, folder: str) -> None:
    """Marks a run in MLflow as abandoned after a step: killed, with the folder of its later points. Errors of the store
    become a warning."""
    try:
        client = open_store(uri)
        client.set_tag(run_id, "abandoned_after_step", str(after_step))
        client.set_tag(run_id, "set_aside_in", folder)
        client.set_terminated(run_id, "KILLED")
    except Exception as error:
        rank_zero_warn(f"the run {run_id} in MLflow at {shown(uri)} could not be marked as abandoned ({short(error)})")


def _is_dead(run: Any) -> bool:
    tags = run.data.tags
    folder = Path(tags.get("folder_on_host", ""))
    if not folder.is_absolute() or "process" not in tags or is_alive(tags["process"]):
        return False
    try:  # another machine may have the same name
        same = json.loads((folder / "mlflow.json").read_text(encoding="utf-8"))["run_id"] == run.info.run_id
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(same) and holder(folder) is None


def _last_sign(folder: Path) -> int:
    try:
        return int((folder / "metrics.jsonl").stat().st_mtime * 1000)
    except OSError:
        return int(time.time() * 1000)
