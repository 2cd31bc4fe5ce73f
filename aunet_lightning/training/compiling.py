"""model.compile: auto. Trains as it is, measures, compiles where that can pay, and measures again."""

import statistics
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from aunet_lightning.distributed.sharding import compile_in_place
from aunet_lightning.lightning_private import device_mesh
from aunet_lightning.training.access import say

FIRST, MEASURED = 5, 10  # batches that are not measured, and that are
SETTLED = 20  # batches after compiling, while shapes still compile anew
LEAST = 600.0  # seconds of training left for which compiling is tried: it takes one or two minutes on a CPU
BETTER = 0.95  # a compiled batch takes at most this of the time of one that is not, or it stays as it was


class AutoCompile(Callback):
    """Compiles the network of an AUNetModule in place after some batches, if enough training is left, and goes back
    where compiled batches are not faster. Says in a sentence what it did."""

    def __init__(self) -> None:
        self.eager: float | None = None  # median seconds of a batch
        self.done = False
        self._seconds: list[float] = []
        self._since = 0.0

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_index: int) -> None:
        self._since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.done:
            return
        if module.device.type == "cuda":
            torch.cuda.synchronize()
        self._seconds.append(time.perf_counter() - self._since)
        if self.eager is None and len(self._seconds) == FIRST + MEASURED:
            self.eager, self._seconds = statistics.median(self._seconds[FIRST:]), []
            self._decide(trainer, module)
        elif self.eager is not None and len(self._seconds) == SETTLED + MEASURED:
            self._compare(self.eager, statistics.median(self._seconds[SETTLED:]))

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        torch.compiler.set_stance("default")

    def _decide(self, trainer: Trainer, module: Any) -> None:
        assert self.eager is not None
        batches = (module.total_steps(trainer.global_step) - trainer.global_step) * trainer.accumulate_grad_batches
        left = batches * self.eager
        if torch.are_deterministic_algorithms_enabled():
            self._end("not compiled: trainer.deterministic asks for the same digits in every run")
        elif left < LEAST:
            self._end(f"not compiled: {left:.0f} s of training are left, too few for it to pay")
        else:
            torch._dynamo.config.suppress_errors = True  # without a C++ compiler, say, it stays as it was
            compile_in_place(module.net, blocks=device_mesh(module) is not None)

    def _compare(self, eager: float, compiled: float) -> None:
        measured = f"a batch takes {compiled:.3g} s compiled and {eager:.3g} s not"
        if compiled <= BETTER * eager:
            self._end(f"compiled: {measured}")
        else:
            torch.compiler.set_stance("force_eager")
            self._end(f"not compiled: {measured}")

    def _end(self, sentence: str) -> None:
        self.done = True
        say(f"model.compile auto: the network is {sentence}")
