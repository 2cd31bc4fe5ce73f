"""Metrics of a run on held-out text (torchmetrics): sums over batches and devices."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Collection, Sequence
from typing import Self

import torch
from torch import Tensor
from torchmetrics import Metric

from aunet_lightning.data.packing import REFERENCE, Batch, context_of, marked
from aunet_lightning.model.aunet import AUNet, Output
from aunet_lightning.model.units import deferred
from aunet_lightning.registry import Registry
from aunet_lightning.tracking.names import metric_name
from aunet_lightning.vocabulary import EOS, N_BYTES, VOCABULARY
from splitters import DEFAULT

METRICS = Registry("model.metrics", "aunet_lightning.training.metrics:RunMetric", {})  # besides those of every run


class RunMetric(Metric):
    """Numbers of the held-out text of a part (val, test): made anew for each validation.

    Its sums are states (`add_state(name, zeros, dist_reduce_fx="sum")`), which `compute` finds added up over devices.
    """

    full_state_update = False

    def __init__(self, languages: Sequence[str]) -> None:
        super().__init__()
        self.languages = list(languages)

    @classmethod
    def of(cls, net: AUNet, languages: Sequence[str]) -> Self:
        """Returns the metric of a network, for text in `languages`, which a batch's `languages` index."""
        return cls(languages)

    @abstractmethod
    def update(self, batch: Batch, nats: Tensor, output: Output) -> None:
        """Adds a batch of PackedBatches, with nats [B, L] of its targets (0 where ignored) and the network's output."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Returns what is logged, by name: NAME as PART/NAME, stageN/NAME as PART_stageN/NAME."""


class BitsPerByte(RunMetric):
    """Negative log-likelihood in bits ÷ predicted bytes of text, over all text and per language.

    Only targets that are text count, of a token with all its bytes: padding, BOS and EOS are left out of both sums.
    """

    higher_is_better = False
    bits: Tensor  # float64 [languages]
    bytes: Tensor  # float64 [languages]
    predictions: Tensor  # float64 [languages]

    def __init__(self, languages: Sequence[str], of_tokens: bool = False) -> None:
        super().__init__(languages)
        self.of_tokens = of_tokens
        for name in ("bits", "bytes", "predictions"):
            self.add_state(name, torch.zeros(max(len(languages), 1), dtype=torch.float64), dist_reduce_fx="sum")

    @classmethod
    def of(cls, net: AUNet, languages: Sequence[str]) -> Self:
        return cls(languages, net.config.vocabulary > VOCABULARY)

    def update(self, batch: Batch, nats: Tensor, output: Output | None = None) -> None:
        sizes = batch["sizes"]
        scored = sizes > 0
        index = batch["languages"][scored]
        self.bits.index_add_(0, index, nats[scored].double() / math.log(2))
        self.bytes.index_add_(0, index, sizes[scored].double())
        self.predictions.index_add_(0, index, torch.ones_like(index, dtype=torch.float64))

    def compute(self) -> dict[str, float]:
        """Returns `bpb` (nan without text), of tokens `bytes_per_token`, and `bpb_LANGUAGE` of each language seen."""
        found = {"bpb": float(self.bits.sum() / self.bytes.sum())}
        if self.of_tokens:
            found["bytes_per_token"] = float(self.bytes.sum() / self.predictions.sum())
        values = zip(self.languages, (self.bits / self.bytes).tolist(), strict=False)
        return found | {f"bpb_{metric_name(language)}": bpb for language, bpb in values if not math.isnan(bpb)}

    def by_language(self) -> dict[str, float]:
        """Returns the BPB of each language seen."""
        found, names = self.compute(), {language: f"bpb_{metric_name(language)}" for language in self.languages}
        return {language: found[name] for language, name in names.items() if name in found}


class UnitMetric(RunMetric):
    """Units of each stage transition: over all text, and per language.

    A unit's length is in bytes; offsets are in positions of the lower stage. `bytes_per_text_unit` leaves out units
    that a BOS or the beginning of a row forces, as `aunet rate` does; `bytes_per_unit` counts them, as the stage has a
    position for each. Agreement is the F1 of boundaries on bytes against a reference rule, and against the teacher
    where a splitter has one, where nothing is forced.
    """

    sums: Tensor  # float64 [depth, languages + 1 (text of no language), SUMS]
    longest: Tensor  # float64 [depth, languages + 1]
    dropped: Tensor  # float64 [depth]

    SUMS = (
        "bytes", "units", "text_units", "positions", "past", "open", "found", "p", "learned", "refreshes",
        "reference", "in_reference", "hits", "taught", "in_taught", "taught_hits",
    )  # fmt: skip

    def __init__(self, languages: Sequence[str], depth: int, max_offset: int, teachers: Collection[int] = ()) -> None:
        super().__init__(languages)
        self.depth, self.max_offset = depth, max_offset
        self.teachers = teachers  # transitions with a teacher's marks
        shape = (depth, len(self.languages) + 1)
        self.add_state("sums", torch.zeros(*shape, len(self.SUMS), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("longest", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="max")
        self.add_state("dropped", torch.zeros(depth, dtype=torch.float64), dist_reduce_fx="sum")

    @classmethod
    def of(cls, net: AUNet, languages: Sequence[str]) -> Self:
        learned = net.stack.learned if net.stack is not None else {}
        teachers = {s for s, rule in learned.items() if rule.teacher is not None}
        return cls(languages, net.config.depth, net.config.max_offset, teachers)

    def update(self, batch: Batch, nats: Tensor | None, output: Output) -> None:
        ids, language = batch["ids"], batch["languages"]
        language = torch.where(language < 0, len(self.languages), language)
        text = (batch["targets"] >= 0) & (batch["targets"] < N_BYTES)
        self.dropped += output.dropped.sum(0)
        context = context_of(batch)  # whose units count in the row that predicts them
        own = torch.ones_like(text) if context is None else ~context
        for s, decision in enumerate(output.decisions):
            at, boundary = decision.at, decision.boundary
            valid, open_ = (of & own.gather(1, at) for of in (decision.valid, decision.open))
            counted, found = valid & (ids.gather(1, at) != EOS), boundary & open_
            reference = marked(batch, REFERENCE).gather(1, at)
            reference_all = self._on_bytes(marked(batch, REFERENCE) & own, decision.forced, at, ids)
            p = decision.log_odds.sigmoid() * open_ if decision.log_odds is not None else torch.zeros_like(at)
            taught = deferred(marked(batch, s), at, valid) & open_ if s in self.teachers else torch.zeros_like(open_)
            of_position = language.gather(1, at)
            self._add(s, language, bytes=text, reference=reference_all)
            self._add(
                s, of_position, units=boundary & counted, text_units=boundary & counted & ~decision.forced,
                positions=counted, open=open_, found=found, p=p, past=counted & (decision.offset >= self.max_offset),
                refreshes=decision.refresh & valid if decision.refresh is not None else torch.zeros_like(at),
                learned=open_ & (decision.log_odds is not None),
                in_reference=found, hits=found & reference,
                taught=taught, in_taught=found & (s in self.teachers), taught_hits=taught & found,
            )  # fmt: skip
            lengths = _lengths(output.levels > s, ids).to(self.longest.dtype)
            self.longest[s].scatter_reduce_(0, language.flatten(), lengths.flatten(), "amax")

    def _add(self, s: int, language: Tensor, **counted: Tensor) -> None:
        for name, values in counted.items():
            self.sums[s, :, self.SUMS.index(name)].index_add_(0, language.flatten(), values.flatten().double())

    @staticmethod
    def _on_bytes(marks: Tensor, forced: Tensor, at: Tensor, ids: Tensor) -> Tensor:
        """The reference's boundaries on bytes where nothing is forced, bool [B, L]."""
        forced_bytes = torch.zeros_like(ids).scatter_add(1, at, forced.long()) > 0
        return marks & ~forced_bytes & (ids < N_BYTES)

    def compute(self) -> dict[str, float]:
        """Returns of each stage NAME_stage2 and, of each language seen, stage2/NAME_LANGUAGE."""
        found: dict[str, float] = {}
        for s in range(self.depth):
            stage = f"stage{s + 2}"
            of_all = self._named(self.sums[s].sum(0), self.longest[s].max())
            found |= {f"{name}_{stage}": value for name, value in of_all.items()}
            for i, language in enumerate(map(metric_name, self.languages)):
                if self.sums[s, i, 0] > 0:
                    of_language = self._named(self.sums[s, i], self.longest[s, i])
                    found |= {f"{stage}/{name}_{language}": value for name, value in of_language.items()}
        return found | {f"dropped_stage{s + 2}": n for s, n in enumerate(self.dropped.tolist()) if n}

    def _named(self, sums: Tensor, longest: Tensor) -> dict[str, float]:
        n = dict(zip(self.SUMS, sums.tolist(), strict=True))
        named = {
            "bytes_per_unit": n["bytes"] / max(n["units"], 1),
            "bytes_per_text_unit": n["bytes"] / max(n["text_units"], 1),
            "boundary_share": n["found"] / max(n["open"], 1),
            "past_last_offset": n["past"] / max(n["positions"], 1),
            "longest_unit": float(longest),
            f"agreement_{DEFAULT}": f1(n["hits"], n["in_reference"], n["reference"]),
        }
        if n["refreshes"]:
            named["refreshes_per_byte"] = n["refreshes"] / max(n["bytes"], 1)
        if n["learned"]:
            named["mean_p"] = n["p"] / n["learned"]
        if n["taught"]:
            named["teacher_precision"] = n["taught_hits"] / max(n["in_taught"], 1)
            named["teacher_recall"] = n["taught_hits"] / n["taught"]
            named["teacher_f1"] = f1(n["taught_hits"], n["in_taught"], n["taught"])
        return named


def f1(hits: float, found: float, wanted: float) -> float:
    """Returns the harmonic mean of hits / found and hits / wanted; 1 where there is nothing to find, and nothing is."""
    return 2 * hits / (found + wanted) if found + wanted else 1.0


def _lengths(begins: Tensor, ids: Tensor) -> Tensor:
    """Bytes of text from each position's boundary up to it, [B, L]."""
    text = (ids < N_BYTES).long()
    so_far = text.cumsum(1)
    before = torch.where(begins, so_far - text, -1).cummax(1).values.clamp(min=0)
    return so_far - before
