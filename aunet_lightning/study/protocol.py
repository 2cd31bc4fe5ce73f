"""The plan of a study: what will be run and what counts as a result, written before a cell runs, and what was changed
after."""

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from aunet_lightning.effects import flat
from aunet_lightning.study.grid import Study
from aunet_lightning.study.sizing import Sized
from aunet_lightning.study.study_folder import StudyFolder
from aunet_lightning.study.timing import Speed, hardware, seconds_of, share_of_step
from aunet_lightning.tracking.mlflow_logger import commit

HOW_TO_RUN = ("jobs", "threads", "gpus_per_cell", "submitit", "tracking_uri")  # keys that change no result


def write_plan(
    study: Study, sized: Sequence[Sized], to_run: Sequence[Sized], grid: str, speeds: Sequence[Speed]
) -> Path:
    """Writes plan.md, for readers, and plan.json, by which later changes are found. Returns the path of the first.

    to_run: the cells without a result, whose time is estimated.
    """
    files = StudyFolder(study.folder)
    files.path.mkdir(parents=True, exist_ok=True)
    by_name = {one.cell.name: one for one in sized}
    seconds = sum(seconds_of(one, study, speeds, by_name) for one in to_run) / study.jobs
    begun = sum(one.files.metrics.exists() for one in sized)
    record = {"date": time.strftime("%Y-%m-%d %H:%M"), "commit": commit(), "begun": begun, "grid": grid}
    files.plan_record.write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
    lines = [
        f"# Plan of study {study.study}",
        *filter(None, [study.question, " ".join(study.description.split())]),
        f"Written on {record['date']} at commit {record['commit']}"
        + (f", when {begun} of {len(sized)} cells had begun." if begun else ", before any cell had begun."),
        "## What will be run",
        _grid(study, sized),
        "## What counts as a result",
        study.result or "Nothing was said: set `result` in the study's YAML.",
        "## How long it takes",
        f"About {seconds / 3600:.1f} hours{_of(to_run, sized)} on {hardware()}, {study.jobs} cells at once, by "
        f"{len(speeds)} cells that were trained for a minute in all. "
        f"A step spends {_span([share_of_step(one) for one in sized])} of a cell's budget, by which costs may differ.",
        "## The study",
        f"```yaml\n{grid.strip()}\n```",
    ]
    files.plan.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return files.plan


def _grid(study: Study, sized: Sequence[Sized]) -> str:
    rows = list(dict.fromkeys(one.cell.splitter for one in sized))
    return (
        f"{len(sized)} cells: {len(rows)} rows ({', '.join(rows)}); languages {', '.join(study.languages)}; seeds "
        f"{', '.join(map(str, study.seeds))}; {study.match.by} {', '.join(f'{b:g}' for b in study.match.budgets)}."
    )


def _of(to_run: Sequence[Sized], sized: Sequence[Sized]) -> str:
    return "" if len(to_run) == len(sized) else f" for the {len(to_run)} of {len(sized)} cells that are still to be run"


def _span(shares: Sequence[float]) -> str:
    known = [share for share in shares if math.isfinite(share)]
    if not known:
        return "an unknown share"
    ends = dict.fromkeys(f"{100 * share:.2g} %" for share in (min(known), max(known)))
    return " to ".join(ends)


def changes_after(files: StudyFolder, grid: str) -> list[str] | None:
    """Returns what was changed in a study after its plan was written; None where there is no plan."""
    if not files.plan_record.exists():
        return None
    planned, now = (dict(flat(yaml.safe_load(text))) for text in (_record(files)["grid"], grid))
    keys = [key for key in dict.fromkeys([*planned, *now]) if key.partition(".")[0] not in HOW_TO_RUN]
    return [f"{key}: {_shown(planned, key)} → {_shown(now, key)}" for key in keys if planned.get(key) != now.get(key)]


def told(files: StudyFolder, grid: str) -> str:
    """Returns a sentence on the plan, and what was changed after it."""
    changes = changes_after(files, grid)
    if changes is None:
        return "No plan was written before the cells ran (aunet compare --plan)."
    record = _record(files)
    begun = f" when {record['begun']} cells had begun" if record["begun"] else " before any cell had begun"
    after = f"Changed after: {'; '.join(changes)}." if changes else "Nothing was changed after."
    return f"The plan was written on {record['date']} at commit {record['commit']},{begun}. {after}"


def _record(files: StudyFolder) -> dict[str, Any]:
    return dict(json.loads(files.plan_record.read_text(encoding="utf-8")))


def _shown(settings: dict[str, Any], key: str) -> str:
    return json.dumps(settings[key], ensure_ascii=False) if key in settings else "not there"
