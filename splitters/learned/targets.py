"""The mean lengths of units that a learned splitter aims at, by language and by training step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from splitters.contract import number, whole

DEFAULT = "default"  # in YAML, the length in all languages that are not named


class Targets(NamedTuple):
    """Lengths in bytes: at last, and before that a straight line from `first` over `steps` training steps."""

    by_language: dict[str, float]
    others: float | None  # in other languages; None: there are none
    first: float | None = None
    steps: int = 0

    @classmethod
    def of(cls, rule: str, lengths: float | Mapping[str, float], first: float | None, steps: int) -> Targets:
        """Returns the targets of the options bytes_per_unit, bytes_per_unit_from and target_steps of a `rule`.

        Raises ValueError for a length that is not above 1, a beginning that is not shorter, or one of the last two
        options without the other.
        """
        if isinstance(lengths, Mapping):
            if not lengths or not all(isinstance(name, str) for name in lengths):
                raise ValueError(
                    f"{rule}: bytes_per_unit is {dict(lengths)!r}, it must name languages: {{th: 8, {DEFAULT}: 6}}"
                )
            named = {
                name: number(rule, f"bytes_per_unit of {name}", length, 1, above=True)
                for name, length in lengths.items()
            }
            others = named.pop(DEFAULT, None)
        else:
            named, others = {}, number(rule, "bytes_per_unit", lengths, 1, above=True)
        whole(rule, "target_steps", steps)
        if (first is None) != (steps == 0):
            raise ValueError(
                f"{rule}: bytes_per_unit_from is {first!r} and target_steps is {steps!r}, they must be set together: "
                "the length at the first step, and the steps until bytes_per_unit"
            )
        if first is not None:
            shortest = min(length for length in (*named.values(), others) if length is not None)
            first = number(rule, "bytes_per_unit_from", first, 1, above=True, most=shortest)
        return cls(named, others, first, steps)

    def at(self, step: int) -> list[float]:
        """Returns the lengths at a training step (from 0): of each language, and of others (if none: their mean)."""
        named = [*self.by_language.values()]
        last = [*named, sum(named) / len(named) if self.others is None else self.others]
        if self.first is None or step >= self.steps:
            return last
        return [self.first + (length - self.first) * step / self.steps for length in last]
