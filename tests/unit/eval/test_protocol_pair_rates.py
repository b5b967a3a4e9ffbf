import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import protocol_pair_rates as module
from eval.protocol_pair_rates import PairSample, TopScores, sample_list
from facerec.metrics.bootstrap import bootstrap_subjects, build_tar_statistic
from facerec.metrics.verification import tar_at_far

FARS = (0.5, 0.2, 0.1)


def list_of(rng, count, people=12, levels=40):
    """Scores that tie and fail, people of both sides, and whether they are one."""
    first, second = rng.integers(people, size=(2, count))
    first[:2], second[:2] = [0, 0], [0, 1]
    same = first == second
    scores = (rng.integers(levels, size=count) + 8 * same) / np.float32(2 * levels)
    scores = scores.astype(np.float32)
    scores[rng.random(count) < 0.05] = -np.inf
    return scores, same, (first, second)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 30, 10**6]))
def test_kept_scores_give_the_figures_of_all(seed, least):
    rng = np.random.default_rng(seed)
    scores, same, people = list_of(rng, 400)
    before, module.LEAST_DEPTH = module.LEAST_DEPTH, least
    try:
        sample = sample_list(scores, same, people, FARS)
    finally:
        module.LEAST_DEPTH = before
    found = sample.rates(FARS, resamples=0)
    for rate, point in zip(found, tar_at_far(scores, same, FARS), strict=True):
        assert (rate.value, rate.threshold, rate.errors) == (
            point.tar, point.threshold, point.false_accepts
        )  # fmt: skip
        assert rate.trials == point.non_mated


@pytest.mark.parametrize("least", [1, 10**6])
def test_intervals_equal_the_plain_bootstrap_of_all_scores(monkeypatch, least):
    # Same people drawn the same way: the figures of every resample must be equal.
    monkeypatch.setattr(module, "LEAST_DEPTH", least)
    rng = np.random.default_rng(1)
    scores, same, people = list_of(rng, 3000, 40)
    statistic = build_tar_statistic(scores, same, (0.2, 0.1))
    drawn = []

    def draws(count, resamples, seed):
        every = np.random.default_rng(seed)
        for _ in range(resamples):
            drawn.append(np.bincount(every.integers(count, size=count), minlength=count))
            yield drawn[-1].astype(np.float64)

    monkeypatch.setattr(module, "iter_draws", draws)
    found = sample_list(scores, same, people, (0.2, 0.1)).rates((0.2, 0.1), resamples=60, seed=5)
    wanted = bootstrap_subjects(statistic, *people, resamples=60, seed=5)
    for rate, interval in zip(found, wanted, strict=True):
        assert rate.interval.low == pytest.approx(interval.low)
        assert rate.interval.high == pytest.approx(interval.high)


def test_without_people_there_is_no_interval_and_unsupported_points_have_no_value():
    scores, same, _ = list_of(np.random.default_rng(0), 400)
    lax, strict = sample_list(scores, same, None, (0.1, 1e-3)).rates((0.1, 1e-3))
    assert lax.supported and lax.interval is None
    assert strict.value is None and strict.threshold is None and "10 need" in strict.reason


@pytest.mark.parametrize(("complete", "high"), [(False, 0), (True, 1)])
def test_a_resample_beyond_what_was_kept_claims_nothing(complete, high):
    # Whoever is drawn twice has no stranger left: all kept scores pass, and what is beyond decides.
    top = np.linspace(0.9, 0.8, 11, dtype=np.float32)
    sample = PairSample(
        np.array([0.1, 0.1], np.float32), np.array([0, 1]), top, np.zeros(11, int),
        np.ones(11, int), 1000, complete, 2, lambda times: 1000.0,
    )  # fmt: skip
    rate = sample.rates([0.01], resamples=40)[0]
    assert (rate.value, rate.interval.low) == (0, 0)
    plain = sample._intervals([0.01], 40, 0)[0]
    assert plain.high == high


def test_a_stream_keeps_the_greatest_scores_and_their_people(monkeypatch):
    monkeypatch.setattr(module, "_SLACK", 20)
    rng = np.random.default_rng(0)
    top = TopScores(50)
    blocks = [(rng.integers(30, size=(4, 9)) / np.float32(30)) for _ in range(20)]
    for number, block in enumerate(blocks):
        top.add(block, np.arange(4) + 4 * number)
    scores, people = top.sort()
    every = np.concatenate([block.ravel() for block in blocks])
    whose = np.repeat(np.arange(80), 9)
    least = np.sort(every)[-50]
    assert not top.complete
    assert scores.tolist() == sorted(every[every >= least].tolist(), reverse=True)
    pairs = sorted(zip(scores.tolist(), people.tolist(), strict=True))
    kept = every >= least
    assert pairs == sorted(zip(every[kept].tolist(), whose[kept].tolist(), strict=True))
