"""How well one score ranks architectures by another, and what noise alone does to a ranking.

Correlations of ranks are those of architectures that were drawn at random from a space, so their
intervals resample architectures; where several supernets scored them, supernets, too.

Source: τ-b, Kendall, Biometrika 33 (1945); ρ, Spearman, Am. J. Psychol. 15 (1904); percentile
bootstrap, Efron & Tibshirani (1993), §13.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]

LEVEL = 0.95  # of intervals
DRAWS = 10_000  # of a bootstrap
DIGITS = 9  # of a score; what differs by less is a tie that was summed in another order


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % interval; None where all that it ranks is tied."""

    value: float | None
    low: float | None
    high: float | None

    def excludes(self, value: float) -> bool:
        """Whether the interval is known and `value` lies outside it."""
        return self.low is not None and self.high is not None and not self.low <= value <= self.high


# --- correlations ----------------------------------------------------------------------------


def kendall(x: ArrayLike, y: ArrayLike) -> float | None:
    """Kendall's τ-b, which corrects for ties, of two (K); None if either is the same throughout.

    Raises:
        ValueError: if they differ in length, or a value is not finite.
    """
    a, b = _pair(x, y)
    return None if _tied(a) or _tied(b) else float(stats.kendalltau(a, b).statistic)


def spearman(x: ArrayLike, y: ArrayLike) -> float | None:
    """Spearman's ρ, ties at their mean rank, of two (K); None if either is the same throughout.

    Raises:
        ValueError: if they differ in length, or a value is not finite.
    """
    a, b = _pair(x, y)
    return None if _tied(a) or _tied(b) else float(stats.spearmanr(a, b).statistic)


def correlation(
    scores: ArrayLike,
    truth: ArrayLike,
    kind: str = "kendall",
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """A rank correlation with its percentile bootstrap interval over architectures.

    Resamples in which all is tied, such as one architecture K times, have none and are left out.

    Args:
        scores: (K), of K architectures; or (S, K), by S supernets: the mean of their correlations,
            and supernets are resampled, too.
        truth: (K), what the scores should rank.
        kind: "kendall" or "spearman".
        draws: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: if shapes do not match, a value is not finite, or the kind is unknown.
    """
    rows, y = _rows(scores, truth)
    one, many = _kind(kind)
    values = [one(row, y) for row in rows]
    rng = np.random.default_rng(seed)
    weights = _weights(len(y), draws, rng)  # (B, K)
    return _estimate(_mean(values), _resampled(rows, y, many, weights, rng))


def difference(
    first: ArrayLike,
    second: ArrayLike,
    truth: ArrayLike,
    kind: str = "kendall",
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """How much better `first` ranks than `second`: a paired bootstrap over the same architectures.

    Both are (K), or (S, K) by S supernets each, which are then resampled, too: each side's on its
    own, since supernets of two kinds share nothing but the architectures. Else as `correlation`.
    """
    a, y = _rows(first, truth)
    b, _ = _rows(second, truth)
    one, many = _kind(kind)
    left, right = (_mean([one(row, y) for row in rows]) for rows in (a, b))
    rng = np.random.default_rng(seed)
    weights = _weights(len(y), draws, rng)  # (B, K)
    drawn = _resampled(a, y, many, weights, rng) - _resampled(b, y, many, weights, rng)  # (B)
    return _estimate(None if left is None or right is None else left - right, drawn)


# --- noise -----------------------------------------------------------------------------------


def binomial_error(accuracy: float, images: int) -> float:
    """The standard error of an accuracy in [0, 1] that was measured on `images` images."""
    return math.sqrt(max(accuracy * (1 - accuracy), 0.0) / images)


def noise_ceiling(
    accuracies: ArrayLike, images: int, *, draws: int = 1000, seed: int = 0
) -> float | None:
    """The τ-b that a perfect score would reach if it were measured on so few images.

    The mean, over `draws`, of τ-b between accuracies (K) and the same drawn anew, each as the
    share of hits among `images` independent ones. Accuracies that were themselves measured spread
    further than the true ones do, so it is rather too high. Two scores of the same images share
    some of their noise, so a τ may also exceed it.
    """
    p = np.asarray(accuracies, float)  # (K)
    if _tied(p):
        return None
    hits = np.random.default_rng(seed).binomial(images, p, size=(draws, len(p)))  # (draws, K)
    one = np.ones((1, len(p)))  # (1, K)
    found = np.array([_kendalls(one, row / images, p)[0] for row in hits])  # (draws)
    known = found[np.isfinite(found)]  # (at most draws)
    return float(known.mean()) if len(known) else None


# --- resampling ------------------------------------------------------------------------------

Many = Callable[[Array, Array, Array], Array]  # weights (B, K), x (K), y (K) -> (B), NaN if tied


def _kendalls(weights: Array, x: Array, y: Array) -> Array:
    """τ-b of each resample: weights (B, K) say how often each architecture is in it -> (B)."""
    a, b = np.sign(x[:, None] - x), np.sign(y[:, None] - y)  # (K, K), (K, K)

    def pairs(of: Array) -> Array:
        found: Array = np.einsum("bk,bk->b", weights @ of, weights)  # (B, K) @ (K, K) -> (B)
        return found

    free = np.sqrt(pairs(np.abs(a)) * pairs(np.abs(b)))  # (B)
    return _ratio(pairs(a * b), free)


def _spearmans(weights: Array, x: Array, y: Array) -> Array:
    """ρ of each resample, as `_kendalls`."""
    size = weights.sum(axis=1, keepdims=True)  # (B, 1)
    centred = []
    for values in (x, y):
        below = weights @ (values[:, None] < values).astype(float)  # (B, K)
        equal = weights @ (values[:, None] == values).astype(float)  # (B, K)
        centred.append(below + equal / 2 - size / 2)  # (B, K), midranks less their mean
    a, b = centred
    spread = np.sqrt((weights * a * a).sum(axis=1) * (weights * b * b).sum(axis=1))  # (B)
    return _ratio((weights * a * b).sum(axis=1), spread)


def _ratio(over: Array, under: Array) -> Array:
    """Over / under (B), NaN where under is 0."""
    found: Array = np.divide(over, under, out=np.full(len(under), np.nan), where=under > 0)
    return found


def _weights(size: int, draws: int, rng: np.random.Generator) -> Array:
    """How often each of `size` architectures is in each resample: (draws, size)."""
    return rng.multinomial(size, np.full(size, 1 / size), size=draws).astype(float)


def _resampled(
    rows: Array, truth: Array, many: Many, weights: Array, rng: np.random.Generator
) -> Array:
    """The mean correlation of resampled supernets in each resample of architectures."""
    found = np.stack([many(weights, row, truth) for row in rows])  # (S, B)
    supernets, draws = found.shape
    chosen = rng.integers(supernets, size=(supernets, draws))  # (S, B)
    drawn: Array = np.take_along_axis(found, chosen, axis=0).mean(axis=0)  # (B)
    return drawn


def _estimate(value: float | None, drawn: Array) -> Estimate:
    known = drawn[np.isfinite(drawn)]
    if value is None or not len(known):
        return Estimate(value, None, None)
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))


# --- reading arguments -----------------------------------------------------------------------


def _pair(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    rows, b = _rows(x, y)
    if len(rows) != 1:
        raise ValueError(f"one score per architecture is needed, not {len(rows)}")
    return rows[0], b


def _rows(scores: ArrayLike, truth: ArrayLike) -> tuple[Array, Array]:
    """Scores as (S, K) and truth as (K), without differences that are but rounding."""
    x = np.atleast_2d(np.asarray(scores, float)).round(DIGITS)  # (S, K)
    y = np.asarray(truth, float).round(DIGITS)  # (K)
    if y.ndim != 1 or x.ndim != 2 or x.shape[1] != len(y) or len(y) < 2:
        raise ValueError(f"scores {x.shape} do not match {y.shape}, of two architectures at least")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("a score is not finite")
    return x, y


def _kind(kind: str) -> tuple[Callable[[Array, Array], float | None], Many]:
    if kind not in ("kendall", "spearman"):
        raise ValueError(f"unknown correlation {kind!r} (known: kendall, spearman)")
    return (kendall, _kendalls) if kind == "kendall" else (spearman, _spearmans)


def _tied(values: Array) -> bool:
    return bool((values == values[0]).all())


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
