"""The statistics of a comparison, against SciPy and brute force."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats

from noahnas.compare.statistics import (
    area,
    band,
    best_so_far,
    cliffs_delta,
    holm,
    interval,
    resampled,
    sign_flip,
    smallest_p,
    verdict,
)


@pytest.mark.parametrize("steps", [[3, -1, 4, 1, 5], [0, 0, 2, -2, 7, 1], [5] * 8, [0, 0], [-3]])
def test_the_sign_flip_p_is_that_of_every_way_to_sign_the_differences(steps: list[int]) -> None:
    sums = [
        abs(sum(sign * step for sign, step in zip(signs, steps, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(steps))
    ]
    assert sign_flip(steps) == pytest.approx(np.mean([s >= abs(sum(steps)) for s in sums]))


def test_the_sign_flip_p_is_scipy_s_exact_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        steps = rng.integers(-6, 9, size=9)
        found: Any = stats.permutation_test(
            (steps,), np.sum, permutation_type="samples", n_resamples=np.inf
        )
        assert sign_flip(steps.tolist()) == pytest.approx(found.pvalue)


def test_a_test_of_many_pairs_is_exact_too() -> None:
    assert sign_flip([1] * 60) == pytest.approx(2.0**-59)
    heads = stats.binomtest(40, 60).pvalue
    assert sign_flip([1] * 40 + [-1] * 20) == pytest.approx(heads)


def test_sign_flips_reject_a_true_null_at_most_as_often_as_stated() -> None:
    rng = np.random.default_rng(1)
    ps = [sign_flip(rng.integers(-9, 10, size=10).tolist()) for _ in range(2000)]
    assert 0.03 < np.mean(np.array(ps) <= 0.05) <= 0.06


def test_the_smallest_p_is_reached_when_all_differences_agree_and_never_undercut() -> None:
    assert sign_flip([4, 1, 2, 9]) == smallest_p(4) == 0.125
    assert smallest_p(0) == smallest_p(1) == 1.0
    assert all(sign_flip(list(d)) >= 0.25 for d in itertools.product((-2, 0, 1), repeat=3))


def test_holm_s_correction_is_worked_out_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.04, 0.001, 0.04, 0.2]) == pytest.approx([0.12, 0.004, 0.12, 0.2])
    assert holm([]) == []


def test_holm_keeps_the_chance_of_any_false_finding() -> None:
    rng = np.random.default_rng(2)
    found = [min(holm(rng.random(5).tolist())) <= 0.05 for _ in range(4000)]
    assert 0.035 < np.mean(found) < 0.062


def test_a_verdict_never_says_that_there_is_no_difference() -> None:
    assert verdict(0.1, 0.03, 10, 10, 3) == "better"
    assert verdict(-0.1, 0.03, 10, 10, 3) == "worse"
    assert verdict(0.1, 0.30, 10, 10, 3) == "a difference is not shown"
    assert verdict(0.1, 0.25, 3, 3, 1) == "too few seeds to tell"
    assert verdict(0.1, 0.09, 6, 6, 3) == "too few seeds to tell"  # 2**-5 alone, but three tests
    assert verdict(0.1, 0.031, 10, 6, 2) == "better"  # Holm's later test takes the smaller factor
    assert verdict(0.0, 1.00, 10, 1, 1) == "too few pairs differ to tell"


def test_bootstrap_weights_draw_supernets_and_then_seeds() -> None:
    weights = resampled(3, 4, 500, np.random.default_rng(0))
    assert np.allclose(weights.sum(axis=1), 1)
    by_supernet = weights.reshape(500, 3, 4).sum(axis=2) * 3  # (500, 3): times it was drawn
    assert np.allclose(by_supernet, by_supernet.round())
    assert (by_supernet.round() == 0).any()  # one is left out in some draws
    assert (resampled(1, 4, 50, np.random.default_rng(0)).round(2) == 0.5).any()


def test_one_supernet_s_interval_is_the_plain_bootstrap_of_its_seeds() -> None:
    values = np.random.default_rng(3).normal(0.6, 0.05, size=(1, 12))
    found = interval(values)
    theirs = stats.bootstrap(
        (values[0],), np.mean, method="percentile", n_resamples=10_000, rng=0
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=2e-3)
    assert found.mean == pytest.approx(values.mean())


def test_a_single_value_has_no_interval() -> None:
    assert interval(np.array([[0.5]])).to_dict() == {"mean": 0.5, "low": None, "high": None}


def coverage(supernets: int, seeds: int, trials: int = 300) -> float:
    """How often the interval holds the truth, 0, when supernets differ as much as seeds do."""
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(trials):
        values = rng.normal(size=(supernets, 1)) + rng.normal(size=(supernets, seeds))
        found = interval(values, draws=500)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0 <= found.high
    return hits / trials


def test_intervals_cover_the_truth_of_a_hierarchy_with_many_supernets_and_less_with_few() -> None:
    assert coverage(12, 5) > 0.89
    assert 0.65 < coverage(3, 10) < 0.90


def test_an_interval_that_ignored_supernets_would_cover_far_less() -> None:
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(300):
        values = rng.normal(size=(12, 1)) + rng.normal(size=(12, 5))
        flat = interval(values.reshape(1, -1), draws=500)
        hits += (flat.low or 0) <= 0 <= (flat.high or 0)
    assert hits / 300 < 0.8


def test_a_band_at_a_point_is_the_interval_of_its_values() -> None:
    curves = np.random.default_rng(5).random((2, 3, 4))
    low, high = band(curves, draws=2000)
    one = interval(curves[:, :, 2], draws=2000)
    assert (low[2], high[2]) == pytest.approx((one.low, one.high))


def test_cliff_s_delta_follows_the_mann_whitney_u_within_each_supernet() -> None:
    rng = np.random.default_rng(6)
    first, second = rng.integers(0, 9, (2, 7)) * 1.0, rng.integers(0, 9, (2, 7)) * 1.0
    shares = [
        stats.mannwhitneyu(a, b).statistic / 49 for a, b in zip(first, second, strict=True)
    ]  # P(a > b) + P(a = b) / 2
    assert (cliffs_delta(first, second) + 1) / 2 == pytest.approx(np.mean(shares))
    assert cliffs_delta(np.ones((1, 3)), np.zeros((1, 3))) == 1.0


def test_the_best_so_far_is_what_was_paid_for() -> None:
    found = best_so_far([0.5, 0.4, 0.7], [10, 20, 30], np.array([5.0, 10, 25, 30, 99]))
    assert np.isnan(found[0])
    assert found[1:].tolist() == [0.5, 0.5, 0.7, 0.7]


def test_the_area_is_the_integral_of_the_step_curve() -> None:
    scores, costs = [0.5, 0.4, 0.7], [10.0, 20.0, 30.0]
    fine = np.linspace(0, 40, 400_001)[:-1]  # (400 000)
    curve = np.nan_to_num(best_so_far(scores, costs, fine), nan=0.1)
    assert area(scores, costs, 40, 0.1) == pytest.approx(curve.mean(), abs=1e-5)
    assert area(scores, costs, 25, 0.1) == pytest.approx((10 * 0.1 + 15 * 0.5) / 25)
    assert area([], [], 25, 0.1) == pytest.approx(0.1)
