"""Builds a network and shards it over devices: FSDP2 (`fully_shard`), by block or by stage."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor

from aunet_lightning.effects import Effect, effects
from aunet_lightning.errors import UserError
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.model.config import AUNetConfig
from aunet_lightning.numbers import Range, check_fields
from splitters import Stack
from splitters.registry import Spec

Kind = Literal["float32", "bfloat16"]
Wrap = Literal["block", "stage"]


@effects(Effect.ORDER, param_dtype=Effect.ROUNDING, reduce_dtype=Effect.ROUNDING)
@dataclass
class ParallelConfig:
    """Trades of memory and communication for time; lists have one entry per stage, from bytes up. All but
    activation_checkpointing is for trainer.strategy fsdp2."""

    activation_checkpointing: bool | list[bool] = False
    """keep only the inputs of blocks for the backward, which recomputes the rest (on one device too)"""
    wrap: Wrap | list[Wrap] = "block"
    """what is gathered together: each block, or all blocks of a stage's encoder, decoder or trunk"""
    reshard_after_forward: bool | list[bool] = True
    """free gathered weights after the forward and gather them again in the backward; false: keep them until then"""
    param_dtype: Kind | list[Kind] | None = None
    """dtype in which weights are gathered and multiplied; null: that of trainer.precision (bf16-mixed: bfloat16). A
    named one needs trainer.precision 32-true, and holds for norms and the residual stream too"""
    reduce_dtype: Kind = "float32"
    """dtype in which gradients are summed"""
    cpu_offload: bool = False
    """keep weights, gradients and moments in host memory, and step there"""
    shard_size: int | None = None
    """devices that weights are sharded over, for example those of a node; groups of so many hold copies; null: all"""

    def __post_init__(self) -> None:
        check_fields(self, "parallel", shard_size=Range(least=1, most=10**6))
        for name, allowed in (
            ("wrap", get_args(Wrap)),
            ("param_dtype", get_args(Kind)),
            ("reduce_dtype", get_args(Kind)),
        ):
            value = getattr(self, name)
            for one in value if isinstance(value, list) else [value]:
                if one not in allowed and not (name == "param_dtype" and value is None):
                    raise ValueError(f"parallel.{name} has {one!r}: choose one of {', '.join(allowed)}")

    def of_stages(self, name: str, n_stages: int) -> list[Any]:
        """Returns a setting for each stage. Raises ValueError where a list does not have one entry per stage."""
        value = getattr(self, name)
        values = value if isinstance(value, list) else [value] * n_stages
        if len(values) != n_stages:
            raise ValueError(f"parallel.{name} has {len(values)} entries, the model has {n_stages} stages")
        return values


def build(
    config: AUNetConfig,
    splitters: Sequence[Spec] | Stack,
    seed: int,
    parallel: ParallelConfig,
    devices: DeviceMesh | None = None,
    precision: str = "32-true",
    compile: bool = False,
) -> AUNet:
    """Returns a network with its weights drawn, sharded over `devices` if given; no device ever holds more than its
    shard. Raises UserError where the settings contradict each other.

    seed: the same on all devices; the weights do not depend on how many there are.
    """
    n_stages = len(config.stages)
    with torch.device("meta"):
        net = AUNet(config, splitters)
    for stage in net.stages:  # predictors are small, and perhaps somebody else's: built as they are
        if stage.transition is not None and net.stack is not None and stage.predictor is not None:
            with torch.device("cpu"):
                stage.transition.predictor = net.stack.learned[stage.s].predictor(stage.config.dim)
    net.init_predictors(seed)
    for stage, recompute in zip(net.stages, parallel.of_stages("activation_checkpointing", n_stages), strict=True):
        for block in stage.blocks:
            block.recompute = recompute
    device = torch.get_default_device()
    if devices is not None:
        if compile:
            compile_in_place(net, blocks=True)
        shard(net, parallel, devices, precision)
        device = torch.device("cpu" if parallel.cpu_offload else devices.device_type)
    net._apply(lambda t: torch.empty_like(t, device=device) if t.is_meta else t.to(device))
    net.init_weights_drawn(seed)
    if compile and devices is None:
        compile_in_place(net, blocks=False)
    return net


def compile_in_place(net: AUNet, blocks: bool) -> None:
    """Compiles the network, or only its blocks: the gathering of sharded weights between them is not compiled."""
    for module in (block for stage in net.stages for block in stage.blocks) if blocks else (net,):
        module.compile()


def shard(net: AUNet, parallel: ParallelConfig, devices: DeviceMesh, precision: str) -> None:
    """Shards each block (or each stage's blocks), the transitions, learned splitters, and then the rest."""
    n_stages, world = len(net.config.stages), devices.size()
    mesh = devices
    if parallel.shard_size is not None and parallel.shard_size != world:
        if parallel.shard_size < 1 or world % parallel.shard_size:
            raise UserError(f"model.parallel.shard_size is {parallel.shard_size}, it must divide the devices ({world})")
        shape = (world // parallel.shard_size, parallel.shard_size)
        mesh = init_device_mesh(devices.device_type, shape, mesh_dim_names=("copies", "parts"))
    named = parallel.of_stages("param_dtype", n_stages)
    if parallel.param_dtype is not None and precision != "32-true":
        raise UserError(
            f"model.parallel.param_dtype is {parallel.param_dtype} with trainer.precision {precision}: name one of the "
            "two (trainer.precision 32-true, or param_dtype null)"
        )
    autocast = torch.bfloat16 if precision == "bf16-mixed" else None
    kinds = [autocast if kind is None else getattr(torch, kind) for kind in named]
    again = parallel.of_stages("reshard_after_forward", n_stages)
    wraps = parallel.of_stages("wrap", n_stages)
    offload = CPUOffloadPolicy(pin_memory=devices.device_type != "cpu") if parallel.cpu_offload else OffloadPolicy()

    def cut(modules: nn.Module | list[nn.Module], kind: torch.dtype | None, **options: Any) -> None:
        # Torch would cast all inputs: angles, what is remembered, and under autocast the residual stream.
        policy = MixedPrecisionPolicy(kind, getattr(torch, parallel.reduce_dtype), cast_forward_inputs=False)
        fully_shard(modules, mesh=mesh, mp_policy=policy, offload_policy=offload, **options)
        if kind is not None and autocast is None and modules is not net:
            for module in modules if isinstance(modules, list) else [modules]:
                module.register_forward_pre_hook(partial(_enter, kind))

    for stage, kind, resharded, wrap in zip(net.stages, kinds, again, wraps, strict=True):
        options = {"reshard_after_forward": resharded}
        for blocks in ([*stack.children()] for stack in stage.block_lists):
            for modules in [blocks] if wrap == "stage" else [[block] for block in blocks]:
                cut(modules if len(modules) > 1 else modules[0], kind, **options)
        if stage.transition is not None:
            for between in (stage.transition.pooling, stage.transition.upsampling):
                cut(between, kind, **options)
        if stage.predictor is not None:
            cut(stage.predictor, None, **options)
    cut(net, kinds[0])


def _enter(kind: torch.dtype, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Casts a module's first input, on which it computes, to the dtype of its weights."""
    x, *others = inputs
    return (x.to(kind) if x is not None else None, *others)


def whole(value: Tensor) -> Tensor:
    """Returns the full tensor of one that may be sharded over devices. (All of them have to call it.)"""
    return value.full_tensor() if isinstance(value, DTensor) else value
