"""Thresholds for an FMR over all comparisons of strangers, against brute force and the truth."""

import numpy as np
import pytest

from facerec.checks import InputError
from facerec.metrics import exceedances
from facerec.metrics.bootstrap import bootstrap_subjects, build_share_statistic
from facerec.metrics.error_rates import measure_fmr
from facerec.metrics.exceedances import (
    collect_pairs,
    draw_people,
    resampled_rates,
    resampled_thresholds,
    sum_groups,
)
from facerec.metrics.thresholds import calibrate_fmr


def draw_vectors(seed, people, most=3, dim=48):
    """Directions with no structure but people: strangers are independent."""
    rng = np.random.default_rng(seed)
    subjects = np.repeat(np.arange(people), rng.integers(1, most + 1, people))
    centres = rng.normal(size=(people, dim))
    vectors = centres[subjects] + 0.7 * rng.normal(size=(subjects.size, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), subjects


def list_pairs(vectors, subjects, weighting):
    i, j = np.triu_indices(len(vectors), 1)
    differ = subjects[i] != subjects[j]
    i, j = i[differ], j[differ]
    scores = np.einsum("nd,nd->n", vectors[i], vectors[j])
    counts = np.bincount(subjects)[subjects]
    weights = 1 / (counts[i] * counts[j]) if weighting == "subjects" else np.ones(i.size)
    return scores.astype(np.float64), subjects[i], subjects[j], weights


@pytest.mark.parametrize("weighting", ["subjects", "transactions"])
@pytest.mark.parametrize("tile", [7, 1024])
def test_pairs_are_those_of_brute_force(weighting, tile, monkeypatch):
    monkeypatch.setattr(exceedances, "_TILE", tile)
    monkeypatch.setattr(exceedances, "_SLACK", 50)
    vectors, subjects = draw_vectors(0, 20)
    scores, first, _, weights = list_pairs(vectors, subjects, weighting)
    order = np.argsort(-scores)
    full = collect_pairs(vectors, subjects, weighting=weighting)
    assert full.comparisons == full.scores.size == scores.size
    assert full.floor == -np.inf
    np.testing.assert_allclose(full.scores, scores[order], atol=1e-6)
    np.testing.assert_allclose(full.cumulate(), np.cumsum(weights[order]) / weights.sum())
    assert {*full.first.tolist()} <= {*first.tolist(), *full.second.tolist()}
    top = collect_pairs(vectors, subjects, 100, weighting=weighting)
    np.testing.assert_allclose(top.scores, full.scores[:100], atol=1e-6)
    assert top.covers(top.scores[50])
    assert not top.covers(top.scores[99])
    above = collect_pairs(vectors, subjects, weighting=weighting, floor=0.2)
    assert above.scores.size == (scores >= 0.2).sum()
    assert above.covers(0.2)
    assert above.cumulate()[-1] == pytest.approx(weights[scores >= 0.2].sum() / weights.sum())


def test_resamples_are_those_of_the_subject_bootstrap():
    vectors, subjects = draw_vectors(1, 15)
    sample = collect_pairs(vectors, subjects)
    times = draw_people(15, 30, 2)
    rates = resampled_rates(sample, times, 0.15)
    thresholds = resampled_thresholds(sample, times, 0.1)
    groups = sum_groups(sample, times, np.array([0, 5, 40]))
    totals = sample.total(times)
    for row, mine in enumerate(times):
        weights = sample.weights * mine[sample.first] * mine[sample.second]
        assert totals[row] == pytest.approx(weights.sum())
        assert rates[row] == pytest.approx(weights[sample.scores >= 0.15].sum() / weights.sum())
        assert groups[row] == pytest.approx(
            [weights[:5].sum(), weights[5:40].sum(), weights[40:].sum()]
        )
        kept = [
            t
            for t in np.unique(sample.scores)
            if weights[sample.scores >= t].sum() / weights.sum() <= 0.1
        ]
        assert thresholds[row] == min(kept)


def test_interval_agrees_with_the_general_bootstrap():
    vectors, subjects = draw_vectors(2, 60, most=1)
    seen = measure_fmr(vectors, subjects, 0.25, resamples=2000)
    scores, first, second, _ = list_pairs(vectors, subjects, "subjects")
    other = bootstrap_subjects(
        build_share_statistic(scores >= 0.25), first, second, resamples=1000
    )[0]
    assert seen.rate == pytest.approx((scores >= 0.25).mean())
    assert seen.errors == (scores >= 0.25).sum()
    # BCa lies a little higher than plain percentiles.
    assert seen.interval.low == pytest.approx(other.low, abs=0.25 * seen.rate)
    assert seen.interval.high == pytest.approx(other.high, abs=0.25 * seen.rate)
    assert seen.interval.low >= other.low


def test_the_true_rate_is_the_stated_one():
    # The cosine of independent directions: (1 + c) / 2 is beta distributed.
    from scipy.stats import beta

    law = beta(23.5, 23.5, loc=-1, scale=2)
    rates, held = [], 0
    for seed in range(12):
        found = calibrate_fmr(*draw_vectors(seed, 250, most=2), 1e-3, seed=seed, resamples=100)
        truth = law.sf(found.threshold)
        rates.append(truth)
        held += found.rate_interval.low <= truth <= found.rate_interval.high
    assert np.mean(rates) == pytest.approx(1e-3, rel=0.1)
    assert held >= 10


def test_prediction_holds_for_other_people():
    held = 0
    for seed in range(10):
        found = calibrate_fmr(*draw_vectors(seed, 200, most=2), 1e-3, seed=seed, resamples=100)
        seen = measure_fmr(*draw_vectors(50 + seed, 100, most=2), found.threshold, resamples=100)
        predicted = found.predict(100)
        held += predicted.low <= seen.rate <= predicted.high
    assert held >= 9


def test_strict_rates_need_more_people_than_there_are():
    vectors, subjects = draw_vectors(0, 200, most=2)
    found = calibrate_fmr(vectors, subjects, 1e-6, resamples=100)
    assert not found.supported
    # n (n - 1) / 2 >= 3e6
    assert found.needed_subjects == 2450
    assert found.expected_errors == pytest.approx(0.0199)
    assert calibrate_fmr(vectors, subjects, 2e-4, resamples=100).method == "tail"


def test_lower_targets_have_higher_thresholds():
    vectors, subjects = draw_vectors(3, 200, most=2)
    found = [
        calibrate_fmr(vectors, subjects, target, resamples=100)
        for target in (0.1, 1e-2, 1e-3, 2e-4)
    ]
    thresholds = [one.threshold for one in found]
    assert thresholds == sorted(thresholds)
    assert found[0].people is None
    assert found[0].comparisons == len(list_pairs(vectors, subjects, "subjects")[0])


def test_one_person_under_two_names_is_pointed_at():
    vectors, subjects = draw_vectors(4, 200, most=2)
    twins = vectors[:60].copy()
    found = calibrate_fmr(
        np.concatenate([vectors, twins]),
        np.concatenate([subjects, 1000 + subjects[:60]]),
        1e-3,
        resamples=100,
    )
    assert found.method != "tail"
    assert "two names" in found.reason


def test_errors_that_share_a_person_are_counted_once():
    vectors = np.eye(6, dtype=np.float32)[[0, 0, 0, 1, 2, 2]]
    sample = collect_pairs(vectors, np.arange(6))
    assert sample.count_errors(1.0) == 4
    assert sample.count_independent(1.0) == 2


@pytest.mark.parametrize(
    ("subjects", "depth", "message"),
    [
        (np.zeros(4), 10, "at least 2 people"),
        (np.arange(3), 10, "one a vector"),
        (np.arange(4), 0, "depth"),
    ],
)
def test_bad_input_is_named(subjects, depth, message):
    with pytest.raises(InputError, match=message):
        collect_pairs(np.eye(4, dtype=np.float32), subjects, depth)


def test_more_scores_than_can_be_held_are_refused():
    vectors = np.zeros((10_000, 1), np.float32) + 1
    with pytest.raises(InputError, match="random part of the people"):
        calibrate_fmr(vectors, np.arange(10_000), 0.2)
