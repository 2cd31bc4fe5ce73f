"""The budget of a run: what it may spend, so that runs are compared at equal cost."""

from dataclasses import asdict, dataclass

from aunet_lightning.numbers import Range, check_fields
from aunet_lightning.training.sums import StepSums


@dataclass(frozen=True)
class Spent:
    """Cost of training so far, over all devices."""

    flops: float = 0.0  # forward and backward, of real positions (see aunet_lightning.costs)
    bytes: float = 0.0  # of text
    seconds: float = 0.0  # of training, with reading and splitting; without start-up and validation

    def plus(self, sums: StepSums, devices: int) -> "Spent":
        """Returns what is spent after a batch, with its sums over so many devices."""
        flops, n_bytes, seconds = (float(value) for value in (sums.flops, sums.bytes, sums.seconds))
        return Spent(self.flops + flops, self.bytes + n_bytes, self.seconds + seconds / devices)

    def named(self) -> dict[str, float]:
        """Returns what is logged of it, so that it can be the axis of a plot."""
        return {"bytes_seen": self.bytes, "flops": self.flops, "perf/training_seconds": self.seconds}


@dataclass
class BudgetConfig:
    """A limit on the cost of a run, which ends with the step that reaches it. At most one of the three."""

    flops: float | None = None
    """training FLOPs"""
    bytes: float | None = None
    """bytes of text read"""
    seconds: float | None = None
    """seconds of training steps, without validation and start-up; such a run cannot be repeated to the digit"""

    def __post_init__(self) -> None:
        given = {name: value for name, value in asdict(self).items() if value is not None}
        if len(given) > 1:
            raise ValueError(f"budget: {' and '.join(given)} are given: name only one")
        check_fields(
            self, "budget",
            flops=Range(above=0, most=1e40), bytes=Range(above=0, most=1e20), seconds=Range(above=0, most=1e10),
        )  # fmt: skip

    def progress(self, spent: Spent) -> float | None:
        """Returns the share of the budget that is spent (1 or more: all of it), or None without a budget."""
        for name, value in asdict(self).items():
            if value is not None:
                return float(getattr(spent, name) / value)
        return None
