"""Ranges of numeric settings, each defined once and checked where the number is read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, get_args


@dataclass(frozen=True)
class Range:
    """Numbers between two bounds: `least` and `most` are included, `above` and `below` are not."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        return self.violated(value) is None

    def violated(self, value: float) -> str | None:
        """Returns in words the bound that a finite number violates, or None."""
        if (self.least is not None and value < self.least) or (self.above is not None and value <= self.above):
            return self._lower
        if (self.most is not None and value > self.most) or (self.below is not None and value >= self.below):
            return self._upper
        return None

    @property
    def _lower(self) -> str:
        if self.above is not None:
            return f"above {show(self.above)}"
        return f"{show(self.least)} or more" if self.least is not None else ""

    @property
    def _upper(self) -> str:
        if self.below is not None:
            return f"below {show(self.below)}"
        return f"at most {show(self.most)}" if self.most is not None else ""

    def __str__(self) -> str:
        return " and ".join(part for part in (self._lower, self._upper) if part)


def show(value: Any) -> str:
    """Returns a value in YAML's notation, cut to a length that fits into a sentence."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and abs(value) >= 10**15:
        return f"{'-' * (value < 0)}1e{len(str(abs(value))) - 1}" if abs(value) < 10**300 else "a huge number"
    text = f"{value:.15g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def listed(names: Sequence[str], most: int = 250) -> str:
    """Returns names joined by commas, as many as fit into `most` characters."""
    text = ", ".join(names)
    return text if len(text) <= most else f"{text[:most].rpartition(',')[0]}, …"


def check(name: str, value: Any, wanted: Range, whole: bool = False) -> None:
    """Raises ValueError where a value, or one of a list, is not a (whole) number in the range. null passes."""
    if isinstance(value, list | tuple):
        for one in value:
            check(name, one, wanted, whole)
        return
    if value is None:
        return
    right = isinstance(value, Integral) if whole else _finite(value)
    if not right or isinstance(value, bool):
        kind = "whole" if whole else "finite"
        raise ValueError(f"{name} is {show(value)}, it must be a {kind} number{', ' * bool(str(wanted))}{wanted}")
    if bound := wanted.violated(value):
        raise ValueError(f"{name} is {show(value)}, it must be {bound}")


def _finite(value: Any) -> bool:
    return isinstance(value, Integral) or (isinstance(value, Real) and math.isfinite(value))


def check_fields(owner: Any, name: str, **wanted: Range) -> None:
    """Checks fields of a dataclass likewise; those without float in their type take whole numbers."""
    types = {field.name: field.type for field in fields(owner)}
    for field, range_ in wanted.items():
        kinds = {types[field], *get_args(types[field])}
        kinds |= {kind for outer in kinds for kind in get_args(outer)}
        value = getattr(owner, field)
        if value is None and type(None) not in kinds:
            raise ValueError(f"{name}.{field} is null, it must be a number, {range_}")
        check(f"{name}.{field}", value, range_, whole=float not in kinds)
