"""The report of a run: its costs at the start, BPB by language with baselines, boundaries and samples at the end."""

import json
from typing import cast

from lightning.pytorch import Callback, LightningModule, Trainer

from aunet_lightning.data.datamodule import ByteDataModule
from aunet_lightning.data.rates import RowShape
from aunet_lightning.generation import generate
from aunet_lightning.reader.model_units import ModelUnits
from aunet_lightning.reports.generated import TEXTS, as_metrics, validity
from aunet_lightning.reports.ngram import bpb_by_language
from aunet_lightning.reports.pictures import as_html, as_line, one_per_script
from aunet_lightning.reports.table import TOTAL, BpbTable, row_of
from aunet_lightning.terminal import printable
from aunet_lightning.tracking.run_folder import COLUMNS, TABLE, UNITS
from aunet_lightning.training.access import data_of, log_text, say
from aunet_lightning.training.boundaries import BoundaryMetric, described
from aunet_lightning.training.expectation import Expected, expect
from aunet_lightning.training.metrics import BitsPerByte, UnitMetric
from aunet_lightning.training.module import AUNetModule
from aunet_lightning.training.report_config import ReportConfig

NGRAM_BYTES = 50_000_000  # n-gram baselines take too long on more training text


class RunReport(Callback):
    """The table of BPB by language after each validation (printed at the end), boundaries and samples."""

    def __init__(self, config: ReportConfig) -> None:
        self.config = config
        self.expected: Expected | None = None  # computed before, or when training begins
        self._baselines: dict[str, dict[str, dict[str, float]]] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = data_of(trainer)
        module = cast(AUNetModule, pl_module)
        counts = [(name, sum(p.numel() for p in part.parameters())) for name, part in module.net.named_children()]
        parts = ", ".join(f"{name} {count:,}" for name, count in counts if count)
        say(f"{sum(count for _, count in counts):,} parameters: {parts}")
        self._show_cost(trainer, module, data)
        if not module.net.predictors:
            page = as_html(one_per_script(data.first_texts("train")), {"boundaries": data.reader})
            log_text(trainer, page, "boundaries.html")
        if trainer.logger is not None:
            trainer.logger.log_metrics({"data/skipped_lines": sum(data.skipped.values())}, step=0)

    def _show_cost(self, trainer: Trainer, module: AUNetModule, data: ByteDataModule) -> None:
        """Prints and logs the cost of a byte of text, with the units of the training text."""
        row, held, problem = self.expected or expect(module, data, trainer)
        parts = module.cost.parts(row.positions, row.refreshes)
        per_byte = sum(parts.values()) / row.text_bytes
        shown = ", ".join(f"{name} {flops / sum(parts.values()):.0%}" for name, flops in parts.items())
        units = ", ".join(f"{rate:.2f}" for rate in row.bytes_per_unit)
        expected = " (learned splitters: their target rate)" if module.net.predictors else ""
        say(
            f"{per_byte:,.0f} training FLOPs per byte of text: {shown}",
            *([f"bytes per unit, by stage: {units}{expected}"] if units else []),
            _rows(data, row),
        )
        measured = {"cost/flops_per_byte": per_byte, "cost/parameters": float(module.cost.parameters)}
        if held is None:
            say(f"training memory per device: unknown ({problem})")
        else:
            say(
                f"training memory per device: {held.total / 1e6:,.0f} MB (parameters {held.parameters / 1e6:,.0f}, "
                f"optimizer {held.optimizer / 1e6:,.0f}, activations {held.activations / 1e6:,.0f})"
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
            log_text(trainer, table.as_markdown(), TABLE)
            log_text(trainer, table.as_csv(), COLUMNS)
        else:
            self._show(trainer, module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(trainer, cast(AUNetModule, pl_module), "test")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = cast(AUNetModule, pl_module)
        if "val" in module.metrics:
            self._show(trainer, module, "val")
        module.eval()
        self._show_boundaries(trainer, module)
        if self.config.sample_prompts:
            self._show_samples(trainer, module)
        if self.config.generated_bytes:
            self._show_validity(trainer, module)
        module.train()

    def _show_boundaries(self, trainer: Trainer, module: AUNetModule) -> None:
        data = data_of(trainer)
        units = ModelUnits(module.net, data.reader) if module.net.predictors else data.reader
        texts = one_per_script(data.first_texts("val" if "val" in data.corpora else "train"))
        lines = [f"{script:<11} {as_line(text, units)}" for script, text in texts]
        shown = [{"text": text.decode(), "levels": units.levels(text).tolist()} for _, text in texts]
        log_text(trainer, json.dumps(shown, ensure_ascii=False), UNITS)
        say("\nStage boundaries (│ a unit of stage 2 begins, ║ one of stage 3 too, …)", *lines)

    def _show_samples(self, trainer: Trainer, module: AUNetModule) -> None:
        data = data_of(trainer)
        prompts = [prompt.encode() for prompt in self.config.sample_prompts]
        sampled = self.config.sample_bytes, self.config.sample_temperature
        generated = generate(module.net, data.reader, prompts, *sampled, valid_utf8=False)
        samples = [printable(text.decode("utf-8", "replace")) for text in generated]
        say("\nSamples", *(f"» {sample}" for sample in samples))
        log_text(trainer, "\n\n".join(samples), "samples.txt")

    def _show_validity(self, trainer: Trainer, module: AUNetModule) -> None:
        data = data_of(trainer)
        texts: dict[str, list[bytes]] = {}
        for language, text in data.first_texts("val" if "val" in data.corpora else "train", TEXTS):
            texts.setdefault(language, []).append(text)
        counts = validity(module.net, data.reader, texts, self.config.generated_bytes)
        found = as_metrics(counts)
        if trainer.logger is not None:
            trainer.logger.log_metrics(found, step=trainer.global_step)
        if "generated/bytes" in found:
            say(f"\nvalid UTF-8: {found['generated/valid_utf8']:.1%} of {found['generated/bytes']:.0f} generated bytes")

    def _table(self, trainer: Trainer, module: AUNetModule, part: str) -> BpbTable:
        metric = module.metric(part, BitsPerByte)
        languages = {row_of(language): bpb for language, bpb in metric.by_language().items()}
        model = {TOTAL: metric.compute()["bpb"]} | languages
        return BpbTable({"AU-Net": model} | self._ngrams(data_of(trainer), part))

    def _ngrams(self, data: ByteDataModule, part: str) -> dict[str, dict[str, float]]:
        if part not in self._baselines:
            orders = self.config.ngrams
            n_bytes = (
                int(data.corpora["train"].lengths[data.documents["train"]].sum()) if "train" in data.corpora else 0
            )
            if orders and not 0 < n_bytes <= NGRAM_BYTES:
                say(
                    f"n-gram baselines left out: they are for 1 to {NGRAM_BYTES:,} bytes of training text, "
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
        say(table.as_text(f"\nBits per byte on {kind} text after {steps} steps (* lowest)"))
        units = module.metric(part, UnitMetric).compute()
        stages = [f"stage{s + 2}" for s in range(module.config.depth)]
        say("", *(f"bytes per unit {stage}: {units[f'bytes_per_text_unit_{stage}']:.2f}" for stage in stages))
        say(*described(module.metric(part, BoundaryMetric)))
        log_text(trainer, table.as_markdown(), f"{part}_bpb.md")
        log_text(trainer, table.as_csv(), f"{part}_bpb.csv")


def _rows(data: ByteDataModule, row: RowShape) -> str:
    """What a row of training text has: positions by stage, padding, and what it does not see."""
    stages = ", ".join(f"{positions:.1f}" for positions in row.positions)
    padding = max(1 - row.positions[0] / max(row.longest, data.row_ids), 0.0)
    inside, context = data.batches("train").order.inside(), data.context_ids
    unit = "bytes" if data.reader.tokenizer is None else "tokens"
    before = f"what comes before the last {context:,} {unit} of it" if context else "what comes before"
    return (
        f"a row: {stages} positions by stage, {padding:.1%} padding; {inside:.0%} of rows begin inside a document, of "
        f"which they do not see {before}"
    )
