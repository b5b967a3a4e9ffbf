"""Rates and intervals of tracks by hand, their laws, and a small check of their coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.bench.interval_coverage import Case, main, measure_coverage
from eval.doc2surv_pairs import PairKeeper
from eval.doc2surv_rates import (
    draw,
    measure_pairs,
    measure_share,
    mirror,
    refuse,
    subtract,
)
from facerec.checks import InputError


def test_a_share_by_hand():
    owner = np.repeat(np.arange(12), 2)
    errors = np.zeros(24, bool)
    errors[[0, 1, 6]] = True
    figure = measure_share("fnmr", errors, owner, draw(12, 500, 0))
    assert (figure.value, figure.errors, figure.trials, figure.people) == (3 / 24, 3, 24, 12)
    assert 0 <= figure.interval.low < 3 / 24 < figure.interval.high < 1
    np.testing.assert_array_equal(figure.by_person[:4], [[2, 2], [0, 2], [0, 2], [1, 2]])
    other = mirror(figure, "tpir")
    assert other.value == pytest.approx(21 / 24)
    assert other.interval.low == pytest.approx(1 - figure.interval.high)
    assert other.errors == 21


@pytest.mark.parametrize("wrong", [False, True])
def test_without_any_error_or_success_the_rule_of_three_bounds(wrong):
    people = np.arange(100)
    figure = measure_share("fnmr", np.full(100, wrong), people, draw(100, 200, 0))
    most = 1 - 0.05 ** (1 / 100)
    assert figure.value == wrong
    ends = (1 - most, 1.0) if wrong else (0.0, most)
    assert (figure.interval.low, figure.interval.high) == pytest.approx(ends)


def test_few_people_support_nothing():
    figure = measure_share("fnmr", np.zeros(90, bool), np.arange(90) % 9, draw(20, 200, 0))
    assert figure.value is None and figure.interval is None
    assert figure.reason == "not supported: 9 people, at least 10 are needed"
    assert mirror(figure, "tpir").value is None
    assert refuse("fnmr", "nothing").reason == "not supported: nothing"


@settings(max_examples=25, deadline=None)
@given(st.integers(10, 60), st.integers(1, 5), st.integers(0, 2**31))
def test_an_interval_holds_its_figure_and_does_not_see_the_order(people, tracks, seed):
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(people), tracks)
    errors = rng.random(owner.size) < rng.beta(1, 4, people)[owner]
    draws = draw(people, 200, 1)
    figure = measure_share("fnmr", errors, owner, draws)
    assert 0 <= figure.interval.low <= figure.value <= figure.interval.high <= 1
    order = rng.permutation(owner.size)
    assert measure_share("fnmr", errors[order], owner[order], draws) == figure


def test_a_person_with_all_the_errors_widens_the_interval():
    owner = np.repeat(np.arange(50), 10)
    spread, one = np.zeros(500, bool), np.zeros(500, bool)
    spread[::50], one[:10] = True, True
    draws = draw(50, 500, 0)
    wide = [measure_share("x", e, owner, draws).interval for e in (spread, one)]
    assert wide[1].high > 1.5 * wide[0].high


def test_a_paired_difference_knows_that_people_are_the_same():
    rng = np.random.default_rng(3)
    trials = np.full(200, 4.0)
    first = np.column_stack([rng.binomial(4, rng.beta(0.3, 1, 200)), trials])
    second = first.copy()
    second[:20, 0] = 0
    draws = draw(200, 500, 0)
    apart = subtract("delta", first, second, draws)
    assert apart.value == pytest.approx(first[:20, 0].sum() / 800)
    alone = measure_share(
        "x",
        np.concatenate([np.arange(4) < n for n in first[:, 0]]),
        np.repeat(np.arange(200), 4),
        draws,
    ).interval
    assert apart.interval.high - apart.interval.low < 0.6 * (alone.high - alone.low)
    same = subtract("delta", first, first, draws)
    assert (same.value, same.interval.low, same.interval.high) == (0, 0, 0)


@pytest.mark.parametrize(
    "case", [Case("share", 40, 3, 0.1, 0.2), Case("pairs", 40, 2, 2e-3, 0.3),
             Case("difference", 60, 3, 0.1, 0.2)]
)  # fmt: skip
def test_intervals_hold_the_truth(case):
    (found,) = measure_coverage([case], trials=120, resamples=150, seed=5)
    # 120 samples of a coverage of 95 %: three standard errors either way.
    assert 0.89 <= found.held <= 1.0
    assert found.held + found.above + found.below == pytest.approx(1)


def test_a_sample_that_ends_above_the_threshold_gives_no_rate():
    keeper = PairKeeper(30)
    scores = np.random.default_rng(0).random((20, 20), np.float32)
    keeper.add(scores, ~np.eye(20, dtype=bool), np.arange(20), np.arange(20))
    sample = keeper.finish(np.ones(20), np.ones(20), np.full(20, -1))
    draws = draw(20, 100, 0)
    at = float(sample.scores[10])
    figure = measure_pairs("fmr", sample, at, draws)
    assert (figure.errors, figure.trials, figure.value) == (11, 380, 11 / 380)
    assert figure.interval.low < figure.value < figure.interval.high
    with pytest.raises(InputError, match="it is no operating point"):
        measure_pairs("fmr", sample, 0.1, draws)


def test_the_coverage_program_prints_and_refuses(capsys):
    assert main(["--trials", "1"]) == 2
    assert "trials must lie in" in capsys.readouterr().err
