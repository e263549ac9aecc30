"""The statistics of a comparison: pure functions over arrays of supernets × seeds.

What is exchangeable decides what is resampled and flipped. Seeds are independent once a supernet is
given; supernets are independent of each other; scores of one supernet share its fortune. So an
interval resamples supernets, then seeds within each, and a test flips the signs of paired
differences: of every (supernet, seed) pair for what holds on these supernets, of whole supernets
for what holds beyond them.

Source: hierarchical bootstrap, Davison & Hinkley (1997), §3.8; in machine learning, Agarwal et al.,
arXiv:2108.13264 (stratified). Sign-flip tests: Fisher (1935), §21; Ernst, Statist. Sci. 19 (2004).
Holm, Scand. J. Statist. 6 (1979). Cliff, Psychol. Bull. 114 (1993).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEVEL = 0.95  # of intervals
ALPHA = 0.05  # of tests, after Holm's correction
DRAWS = 10_000  # of a bootstrap
FEW = 8  # supernets, below which percentile intervals are too narrow to be taken at their word


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval; the ends are None where a single value was measured."""

    mean: float
    low: float | None
    high: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


def resampled(supernets: int, seeds: int, draws: int, rng: np.random.Generator) -> Array:
    """Weights of a hierarchical bootstrap: supernets with replacement, then seeds within each.

    Returns:
        (draws, supernets * seeds); each row sums to 1. Times values, flattened from
        (supernets, seeds), it gives bootstrap means.
    """
    chosen = rng.integers(supernets, size=(draws, supernets, 1))  # (draws, S, 1)
    within = rng.integers(seeds, size=(draws, supernets, seeds))  # (draws, S, n)
    flat = (chosen * seeds + within).reshape(draws, -1)  # (draws, S * n)
    counts = np.zeros((draws, supernets * seeds))  # (draws, S * n)
    np.add.at(counts, (np.arange(draws)[:, None], flat), 1)
    return counts / (supernets * seeds)


@lru_cache(maxsize=4)
def _weights(supernets: int, seeds: int, draws: int, seed: int) -> Array:
    """The same draws for every measure of a comparison."""
    return resampled(supernets, seeds, draws, np.random.default_rng(seed))


def interval(values: Array, draws: int = DRAWS, seed: int = 0) -> Interval:
    """The mean of values (S, n) and its percentile interval over `resampled` supernets and seeds.

    With one supernet it is an interval given that supernet.
    """
    if values.size == 1:
        return Interval(float(values.mean()), None, None)
    low, high = band(values[..., None], draws, seed)
    return Interval(float(values.mean()), float(low[0]), float(high[0]))


def band(curves: Array, draws: int = DRAWS, seed: int = 0) -> tuple[Array, Array]:
    """Pointwise percentile intervals of the mean of curves (S, n, T); two arrays (T)."""
    supernets, seeds, points = curves.shape
    weights = _weights(supernets, seeds, draws, seed)
    means = weights @ curves.reshape(-1, points)  # (draws, S * n) @ (S * n, T) -> (draws, T)
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = np.quantile(means, ends, axis=0)  # (T), (T)
    return low, high


# --- tests -----------------------------------------------------------------------------------


def sign_flip(steps: Sequence[int]) -> float:
    """The exact two-sided p of paired differences, under flips of their signs.

    The share of all 2**n ways to sign the differences in which their sum is at least as far from 0
    as it is. Differences are counted in whole steps (hits on a split), so that the distribution of
    the sum is a polynomial product, exact for any n.

    Args:
        steps: the differences, one a pair.
    """
    sizes = [abs(step) for step in steps]
    total = sum(sizes)
    chances = np.zeros(2 * total + 1)  # (2 * total + 1): of each sum, from -total
    chances[total] = 1.0
    for size in (s for s in sizes if s):
        shifted = np.zeros_like(chances)  # (2 * total + 1)
        shifted[size:] += chances[:-size] / 2
        shifted[:-size] += chances[size:] / 2
        chances = shifted
    sums = np.abs(np.arange(-total, total + 1))  # (2 * total + 1)
    return min(1.0, float(chances[sums >= abs(sum(steps))].sum()))


def smallest_p(pairs: int) -> float:
    """The smallest p that a two-sided sign-flip test of so many pairs can give."""
    return 1.0 if pairs < 1 else 2.0 ** (1 - pairs)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p values, in the order given."""
    adjusted = [0.0] * len(ps)
    worst = 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        worst = max(worst, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = worst
    return adjusted


def verdict(difference: float, adjusted: float, pairs: int, unequal: int, family: int) -> str:
    """What a corrected test allows to say; "no difference" is never among it.

    Args:
        difference: the mean paired difference; its sign is the direction.
        adjusted: Holm's p.
        pairs: how many pairs there are.
        unequal: how many of them differ at all.
        family: how many tests were corrected together.
    """
    if adjusted <= ALPHA:
        return "better" if difference > 0 else "worse"
    if family * smallest_p(pairs) > ALPHA:
        return "too few seeds to tell"
    if family * smallest_p(unequal) > ALPHA:
        return "too few pairs differ to tell"
    return "a difference is not shown"


# --- sizes of effects ------------------------------------------------------------------------


def cliffs_delta(first: Array, second: Array) -> float:
    """P(first > second) − P(first < second) within a supernet, averaged over supernets.

    Both are (S, n); all pairs of seeds of one supernet are compared. In [-1, 1]; the probability of
    superiority, a tie counting half, is (delta + 1) / 2.
    """
    return float(np.sign(first[:, :, None] - second[:, None, :]).mean())


# --- curves ----------------------------------------------------------------------------------


def best_so_far(scores: Sequence[float], costs: Sequence[float], points: Array) -> Array:
    """The best score paid for by each point of a budget; NaN before the first.

    Args:
        scores: in the order in which they were measured.
        costs: what had been spent, ascending, when each was known.
        points: (T), where to look.

    Returns:
        (T).
    """
    best = np.concatenate([[np.nan], np.maximum.accumulate(np.asarray(scores, float))])
    return np.asarray(best[np.searchsorted(np.asarray(costs, float), points, side="right")])


def area(scores: Sequence[float], costs: Sequence[float], budget: float, start: float) -> float:
    """The mean over a budget of the best score so far, `start` before the first.

    The area under the step curve, divided by the budget: in the unit of the scores.
    """
    spent = [0.0, *(min(cost, budget) for cost in costs), budget]
    best = [start, *np.maximum.accumulate(np.asarray(scores, float)).tolist()]
    widths = np.diff(spent)  # (n + 1)
    return float(np.dot(widths, best) / budget)
