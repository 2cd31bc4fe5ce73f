"""AdamW with weight decay on matrices only, linear warm-up and a cosine."""

import math
from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class OptimizerConfig:
    """How weights move."""

    lr: float = 2e-3
    """learning rate after warm-up"""
    warmup_steps: int = 100
    """steps of linear warm-up from 0"""
    final_lr_ratio: float = 0.1
    """the cosine ends at lr times this, at the last step"""
    weight_decay: float = 0.1
    """on matrices only: embeddings and linear layers, not norms"""
    betas: tuple[float, float] = (0.9, 0.95)
    """decay rates of Adam's moments"""
    eps: float = 1e-8
    """Adam's epsilon"""

    def __post_init__(self) -> None:
        self.betas = (self.betas[0], self.betas[1])
        if self.lr <= 0:
            raise ValueError(f"optimizer: lr is {self.lr}, it must be above 0")
        if self.warmup_steps < 0:
            raise ValueError(f"optimizer: warmup_steps is {self.warmup_steps}, it must be 0 or more")

    def lr_factor(self, step: int, total: int) -> float:
        """Returns the learning rate at `step` (from 0) of `total`, as a multiple of lr."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = min((step - self.warmup_steps) / max(total - self.warmup_steps, 1), 1.0)
        return self.final_lr_ratio + (1 - self.final_lr_ratio) * (1 + math.cos(math.pi * progress)) / 2


def adamw(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """Returns AdamW over all of the model's parameters, in two groups."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
