"""The networks of the built-in learned splitters.

Shapes: B rows, N positions of the stage, D its width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitters.learned.predictor import Predictor
from splitters.learned.targets import Targets

_EDGE = 1e-6  # smallest distance of cosine distances from 0 and 1


class RouterSums(NamedTuple):
    """Sums over positions, tensors [], or [G] of the positions of G groups of text with targets of their own."""

    positions: Tensor
    boundaries: Tensor
    p: Tensor  # with a gradient
    forced: Tensor  # forced positions, included above as boundaries with a p of 1


class RouterNetwork(Predictor):
    """The cosine router of H-Net (arXiv 2507.07955), with its ratio loss."""

    def __init__(
        self,
        dim: int,
        targets: Targets,
        alpha: float,
        control: float,
        smoothing: bool,
        straight_through: bool,
        calibrates: bool,
        one_sided: bool,
    ) -> None:
        super().__init__()
        self.control = control
        self.query, self.key = (nn.Linear(dim, dim, bias=False) for _ in range(2))
        self.targets, self.languages = targets, tuple(targets.by_language)
        self.alpha, self.calibrates, self.one_sided = alpha, calibrates, one_sided
        self.smooths, self.straight_through = smoothing, straight_through
        self.begin(0)
        self.init_weights()

    def begin(self, step: int) -> None:
        self.lengths = self.targets.at(step)  # in bytes, of each group of text

    @torch.no_grad()
    def init_weights(self) -> None:
        for linear in (self.query, self.key):
            nn.init.eye_(linear.weight)
        nn.init.zeros_(self.bias)

    def evidence(self, h: Tensor, before: Tensor) -> Tensor:
        least = torch.promote_types(h.dtype, torch.float32)
        cosine = F.cosine_similarity(self.query(h).to(least), self.key(before).to(least), dim=-1)
        return torch.logit((1 - cosine) / 2, eps=_EDGE)

    def sums(self, log_odds: Tensor, boundary: Tensor, taught: Tensor | None, forced: Tensor) -> RouterSums:
        p = log_odds.sigmoid()
        counts = (forced + len(p), forced + boundary.sum(), forced + p.sum(), forced)
        return RouterSums(*(count.to(p.dtype) for count in counts))

    def loss(self, local: RouterSums, total: RouterSums, n_bytes: float | Tensor) -> Tensor:
        """alpha · N / (N - 1) · ((N - 1) · F · G + (1 - F) · (1 - G)): F the share of boundaries, G the mean p.

        Its minimum is alpha, at F = G = 1/N. Only G has a gradient. N counts positions of the stage below. Of groups,
        it is the mean over all positions. One-sided, it is alpha where F is at most 1/N.
        """
        n = total.positions.clamp(min=1)
        target = self.positions_per_unit(n, n_bytes)
        share, mean = total.boundaries / n, local.p / n
        term = (target - 1) * share * mean + (1 - share) * (local.positions / n - mean)
        if self.one_sided:
            term = torch.where(share * target > 1, term, (1 - 1 / target) * local.positions / n)
        weight = total.positions / total.positions.sum()
        return (self.alpha * target / (target - 1) * term * weight).sum()

    def positions_per_unit(self, n: Tensor, n_bytes: float | Tensor) -> Tensor:
        """Returns N in positions of the stage below, of which n hold n_bytes; at least a little above 1."""
        if isinstance(n_bytes, Tensor):
            return (n.new_tensor(self.lengths) * n / n_bytes.to(n).clamp(min=1)).clamp(min=1.05)
        return (self.lengths[-1] * n / max(n_bytes, 1)).clamp(min=1.05)

    def wanted(self, sums: RouterSums, n_bytes: float | Tensor) -> float:
        return float((sums.positions / self.positions_per_unit(sums.positions, n_bytes) - sums.forced).sum())

    @torch.no_grad()
    def adjust(self, sums: RouterSums, n_bytes: float | Tensor) -> None:
        _, found = self.decided(sums)
        wanted = max(self.wanted(sums, n_bytes), 1)
        step = self.control * math.log(wanted / max(found, 0.01 * wanted))
        self.bias += max(-1.0, min(step, 0.0 if self.one_sided else 1.0))

    def report(self, sums: RouterSums) -> dict[str, float]:
        positions, p, forced = (x.sum() for x in (sums.positions, sums.p, sums.forced))
        found = {"mean_p": float((p - forced) / (positions - forced).clamp(min=1))}
        if self.targets.first is not None:
            lengths = positions.new_tensor(self.lengths[-1] if sums.positions.dim() == 0 else self.lengths)
            found["target_bytes_per_unit"] = float((lengths * sums.positions / positions).sum())
        return found

    def decided(self, sums: RouterSums) -> tuple[float, float]:
        return float((sums.positions - sums.forced).sum()), float((sums.boundaries - sums.forced).sum())


class StudentSums(NamedTuple):
    """Sums over positions, tensors []."""

    positions: Tensor
    taught: Tensor  # boundaries of the teacher
    found: Tensor  # boundaries of the student
    hits: Tensor  # boundaries of both
    nats_taught: Tensor  # cross-entropy on the teacher's boundaries, with a gradient
    nats_other: Tensor  # cross-entropy on the other positions, with a gradient


class StudentNetwork(Predictor):
    """A small network that learns to predict the boundaries of another rule."""

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

    def sums(self, log_odds: Tensor, boundary: Tensor, taught: Tensor | None, forced: Tensor) -> StudentSums:
        if taught is None:
            raise ValueError("distilled: the batch has no boundaries of the teacher (`taught`), nothing to learn from")
        nats = F.binary_cross_entropy_with_logits(log_odds, taught.to(log_odds.dtype), reduction="none")
        counts = (taught.new_ones(()).expand(len(taught)), taught, boundary, taught & boundary)
        positions, n_taught, found, hits = (count.sum().to(nats.dtype) for count in counts)
        return StudentSums(positions, n_taught, found, hits, (nats * taught).sum(), (nats * ~taught).sum())

    def loss(self, local: StudentSums, total: StudentSums, n_bytes: float) -> Tensor:
        """alpha · the weighted mean of the cross-entropy: a boundary weighs (others / boundaries)^balance."""
        boundaries, others = total.taught, total.positions - total.taught
        weight = (others.clamp(min=1) / boundaries.clamp(min=1)) ** self.balance
        nats = weight * local.nats_taught + local.nats_other
        return self.alpha * nats / (weight * boundaries + others).clamp(min=1)

    def wanted(self, sums: StudentSums, n_bytes: float) -> float:
        return float(sums.taught)

    def decided(self, sums: StudentSums) -> tuple[float, float]:
        return float(sums.positions), float(sums.found)

    def report(self, sums: StudentSums) -> dict[str, float]:
        taught, found, hits = (float(count) for count in sums[1:4])
        return {
            "teacher_precision": hits / max(found, 1),
            "teacher_recall": hits / max(taught, 1),
            "teacher_f1": 2 * hits / max(found + taught, 1),
        }
