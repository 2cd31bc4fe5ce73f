"""A learning rate for each row of a study: a short search at the smallest budget, on held-out training text.

The rates of a row are multiples of its own `lr` and `matrix_lr`. A best one at the edge of those tried says only on
which side the best is, so it is not taken.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from aunet_lightning.errors import UserError
from aunet_lightning.study.grid import Study, StudyCell
from aunet_lightning.study.results import Tuned
from aunet_lightning.study.settings import Settings, merge
from aunet_lightning.study.sizing import Sized
from aunet_lightning.training.optimizer import OptimizerConfig

RATES = ("lr", "matrix_lr")  # of model.optimizer: what multiples multiply


def trials(study: Study, cells: Sequence[StudyCell]) -> list[StudyCell]:
    """Returns the cells of the search: each row in each language of it, once per multiple; none without a search."""
    if (tune := study.tune) is None:
        return []
    languages = tune.languages or [next(iter(study.languages))]
    if unknown := [language for language in languages if language not in study.languages]:
        raise UserError(f"tune.languages: {unknown[0]!r} is not a language of the study: {', '.join(study.languages)}")
    if tune.seed in study.seeds:
        raise UserError(f"tune.seed is {tune.seed}, a seed of the study: name one that is not")
    rows = {(cell.splitter, cell.language, cell.stages): cell for cell in reversed(cells)}
    found = []
    for (splitter, language, stages), cell in reversed(rows.items()):
        for multiple in tune.multiples if language in languages else ():
            data = {"val_files": None, "holdout_every": tune.holdout_every}
            settings = merge(_at(cell.settings, multiple), {"seed_everything": tune.seed, "data": data})
            settings["run"] = {k: v for k, v in settings.get("run", {}).items() if k != "keep_at"}
            name = f"tune-{language}-{splitter}-{stages}stages-x{multiple:g}"
            budget = study.match.budgets[0]
            one = replace(cell, name=name, seed=tune.seed, settings=settings, budget=budget, multiple=multiple)
            found.append(replace(one, branch=None, parallel=None))
    return found


def _at(settings: Settings, multiple: float) -> Settings:
    """Returns settings with learning rates so many times as high."""
    given = settings.get("model", {}).get("optimizer", {})
    rates = {name: multiple * float(given.get(name, getattr(OptimizerConfig, name))) for name in RATES}
    return merge(settings, {"model": {"optimizer": rates}})


def tuned(sized: Sequence[Sized]) -> list[Tuned]:
    """Returns what the search found for each row that was tried at all multiples, from the folders of its cells."""
    by_row: dict[tuple[str, int], dict[float, list[float]]] = {}
    for one in sized:
        multiple = one.cell.multiple or 1.0
        bpb = one.files.last_metrics().get("val/bpb", math.nan) if one.is_done else math.nan
        by_row.setdefault((one.cell.splitter, one.cell.stages), {}).setdefault(multiple, []).append(bpb)
    found = [Tuned(*row, {m: fmean(values) for m, values in of.items()}) for row, of in by_row.items()]
    return [one for one in found if all(math.isfinite(value) for value in one.bpb.values())]


def at_best(cells: Sequence[StudyCell], found: Sequence[Tuned]) -> list[StudyCell]:
    """Returns the cells with the learning rates that were best for their row. Raises UserError for a row without a
    search that ended, or whose best is at the edge."""
    best = {(one.splitter, one.stages): one for one in found}
    if missing := [cell.splitter for cell in cells if (cell.splitter, cell.stages) not in best]:
        raise UserError(f"tune: the search for {missing[0]} has cells without a result, see the errors above")
    if edge := [one for one in found if one.at_edge]:
        side = "low" if edge[0].best == max(edge[0].bpb) else "high"
        raise UserError(
            f"tune: of {edge[0].splitter} the best learning rate is {edge[0].best:g} times its own, the edge of the "
            f"search: all of tune.multiples may be too {side}. Add further ones on that side; no cell is run twice"
        )
    return [replace(cell, settings=_at(cell.settings, best[cell.splitter, cell.stages].best)) for cell in cells]
