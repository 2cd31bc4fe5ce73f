"""Collects a study's results from the folders of its runs."""

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from aunet_lightning.study.cell_folder import CellFolder
from aunet_lightning.study.evaluating import as_metrics, evaluations
from aunet_lightning.study.grid import Match, Study
from aunet_lightning.study.protocol import told
from aunet_lightning.study.results import CellResult, DocumentBits, Example, Point, StudyResult, Tuned
from aunet_lightning.study.sizing import Sized
from aunet_lightning.study.study_folder import StudyFolder
from aunet_lightning.study.texts import texts_of
from aunet_lightning.study.timing import hardware
from aunet_lightning.tracking.mlflow_logger import commit
from aunet_lightning.tracking.names import metric_name

BPB_OF = "val/bpb_"  # and a language
WAITED = 0.05  # share of its time that a run may have waited for a core, so that its speed counts
ROUNDED = 1e-4  # bits per byte that the rounded bits of documents may be off their run's BPB


def collect(study: Study, sized: Sequence[Sized], grid: str, command: str, tuned: Sequence[Tuned] = ()) -> StudyResult:
    """Returns the results of the study so far."""
    cells = [_cell(one) for one in sized]
    return StudyResult(
        name=study.study,
        description=" ".join(study.description.split()),
        cells=cells,
        splitters=[*dict.fromkeys(row for name in study.splitters for row in [*_rows_of(name, cells)] or [name])],
        languages=list(study.languages),
        match_by=study.match.by,
        budget=study.match.budget,
        adjust=study.match.adjust,
        reference=study.reference or "",
        equal=_equal(study, study.match),
        command=command,
        commit=", ".join(sorted({_done(one).get("commit", "unknown") for one in sized if one.is_done})) or commit(),
        hardware=hardware(),
        date=time.strftime("%Y-%m-%d"),
        grid=grid,
        columns=study.columns,
        texts=[*texts_of(sized)],
        tuned=tuned,
        question=" ".join(study.question.split()),
        plan=told(StudyFolder(study.folder), grid),
    )


def _rows_of(name: str, cells: Sequence[CellResult]) -> Iterator[str]:
    """Yields the rows of an entry of `splitters`."""
    yield from (cell.splitter for cell in cells if cell.rule == name)


def _cell(sized: Sized) -> CellResult:
    cell, files = sized.cell, sized.files
    known: dict[str, Any] = {
        "name": cell.name, "splitter": cell.splitter, "language": cell.language, "stages": cell.stages,
        "seed": cell.seed, "folder": str(files.path), "parameters": sized.parameters,
        "embedding_parameters": sized.embedding_parameters, "budget": cell.budget, "rule": cell.rule,
        "rate": cell.rate, "levels": cell.levels, "definition": sized.definition,
    }  # fmt: skip
    if not sized.is_done:
        if files.failed.exists():
            return CellResult(**known, status="failed", error=files.last_error())
        return CellResult(**known, status="stopped" if files.metrics.exists() else "waiting")
    last: dict[str, float] = {}
    curve, trained = [], list[float]()  # trained: BPB of steps since the last validation
    for step, metrics in files.points():
        last |= metrics
        trained += [metrics["train/bpb"]] if "train/bpb" in metrics else []
        if "val/bpb" in metrics:
            mean = fmean(trained) if trained else math.nan
            curve.append(Point(step, last["bytes_seen"], last["flops"], metrics["val/bpb"], mean))
            trained = []
    if not curve:
        again = f"it has no validation: delete {files.path}, and give the same command again"
        return CellResult(**known, status="failed", error=again)
    stages = [f"stage{s + 2}" for s in range(cell.stages - 1)]
    rates = [last.get(f"val/bytes_per_text_unit_{s}", last[f"val/bytes_per_unit_{s}"]) for s in stages]
    if "val/bytes_per_token" in last:
        rates = [last["val/bytes_per_token"]]
    asked = evaluations(cell, files)
    seconds = last["perf/training_seconds"]  # 0 where a budget was spent in one step, which is not timed
    waited = _done(sized).get("waited")
    alone = waited is None or waited < WAITED
    return CellResult(
        **known,
        status="done",
        bpb=last["val/bpb"],
        bpb_by_language={label: last[name] for name, label in _labels(files, last).items()},
        curve=curve,
        bytes_per_unit=rates,
        bytes_per_second=last["bytes_seen"] / seconds if seconds and alone else None,
        bytes_seen=last["bytes_seen"],
        flops=last["flops"],
        flops_per_byte=last["flops"] / last["bytes_seen"],
        document_bits=_documents(files.documents, last["val/bpb"]),
        **(_of_parallel(files.predictions) if cell.parallel else {}),
        evaluations=asked,
        examples=_examples(files.units),
        metrics=last | as_metrics(asked),
        other_settings=_other_settings(sized),
    )


def _labels(files: CellFolder, metrics: Mapping[str, float]) -> dict[str, str]:
    """Returns the languages of the validation text, by the name of their metric."""
    of_val = json.loads(files.data.read_text(encoding="utf-8")).get("val", {}) if files.data.exists() else {}
    labels = {BPB_OF + metric_name(label): label for label in of_val.get("languages", [])}
    return {name: labels.get(name, name.removeprefix(BPB_OF)) for name in metrics if name.startswith(BPB_OF)}


def _done(sized: Sized) -> dict[str, Any]:
    """Returns what a cell that has ended tells of its processes."""
    return dict(json.loads(sized.files.done.read_text(encoding="utf-8")))


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _of_parallel(path: Path) -> dict[str, Any]:
    """Returns what each document of the parallel text takes, by its id; runs of earlier versions know bits alone."""
    lines = _lines(path)
    return {
        "parallel_bits": {line["id"]: line["bits"] for line in lines},
        "parallel_steps": {line["id"]: line["positions"][-1] for line in lines if "positions" in line},
        "parallel_flops": {line["id"]: line["flops"] for line in lines if "flops" in line},
    }


def _documents(path: Path, bpb: float) -> DocumentBits | None:
    """Returns the bits of each validation document; None without the file (of a run of an earlier version), or where
    they are not those of the last validation."""
    if not path.exists():
        return None
    lines = _lines(path)
    bits, n_bytes = (np.array([line[key] for line in lines], float) for key in ("bits", "bytes"))
    if not abs(bits.sum() / max(n_bytes.sum(), 1) - bpb) < ROUNDED:
        return None
    known = json.dumps([[line["lang"], line["id"], line["bytes"]] for line in lines])
    return DocumentBits(hashlib.sha256(known.encode()).hexdigest(), bits, n_bytes)


def _other_settings(sized: Sized) -> str:
    """Returns a digest of the cell's settings in the grid, and of its budget, without splitter and seed."""
    settings = {key: value for key, value in sized.cell.settings.items() if key not in ("splitter", "seed_everything")}
    known = json.dumps([settings, sized.settings["model"]["budget"]], sort_keys=True, default=str)
    return hashlib.sha256(known.encode()).hexdigest()


def _examples(path: Path) -> list[Example]:
    return [Example(one["text"], one["levels"]) for one in json.loads(path.read_text(encoding="utf-8"))]


def _equal(study: Study, match: Match) -> list[str]:
    """Returns what cells have in common, and what compensates for differences in cost, in sentences."""
    spent = {
        "flops": f"{match.budget:.3g} training FLOPs, forward and backward, of the units that actually occurred",
        "bytes": f"{match.budget:.3g} bytes of training text",
        "seconds": f"{match.budget:g} seconds of training (with reading and splitting, not start-up or validation)",
    }[match.by]
    adjusted = {
        "bytes": "Splitters whose units cost more per byte read less text, and vice versa."
        if match.by == "flops"
        else "Splitters whose units cost more per byte spend more FLOPs, and vice versa."
        if match.by == "bytes"
        else "Slower models read less text.",
        "trunk_layers": "The trunk's layers offset the cost of units, so that all cells read about as much text.",
        "trunk_dim": "The trunk's width offsets the cost of units, so that all cells read about as much text.",
    }[match.adjust]
    return [
        f"Every cell spends {spent}{'' if len(match.budgets) < 2 else '; those of a smaller budget less'}.",
        adjusted,
        "All cells of a language read the same documents, those of one seed in the same order, each as far as its "
        f"budget allows; seeds are {', '.join(map(str, study.seeds))}.",
        "Learning rate, warm-up steps and rows per batch are the same for all cells unless the grid says otherwise; "
        "parameters and numbers of steps are not.",
        "BPB counts all bits of the validation text at the end of training (no checkpoint is selected by it), "
        "without the end of document, for BPE too.",
    ]
