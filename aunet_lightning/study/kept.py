"""The results of a study as one CSV, small enough for git: its report is drawn again from it, and it continues on a
machine that has none of its runs.

A row per cell and field: `cell,field,value`, the value as JSON; the rows without a cell are of the study. Bits of
documents are rounded to whole bits, and what parallel ones take to five digits; the lengths of a text's documents stand
once.
"""

import csv
import io
import json
import lzma
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from aunet_lightning.errors import UserError
from aunet_lightning.paths import replace_bytes
from aunet_lightning.study.results import CellResult, DocumentBits, Example, Point, StudyResult, StudyText, Tuned

COLUMNS = ["cell", "field", "value"]
DIGITS = 5
OF_TEXT = "document_bytes "  # and the digest of a text's documents


def write(study: StudyResult, path: Path) -> None:
    """Writes the finished cells, compressed by xz."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    cells = [cell for cell in study.cells if cell.status == "done"]
    texts = {of.text: of.bytes for cell in cells for of in _documents(cell)}
    head = {field.name: getattr(study, field.name) for field in fields(study) if field.name != "cells"}
    head |= {OF_TEXT + name: [*map(int, n_bytes)] for name, n_bytes in texts.items()}
    for name, of in [("", head), *((cell.name, _plain(cell)) for cell in cells)]:
        writer.writerows([name, field, _json(value)] for field, value in of.items() if field != "name" or not name)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_bytes(path, lzma.compress(text.getvalue().encode()))


def read(path: Path) -> StudyResult:
    """Raises UserError for a file that is not of `write`."""
    csv.field_size_limit(2**31 - 1)
    found: dict[str, dict[str, Any]] = {}
    try:
        with lzma.open(path, "rt", encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            if next(rows, None) != COLUMNS:
                raise ValueError(f"its first line is not {','.join(COLUMNS)}")
            for cell, field, value in rows:
                found.setdefault(cell, {})[field] = json.loads(value)
        head = found.pop("")
        texts = {name[len(OF_TEXT) :]: np.array(head.pop(name), float) for name in [*head] if name.startswith(OF_TEXT)}
        head["texts"] = [StudyText(*one) for one in head["texts"]]
        head["tuned"] = [
            Tuned(row, stages, {float(k): v for k, v in bpb.items()}) for row, stages, bpb in head["tuned"]
        ]
        return StudyResult(cells=[_cell(name, of, texts) for name, of in found.items()], **head)
    except (OSError, EOFError, lzma.LZMAError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a file of results that aunet compare --results wrote: {error}") from None


def completed(result: StudyResult, kept: StudyResult | None) -> StudyResult:
    """Returns a study with the kept results of cells that this machine has not finished. Those of another study come
    without its plan."""
    if kept is None:
        return result
    of = {cell.name: cell for cell in kept.cells}
    cells = [cell if cell.status == "done" else of.get(cell.name, cell) for cell in result.cells]
    ran = [kept, result] if any(cell.status == "done" for cell in result.cells) else [kept]
    commit, hardware = _joined([one.commit for one in ran]), _joined([one.hardware for one in ran])
    plan = (kept.plan if kept.name == result.name else "") or result.plan
    return replace(result, cells=cells, plan=plan, commit=commit, hardware=hardware)


def valid(kept: StudyResult, definitions: Mapping[str, str]) -> StudyResult:
    """Returns the kept cells whose definitions, by name, are those of the study as it is now."""
    return replace(kept, cells=[cell for cell in kept.cells if cell.definition == definitions.get(cell.name)])


def _documents(cell: CellResult) -> Iterator[DocumentBits]:
    yield from [] if cell.document_bits is None else [cell.document_bits]
    yield from cell.evaluations.values()


def _plain(cell: CellResult) -> dict[str, Any]:
    """Returns the fields of a cell that are not their defaults."""
    known = {field.name: getattr(cell, field.name) for field in fields(cell)}
    known["folder"] = ""  # of this machine
    if cell.document_bits is not None:
        known["document_bits"] = _rounded(cell.document_bits)
    for name in ("parallel_bits", "parallel_steps", "parallel_flops"):
        known[name] = {key: float(f"{value:.{DIGITS}g}") for key, value in known[name].items()}
    known["evaluations"] = {name: _rounded(of) for name, of in cell.evaluations.items()}
    return {name: value for name, value in known.items() if value not in (None, "", (), {}, [])}


def _rounded(of: DocumentBits) -> tuple[str, list[int]]:
    return of.text, np.rint(of.bits).astype(int).tolist()


def _cell(name: str, of: dict[str, Any], texts: Mapping[str, np.ndarray]) -> CellResult:
    def documents(text: str, bits: Sequence[int]) -> DocumentBits:
        return DocumentBits(text, np.array(bits, float), texts[text])

    if "document_bits" in of:
        of["document_bits"] = documents(*of["document_bits"])
    of["evaluations"] = {key: documents(*value) for key, value in of.get("evaluations", {}).items()}
    of["curve"] = [Point(*point) for point in of.get("curve", ())]
    of["examples"] = [Example(*example) for example in of.get("examples", ())]
    return CellResult(name=name, **of)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _joined(of: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(one for text in of for one in text.split(", ") if one))
