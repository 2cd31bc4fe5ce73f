"""The rows that an entry of `splitters` has: one for each of the study's rates, crossed with its factors."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from aunet_lightning.errors import UserError
from aunet_lightning.model.config import AUNetConfig, StageConfig
from aunet_lightning.study.settings import EACH, Settings, merge, place
from aunet_lightning.training.optimizer import OptimizerConfig

Fit = Callable[[str, Settings, float], Settings | None]
"""A language, settings and bytes per unit → what to set so that they have them; None: they keep their own."""


class Factor(NamedTuple):
    """What is crossed with all rows: a place among the settings, and the values that it takes there."""

    name: str
    path: tuple[str, ...]
    values: Sequence[Any]


class Row(NamedTuple):
    """A row in one language."""

    name: str
    rate: float | None  # bytes per unit that were asked for; None: it has its own
    levels: Mapping[str, str]  # factor → its value here; without those that mean nothing to the row
    settings: Settings


def factors_of(read: Mapping[str, Any]) -> list[Factor]:
    """Returns the factors of a study's YAML, each a path or an option's name with its values.

    A name alone is an option of every stage, of the network or of the optimizer, and else of the splitter. Raises
    UserError for what is not two values or more.
    """
    found = []
    for name, values in read.items():
        if not isinstance(values, list) or len({*map(str, values)}) < max(len(values), 2):
            raise UserError(f"factors.{name} is {values!r}, it must be a list of two different values or more")
        found.append(Factor(name, tuple(name.split(".")) if "." in name else _path_of(name), values))
    return found


def _path_of(name: str) -> tuple[str, ...]:
    for config, path in (
        (StageConfig, ("model", "net", "stages", EACH)), (AUNetConfig, ("model", "net")),
        (OptimizerConfig, ("model", "optimizer")),
    ):  # fmt: skip
        if name in {of.name for of in fields(config)}:
            return (*path, name)
    return ("splitter", name)


def rows(
    name: str, language: str, settings: Settings, rates: Sequence[float], factors: Sequence[Factor], fit: Fit
) -> list[Row]:
    """Returns the rows of an entry of `splitters`, whose settings are given whole, in a language. Of wanted rates for
    which the same settings are nearest, the first counts."""
    fitted = [(rate, merge(settings, over)) for rate in rates if (over := fit(language, settings, rate)) is not None]
    fitted = [one for i, one in enumerate(fitted) if one[1] not in [found for _, found in fitted[:i]]]
    crossed: list[Row] = []
    at_rates: Sequence[tuple[float | None, Settings]] = fitted or [(None, settings)]
    for rate, of_rate in at_rates:
        for values in itertools.product(*(factor.values for factor in factors)):
            row = Row(name if rate is None else f"{name} {rate:g} B", rate, {}, of_rate)
            for factor, value in zip(factors, values, strict=True):
                if (found := place(row.settings, factor.path, value)) is not None:
                    shown = "none" if value is None else str(value)
                    row = Row(f"{row.name} {factor.name} {shown}", rate, {**row.levels, factor.name: shown}, found)
            if row.name not in [one.name for one in crossed]:  # a factor that means nothing to it
                crossed.append(row)
    return crossed
