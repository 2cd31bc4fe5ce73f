"""Muon: steps along orthogonalised momentum for matrices, AdamW for everything else.

The momentum of a matrix is replaced by the nearest (semi-)orthogonal matrix, so that no direction is favoured by the
size of its gradient (Jordan et al., Muon, 2024; arXiv 2502.16982). PyTorch's own takes one matrix at a time, in
bfloat16, which a CPU without it computes slowly; here all matrices of a shape are one batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer

from aunet_lightning.model.init import held

MOMENTUM = 0.95
# Polynomials a·s + b·s³ + c·s⁵ of the singular values, each the best of its kind on what the one before leaves (as in
# arXiv 2505.16932): together they take 0.01 … 1 to 0.73 … 1.27, as five of Jordan's do.
STEPS = ((8.0934, -23.6204, 17.4462), (3.6366, -2.7219, 0.5365), (2.6613, -1.9772, 0.4526))


class Muon(Optimizer):
    """Optimizer of groups: those with `matrices` true take Muon's step, the others AdamW's.

    A parameter of three dimensions [n, rows, columns] is a batch of matrices. A matrix steps by
    lr · sqrt(max(1, rows/columns)) times an orthogonal matrix: what it adds to its outputs does then not depend on
    its width, and a good lr is good for other widths.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0, "matrices": False})
        self._others = AdamW([torch.zeros(())], lr=lr, betas=betas, eps=eps, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        matrices = [group for group in self.param_groups if group["matrices"]]
        # A loaded state replaces both the groups and the state, so the other optimizer is told of them at each step.
        defaults = self._others.defaults
        self._others.param_groups = [defaults | group for group in self.param_groups if not group["matrices"]]
        self._others.state = self.state
        self._others.step()
        self._step_matrices(matrices)
        return loss

    def _step_matrices(self, groups: list[dict[str, Any]]) -> None:
        stepped = [(p, group) for group in groups for p in group["params"] if p.grad is not None]
        batches: dict[tuple[int, int], list[Tensor]] = {}
        for p, _ in stepped:
            state = self.state[p]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(p.grad)
            momentum = state["momentum"].lerp_(p.grad, 1 - MOMENTUM)
            update = _matrices(p.grad.lerp(momentum, MOMENTUM))  # Nesterov's
            batches.setdefault((min(update.shape[1:]), max(update.shape[1:])), []).append(update)
        steps = {shape: iter(_orthogonal(updates)) for shape, updates in batches.items()}
        for p, group in stepped:
            rows, columns = p.shape[-2:]
            step = next(steps[min(rows, columns), max(rows, columns)])
            local, first = held(p)
            if p.dim() == 2:
                step = step[0, first : first + len(local)]
            local.mul_(1 - group["lr"] * group["weight_decay"])
            local.add_(step, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)


def _matrices(update: Tensor) -> Tensor:
    """Returns whole matrices [n, rows, columns] of an update; of a sharded batch those that are here."""
    if isinstance(update, DTensor):
        update = update.to_local() if update.dim() == 3 else update.full_tensor()
    return update if update.dim() == 3 else update[None]


def _orthogonal(updates: list[Tensor]) -> list[Tensor]:
    """Returns the orthogonalised matrices of updates [n, rows, columns] that have one shape, or its transpose."""
    wide = [x if x.shape[1] <= x.shape[2] else x.mT for x in updates]
    x = torch.cat(wide).to(torch.bfloat16 if wide[0].is_cuda else torch.float32)
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp_min_(1e-12)
    for a, b, c in STEPS:
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    parts = x.split([len(update) for update in updates])
    return [part if u.shape[1] <= u.shape[2] else part.mT for part, u in zip(parts, updates, strict=True)]
