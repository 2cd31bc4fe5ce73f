"""H-Net's dynamic chunking: boundaries trained end to end with the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from splitters.contract import Knob, LearnedSplitter, flag, number
from splitters.learned.targets import Targets
from splitters.registry import register

if TYPE_CHECKING:
    from splitters.learned.networks import RouterNetwork


@register("router")
class Router(LearnedSplitter):
    """A boundary where a position's projected vector is unlike that of the one before it, trained with the model.

    p = (1 - cosine) / 2, shifted by one learned bias; a boundary where p > 0.5.

    Args:
        bytes_per_unit: N, the target of the ratio loss for the mean length of units; or one per language, {th: 8,
            default: 6}, of the text that the documents are labelled with (generation needs no label)
        alpha: weight of the ratio loss (published: 0.03, for far longer runs)
        control: how fast the bias follows the rate: change of log-odds per training step for each e-fold of too few
            or too many boundaries in the batch; 0 leaves the rate to the ratio loss, as published
        smoothing: whether the expanding path mixes a unit's vector with those before it, by its p
        straight_through: whether the decision's confidence gets a gradient through the vectors of the expanding path
        calibrate: whether the first training batch sets the bias so that the rate begins near N; otherwise it begins
            at about two positions per unit
        one_sided: whether only too many boundaries cost, and units may be as long as the loss of bytes makes them (as
            in FLEXITOKENS, arXiv 2507.12720)
        bytes_per_unit_from: with target_steps, the target at the first step, from which it moves on a straight line
        target_steps: training steps until the target is bytes_per_unit
    """

    source = "H-Net's dynamic chunking, arXiv 2507.07955"
    knob = Knob("bytes_per_unit", 1, 1e6, whole=False)

    def __init__(
        self,
        bytes_per_unit: float | Mapping[str, float] = 6.0,
        alpha: float = 0.5,
        control: float = 0.1,
        smoothing: bool = True,
        straight_through: bool = True,
        calibrate: bool = True,
        one_sided: bool = False,
        bytes_per_unit_from: float | None = None,
        target_steps: int = 0,
    ) -> None:
        self.targets = Targets.of("router", bytes_per_unit, bytes_per_unit_from, target_steps)
        *named, others = self.targets.at(0)
        self.bytes_per_unit = None if self.targets.others is None else others
        self.by_language = dict(zip(self.targets.by_language, named, strict=True))
        self.alpha, self.control = number("router", "alpha", alpha, 0), number("router", "control", control, 0)
        self.smoothing = flag("router", "smoothing", smoothing)
        self.straight_through = flag("router", "straight_through", straight_through)
        self.calibrate = flag("router", "calibrate", calibrate)
        self.one_sided = flag("router", "one_sided", one_sided)

    @classmethod
    def at_rate(
        cls, options: Mapping[str, Any], texts: Sequence[bytes], bytes_per_unit: float
    ) -> tuple[dict[str, Any], float]:
        """The target of its training is a rate."""
        return {**options, "bytes_per_unit": bytes_per_unit}, bytes_per_unit

    def predictor(self, dim: int) -> RouterNetwork:
        from splitters.learned.networks import RouterNetwork

        return RouterNetwork(
            dim, self.targets, self.alpha, self.control, self.smoothing, self.straight_through, self.calibrate,
            self.one_sided,
        )  # fmt: skip
