"""What the cells of a study are asked after training: items made once per language, and changed text."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from aunet_lightning.data.contents import digest
from aunet_lightning.evaluation.items import read_items
from aunet_lightning.evaluation.running import item_key
from aunet_lightning.evaluation.task import TASKS, group_of
from aunet_lightning.paths import is_remote, replace_text
from aunet_lightning.study.cell_folder import CellFolder
from aunet_lightning.study.grid import EVALUATIONS, ROBUSTNESS, Study, StudyCell, files_of
from aunet_lightning.study.results import DocumentBits
from aunet_lightning.study.study_folder import StudyFolder

SEED = 0
OTHER_TEXT = "other text"

Main = Callable[[list[str]], int]  # runs an `aunet` command, and returns its exit code


def make_items(study: Study, main: Main) -> None:
    """Makes the items of each language of its validation text, unless they are there."""
    tasks = [task for task in TASKS.built_in if {task, group_of(task)} & {*study.evaluate}]
    tasks += [name for name in study.evaluate if name not in (*EVALUATIONS, *tasks)]
    for language in study.languages if tasks else ():
        folder = StudyFolder(study.folder).items(language)
        files, made = files_of(study, "val", language), folder / "made.json"
        arguments = ["--items", str(study.evaluate_items), "--seed", str(SEED)]
        arguments += [part for task in tasks for part in ("--task", task)]
        known = json.dumps([arguments, [file if is_remote(file) else digest(Path(file)) for file in files]])
        if made.exists() and made.read_text(encoding="utf-8") == known:
            continue
        for old in folder.glob("*"):  # of other tasks
            old.unlink()
        if code := main(["eval", "make", *files, "--out", str(folder), *arguments]):
            raise SystemExit(code)
        replace_text(made, known)


def commands(cell: StudyCell, files: CellFolder) -> list[list[str]]:
    """Returns the `aunet` commands that evaluate a cell."""
    found, items = [], _items(files, cell.language)
    if cell.evaluate.keys() - {ROBUSTNESS} and any(items.glob("*.jsonl")):  # parts have none in English
        found.append(["eval", "run", str(files.last), str(items), "--out", str(files.answers)])
    if ROBUSTNESS in cell.evaluate:
        text = [*cell.settings["data"]["val_files"], "--megabytes", str(cell.evaluate[ROBUSTNESS] / 1000)]
        found.append(["eval", "robustness", str(files.last), *text, "--out", str(files.robustness)])
    for name, of in cell.other_text.items():
        found.append(["score", str(files.last), *of, "--out", str(files.other_text(name))])
    return found


def _items(files: CellFolder, language: str) -> Path:
    return StudyFolder(files.path.parent.parent).items(language)


def evaluations(cell: StudyCell, files: CellFolder) -> dict[str, DocumentBits]:
    """Returns what a cell's answers say, by group or task: of each item whether it is wrong (1) or right (0), of size
    1; by change of text the bits of each changed document, and the bytes of the document as it was; and the bits and
    bytes of the documents of each text of another kind.

    Answers to items that the study no longer has are left out.
    """
    found: dict[str, list[tuple[str, float, float]]] = {}
    if cell.evaluate and files.answers.exists():
        items = {item_key(item) for path in _items(files, cell.language).glob("*.jsonl") for item in read_items(path)}
        for line in files.answers.read_text(encoding="utf-8").splitlines()[1:]:
            one = json.loads(line)
            if one["item"] in items:
                for name in {one["task"], group_of(one["task"])} & {*cell.evaluate}:
                    found.setdefault(name, []).append((one["item"], float(not one["right"]), 1.0))
    if ROBUSTNESS in cell.evaluate and files.robustness.exists():
        for line in files.robustness.read_text(encoding="utf-8").splitlines()[1:]:
            one = json.loads(line)
            name = f"{ROBUSTNESS}: {one['change']}"
            found.setdefault(name, []).append((f"{one['lang']}/{one['id']}", one["bits"], one["bytes"]))
    for text in cell.other_text:
        for line in files.other_text(text).read_text(encoding="utf-8").splitlines():
            one = json.loads(line)
            name = f"{OTHER_TEXT}: {text}"
            found.setdefault(name, []).append((f"{one['lang']}/{one['id']}", one["bits"], one["bytes"]))
    return {name: _documents(of) for name, of in found.items()}


def is_text(name: str) -> bool:
    """Returns whether an evaluation is bits of a text, and not answers to items."""
    return name.startswith((ROBUSTNESS, OTHER_TEXT))


def _documents(of: Sequence[tuple[str, float, float]]) -> DocumentBits:
    names, bits, sizes = zip(*sorted(of), strict=True)
    return DocumentBits(hashlib.sha256(json.dumps(names).encode()).hexdigest(), np.array(bits), np.array(sizes))


def as_metrics(found: Mapping[str, DocumentBits]) -> dict[str, float]:
    """Returns the share of right answers of each group, and the BPB of each text, for columns of the report."""
    return {
        f"eval/{name}": float(one.bits.sum() / one.bytes.sum()) if is_text(name) else 1 - float(one.bits.mean())
        for name, one in found.items()
    }
