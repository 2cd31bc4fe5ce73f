"""The optimizer of a run: a learning rate per stage, weight decay on matrices only, linear warm-up and a cosine."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from aunet_lightning.checkpoints.optimizer_state import by_number, parameter_names
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.model.embedding import Table
from aunet_lightning.numbers import Range, check_fields
from aunet_lightning.registry import Registry
from aunet_lightning.training.by_group import Algorithm, ByGroup, Groups

_HERE = "aunet_lightning.training.optimizer"
WIDTH = 64  # see OptimizerConfig.lr
OPTIMIZERS = Registry(
    "optimizer.name", f"{_HERE}:OptimizerBuilder", {"adamw": f"{_HERE}:AdamW", "muon": f"{_HERE}:Muon"}
)


@dataclass
class OptimizerConfig:
    """Settings of the optimizer and its schedule."""

    lr: float = 2e-3
    """learning rate after warm-up (with muon that of embeddings and the output layer at width 64 of stage 1)"""
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
    name: str = "adamw"
    """the algorithm: adamw, muon (for matrices, and adamw for the rest) or module:Class"""
    matrix_lr: float = 0.02
    """with muon: learning rate of matrices, where lr is that of the rest; it holds for any width"""
    matrix_every: int = 1
    """with muon: matrices move at every n-th step alone, n times as far, which costs an n-th of muon's time"""
    cooldown: float | None = None
    """share of the run at whose end the learning rate falls, in a line, to lr times final_lr_ratio; it stays before;
    null: it falls as a cosine from the end of warm-up"""

    def __post_init__(self) -> None:
        OPTIMIZERS.check(self.name)
        if len(self.betas) != 2:
            raise ValueError(f"optimizer.betas is {self.betas}, it must be two numbers, for example [0.9, 0.95]")
        self.betas = (self.betas[0], self.betas[1])
        steps, multiple = Range(least=0, most=10**15), Range(least=0, most=1000)
        check_fields(
            self, "optimizer",
            lr=Range(above=0, most=100), warmup_steps=steps, final_lr_ratio=Range(least=0, most=1),
            weight_decay=Range(least=0, most=100), betas=Range(least=0, below=1), eps=Range(above=0, most=1),
            stage_lr=multiple, splitter_lr=multiple, max_skipped=steps, matrix_lr=Range(above=0, most=100),
            matrix_every=Range(least=1, most=1000), cooldown=Range(least=0, most=1),
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
        if self.cooldown is not None:
            left = (total - step) / max(self.cooldown * total, 1) if total < math.inf else 1.0
            return self.final_lr_ratio + (1 - self.final_lr_ratio) * min(max(left, 0.0), 1.0)
        progress = min((step - self.warmup_steps) / max(total - self.warmup_steps, 1), 1.0)
        return self.final_lr_ratio + (1 - self.final_lr_ratio) * (1 + math.cos(math.pi * progress)) / 2


class OptimizerBuilder(ABC):
    """Makes the optimizer of a run."""

    algorithms: ClassVar[tuple[Algorithm, ...]] = ("adamw",)  # that its optimizer knows

    @abstractmethod
    def build(self, groups: Groups, config: OptimizerConfig) -> torch.optim.Optimizer:
        """Returns an optimizer over `groups`, each with its `params`, `name`, `lr`, `weight_decay` and the `algorithm`
        that suits it, of those that it knows: muon for matrices between hidden vectors, rows for tables, or adamw.

        It keeps the groups' names, and may add keys of its own, but neither drops nor reorders parameters: a checkpoint
        has its state by their names.
        """


class AdamW(OptimizerBuilder):
    """PyTorch's AdamW, fused; of tables the rows that were read."""

    algorithms: ClassVar[tuple[Algorithm, ...]] = ("adamw", "rows")

    def build(self, groups: Groups, config: OptimizerConfig) -> torch.optim.Optimizer:
        if any(group["algorithm"] != "adamw" for group in groups):
            return ByGroup(groups, lr=config.lr, betas=config.betas, eps=config.eps)
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


class Muon(AdamW):
    """Muon for matrices between hidden vectors; AdamW for byte embeddings, norms, convolutions, the output layer and
    learned splitters; of tables the rows that were read."""

    algorithms: ClassVar[tuple[Algorithm, ...]] = ("adamw", "rows", "muon")


class _Kind(NamedTuple):
    """What the parameters of a group have in common."""

    stage: int
    learned: bool
    decays: bool
    algorithm: Algorithm
    part: str = ""  # embedding or head, where their learning rate depends on the width

    def group(
        self, parameters: list[torch.nn.Parameter], config: OptimizerConfig, multiple: float, width: int
    ) -> dict[str, Any]:
        """Returns the group, for a stage 1 of `width`: a step of Adam moves each channel by lr, so that it turns a
        vector that begins with length 1 by lr · sqrt(width), and changes a sum over channels by lr · width."""
        of_width = (WIDTH / width) ** {"embedding": 0.5, "head": 1.0}.get(self.part, 0.0)
        suffix = f"_{self.part}" * bool(self.part) + f"_{self.algorithm}" * (self.algorithm != "adamw")
        lr = config.matrix_lr if self.algorithm == "muon" else config.lr
        return {
            "params": parameters,
            "name": f"stage{self.stage + 1}{'_splitter' * self.learned}{suffix}{'' if self.decays else '_no_decay'}",
            "lr": lr * multiple * of_width * (config.splitter_lr if self.learned else 1.0),
            "weight_decay": config.weight_decay if self.decays else 0.0,
            "algorithm": self.algorithm,
            **({"every": config.matrix_every} if self.algorithm == "muon" and config.matrix_every > 1 else {}),
        }


def build_optimizer(net: AUNet, config: OptimizerConfig, sparse: bool = False) -> torch.optim.Optimizer:
    """Returns the optimizer of all of the network's parameters, by groups: per stage, those with weight decay and those
    without, and the same for learned splitters. Raises ValueError where stage_lr is not one number per stage.

    sparse: whether tables get gradients of the rows that were read alone, which one device can do.
    """
    multiples = config.of_stages(len(net.config.stages))
    builder: OptimizerBuilder = OPTIMIZERS.get(config.name)()
    stages = {parameter: stage.s for stage in net.stages for parameter in stage.parameters()}  # others: bytes
    learned = {*net.predictors.parameters()}
    tables = [module for module in net.modules() if isinstance(module, Table) and "rows" in builder.algorithms]
    suits: dict[Tensor, Algorithm] = {table.weight: "rows" for table in tables}
    parts: dict[torch.nn.Parameter, str] = {}
    if "muon" in builder.algorithms:
        suits |= dict.fromkeys(_matrices(net), "muon")
        parts = dict.fromkeys(net.embedding.parameters(), "embedding") | dict.fromkeys(net.head.parameters(), "head")
    for table in tables:
        table.sparse = sparse
    groups: dict[_Kind, list[torch.nn.Parameter]] = {}
    for parameter in net.parameters():
        algorithm, part = suits.get(parameter, "adamw"), parts.get(parameter, "")
        kind = _Kind(stages.get(parameter, 0), parameter in learned, parameter.ndim >= 2, algorithm, part)
        groups.setdefault(kind, []).append(parameter)
    kinds, width = sorted(groups), net.config.stages[0].dim
    optimizer = builder.build(
        [kind.group(groups[kind], config, multiples[kind.stage], width) for kind in kinds], config
    )
    names = parameter_names(net, optimizer)
    optimizer.register_load_state_dict_pre_hook(lambda _, state: by_number(state, names))
    return optimizer


def _matrices(net: AUNet) -> Iterator[torch.nn.Parameter]:
    """Yields the matrices that take hidden vectors to hidden vectors, and batches of such."""
    learned = {*net.predictors.modules()}
    for module in (module for stage in net.stages for module in stage.modules() if module not in learned):
        linear = isinstance(module, torch.nn.Linear)
        yield from (p for p in module.parameters(recurse=False) if p.ndim == 3 or (linear and p.ndim == 2))
