"""Budgets that share a run: with a learning rate that stays until it falls at the end, a smaller budget branches from
the run of the largest one where its own rate begins to fall, and equals a run of its own to the last digit."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from aunet_lightning.paths import remove
from aunet_lightning.study.cell_folder import CellFolder
from aunet_lightning.study.grid import Branch, Study, StudyCell
from aunet_lightning.study.settings import merge


def branched(study: Study, cells: Sequence[StudyCell]) -> list[StudyCell]:
    """Returns the cells, each that can branch with the name of the cell that it branches from, and that one with the
    shares of its run at which it keeps a checkpoint. Cells that read seconds or fit the trunk to a budget cannot."""
    largest = {_without_budget(cell): cell for cell in cells if cell.budget == study.match.budget}
    found, shares = [], dict[str, list[float]]()
    for cell in cells:
        of, cooldown = largest[_without_budget(cell)], _cooldown(cell)
        if of is not cell and cooldown is not None and study.match.adjust == "bytes" and study.match.by != "seconds":
            share = (1 - cooldown) * cell.budget / of.budget
            shares.setdefault(of.name, []).append(share)
            cell = replace(cell, branch=Branch(of.name, share))
        found.append(cell)
    return [
        replace(cell, settings=merge(cell.settings, {"run": {"keep_at": sorted(shares[cell.name])}}))
        if cell.name in shares
        else cell
        for cell in found
    ]


def _without_budget(cell: StudyCell) -> tuple[str, str, int, int]:
    return cell.splitter, cell.language, cell.stages, cell.seed


def _cooldown(cell: StudyCell) -> float | None:
    found = cell.settings.get("model", {}).get("optimizer", {}).get("cooldown")
    return None if found is None else float(found)


def waits(branch: Branch, of: CellFolder) -> bool:
    """Whether a run, whose folder is given, is still to come to the place where a cell branches from it."""
    return branch.share not in of.kept() and not (of.done.exists() or of.failed.exists())


def beginning(branch: Branch, of: CellFolder) -> Path | None:
    """Returns the checkpoint from which a cell continues a run; None where that has none, so that it begins anew."""
    step = of.kept().get(branch.share)
    return None if step is None else of.step(step)


def release(branch: Branch, of: CellFolder) -> None:
    """Removes the checkpoint from which a cell that is done branched, once the other run is done too; the last and the
    best one of that run stay."""
    step = of.kept().get(branch.share)
    if step is None or not of.done.exists():
        return
    path = of.step(step)
    if path.resolve() not in {of.last.resolve(), of.best.resolve()}:
        remove(path)
