"""Rates at a threshold that is given, their scaling, and their intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.metrics.bootstrap import bca_interval, percentile_interval
from facerec.metrics.error_rates import measure_fpir, measure_rate, scale_fpir
from facerec.metrics.exceedances import collect_best, collect_pairs, draw_people, resampled_rates


def test_scaling_by_hand():
    assert scale_fpir(0.19, 2, 1) == pytest.approx(0.1)
    assert scale_fpir(0.1, 1, 3) == pytest.approx(0.271)
    assert scale_fpir(1e-6, 1, 1000) == pytest.approx(1 - (1 - 1e-6) ** 1000)
    assert scale_fpir(0.0, 5, 100) == 0


@given(st.floats(1e-12, 0.99), st.integers(1, 10**6), st.integers(1, 10**6))
def test_scaling_goes_there_and_back(fpir, people, new_people):
    scaled = scale_fpir(fpir, people, new_people)
    assert (scaled >= fpir * (1 - 1e-12)) == (new_people >= people) or scaled == fpir
    if scaled < 1 - 1e-6:
        assert scale_fpir(scaled, new_people, people) == pytest.approx(fpir, rel=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((1.0, 1, 2), "fpir"),
        ((-0.1, 1, 2), "fpir"),
        ((0.1, 0, 2), "people"),
        ((0.1, 1, 0), "new_people"),
    ],
)
def test_scaling_refuses(given, message):
    with pytest.raises(InputError, match=message):
        scale_fpir(*given)


def test_fpir_by_hand():
    # A has one of two searches at or above 0.5, B none of one, C its only one: (1/2 + 0 + 1) / 3.
    best, subjects = [0.5, 0.1, 0.4, 0.9], ["a", "a", "b", "c"]
    seen = measure_fpir(best, subjects, 0.5)
    assert seen.rate == pytest.approx(0.5)
    assert (seen.errors, seen.independent_errors, seen.subjects, seen.comparisons) == (2, 2, 3, 4)
    assert measure_fpir(best, subjects, 0.5, weighting="transactions").rate == pytest.approx(0.5)
    assert measure_fpir(best, subjects, 0.4).rate == pytest.approx(2.5 / 3)
    counted = measure_fpir(best, subjects, 0.4, weighting="transactions")
    assert counted.rate == pytest.approx(0.75)
    assert counted.to_json()["errors"] == 3


def test_resampled_fpir_is_that_of_the_drawn_people():
    rng = np.random.default_rng(0)
    best, subjects = rng.random(60), rng.integers(0, 15, 60)
    for weighting in ("subjects", "transactions"):
        sample = collect_best(best, subjects, weighting)
        times = draw_people(sample.people, 20, 1)
        rates = resampled_rates(sample, times, 0.6)
        names = np.unique(subjects)
        for row, mine in enumerate(times):
            share, total = 0.0, 0.0
            for name, count in zip(names, mine, strict=True):
                wrong = best[subjects == name] >= 0.6
                each = 1 / wrong.size if weighting == "subjects" else 1
                share += count * each * wrong.sum()
                total += count * each * wrong.size
            assert rates[row] == pytest.approx(share / total)


def test_no_error_gives_the_rule_of_three():
    seen = measure_fpir(np.zeros(1000), np.arange(1000), 0.5)
    assert (seen.rate, seen.errors, seen.interval.low) == (0, 0, 0)
    assert seen.interval.high == pytest.approx(3 / 1000, rel=4e-3)


def test_interval_covers_a_known_rate():
    held = 0
    for seed in range(60):
        errors = (np.random.default_rng(seed).random(500) < 0.03).astype(float)
        interval = measure_fpir(errors, np.arange(500), 0.5, resamples=300, seed=seed).interval
        held += interval.low <= 0.03 <= interval.high
    assert held >= 53


def test_people_with_several_searches_widen_the_interval():
    rng = np.random.default_rng(3)
    errors = np.repeat((rng.random(200) < 0.1).astype(float), 5)
    honest = measure_fpir(errors, np.repeat(np.arange(200), 5), 0.5).interval
    naive = measure_fpir(errors, np.arange(1000), 0.5).interval
    ratio = (honest.high - honest.low) / (naive.high - naive.low)
    assert ratio == pytest.approx(5**0.5, rel=0.15)


def test_a_sample_that_ends_above_the_threshold_is_refused():
    sample = collect_pairs(np.eye(5, dtype=np.float32), np.arange(5), 3)
    with pytest.raises(InputError, match="needs more of them"):
        measure_rate(sample, -0.5)


def test_bca_by_hand():
    # Half of the resamples below and no skewness: plain percentiles.
    resampled = np.linspace(0, 1, 1001)
    plain = percentile_interval(resampled, 0.9)
    assert (plain.low, plain.high) == pytest.approx((0.05, 0.95))
    same = bca_interval(resampled, 0.5, [-1, 1], 0.9)
    assert (same.low, same.high) == pytest.approx((0.05, 0.95), abs=1e-6)
    # Bias z0 = Phi^-1(0.6914625) = 0.5 moves the ends to Phi(2 z0 -+ 1.644854).
    moved = bca_interval(resampled, 0.6914625, [-1, 1], 0.9)
    assert (moved.low, moved.high) == pytest.approx((0.259511, 0.995915), abs=1e-3)
    # Acceleration (2^3 - 2) / (6 * 6^1.5) = 0.0680414: Phi(z / (1 - a z)).
    skewed = bca_interval(resampled, 0.5, [2, -1, -1], 0.9)
    assert (skewed.low, skewed.high) == pytest.approx((0.069574, 0.968042), abs=1e-3)


def test_intervals_of_one_value_are_that_value():
    assert bca_interval(np.full(10, 0.3), 0.3, [1, -1]).high == 0.3
    assert np.isnan(percentile_interval([np.nan, np.nan]).low)
