"""A study in MLflow: flat runs in one experiment, what to look at, and a run that holds the report."""

from pathlib import Path
from typing import Any

from aunet_lightning.tracking.mlflow_logger import DEFAULT_STORE, commit, experiment_id, open_store, ui_path

NOTE = """**Study {study}.** Every run is one cell, tagged `study`, `splitter`, `language`, `stages`, `match`, `seed`.

- **What to compare:** `val/bpb` (bits per byte of the validation text, lower is better) within one language; cells have
  spent the same ({match}).
- **Charts:** group by `splitter` (tag), filter with `tags.language = "…"`. As x-axis take `flops` or `bytes_seen`
  in place of the step.
- **The report** (heat map with the seeds' spread, curves, examples) is in the artifacts of the run `summary`.
"""
ARTIFACTS = ("report.html", "report.md", "table.csv", "heatmap.png", "grid.yaml")


def begin(uri: str, study: str, match: str) -> str:
    """Makes the store and the study's experiment, so that cells find them; returns where its charts are."""
    client = open_store(uri)
    experiment = experiment_id(client, uri, study)
    client.set_experiment_tag(experiment, "mlflow.note.content", NOTE.format(study=study, match=match))
    page = ui_path(experiment)
    if uri.startswith("http"):
        return f"{uri.rstrip('/')}{page}"
    command = "make ui" if uri == f"sqlite:///{DEFAULT_STORE}" else f"mlflow ui --backend-store-uri {uri}"
    return f"{command}, then open http://127.0.0.1:5000{page}"


def finish(uri: str, study: str, folder: str, whole: bool) -> None:
    """Puts the report into the study's summary run, which is made once."""
    client = open_store(uri)
    experiment = experiment_id(client, uri, study)
    found = client.search_runs([experiment], "tags.kind = 'summary'")
    tags = {"study": study, "kind": "summary", "commit": commit()}
    run: Any = found[0] if found else client.create_run(experiment, run_name="summary", tags=tags)
    for name in ARTIFACTS:
        client.log_artifact(run.info.run_id, str(Path(folder) / name))
    client.set_tag(run.info.run_id, "commit", commit())
    client.set_terminated(run.info.run_id, "FINISHED" if whole else "KILLED")
