"""What the cells of a study are asked after training: items made once per language, and changed text."""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from aunet_lightning.evaluation.task import TASKS
from aunet_lightning.paths import replace_text
from aunet_lightning.study.cell_folder import CellFolder
from aunet_lightning.study.grid import Study, files_of
from aunet_lightning.study.results import DocumentBits
from aunet_lightning.study.study_folder import StudyFolder

N_ITEMS = 100  # of each task
SEED = 0
ROBUSTNESS = "robustness"
OTHER_TEXT = "other text"

Main = Callable[[list[str]], int]  # runs an `aunet` command, and returns its exit code


def group_of(task: str) -> str:
    """Returns the group of a task."""
    return str(TASKS.get(task).group)


def make_items(study: Study, main: Main) -> None:
    """Makes the items of each language of its validation text, unless they are there."""
    groups = [name for name in study.evaluate if name != ROBUSTNESS]
    tasks = [task for task in TASKS.built_in if group_of(task) in groups]
    for language in study.languages if tasks else ():
        folder = StudyFolder(study.folder).items(language)
        files, made = files_of(study, "val", language), folder / "made.json"
        arguments = [
            "--items",
            str(N_ITEMS),
            "--seed",
            str(SEED),
            *(part for task in tasks for part in ("--task", task)),
        ]
        known = json.dumps([arguments, [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files]])
        if made.exists() and made.read_text(encoding="utf-8") == known:
            continue
        if code := main(["eval", "make", *files, "--out", str(folder), *arguments]):
            raise SystemExit(code)
        replace_text(made, known)


def commands(
    evaluate: Sequence[str],
    language: str,
    val_files: Sequence[str],
    other_text: Mapping[str, Sequence[str]],
    files: CellFolder,
) -> list[list[str]]:
    """Returns the `aunet` commands that evaluate a cell."""
    found = []
    items = StudyFolder(files.path.parent.parent).items(language)
    if any(name != ROBUSTNESS for name in evaluate) and items.is_dir():
        found.append(["eval", "run", str(files.last), str(items), "--out", str(files.answers)])
    if ROBUSTNESS in evaluate:
        found.append(["eval", "robustness", str(files.last), *val_files, "--out", str(files.robustness)])
    for name, of in other_text.items():
        found.append(["score", str(files.last), *of, "--out", str(files.other_text(name))])
    return found


def evaluations(evaluate: Sequence[str], other_text: Collection[str], files: CellFolder) -> dict[str, DocumentBits]:
    """Returns what a cell's answers say, by group: of each item whether it is wrong (1) or right (0), of size 1; by
    change of text the bits of each changed document, and the bytes of the document as it was; and the bits and bytes
    of the documents of each text of another kind."""
    found: dict[str, list[tuple[str, float, float]]] = {}
    if files.answers.exists():
        for line in files.answers.read_text(encoding="utf-8").splitlines()[1:]:
            one = json.loads(line)
            found.setdefault(group_of(one["task"]), []).append((one["item"], float(not one["right"]), 1.0))
    if files.robustness.exists():
        for line in files.robustness.read_text(encoding="utf-8").splitlines():
            one = json.loads(line)
            name = f"{ROBUSTNESS}: {one['change']}"
            found.setdefault(name, []).append((f"{one['lang']}/{one['id']}", one["bits"], one["bytes"]))
    for text in other_text:
        for line in files.other_text(text).read_text(encoding="utf-8").splitlines():
            one = json.loads(line)
            found.setdefault(f"{OTHER_TEXT}: {text}", []).append(
                (f"{one['lang']}/{one['id']}", one["bits"], one["bytes"])
            )
    wanted = {*evaluate, OTHER_TEXT}
    return {name: _documents(of) for name, of in found.items() if name.partition(":")[0] in wanted}


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
