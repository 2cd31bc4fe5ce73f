"""FSDP2 through Lightning: `--trainer.strategy fsdp2`.

Lightning's ModelParallelStrategy over all devices, with checkpoints that appear complete or not at all and are written
while training continues. Why FSDP2 and not FSDP1: docs/scale.md.
"""

import os
from collections.abc import Mapping
from concurrent.futures import Future
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
)

from aunet_lightning.checkpoints.forms import META, is_folder, read, read_metadata, rename_into_place
from aunet_lightning.checkpoints.lightning_io import AnyForm
from aunet_lightning.errors import reason
from aunet_lightning.lightning_private import inner_optimizer
from aunet_lightning.paths import PART, remove


@runtime_checkable
class ChecksCheckpoint(Protocol):
    """A module that can refuse a checkpoint before its weights are loaded."""

    def check_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Raises UserError where the checkpoint does not fit."""


class FSDP2Strategy(ModelParallelStrategy):
    """Parameters, gradients and moments sharded over all devices (by the module, in `configure_model`).

    Args:
        save_distributed_checkpoint: write a folder, each device its shard; false: write one file
        async_save: write folders while training continues, from a copy in host memory
        process_group_backend: null: gloo on CPUs; on GPUs NCCL, and gloo for tensors of the host
        timeout_minutes: how long a device waits for the others before it gives up
    """

    def __init__(
        self,
        save_distributed_checkpoint: bool = True,
        async_save: bool = True,
        process_group_backend: str | None = None,
        timeout_minutes: float = 10.0,
    ) -> None:
        super().__init__(
            save_distributed_checkpoint=save_distributed_checkpoint,
            process_group_backend=process_group_backend,
            timeout=timedelta(minutes=timeout_minutes),
        )
        self.async_save = async_save and save_distributed_checkpoint
        self._group: Any = None  # of saving, whose messages must not cross those of training
        self._saving: Future[Any] | None = None
        self.failed: str | None = None  # why the last checkpoint could not be written

    def setup_environment(self) -> None:
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    def _get_process_group_backend(self) -> str:
        usual = "gloo" if self.root_device.type == "cpu" else f"cpu:gloo,{self.root_device.type}:nccl"
        return self._process_group_backend or usual

    def barrier(self, name: str | None = None) -> None:
        if dist.is_available() and dist.is_initialized():
            ids = None if self.root_device.type == "cpu" else self._determine_device_ids()
            dist.barrier(device_ids=ids)

    @property
    def _options(self) -> StateDictOptions:
        # An asynchronous save copies tensors to the host itself.
        return StateDictOptions(full_state_dict=not self._save_distributed_checkpoint, cpu_offload=not self.async_save)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return get_model_state_dict(cast(torch.nn.Module, self.model), options=self._options)

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Returns the state by parameter name, also for one file."""
        model = cast(torch.nn.Module, self.model)
        return get_optimizer_state_dict(model, inner_optimizer(optimizer), options=self._options)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Writes a folder, or one file; `failed` says why it could not, the same on all devices."""
        if storage_options is not None:
            raise TypeError("FSDP2Strategy.save_checkpoint takes no storage_options")
        self.wait()
        path = Path(self.broadcast(str(filepath)))
        if not self._save_distributed_checkpoint:
            if self.is_global_zero:
                self.checkpoint_io.save_checkpoint(checkpoint, path)
            self.failed = self.broadcast(
                self.checkpoint_io.problem if isinstance(self.checkpoint_io, AnyForm) else None
            )
            return
        if self._group is None:
            self._group = dist.new_group(backend="gloo", timeout=self._timeout)
        tensors = {"state_dict": checkpoint.pop("state_dict")}
        tensors |= {f"optimizer_{i}": state for i, state in enumerate(checkpoint.pop("optimizer_states", []))}
        part = path.with_name(path.name + PART)
        problem = None
        if self.is_global_zero:
            try:
                remove(part)
                part.mkdir(parents=True)
                with (part / META).open("wb") as file:
                    torch.save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())
            except (OSError, RuntimeError) as error:
                problem = reason(error)
        self.failed = self.broadcast(problem)
        if self.failed is None:
            self._saving = Future()
            written = cast(Future[Any], dcp.async_save(tensors, checkpoint_id=part, process_group=self._group))
            written.add_done_callback(partial(_finish, self._saving, (part, path) if self.is_global_zero else None))
            if not self.async_save:
                self.wait()
        elif self.is_global_zero:
            remove(part)

    @property
    def saving(self) -> bool:
        """Whether a checkpoint is still being written, as far as this device knows."""
        return self._saving is not None and not self._saving.done()

    @property
    def problem(self) -> str | None:
        """Why the last checkpoint could not be written, as far as this device knows."""
        error = self._saving.exception() if self._saving is not None and self._saving.done() else None
        return reason(error) if error is not None else self.failed

    def wait(self) -> None:
        """Waits until the last checkpoint is written."""
        if self._saving is not None:
            error, self._saving = self._saving.exception(), None
            self.failed = self.broadcast(reason(error) if error is not None else None)  # and the folder has its name

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads any form, from any number of devices."""
        path = Path(self.broadcast(str(checkpoint_path)))
        module = self.lightning_module
        check = module.check_checkpoint if isinstance(module, ChecksCheckpoint) else lambda checkpoint: None
        if path.suffix == ".safetensors":
            checkpoint = read(path)
            check(checkpoint)
            options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
            set_model_state_dict(cast(torch.nn.Module, self.model), checkpoint.pop("state_dict"), options=options)
            return checkpoint
        check(read_metadata(path) if is_folder(path) else read(path))  # before torch finds that shapes differ
        return super().load_checkpoint(path, weights_only)

    def teardown(self) -> None:
        if self._saving is not None:
            self._saving.exception()
            self._saving = None
        super().teardown()

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Does nothing: `load_checkpoint` has loaded it."""


def _finish(saving: Future[Any], renamed: tuple[Path, Path] | None, written: Future[Any]) -> None:
    """In the writing thread: renames the folder into place (on one device), and settles `saving`."""
    try:
        written.result()
        if renamed is not None:
            rename_into_place(*renamed)
    except BaseException as error:  # raised in whoever waits
        saving.set_exception(error)
    else:
        saving.set_result(None)


if "fsdp2" not in StrategyRegistry:
    StrategyRegistry.register("fsdp2", FSDP2Strategy, description="FSDP2 over all devices (docs/scale.md)")
