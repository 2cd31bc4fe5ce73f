"""A bar: a figure that is measured, and the bound that it is to keep."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Bar:
    """One line of `make bench`. Ratios come from runs that alternate in one call, so neighbours hit both."""

    name: str
    value: float
    bound: float
    at_least: bool = True  # whether the value is to be at least the bound; else at most
    unit: str = "x"
    detail: dict[str, Any] = field(default_factory=dict)  # what the value was made of

    @property
    def met(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound
