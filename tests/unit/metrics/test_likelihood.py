import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.metrics.likelihood import (
    calibration_loss,
    cllr,
    fit_logistic,
    fit_pav,
    min_cllr,
)

INF = math.inf


def draw(seed, n=4000, gap=2.0):
    """Normal scores of variance 1, `gap` apart: log-likelihood ratio gap * score - gap**2 / 2."""
    rng = np.random.default_rng(seed)
    same = rng.random(n) < 0.3
    return rng.normal(same * gap, 1), same


@st.composite
def scored_pairs(draw_from):
    n = draw_from(st.integers(2, 30))
    elements = draw_from(st.sampled_from([st.sampled_from([0.0, 0.5, 1.0]), st.floats(-1, 1)]))
    scores = np.array(draw_from(st.lists(elements, min_size=n, max_size=n)))
    same = np.array(draw_from(st.lists(st.booleans(), min_size=n, max_size=n)))
    same[:2] = True, False
    return scores, same


def test_cllr_golden():
    assert cllr([0.0], [0.0, 0.0]) == pytest.approx(1.0)
    # Ratios 3 and 1/3: log2(1 + 1/3) on both sides.
    assert cllr([math.log(3)], [-math.log(3)]) == pytest.approx(math.log2(4 / 3))
    assert cllr([INF], [-INF]) == 0
    assert cllr([-INF], [0.0]) == INF
    assert cllr([800.0], [800.0]) == pytest.approx(400 / math.log(2))
    loss = calibration_loss([math.log(3), -math.log(3)], [True, False])
    assert (loss.cllr, loss.min_cllr) == (pytest.approx(math.log2(4 / 3)), 0)
    assert loss.calibration == loss.cllr


def test_min_cllr_golden():
    # Order mated, non-mated, mated, non-mated: the two in the middle pool at ratio 1.
    assert min_cllr([0.9, 0.6, 0.4, 0.1], [1, 0, 1, 0]) == pytest.approx(0.5)
    assert min_cllr([0.9, 0.1], [1, 0]) == 0
    assert min_cllr([0.1, 0.9], [1, 0]) == pytest.approx(1)
    assert min_cllr([0.5, 0.5], [1, 0]) == pytest.approx(1)
    # A failure costs a bit, here a quarter of all.
    assert min_cllr([0.9, -INF, 0.1, 0.2], [1, 1, 0, 0]) == pytest.approx(0.25)
    assert min_cllr([-INF, 0.2], [1, 0]) == 1


def pool_by_loop(scores, same):
    """Pool neighbouring groups while the share of mated ones falls; ratio of each score."""
    groups = []
    for score in np.unique(scores):
        labels = same[scores == score]
        groups.append([[score], labels.sum(), labels.size])
        while len(groups) > 1 and groups[-2][1] * groups[-1][2] >= groups[-1][1] * groups[-2][2]:
            names, mated, size = groups.pop()
            groups[-1] = [groups[-1][0] + names, groups[-1][1] + mated, groups[-1][2] + size]
    kinds = same.sum(), (~same).sum()
    return {
        name: (mated / kinds[0], (size - mated) / kinds[1])
        for names, mated, size in groups
        for name in names
    }


@given(scored_pairs())
@settings(max_examples=150, deadline=None)
def test_min_cllr_equals_pooling_by_hand(pairs):
    scores, same = pairs
    shares = pool_by_loop(scores, same)
    cost = 0.0
    for score, own in zip(scores, same, strict=True):
        right, wrong = shares[score] if own else shares[score][::-1]
        cost += math.log2(1 + wrong / right) / (same.sum() if own else (~same).sum()) / 2
    assert min_cllr(scores, same) == pytest.approx(cost, abs=1e-9)


@given(scored_pairs(), st.floats(0.1, 5), st.floats(-3, 3))
@settings(max_examples=100, deadline=None)
def test_laws_of_the_least_cost(pairs, slope, offset):
    scores, same = pairs
    least = min_cllr(scores, same)
    assert -1e-12 <= least <= 1 + 1e-12
    # No rising line beats it, and it sees the order alone.
    assert least <= cllr((slope * scores + offset)[same], (slope * scores + offset)[~same]) + 1e-9
    codes = np.unique(scores, return_inverse=True)[1]
    assert min_cllr(np.exp(codes.astype(float) / 10), same) == pytest.approx(least, abs=1e-12)


def test_both_calibrations_find_known_ratios():
    scores, same = draw(0, 40_000)
    line = fit_logistic(scores, same)
    assert line.slope == pytest.approx(2, rel=0.05)
    assert line.offset == pytest.approx(-2, rel=0.05)
    steps = fit_pav(scores, same)
    inner = np.linspace(0, 2, 9)
    np.testing.assert_allclose(steps.llr(inner), 2 * inner - 2, atol=0.35)
    fresh, truth = draw(1, 40_000)
    best = cllr((2 * fresh - 2)[truth], (2 * fresh - 2)[~truth])
    for calibration in (line, steps):
        loss = calibration_loss(calibration.llr(fresh), truth)
        assert loss.cllr == pytest.approx(best, rel=0.02)
        assert 0 <= loss.calibration < 0.01


def test_logistic_is_the_line_of_least_cllr():
    scores, same = draw(2, 500)
    line = fit_logistic(scores, same, smoothing=0)
    least = cllr(line.llr(scores[same]), line.llr(scores[~same]))
    for slope, offset in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)):
        near = (line.slope + slope) * scores + line.offset + offset
        assert least < cllr(near[same], near[~same])


def test_logistic_equals_sklearn():
    linear = pytest.importorskip("sklearn.linear_model")
    scores, same = draw(3, 800)
    line = fit_logistic(scores, same, smoothing=0)
    other = linear.LogisticRegression(C=1e12, class_weight="balanced", tol=1e-10)
    other.fit(scores[:, None], same)
    assert line.slope == pytest.approx(other.coef_[0, 0], rel=1e-4)
    assert line.offset == pytest.approx(other.intercept_[0], rel=1e-4)


@given(scored_pairs())
@settings(max_examples=60, deadline=None)
def test_logistic_follows_a_change_of_units(pairs):
    scores, same = pairs
    if np.ptp(scores) < 1e-3:
        return
    line, moved = fit_logistic(scores, same), fit_logistic(100 * scores + 7, same)
    np.testing.assert_allclose(moved.llr(100 * scores + 7), line.llr(scores), atol=1e-5)


def test_scores_that_separate_have_a_finite_slope_with_smoothing_alone():
    scores, same = np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True])
    line = fit_logistic(scores, same)
    # Labels 3/4 and 1/4: the best ratio is near 3 on either side.
    np.testing.assert_allclose(line.llr([0.85, 0.15]), [math.log(3), -math.log(3)], atol=0.05)
    with pytest.raises(InputError, match="separate"):
        fit_logistic(scores, same, smoothing=0)


@given(scored_pairs())
@settings(max_examples=60, deadline=None)
def test_steps_rise_and_are_finite(pairs):
    scores, same = pairs
    steps = fit_pav(scores, same)
    assert np.isfinite(steps.llrs).all()
    assert (np.diff(steps.llrs) > 0).all()
    assert (np.diff(steps.scores) > 0).all()
    low, high = steps.llr([-5.0, 5.0])
    assert (low, high) == (steps.llrs[0], steps.llrs[-1])


def test_steps_golden():
    # With one of each kind at both ends, 0.1 holds 1 : 2 and 0.9 holds 2 : 1, of 3 each.
    steps = fit_pav([0.9, 0.1], [1, 0])
    assert steps.scores.tolist() == [0.1, 0.9]
    np.testing.assert_allclose(steps.llrs, [-math.log(2), math.log(2)])


def test_failures_say_nothing():
    scores, same = draw(4, 300)
    failed, kinds = np.append(scores, [-INF, -INF]), np.append(same, [True, False])
    line, steps = fit_logistic(failed, kinds), fit_pav(failed, kinds)
    assert line == fit_logistic(scores, same)
    assert (line.llr([-INF])[0], steps.llr(-INF)) == (0, 0)
    assert steps.llr(np.zeros((2, 3))).shape == (2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cllr([np.nan], [0.0]), "^mated .*NaN"),
        (lambda: cllr([0.0], []), "non-mated .*none"),
        (lambda: calibration_loss([0.1, INF], [1, 0]), "finite"),
        (lambda: min_cllr([0.1, 0.2], [1, 1]), "none is non-mated"),
        (lambda: fit_logistic([0.5, 0.5], [1, 0]), "all are equal"),
        (lambda: fit_logistic([-INF, 0.5], [1, 0]), "needs mated scores"),
        (lambda: fit_pav([0.5, -INF], [1, 0]), "needs non-mated scores"),
        (lambda: fit_logistic([0.1, 0.2], [1, 0], smoothing=-1), "smoothing"),
        (lambda: fit_pav([0.5], [1, 0]), "equal length"),
    ],
)
def test_bad_input_is_one_sentence(call, message):
    with pytest.raises(InputError, match=message):
        call()
