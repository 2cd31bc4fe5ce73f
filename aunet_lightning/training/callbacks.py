"""What a run shows: its speed, a table by language with baselines, boundaries, and text of its own."""

import json
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from lightning.pytorch.utilities import rank_zero_only

from aunet_lightning.data.datamodule import ByteDataModule
from aunet_lightning.generation import check_sampling, generate
from aunet_lightning.numbers import Range, check_fields
from aunet_lightning.reader.model_units import ModelUnits
from aunet_lightning.reports.ngram import MAX_ORDER, bpb_by_language
from aunet_lightning.reports.pictures import Levels, as_html, as_line, one_per_script
from aunet_lightning.reports.table import TOTAL, BpbTable, row_of
from aunet_lightning.terminal import printable
from aunet_lightning.tracking.mlflow_logger import MLflowRunLogger
from aunet_lightning.training.beginning import Expected, expect
from aunet_lightning.training.module import AUNetModule
from splitters import DEFAULT, Stack

NGRAM_BYTES = 50_000_000  # more training text than this takes a yardstick too long


@dataclass
class ReportConfig:
    """What is shown when a run ends."""

    ngrams: list[int] = field(default_factory=list)
    """orders of byte n-gram models, trained on the same text, that stand in the table as yardsticks"""
    pictures_every: int = 200
    """steps between pictures of learned boundaries on a fixed text per script, kept as artifacts; 0: none"""
    sample_prompts: list[str] = field(default_factory=list)
    """beginnings that the model continues; an empty one lets it begin"""
    sample_bytes: int = 160
    """bytes of each continuation"""
    sample_temperature: float = 0.8
    """0 takes the most likely byte each time"""

    def __post_init__(self) -> None:
        check_fields(self, "report", ngrams=Range(least=1, most=MAX_ORDER), pictures_every=Range(least=0, most=10**15))
        check_sampling(self.sample_bytes, self.sample_temperature, "report.sample_")


class BpbProgressBar(TQDMProgressBar):
    """The training bar alone, with bits per byte."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=10)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        module = cast(AUNetModule, pl_module)
        if (progress := module.budget.progress(module.spent)) is not None:
            metrics["spent"] = f"{progress:.0%}"
        return cast(dict[str, Any], metrics)

    def init_validation_tqdm(self) -> Tqdm:
        return Tqdm(disable=True)


class Throughput(Callback):
    """Logs perf/bytes_per_second of training, over the last few batches and without validation."""

    WINDOW = 20

    def __init__(self) -> None:
        self.marks: deque[tuple[float, float]] = deque(maxlen=self.WINDOW)  # (when, bytes seen by then)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.marks.clear()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.marks.append((time.perf_counter(), cast(AUNetModule, pl_module).spent.bytes))
        (begin, before), (now, seen) = self.marks[0], self.marks[-1]
        if now > begin:
            pl_module.log("perf/bytes_per_second", (seen - before) / (now - begin))


class Report(Callback):
    """The table of BPB by language after each validation (printed at the end), boundaries and samples."""

    def __init__(self, config: ReportConfig) -> None:
        self.config = config
        self.expected: Expected | None = None  # worked out before, or when training begins
        self._baselines: dict[str, dict[str, dict[str, float]]] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = _data(trainer)
        module = cast(AUNetModule, pl_module)
        counts = [(name, sum(p.numel() for p in part.parameters())) for name, part in module.net.named_children()]
        parts = ", ".join(f"{name} {count:,}" for name, count in counts if count)
        _print(f"{sum(count for _, count in counts):,} parameters: {parts}")
        self._show_cost(trainer, module, data)
        if not module.net.predictors:
            page = as_html(one_per_script(data.first_texts("train")), {"boundaries": data.reader})
            _log_text(trainer, page, "boundaries.html")
        if trainer.logger is not None:
            trainer.logger.log_metrics({"data/skipped_lines": sum(data.skipped.values())}, step=0)

    def _show_cost(self, trainer: Trainer, module: AUNetModule, data: ByteDataModule) -> None:
        """Says and logs what a byte of text costs, with the units that the training text has."""
        row, held, problem = self.expected or expect(module, data, trainer)
        parts = module.cost.parts(row.positions)
        per_byte = sum(parts.values()) / row.text_bytes
        shown = ", ".join(f"{name} {flops / sum(parts.values()):.0%}" for name, flops in parts.items())
        units = ", ".join(f"{rate:.2f}" for rate in row.bytes_per_unit)
        expected = " (learned splitters: as they are told)" if module.net.predictors else ""
        _print(
            f"{per_byte:,.0f} training FLOPs per byte of text: {shown}",
            *([f"bytes per unit, by stage: {units}{expected}"] if units else []),
        )
        measured = {"cost/flops_per_byte": per_byte, "cost/parameters": float(module.cost.parameters)}
        if held is None:
            _print(f"memory in training: not known ({problem})")
        else:
            _print(
                f"memory of a device in training: {held.total / 1e6:,.0f} MB, of it parameters "
                f"{held.parameters / 1e6:,.0f}, optimizer {held.optimizer / 1e6:,.0f}, "
                f"activations {held.activations / 1e6:,.0f}"
            )
            measured |= {f"cost/{name}_bytes": getattr(held, name) for name in ("optimizer", "activations", "total")}
        if trainer.logger is not None:
            trainer.logger.log_metrics(measured, step=0)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = cast(AUNetModule, pl_module)
        if trainer.sanity_checking or "val" not in module.metrics:
            return
        if trainer.state.fn == "fit":
            table = self._table(trainer, module, "val")
            _log_text(trainer, table.as_markdown(), "val_bpb.md")
            _log_text(trainer, table.as_csv(), "val_bpb.csv")
        else:
            self._show(trainer, module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(trainer, cast(AUNetModule, pl_module), "test")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = cast(AUNetModule, pl_module)
        if "val" in module.metrics:
            self._show(trainer, module, "val")
        data = _data(trainer)
        module.eval()
        stack = ModelUnits(module.net, data.reader) if module.net.predictors else data.reader
        texts = one_per_script(data.first_texts("val" if "val" in data.corpora else "train"))
        lines = [f"{script:<11} {as_line(text, stack)}" for script, text in texts]
        shown = [{"text": text.decode(), "levels": stack.levels(text).tolist()} for _, text in texts]
        _log_text(trainer, json.dumps(shown, ensure_ascii=False), "units.json")
        _print("\nStage boundaries (│ a unit of stage 2 begins, ║ one of stage 3 too, …)", *lines)
        if self.config.sample_prompts:
            prompts = [prompt.encode() for prompt in self.config.sample_prompts]
            generated = generate(
                module.net, data.reader, prompts, self.config.sample_bytes, self.config.sample_temperature,
            )  # fmt: skip
            samples = [printable(text.decode("utf-8", "replace")) for text in generated]
            _print("\nSamples", *(f"» {sample}" for sample in samples))
            _log_text(trainer, "\n\n".join(samples), "samples.txt")
        module.train()

    def _table(self, trainer: Trainer, module: AUNetModule, part: str) -> BpbTable:
        metric = module.metrics[part]
        values = metric.compute()
        languages = {row_of(language): bpb for language, bpb in metric.by_language(values).items()}
        model = {TOTAL: float(values[0])} | languages
        return BpbTable({"AU-Net": model} | self._ngrams(_data(trainer), part))

    def _ngrams(self, data: ByteDataModule, part: str) -> dict[str, dict[str, float]]:
        if part not in self._baselines:
            orders = self.config.ngrams
            n_bytes = (
                int(data.corpora["train"].lengths[data.documents["train"]].sum()) if "train" in data.corpora else 0
            )
            if orders and not 0 < n_bytes <= NGRAM_BYTES:
                _print(
                    f"n-gram yardsticks left out: they are for 1 to {NGRAM_BYTES:,} bytes of training text, "
                    f"not {n_bytes:,}"
                )
                orders = []
            train, held_out = (data.texts("train"), data.texts(part)) if orders else ([], [])
            self._baselines[part] = {f"{order}-gram": bpb_by_language(order, train, held_out) for order in orders}
        return self._baselines[part]

    def _show(self, trainer: Trainer, module: AUNetModule, part: str) -> None:
        table = self._table(trainer, module, part)
        kind = "held-out" if part == "val" else "test"
        steps = trainer.global_step or module.steps_trained
        _print(table.as_text(f"\nBits per byte on {kind} text after {steps} steps (* lowest)"))
        units = module.units[part].compute()
        _print(
            "",
            *(
                f"bytes per unit {stage}: {measured['bytes_per_unit']:.2f}"
                for stage, measured in units.items()
                if "_" not in stage
            ),
        )
        _log_text(trainer, table.as_markdown(), f"{part}_bpb.md")
        _log_text(trainer, table.as_csv(), f"{part}_bpb.csv")


class BoundaryPictures(Callback):
    """Draws learned boundaries on a fixed text per script every so many steps: a page per drawing, and one of all.

    The first row of each is `script_aware`, to compare with.
    """

    MOST = 12  # drawings on the page of all
    TEXTS, CHARACTERS = 8, 80

    def __init__(self, every: int) -> None:
        self.every = every
        self.drawn: dict[int, dict[str, list[int]]] = {}  # step → text → levels

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        kept = [logger.folder.path / "boundaries.json" for logger in _loggers(trainer)]
        if trainer.ckpt_path is not None and kept and kept[0].exists():
            drawn = {int(step): levels for step, levels in json.loads(kept[0].read_text(encoding="utf-8")).items()}
            module = cast(AUNetModule, pl_module)
            from_step = module.steps_trained * module.continues  # later ones are of a line that was left
            self.drawn = {step: levels for step, levels in drawn.items() if step <= from_step}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        net, step = cast(AUNetModule, pl_module).net, trainer.global_step
        due = self.every and (step == 1 or step % self.every == 0 or step == trainer.max_steps)
        if not due or step in self.drawn or not net.predictors:
            return
        data = _data(trainer)
        part = "val" if "val" in data.corpora else "train"
        texts = one_per_script(data.first_texts(part), characters=self.CHARACTERS)
        if each := self.TEXTS // len(texts):  # few scripts: several texts of each
            texts = one_per_script(data.first_texts(part, each), each, self.CHARACTERS)
        pl_module.eval()
        stack = ModelUnits(net, data.reader)
        self.drawn[step] = {text.decode(): stack.levels(text).tolist() for _, text in texts}
        pl_module.train()
        here = {f"step {step}": Drawn(stack.depth, self.drawn[step])}
        steps = sorted(self.drawn)
        if len(steps) > self.MOST:  # the first, the last, and between them evenly
            steps = [steps[round(i * (len(steps) - 1) / (self.MOST - 1))] for i in range(self.MOST)]
        all_ = {f"step {at}": Drawn(stack.depth, self.drawn[at]) for at in steps}
        reference: dict[str, Levels] = {DEFAULT: Stack([DEFAULT])}
        _log_text(trainer, as_html(texts, reference | here), f"boundaries/step-{step:06}.html")
        _log_text(trainer, as_html(texts, reference | all_), "boundaries.html")
        _log_text(trainer, json.dumps(self.drawn, ensure_ascii=False), "boundaries.json")


class Drawn(NamedTuple):
    """Levels of some texts as they were."""

    depth: int
    by_text: dict[str, list[int]]

    def levels(self, data: bytes) -> np.ndarray:
        return np.array(self.by_text[data.decode()], np.uint8)


class PredictionWriter(Callback):
    """Writes what `aunet predict` finds: a line per document with its language, bytes, bits and BPB."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sums: dict[int, list[float]] = {}  # document → bits, bytes

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        scored = outputs["sizes"] > 0
        scores = (outputs[key][scored].tolist() for key in ("documents", "bits", "sizes"))
        for document, bits, n_bytes in zip(*scores, strict=True):
            sums = self.sums.setdefault(document, [0.0, 0])
            sums[0] += bits
            sums[1] += n_bytes

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for other in _from_all_ranks(self.sums)[1:]:
            for document, (bits, n_bytes) in other.items():
                sums = self.sums.setdefault(document, [0.0, 0])
                sums[0] += bits
                sums[1] += n_bytes
        if not trainer.is_global_zero:
            return
        corpus = _data(trainer).corpora["test"]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", encoding="utf-8") as file:
            for document, (bits, n_bytes) in sorted(self.sums.items()):
                line = {"id": corpus.name(document), "lang": corpus.language(document), "bytes": int(n_bytes)}
                line |= {"bits": round(bits, 3), "bpb": round(bits / n_bytes, 5)}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        _print(f"Bits of {len(self.sums)} documents: {self.path}")


def _from_all_ranks(value: Any) -> list[Any]:
    """Returns every rank's value, this rank's first."""
    if not torch.distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return [value, *(v for rank, v in enumerate(values) if rank != torch.distributed.get_rank())]


def _data(trainer: Trainer) -> ByteDataModule:
    return cast(ByteDataModule, cast(Any, trainer).datamodule)


def _loggers(trainer: Trainer) -> list[MLflowRunLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, MLflowRunLogger)]


def _log_text(trainer: Trainer, text: str, artifact: str) -> None:
    for logger in _loggers(trainer):
        logger.log_text(text, artifact)


@rank_zero_only
def _print(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)
