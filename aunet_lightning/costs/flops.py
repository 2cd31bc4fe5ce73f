"""What an AU-Net costs: FLOPs of rows as the kernels compute them, and bytes of memory in training.

Work is counted from the shapes of the network's own parameters and from how attention.py cuts rows into blocks, so
that it equals PyTorch's counter (`counter`) without running anything. Multiplications and additions count one each.
Shapes: B rows, S stages, N positions of a stage, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from aunet_lightning.model.attention import MIN_BLOCK, within_row
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.model.config import AUNetConfig
from aunet_lightning.model.layers import Block, Neighbours, Place, Rotation
from aunet_lightning.model.scan import BLOCK, smooth
from aunet_lightning.model.transitions import MultiLinear, Repeat, Units, take
from aunet_lightning.training.optimizer import stage_of
from splitters.learned.predictor import Predictor
from splitters.registry import Spec
from splitters.stack import Stack

TRAINED = 6  # FLOPs per weight and position: 2 forward, 4 backward (with respect to input and weight)
ATTENDED = 12  # per query, key and channel: 4 forward (QK, PV), 8 backward; what a kernel computes again is no work
PUBLISHED_ATTENDED = 6  # the paper's count of the same: causal, so half of 12
ALL = 2.0**40  # positions in a block where there is no window
Precision = Literal["32-true", "bf16-mixed"]
FLOAT, HALF = 4, 2  # bytes


class Cost:
    """Counts the FLOPs of training a network, forward and backward, from positions per stage.

    net: may be on the meta device, as `Cost.of` builds it; nothing of it is kept but numbers.
    """

    def __init__(self, net: AUNet) -> None:
        self.config = net.config
        stages = net.config.stages
        weights = [0] * len(stages)  # by which each position of the stage is multiplied
        for name, module in net.named_modules():
            if isinstance(module, nn.Linear):
                weights[_applied_at(name, len(stages))] += module.weight.numel()
        self.call_flops = 0.0  # of a call, however many rows it has
        self.smoothed = [0] * len(stages)  # width of units that a learned splitter smooths
        for s, up in enumerate(net.upsamplings):
            if isinstance(up, MultiLinear):  # each position goes through one of the matrices
                weights[s] += up.by_offset[0].numel()
            elif isinstance(up, Repeat):
                self.call_flops += float(TRAINED * up.n_offsets * up.up.weight.numel())
            if str(s) in net.predictors and cast(Predictor, net.predictors[str(s)]).smooths:
                self.smoothed[s + 1] = stages[s + 1].dim
        self.weights = weights
        self.layers = [stage.layers * (1 if s == net.config.depth else 2) for s, stage in enumerate(stages)]
        self.parameters = sum(parameter.numel() for parameter in net.parameters())
        self.stage_parameters = [0] * len(stages)  # without the embedding
        for name, parameter in net.named_parameters():
            if not name.startswith("embedding."):
                self.stage_parameters[stage_of(name, len(stages))] += parameter.numel()
        self._tables: dict[torch.device, Tensor] = {}

    @classmethod
    def of(cls, config: AUNetConfig, splitters: Sequence[Spec] | Stack = ()) -> Cost:
        """Returns the cost of a network that is not built. splitters: as `AUNet` takes them."""
        with torch.device("meta"):
            return cls(AUNet(config, splitters))

    @torch.no_grad()
    def row_flops(self, positions: Tensor) -> Tensor:
        """Returns FLOPs [...], float64, of training on rows with `positions` [..., S] of each stage (bytes with BOS
        and EOS, units, …). What is padded counts only if it is among the positions."""
        n = positions.double()
        linear, attention, block, smoothed = self._table(n.device)
        flops = linear * n + attention * _attended(n, block)
        if any(self.smoothed):
            flops = flops + smoothed * _scanned(n)
        return flops.sum(-1)

    def step_flops(self, positions: Tensor) -> Tensor:
        """Returns FLOPs [] of training on a batch of rows with `positions` [B, S], in one call."""
        return self.row_flops(positions).sum() + self.call_flops

    def parts(self, positions: Sequence[float] | Tensor) -> dict[str, float]:
        """Returns the FLOPs of a row with `positions` [S] as {"stage1/linear": …, "stage1/attention": …, …}."""
        n = torch.as_tensor(positions).double().cpu()
        linear, attention, block, smoothed = self._table(n.device)
        named = {
            "linear": linear * n,
            "attention": attention * _attended(n, block),
            "smoothing": smoothed * _scanned(n),
        }
        return {
            f"stage{s + 1}/{name}": float(flops[s])
            for s in range(len(self.weights))
            for name, flops in named.items()
            if name != "smoothing" or self.smoothed[s]
        }

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

    def _table(self, device: torch.device) -> Tensor:
        """[4, S]: FLOPs per position, per query and key, positions of a block, channels that are smoothed."""
        if device not in self._tables:
            stages = self.config.stages
            rows = [
                [TRAINED * float(weight) for weight in self.weights],
                [ATTENDED * float(stage.dim * layers) for stage, layers in zip(stages, self.layers, strict=True)],
                [ALL if stage.window is None else float(max(stage.window, MIN_BLOCK)) for stage in stages],
                [float(width) for width in self.smoothed],
            ]
            self._tables[device] = torch.tensor(rows, dtype=torch.float64, device=device)
        return self._tables[device]


def published_flops_per_byte(config: AUNetConfig, row_bytes: float, bytes_per_unit: Sequence[float]) -> float:
    """Returns `Cost.published_per_byte` of a network that is not built."""
    return Cost.of(config).published_per_byte(row_bytes, bytes_per_unit)


def counter(**options: Any) -> FlopCounterMode:
    """Returns PyTorch's FLOP counter (display off), with the attention kernel of CPUs, which it takes for free."""
    aten = torch.ops.aten
    attention = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention_forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    return FlopCounterMode(display=False, custom_mapping=attention, **options)


def _attention_forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return 2 * sdpa_flop_count(query, key, value)


def _applied_at(name: str, n_stages: int) -> int:
    """Returns the stage (0: bytes) whose positions a linear layer of AUNet is applied to."""
    part, _, rest = name.partition(".")
    if part == "trunk":
        return n_stages - 1
    if part == "head":
        return 0
    s = int(rest.partition(".")[0])
    if part in ("poolings", "upsamplings"):  # once per unit
        return s + 1
    assert part in ("encoders", "decoders", "predictors"), name
    return s


def _attended(n: Tensor, block: Tensor) -> Tensor:
    """Pairs of queries and keys that the kernels compute for n positions (see attention.py: `within_row`)."""
    return torch.where(n <= block, n * n, (n / block).ceil() * 2 * block * block)


def _scanned(n: Tensor) -> Tensor:
    """FLOPs per channel of smoothing n units, forward and backward (see scan.py: `_scan`)."""
    flops = torch.zeros_like(n)
    for _ in range(4):  # of 64**4 units
        size = n.clamp(max=BLOCK)
        blocks = (n / size.clamp(min=1)).ceil()
        flops += 4 * blocks * size * size
        n = torch.where(blocks > 1, blocks, torch.zeros_like(n))
    return flops


@dataclass(frozen=True)
class Memory:
    """Bytes on one device while it trains. All of them are there at once, when a forward ends: Lightning clears the
    gradients of the step before only then. What single operations need for a moment is not among them."""

    parameters: float
    gradients: float
    optimizer: float  # the two moments of AdamW
    gathered: float  # on several devices: the largest modules that FSDP puts together; or DDP's buckets of gradients
    copies: float  # of weights in the type of autocast, kept for the backward, and what else no row adds to
    activations: float

    @property
    def total(self) -> float:
        return self.parameters + self.gradients + self.optimizer + self.gathered + self.copies + self.activations


def memory(
    config: AUNetConfig,
    positions: Sequence[float],
    rows: int,
    splitters: Sequence[Spec] | Stack = (),
    precision: Precision = "32-true",
    devices: int = 1,
    recompute: Sequence[bool] = (),
) -> Memory:
    """Returns the memory of a device that trains on `rows` rows at once, with `positions` [S] of each stage in a row.

    On several devices parameters, gradients and moments are divided among them (FSDP, full sharding). Activations are
    what autograd keeps of a forward, found by running it on tensors without data. recompute: the stages whose blocks
    the backward computes again (activation checkpointing; none is none). Raises ValueError for another precision.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision is {precision!r}: choose one of {', '.join(get_args(Precision))}")
    with torch.device("meta"):
        net = AUNet(config, splitters)
    with FakeTensorMode(allow_non_fake_inputs=True):  # on the CPU, as far as kernels can tell, and without data
        net.to_empty(device="cpu")
        inputs = 0.0  # of the blocks that are computed again, of a row
        for s, again in enumerate(recompute):
            for block in stage_blocks(net, s):
                block.recompute = again
                inputs += again * FLOAT * positions[s] * config.stages[s].dim
        one, two = (_kept(net, positions, n, precision) for n in (1, 2))
        weights = FLOAT * sum(parameter.numel() for parameter in net.parameters())
        modules = [*net.upsamplings, *(block for stage in (*net.encoders, net.trunk, *net.decoders) for block in stage)]
        largest = max(sum(parameter.numel() for parameter in module.parameters()) for module in modules)
    share, gathered, copies = weights / devices, 0.0, float(max(2 * one - two, 0))
    if devices > 1:
        root = sum(parameter.numel() for part in (net.embedding, net.norm, net.head) for parameter in part.parameters())
        kind = HALF if precision == "bf16-mixed" else FLOAT
        # A module and the next, its gradients and their sum, and what stays gathered; autocast has nothing to copy.
        gathered = kind * (2 * largest + root) + (kind + FLOAT) * largest
        copies = copies if kind == FLOAT else 0.0
    return Memory(share, share, 2 * share, gathered, copies, rows * (two - one + inputs))


def stage_blocks(net: AUNet, s: int) -> list[Block]:
    """Returns all blocks of a stage."""
    lists = (net.trunk,) if s == net.config.depth else (net.encoders[s], net.decoders[s])
    return [cast(Block, block) for blocks in lists for block in blocks.children()]


class Kept:
    """A context that adds up what autograd keeps in it: every storage once, parameters left out."""

    def __init__(self, net: nn.Module) -> None:
        self.parameters = {parameter.untyped_storage()._cdata for parameter in net.parameters()}
        self.tensors: dict[int, Tensor] = {}  # by storage; held, so that none is given to another tensor
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._note, lambda tensor: tensor)

    def _note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in self.parameters:
            self.tensors.setdefault(storage, tensor.detach())
        return tensor

    def __enter__(self) -> Kept:
        self.hooks.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.hooks.__exit__(kind, error, at)

    @property
    def bytes(self) -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in self.tensors.values())


def _kept(net: AUNet, positions: Sequence[float], rows: int, precision: Precision) -> int:
    """Returns the bytes that autograd keeps of a forward of `rows` rows and its loss."""
    round_to = net.config.round_units_to
    sizes = [round(positions[0])]
    for n in positions[1:]:
        sizes.append(min(-(-round(n) // round_to) * round_to, sizes[-1]))
    half = torch.autocast("cpu", torch.bfloat16) if precision == "bf16-mixed" else nullcontext()
    with Kept(net) as kept, half:
        ids = torch.zeros(rows, sizes[0], dtype=torch.long)
        y = _through(net, 0, net.embedding(ids), sizes)
        logits = net.head(net.norm(y))
        F.cross_entropy(logits.flatten(0, 1).float(), ids.flatten(), reduction="none")
        return kept.bytes


def _through(net: AUNet, s: int, x: Tensor, sizes: Sequence[int]) -> Tensor:
    """`AUNet.through` for sizes [S] of stages that are given, where no tensor has data to work them out from."""
    stage, (rows, n, _) = net.config.stages[s], x.shape
    at = torch.arange(n)[None]
    documents = torch.zeros(rows, n, dtype=torch.long) if net.config.document_masking else None
    neighbours = None
    if stage.conv is not None:
        neighbours = Neighbours.of(stage.conv, torch.ones(rows, n, dtype=torch.bool), documents, None)
    rotation = Rotation.at(at, stage.head_dim, net.config.rope_theta, torch.float32)
    place = Place(rotation, within_row(documents, rows, n, stage.window, x.device), neighbours)
    if s == net.config.depth:
        return _blocks(net.trunk, x, place)
    h = _blocks(net.encoders[s], x, place)
    index = torch.zeros(rows, sizes[s + 1], dtype=torch.long)
    units = Units(index, index > 0, torch.zeros(rows, n, dtype=torch.long), torch.zeros(rows, n, dtype=torch.long))
    y = _through(net, s + 1, net.poolings[s](h, units), sizes)
    predictor = cast(Predictor, net.predictors[str(s)]) if str(s) in net.predictors else None
    p = predictor(h, h).sigmoid() if predictor is not None else None
    p_of_units = p.gather(1, index) if p is not None and predictor is not None and predictor.smooths else None
    upsampling = net.upsamplings[s]
    if isinstance(upsampling, MultiLinear):
        up = _spread(upsampling, y, units, p_of_units)
    else:
        up, _ = upsampling(y, units, None, p_of_units)
    if p is not None and predictor is not None and predictor.straight_through:
        up = up * (1 + p - p.detach())[..., None].to(up.dtype)
    return _blocks(net.decoders[s], up + h if stage.skip else up, place)


def _blocks(blocks: nn.Module, x: Tensor, place: Place) -> Tensor:
    for block in blocks.children():
        x, _ = block(x, place, None)
    return x


def _spread(upsampling: MultiLinear, y: Tensor, units: Units, p: Tensor | None) -> Tensor:
    """`MultiLinear` with as many positions at each offset: how many there are makes no difference to what is kept."""
    u = upsampling.norm(y)
    u = u if p is None else smooth(u, p)
    shared = take(upsampling.up(u), units.serving)
    each = F.embedding(units.serving.flatten() + 0, u.flatten(0, 1)).tensor_split(upsampling.n_offsets)
    own = torch.cat([F.linear(x, matrix) for x, matrix in zip(each, upsampling.by_offset, strict=True)])
    return shared + F.embedding(units.offset.flatten() + 0, own).view_as(shared)
