import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.metrics.bootstrap import (
    bootstrap_subjects,
    build_share_statistic,
    build_tar_statistic,
)
from facerec.metrics.verification import tar_at_far


@given(st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_unit_weights_give_the_plain_figure_and_whole_weights_a_repetition(seed):
    rng = np.random.default_rng(seed)
    same = np.append(rng.random(30) < 0.5, [True, False])
    scores = np.round(rng.normal(same * 0.5, 0.4), 1)
    scores[rng.random(32) < 0.1] = -math.inf
    fars = [0.01, 0.1, 0.25, 0.5, 1.0]
    statistic = build_tar_statistic(scores, same, fars)
    times = np.append(rng.integers(0, 3, 30), [1, 1])
    for weights in (np.ones(32, int), times):
        points = tar_at_far(np.repeat(scores, weights), np.repeat(same, weights), fars)
        np.testing.assert_allclose(statistic(weights.astype(float)), [p.tar for p in points])


def test_weights_are_products_of_multiplicities_and_mated_ones_count_once():
    people_a, people_b = ["x", "x", "y"], ["x", "y", "y"]
    seen = []

    def statistic(weights):
        seen.append(tuple(weights))
        return weights[:1]

    bootstrap_subjects(statistic, people_a, people_b, resamples=50)
    # Two people drawn twice: (2, 0), (1, 1) or (0, 2).
    assert set(seen) == {(2, 0, 0), (1, 1, 1), (0, 0, 2)}


def test_same_seed_same_interval_and_other_seed_another():
    people = [f"p{i}" for i in range(40)]
    lengths = np.random.default_rng(5).random(40)
    first, again, other = (
        bootstrap_subjects(lambda w: np.array([w @ lengths]), people, people, seed=seed)[0]
        for seed in (0, 0, 1)
    )
    assert first == again != other
    assert first.low < lengths.sum() < first.high


def test_clustered_pairs_widen_the_interval():
    # 10 people x 20 pairs that succeed or fail together, against 200 people with a pair each.
    right = np.repeat(np.arange(10) % 2 == 0, 20)
    few, many = np.repeat(np.arange(10), 20), np.arange(200)
    share = build_share_statistic(right)
    (clustered,) = bootstrap_subjects(share, few, few, resamples=300)
    (single,) = bootstrap_subjects(share, many, many, resamples=300)
    assert clustered.high - clustered.low > 3 * (single.high - single.low)


def test_resamples_without_a_figure_are_left_out():
    statistic = build_tar_statistic([0.9, 0.1], [True, False], [0.5])
    (interval,) = bootstrap_subjects(statistic, ["a", "b"], ["a", "c"], resamples=100)
    assert (interval.low, interval.high) == (1.0, 1.0)
    (empty,) = bootstrap_subjects(lambda w: np.array([np.nan]), ["a"], ["b"], resamples=5)
    assert math.isnan(empty.low)


def test_bad_input_is_one_sentence():
    share = build_share_statistic([True])
    with pytest.raises(InputError, match="equal length"):
        bootstrap_subjects(share, ["a"], ["a", "b"])
    with pytest.raises(InputError, match="confidence"):
        bootstrap_subjects(share, ["a"], ["a"], confidence=95)
