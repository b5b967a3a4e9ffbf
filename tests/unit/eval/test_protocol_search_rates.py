import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol_faces import lowest_threshold

from eval.protocol_open_set import area_under_curve
from eval.protocol_search import Search
from eval.protocol_search_rates import choose_threshold, measure_ranks, measure_tpir
from facerec.checks import InputError
from facerec.metrics.identification import SearchScores


def search_of(own, best, ranks=None, mated_people=None, non_mated_people=None):
    own, best = np.array(own, np.float32), np.array(best, np.float32)
    ranks = np.ones(own.size, int) if ranks is None else np.array(ranks)
    whose = np.arange(own.size) if mated_people is None else np.array(mated_people)
    strangers = 1000 + np.arange(best.size)
    if non_mated_people is not None:
        strangers = np.array(non_mated_people)
    return Search("g", 9, 0, 9, 0, ranks, own, whose, best, strangers, 0, 0)


def test_a_miniature_by_hand():
    # 20 strangers; FPIR 0.5 allows 10, and two tie at the tenth place: only 9 may pass.
    best = [0.9, 0.8, 0.8, 0.7, 0.7, 0.6, 0.6, 0.6, 0.55, 0.5, 0.5, *[0.1] * 9]
    own = [0.95, 0.52, 0.5, 0.3, -np.inf]
    found = measure_tpir([search_of(own, best)], [0.5], resamples=0)[0][0]
    # Above 0.5 the lowest observed score is the mated 0.52.
    assert (found.threshold, found.errors, found.allowed) == (pytest.approx(0.52), 9, 10)
    assert found.value == pytest.approx(2 / 5)
    strict = measure_tpir([search_of(own, best)], [0.45], resamples=0)[0][0]
    assert strict.value is None and not strict.supported
    assert "20 trials allow 9 errors at 0.45; 10 need 23" in strict.reason


def test_tpir_needs_both_threshold_and_rank():
    best = np.linspace(0, 0.4, 20)
    own, ranks = [0.9, 0.8, 0.7, 0.1], [1, 21, 20, 1]
    found = measure_tpir([search_of(own, best, ranks)], [0.5], 20, resamples=0)[0][0]
    # The second is above any threshold but at rank 21; the fourth is first but below it.
    assert found.name == "tpir20" and found.value == pytest.approx(2 / 4)
    alone = measure_tpir([search_of(own, best, ranks)], [0.5], resamples=0)[0][0]
    assert alone.value == pytest.approx(3 / 4)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=12),
    st.lists(st.integers(-3, 3), min_size=1, max_size=12),
    st.sampled_from([0.05, 0.2, 0.34, 0.5, 0.99, 1.0]),
)
def test_the_threshold_is_the_lowest_that_keeps_the_target(own, best, fpir):
    as_scores = [np.array([-np.inf if v == -3 else v / 4 for v in row]) for row in (own, best)]
    scores = SearchScores(5, None, *as_scores)
    threshold = choose_threshold(scores, fpir)
    wanted = lowest_threshold(scores.best, scores.own, fpir)
    if wanted is None:
        assert not (scores.own >= threshold).any() and not (scores.best >= threshold).any()
    else:
        assert threshold == wanted
    rates = scores.rates(threshold)
    assert rates.fpir <= fpir
    area = area_under_curve(scores)
    assert 0 <= area <= 1


def test_the_area_by_hand():
    # FPIR 0.5 is reached with TPIR 0.5 at 0.5, FPIR 1 with TPIR 1 at 0.1.
    assert area_under_curve(search_of([0.5, 0.1], [0.5, 0.1]).scores(None)) == pytest.approx(0.5)
    assert area_under_curve(search_of([0.9, 0.8], [0.5, 0.1]).scores(None)) == pytest.approx(1)
    # A failed stranger never alarms: the curve goes on level.
    lame = search_of([0.9, 0.05], [0.5, -np.inf]).scores(None)
    assert area_under_curve(lame) == pytest.approx(0.5 * 0.5 + 0.5 * 1)
    assert area_under_curve(search_of([], [0.5]).scores(None)) is None


def test_galleries_have_their_own_thresholds_and_the_mean_is_given():
    one = search_of(np.linspace(0.5, 1, 11), np.linspace(0, 0.49, 40))
    two = search_of(np.linspace(0, 0.5, 11), np.linspace(0, 0.25, 40))
    both = measure_tpir([one, two], [0.25], resamples=20)[0]
    assert both[1].threshold > both[2].threshold
    assert both[0].value == pytest.approx((both[1].value + both[2].value) / 2)
    assert both[0].threshold is None and both[0].errors == 20 and both[0].trials == 80
    assert both[0].interval.low <= both[0].value <= both[0].interval.high
    few = dataclasses.replace(two, best=two.best[:5], non_mated_people=two.non_mated_people[:5])
    lost = measure_tpir([one, few], [0.25], resamples=0)[0]
    assert lost[0].value is None and lost[1].supported and not lost[2].supported
    assert "5 trials" in lost[0].reason


def test_ranks_count_failures_and_know_their_intervals():
    whole = search_of([0.9, 0.8, 0.7, -np.inf], [], [1, 3, 6, 0])
    found = measure_ranks([whole], [1, 5, 20], resamples=100)
    assert [rate.value for rate in found] == [0.25, 0.5, 0.75]
    assert found[0].interval.low == 0 and found[2].interval.high == 1
    again = measure_ranks([whole], [1, 5, 20], resamples=100)
    assert again == found
    other = measure_ranks([whole], [1, 5, 20], resamples=100, seed=1)
    assert [rate.value for rate in other] == [rate.value for rate in found]
    with pytest.raises(InputError, match="rank must lie"):
        measure_ranks([whole], [0])


def test_people_not_probes_are_drawn():
    # One person of 90 probes decides: the interval must see 11 people, not 100 probes.
    own = np.array([0.9] * 90 + [0.1] * 10)
    people = [0] * 90 + list(range(1, 11))
    best = np.linspace(0, 0.5, 200)
    wide = measure_ranks([search_of(own, best, [1] * 90 + [9] * 10, people)], [1], resamples=300)[
        0
    ].interval
    narrow = measure_ranks([search_of(own, best, [1] * 90 + [9] * 10)], [1], resamples=300)[0]
    assert wide.low == 0 and narrow.interval.low > 0.8


def test_without_an_error_the_interval_is_the_rule_of_three():
    sure = search_of(np.linspace(0.6, 0.9, 100), np.linspace(0, 0.5, 100))
    for rate in (measure_ranks([sure], [1])[0], measure_tpir([sure], [0.1])[0][0]):
        assert rate.value == 1 and rate.interval.high == 1
        assert rate.interval.low == pytest.approx(1 - 3 / 100, abs=5e-4)
    never = search_of(np.full(100, 0.6), np.linspace(0, 0.5, 100), np.full(100, 9))
    rate = measure_ranks([never], [1])[0]
    assert (rate.value, rate.interval.low) == (0, 0)
    assert rate.interval.high == pytest.approx(3 / 100, abs=5e-4)
    # Hundred probes of ten people are ten people.
    ten = search_of(np.full(100, 0.6), [0.1] * 20, mated_people=np.arange(100) // 10)
    assert measure_ranks([ten], [1])[0].interval.low == pytest.approx(0.05**0.1)


@pytest.mark.parametrize(
    ("own", "best", "reason"),
    [([], [0.5], "no mated probe"), ([0.5], [], "no non-mated probe")],
)
def test_without_both_kinds_nothing_is_invented(own, best, reason):
    found = measure_tpir([search_of(own, best)], [0.1])[0][0]
    assert found.value is None and reason in found.reason
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["supported"] is False


def test_weighted_resamples_equal_repeated_probes():
    rng = np.random.default_rng(3)
    search = search_of(rng.integers(0, 9, 30) / 9, rng.integers(0, 7, 40) / 9)
    times = np.concatenate([rng.integers(0, 3, 30), rng.integers(0, 3, 40)]).astype(float)
    from eval.protocol_search_rates import _SearchTable

    table = _SearchTable(search.scores(None))
    for fpir in (0.1, 0.3, 0.7, 1.0):
        own = np.repeat(search.own, times[:30].astype(int))
        best = np.repeat(search.best, times[30:].astype(int))
        repeated = SearchScores(9, None, own, best)
        wanted = repeated.rates(choose_threshold(repeated, fpir)).tpir
        assert table.weighted([fpir], times[:30], times[30:])[0] == pytest.approx(wanted)
