"""Comparisons of tracks with other people's documents against brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.doc2surv_pairs import NO_GROUP, CrossExceedances, PairKeeper
from facerec.checks import InputError


def allowed(i, j, groups):
    return i != j and (groups[i] == groups[j] or NO_GROUP in (groups[i], groups[j]))


def build(errors, probes, enrolled, groups):
    """A sample whose scores are 1 where `errors` (s, s) says so many comparisons err."""
    first, second = np.nonzero(errors)
    times = errors[first, second].astype(int)
    pairs = [
        (i, j) for i, j in itertools.product(range(len(probes)), repeat=2) if allowed(i, j, groups)
    ]
    return CrossExceedances(
        scores=np.ones(times.sum()),
        weights=np.ones(times.sum()),
        first=np.repeat(first, times),
        second=np.repeat(second, times),
        masses=np.ones(len(probes)),
        comparisons=int(sum(probes[i] * enrolled[j] for i, j in pairs)),
        floor=0.5,
        probes=np.asarray(probes, float),
        enrolled=np.asarray(enrolled, float),
        groups=np.asarray(groups),
    )


@st.composite
def populations(draw):
    size = draw(st.integers(3, 7))
    rows = st.lists(st.integers(0, 3), min_size=size, max_size=size)
    probes, groups = draw(rows), draw(st.lists(st.integers(-1, 1), min_size=size, max_size=size))
    enrolled = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
    times = draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    errors = np.zeros((size, size))
    for i, j in itertools.product(range(size), repeat=2):
        if allowed(i, j, groups) and enrolled[j]:
            errors[i, j] = draw(st.integers(0, probes[i]))
    return errors, probes, enrolled, groups, times


@settings(max_examples=60, deadline=None)
@given(populations())
def test_weights_influence_and_units_equal_brute_force(population):
    errors, probes, enrolled, groups, times = population
    sample = build(errors, probes, enrolled, groups)
    size = len(probes)
    pairs = [(i, j) for i in range(size) for j in range(size) if allowed(i, j, groups)]
    mass = {(i, j): probes[i] * enrolled[j] for i, j in pairs}
    total = sum(times[i] * times[j] * mass[i, j] for i, j in pairs)
    assert sample.total(np.array([times]))[0] == pytest.approx(total)
    every = sum(mass.values())
    assert sample.comparisons == every
    if not every:
        return
    assert sample.units == pytest.approx(every**2 / sum(m**2 for m in mass.values()))
    rate = errors.sum() / every
    moved = [
        sum(errors[i, j] - rate * mass[i, j] for i, j in pairs if k in (i, j)) for k in range(size)
    ]
    if errors.any():
        np.testing.assert_allclose(sample.influence(1.0), moved, atol=1e-9)
    both = errors + errors.T
    cells = (np.triu(both, 1) ** 2).sum()
    dyadic = max(float((np.array(moved) ** 2).sum()) - cells, cells) / every**2
    assert sample.variance(1.0) == pytest.approx(dyadic if errors.any() else 0.0, abs=1e-12)


def test_a_person_is_no_stranger_to_a_copy_of_themselves():
    sample = build(np.zeros((2, 2)), [1, 1], [1, 1], [NO_GROUP] * 2)
    assert sample.total(np.array([[2, 0]]))[0] == 0
    assert sample.total(np.array([[1, 1]]))[0] == 2
    assert sample.total(np.array([[2, 3]]))[0] == 12


def test_the_keeper_keeps_the_greatest_and_says_what_it_lost():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(30, 20)).astype(np.float32)
    mask = rng.random(scores.shape) < 0.8
    keeper = PairKeeper(50)
    for part in (slice(0, 11), slice(11, 30)):
        rows = np.arange(30)[part]
        keeper.add(scores[part], mask[part], rows, np.arange(20))
    found = keeper.finish(np.ones(30), np.ones(30), np.full(30, NO_GROUP))
    wanted = np.sort(scores[mask])[::-1]
    np.testing.assert_array_equal(found.scores, wanted[:50])
    np.testing.assert_array_equal(scores[found.first, found.second], wanted[:50])
    assert found.comparisons == mask.sum()
    assert found.covers(float(wanted[48])) and not found.covers(float(wanted[49]))


def test_a_half_of_one_person_compares_nobody():
    keeper = PairKeeper(10)
    keeper.add(np.zeros((1, 1), np.float32), np.zeros((1, 1), bool), np.zeros(1, int), np.zeros(1))
    with pytest.raises(InputError, match="at least 2 people"):
        keeper.finish(np.ones(1), np.ones(1), np.full(1, NO_GROUP))
