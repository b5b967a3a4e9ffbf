import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.metrics.identification import (
    SearchScores,
    collect_search,
    fnir_at_fpir,
    identification_rates,
    rank_of_own,
    rank_rates,
)

INF = math.inf
# Probes: own best; own second; own below the threshold; failed; stranger seen; stranger unseen.
SCORES = np.array(
    [
        [0.9, 0.1, 0.2],
        [0.8, 0.7, 0.1],
        [0.1, 0.2, 0.3],
        [-INF, -INF, -INF],
        [0.6, 0.0, 0.0],
        [0.3, 0.2, 0.1],
    ]
)
PERSON = np.array([0, 1, 2, 0, -1, -1])


def test_hand_computed_miniature():
    rates = identification_rates(SCORES, PERSON, 0.5)
    assert (rates.people, rates.mated, rates.non_mated) == (3, 4, 2)
    assert (rates.misses, rates.false_alarms) == (2, 1)
    assert (rates.fnir, rates.fpir) == (0.5, 0.5)
    # A wrong person first: a miss with a list of one, a hit with a list of two.
    assert identification_rates(SCORES, PERSON, 0.5, rank=1).fnir == 0.75
    assert identification_rates(SCORES, PERSON, 0.5, rank=2).fnir == 0.5
    assert rank_of_own(SCORES, PERSON).tolist() == [1, 2, 1, 1, 0, 0]
    assert rank_rates(SCORES, PERSON, [1, 2]) == {1: 0.5, 2: 0.75}


def test_a_failed_probe_is_missed_even_without_a_threshold():
    rates = identification_rates(SCORES, PERSON, -INF)
    assert (rates.misses, rates.false_alarms) == (1, 2)


def test_ties_rank_by_position():
    assert rank_of_own([[0.5, 0.5, 0.5]], [1]).tolist() == [2]


def test_rates_without_probes_of_a_kind_are_none():
    assert identification_rates(SCORES[:4], PERSON[:4], 0.5).fpir is None
    assert identification_rates(SCORES[4:], PERSON[4:], 0.5).fnir is None


def test_fnir_at_fpir_golden():
    half, none = fnir_at_fpir(SCORES, PERSON, [0.5, 0.1])
    # One of two strangers may be taken for somebody: the threshold passes 0.3, not 0.6.
    assert half.rates.threshold == 0.6
    assert (half.rates.fnir, half.rates.fpir) == (0.5, 0.5)
    assert (none.rates.threshold, none.rates.fnir, none.rates.fpir) == (0.7, 0.5, 0.0)
    assert not half.supported


@given(st.integers(0, 10**6), st.sampled_from([0.05, 0.2, 0.5, 1.0]), st.sampled_from([None, 1]))
@settings(max_examples=60, deadline=None)
def test_fnir_at_fpir_is_the_best_that_keeps_the_target(seed, target, rank):
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random((20, 5)), 1)
    person = rng.integers(-1, 5, 20)
    person[:2] = -1, 0
    (point,) = fnir_at_fpir(scores, person, [target], rank)
    assert point.rates.fpir <= target
    tried = [
        identification_rates(scores, person, t, rank)
        for t in [*np.unique(scores), scores.max() + 1]
    ]
    assert point.rates.fnir == min(r.fnir for r in tried if r.fpir <= target)


def test_rank_and_threshold_must_both_hold():
    # Own score above the threshold at rank 2: found in a list of two, not in a list of one; an
    # impostor above the threshold does not make up for it.
    scores, person = [[0.8, 0.7], [0.1, 0.9], [0.6, 0.2]], [1, 1, -1]
    (one,), (two,) = (fnir_at_fpir(scores, person, [0.5], rank) for rank in (1, 2))
    assert (one.rates.tpir, two.rates.tpir) == (0.5, 1.0)
    assert identification_rates(scores[2:], person[2:], 0.5).tpir is None


def test_search_scores_hand_computed():
    search = collect_search(SCORES, PERSON, rank=1)
    assert search.own.tolist() == [0.9, -INF, 0.3, -INF]
    assert search.best.tolist() == [0.6, 0.3]
    curve = search.curve()
    assert curve.thresholds[1:].tolist() == [0.9, 0.6, 0.3]
    assert curve.thresholds[0] == np.nextafter(0.9, 1)
    assert curve.fnir.tolist() == [1, 0.75, 0.75, 0.5]
    assert curve.fpir.tolist() == [0, 0, 0.5, 1]
    nobody = SearchScores(3, None, np.array([-INF]), np.array([-INF])).curve()
    assert (nobody.fnir.tolist(), nobody.fpir.tolist()) == ([1], [0])


@given(st.integers(0, 10**6), st.sampled_from([None, 1, 2]))
@settings(max_examples=60, deadline=None)
def test_every_point_of_the_curve_is_what_its_threshold_gives(seed, rank):
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random((20, 5)), 1)
    scores[rng.random(20) < 0.1] = -INF
    person = rng.integers(-1, 5, 20)
    person[:2] = -1, 0
    search = collect_search(scores, person, rank)
    curve = search.curve()
    assert (np.diff(curve.thresholds) < 0).all()
    for fnir, fpir, threshold in zip(curve.fnir, curve.fpir, curve.thresholds, strict=True):
        rates = identification_rates(scores, person, threshold, rank)
        assert search.rates(threshold) == rates
        assert (fnir, fpir) == (pytest.approx(rates.fnir), pytest.approx(rates.fpir))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: collect_search([[0.1]], [0], rank=0), "at least 1"),
        (lambda: fnir_at_fpir([[0.1]], [-1], [0.1], rank=0), "at least 1"),
        (lambda: SearchScores(1, None, np.array([1]), np.array([0.1])), "own must be a row"),
        (lambda: SearchScores(1, None, np.array([0.1]), np.array([np.nan])), "best .* NaN"),
        (lambda: collect_search([[0.1]], [-1]).curve(), "enrolled people, got none"),
        (lambda: collect_search([[0.1]], [0]).curve(), "not enrolled, got none"),
        (lambda: identification_rates([0.1], [0], 0.5), "matrix"),
        (lambda: identification_rates([[0.1]], [0, 1], 0.5), "one person a probe"),
        (lambda: identification_rates([[0.1]], [1], 0.5), r"in \[-1, 0\]"),
        (lambda: identification_rates([[np.nan]], [0], 0.5), "NaN"),
        (lambda: identification_rates([[0.1]], [0.0], 0.5), "column numbers"),
        (lambda: identification_rates([[0.1]], [0], 0.5, rank=0), "at least 1"),
        (lambda: fnir_at_fpir([[0.1]], [0], [0.1]), "not enrolled"),
        (lambda: rank_rates([[0.1]], [-1], [1]), "enrolled people, got none"),
    ],
)
def test_bad_input_is_one_sentence(call, message):
    with pytest.raises(InputError, match=message):
        call()
