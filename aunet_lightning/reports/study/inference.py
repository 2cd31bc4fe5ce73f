"""How sure the differences between arms are: intervals over seeds and documents together, and verdicts corrected for
the number of comparisons.

An arm's BPB is taken as its mean, plus what a seed does to all arms, plus a residual of the run. Seeds are paired, so
the second drops out of differences. The residuals' variance is pooled over the arms, as in a two-way analysis of
variance; an arm whose own is larger has its own. Documents are a random sample, the same for all arms.
Both half-widths are added as squares. (What seeds do to single documents is in both, so the sum is rather too wide.)

Shapes: A arms, S seeds, N documents of one language. Axes in front are further studies of the same runs.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

LEVEL = 0.05  # of the intervals, and of a false verdict in a language
_POINTS, _MOST = 200_001, 100_000  # of the table of Student's t; degrees of freedom, above which it no longer changes


@lru_cache(maxsize=64)
def _tail(freedom: int) -> tuple[np.ndarray, np.ndarray]:
    """P(|T| > √freedom · tan angle), and the angle from π/2 to 0: the density over it is a power of its cosine."""
    angle = np.linspace(np.pi / 2, 0, _POINTS)
    density = np.cos(angle) ** (freedom - 1)
    tail = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return tail / tail[-1], angle


def student(level: np.ndarray | float, freedom: int) -> np.ndarray:
    """Returns t where |T| > t with the probability `level`, for Student's T with so many degrees of freedom."""
    freedom = min(freedom, _MOST)
    tail, angle = _tail(freedom)
    return np.sqrt(freedom) * np.tan(np.interp(level, tail, angle))


def holm(strictest: np.ndarray, comparisons: int) -> tuple[np.ndarray, np.ndarray]:
    """Holm's step-down correction along the last axis.

    strictest: for each comparison the largest k at which it holds at LEVEL / k (0: at none). Returns whether it is
    accepted, and the divisor of the level of its interval, which leaves zero out exactly then: the strictest of an
    accepted one, for all others that at which Holm stopped.
    """
    order = np.argsort(-strictest, axis=-1, kind="stable")
    divisor = comparisons - np.arange(comparisons)
    passed = np.logical_and.accumulate(np.take_along_axis(strictest, order, -1) >= divisor, axis=-1)
    accepted = np.empty_like(passed)
    np.put_along_axis(accepted, order, passed, -1)
    return accepted, np.where(accepted, strictest, comparisons - passed.sum(-1, keepdims=True))


@dataclass(frozen=True)
class Runs:
    """What the runs of a language have measured."""

    bpb: np.ndarray  # [..., A, S]; nan where there is no run
    same_as: np.ndarray  # [A]: the first arm with the same units (often the arm itself)
    bits: np.ndarray | None = None  # [..., A, N]: of each document, mean over seeds; None where they are not known
    bytes: np.ndarray | None = None  # [N]
    near_to: np.ndarray | None = None  # [A]: the first arm with nearly the same units; None: as `same_as`
    families: np.ndarray | None = None  # [A], from 0: arms of one number branch from the same runs; None: none do
    blocks: np.ndarray | None = None  # [A], from 0: a seed does the same to arms of one number; None: to all

    @cached_property
    def known(self) -> np.ndarray:
        """Which runs there are, bool [A, S]."""
        return ~np.isnan(self.bpb).any(tuple(range(self.bpb.ndim - 2)))

    @cached_property
    def shared(self) -> np.ndarray:
        """The seeds that two arms have in common, [A, A]."""
        return self.known.astype(int) @ self.known.T

    @cached_property
    def differences(self) -> np.ndarray:
        """Mean BPB minus that of each other arm, over common seeds [..., A, A]; nan without one."""
        bpb = np.where(self.known, self.bpb, 0.0)
        sums = bpb @ self.known.T  # over the seeds that the other has
        return (sums - np.swapaxes(sums, -1, -2)) / np.where(self.shared, self.shared, np.nan)

    @cached_property
    def _pool(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which arm each counts as [A], the runs that are pooled, bool [A, S], and the matrix that takes arms and seeds
        out of these.

        Runs that are nearly alike vary together, so they would count twice; but they count where there are no others.
        """
        near = self.same_as if self.near_to is None else self.near_to
        pool = _pooled(near, self.known, self.blocks)
        return pool if np.trace(pool[2]) > 0.5 else _pooled(self.same_as, self.known, self.blocks)

    @cached_property
    def freedom(self) -> int:
        """The degrees of freedom of the residuals: (A − 1)(S − 1) where every arm has every seed."""
        return round(float(np.trace(self._pool[2])))

    @cached_property
    def variances(self) -> np.ndarray:
        """The variance of the residual of one run of each arm, [..., A]: the larger of the pooled and the arm's own."""
        counts_as, pooled, maker = self._pool
        residuals = np.zeros(self.bpb.shape)
        residuals[..., pooled] = self.bpb[..., pooled] @ maker
        squares, share = (residuals**2).sum(-1), np.zeros(pooled.shape)
        share[pooled] = np.diag(maker)  # what each residual keeps of the variance
        of_arm = share.sum(-1)
        own = np.where(of_arm > 1e-9, squares / np.maximum(of_arm, 1e-9), 0.0)
        return np.maximum(own, squares.sum(-1, keepdims=True) / self.freedom)[..., counts_as]

    @cached_property
    def kinship(self) -> float:
        """The correlation of the residuals of arms of one family, pooled over the families; 0 at least."""
        counts_as, pooled, maker = self._pool
        own = counts_as == np.arange(len(counts_as))
        if self.families is None or self.bpb.ndim > 2 or not own.any():
            return 0.0
        residuals = np.zeros(self.bpb.shape)
        residuals[pooled] = self.bpb[pooled] @ maker
        products = residuals[own] @ residuals[own].T
        kin = np.triu(self.families[own][:, None] == self.families[own], 1)
        alone = float(np.diagonal(products).mean())
        return float(np.clip(products[kin].mean() / alone, 0.0, 1.0)) if kin.any() and alone > 0 else 0.0

    @property
    def effective_freedom(self) -> float:
        """The degrees of freedom, less what residuals of a family tell twice."""
        if self.families is None:
            return self.freedom
        size = len(self.families) / len(np.unique(self.families))
        return max(self.freedom / (1 + (size - 1) * self.kinship**2), 1.0)

    @cached_property
    def by_seeds(self) -> np.ndarray:
        """The variance of each difference over seeds, [..., A, A]."""
        variance = self.variances
        return (variance[..., :, None] + variance[..., None, :]) / np.where(self.shared, self.shared, np.nan)

    @cached_property
    def by_documents(self) -> np.ndarray:
        """The variance of each difference over documents, [..., A, A]: of a ratio of sums, linearised."""
        if self.bits is None or self.bytes is None or len(self.bytes) < 2:
            return np.zeros_like(self.by_seeds)
        total, n_documents = self.bytes.sum(), len(self.bytes)
        excess = self.bits - self.bits.sum(-1, keepdims=True) / total * self.bytes
        products = excess @ np.swapaxes(excess, -1, -2) * n_documents / (n_documents - 1) / total**2
        own = np.diagonal(products, axis1=-2, axis2=-1)
        return np.maximum(own[..., :, None] + own[..., None, :] - 2 * products, 0.0)

    def half_width(self, level: np.ndarray | float, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Returns half of the width of the interval of the differences of pairs of arms, [..., pairs]; `level` is one
        number, or one for each of them."""
        seeds, documents = self.by_seeds[..., first, second], self.by_documents[..., first, second]
        squared = student(level, self.freedom) ** 2 * seeds
        if self.bytes is not None and len(self.bytes) > 1:
            squared = squared + student(level, len(self.bytes) - 1) ** 2 * documents
        return np.sqrt(squared)


def _pooled(
    counts_as: np.ndarray, known: np.ndarray, blocks: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pooled = known & (counts_as == np.arange(len(known)))[:, None]
    arm, seed = np.nonzero(pooled)
    n_seeds, block = known.shape[1], np.zeros(len(known), int) if blocks is None else blocks
    of_seeds = np.eye(n_seeds * (1 + block.max(initial=0)))[seed + n_seeds * block[arm]]
    design = np.concatenate([np.eye(len(known))[arm], of_seeds], axis=1)
    return counts_as, pooled, np.eye(len(arm)) - design @ np.linalg.pinv(design)


@dataclass(frozen=True)
class Judgement:
    """The verdicts of a language: of all pairs of arms with two common seeds and other units than each other.

    All pairs count, since the best arm is only known from the results. Zero lies outside of an interval exactly where
    the arms are told apart.
    """

    first: np.ndarray  # [pairs]: the one arm of each pair
    second: np.ndarray
    apart: np.ndarray  # bool [..., pairs]: whether they are told apart
    half_width: np.ndarray  # [..., pairs]


def judge(runs: Runs) -> Judgement:
    """Returns the verdicts on all pairs: of many studies without a difference, LEVEL have any that tells two apart."""
    judged = (runs.shared >= 2) & (runs.same_as[:, None] != runs.same_as) & (runs.freedom > 0)
    first, second = np.nonzero(np.triu(judged))
    n_pairs = len(first)
    if not n_pairs:
        none = np.zeros((*runs.bpb.shape[:-2], 0))
        return Judgement(first, second, none.astype(bool), none)
    size = np.abs(runs.differences[..., first, second])
    low, high = np.zeros(size.shape, dtype=int), np.full(size.shape, n_pairs)
    while (low < high).any():  # halves what may be the strictest level at which zero is outside
        middle = (low + high + 1) // 2
        outside = size > runs.half_width(LEVEL / np.maximum(middle, 1), first, second)
        low, high = np.where(outside, middle, low), np.where(outside, high, middle - 1)
    apart, divisor = holm(low, n_pairs)
    return Judgement(first, second, apart, runs.half_width(LEVEL / divisor, first, second))


def resample(runs: Runs, n: int, generator: np.random.Generator) -> np.ndarray:
    """Returns draws [n, A] of the mean BPB of each arm, which vary as `half_width` says: for what has no formula.

    Only what differs between arms is drawn: what a seed does to all arms alike is as in the runs. Documents are drawn
    with replacement, the same for all arms; residuals from the normal distribution, those of a family together, over a
    variance that is itself drawn from its own, so that few seeds give the long tails of Student's t.
    Raises ValueError where no variance over seeds is known.
    """
    if not runs.freedom:
        raise ValueError("draws need two arms with two common seeds: what seeds change is unknown")
    unsure = np.sqrt(runs.effective_freedom / generator.chisquare(runs.effective_freedom, (n, 1)))
    spread = np.sqrt(runs.variances / np.maximum(runs.known.sum(-1), 1))
    noise = generator.standard_normal((n, len(spread)))
    if runs.families is not None and runs.kinship:
        common = generator.standard_normal((n, int(runs.families.max()) + 1))[:, runs.families]
        noise = np.sqrt(runs.kinship) * common + np.sqrt(1 - runs.kinship) * noise
    draws = np.nanmean(runs.bpb, -1) + unsure * spread * noise
    if runs.bits is not None and runs.bytes is not None:
        both = np.concatenate([runs.bits, runs.bytes[None]]).T
        mean = both[:, :-1].sum(0) / both[:, -1].sum()
        for i in range(n):
            sums = np.bincount(generator.integers(len(both), size=len(both)), minlength=len(both)) @ both
            draws[i] += sums[:-1] / sums[-1] - mean
    return draws
