"""The room that the checkpoints of a study take on the disk."""

import shutil
from collections.abc import Sequence

from aunet_lightning.study.grid import Study
from aunet_lightning.study.sizing import Sized
from aunet_lightning.tracking.run_folder import RunConfig

OF_PARAMETER = 12  # bytes in a checkpoint: itself and two moments, float32


def shortage(study: Study, cells: Sequence[Sized]) -> str | None:
    """Returns a sentence where the checkpoints that cells keep once they are done may fill the disk."""
    there = next(one for one in (study.folder, *study.folder.absolute().parents) if one.exists())
    needed, free = sum(_bytes(one, study.validations) for one in cells), shutil.disk_usage(there).free
    if needed < free:
        return None
    return (
        f"the checkpoints of {len(cells)} cells take up to {needed / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free "
        f"where {study.folder} is: make room, run a part at a time (--only), or keep the last ones alone (in settings: "
        "run: {keep_best: 0})"
    )


def _bytes(cell: Sized, validations: int) -> int:
    """Returns what a cell's last and best checkpoints take at most; the last one is validated too."""
    run = {name: cell.settings["run"].get(name, getattr(RunConfig, name)) for name in ("keep_last", "keep_best")}
    return cell.parameters * OF_PARAMETER * int(run["keep_last"] + min(run["keep_best"], validations - 1))
