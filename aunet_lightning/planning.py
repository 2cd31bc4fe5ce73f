"""Plans a run for a budget: network, batch, learning rate, steps and memory, by the rules of AU-Net (arXiv 2506.14761).

Budgets are FLOPs as `costs` counts them, which training spends. The paper's rules were fitted with the paper's count,
so they are applied to that. Shapes: S stages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import yaml

from aunet_lightning.costs import Cost, DeviceMemory, Precision, memory
from aunet_lightning.model.config import AUNetConfig, StageConfig
from splitters.registry import Spec

MOST_STAGES = 4
WIDTHS = (0.25, 1.0, 1.5, 2.25)  # of the stages, relative to that of words
SIDE_LAYERS = 3  # of each encoder, and of each decoder
PUBLISHED_WIDTH = 2048  # at which the trunk has TRUNK_LAYERS, by the number of stages
TRUNK_LAYERS = {1: 25, 2: 25, 3: 18, 4: 10}
DEEPER = math.log2(32 / 25)  # exponent of depth over width: AU-Net 2 has 32 layers at 4096
BYTE_WINDOW, WINDOW = 512, 4096  # smaller at byte widths below 128, where attention would dominate
SMALLEST, LARGEST = 32, 32768  # width of words

# Bytes of data per FLOP per byte: gamma tokens per parameter, 4.56 bytes a token (once for data, once for the model).
BYTES_PER_TOKEN = 4.56
RATIO = 10.0  # gamma
BATCH = (0.66, 0.321)  # bytes: factor · C^exponent
LEARNING_RATE = (6.6, -0.176)
FITTED = (25e6, 500e6)  # parameters of the models that both were fitted on
MOST_LR = 4e-3  # that of experiments/quickstart.yaml; below about 1e18 FLOPs the rule gives more than is sensible
ROW_BYTES, SHORTEST_ROW, FEWEST_ROWS = 8192, 512, 8
WARMUP = 0.1
HEADROOM = 0.9  # of a device's memory; the rest is for temporary buffers


@dataclass(frozen=True)
class Machine:
    """The devices that the run trains on."""

    devices: int = 1
    flops_per_second: float = 989e12  # an H100 in bf16, without sparsity
    utilisation: float = 0.4  # of that, on average
    memory: float = 80e9  # bytes of a device
    precision: Precision = "bf16-mixed"

    def hours(self, flops: float) -> float:
        return flops / (self.flops_per_second * self.utilisation * self.devices) / 3600


@dataclass(frozen=True)
class Plan:
    """A run, worked out."""

    net: AUNetConfig
    rules: list[Spec]  # one per stage transition
    rates: list[float]  # bytes per unit of stages 2 … S
    machine: Machine
    parameters: int
    flops_per_byte: float
    published_per_byte: float
    flops: float  # of the run
    row_bytes: int
    rows: int  # of a device at once
    accumulate: int  # batches per step
    steps: int
    rule_lr: float
    memory: DeviceMemory  # of a device
    strategy: str  # of the trainer

    @property
    def batch_bytes(self) -> int:
        return self.row_bytes * self.rows * self.accumulate * self.machine.devices

    @property
    def bytes(self) -> int:
        return self.batch_bytes * self.steps

    @property
    def lr(self) -> float:
        return float(f"{min(self.rule_lr, MOST_LR):.3g}")

    @property
    def fits(self) -> bool:
        return self.memory.total <= HEADROOM * self.machine.memory

    @property
    def at_once(self) -> float:
        """Bytes of memory that a device would need to process its rows of a step at once."""
        return self.memory.total + (self.accumulate - 1) * self.memory.activations

    @property
    def extrapolated(self) -> bool:
        """Whether the model is outside the sizes that the rules of batch and learning rate were fitted on."""
        return not FITTED[0] <= self.parameters <= FITTED[1]

    def settings(self) -> dict[str, Any]:
        """Returns the settings for `aunet fit -c`, without data files."""
        net = {key: value for key, value in asdict(self.net).items() if value != getattr(AUNetConfig, key, None)}
        default = asdict(StageConfig(dim=64, layers=1))
        always = ("dim", "layers", "head_dim")
        net["stages"] = [
            {key: value for key, value in stage.items() if key in always or value != default[key]}
            for stage in net["stages"]
        ]
        return {
            "splitter": self.rules[0] if self.rules else None,
            "upper_splitters": self.rules[1:],
            "data": {"row_bytes": self.row_bytes, "batch_rows": self.rows * self.machine.devices},
            "model": {
                "net": net,
                "optimizer": {
                    "lr": self.lr,
                    "warmup_steps": max(round(WARMUP * self.steps), 1),
                    "final_lr_ratio": 0.01,
                    "weight_decay": 0.1,
                },
            },
            "trainer": {
                "devices": self.machine.devices,
                "strategy": self.strategy,
                "max_steps": self.steps,
                "accumulate_grad_batches": self.accumulate,
                "precision": self.machine.precision,
                "gradient_clip_val": 0.2,
                "check_val_every_n_epoch": None,
                "val_check_interval": max(self.steps // 20, 1) * self.accumulate,
            },
            "run": {"checkpoint_every": min(max(self.steps // 100, 100), 1000)},
        }


def shape(stages: int, width: int, trunk_layers: int) -> AUNetConfig:
    """Returns a network of the paper's proportions; `width` is that of words (of bytes, if there is one stage)."""
    ratios = WIDTHS[:stages] if stages > 1 else (1.0,)
    made = []
    for s, ratio in enumerate(ratios):
        dim = rounded(ratio * width)
        layers = trunk_layers if s == stages - 1 else SIDE_LAYERS
        window = WINDOW if s else min(max(4 * dim, 64), BYTE_WINDOW)
        made.append(StageConfig(dim, layers, head_dim(dim, 128 if s else 64), window))
    multiple = 256 if width >= 1024 else 64 if width >= 256 else 16
    return AUNetConfig(made, ffn_multiple_of=multiple, document_masking=True)


def rounded(width: float) -> int:
    """Returns the nearest width that heads divide and that suits kernels."""
    multiple = 128 if width >= 1024 else 64 if width >= 256 else 32 if width >= 128 else 16
    return max(round(width / multiple), 1) * multiple


def head_dim(dim: int, most: int) -> int:
    """Returns the width of heads: that of the published models, or smaller, to keep at least four heads."""
    return next((width for width in (128, 64, 32, 16) if width <= most and dim % width == 0 and dim // width >= 4), 16)


def nominal_layers(stages: int, width: int) -> int:
    return max(round(TRUNK_LAYERS[stages] * (width / PUBLISHED_WIDTH) ** DEEPER), 2)


def data_bytes(published_per_byte: float, ratio: float) -> float:
    """Returns the bytes to train a model on; FLOPs per byte by the paper's count."""
    return BYTES_PER_TOKEN**2 * ratio * published_per_byte


def plan(
    rules: list[Spec],
    rates: Sequence[float],
    machine: Machine,
    flops: float | None = None,
    parameters: float | None = None,
    ratio: float = RATIO,
    row_bytes: int | None = None,
) -> Plan:
    """Returns the run for one of two budgets: FLOPs (spent to within a step), or parameters of the network.

    rules: splitters, one per stage transition; rates: their bytes per unit, of stages 2 … S. ratio: gamma of the
    paper, data per model size. row_bytes: None chooses. Raises ValueError if no model fits the budget.
    """
    stages = len(rules) + 1
    if stages > MOST_STAGES:
        raise ValueError(f"--stages is {stages}: the paper's proportions are known for 1 to {MOST_STAGES}, give fewer")
    target = flops if flops is not None else parameters
    if target is None or (flops is not None and parameters is not None):
        raise ValueError("a plan takes one budget: give --flops, --gpu_hours or --parameters")
    # Small batches get shorter rows, at first by a guess (each parameter used once per unit).
    guess = flops or data_bytes(1, ratio) * (6 * target / (rates[0] if rates else 1)) ** 2
    row = row_bytes or _row(BATCH[0] * guess ** BATCH[1], machine.devices)

    def size(parameters: float, per_byte: float, published: float) -> float:
        return parameters if flops is None else per_byte * data_bytes(published, ratio)

    for _ in range(2):
        net = _nearest(stages, partial(_numbers, rules, row, rates), size, target, "flops" if flops else "parameters")
        cost = Cost.of(net, rules)
        published = cost.published_per_byte(row, rates)
        n_bytes = data_bytes(published, ratio) if flops is None else flops / cost.per_byte(row, rates)
        batch = BATCH[0] * (published * n_bytes) ** BATCH[1]
        row = row_bytes or _row(batch, machine.devices)
    per_byte, published = cost.per_byte(row, rates), cost.published_per_byte(row, rates)
    n_bytes = data_bytes(published, ratio) if flops is None else flops / per_byte
    rows = max(round(batch / row / machine.devices), 1)  # of a device, in a step
    strategy, rows, accumulate, needed = _fitted(net, rules, cost.positions(row, rates).tolist(), rows, machine)
    steps = max(round(n_bytes / (row * rows * accumulate * machine.devices)), 1)
    spent = per_byte * row * rows * accumulate * machine.devices * steps
    lr = LEARNING_RATE[0] * (published * n_bytes) ** LEARNING_RATE[1]
    return Plan(
        net, rules, [*rates], machine, cost.parameters, per_byte, published, spent, row, rows, accumulate, steps, lr,
        needed, strategy,
    )  # fmt: skip


def _row(batch_bytes: float, devices: int) -> int:
    """Returns the bytes of a row, such that a batch has several rows."""
    row = ROW_BYTES
    while row > SHORTEST_ROW and batch_bytes < row * max(FEWEST_ROWS, devices):
        row //= 2
    return row


def _numbers(rules: list[Spec], row: int, rates: Sequence[float], net: AUNetConfig) -> np.ndarray:
    """Returns parameters, FLOPs per byte, and FLOPs per byte by the paper's count, [3]."""
    cost = Cost.of(net, rules)
    return np.array([cost.parameters, cost.per_byte(row, rates), cost.published_per_byte(row, rates)])


def _nearest(
    stages: int,
    numbers: Callable[[AUNetConfig], np.ndarray],
    size: Callable[[float, float, float], float],
    target: float,
    budget: str,
) -> AUNetConfig:
    """Returns the network whose size is nearest to the target: the width first, then the trunk's layers."""
    widths = sorted({rounded(16 * i) for i in range(SMALLEST // 16, LARGEST // 16 + 1)})

    @cache
    def of_width(width: int) -> tuple[np.ndarray, np.ndarray]:
        one, two = (numbers(shape(stages, width, layers)) for layers in (1, 2))
        return one, two - one  # each further layer of the trunk adds the same

    def missed(width: int, layers: int) -> float:
        one, more = of_width(width)
        return math.log(size(*(one + (layers - 1) * more).tolist()) / target)

    low, high = 0, len(widths) - 1  # the first width whose network is not too small
    for end, wrong, most in ((low, "small", "smallest"), (high, "large", "largest")):
        off = missed(widths[end], nominal_layers(stages, widths[end]))
        if (off > math.log(1.5)) if end == low else (off < 0):
            raise ValueError(
                f"--{budget} is {target:.3g}: too {wrong}, the {most} network that can be planned takes "
                f"{math.exp(off) * target:.3g}. Give {'more' if end == low else 'less'}, or other --stages or --ratio"
            )
    while low < high:
        middle = (low + high) // 2
        if missed(widths[middle], nominal_layers(stages, widths[middle])) < 0:
            low = middle + 1
        else:
            high = middle
    found: list[tuple[float, int, int]] = []
    for width in widths[max(low - 1, 0) : low + 1]:
        usual = nominal_layers(stages, width)
        for layers in range(max(round(0.75 * usual), 2), round(1.33 * usual) + 1):
            unusual = abs(math.log(layers / usual))
            found.append((abs(missed(width, layers)) + 0.3 * unusual, width, layers))
    _, width, layers = min(found)
    return shape(stages, width, layers)


def _fitted(
    net: AUNetConfig, rules: list[Spec], positions: list[float], rows: int, machine: Machine
) -> tuple[str, int, int, DeviceMemory]:
    """Returns the trainer's strategy, rows of a device at once, batches per step, and the memory needed."""
    limit, devices = HEADROOM * machine.memory, machine.devices
    strategy, needed = "auto", memory(net, positions, 1, rules, machine.precision, devices)
    if devices > 1:
        # Each device holds all weights if these and DDP's gradient buckets leave half of it free.
        weights, moments = needed.parameters * devices, needed.optimizer * devices
        strategy = "ddp" if 3 * weights + moments + needed.copies <= limit / 2 else "fsdp2"
        if strategy == "ddp":
            needed = replace(needed, parameters=weights, gradients=weights, optimizer=moments, gathered=weights)
    most = max(int((limit - needed.total) / needed.activations) + 1, 1)
    accumulate = -(-rows // most)
    rows = -(-rows // accumulate)
    return strategy, rows, accumulate, replace(needed, activations=rows * needed.activations)


def as_yaml(settings: dict[str, Any], comments: Sequence[str]) -> str:
    """Returns settings as YAML under comments."""
    head = "".join(f"# {line}".rstrip() + "\n" for line in comments)
    return (
        head + "\n" + yaml.safe_dump(settings, sort_keys=False, default_flow_style=None, allow_unicode=True, width=110)
    )
