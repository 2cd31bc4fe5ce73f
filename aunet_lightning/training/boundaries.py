"""Measures of where boundaries fall, on held-out text: surprisal, words, and the spread of unit lengths.

Counted are units that begin on a byte of text by the splitter's decision: not where a document or a row begins.
Shapes: B rows, L bytes; sums are over languages, and text of none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from aunet_lightning.data.packing import Batch, context_of, marked
from aunet_lightning.data.words import LETTERS, WORDS
from aunet_lightning.model.aunet import AUNet, Output
from aunet_lightning.tracking.names import metric_name
from aunet_lightning.training.metrics import RunMetric
from aunet_lightning.vocabulary import BOS, EOS, N_BYTES, VOCABULARY

PLACES = 4  # of a byte in its character
LONGEST = 256  # bytes; longer units count as this in percentiles
QUANTILES = (50, 90, 99)
NAMES = {
    "start_surprisal": "{:+.2f} bits at their start against random places",
    "word_kappa": "agreement with words {:.2f} (kappa)",
    "one_word": "{:.0%} are one word",
    "length_cv": "length varies by {:.2f} of its mean",
}
OF_WORDS = ("letters", "hits", "found", "wanted", "whole", "one_word")


class BoundaryMetric(RunMetric):
    """Of each stage transition, over all text and per language:

    `start_surprisal`: bits of the byte after a boundary (the first that the new unit's vector predicts), minus the mean
    over random places at the same rate. That mean is taken exactly, over all bytes that stand at the same place in
    their character: so it is no matter of luck, of the script, or of boundaries inside characters.
    `word_kappa`: agreement of units with words, each from its first letter. Cohen's kappa over all letters is the F1
    corrected for chance, (F1 - E) / (1 - E), where E is that of as many random letters: 0 for those, 1 for words.
    (Random bytes have a little more, as a cut among the blanks before a word counts for it.)
    `one_word`: the share of units with a letter that are exactly one word (and what is no letter).
    `length_cv`, `length_p50` …: standard deviation ÷ mean and percentiles of the bytes of a unit that ends in its row.

    Of tokens, which are not pooled, only the spread is known: `length_cv_token`, …
    """

    everywhere: Tensor  # float64 [languages + 1, PLACES, 2]: bits and number of all bytes
    starts: Tensor  # float64 [stages, languages + 1, PLACES, 2]: of those after a boundary
    words: Tensor  # float64 [stages, languages + 1, OF_WORDS]
    lengths: Tensor  # float64 [stages, languages + 1, LONGEST + 1]: units by length
    moments: Tensor  # float64 [stages, languages + 1, 2]: sums of lengths and of their squares

    def __init__(self, languages: Sequence[str], depth: int, of_tokens: bool = False) -> None:
        super().__init__(languages)
        self.of_tokens = of_tokens
        self.all_lengths = np.zeros((0, 0, 0))  # `lengths` of all devices, as last computed
        self.names = ["token"] if of_tokens else [f"stage{s + 2}" for s in range(depth)]
        n, m = len(self.names), len(self.languages) + 1
        for name, shape in {
            "everywhere": (m, PLACES, 2), "starts": (n, m, PLACES, 2), "words": (n, m, len(OF_WORDS)),
            "lengths": (n, m, LONGEST + 1), "moments": (n, m, 2),
        }.items():  # fmt: skip
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    @classmethod
    def of(cls, net: AUNet, languages: Sequence[str]) -> Self:
        return cls(languages, net.config.depth, net.config.vocabulary > VOCABULARY)

    def update(self, batch: Batch, nats: Tensor, output: Output) -> None:
        language = torch.where(batch["languages"] < 0, len(self.languages), batch["languages"])
        if self.of_tokens:
            text = batch["sizes"] > 0
            self._add_lengths(0, language[text], batch["sizes"][text].long())
        elif self.names:
            self._update(batch, nats, output.levels, language)

    def _update(self, batch: Batch, nats: Tensor, levels: Tensor, language: Tensor) -> None:
        ids, targets = batch["ids"], batch["targets"]
        begins = ids == BOS  # a stretch of the row that is read as one
        begins[:, 0] = True
        stretch = begins.flatten().cumsum(0) - 1
        ended = torch.zeros(int(stretch[-1]) + 1, dtype=torch.bool, device=ids.device)  # with its document, not the row
        ended[stretch[((ids == EOS) | (targets == EOS)).flatten()]] = True
        text, context = ids < N_BYTES, context_of(batch)
        if context is not None:  # its units count in the row that predicts them
            text = text & ~context
        bits, place, scored = nats.double() / math.log(2), _places(ids, targets), batch["sizes"] > 0
        _add_bits(self.everywhere, language[scored], place[scored], bits[scored])
        letters = (marked(batch, LETTERS) & text).flatten().nonzero()[:, 0]
        words, of = marked(batch, WORDS).flatten(), language.flatten()
        for s in range(len(self.names)):
            boundary = (levels > s) & text & ~begins
            first = boundary & scored
            _add_bits(self.starts[s], language[first], place[first], bits[first])
            self._add_words(s, boundary.flatten(), words, letters, stretch, ended, of)
            lengths, starts = _lengths(boundary.flatten(), text.flatten(), stretch, ended)
            self._add_lengths(s, of[starts], lengths)

    def _add_words(
        self, s: int, boundary: Tensor, words: Tensor, letters: Tensor, stretch: Tensor, ended: Tensor, language: Tensor
    ) -> None:
        """Moves each boundary to the next letter, where a unit and a word can begin alike; all flat, [B · L]."""
        so_far, of = boundary.long().cumsum(0)[letters], stretch[letters]
        known = torch.zeros_like(of, dtype=torch.bool)  # the first letter of a stretch is no achievement
        known[1:] = of[1:] == of[:-1]
        unit, word = known.clone(), words[letters]
        unit[1:] &= so_far[1:] > so_far[:-1]
        at = (unit | word | ~known).nonzero()[:, 0]  # where a unit or a word begins
        last = torch.ones_like(at, dtype=torch.bool)
        last[:-1] = of[at[1:]] != of[at[:-1]]
        both = unit[at] & word[at]
        closed = last & ended[of[at]]
        closed[:-1] |= both[1:] & ~last[:-1]
        whole = unit[at] & ~(both & last & ~ended[of[at]])  # where the row ends, it is not known
        add, index = self.words[s], OF_WORDS.index
        for name, counted in {"letters": known, "hits": unit & word, "found": unit, "wanted": word & known}.items():
            add[:, index(name)].index_add_(0, language[letters], counted.double())
        for name, counted in {"whole": whole, "one_word": whole & both & closed}.items():
            add[:, index(name)].index_add_(0, language[letters[at]], counted.double())

    def _add_lengths(self, s: int, language: Tensor, lengths: Tensor) -> None:
        at = language * (LONGEST + 1) + lengths.clamp(max=LONGEST)
        self.lengths[s].view(-1).index_add_(0, at, torch.ones_like(at, dtype=torch.float64))
        both = torch.stack([lengths, lengths**2], 1).double()
        self.moments[s].index_add_(0, language, both)

    def compute(self) -> dict[str, float]:
        """Returns of each stage NAME_stage2 and, of each language seen, stage2/NAME_LANGUAGE; of tokens NAME_token and
        NAME_token_LANGUAGE. What has no value (no words known, no unit) is left out."""
        found: dict[str, float] = {}
        everywhere, starts, words, lengths, moments = (
            state.cpu().numpy() for state in (self.everywhere, self.starts, self.words, self.lengths, self.moments)
        )
        self.all_lengths = lengths
        for s, stage in enumerate(self.names):
            for i, language in enumerate([*map(metric_name, self.languages), None]):
                of = slice(None) if language is None else slice(i, i + 1)
                named = [
                    *_surprisal(everywhere[of], starts[s, of]),
                    *_of_words(words[s, of].sum(0)),
                    *_spread(lengths[s, of].sum(0), moments[s, of].sum(0)),
                ]
                for name, value in named:
                    per = f"{name}_{stage}" if language is None else f"{stage}/{name}_{language}"
                    found[f"{name}_{stage}_{language}" if language is not None and self.of_tokens else per] = value
        return found


def _places(ids: Tensor, targets: Tensor) -> Tensor:
    """Returns the place of each target in its UTF-8 character, 0 to PLACES - 1, [B, L]."""
    stream = torch.cat([ids[:, :1], torch.where(targets < 0, ids.roll(-1, 1), targets)], 1)
    at = torch.arange(stream.shape[1], device=ids.device)
    begins = (stream < 0x80) | (stream >= 0xC0)
    since = at - torch.where(begins, at, 0).cummax(1).values
    return since.clamp(max=PLACES - 1)[:, 1:]


def _add_bits(sums: Tensor, language: Tensor, place: Tensor, bits: Tensor) -> None:
    both = torch.stack([bits, torch.ones_like(bits)], 1)
    sums.view(-1, 2).index_add_(0, language * PLACES + place, both)


def _lengths(boundary: Tensor, text: Tensor, stretch: Tensor, ended: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the bytes of each unit whose end is in its row, and where these units begin, all flat."""
    starts, so_far = boundary.nonzero()[:, 0], text.long().cumsum(0)
    ends = torch.zeros(len(ended), dtype=torch.long, device=text.device).scatter_reduce_(0, stretch, so_far, "amax")
    of = stretch[starts]
    lengths, whole = ends[of] - so_far[starts] + 1, ended[of]
    inside = of[1:] == of[:-1]  # another unit follows
    lengths[:-1] = torch.where(inside, so_far[starts[1:]] - so_far[starts[:-1]], lengths[:-1])
    whole[:-1] |= inside
    return lengths[whole], starts[whole]


def _surprisal(everywhere: np.ndarray, starts: np.ndarray) -> Iterator[tuple[str, float]]:
    """Yields bits at unit starts above those of random places: [languages, PLACES, 2] each."""
    number = float(starts[..., 1].sum())
    if number:
        random = starts[..., 1] * everywhere[..., 0] / np.maximum(everywhere[..., 1], 1)
        yield "start_surprisal", float((starts[..., 0] - random).sum()) / number


def _of_words(sums: np.ndarray) -> Iterator[tuple[str, float]]:
    n = dict(zip(OF_WORDS, sums.tolist(), strict=True))
    if n["wanted"]:
        yield "word_kappa", kappa(n["letters"], n["hits"], n["found"], n["wanted"])
    if n["wanted"] and n["whole"]:
        yield "one_word", n["one_word"] / n["whole"]


def kappa(places: float, hits: float, found: float, wanted: float) -> float:
    """Returns Cohen's kappa of two choices among places; 1 where both chose all or none of them."""
    by_chance = 2 * found * wanted / places
    return (2 * hits - by_chance) / (found + wanted - by_chance) if found + wanted > by_chance else 1.0


def _spread(lengths: np.ndarray, moments: np.ndarray) -> Iterator[tuple[str, float]]:
    number, (total, squares) = float(lengths.sum()), moments.tolist()
    if number:
        mean = total / number
        yield "length_cv", math.sqrt(max(squares / number - mean**2, 0.0)) / mean
        so_far = np.cumsum(lengths)
        for quantile in QUANTILES:
            yield f"length_p{quantile}", float(np.searchsorted(so_far, quantile / 100 * number))


def described(metric: BoundaryMetric) -> list[str]:
    """Returns a line per stage for a run's report, over all text; metrics have each language."""
    found, lines = metric.compute(), []
    for stage in metric.names:
        of = {name: found[f"{name}_{stage}"] for name in NAMES if f"{name}_{stage}" in found}
        shown = [NAMES[name].format(value) for name, value in of.items()]
        if "word_kappa" not in of and not metric.of_tokens and shown:
            shown.append("agreement with words unknown (it needs text, and pip install 'aunet-lightning[words]')")
        lines += [f"{'tokens' if metric.of_tokens else f'units {stage}'}: {', '.join(shown)}"] if shown else []
    return lines
