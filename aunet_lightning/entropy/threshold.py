"""Bounds on the entropy: which bytes pass them, and which bounds give a wanted rate.

Bounds are `threshold` (of the entropy, in bits), `rise` (of its increase from byte to byte), or both.
"""

from collections.abc import Sequence

import numpy as np

TOLERANCE = 0.01  # of the wanted number of boundaries
SLACK = 2000  # the widest gap is sought within count ± count / SLACK of the wanted number


def fires(bits: np.ndarray, threshold: float | None, rise: float | None) -> np.ndarray:
    """Returns bool [n], where every given bound is passed. bits: H after BOS and after each byte, float32 [n + 1]."""
    exact = bits.astype(np.float64)  # numpy would round the bounds to float32
    return _passing(exact[1:], np.diff(exact), threshold, rise)


def _passing(
    levels: np.ndarray, rises: np.ndarray, threshold: float | None = None, rise: float | None = None
) -> np.ndarray:
    """Returns bool [n]; levels, rises: entropies after each byte and their increases, float64 [n]."""
    passed = np.ones(len(levels), dtype=bool)
    if threshold is not None:
        passed &= levels > threshold
    if rise is not None:
        passed &= rises > rise
    return passed


def find(bits: Sequence[np.ndarray], rate: float, by: str) -> dict[str, float]:
    """Returns the bounds that give `rate` bytes per boundary: `threshold` (by global), `rise` (by rise), or both at
    the same quantile (by both).

    bits: of each text, as `ByteModel.entropies` yields them. Raises ValueError where no bound comes within 1 %.
    """
    levels = np.concatenate([of_text[1:].astype(np.float64) for of_text in bits])
    rises = np.concatenate([np.diff(of_text.astype(np.float64)) for of_text in bits])
    wanted = len(levels) / rate
    if by == "both":
        bounds = _both(levels, rises, wanted)
    elif by == "rise":
        bounds = {"rise": _bound(rises, wanted)}
    else:
        bounds = {"threshold": _bound(levels, wanted)}
    reached = int(_passing(levels, rises, **bounds).sum())
    if not reached or abs(reached - wanted) > max(TOLERANCE * wanted, 0.5):
        raise ValueError(
            f"--bytes_per_unit {rate:g} cannot be reached: {wanted:.4g} of {len(levels)} bytes should carry a "
            f"boundary, and the nearest bound gives {reached}. Give more text, or another rate"
        )
    return bounds


def _bound(values: np.ndarray, wanted: float) -> float:
    """Returns a bound that about `wanted` values pass: the middle of the widest gap near there."""
    ordered, gaps = _ordered(values)
    count = min(max(round(wanted), 1), len(values))
    low, high = max(count - count // SLACK, 1), min(count + count // SLACK, len(values))
    at = low + int(np.argmax(gaps[low - 1 : high]))
    if not gaps[at - 1]:  # many equal values: take the nearest gap
        there = np.flatnonzero(gaps) + 1
        at = int(there[np.argmin(np.abs(there - count))])
    return _between(ordered, at)


def _both(levels: np.ndarray, rises: np.ndarray, wanted: float) -> dict[str, float]:
    """Returns bounds that equal shares of levels and of rises pass, and that `wanted` bytes pass together."""
    sides = {"threshold": _ordered(levels), "rise": _ordered(rises)}

    def at(count: int) -> dict[str, float]:  # the next gap at or after count, so that more pass as count grows
        return {
            name: _between(ordered, count + int(np.argmax(gaps[count - 1 :] > 0)))
            for name, (ordered, gaps) in sides.items()
        }

    def short_of(count: int) -> float:
        return wanted - float(_passing(levels, rises, **at(count)).sum())

    low, high = 1, len(levels)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if short_of(middle) <= 0 else (middle + 1, high)
    return at(min((low, max(low - 1, 1)), key=lambda count: abs(short_of(count))))


def _ordered(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the values in descending order, followed by one bit less than the least, and the gaps between, [n]."""
    ordered = np.sort(values)[::-1]
    ordered = np.append(ordered, ordered[-1] - 1)
    return ordered, ordered[:-1] - ordered[1:]


def _between(ordered: np.ndarray, count: int) -> float:
    """Returns a number of few digits about half-way between the value at `count` (from 1) and the next one down."""
    high, low = float(ordered[count - 1]), float(ordered[count])
    middle = (high + low) / 2
    return next((x for x in (round(middle, d) for d in range(1, 16)) if abs(x - middle) <= (high - low) / 8), middle)
