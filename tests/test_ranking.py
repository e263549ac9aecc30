"""Rank correlations, their intervals and the noise of a split, against scipy and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from noahnas import ranking
from noahnas.ranking import binomial_error, correlation, difference, kendall, noise_ceiling


def accuracies(size: int, seed: int, images: int = 20) -> np.ndarray:
    """Shares of so many images, so that some are tied."""
    return np.random.default_rng(seed).integers(0, images, size) / images


def tau_by_hand(x: np.ndarray, y: np.ndarray) -> float:
    """τ-b as defined: pairs in order less pairs out of order, over pairs free of ties."""
    pairs = [(i, j) for i in range(len(x)) for j in range(i)]
    score = sum(np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]) for i, j in pairs)
    free = [sum(v[i] != v[j] for i, j in pairs) for v in (x, y)]
    return score / np.sqrt(free[0] * free[1])


def test_kendall_is_the_definition_of_tau_b_with_ties() -> None:
    for seed in range(20):
        x, y = accuracies(12, seed, 6), accuracies(12, seed + 100, 6)
        assert kendall(x, y) == pytest.approx(tau_by_hand(x, y))


@given(
    hnp.arrays(float, 7, elements=st.integers(0, 4).map(float)),
    hnp.arrays(float, 7, elements=st.integers(0, 4).map(float)),
    hnp.arrays(int, 7, elements=st.integers(0, 6)),
)
def test_a_resample_has_the_correlations_that_scipy_finds_in_it(
    x: np.ndarray, y: np.ndarray, chosen: np.ndarray
) -> None:
    weights = np.bincount(chosen, minlength=7)[None].astype(float)
    ours = [float(many(weights, x, y)[0]) for many in (ranking._kendalls, ranking._spearmans)]
    if len({*x[chosen]}) == 1 or len({*y[chosen]}) == 1:
        assert np.isnan(ours).all()
    else:
        theirs = [f(x[chosen], y[chosen]).statistic for f in (stats.kendalltau, stats.spearmanr)]
        assert ours == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("kind", ["kendall", "spearman"])
def test_the_interval_is_scipy_s_percentile_bootstrap(kind: str) -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=25)
    scores = truth + rng.normal(size=25)
    found = correlation(scores, truth, kind, draws=4000)
    statistic = stats.kendalltau if kind == "kendall" else stats.spearmanr
    theirs = stats.bootstrap(
        (scores, truth), lambda a, b: statistic(a, b).statistic, paired=True, vectorized=False,
        n_resamples=1000, method="percentile", random_state=1,
    ).confidence_interval  # fmt: skip
    assert found.value == pytest.approx(statistic(scores, truth).statistic)
    assert found.low == pytest.approx(theirs.low, abs=0.04)
    assert found.high == pytest.approx(theirs.high, abs=0.04)


def test_an_interval_covers_the_true_tau_about_nineteen_times_in_twenty() -> None:
    """Of two normals with correlation r, τ = 2/π · asin r."""
    true, covered, trials = 2 / np.pi * np.arcsin(0.7), 0, 200
    for seed in range(trials):
        rng = np.random.default_rng([seed, 7])
        x, y = rng.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], size=40).T
        covered += not correlation(x, y, draws=400, seed=seed).excludes(true)
    assert 0.88 <= covered / trials <= 0.99


def test_a_score_that_equals_the_truth_has_tau_one_and_its_reverse_minus_one() -> None:
    truth = accuracies(10, 1)
    for kind in ("kendall", "spearman"):
        same = correlation(truth, truth, kind)
        assert (same.value, same.low, same.high) == pytest.approx((1, 1, 1))
        assert correlation(-truth, truth, kind).value == pytest.approx(-1)


def test_what_differs_by_rounding_is_a_tie() -> None:
    """The mean of .1 and .2 is not that of .15 and .15 in floating point, nor better."""
    tied = [(0.1 + 0.2) / 2, 0.15, 0.3, 0.4]
    assert tied[0] != tied[1]
    assert kendall(tied, [2, 1, 3, 4]) == kendall([0.15, 0.15, 0.3, 0.4], [2, 1, 3, 4])


def test_where_all_is_tied_there_is_no_correlation() -> None:
    found = correlation([0.5, 0.5, 0.5], [1, 2, 3])
    assert (found.value, found.low, found.high) == (None, None, None)
    assert not found.excludes(0)
    assert ranking.spearman([1, 2, 3], [4, 4, 4]) is None
    assert noise_ceiling([0.5, 0.5], 100) is None


def test_several_supernets_are_averaged_and_resampled() -> None:
    """Two good supernets and a useless one: which of them is drawn widens the interval."""
    truth = np.arange(30.0)
    useless = np.random.default_rng(3).permutation(30)
    found = correlation([truth, truth, useless], truth)
    alone = kendall(useless, truth)
    assert alone is not None
    assert found.value == pytest.approx((2 + alone) / 3)
    assert found.low is not None
    assert found.low < correlation(useless, truth).high  # type: ignore[operator]
    assert found.high == pytest.approx(1)


def test_a_paired_difference_is_sharper_than_its_two_intervals() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=60)
    better = truth + rng.normal(size=60)
    worse = better + 2 * rng.normal(size=60)
    found = difference(better, worse, truth)
    a, b = correlation(better, truth), correlation(worse, truth)
    values = [v for e in (found, a, b) for v in (e.value, e.low, e.high) if v is not None]
    assert len(values) == 9
    assert values[0] == pytest.approx(values[3] - values[6])
    unpaired = np.hypot(values[5] - values[4], values[8] - values[7])
    assert values[2] - values[1] < 0.95 * unpaired
    assert found.excludes(0)
    same = difference(better, better, truth)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_a_difference_of_several_supernets_resamples_each_side_on_its_own() -> None:
    truth = np.arange(20.0)
    useless = np.random.default_rng(5).permutation(20)
    mixed = [truth, useless]
    found = difference(mixed, mixed, truth)
    assert found.value == 0
    assert found.high is not None
    assert found.high > 0.5


def test_the_same_seed_gives_the_same_interval_and_another_one_another() -> None:
    x, y = accuracies(12, 0), accuracies(12, 1)
    assert correlation(x, y, seed=1) == correlation(x, y, seed=1)
    assert correlation(x, y, seed=1) != correlation(x, y, seed=2)


def test_the_ceiling_is_the_mean_tau_to_accuracies_measured_anew() -> None:
    truth = np.linspace(0.4, 0.6, 15)
    rng = np.random.default_rng(9)
    brute = np.mean(
        [stats.kendalltau(truth, rng.binomial(200, truth) / 200).statistic for _ in range(1000)]
    )
    assert noise_ceiling(truth, 200) == pytest.approx(brute, abs=0.02)
    few, many = noise_ceiling(truth, 20), noise_ceiling(truth, 1_000_000)
    assert few is not None
    assert many is not None
    assert few < brute < many
    assert many > 0.99


def test_the_binomial_error_is_the_deviation_of_a_measured_accuracy() -> None:
    drawn = np.random.default_rng(0).binomial(200, 0.3, 100_000) / 200
    assert binomial_error(0.3, 200) == pytest.approx(drawn.std(), rel=0.01)
    assert binomial_error(1.0, 200) == 0


@pytest.mark.parametrize(
    ("scores", "truth", "told"),
    [
        ([1, 2, 3], [1, 2], "do not match"),
        ([1], [1], "two architectures"),
        ([1, float("nan")], [1, 2], "not finite"),
        ([[[1, 2]]], [1, 2], "do not match"),
    ],
)
def test_scores_that_cannot_be_ranked_are_refused(scores: list, truth: list, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        correlation(scores, truth)


def test_an_unknown_correlation_is_refused() -> None:
    with pytest.raises(ValueError, match="known: kendall, spearman"):
        correlation([1, 2], [1, 2], "pearson")
