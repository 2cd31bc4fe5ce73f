"""The network of a learned splitter: from the hidden states of a stage to log-odds of a boundary.

Shapes: B rows, N positions of the stage, D its width. (This and `networks` are the only modules here that load torch.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn


class Predictor(nn.Module, ABC):
    """Says from a position's hidden state and that of the position before it whether a boundary falls there.

    A boundary is where the log-odds are above 0 (p > 0.5). Sums and losses of several devices add up: `sums` are of
    what this device read, and `loss` takes them with the sums of all. Sums are a NamedTuple of tensors (or any other
    pytree of them), and come back in the same form.
    """

    straight_through = False  # whether vectors on the way back carry the gradient of the decision's confidence
    smooths = False  # whether they are mixed with those of the units before
    calibrates = True  # whether the first batch sets the bias

    bias: Tensor  # [1], a buffer: what no gradient moves is the same on all devices, and is never sharded

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bias", torch.zeros(1))

    @abstractmethod
    def evidence(self, h: Tensor, before: Tensor) -> Tensor:
        """h and before [B, N, D], of each position and the one before it → log-odds [B, N], without bias."""

    @abstractmethod
    def init_weights(self) -> None:
        """Draws every parameter anew, and sets the bias to 0."""

    def forward(self, h: Tensor, before: Tensor) -> Tensor:
        """h and before [B, N, D] → log-odds of a boundary [B, N], float32 or better, whatever autocast says."""
        kind = self.bias.dtype  # that of the weights
        with torch.autocast(h.device.type, enabled=False):
            found = self.evidence(h.to(kind), before.to(kind)) + self.bias
        return found.to(torch.promote_types(kind, torch.float32))

    @abstractmethod
    def sums(self, log_odds: Tensor, boundary: Tensor, taught: Tensor | None, forced: Tensor) -> Any:
        """Returns the sums over some positions that `loss` needs, some with a gradient.

        log_odds [M], boundary and taught (where the teacher has one) bool [M], of the positions where it decides;
        forced: how many more have a boundary anyway.
        """

    @abstractmethod
    def loss(self, local: Any, total: Any, n_bytes: float) -> Tensor:
        """Returns this device's part of the loss, from its sums and those of all devices, which read n_bytes."""

    @abstractmethod
    def wanted(self, sums: Any, n_bytes: float) -> float:
        """Returns how many of the positions where it decides should be boundaries."""

    @abstractmethod
    def decided(self, sums: Any) -> tuple[float, float]:
        """Returns at how many positions it decided, and for how many boundaries."""

    def report(self, sums: Any) -> dict[str, float]:
        """Returns what is worth logging of `sums`, by name."""
        return {}

    def adjust(self, sums: Any, n_bytes: float) -> None:
        """After a training step, with the sums of all devices: corrects what no gradient does."""

    @torch.no_grad()
    def calibrate(self, log_odds: Tensor, taught: Tensor | None, forced: Tensor, n_bytes: float) -> None:
        """Sets the bias so that of these positions (as in `sums`) as many are boundaries as wanted."""
        wanted = self.wanted(self.sums(log_odds, log_odds > 0, taught, forced), n_bytes)
        if self.calibrates and len(log_odds) > 1:
            ordered = log_odds.sort(descending=True).values
            k = min(max(round(wanted), 1), len(ordered) - 1)
            self.bias -= (ordered[k - 1] + ordered[k]) / 2  # half-way, so that rounding decides nothing
