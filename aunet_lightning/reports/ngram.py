"""A byte n-gram model with Witten–Bell back-off: a yardstick for trained models.

p_n(b | c) = (N(c b) + T(c) · p_{n-1}(b | shorter c)) / (N(c) + T(c)), with counts N and T(c) the
number of distinct bytes seen after c; p_0 = 1/256 (Witten & Bell 1991).
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from aunet_lightning.reports.table import TOTAL, row_of
from aunet_lightning.training.report_config import MAX_ORDER


class ByteNGram:
    """Counts of all n-grams up to an order, within documents. Vectorised; a test has the plain form."""

    def __init__(self, order: int, documents: Iterable[bytes]) -> None:
        if not 1 <= order <= MAX_ORDER:
            raise ValueError(f"ngram: order is {order}, it must be 1 to {MAX_ORDER}")
        self.order = order
        texts = [np.frombuffer(document, np.uint8) for document in documents]
        self._grams: list[tuple[np.ndarray, np.ndarray]] = []  # per n: sorted n-grams, and N
        self._contexts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # sorted contexts, N and T
        for n in range(1, order + 1):
            grams, counts = np.unique(_joined(texts, n), return_counts=True)
            contexts, first, kinds = np.unique(grams >> 8, return_index=True, return_counts=True)
            totals = np.add.reduceat(counts, first) if len(first) else counts
            self._grams.append((grams, counts))
            self._contexts.append((contexts, totals, kinds))

    def bits(self, document: bytes) -> float:
        """Returns the bits of the document, each byte given those before it in the document."""
        text = np.frombuffer(document, np.uint8)
        p = np.full(len(text), 1 / 256)
        for n in range(1, min(self.order, len(text)) + 1):
            grams = _packed(text, n)  # the n-gram that ends at byte n-1, n, …
            seen = _look_up(*self._grams[n - 1], grams)
            contexts, totals, kinds = self._contexts[n - 1]
            total, kind = _look_up(contexts, totals, grams >> 8), _look_up(contexts, kinds, grams >> 8)
            here = p[n - 1 :]
            known = total > 0
            here[known] = (seen[known] + kind[known] * here[known]) / (total[known] + kind[known])
        return float(-np.log2(p).sum()) if len(text) else 0.0


def bpb_by_language(
    order: int, train: Sequence[tuple[str, bytes]], held_out: Sequence[tuple[str, bytes]]
) -> dict[str, float]:
    """Returns BPB of held-out documents by language, and of all under TOTAL, after training on all of `train`."""
    model = ByteNGram(order, (text for _, text in train))
    bits: dict[str, float] = {}
    n_bytes: dict[str, int] = {}
    for language, text in held_out:
        cost = model.bits(text)
        for key in (row_of(language), TOTAL):
            bits[key] = bits.get(key, 0.0) + cost
            n_bytes[key] = n_bytes.get(key, 0) + len(text)
    return {key: bits[key] / n_bytes[key] if n_bytes[key] else math.nan for key in bits}


def _packed(text: np.ndarray, n: int) -> np.ndarray:
    """All n-grams of a text as int64 [len - n + 1], the last byte lowest."""
    grams = np.zeros(max(len(text) - n + 1, 0), np.int64)
    for i in range(n):
        grams = grams << 8 | text[i : i + len(grams)]
    return grams


def _joined(texts: Sequence[np.ndarray], n: int) -> np.ndarray:
    return np.concatenate([_packed(text, n) for text in texts]) if texts else np.zeros(0, np.int64)


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The values of the wanted keys (keys are sorted); 0 for those that are absent."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64)
    at = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)
