"""Whether a model overfits: held-out BPB rises while that of the training text still falls."""

import math
from collections.abc import Sequence
from typing import NamedTuple

LEAST = 0.01  # share by which held-out BPB has to rise since its lowest


class Measured(NamedTuple):
    """A validation."""

    step: float
    held_out: float  # BPB
    training: float  # mean BPB of the steps since the validation before; nan: not known


class Overfit(NamedTuple):
    """How a model overfits."""

    lowest: float  # held-out BPB
    step: float  # of the lowest
    rise: float  # of the last held-out BPB above the lowest, as a share


def overfit(measured: Sequence[Measured]) -> Overfit | None:
    """Returns how a model overfits after these validations, in order of steps; None where it does not."""
    finite = [one for one in measured if math.isfinite(one.held_out)]
    if not finite:
        return None
    lowest, last = min(finite, key=lambda one: one.held_out), finite[-1]
    rise = last.held_out / lowest.held_out - 1 if lowest.held_out > 0 else 0.0
    falls = last.training < lowest.training  # not so where one is unknown
    return Overfit(lowest.held_out, lowest.step, rise) if rise > LEAST and falls else None
