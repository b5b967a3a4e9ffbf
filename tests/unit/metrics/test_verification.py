import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.metrics.verification import (
    best_threshold,
    count_allowed,
    eer,
    kfold_accuracy,
    roc_curve,
    tar_at_far,
    top_slice,
)

INF = math.inf

# Few distinct values, failures among them: ties everywhere.
ROUGH = st.sampled_from([-INF, -0.5, 0.0, 0.25, 0.25000001, 0.5, 1.0])
FINE = st.floats(-1, 1, width=32)


@st.composite
def scored_pairs(draw, dtypes=(np.float32, np.float64)):
    n = draw(st.integers(2, 40))
    elements = draw(st.sampled_from([ROUGH, FINE]))
    scores = np.array(draw(st.lists(elements, min_size=n, max_size=n)))
    same = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    same[:2] = True, False
    return scores.astype(draw(st.sampled_from(dtypes))), same


def brute_force(scores, same, far):
    """The definition: try every observed score and one above them all, keep the lowest."""
    above = np.nextafter(scores[~same].max(), scores.dtype.type(INF))
    wanted = []
    for threshold in [above, *np.unique(scores[scores > -INF])]:
        if np.mean(scores[~same] >= threshold) <= far:
            wanted.append(threshold)
    observed = [t for t in wanted if t in scores]
    threshold = min(observed or wanted)
    return float(threshold), float(np.mean(scores[same] >= threshold))


@given(scored_pairs(), st.sampled_from([1e-4, 0.01, 0.1, 0.2, 1 / 3, 0.5, 0.7, 1.0]))
@settings(max_examples=300, deadline=None)
def test_tar_at_far_equals_brute_force(pairs, far):
    scores, same = pairs
    (point,) = tar_at_far(scores, same, [far])
    threshold, tar = brute_force(scores, same, far)
    assert point.tar == pytest.approx(tar, abs=1e-15)
    assert point.threshold == threshold
    assert point.false_accepts / point.non_mated <= far
    assert point.false_accepts == np.count_nonzero(scores[~same] >= point.threshold)


@given(scored_pairs())
@settings(max_examples=100, deadline=None)
def test_tar_never_falls_as_far_grows_and_order_does_not_matter(pairs):
    scores, same = pairs
    fars = [0.01, 0.1, 0.3, 0.6, 1.0]
    points = tar_at_far(scores, same, fars)
    tars = [point.tar for point in points]
    assert tars == sorted(tars)
    order = np.random.default_rng(0).permutation(scores.size)
    assert tar_at_far(scores[order], same[order], fars) == points


def test_golden_figures_with_ties():
    scores = [0.9, 0.8, 0.7, 0.6, 0.5, 0.7, 0.6, 0.6, 0.2, 0.1]
    same = [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]
    points = tar_at_far(scores, same, [0.1, 0.2, 0.4, 0.6])
    # One of five strangers at 0.7; the two at 0.6 come together, so 0.4 allows no more than 0.2.
    assert [p.threshold for p in points] == [0.8, 0.7, 0.7, 0.5]
    assert [p.tar for p in points] == [0.4, 0.6, 0.6, 1.0]
    assert [p.false_accepts for p in points] == [0, 1, 1, 3]
    assert [p.allowed_false_accepts for p in points] == [0, 1, 2, 3]


def test_threshold_lies_just_above_the_strangers_when_no_score_will_do():
    scores = np.array([0.5, 0.9], np.float32)
    (point,) = tar_at_far(scores, [True, False], [0.01])
    assert point.tar == 0
    assert point.threshold == np.nextafter(np.float32(0.9), np.float32(1))
    assert not (scores >= point.threshold).any()


def test_failures_are_never_accepted():
    scores = [0.5, -INF, -INF, 0.1]
    (point,) = tar_at_far(scores, [1, 1, 0, 0], [1.0])
    assert (point.tar, point.threshold, point.false_accepts) == (0.5, 0.1, 1)
    (point,) = tar_at_far([-INF, -INF], [1, 0], [1.0])
    assert (point.tar, point.false_accepts) == (0.0, 0)
    assert math.isfinite(point.threshold)


def test_support_needs_ten_possible_false_accepts():
    scores = np.linspace(-1, 1, 10_001)
    same = np.arange(10_001) == 5
    points = tar_at_far(scores, same, [1e-3, 0.9999e-3, 1e-4])
    assert [p.supported for p in points] == [True, False, False]
    assert [p.allowed_false_accepts for p in points] == [10, 9, 1]


@pytest.mark.parametrize(
    ("far", "n", "count"),
    [(1e-3, 3000, 3), (0.1, 30, 3), (0.7, 10, 7), (0.29, 100, 29), (1.0, 7, 7), (1e-9, 7, 0)],
)
def test_allowed_counts_survive_rounding(far, n, count):
    assert count_allowed(far, n) == count


def test_top_slice_is_the_sorted_top():
    values = np.array([3.0, 1.0, 2.0, 3.0])
    assert top_slice(values, 3).tolist() == [3, 3, 2]
    assert top_slice(values, 9).tolist() == [3, 3, 2, 1]


@pytest.mark.parametrize("kind", ["random", "rising", "tied", "constant", "spiked", "failed"])
@pytest.mark.parametrize("count", [1, 7, 2500])
def test_top_slice_of_many_values_survives_any_order(kind, count):
    rng = np.random.default_rng(0)
    values = rng.normal(size=60_000).astype(np.float32)
    if kind == "rising":
        values = np.sort(values)
    elif kind == "tied":
        values = np.round(values, 1)
    elif kind == "constant":
        values[:] = 0.5
    elif kind == "spiked":
        # The sample sees only the greatest: every third value.
        values[::3] += 100
    elif kind == "failed":
        values[values < 2.2] = -INF
    assert np.array_equal(top_slice(values, count), np.sort(values)[::-1][:count])


@pytest.mark.parametrize("kind", ["random", "rising", "tied", "spiked", "failed", "mated"])
def test_a_floor_under_many_scores_changes_nothing(kind):
    rng = np.random.default_rng(0)
    same = rng.random(60_000) < (0.9995 if kind == "mated" else 0.1)
    scores = rng.normal(same * 2, 1).astype(np.float32)
    if kind == "rising":
        scores, same = np.sort(scores), same[np.argsort(scores)]
    elif kind == "tied":
        scores = np.round(scores, 1)
    elif kind == "spiked":
        # The sample sees only the greatest: every third score.
        scores[::3] += 100
    elif kind == "failed":
        scores[scores < 2.2] = -INF
    fars = [1e-4, 1e-3, 0.01, 0.1, 0.3, 0.7, 1.0]
    for targets in (fars[:1], fars[:4], fars):
        for far, point in zip(targets, tar_at_far(scores, same, targets), strict=True):
            falling = np.sort(scores[~same])[::-1]
            allowed = count_allowed(far, falling.size)
            barrier = falling[allowed] if allowed < falling.size else -INF
            above = scores[scores > barrier]
            assert point.false_accepts == np.count_nonzero(falling >= above.min())
            assert point.threshold == above.min()
            assert point.tar == np.mean(scores[same] >= above.min())


@given(scored_pairs())
@settings(max_examples=100, deadline=None)
def test_roc_holds_what_a_threshold_gives(pairs):
    scores, same = pairs
    curve = roc_curve(scores, same)
    assert (curve.far[0], curve.tar[0], curve.far[-1], curve.tar[-1]) == (0, 0, 1, 1)
    assert (np.diff(curve.thresholds) < 0).all()
    for far, tar, threshold in zip(curve.far, curve.tar, curve.thresholds, strict=True):
        assert far == pytest.approx(np.mean(scores[~same] >= threshold))
        assert tar == pytest.approx(np.mean(scores[same] >= threshold))


def test_roc_equals_sklearn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    same = rng.random(500) < 0.4
    scores = np.round(rng.normal(same, 1), 1)
    far, tar, thresholds = metrics.roc_curve(same, scores, drop_intermediate=False)
    curve = roc_curve(scores, same)
    np.testing.assert_allclose(curve.far, far)
    np.testing.assert_allclose(curve.tar, tar)
    np.testing.assert_allclose(curve.thresholds[1:], thresholds[1:])


@pytest.mark.parametrize(
    ("scores", "same", "expected"),
    [
        ([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0], 0.0),
        ([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0], 1.0),
        ([0.5, 0.5], [1, 0], 0.5),
        ([0.9, 0.4, 0.6, 0.1], [1, 1, 0, 0], 0.5),
        # Between (0, 2/3) and (1/2, 2/3) of the ROC, FAR meets FRR = 1/3.
        ([0.9, 0.8, 0.3, 0.5, 0.1], [1, 1, 1, 0, 0], 1 / 3),
    ],
)
def test_eer_golden(scores, same, expected):
    assert eer(scores, same) == pytest.approx(expected)


@given(scored_pairs())
@settings(max_examples=100, deadline=None)
def test_eer_is_unchanged_when_the_roles_are_mirrored(pairs):
    scores, same = pairs
    scores = np.where(scores == -INF, np.float32(-2), scores)
    assert eer(scores, same) == pytest.approx(eer(-scores, ~same), abs=1e-12)


@given(scored_pairs())
@settings(max_examples=200, deadline=None)
def test_best_threshold_is_the_most_accurate_one(pairs):
    scores, same = pairs
    found = np.mean((scores.astype(np.float64) >= best_threshold(scores, same)) == same)
    above = np.nextafter(scores.max(), scores.dtype.type(INF))
    best = max(np.mean((scores >= t) == same) for t in [above, *np.unique(scores[scores > -INF])])
    assert found == best


def test_best_threshold_lies_in_the_middle_of_the_gap_and_prefers_the_higher():
    assert best_threshold([0.8, 0.2], [True, False]) == pytest.approx(0.5)
    # 1 mistake above 0.9 / between 0.6 and 0.4 alike: the higher is taken.
    assert best_threshold([0.9, 0.6, 0.4], [False, True, False]) > 0.9
    assert best_threshold([0.8, -INF], [True, False]) == 0.8


def test_kfold_chooses_each_threshold_on_the_other_folds():
    # Fold 1 separates at 0.5, fold 2 at 0.1: each is judged by the other's threshold.
    scores = [0.8, 0.2, 0.15, 0.05]
    result = kfold_accuracy(scores, [1, 0, 1, 0], [1, 1, 2, 2])
    assert result.folds == [1, 2]
    np.testing.assert_allclose(result.thresholds, [0.1, 0.5])
    np.testing.assert_allclose(result.accuracies, [0.5, 0.5])
    assert (result.mean, result.std) == (0.5, 0.0)


def test_kfold_counts_a_failure_as_rejected():
    scores = [0.8, 0.1, -INF, 0.1, 0.8, 0.1]
    result = kfold_accuracy(scores, [1, 0, 1, 0, 1, 0], [0, 0, 1, 1, 2, 2])
    np.testing.assert_allclose(result.accuracies, [1, 0.5, 1])
    assert result.std == pytest.approx(np.std([1, 0.5, 1]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tar_at_far([0.1, np.nan], [1, 0], [0.1]), "got nan in 1"),
        (lambda: tar_at_far([np.inf, 0.1], [1, 0], [0.1]), "got inf in 0"),
        (lambda: tar_at_far([0.1, 0.2], [1, 1], [0.1]), "none is non-mated"),
        (lambda: tar_at_far([0.1, 0.2], [0, 0], [0.1]), "none is mated"),
        (lambda: tar_at_far([], [], [0.1]), "none is mated"),
        (lambda: tar_at_far([0.1, 0.2], [1, 2], [0.1]), "only 0 and 1"),
        (lambda: tar_at_far([0.1, 0.2], [1], [0.1]), "equal length"),
        (lambda: tar_at_far([0.1, 0.2], [1, 0], [0.0]), r"in \(0, 1\]"),
        (lambda: tar_at_far([0.1, 0.2], [1, 0], [math.nan]), r"in \(0, 1\]"),
        (lambda: kfold_accuracy([0.1, 0.2], [1, 0], [1, 1]), "at least 2 folds"),
        (lambda: kfold_accuracy([0.1, 0.2], [1, 0], [1]), "one number a score"),
        (lambda: eer([[0.1, 0.2]], [[1, 0]]), "rows of equal length"),
    ],
)
def test_bad_input_is_one_sentence(call, message):
    with pytest.raises(InputError, match=message):
        call()
