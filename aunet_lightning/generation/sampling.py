"""How the next byte (or token) is chosen from a model's logits.

On the host, in float64: what is chosen does not depend on the device, nor on the other rows.
Shapes: R rows, V ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aunet_lightning.numbers import Range, check
from aunet_lightning.vocabulary import BOS

TEMPERATURES = Range(least=0.001, most=1000)  # beyond, logits ÷ temperature leave what float32 has; 0 is another way
BYTES = Range(least=0, most=10**12)


@dataclass(frozen=True)
class Sampling:
    """How texts are continued. Raises ValueError for values that cannot be.

    In this order: `repetition_penalty` divides the logits of ids that the text has, where they are positive, and
    multiplies them where they are negative (1902.05858); `valid_utf8` leaves only ids that continue a well-formed text;
    `temperature` divides the logits, and 0 takes the most likely id; then are left the `top_k` most likely ids, the
    fewest that together have `top_p` of the probability (1904.09751), and those with at least `min_p` of the
    probability of the most likely one (2407.01082).
    """

    max_bytes: int = 200  # of each text
    max_units: int | None = None  # of stage 2, or tokens, that it begins
    temperature: float = 0.8
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[bytes, ...] = ()  # a text ends before the first of these
    valid_utf8: bool = True

    def __post_init__(self) -> None:
        check_sampling(self.max_bytes, self.temperature)
        check("units", self.max_units, Range(least=1), whole=True)
        check("top_k", self.top_k, Range(least=1), whole=True)
        check("top_p", self.top_p, Range(above=0, most=1))
        check("min_p", self.min_p, Range(least=0, most=1))
        check("repetition_penalty", self.repetition_penalty, Range(least=0.01, most=100))
        if not all(self.stop):
            raise ValueError("stop: an empty string is in every text, so nothing would be generated: leave it out")


def check_sampling(n_bytes: int, temperature: float, prefix: str = "") -> None:
    """Raises ValueError for what cannot be sampled, with `prefix` before the names of the settings."""
    check(f"{prefix}bytes", n_bytes, BYTES, whole=True)
    if temperature != 0:
        try:
            check(f"{prefix}temperature", temperature, TEMPERATURES)
        except ValueError as error:
            raise ValueError(f"{error}, or 0 for the most likely byte") from None


def choose(
    logits: np.ndarray,
    sampling: Sampling,
    draws: Sequence[float],
    allowed: np.ndarray | None = None,
    seen: np.ndarray | None = None,
) -> tuple[list[int], list[float]]:
    """Returns an id for each row of logits [R, V], and the probability that the model gave ids that are not `allowed`.

    draws [R]: uniform in [0, 1). allowed: bool [R, V]; None: all. seen: bool [R, V], the ids that each text has; None
    where nothing is repeated. Raises ValueError for logits that are not finite.
    """
    logits = np.array(logits, np.float64)
    if not np.isfinite(logits).all():
        raise ValueError("the model's logits are not finite: it has diverged in training, so name an older checkpoint")
    logits[:, BOS] = -np.inf  # a document has one beginning
    removed = [0.0] * len(logits)
    if allowed is not None:
        removed = np.where(allowed, 0.0, softmax(logits)).sum(-1).tolist()
    if seen is not None:
        factor = np.where(logits > 0, 1 / sampling.repetition_penalty, sampling.repetition_penalty)
        logits = np.where(seen, logits * factor, logits)
    if allowed is not None:
        logits[~allowed] = -np.inf
    if sampling.temperature == 0:
        return logits.argmax(-1).tolist(), removed
    kept = _kept(softmax(logits / sampling.temperature), sampling)
    sums = kept.cumsum(-1)
    points = np.minimum(np.asarray(draws) * sums[:, -1], np.nextafter(sums[:, -1], 0))
    return [int(np.searchsorted(row, point, "right")) for row, point in zip(sums, points, strict=True)], removed


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the probabilities [R, V] of logits [R, V], of which some may be -inf."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def _kept(p: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Returns probabilities [R, V] with 0 for ids that are left out."""
    if sampling.top_k is None and sampling.top_p == 1 and sampling.min_p == 0:
        return p
    order = np.argsort(-p, axis=-1, kind="stable")
    sorted_ = np.take_along_axis(p, order, -1)
    if sampling.top_k is not None:
        sorted_[:, sampling.top_k :] = 0
    sums = sorted_.cumsum(-1)
    sorted_[sums - sorted_ >= sampling.top_p * sums[:, -1:]] = 0
    sorted_[sorted_ < sampling.min_p * sorted_[:, :1]] = 0
    kept = np.zeros_like(p)
    np.put_along_axis(kept, order, sorted_, -1)
    return kept
