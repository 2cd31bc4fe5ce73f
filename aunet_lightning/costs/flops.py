"""FLOPs of training an AU-Net, as the kernels compute them.

Work is counted from the shapes of the network's own parameters and from how attention.py cuts rows into blocks, so
that it equals PyTorch's counter (`counter`) without running anything. Multiplications and additions count one each.
Shapes: S stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from aunet_lightning.model.attention import attended_pairs
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.model.config import AUNetConfig
from aunet_lightning.model.scan import scan_flops
from splitters.registry import Spec
from splitters.stack import Stack

TRAINED = 6  # FLOPs per weight and position: 2 forward, 4 backward (with respect to input and weight)
ATTENDED = 12  # per query, key and channel: 4 forward (QK, PV), 8 backward; recomputation by a kernel does not count
PUBLISHED_ATTENDED = 6  # the paper's count of the same: causal, so half of 12
Precision = Literal["32-true", "bf16-mixed"]
FLOAT, HALF = 4, 2  # bytes


class Cost:
    """Counts the FLOPs of training a network, forward and backward, from positions per stage.

    net: may be on the meta device, as `Cost.of` builds it; nothing of it is kept but numbers.
    """

    def __init__(self, net: AUNet) -> None:
        self.config = net.config
        self.weights, self.smoothed, self.call_flops = [0] * len(net.stages), [0] * len(net.stages), 0.0
        self.refreshed = 0  # weights of stage 2 that a refresh is multiplied by
        self.weights[0] = linear_weights(net.head) + linear_weights(net.embedding)
        for s, stage in enumerate(net.stages):
            self.weights[s] += sum(map(linear_weights, stage.block_lists))
            if (transition := stage.transition) is not None:
                upsampling, predictor = transition.upsampling, transition.predictor
                self.weights[s] += upsampling.weights_per_position()
                self.weights[s + 1] += linear_weights(transition.pooling) + linear_weights(upsampling)  # once per unit
                self.call_flops += float(TRAINED * upsampling.weights_per_call())
                if predictor is not None:
                    self.weights[s] += linear_weights(predictor)
                    self.smoothed[s + 1] = net.config.stages[s + 1].dim if predictor.smooths else 0
        if len(net.stages) > 1:
            decides = net.stages[1].predictor
            self.refreshed = self.weights[1] - (linear_weights(decides) if decides is not None else 0)
        self.layers = [len(stage.blocks) for stage in net.stages]
        self.parameters = sum(parameter.numel() for parameter in net.parameters())
        # Rows of tables are looked up: they are parameters for which no FLOPs are paid.
        self.embedding_parameters = sum(one.numel() for one in net.embedding.parameters())
        self.embedding_parameters -= linear_weights(net.embedding)
        self.stage_parameters = [sum(parameter.numel() for parameter in stage.parameters()) for stage in net.stages]
        ends = (*net.norm.parameters(), *net.head.parameters())
        self.stage_parameters[0] += sum(parameter.numel() for parameter in ends)  # without the embedding
        self._tables: dict[torch.device, Tensor] = {}

    @classmethod
    def of(cls, config: AUNetConfig, splitters: Sequence[Spec] | Stack = ()) -> Cost:
        """Returns the cost of a network that is not built. splitters: as `AUNet` takes them."""
        with torch.device("meta"):
            return cls(AUNet(config, splitters))

    @torch.no_grad()
    def row_flops(self, positions: Tensor, refreshes: Tensor | float = 0.0) -> Tensor:
        """Returns FLOPs [...], float64, of training on rows with `positions` [..., S] of each stage (bytes with BOS
        and EOS, units, …) and `refreshes` [...] inside units. What is padded counts only if it is among them."""
        n = positions.double()
        linear, attention, smoothed = self._table(n.device)
        flops = linear * n + attention * self._attended(n)
        if any(self.smoothed):
            flops = flops + smoothed * scan_flops(n)
        return flops.sum(-1) + self._of_refreshes(n, refreshes)

    def step_flops(self, positions: Tensor, refreshes: Tensor | float = 0.0) -> Tensor:
        """Returns FLOPs [] of training on a batch of rows with `positions` [B, S], in one call."""
        return self.row_flops(positions, refreshes).sum() + self.call_flops

    def parts(self, positions: Sequence[float] | Tensor, refreshes: float = 0.0) -> dict[str, float]:
        """Returns the FLOPs of a row with `positions` [S] as {"stage1/linear": …, "stage1/attention": …, …}."""
        n = torch.as_tensor(positions).double().cpu()
        linear, attention, smoothed = self._table(n.device)
        named = {
            "linear": linear * n,
            "attention": attention * self._attended(n),
            "smoothing": smoothed * scan_flops(n),
        }
        found = {
            f"stage{s + 1}/{name}": float(flops[s])
            for s in range(len(self.weights))
            for name, flops in named.items()
            if name != "smoothing" or self.smoothed[s]
        }
        return found | ({"stage2/refreshes": float(self._of_refreshes(n, refreshes))} if refreshes else {})

    def traffic(self, devices: int, precision: Precision = "32-true", resharded: bool = True) -> list[float]:
        """Returns the bytes that a device gets from others in a step under FSDP, by stage: weights are gathered for
        the forward and (resharded) again for the backward, gradients are summed in float32."""
        gathered = (HALF if precision == "bf16-mixed" else FLOAT) * (2 if resharded else 1)
        of_stages = list(self.stage_parameters)
        of_stages[0] += self.parameters - sum(of_stages)  # the embedding
        return [(devices - 1) / devices * (gathered + FLOAT) * n for n in of_stages]

    def positions(self, row_bytes: float, bytes_per_unit: Sequence[float]) -> Tensor:
        """Returns positions [S], float64, of a row of `row_bytes` ids. bytes_per_unit: of stages 2 … S.

        Raises ValueError where there is not one number, 1 or more, for each stage above bytes.
        """
        if len(bytes_per_unit) != self.config.depth or not all(rate >= 1 for rate in bytes_per_unit):
            raise ValueError(
                f"bytes_per_unit is {[*bytes_per_unit]}: a model of {self.config.depth + 1} stages takes "
                f"{self.config.depth} numbers, 1 or more, one for each stage above bytes"
            )
        return row_bytes / torch.tensor([1.0, *bytes_per_unit], dtype=torch.float64)

    def per_byte(self, row_bytes: float, bytes_per_unit: Sequence[float]) -> float:
        """Returns FLOPs per byte of training on rows of `row_bytes` with units of so many bytes (see `positions`)."""
        return float(self.row_flops(self.positions(row_bytes, bytes_per_unit))) / row_bytes

    def published_per_byte(self, row_bytes: float, bytes_per_unit: Sequence[float]) -> float:
        """Returns the same by the paper's convention (AU-Net, arXiv 2506.14761): for each stage 6 · parameters
        + 6 · width · layers · min(window, positions), divided by its bytes per unit.

        All parameters but the embedding count, every matrix of multi_linear too, though a position uses one of them.
        """
        flops = 0.0
        for s, n in enumerate(self.positions(row_bytes, bytes_per_unit).tolist()):
            stage = self.config.stages[s]
            seen = min(stage.window or n, n)
            of_stage = TRAINED * self.stage_parameters[s] + PUBLISHED_ATTENDED * stage.dim * self.layers[s] * seen
            flops += of_stage * n / row_bytes
        return flops

    def _of_refreshes(self, n: Tensor, refreshes: Tensor | float) -> Tensor:
        """FLOPs [...] of refreshes [...] beside n [..., S] positions: each is held against all units and refreshes."""
        if len(self.layers) == 1:
            return n.new_zeros(n.shape[:-1])
        count = torch.as_tensor(refreshes, dtype=n.dtype, device=n.device)
        pairs = count * (n[..., 1] + count)
        return TRAINED * self.refreshed * count + ATTENDED * self.config.stages[1].dim * self.layers[1] * pairs

    def _attended(self, n: Tensor) -> Tensor:
        """Pairs of query and key [..., S] that the kernels compute for n [..., S] positions."""
        pairs = [attended_pairs(n[..., s], stage.window) for s, stage in enumerate(self.config.stages)]
        return torch.stack(pairs, -1)

    def _table(self, device: torch.device) -> Tensor:
        """[3, S]: FLOPs per position, per query and key, channels that are smoothed."""
        if device not in self._tables:
            stages = self.config.stages
            rows = [
                [TRAINED * float(weight) for weight in self.weights],
                [ATTENDED * float(stage.dim * layers) for stage, layers in zip(stages, self.layers, strict=True)],
                [float(width) for width in self.smoothed],
            ]
            self._tables[device] = torch.tensor(rows, dtype=torch.float64, device=device)
        return self._tables[device]


def published_flops_per_byte(config: AUNetConfig, row_bytes: float, bytes_per_unit: Sequence[float]) -> float:
    """Returns `Cost.published_per_byte` of a network that is not built."""
    return Cost.of(config).published_per_byte(row_bytes, bytes_per_unit)


def linear_weights(module: nn.Module) -> int:
    """Returns the weights of all linear layers in a module."""
    return sum(inner.weight.numel() for inner in module.modules() if isinstance(inner, nn.Linear))


def counter(**options: Any) -> FlopCounterMode:
    """Returns PyTorch's FLOP counter (display off), extended by the CPU attention kernel, which it counts as zero, and
    by the network's own operations."""
    aten, own = torch.ops.aten, torch.ops.aunet
    found = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention_forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
        own.sorted_linear: lambda x, sizes, weights, **_: 2 * x[0] * weights[1] * weights[2],
        own.sorted_outer: lambda grad, x, sizes, **_: 2 * grad[0] * grad[1] * x[1],
    }
    return FlopCounterMode(display=False, custom_mapping=found, **options)


def _attention_forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return 2 * sdpa_flop_count(query, key, value)
