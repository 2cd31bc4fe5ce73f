"""Bounds on the entropy: which bytes pass them, and which bounds give a wanted rate.

Bounds are `threshold` (of the entropy, in bits), `rise` (of its increase from byte to byte), or both. They may differ
by script: a byte's group is the place of its script in a list.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from splitters.engine.compiled import compiled

TOLERANCE = 0.01  # of the wanted number of boundaries
LEAST = 20  # boundaries that the default bound of scripts is found on
SLACK = 2000  # the widest gap is sought within count ± count / SLACK of the wanted number


@dataclass(frozen=True)
class Bounds:
    """The bounds of each group, float64 [G]; -inf where there is none.

    With `rates` (bytes per unit, [G]) the bounds follow the text: they rise by `follow` bits for each boundary that its
    group has had too many so far, and fall by as much for each too few. As an entropy is never below 0 and never above
    8.01 bits, a group has at any time at most about 8 / follow boundaries too many or too few, whatever the text.
    """

    threshold: np.ndarray
    rise: np.ndarray
    rates: np.ndarray | None = None
    follow: float = 0.0

    def fires(self, bits: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Returns bool [n], where all bounds are passed.

        bits: H after BOS and after each byte, float32 [n + 1]; groups: of each byte, int64 [n].
        """
        if self.rates is None:
            return fires(bits, self.threshold[groups], self.rise[groups])
        exact = bits.astype(np.float64)
        return compiled(run_following)(
            exact[1:], np.diff(exact), groups, self.threshold, self.rise, self.rates, self.follow
        )

    def shift(self, group: int, read: int, found: int) -> float:
        """Returns the bits that are added to a group's bounds after `read` bytes and `found` boundaries of it."""
        return 0.0 if self.rates is None else self.follow * (found - read / float(self.rates[group]))


def fires(bits: np.ndarray, threshold: float | np.ndarray | None, rise: float | np.ndarray | None) -> np.ndarray:
    """Returns bool [n], where every given bound is passed. bits: H after BOS and after each byte, float32 [n + 1]."""
    exact = bits.astype(np.float64)  # numpy would round the bounds to float32
    return _passing(exact[1:], np.diff(exact), threshold, rise)


def _passing(
    levels: np.ndarray,
    rises: np.ndarray,
    threshold: float | np.ndarray | None = None,
    rise: float | np.ndarray | None = None,
) -> np.ndarray:
    """Returns bool [n]; levels, rises: entropies after each byte and their increases, float64 [n]."""
    passed = np.ones(len(levels), dtype=bool)
    if threshold is not None:
        passed &= levels > threshold
    if rise is not None:
        passed &= rises > rise
    return passed


def run_following(
    levels: np.ndarray,
    rises: np.ndarray,
    groups: np.ndarray,
    threshold: np.ndarray,
    rise: np.ndarray,
    rates: np.ndarray,
    follow: float,
) -> np.ndarray:
    """The loop of `Bounds.fires` where bounds follow the text (its other form is `Bounds.shift`, byte by byte)."""
    out = np.empty(len(levels), np.bool_)
    read, found = np.zeros(len(rates), np.int64), np.zeros(len(rates), np.int64)
    for t in range(len(levels)):
        group = groups[t]
        shift = follow * (found[group] - read[group] / rates[group])
        out[t] = levels[t] > threshold[group] + shift and rises[t] > rise[group] + shift
        read[group] += 1
        found[group] += out[t]
    return out


def find(bits: Sequence[np.ndarray], rate: float, by: str) -> dict[str, float]:
    """Returns the bounds that give `rate` bytes per boundary: `threshold` (by global), `rise` (by rise), or both at
    the same quantile (by both).

    bits: of each text, as `ByteModel.entropies` yields them. Raises ValueError where no bound comes within 1 %.
    """
    return _find(*_levels_and_rises(bits), rate, by)


def find_by_script(
    bits: Sequence[np.ndarray], groups: Sequence[np.ndarray], rates: dict[str, float], by: str
) -> dict[str, dict[str, float]]:
    """Returns the same for each script, by name: {threshold: {Han: 1.2, default: 1}}.

    groups: of each text, the group of each byte; rates: in the order of groups, `default` last. Where hardly any text
    is in another script, the default bounds are those of all text. Raises ValueError where a named one has none.
    """
    levels, rises = _levels_and_rises(bits)
    group = np.concatenate(groups)
    found: dict[str, dict[str, float]] = {}
    for number, (script, rate) in enumerate(rates.items()):
        mine = group == number
        if number == len(rates) - 1 and mine.sum() < LEAST * rate:
            mine = np.ones(len(group), bool)
        if not mine.any():
            raise ValueError(f"--bytes_per_unit names {script}, and the text has none: give text in it")
        try:
            bounds = _find(levels[mine], rises[mine], rate, by)
        except ValueError as error:
            raise ValueError(f"of text in {script}, {error}") from None
        for name, bound in bounds.items():
            found.setdefault(name, {})[script] = bound
    return found


def _levels_and_rises(bits: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the entropies after each byte of all texts, and their increases, float64 [n]."""
    levels = np.concatenate([of_text[1:].astype(np.float64) for of_text in bits])
    return levels, np.concatenate([np.diff(of_text.astype(np.float64)) for of_text in bits])


def _find(levels: np.ndarray, rises: np.ndarray, rate: float, by: str) -> dict[str, float]:
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
