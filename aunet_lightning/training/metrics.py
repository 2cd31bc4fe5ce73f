"""Metrics of bits per byte and of units (torchmetrics): sums over batches and devices."""

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from aunet_lightning.data.packing import REFERENCE, Batch, marked
from aunet_lightning.model.aunet import Output
from aunet_lightning.model.units import deferred
from aunet_lightning.vocabulary import EOS, N_BYTES
from splitters import DEFAULT


class BitsPerByte(Metric):
    """Negative log-likelihood in bits ÷ predicted bytes of text, over all text and per language.

    Only targets that are text count, of a token with all its bytes: padding, BOS and EOS are left out of both sums.
    """

    higher_is_better = False
    full_state_update = False
    bits: Tensor  # float64 [languages]
    bytes: Tensor  # float64 [languages]
    predictions: Tensor  # float64 [languages]

    def __init__(self, languages: Sequence[str]) -> None:
        super().__init__()
        self.languages = list(languages)
        for name in ("bits", "bytes", "predictions"):
            self.add_state(name, torch.zeros(max(len(languages), 1), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, nll: Tensor, targets: Tensor, languages: Tensor, sizes: Tensor | None = None) -> None:
        """nll (nats), targets (byte ids) and languages (indices), all of one shape; where targets are tokens, their
        sizes in bytes of text too (0: no text)."""
        if sizes is None:
            sizes = ((targets >= 0) & (targets < N_BYTES)).short()
        scored = sizes > 0
        index = languages[scored]
        self.bits.index_add_(0, index, nll[scored].double() / math.log(2))
        self.bytes.index_add_(0, index, sizes[scored].double())
        self.predictions.index_add_(0, index, torch.ones_like(index, dtype=torch.float64))

    def compute(self) -> Tensor:
        """Returns BPB float64 [1 + languages]: of all text, then of each language (nan where none was seen)."""
        bits = torch.cat([self.bits.sum()[None], self.bits])
        n_bytes = torch.cat([self.bytes.sum()[None], self.bytes])
        return bits / n_bytes

    def bytes_per_token(self) -> float:
        """Returns bytes of text ÷ predictions of text: 1 where bytes are read."""
        return float(self.bytes.sum() / self.predictions.sum())

    def by_language(self, values: Tensor) -> dict[str, float]:
        """Names what `compute` returned, without the languages not seen."""
        named = zip(self.languages, values[1:].tolist(), strict=False)
        return {language: value for language, value in named if not math.isnan(value)}


class UnitMetric(Metric):
    """Units of each stage transition: over all text, and per language.

    A unit's length is in bytes; offsets are in positions of the lower stage. Agreement is the F1 of boundaries on
    bytes against a reference rule, and against the teacher where a splitter has one, where nothing is forced.
    """

    full_state_update = False
    sums: Tensor  # float64 [depth, languages + 1 (text of no language), SUMS]
    longest: Tensor  # float64 [depth, languages + 1]
    dropped: Tensor  # float64 [depth]

    SUMS = (
        "bytes", "units", "positions", "past", "open", "found", "p", "learned",
        "reference", "in_reference", "hits", "taught", "in_taught", "taught_hits",
    )  # fmt: skip

    def __init__(self, depth: int, languages: Sequence[str], max_offset: int) -> None:
        super().__init__()
        self.depth, self.languages, self.max_offset = depth, list(languages), max_offset
        shape = (depth, len(self.languages) + 1)
        self.add_state("sums", torch.zeros(*shape, len(self.SUMS), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("longest", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="max")
        self.add_state("dropped", torch.zeros(depth, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, batch: Batch, output: Output, teachers: Collection[int]) -> None:
        """A batch as of PackedBatches, and what the network gave; transitions with a teacher's marks."""
        ids, language = batch["ids"], batch["languages"]
        language = torch.where(language < 0, len(self.languages), language)
        text = (batch["targets"] >= 0) & (batch["targets"] < N_BYTES)
        self.dropped += output.dropped.sum(0)
        for s, decision in enumerate(output.decisions):
            at, valid, open_, boundary = decision.at, decision.valid, decision.open, decision.boundary
            counted, found = valid & (ids.gather(1, at) != EOS), boundary & open_
            reference = marked(batch, REFERENCE).gather(1, at)
            reference_all = self._on_bytes(marked(batch, REFERENCE), decision.forced, at, ids)
            p = decision.log_odds.sigmoid() * open_ if decision.log_odds is not None else torch.zeros_like(at)
            taught = deferred(marked(batch, s), at, valid) & open_ if s in teachers else torch.zeros_like(open_)
            of_position = language.gather(1, at)
            self._add(s, language, bytes=text, reference=reference_all)
            self._add(
                s, of_position, units=boundary & counted, positions=counted, open=open_, found=found, p=p,
                past=counted & (decision.offset >= self.max_offset),
                learned=open_ & (decision.log_odds is not None),
                in_reference=found, hits=found & reference,
                taught=taught, in_taught=found & (s in teachers), taught_hits=taught & found,
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

    def compute(self) -> dict[str, dict[str, float]]:
        """Returns by stage and language, and by stage alone, what was measured: {"stage2": {"mean_p": …}, …}."""
        found = {}
        for s in range(self.depth):
            found[f"stage{s + 2}"] = self._named(self.sums[s].sum(0), self.longest[s].max())
            for i, language in enumerate(self.languages):
                if self.sums[s, i, 0] > 0:
                    found[f"stage{s + 2}_{language}"] = self._named(self.sums[s, i], self.longest[s, i])
        return found

    def _named(self, sums: Tensor, longest: Tensor) -> dict[str, float]:
        n = dict(zip(self.SUMS, sums.tolist(), strict=True))
        named = {
            "bytes_per_unit": n["bytes"] / max(n["units"], 1),
            "boundary_share": n["found"] / max(n["open"], 1),
            "past_last_offset": n["past"] / max(n["positions"], 1),
            "longest_unit": float(longest),
            f"agreement_{DEFAULT}": f1(n["hits"], n["in_reference"], n["reference"]),
        }
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
