"""FSDP2 through Lightning: `--trainer.strategy fsdp2`.

Lightning's ModelParallelStrategy, over all devices, with checkpoints that appear whole or not at all and are
written beside the training. Why FSDP2 and not FSDP1: docs/scale.md.
"""

import os
from collections.abc import Mapping
from concurrent.futures import Future
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

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

from aunet_lightning.checkpoints.forms import META, PART, is_folder, publish, read, read_meta, reason, remove
from aunet_lightning.lightning_private import inner_optimizer


class FSDP2Strategy(ModelParallelStrategy):
    """Parameters, gradients and moments divided among all devices (the module does it, in `configure_model`).

    Args:
        save_distributed_checkpoint: whether each device writes its part, to a folder; else one file has all
        async_save: whether folders are written while training goes on, from a copy in the host's memory
        process_group_backend: null: gloo on CPUs, on GPUs NCCL and for what is on the host gloo
        timeout_minutes: how long a device waits for others before it gives up
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
        self._group: Any = None  # for saving, so that its messages do not cross those of training
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
        # What is saved beside the training is copied by that anyway.
        return StateDictOptions(full_state_dict=not self._save_distributed_checkpoint, cpu_offload=not self.async_save)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return get_model_state_dict(cast(torch.nn.Module, self.model), options=self._options)

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """By parameter name, also in one file."""
        model = cast(torch.nn.Module, self.model)
        return get_optimizer_state_dict(model, inner_optimizer(optimizer), options=self._options)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Writes a folder, or one file; what goes wrong is kept in `failed`, the same on all devices."""
        if storage_options is not None:
            raise TypeError("FSDP2Strategy.save_checkpoint takes no storage_options")
        self.wait()
        path = Path(self.broadcast(str(filepath)))
        if not self._save_distributed_checkpoint:
            if self.is_global_zero:
                self.checkpoint_io.save_checkpoint(checkpoint, path)
            self.failed = self.broadcast(getattr(self.checkpoint_io, "problem", None))
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
            self.failed = self.broadcast(reason(error) if error is not None else None)  # and it has its name

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads any form, from any number of devices."""
        path = Path(self.broadcast(str(checkpoint_path)))
        check = getattr(self.lightning_module, "check_checkpoint", None)
        if path.suffix == ".safetensors":
            checkpoint = read(path)
            if check is not None:
                check(checkpoint)
            options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
            set_model_state_dict(cast(torch.nn.Module, self.model), checkpoint.pop("state_dict"), options=options)
            return checkpoint
        if check is not None:  # before torch finds that shapes differ
            check(read_meta(path) if is_folder(path) else read(path))
        return super().load_checkpoint(path, weights_only)

    def teardown(self) -> None:
        if self._saving is not None:
            self._saving.exception()
            self._saving = None
        super().teardown()

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Nothing: `load_checkpoint` has done it."""


def _finish(saving: Future[Any], renamed: tuple[Path, Path] | None, written: Future[Any]) -> None:
    """In the thread that wrote: gives the folder its name (on one device), and says that it is done."""
    try:
        written.result()
        if renamed is not None:
            publish(*renamed)
    except BaseException as error:  # whoever waits gets it
        saving.set_exception(error)
    else:
        saving.set_result(None)


if "fsdp2" not in StrategyRegistry:
    StrategyRegistry.register("fsdp2", FSDP2Strategy, description="FSDP2 over all devices (docs/scale.md)")
