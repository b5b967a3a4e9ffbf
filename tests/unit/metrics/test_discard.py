import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.metrics.bootstrap import bootstrap_subjects
from facerec.metrics.discard import (
    build_area_statistic,
    discard_area,
    error_versus_discard,
    pair_quality,
)

COMPARISONS = st.integers(1, 30).flatmap(
    lambda n: st.tuples(
        st.lists(st.booleans(), min_size=n, max_size=n),
        st.lists(st.sampled_from([-np.inf, 0.0, 0.25, 0.5, 1.0]), min_size=n, max_size=n),
    )
)


@given(COMPARISONS)
@settings(max_examples=150, deadline=None)
def test_curve_equals_discarding_by_hand(comparisons):
    wrong, quality = (np.array(side) for side in comparisons)
    curve = error_versus_discard(wrong, quality)
    assert curve.qualities.tolist() == sorted(set(quality.tolist()))
    for share, error, least in zip(curve.discarded, curve.errors, curve.qualities, strict=True):
        kept = quality >= least
        assert share == pytest.approx(1 - kept.mean())
        assert error == pytest.approx(wrong[kept].mean())


@given(COMPARISONS, st.sampled_from([0.05, 0.2, 0.5, 1.0]))
@settings(max_examples=150, deadline=None)
def test_area_equals_small_steps_and_keeps_the_bounds(comparisons, limit):
    wrong, quality = (np.array(side) for side in comparisons)
    curve = error_versus_discard(wrong, quality)
    area = discard_area(curve, limit)
    shares = (np.arange(20_000) + 0.5) / 20_000 * limit
    level = curve.errors[np.searchsorted(curve.discarded, shares, side="right") - 1]
    assert area.area == pytest.approx(level.mean() * limit, abs=2e-3)
    assert area.level == pytest.approx(wrong.mean() * limit)
    assert -1e-12 <= area.ideal <= area.area + 1e-12
    # The best quality there can be: every error below every right decision, no two alike.
    best = np.argsort(np.argsort(~wrong, kind="stable"), kind="stable")
    reached = discard_area(error_versus_discard(wrong, best), limit)
    assert reached.area == pytest.approx(area.ideal)
    again = build_area_statistic(wrong, quality, limit)(np.ones(wrong.size))
    assert again.tolist() == [pytest.approx(area.area)]


def test_hand_computed_miniature():
    wrong = np.array([True, False, True, False])
    curve = error_versus_discard(wrong, pair_quality([1, 2, 3, 9], [5, 2, 3, 4]))
    assert curve.discarded.tolist() == [0, 0.25, 0.5, 0.75]
    assert curve.errors.tolist() == [0.5, 1 / 3, 0.5, 0]
    area = discard_area(curve, 0.5)
    assert area.area == pytest.approx(0.25 * 0.5 + 0.25 / 3)
    assert (area.level, area.ideal) == (0.25, pytest.approx(0.25 * 0.5 + 0.25 / 3))
    assert area.relative == pytest.approx(0)
    # Quality that does not tell them apart discards nothing.
    flat = discard_area(error_versus_discard(wrong, np.zeros(4)), 0.5)
    assert (flat.area, flat.relative) == (0.25, 1)
    assert discard_area(error_versus_discard(~wrong & wrong, wrong), 0.5).relative is None


def test_order_and_monotone_maps_of_quality_do_not_matter():
    rng = np.random.default_rng(0)
    wrong, quality = rng.random(200) < 0.2, np.round(rng.random(200), 1)
    curve = error_versus_discard(wrong, quality)
    order = rng.permutation(200)
    again = error_versus_discard(wrong[order], np.exp(5 * quality[order]))
    assert again.discarded.tolist() == curve.discarded.tolist()
    assert again.errors.tolist() == curve.errors.tolist()


def test_weights_are_repetitions_and_the_interval_holds_the_area():
    rng = np.random.default_rng(1)
    quality = rng.random(300)
    wrong = rng.random(300) < 0.5 * (1 - quality)
    times = rng.integers(0, 3, 300)
    repeated = error_versus_discard(np.repeat(wrong, times), np.repeat(quality, times))
    statistic = build_area_statistic(wrong, quality)
    assert statistic(times.astype(float))[0] == pytest.approx(discard_area(repeated).area)
    assert np.isnan(statistic(np.zeros(300))[0])
    people = np.repeat(np.arange(100), 3).astype(str)
    (interval,) = bootstrap_subjects(statistic, people, people, resamples=200)
    area = discard_area(error_versus_discard(wrong, quality)).area
    assert interval.low < area < interval.high


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: error_versus_discard([True], [0.1, 0.2]), "equal length"),
        (lambda: error_versus_discard([], []), "at least one comparison"),
        (lambda: error_versus_discard([1, 0], [0.1, 0.2]), "boolean"),
        (lambda: error_versus_discard([True, False], [0.1, np.nan]), "NaN in comparison 1"),
        (lambda: pair_quality([0.1], [0.1, 0.2]), "equal length"),
        (lambda: discard_area(error_versus_discard([True], [1.0]), 1.5), r"in \[0, 1\]"),
        (lambda: build_area_statistic([True], [1.0], 0), "got 0"),
    ],
)
def test_bad_input_is_one_sentence(call, message):
    with pytest.raises(InputError, match=message):
        call()
