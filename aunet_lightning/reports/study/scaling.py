"""How BPB falls as compute grows, and where curves meet: laws over budgets and over rates, fitted to each draw of a
study's results, so that what follows from them has an interval.

Shapes: n draws, K budgets or rates of one arm.
"""

from typing import NamedTuple

import numpy as np

from aunet_lightning.reports.study.inference import LEVEL

EXPONENTS = np.geomspace(0.01, 3, 800)
BLOCK = 64  # draws at a time: their arrays stay in the processor's cache
AHEAD = 100.0  # how many times the largest budget curves are followed


class Laws(NamedTuple):
    """BPB = floor + scale · (budget / unit)^−exponent, one law per draw: arrays [n]."""

    floor: np.ndarray
    scale: np.ndarray
    exponent: np.ndarray
    unit: float  # the largest budget

    def at(self, budget: np.ndarray | float) -> np.ndarray:
        """Returns the BPB at a budget."""
        return self.floor + self.scale * (np.asarray(budget) / self.unit) ** -self.exponent

    def needed(self, bpb: np.ndarray) -> np.ndarray:
        """Returns the budget at which a law comes down to a BPB; infinite where that is at its floor or below."""
        above = np.maximum(bpb - self.floor, 0.0)
        with np.errstate(divide="ignore", over="ignore"):
            return self.unit * np.where(above > 0, (self.scale / above) ** (1 / self.exponent), np.inf)


def fit_laws(budgets: np.ndarray, bpb: np.ndarray) -> Laws:
    """Fits a saturating power law to bpb [n, K] at budgets [K], by least squares; with two budgets its floor is 0.

    For each of many exponents the floor and the scale are a linear problem, of which the floor may not be negative.
    Raises ValueError with fewer than two budgets.
    """
    if len(budgets) < 2:
        raise ValueError("a law over budgets needs two budgets or more")
    unit = float(np.max(budgets))
    powers = (np.asarray(budgets) / unit) ** -EXPONENTS[:, None]  # [exponents, K]
    found = [_fitted(powers, bpb[i : i + BLOCK]) for i in range(0, len(bpb), BLOCK)]
    floor, scale, exponent = map(np.concatenate, zip(*found, strict=True))
    return Laws(floor, scale, exponent, unit)


def _fitted(powers: np.ndarray, bpb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns floor, scale and exponent of the best law of each draw [n]."""
    mean, centred = powers.mean(1, keepdims=True), powers - powers.mean(1, keepdims=True)
    scale = bpb @ centred.T / (centred**2).sum(1)  # [n, exponents]
    floor = bpb.mean(1, keepdims=True) - scale * mean[:, 0]
    without = bpb @ powers.T / (powers**2).sum(1)
    free = (floor >= 0) & (scale >= 0) & (powers.shape[1] > 2)
    floor, scale = np.where(free, floor, 0.0), np.where(free, scale, without)
    errors = (floor + scale * power - of[:, None] for power, of in zip(powers.T, bpb.T, strict=True))
    best, rows = sum(error**2 for error in errors).argmin(1), np.arange(len(bpb))
    return floor[rows, best], scale[rows, best], EXPONENTS[best]


def multiplier(laws: Laws, reference: Laws) -> np.ndarray:
    """Returns how many times the largest budget an arm needs for the BPB that the reference has there [n]."""
    return laws.needed(reference.at(reference.unit)) / reference.unit


def crossing(laws: Laws, other: Laws, least: float) -> np.ndarray:
    """Returns the smallest budget from `least` to AHEAD times the largest at which two laws are equal [n]; nan where
    they are not within it."""
    grid = np.geomspace(least, AHEAD * laws.unit, 400)
    apart = laws.at(grid[:, None]) - other.at(grid[:, None])  # [grid, n]
    changes = (apart[1:] > 0) != (apart[:-1] > 0)
    first, places = changes.argmax(0), np.arange(apart.shape[1])
    before, after = apart[first, places], apart[first + 1, places]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # where they do not cross
        share = before / (before - after)  # of the way to the next place, over the logarithm of the budget
        return np.where(changes.any(0), grid[first] * (grid[first + 1] / grid[first]) ** share, np.nan)


class Best(NamedTuple):
    """The best rate of a rule, per draw: arrays [n]."""

    rate: np.ndarray  # bytes per unit
    bpb: np.ndarray
    at_edge: np.ndarray  # bool: whether it is the shortest or the longest rate that was tried


def best_rate(rates: np.ndarray, bpb: np.ndarray) -> Best:
    """Returns where BPB [n, K] over rates [K], each a parabola over the logarithm of the rate through the lowest one
    and its neighbours, is lowest."""
    order = np.argsort(rates)
    x, bpb = np.log(np.asarray(rates)[order]), bpb[:, order]
    lowest, rows = bpb.argmin(1), np.arange(len(bpb))
    at_edge = (lowest == 0) | (lowest == len(x) - 1)
    middle = np.clip(lowest, 1, max(len(x) - 2, 1))
    if len(x) < 3:
        return Best(np.exp(x[lowest]), bpb[rows, lowest], np.ones(len(bpb), dtype=bool))
    left, right = x[middle - 1] - x[middle], x[middle + 1] - x[middle]
    low, high = (bpb[rows, middle + i] - bpb[rows, middle] for i in (-1, 1))
    bend = (low / left - high / right) / (left - right)
    slope = high / right - bend * right
    with np.errstate(divide="ignore", invalid="ignore"):
        place = np.clip(-slope / (2 * bend), left, right)
    found = bpb[rows, middle] + slope * place + bend * place**2
    rate = np.where(at_edge, x[lowest], x[middle] + place)
    return Best(np.exp(rate), np.where(at_edge, bpb[rows, lowest], found), at_edge)


def at_rate(rates: np.ndarray, bpb: np.ndarray, rate: float) -> np.ndarray | None:
    """Returns BPB [n] at a rate, in a line over its logarithm between the two rates [K] around it; None outside."""
    order = np.argsort(rates)
    x, at = np.log(np.asarray(rates)[order]), np.log(rate)
    if not len(x) or not x[0] - 1e-9 <= at <= x[-1] + 1e-9:
        return None
    i = int(np.clip(np.searchsorted(x, at), 1, max(len(x) - 1, 1)))
    if len(x) == 1:
        return bpb[:, order[0]]
    share = (at - x[i - 1]) / (x[i] - x[i - 1])
    return (1 - share) * bpb[:, order[i - 1]] + share * bpb[:, order[i]]


def interval(values: np.ndarray, comparisons: int = 1) -> tuple[float, float]:
    """Returns the 95 % interval of draws, of those that are not nan; of several comparisons one for all together."""
    known, side = values[~np.isnan(values)], 100 * LEVEL / 2 / comparisons
    low, high = np.percentile(known, [side, 100 - side], method="nearest") if len(known) else (np.nan, np.nan)
    return float(low), float(high)
