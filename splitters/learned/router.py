"""H-Net's dynamic chunking: boundaries trained end to end with the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from splitters.contract import Knob, LearnedSplitter, flag, number
from splitters.registry import register

if TYPE_CHECKING:
    from splitters.learned.networks import RouterNetwork


@register("router")
class Router(LearnedSplitter):
    """A boundary where a position's projected vector is unlike that of the one before it, trained with the model.

    p = (1 - cosine) / 2, shifted by one learned bias; a boundary where p > 0.5.

    Args:
        bytes_per_unit: N, the target of the ratio loss for the mean length of units
        alpha: weight of the ratio loss (published: 0.03, for far longer runs)
        control: how fast the bias follows the rate: change of log-odds per training step for each e-fold of too few
            or too many boundaries in the batch; 0 leaves the rate to the ratio loss, as published
        smoothing: whether the expanding path mixes a unit's vector with those before it, by its p
        straight_through: whether the decision's confidence gets a gradient through the vectors of the expanding path
        calibrate: whether the first training batch sets the bias so that the rate begins near N; otherwise it begins
            at about two positions per unit
    """

    source = "H-Net's dynamic chunking, arXiv 2507.07955"
    knob = Knob("bytes_per_unit", 1, 1e6, whole=False)
    bytes_per_unit: float

    def __init__(
        self,
        bytes_per_unit: float = 6.0,
        alpha: float = 0.5,
        control: float = 0.1,
        smoothing: bool = True,
        straight_through: bool = True,
        calibrate: bool = True,
    ) -> None:
        self.bytes_per_unit = number("router", "bytes_per_unit", bytes_per_unit, 1, above=True)
        self.alpha, self.control = number("router", "alpha", alpha, 0), number("router", "control", control, 0)
        self.smoothing = flag("router", "smoothing", smoothing)
        self.straight_through = flag("router", "straight_through", straight_through)
        self.calibrate = flag("router", "calibrate", calibrate)

    @classmethod
    def at_rate(
        cls, options: Mapping[str, Any], texts: Sequence[bytes], bytes_per_unit: float
    ) -> tuple[dict[str, Any], float]:
        """The target of its training is a rate."""
        return {**options, "bytes_per_unit": bytes_per_unit}, bytes_per_unit

    def predictor(self, dim: int) -> RouterNetwork:
        from splitters.learned.networks import RouterNetwork

        return RouterNetwork(
            dim, self.bytes_per_unit, self.alpha, self.control, self.smoothing, self.straight_through, self.calibrate
        )
