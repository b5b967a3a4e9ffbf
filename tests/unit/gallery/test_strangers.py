import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.gallery.index import Ranked
from facerec.gallery.normalisation import apply_strangers
from facerec.gallery.results import KNOWN_STRANGER, NEAR_STRANGER

STRANGER = 7


def screen(*candidates, threshold=0.4, strangers=(STRANGER,), margin=0.03, width=4):
    """One ranking of (owner, score) pairs, best first."""
    scores, owners = np.full((1, width), -np.inf, np.float32), np.full((1, width), -1)
    for place, (owner, score) in enumerate(candidates):
        scores[0, place], owners[0, place] = score, owner
    return apply_strangers(Ranked(scores, owners, owners), threshold, strangers, margin)


@pytest.mark.parametrize(
    ("candidates", "answer", "stranger", "review", "reason"),
    [
        ([], -1, -1, False, ""),
        ([(1, 0.39)], -1, -1, False, ""),
        ([(1, 0.6), (2, 0.5)], 1, -1, False, ""),
        ([(STRANGER, 0.39), (1, 0.3)], -1, -1, False, ""),  # a stranger too, but not recognised
        ([(STRANGER, 0.7)], -1, STRANGER, False, KNOWN_STRANGER),
        ([(STRANGER, 0.7), (1, 0.45)], -1, STRANGER, False, KNOWN_STRANGER),
        ([(STRANGER, 0.52), (1, 0.51)], -1, STRANGER, True, KNOWN_STRANGER),
        ([(STRANGER, 0.41), (1, 0.39)], -1, STRANGER, False, KNOWN_STRANGER),
        ([(1, 0.5), (STRANGER, 0.5)], -1, STRANGER, True, KNOWN_STRANGER),  # a tie is no answer
        ([(1, 0.52), (STRANGER, 0.51)], -1, STRANGER, True, NEAR_STRANGER),
        ([(1, 0.6), (STRANGER, 0.5), (2, 0.45)], 1, -1, False, ""),
        ([(1, 0.41), (STRANGER, 0.39)], 1, -1, False, ""),  # the stranger is not recognised
    ],
)
def test_who_is_the_answer(candidates, answer, stranger, review, reason):
    found = screen(*candidates)
    assert found.answers.tolist() == [answer] and found.strangers.tolist() == [stranger]
    assert found.review.tolist() == [review] and found.reasons == [reason]
    assert found.accepted.any() == (answer >= 0)


def test_candidates_behind_an_answer_are_accepted_but_never_strangers():
    found = screen((1, 0.6), (STRANGER, 0.5), (2, 0.45), (3, 0.3))
    assert found.accepted.tolist() == [[True, False, True, False]]
    away = screen((STRANGER, 0.6), (1, 0.5), (2, 0.45))
    assert not away.accepted.any()


def test_several_strangers_and_none():
    found = screen((1, 0.52), (8, 0.51), (STRANGER, 0.5), strangers={STRANGER, 8})
    assert found.strangers.tolist() == [8]
    assert screen((STRANGER, 0.6), strangers=[]).answers.tolist() == [STRANGER]
    with_margin = screen((1, 0.6), (STRANGER, 0.45), margin=0.2)
    assert with_margin.reasons == [NEAR_STRANGER] and with_margin.review.all()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_stranger_is_never_accepted_and_never_adds_an_answer(seed):
    rng = np.random.default_rng(seed)
    scores = -np.sort(-rng.uniform(0.2, 0.7, (6, 5)).astype(np.float32), axis=1)
    owners = np.stack([rng.permutation(9)[:5] for _ in range(6)])
    ranked = Ranked(scores, owners, owners)
    strangers = set(rng.permutation(9)[:3].tolist())
    found, free = apply_strangers(ranked, 0.4, strangers), apply_strangers(ranked, 0.4, ())
    assert not set(owners[found.accepted].tolist()) & strangers
    assert (free.accepted | ~found.accepted).all()
    answered = found.answers >= 0
    best = np.where(np.isin(owners, list(strangers)), -1, scores).argmax(axis=1)
    assert (found.answers[answered] == owners[np.arange(6), best][answered]).all()
    assert not (answered & (found.strangers >= 0)).any()


def test_no_rankings_and_bad_numbers():
    empty = Ranked(np.zeros((0, 3), np.float32), np.zeros((0, 3), int), np.zeros((0, 3), int))
    assert apply_strangers(empty, 0.4, {1}).reasons == []
    with pytest.raises(InputError, match="margin"):
        screen((1, 0.5), margin=-0.1)
    with pytest.raises(InputError, match="threshold"):
        screen((1, 0.5), threshold=float("nan"))
