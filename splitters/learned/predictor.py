"""The network of a learned splitter: from the hidden states of a stage to log-odds of a boundary.

Shapes: B rows, N positions of the stage, D its width. (This and `networks` are the only modules here that load torch.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn


class Predictor(nn.Module, ABC):
    """Decides whether a boundary falls on a position, from its hidden state and that of the position before it.

    A boundary falls where the log-odds are above 0 (p > 0.5). Sums and losses add up over devices: `sums` covers the
    positions of this device, and `loss` takes them with the sums of all devices. Sums are a NamedTuple of tensors (or
    any other pytree of them), and come back in the same form.

    Where it names G `languages`, `sums` is called for the positions of each and of all other text, and what comes back
    are tensors [G + 1]: the sums, and the n_bytes of `loss`, `wanted` and `adjust`.
    """

    straight_through = False  # whether the expanding path carries the gradient of the decision's confidence
    smooths = False  # whether it mixes a unit's vector with those of the units before
    calibrates = True  # whether the first batch sets the bias
    languages: tuple[str, ...] = ()  # whose text has sums of its own

    bias: Tensor  # [1], a buffer: without a gradient, the same on all devices, never sharded

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bias", torch.zeros(1))

    @abstractmethod
    def evidence(self, h: Tensor, before: Tensor) -> Tensor:
        """h and before [B, N, D], of each position and the one before it → log-odds [B, N], without the bias."""

    @abstractmethod
    def init_weights(self) -> None:
        """Redraws every parameter, and sets the bias to 0."""

    def forward(self, h: Tensor, before: Tensor) -> Tensor:
        """h and before [B, N, D] → log-odds of a boundary [B, N], float32 or better, regardless of autocast."""
        dtype = self.bias.dtype  # that of the weights
        with torch.autocast(h.device.type, enabled=False):
            found = self.evidence(h.to(dtype), before.to(dtype)) + self.bias
        return found.to(torch.promote_types(dtype, torch.float32))

    @abstractmethod
    def sums(self, log_odds: Tensor, boundary: Tensor, taught: Tensor | None, forced: Tensor) -> Any:
        """Returns the sums over some positions that `loss` needs, some with a gradient.

        log_odds [M], boundary and taught (the teacher's boundaries) bool [M], of the positions where it decides;
        forced: the number of further positions, whose boundary is forced.
        """

    @abstractmethod
    def loss(self, local: Any, total: Any, n_bytes: Any) -> Tensor:
        """Returns this device's part of the loss, from its sums and those of all devices, which read n_bytes in all."""

    @abstractmethod
    def wanted(self, sums: Any, n_bytes: Any) -> float:
        """Returns how many of the decided positions should be boundaries."""

    @abstractmethod
    def decided(self, sums: Any) -> tuple[float, float]:
        """Returns the numbers of decided positions and of boundaries among them."""

    def begin(self, step: int) -> None:
        """Is told the training step that comes, for what is a function of it."""

    def report(self, sums: Any) -> dict[str, float]:
        """Returns metrics of `sums`, by name."""
        return {}

    def adjust(self, sums: Any, n_bytes: Any) -> None:
        """Corrects what has no gradient, after a training step, with the sums of all devices."""

    @torch.no_grad()
    def calibrate(self, log_odds: Tensor, taught: Tensor | None, forced: Tensor, n_bytes: float) -> None:
        """Sets the bias so that the wanted number of these positions (as in `sums`) are boundaries."""
        self.place(log_odds, self.wanted(self.sums(log_odds, log_odds > 0, taught, forced), n_bytes))

    @torch.no_grad()
    def place(self, log_odds: Tensor, wanted: float) -> None:
        """Sets the bias so that `wanted` of these positions are boundaries, unless another bias was asked for."""
        if self.calibrates and len(log_odds) > 1:
            ordered = log_odds.sort(descending=True).values
            k = min(max(round(wanted), 1), len(ordered) - 1)
            self.bias -= (ordered[k - 1] + ordered[k]) / 2  # half-way, so that no decision depends on rounding
