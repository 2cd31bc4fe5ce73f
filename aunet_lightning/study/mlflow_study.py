"""A study in MLflow: flat runs in one experiment, its charts, and a run that contains the report."""

from pathlib import Path
from typing import Any

from aunet_lightning.study.study_folder import StudyFolder
from aunet_lightning.tracking.mlflow_logger import commit
from aunet_lightning.tracking.settling import settle_dead_runs
from aunet_lightning.tracking.store import (
    WORKFLOW,
    experiment_id,
    explained,
    open_store,
    tracking_uri,
    ui_command,
    ui_path,
)
from aunet_lightning.tracking.views import MEANS, RUNS, set_views

NOTE = """**Study {study}:** {links}

- Every run is one cell, tagged `study`, `splitter`, `language`, `stages`, `match`, `seed`.
- **What to compare:** `val/bpb` (bits per byte of the validation text, lower is better) within one language: filter
  with `tags.language = "…"`. All cells spend the same ({match}).
- **The report** (heat map, differences with intervals, curves, examples) is in the artifacts of the run `summary`.
"""
SETTING = "tracking_uri"  # the study's setting that names the store
MEASURED = {"flops": "flops", "bytes": "bytes_seen", "seconds": "perf/training_seconds"}  # match.by -> the x-axis
SAME = ("splitter", "language", "stages")  # tags of runs that differ by their seed


def begin(configured: str | None, study: str, match: str) -> str:
    """Creates the store and the study's experiment for the cells to use; returns where to see its charts.

    Raises only UserError, which can be passed to another process.
    """
    uri = tracking_uri(configured, SETTING)
    setting = None if configured is None else SETTING
    try:
        client = open_store(uri, setting)
        experiment = experiment_id(client, uri, study, "study")
        client.set_experiment_tag(experiment, "match", match)
        set_views(client, experiment, _views(match))
        settle_dead_runs(client, experiment)
        _describe(client, experiment, study)
    except Exception as error:
        raise explained(error, uri, setting) from None
    page = ui_path(experiment, RUNS)
    if uri.startswith("http"):
        return f"{uri.rstrip('/')}{page}"
    return f"{ui_command(uri)}, then open http://127.0.0.1:5000{page}"


def finish(configured: str | None, study: str, folder: str, complete: bool) -> None:
    """Puts the report into the study's summary run, which is created once. Raises only UserError."""
    uri = tracking_uri(configured, SETTING)
    setting = None if configured is None else SETTING
    try:
        client = open_store(uri, setting)
        experiment = experiment_id(client, uri, study, "study")
        tags = {"study": study, "kind": "summary", "commit": commit()}
        run = _summary(client, experiment) or client.create_run(experiment, run_name="summary", tags=tags)
        for path in StudyFolder(Path(folder)).artifacts:
            client.log_artifact(run.info.run_id, str(path))
        client.set_tag(run.info.run_id, "commit", commit())
        client.set_terminated(run.info.run_id, "FINISHED" if complete else "KILLED")
        _describe(client, experiment, study)
    except Exception as error:
        raise explained(error, uri, setting) from None


def _views(match: str) -> dict[str, dict[str, Any]]:
    """Returns what the charts show. By default MLflow draws the newest ten runs over steps, including the summary."""
    axis = {"xAxisKey": "metric", "selectedXAxisMetricKey": MEASURED[match.split()[0]], "lineSmoothness": 0}
    cells = {"searchFilter": 'tags.splitter != ""', "runsHiddenMode": "SHOW_ALL"}
    groups = [{"mode": "tag", "groupByData": tag} for tag in SAME]
    means = {"groupBy": {"aggregateFunction": "average", "groupByKeys": groups}}  # over steps, MLflow's only axis
    return {RUNS: cells | {"globalLineChartConfig": axis}, MEANS: cells | means}


def _describe(client: Any, experiment: str, study: str) -> None:
    match, summary = client.get_experiment(experiment).tags["match"], _summary(client, experiment)
    links = {"runs": ui_path(experiment, RUNS), "means over seeds": ui_path(experiment, MEANS)}
    if summary:
        links["report"] = f"/#/experiments/{experiment}/runs/{summary.info.run_id}/artifacts/report.html?{WORKFLOW}"
    shown = " · ".join(f"[{name}]({path.removeprefix('/')})" for name, path in links.items())
    client.set_experiment_tag(experiment, "mlflow.note.content", NOTE.format(study=study, links=shown, match=match))


def _summary(client: Any, experiment: str) -> Any:
    return next(iter(client.search_runs([experiment], "tags.kind = 'summary'")), None)
