"""The networks of the built-in learned splitters.

Shapes: B rows, N positions of the stage, D its width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitters.learned.predictor import Predictor

_EDGE = 1e-6  # cosine distances stay so far from 0 and 1


class RouterNetwork(Predictor):
    """The cosine router of H-Net (arXiv 2507.07955), with its ratio loss."""

    def __init__(
        self,
        dim: int,
        bytes_per_unit: float,
        alpha: float,
        control: float,
        smoothing: bool,
        straight_through: bool,
        calibrates: bool,
    ) -> None:
        super().__init__()
        self.control = control
        self.query, self.key = (nn.Linear(dim, dim, bias=False) for _ in range(2))
        self.bytes_per_unit, self.alpha, self.calibrates = bytes_per_unit, alpha, calibrates
        self.smooths, self.straight_through = smoothing, straight_through
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        for linear in (self.query, self.key):
            nn.init.eye_(linear.weight)
        nn.init.zeros_(self.bias)

    def evidence(self, h: Tensor, before: Tensor) -> Tensor:
        least = torch.promote_types(h.dtype, torch.float32)
        cosine = F.cosine_similarity(self.query(h).to(least), self.key(before).to(least), dim=-1)
        return torch.logit((1 - cosine) / 2, eps=_EDGE)

    def sums(self, log_odds: Tensor, boundary: Tensor, taught: Tensor | None, forced: Tensor) -> Tensor:
        """Returns the number of positions, that of boundaries and the sum of p, and how many of each were forced."""
        p = log_odds.sigmoid()
        counts = [forced + len(p), forced + boundary.sum(), forced + p.sum(), forced]
        return torch.stack([count.to(p.dtype) for count in counts])

    def loss(self, local: Tensor, total: Tensor, n_bytes: float) -> Tensor:
        """alpha · N / (N - 1) · ((N - 1) · F · G + (1 - F) · (1 - G)): F the share of boundaries, G the mean p.

        It is lowest, alpha, where F = G = 1/N; only G has a gradient. N counts positions of the stage below.
        """
        n, boundaries = total[0], total[1]
        target = self.positions_per_unit(n, n_bytes)
        share, mean = boundaries / n, local[2] / n
        term = (target - 1) * share * mean + (1 - share) * (local[0] / n - mean)
        return self.alpha * target / (target - 1) * term

    def positions_per_unit(self, n: Tensor, n_bytes: float) -> Tensor:
        """Returns N as positions of the stage below, of which n hold n_bytes; a little above 1 at the least."""
        return (self.bytes_per_unit * n / max(n_bytes, 1)).clamp(min=1.05)

    def wanted(self, sums: Tensor, n_bytes: float) -> float:
        return float(sums[0] / self.positions_per_unit(sums[0], n_bytes) - sums[3])

    @torch.no_grad()
    def adjust(self, sums: Tensor, n_bytes: float) -> None:
        _, found = self.decided(sums)
        wanted = max(self.wanted(sums, n_bytes), 1)
        step = self.control * math.log(wanted / max(found, 0.01 * wanted))
        self.bias += max(-1.0, min(step, 1.0))

    def report(self, sums: Tensor) -> dict[str, float]:
        return {"mean_p": float((sums[2] - sums[3]) / (sums[0] - sums[3]).clamp(min=1))}

    def decided(self, sums: Tensor) -> tuple[float, float]:
        return float(sums[0] - sums[3]), float(sums[1] - sums[3])


class StudentNetwork(Predictor):
    """A small network that is taught where another rule has its boundaries."""

    def __init__(self, dim: int, alpha: float, balance: float, detach: bool) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(dim)
        self.hidden = nn.Linear(2 * dim, dim, bias=False)
        self.out = nn.Linear(dim, 1)
        self.alpha, self.balance, self.detach = alpha, balance, detach
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        nn.init.ones_(self.norm.weight)
        for linear in (self.hidden, self.out):
            nn.init.trunc_normal_(linear.weight, std=linear.in_features**-0.5)
        nn.init.zeros_(self.out.bias)
        nn.init.zeros_(self.bias)

    def evidence(self, h: Tensor, before: Tensor) -> Tensor:
        if self.detach:
            h, before = h.detach(), before.detach()
        both = torch.cat([self.norm(h), self.norm(before)], -1)
        return self.out(F.silu(self.hidden(both)))[..., 0]

    def sums(self, log_odds: Tensor, boundary: Tensor, taught: Tensor | None, forced: Tensor) -> Tensor:
        """Returns the numbers of positions, of the teacher's boundaries, of the student's, of those that agree, and
        the cross-entropy (nats) on the teacher's boundaries and on the other positions."""
        if taught is None:
            raise ValueError("distilled: the batch has no boundaries of the teacher (`taught`), nothing to learn from")
        nats = F.binary_cross_entropy_with_logits(log_odds, taught.to(log_odds.dtype), reduction="none")
        counts = [taught.new_ones(()).expand(len(taught)), taught, boundary, taught & boundary]
        return torch.stack([*(c.sum().to(nats.dtype) for c in counts), (nats * taught).sum(), (nats * ~taught).sum()])

    def loss(self, local: Tensor, total: Tensor, n_bytes: float) -> Tensor:
        """alpha · the weighted mean of the cross-entropy: a boundary weighs (others / boundaries)^balance."""
        boundaries, others = total[1], total[0] - total[1]
        weight = (others.clamp(min=1) / boundaries.clamp(min=1)) ** self.balance
        return self.alpha * (weight * local[4] + local[5]) / (weight * boundaries + others).clamp(min=1)

    def wanted(self, sums: Tensor, n_bytes: float) -> float:
        return float(sums[1])

    def decided(self, sums: Tensor) -> tuple[float, float]:
        return float(sums[0]), float(sums[2])

    def report(self, sums: Tensor) -> dict[str, float]:
        taught, found, hits = sums[1:4].tolist()
        return {
            "teacher_precision": hits / max(found, 1),
            "teacher_recall": hits / max(taught, 1),
            "teacher_f1": 2 * hits / max(found + taught, 1),
        }
