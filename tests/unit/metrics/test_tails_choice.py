"""Where a tail begins, and scores that are not those of strangers."""

import numpy as np
import pytest

from facerec.metrics.exceedances import collect_best, draw_people
from facerec.metrics.tail_choice import LEAST_ABOVE, MOST_MISFIT, choose_tail


def draw_scores(seed, count=900):
    hazard = np.random.default_rng(seed).exponential(size=count) / 3
    return (0.8 - 0.5 * np.minimum(hazard, 30) ** 0.1).astype(np.float32)


def choose(scores, subjects=None, lowest=0.5, highest=0.02, resamples=200):
    subjects = np.arange(len(scores)) if subjects is None else subjects
    sample = collect_best(scores, subjects)
    return choose_tail(sample, draw_people(sample.people, resamples, 0), lowest, highest)


def test_the_lowest_cut_is_taken_where_the_law_holds():
    tails = [choose(draw_scores(seed)) for seed in range(15)]
    assert all(tail.fits for tail in tails)
    assert np.mean([tail.share > 0.45 for tail in tails]) > 0.8
    assert all(tail.above >= 0.9 * 900 * tail.share for tail in tails)


def test_a_body_of_another_law_raises_the_cut():
    rng = np.random.default_rng(4)
    scores = np.concatenate([draw_scores(4, 4000), rng.normal(0.25, 0.01, 4000)])
    scores[:4000] = np.maximum(scores[:4000], 0.2)
    tail = choose(scores)
    assert tail.fits
    assert tail.share < 0.45


@pytest.mark.parametrize("share", [0.02, 0.03])
def test_people_who_are_enrolled_after_all_are_noticed(share):
    noticed = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        scores = draw_scores(seed)
        known = rng.random(900) < share
        scores[known] = np.clip(rng.normal(0.72, 0.05, int(known.sum())), -1, 0.99)
        noticed += not choose(scores).fits
    assert noticed >= 8


def test_scores_of_one_person_do_not_count_as_many():
    scores = draw_scores(1)
    few = np.arange(900) % (LEAST_ABOVE - 1)
    assert choose(scores, few) is None


def test_pictures_of_one_person_share_their_weight_in_the_misfit():
    misfits = []
    for seed in range(8):
        scores = draw_scores(seed, 2700)
        misfits.append(choose(scores, np.repeat(np.arange(900), 3)).misfit)
    assert np.mean(np.array(misfits) <= MOST_MISFIT) >= 7 / 8


@pytest.mark.parametrize("value", [0.4, -np.inf])
def test_equal_scores_have_no_tail(value):
    assert choose(np.full(200, value, np.float32)) is None


def test_too_few_scores_have_no_tail():
    assert choose(draw_scores(0, 60)) is None


def test_failures_lie_below_every_cut():
    scores = draw_scores(2)
    scores[np.argsort(scores)[:600]] = -np.inf
    tail = choose(scores)
    assert np.isfinite(tail.point.cut)
    assert tail.share <= 1 / 3 + 1e-9


def test_the_same_seed_gives_the_same_tail():
    one, other = choose(draw_scores(3)), choose(draw_scores(3))
    assert one.misfit == other.misfit
    assert np.array_equal(one.resampled.shape, other.resampled.shape)
