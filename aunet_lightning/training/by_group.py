"""One optimizer that steps each group of parameters by its own algorithm: AdamW, Muon, or Adam for rows.

Muon is for matrices: their momentum is replaced by the nearest (semi-)orthogonal matrix, so that no direction is
favoured by the size of its gradient (Jordan et al., Muon, 2024; arXiv 2502.16982). PyTorch's own takes one matrix at a
time, in bfloat16, which a CPU without it computes slowly; here all matrices of a shape are one batch.
Adam for rows is for tables of which a batch reads few rows: these step, as with PyTorch's SparseAdam, and the others
stay as they are, in memory too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer

from aunet_lightning.model.init import held

Algorithm = Literal["adamw", "muon", "rows"]
Groups = list[dict[str, Any]]
MOMENTUM = 0.95
# Polynomials a·s + b·s³ + c·s⁵ of the singular values, the second the best of its kind on what the first leaves (as in
# arXiv 2505.16932): together they take 0.03 … 1 to 0.62 … 1.38, where five of Jordan's take 0.01 … 1 to 0.68 … 1.20.
STEPS = ((7.3625, -20.7434, 15.1606), (2.9175, -2.1824, 0.4755))


class ByGroup(Optimizer):
    """Optimizer of groups that each name their `algorithm`.

    With muon a parameter of three dimensions [n, rows, columns] is a batch of matrices, and a matrix steps by
    lr · sqrt(max(1, rows/columns)) times an orthogonal one: what it adds to its outputs then does not depend on its
    width, and a good lr is good for other widths. Where a group says `every: n`, each n-th step moves them, n times as
    far, by a momentum of all gradients. With rows nothing decays.
    """

    def __init__(self, groups: Groups, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0, "algorithm": "adamw"})
        self._adamw = AdamW([torch.zeros(())], lr=lr, betas=betas, eps=eps, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # A loaded state replaces both the groups and the state, so AdamW is told of them at each step.
        self._adamw.param_groups = [self._adamw.defaults | group for group in self._of("adamw")]
        self._adamw.state = self.state
        self._adamw.step()
        self._step_matrices(self._of("muon"))
        self._step_rows(self._of("rows"))
        return loss

    def _of(self, algorithm: Algorithm) -> Groups:
        return [group for group in self.param_groups if group["algorithm"] == algorithm]

    def _step_matrices(self, groups: Groups) -> None:
        stepped: list[tuple[Tensor, float, dict[str, Any]]] = []
        batches: dict[tuple[int, int], list[Tensor]] = {}
        for p, grad, group in _with_gradient(groups):
            state, every = self.state[p], group.get("every", 1)
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(p)
            momentum = state["momentum"].lerp_(grad, 1 - MOMENTUM)
            if every > 1:
                state["step"] = state.get("step", 0) + torch.ones(())
                if state["step"] % every:
                    continue
            update = _matrices(grad.lerp(momentum, MOMENTUM))  # Nesterov's
            batches.setdefault(_shape(p), []).append(update)
            stepped.append((p, every * group["lr"], group))
        steps = {shape: iter(_orthogonal(updates)) for shape, updates in batches.items()}
        for p, lr, group in stepped:
            step, (local, first) = next(steps[_shape(p)]), held(p)
            if p.dim() == 2:
                step = step[0, first : first + len(local)]
            rows, columns = p.shape[-2:]
            local.mul_(1 - lr * group["weight_decay"])
            local.add_(step, alpha=-lr * max(1.0, rows / columns) ** 0.5)

    def _step_rows(self, groups: Groups) -> None:
        for p, grad, group in _with_gradient(groups):
            state = self.state[p]
            if not state:
                state |= {"step": torch.zeros(()), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
            state["step"] += 1
            rows, of_rows = rows_of(grad)
            beta, beta2 = group["betas"]
            mean, square = (held(state[name])[0] for name in ("exp_avg", "exp_avg_sq"))
            new_mean = mean[rows].lerp_(of_rows, 1 - beta)
            new_square = square[rows].lerp_(of_rows.square(), 1 - beta2)
            mean.index_copy_(0, rows, new_mean)
            square.index_copy_(0, rows, new_square)
            steps = float(state["step"])
            size = (new_square / (1 - beta2**steps)).sqrt_().add_(group["eps"])
            held(p)[0].index_add_(0, rows, new_mean / size, alpha=-group["lr"] / (1 - beta**steps))


def _with_gradient(groups: Groups) -> list[tuple[Tensor, Tensor, dict[str, Any]]]:
    return [(p, p.grad, group) for group in groups for p in group["params"] if p.grad is not None]


def rows_of(grad: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the rows [N] of a table's gradient that are not 0, on this device, and their values [N, D]."""
    if grad.is_sparse:
        grad = grad.coalesce()
        return grad.indices()[0], grad.values()
    local = held(grad)[0]
    rows = local.any(1).nonzero()[:, 0]
    return rows, local[rows]


def _shape(p: Tensor) -> tuple[int, int]:
    return min(p.shape[-2:]), max(p.shape[-2:])


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
