"""AUNetModule: an AU-Net in Lightning. Loss in nats per prediction; everything shown in bits per byte."""

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any, Literal, TypeVar, cast

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from aunet_lightning.checkpoints.contents import Contents
from aunet_lightning.checkpoints.optimizer_state import by_name, parameter_names
from aunet_lightning.costs import Cost
from aunet_lightning.data.datamodule import ByteDataModule
from aunet_lightning.data.packing import Batch, refreshes_of
from aunet_lightning.distributed.gather import gather_objects
from aunet_lightning.distributed.sharding import ParallelConfig, build, whole
from aunet_lightning.effects import Effect, effects
from aunet_lightning.lightning_private import device_mesh, has_trainer, logs_are_due
from aunet_lightning.model.aunet import AUNet, Output
from aunet_lightning.model.config import AUNetConfig
from aunet_lightning.model.deciders import Decider
from aunet_lightning.model.init import seed_of
from aunet_lightning.processes import keep_freed_memory
from aunet_lightning.reader.reader import ByteReader, Reader
from aunet_lightning.training.access import data_of
from aunet_lightning.training.boundaries import BoundaryMetric
from aunet_lightning.training.budget import BudgetConfig, Spent
from aunet_lightning.training.compiling import AutoCompile
from aunet_lightning.training.learning import Learning
from aunet_lightning.training.length import steps_of
from aunet_lightning.training.loss import by_document, nats_per_target, training_loss
from aunet_lightning.training.metrics import METRICS, BitsPerByte, RunMetric, UnitMetric
from aunet_lightning.training.optimizer import OptimizerConfig, build_optimizer
from aunet_lightning.training.steps import Step, Votes, gradient_values, not_finite
from aunet_lightning.training.sums import StepSums
from splitters.registry import Spec

Measured = TypeVar("Measured", bound=RunMetric)


@effects(compile=Effect.ORDER, metrics=Effect.NONE)
class AUNetModule(LightningModule):
    """Trains an AUNet on batches of ByteDataModule.

    Args:
        net: the network
        optimizer: settings of the optimizer
        splitters: one per stage transition; needed where one is learned, since its network is part of the model
        budget: what the run may spend; the run and its learning-rate schedule end there (or at trainer.max_steps if
            that comes first)
        compile: whether to compile the network (torch.compile, in place; with fsdp2 its blocks); auto: where enough
            training is left and compiled steps prove to be faster
        parallel: memory traded for time on one device, and sharding over many (fsdp2)
        metrics: further metrics of held-out text, each a module:Class
    """

    net: AUNet

    def __init__(
        self,
        net: AUNetConfig,
        optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008 (never changed)
        splitters: Sequence[Spec] = (),
        budget: BudgetConfig = BudgetConfig(),  # noqa: B008
        compile: bool | Literal["auto"] = False,
        parallel: ParallelConfig = ParallelConfig(),  # noqa: B008
        metrics: list[str] | None = None,
    ) -> None:
        super().__init__()
        # Checkpoints hold plain data, so that they load with weights_only and without this class.
        self.config = AUNetConfig(**net) if isinstance(net, dict) else net
        self.optimizer_config = OptimizerConfig(**optimizer) if isinstance(optimizer, dict) else optimizer
        self.optimizer_config.of_stages(len(self.config.stages))  # fails here, before any data is read
        self.splitters = splitters
        self.budget = BudgetConfig(**budget) if isinstance(budget, dict) else budget
        self.metric_kinds: list[type[RunMetric]] = [
            BitsPerByte, UnitMetric, BoundaryMetric, *map(METRICS.get, metrics or [])
        ]  # fmt: skip
        self.parallel = ParallelConfig(**parallel) if isinstance(parallel, dict) else parallel
        for name in ("activation_checkpointing", "wrap", "reshard_after_forward", "param_dtype"):
            self.parallel.of_stages(name, len(self.config.stages))
        plain = {"net": asdict(self.config), "optimizer": asdict(self.optimizer_config), "compile": compile}
        plain |= {"budget": asdict(self.budget), "parallel": asdict(self.parallel)}
        self.save_hyperparameters(plain, logger=False)
        self.compile_net = compile
        self.spent = Spent()
        self._since, self._seconds = 0.0, 0.0  # when this step began, and what the last one took on this device
        self.warned_of_cap = False
        self.step = Step()
        self.noted: dict[str, float] = {}  # metrics of the step
        self.votes = Votes()
        self.skipped = self.skipped_in_a_row = 0  # steps that were not finite
        self.failure: str | None = None  # why the run stops before its end
        self.steps_trained = 0  # by the loaded checkpoint
        self.continues = False  # whether training resumes from the checkpoint; an export has weights alone
        self.metrics: dict[str, list[RunMetric]] = {}  # by part

    def setup(self, stage: str) -> None:
        """Packs held-out documents so that none depends on its neighbours, unless documents see each other anyway."""
        data_of(self.trainer).keeps_whole = self.config.document_masking

    @property
    def reader(self) -> Reader:
        """How text is read: the data module's reader, or without one that of the module's splitters."""
        data = getattr(self.trainer, "datamodule", None) if has_trainer(self) else None
        return data.reader if isinstance(data, ByteDataModule) else self._own_reader

    @cached_property
    def _own_reader(self) -> Reader:
        return ByteReader(self.splitters)

    def configure_model(self) -> None:
        """Builds the network, once."""
        if "net" in self._modules:
            return
        mesh = device_mesh(self)
        devices = mesh["data_parallel"] if mesh is not None else None
        precision = str(self.trainer.precision) if has_trainer(self) else "32-true"
        seed = torch.initial_seed() >> 1
        reader = self.reader if self.reader.rules == list(self.splitters) else self._own_reader
        self.net = build(self.config, reader.stack, seed, self.parallel, devices, precision, self.compile_net is True)
        self.learning = Learning(self.net)
        self.cost = Cost(self.net)

    def forward(self, ids: Tensor, levels: Tensor | None = None, state: Any = None, **more: Any) -> Output:
        """As `AUNet.forward`."""
        return self.net(ids, levels, state, **more)

    def nll(self, batch: Batch, deciders: Mapping[int, Decider] | None = None) -> tuple[Tensor, Output]:
        """Returns nats per target [B, L], 0 where ignored, and the network's output (deciders: see `AUNet.forward`)."""
        rooms = self.net.rooms_for(batch["n_units"], batch.get("n_refreshes"))
        more = {"rooms": rooms, "refreshes": refreshes_of(batch)}
        output = self.net(batch["ids"], batch["levels"], deciders=deciders, **more)
        return nats_per_target(output.logits, batch["targets"]), output

    def configure_callbacks(self) -> list[Callback]:
        return [AutoCompile()] if self.compile_net == "auto" else []

    def on_train_start(self) -> None:
        if self.device.type == "cpu":
            keep_freed_memory()
        self.learning.announce(self.global_step, data_of(self.trainer).language_names("train"))
        self._stop_when_spent()

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        self._since = self._since or time.perf_counter()
        self._reseed(batch_index)
        self.learning.begin(self.global_step)
        if self.global_step == 0 and batch_index == 0:
            self.learning.calibrate(batch, self._gather)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        nats, output = self.nll(batch, self.learning.deciders(batch, self.global_step))
        refreshes = output.refreshes.sum(1) if output.refreshes is not None else 0.0
        flops = self.cost.row_flops(positions(batch, output), refreshes).sum()
        decided = self.learning.sums(batch, output)
        local = StepSums.of(batch, nats, output, flops, self._seconds, self.votes.mine(), decided)
        total = local.reduced(self._reduce)  # over all devices, as they have different numbers of targets
        if self.step.ended:
            self.step, self.noted = Step(), {}
        self.step.add(total, batch)
        self.votes.count(total.votes)
        self.spent = self.spent.plus(total, self.trainer.world_size)
        self.noted |= {"train/bpb": self.step.bpb, "train/loss": self.step.loss} | self.spent.named()
        self._note_units(self.step)
        learned = self.learning.loss(decided, total.splitters, float(total.bytes))
        self.noted |= {f"train/{name}": value for name, value in self.learning.logged.items()}
        return training_loss(nats, learned, float(total.targets), self.step.first, self.trainer.world_size)

    def on_after_backward(self) -> None:
        if self.step.finite:
            self.learning.adjust()  # not at the batch's end, where the checkpoint is already written

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_index: int) -> None:
        now = time.perf_counter()
        self._seconds, self._since = now - self._since, now  # reading and splitting the next batch counts
        if self.step.ended:
            self._stop_when_spent()
        self.log_step()

    def log_step(self) -> None:
        """Logs what the step noted, if loggers write it: a call of `log` takes as long as many small operations."""
        if self.step.ended and logs_are_due(self.trainer):
            for name, value in self.noted.items():
                self.log(name, value, prog_bar=name == "train/bpb")
            self.noted = {}

    def on_validation_end(self) -> None:
        self._since = 0.0  # restarts with the next batch

    def _stop_when_spent(self) -> None:
        if (self.budget.progress(self.spent) or 0.0) >= 1:
            self.trainer.should_stop = True

    def _gather(self, local: Tensor) -> Tensor:
        """Joins the tensors of all devices, whose lengths may differ."""
        if self.trainer.world_size == 1:
            return local
        return torch.cat(gather_objects(local.cpu())).to(local.device)

    def _reduce(self, local: Tensor) -> Tensor:
        """Returns the sum over all devices."""
        alone = self.trainer.world_size == 1
        return local if alone else cast(Tensor, self.trainer.strategy.reduce(local, reduce_op="sum"))

    def _reseed(self, batch_index: int) -> None:
        """Makes random draws in a batch a function of the seed, the batch's place in training, and the device."""
        data = data_of(self.trainer)
        at = f"{getattr(data, 'seed', 0)}/{self.trainer.current_epoch}/{batch_index}/{self.trainer.global_rank}"
        # (`manual_seed` of all devices notes, for each that has not begun, a traceback to begin with.)
        (torch.default_generator if self.device.type == "cpu" else torch).manual_seed(seed_of(at))

    def _note_units(self, step: Step) -> None:
        """Notes bytes per unit of each stage, and what its cap dropped, with a warning the first time."""
        assert step.sums is not None
        if self.net.refreshes:
            self.noted["train/refreshes_per_byte_stage2"] = float(step.sums.refreshes / step.sums.read)
        for s, (begun, dropped) in enumerate(zip(step.sums.units.tolist(), step.sums.dropped.tolist(), strict=True)):
            self.noted[f"train/bytes_per_unit_stage{s + 2}"] = step.ids_per_unit(s)
            cap = self.config.stages[s + 1].max_units
            if cap is not None:
                self.noted[f"train/dropped_stage{s + 2}"] = dropped
            if dropped and not self.warned_of_cap:
                self.warned_of_cap = True
                rank_zero_warn(
                    f"model.net.stages[{s + 1}].max_units = {cap} dropped {dropped:.0f} of {begun + dropped:.0f} "
                    f"boundaries of a batch: their bytes stay in the unit before (see train/dropped_stage{s + 2})"
                )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
        main = rates["stage1_no_decay"]  # of the norms, which every network has
        own = {name: lr for name, lr in rates.items() if lr != main and not name.endswith("_no_decay")}
        self.noted |= {"train/lr": main} | {f"train/lr_{name}": lr for name, lr in own.items()}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips as the trainer asks, notes the norm before clipping, and skips a step that is not finite."""
        parameters = [parameter for parameter in self._parameters_once if parameter.grad is not None]
        gradients = [gradient_values(parameter) for parameter in parameters]
        if (scale := self.step.scale(self.trainer.accumulate_grad_batches)) != 1:  # one batch at an epoch's end too
            torch._foreach_mul_(gradients, scale)
        norm = torch.nn.utils.get_total_norm(gradients)
        total = float(whole(norm))
        self.step.ended = True
        self._check_finite(optimizer, total)
        self.noted |= {"train/grad_norm": total, "train/skipped_steps": self.skipped}
        if gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            torch._foreach_mul_(gradients, (gradient_clip_val / (norm + 1e-6)).clamp(max=1.0))
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    @cached_property
    def _parameters_once(self) -> list[torch.nn.Parameter]:
        return [*self.parameters()]  # to walk the modules takes as long as the norm

    def _check_finite(self, optimizer: torch.optim.Optimizer, norm: float) -> None:
        """Skips a step whose loss or gradient is not finite: no parameter and no moment changes."""
        if self.step.finite and math.isfinite(norm):
            self.skipped_in_a_row = 0
            return
        self.skipped, self.skipped_in_a_row = self.skipped + 1, self.skipped_in_a_row + 1
        limit = self.optimizer_config.max_skipped
        corpus = data_of(self.trainer).corpora["train"]
        problem = not_finite(self.step, self.global_step, norm, corpus)
        optimizer.zero_grad()
        if self.skipped_in_a_row <= limit:
            rank_zero_warn(
                f"{problem}. The step is skipped ({self.skipped_in_a_row} in a row; at {limit + 1} the run stops)"
            )
        else:
            self.failure = (
                f"{problem}. It is number {self.skipped_in_a_row} in a row, so the run stops; weights from before the "
                "first are saved. Lower optimizer.lr or trainer.gradient_clip_val, lengthen "
                "optimizer.warmup_steps, look at those documents, or raise optimizer.max_skipped"
            )
            self.trainer.should_stop = True

    def on_validation_epoch_start(self) -> None:
        self._start("val")

    def validation_step(self, batch: Batch, batch_index: int) -> dict[str, Tensor]:
        return by_document(*self._measure("val", batch), batch)

    def on_validation_epoch_end(self) -> None:
        self._finish("val")

    def on_test_epoch_start(self) -> None:
        self._start("test")

    def test_step(self, batch: Batch, batch_index: int) -> None:
        self._measure("test", batch)

    def on_test_epoch_end(self) -> None:
        self._finish("test")

    def predict_step(self, batch: Batch, batch_index: int) -> dict[str, Tensor]:
        return by_document(*self.nll(batch), batch)

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.net, self.optimizer_config, sparse=self.trainer.world_size == 1)
        self.total_steps()  # fails here if it is unknown
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.optimizer_config.lr_factor(step, self.total_steps(step))
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the contents that the weights mean nothing without."""
        data = data_of(self.trainer)
        checkpoint |= Contents(
            net=self.config,
            splitters=self.reader.rules,
            fingerprint=self.reader.stack.fingerprint(),
            tokenizer=self.reader.tokenizer_json,
            documents=data.digests,
            packing=data.packing,
            row_ids=data.longest_row_ids,
            spent=asdict(self.spent),
            skipped=self.skipped,
        ).as_dict()
        if device_mesh(self) is None:  # FSDP2 saves by name anyway
            pairs = zip(checkpoint.get("optimizer_states", []), self.trainer.optimizers, strict=False)
            checkpoint["optimizer_states"] = [by_name(state, parameter_names(self.net, of)) for state, of in pairs]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over a checkpoint's counts. Raises UserError where it does not fit."""
        if device_mesh(self) is None:  # else it is checked before weights are loaded
            self.check_checkpoint(checkpoint)
        contents = Contents.from_dict(checkpoint)
        self.spent, self.skipped = Spent(**contents.spent), contents.skipped
        self.steps_trained, self.continues = contents.global_step, contents.continues

    def check_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Raises UserError where a checkpoint does not fit: another network, other boundaries or vocabulary."""
        contents, data = Contents.from_dict(checkpoint), data_of(self.trainer)
        contents.check_network(self.config)
        if self.trainer.state.fn == "fit":
            self.check_continued(contents, data)
        if warning := contents.check_reader(self.reader):
            rank_zero_warn(warning)

    def check_continued(self, contents: Contents, data: ByteDataModule) -> None:
        """Raises UserError where training cannot continue from a checkpoint: other documents, or other settings than
        those it brings along."""
        contents.check_documents(data.digests)
        contents.check_continued(asdict(self.optimizer_config), data.packing)

    def total_steps(self, step: int = 0) -> float:
        """Returns the steps of the whole run; under a budget, as many as it buys at the price of those so far."""
        steps = steps_of(self.trainer, data_of(self.trainer))
        progress = self.budget.progress(self.spent)
        if progress is not None:
            return min(step / progress if progress > 0 else math.inf, steps)
        if steps == math.inf:
            raise ValueError("trainer: set max_steps or max_epochs, so that the learning rate schedule knows its end")
        return steps

    def _start(self, part: str) -> None:
        languages = data_of(self.trainer).language_names(part)
        self.metrics[part] = [kind.of(self.net, languages).to(self.device) for kind in self.metric_kinds]

    def metric(self, part: str, kind: type[Measured]) -> Measured:
        """Returns the metric of a kind, as it was measured last on a part (val, test)."""
        return next(metric for metric in self.metrics[part] if isinstance(metric, kind))

    def _measure(self, part: str, batch: Batch) -> tuple[Tensor, Output]:
        """Adds a batch to the part's metrics; returns what `nll` does."""
        nats, output = self.nll(batch)
        for metric in self.metrics[part]:
            metric.update(batch, nats, output)
        return nats, output

    def _finish(self, part: str) -> None:
        """Logs `PART/NAME` of each metric, and of stages and languages `PART_stage2/NAME_LANGUAGE`."""
        if self.trainer.state.fn == "fit":
            self.log_dict(self.spent.named())
        for metric in self.metrics[part]:
            for name, value in metric.compute().items():
                of_stage = re.match(r"stage\d+/", name)
                self.log(f"{part}_{name}" if of_stage else f"{part}/{name}", value, prog_bar=name == "bpb")


def positions(batch: Batch, output: Output) -> Tensor:
    """Returns float64 [B, stages]: the positions of each row on each stage, without padding."""
    at = torch.arange(1, batch["ids"].shape[1] + 1, device=batch["ids"].device)
    read = (at * (batch["documents"] >= 0)).amax(1, keepdim=True)
    return torch.cat([read, output.units], 1).double()
