"""AdamW with a learning rate per stage, weight decay on matrices only, linear warm-up and a cosine."""

import math
from dataclasses import dataclass

import torch

from aunet_lightning.checkpoints.optimizer_state import by_number, parameter_names
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.numbers import Range, check_fields


@dataclass
class OptimizerConfig:
    """Settings of the optimizer and its schedule."""

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
    stage_lr: list[float] | None = None
    """multiples of lr, one per stage from bytes up; null: 1 for all"""
    splitter_lr: float = 1.0
    """multiple of their stage's learning rate for learned splitters"""
    max_skipped: int = 10
    """consecutive steps with a non-finite loss or gradient that are skipped; at the next one the run stops"""

    def __post_init__(self) -> None:
        if len(self.betas) != 2:
            raise ValueError(f"optimizer.betas is {self.betas}, it must be two numbers, for example [0.9, 0.95]")
        self.betas = (self.betas[0], self.betas[1])
        steps, multiple = Range(least=0, most=10**15), Range(least=0, most=1000)
        check_fields(
            self, "optimizer",
            lr=Range(above=0, most=100), warmup_steps=steps, final_lr_ratio=Range(least=0, most=1),
            weight_decay=Range(least=0, most=100), betas=Range(least=0, below=1), eps=Range(above=0, most=1),
            stage_lr=multiple, splitter_lr=multiple, max_skipped=steps,
        )  # fmt: skip

    def of_stages(self, n_stages: int) -> list[float]:
        """Returns the multiple of lr for each stage. Raises ValueError where stage_lr is not one number per stage."""
        multiples = self.stage_lr or [1.0] * n_stages
        if len(multiples) != n_stages:
            raise ValueError(f"optimizer.stage_lr has {len(multiples)} numbers, the model has {n_stages} stages")
        return multiples

    def lr_factor(self, step: int, total: float) -> float:
        """Returns the learning rate at `step` (from 0) of `total`, as a multiple of lr."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = min((step - self.warmup_steps) / max(total - self.warmup_steps, 1), 1.0)
        return self.final_lr_ratio + (1 - self.final_lr_ratio) * (1 + math.cos(math.pi * progress)) / 2


def adamw(net: AUNet, config: OptimizerConfig) -> torch.optim.AdamW:
    """Returns AdamW over all of the network's parameters: per stage, those with weight decay and those without, and
    the same for learned splitters. Groups are named. Raises ValueError where stage_lr is not one number per stage."""
    n_stages = len(net.config.stages)
    multiples = config.of_stages(n_stages)
    groups: dict[tuple[int, bool, bool], list[torch.nn.Parameter]] = {}
    stages = {parameter: stage.s for stage in net.stages for parameter in stage.parameters()}  # others: bytes
    learned_ = {*net.predictors.parameters()}
    for parameter in net.parameters():
        key = (stages.get(parameter, 0), parameter in learned_, parameter.ndim >= 2)
        groups.setdefault(key, []).append(parameter)
    optimizer = torch.optim.AdamW(
        [
            {
                "params": parameters,
                "name": f"stage{stage + 1}{'_splitter' * learned}{'' if decays else '_no_decay'}",
                "lr": config.lr * multiples[stage] * (config.splitter_lr if learned else 1.0),
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for (stage, learned, decays), parameters in sorted(groups.items(), key=lambda group: group[0])
        ],
        lr=config.lr, betas=config.betas, eps=config.eps, fused=True,
    )  # fmt: skip
    names = parameter_names(net, optimizer)
    optimizer.register_load_state_dict_pre_hook(lambda _, state: by_number(state, names))
    return optimizer
