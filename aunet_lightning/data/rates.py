"""Positions of each stage on the training text, from which a run's cost is computed before it trains."""

import math
from typing import NamedTuple

import numpy as np

from aunet_lightning.data.datamodule import ByteDataModule
from aunet_lightning.data.packing import REFRESH, marked
from aunet_lightning.reader.levels import at_start
from aunet_lightning.reader.reader import ByteReader
from aunet_lightning.vocabulary import EOS, N_BYTES
from splitters.registry import Spec

ROWS = 256  # sampled, at most
DEFAULT_LENGTH = 6.0  # bytes per unit of a learned splitter without a target rate or a teacher


class RowShape(NamedTuple):
    """The mean row of the training text, without padding."""

    text_bytes: float  # bytes of text that it predicts
    positions: tuple[float, ...]  # per stage; at the first: ids, BOS and EOS among them
    units: tuple[float, ...]  # that begin on text, per stage transition: not those of BOS, a row's beginning, a context
    refreshes: float = 0.0  # inside units of stage 2
    context: float = 0.0  # positions of the first stage, among the above, that predict nothing
    longest: int = 0  # positions of the first stage in the longest row

    @property
    def bytes_per_unit(self) -> tuple[float, ...]:
        """Bytes of text per unit that begins on text, per stage transition."""
        return tuple(self.text_bytes / n if n else math.inf for n in self.units)


def mean_row(data: ByteDataModule) -> RowShape:
    """Returns the mean row of the training text (a sample of it, the same each time), split by the run's rules.

    A learned splitter is replaced by units of equal length: its target (of the first step, where a run needs the most
    memory), or its teacher's mean.
    """
    depth = data.reader.stack.depth
    known = ByteReader([_known(s, data) for s in range(depth)]) if depth else data.reader
    batches = data.batches("train", known)
    n = min(batches.n_rows, ROWS)
    rows = [batches.row(0, int(r)) for r in np.linspace(0, batches.n_rows - 1, n)]
    levels = [at_start(row["levels"], depth) for row in rows]
    positions = [sum(int((of_row >= s).sum()) for of_row in levels) / n for s in range(depth + 1)]
    text = [(row["ids"] < N_BYTES) & (row["documents"] >= 0) for row in rows]
    begun = [
        sum(int(((row["levels"] > s) & of).sum()) for row, of in zip(rows, text, strict=True)) / n for s in range(depth)
    ]
    context = sum(int(((row["documents"] < 0) & (row["ids"] != EOS)).sum()) for row in rows) / n
    longest = max((len(row["ids"]) for row in rows), default=0)
    refreshes = sum(int(marked(row, REFRESH)[1:].sum()) for row in rows) / n
    text_bytes = sum(int(row["sizes"].sum()) for row in rows) / n
    return RowShape(text_bytes, tuple(positions), tuple(begun), refreshes, context, longest)


def _known(s: int, data: ByteDataModule) -> Spec:
    stack = data.reader.stack
    if s not in stack.learned:
        return stack.rules[s]
    rule = stack.learned[s]
    length = rule.bytes_per_unit
    if rule.by_language:
        corpus, documents = data.corpora["train"], data.documents["train"]
        sizes = np.bincount(corpus.languages[documents], corpus.lengths[documents], len(corpus.language_names))
        others = length or DEFAULT_LENGTH
        lengths = np.array([rule.by_language.get(name, others) for name in corpus.language_names])
        length = float(sizes.sum() / max((sizes / lengths).sum(), 1))
    if s in data.teachers and length is None:
        texts = [data.corpora["train"].text(int(d)).tobytes() for d in data.documents["train"][:20]]
        n_boundaries = sum(int(data.teachers[s].split(text).sum()) for text in texts)
        length = sum(map(len, texts)) / max(n_boundaries, 1)
    return {"name": "fixed", "n": max(round(length or DEFAULT_LENGTH), 1)}
