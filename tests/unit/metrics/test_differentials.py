import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.metrics import differentials
from facerec.metrics.differentials import measure_differentials
from facerec.metrics.inequity import fairness_discrepancy, garbe, gini, max_over_geomean

RATES = st.lists(st.floats(1e-4, 0.5), min_size=2, max_size=6)


def draw(seed, people=24, groups=3, comparisons=900):
    """Return scores, same, people_a, people_b, group_of of a small population."""
    rng = np.random.default_rng(seed)
    names = np.array([f"p{k:02d}" for k in range(people)])
    first, second = rng.integers(0, people, (2, comparisons))
    second = np.where(rng.random(comparisons) < 0.3, first, second)
    same = first == second
    scores = np.round(rng.normal(same * 0.4, 0.25), 2)
    group_of = {name: "abc"[k % groups] for k, name in enumerate(names.tolist())}
    return scores, same, names[first], names[second], group_of


def test_hand_computed_miniature():
    rows = [
        (0.9, "ann", "ann"),
        (0.4, "ann", "ann"),
        (0.7, "bob", "bob"),
        (0.6, "ann", "amy"),
        (0.2, "amy", "ann"),
        (0.1, "bob", "ben"),
        (0.5, "ann", "bob"),
        (-math.inf, "cyd", "cyd"),
    ]
    scores, people_a, people_b = zip(*rows, strict=True)
    same = [a == b for a, b in zip(people_a, people_b, strict=True)]
    group_of = {"ann": "A", "amy": "A", "bob": "B", "ben": "B", "cyd": "C", "unseen": "D"}
    found = measure_differentials(scores, same, people_a, people_b, group_of, 0.5, resamples=50)
    assert (found.groups, found.people) == (["A", "B", "C"], {"A": 2, "B": 2, "C": 1})
    fnmr = {name: (rate.errors, rate.comparisons, rate.value) for name, rate in found.fnmr.items()}
    assert fnmr == {"A": (1, 2, 0.5), "B": (0, 1, 0.0), "C": (1, 1, 1.0)}
    fmr = {name: (rate.errors, rate.comparisons, rate.value) for name, rate in found.fmr.items()}
    # The threshold accepts what equals it, and C has one person: no strangers.
    assert fmr == {"A": (1, 2, 0.5), "B": (0, 1, 0.0), "C": (0, 0, None)}
    cross = {cell: rate.value for cell, rate in found.cross_fmr.items()}
    assert cross == {
        ("A", "A"): 0.5,
        ("A", "B"): 1.0,
        ("A", "C"): None,
        ("B", "B"): 0.0,
        ("B", "C"): None,
        ("C", "C"): None,
    }
    assert (found.fmr["A"].people, found.cross_fmr["A", "B"].people) == (2, 2)
    assert not found.fnmr["A"].supported
    assert found.fmr["C"].interval is None
    # One pair of people, all right: anything up to 95 % is possible.
    assert found.fmr["B"].interval.high == pytest.approx(0.95)
    assert found.inequity.fmr_ratio.value is None
    assert found.inequity.fdr.value is None
    assert found.inequity.fnmr_ratio.value is None


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rates_equal_counting_by_hand(seed):
    scores, same, people_a, people_b, group_of = draw(seed)
    found = measure_differentials(scores, same, people_a, people_b, group_of, 0.3, resamples=20)
    sides = [np.array([group_of[name] for name in side]) for side in (people_a, people_b)]
    for name in "abc":
        inside = same & (sides[0] == name)
        assert found.fnmr[name].comparisons == inside.sum()
        assert found.fnmr[name].value == pytest.approx(np.mean(scores[inside] < 0.3))
        assert found.fnmr[name].people == np.unique(people_a[inside]).size
    for left, right in found.cross_fmr:
        inside = ~same & (
            ((sides[0] == left) & (sides[1] == right)) | ((sides[0] == right) & (sides[1] == left))
        )
        rate = found.cross_fmr[left, right]
        assert rate.comparisons == inside.sum()
        assert rate.errors == np.count_nonzero(scores[inside] >= 0.3)
        assert rate.value == pytest.approx(np.mean(scores[inside] >= 0.3))
        assert rate.supported == (rate.errors >= 10)
        assert rate.interval.low <= rate.value <= rate.interval.high
    assert found.fmr == {name: found.cross_fmr[name, name] for name in "abc"}
    rates = [[side[name].value for name in "abc"] for side in (found.fmr, found.fnmr)]
    assert found.inequity.fdr.value == pytest.approx(float(fairness_discrepancy(*rates)))
    assert found.inequity.garbe.value == pytest.approx(float(garbe(*rates)))
    assert found.inequity.fmr_ratio.value == pytest.approx(float(max_over_geomean(rates[0])))
    assert found.inequity.fnmr_ratio.defined > 0.9


def test_resamples_weigh_each_comparison_by_its_people(monkeypatch):
    scores, same, people_a, people_b, group_of = draw(5, people=9, comparisons=120)
    labels = np.asarray(same)
    table = differentials._read_people(people_a, people_b, labels, group_of)
    units = differentials._merge_comparisons(table, labels, (scores >= 0.3) != labels)
    times = np.random.default_rng(0).integers(0, 3, (7, 9))
    monkeypatch.setattr(differentials, "_BLOCK", 100)  # a resample or two at once
    rates = differentials._rates(units, times, 3)
    for row, some in zip(rates, times, strict=True):
        right, every = np.zeros(9), np.zeros(9)
        for score, a, b in zip(scores, table.first, table.second, strict=True):
            pair = tuple(sorted([table.group[a], table.group[b]]))
            cell = (
                pair[0] if a == b else 3 + list(zip(*np.triu_indices(3), strict=True)).index(pair)
            )
            weight = some[a] * (1 if a == b else some[b])
            every[cell] += weight
            right[cell] += weight * ((score >= 0.3) != (a == b))
        with np.errstate(invalid="ignore"):
            np.testing.assert_allclose(row, right / every)


def test_resamples_keep_the_size_of_each_group_and_the_seed_decides():
    group = np.array([0, 1, 0, 1, 1])
    times = differentials._draw_within(group, 2, 300, 0)
    assert (times[:, group == 0].sum(axis=1) == 2).all()
    assert (times[:, group == 1].sum(axis=1) == 3).all()
    data = draw(1)
    first, again, other = (
        measure_differentials(*data, 0.3, resamples=100, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again
    assert first.fmr["a"].interval != other.fmr["a"].interval


def test_a_cell_that_no_resample_drew_has_no_interval(monkeypatch):
    def draw_the_first_of_each_group(group, groups, resamples, seed):
        first = np.searchsorted(np.sort(group), np.arange(groups))
        times = np.zeros((resamples, group.size), np.int64)
        times[:, np.argsort(group, kind="stable")[first]] = 2
        return times

    monkeypatch.setattr(differentials, "_draw_within", draw_the_first_of_each_group)
    people_a, people_b = ["p", "q", "p"], ["p", "q", "r"]
    group_of = {"p": "A", "r": "A", "q": "B"}
    found = measure_differentials([0.1, 0.9, 0.8], [1, 1, 0], people_a, people_b, group_of, 0.5)
    assert found.fmr["A"].value == 1
    assert math.isnan(found.fmr["A"].interval.low)
    assert (found.fnmr["A"].interval.low, found.fnmr["A"].interval.high) == (1, 1)


def test_order_sides_and_monotone_maps_do_not_matter():
    scores, same, people_a, people_b, group_of = draw(2)
    found = measure_differentials(scores, same, people_a, people_b, group_of, 0.3, resamples=30)
    order = np.random.default_rng(0).permutation(scores.size)
    turned = measure_differentials(
        np.exp(scores[order]),
        same[order],
        people_b[order],
        people_a[order],
        group_of,
        math.exp(0.3),
        resamples=30,
    )
    assert turned.cross_fmr == found.cross_fmr
    assert turned.fnmr == found.fnmr
    assert turned.inequity == found.inequity


@given(RATES, st.floats(0.1, 2))
@settings(max_examples=100, deadline=None)
def test_laws_of_the_summaries(rates, factor):
    values = np.array(rates)
    scaled = factor * values
    assert max_over_geomean(values) >= 1 - 1e-12
    assert max_over_geomean(scaled) == pytest.approx(float(max_over_geomean(values)))
    assert -1e-12 <= gini(values) <= 1
    assert gini(scaled) == pytest.approx(float(gini(values)))
    assert gini(values[::-1]) == pytest.approx(float(gini(values)))
    equal = np.full(values.size, values[0])
    assert max_over_geomean(equal) == pytest.approx(1)
    assert fairness_discrepancy(equal, equal) == 1
    assert garbe(equal, equal) == 0


def test_summaries_golden():
    assert max_over_geomean([1e-4, 1e-4, 8e-4]) == pytest.approx(4)
    assert gini([0.0, 0.0, 0.3]) == pytest.approx(1)
    assert gini([0.1, 0.3]) == pytest.approx(0.5)
    assert gini([0.0, 0.0]) == 0
    assert fairness_discrepancy([0.1, 0.3], [0.0, 0.4]) == pytest.approx(0.7)
    assert fairness_discrepancy([0.1, 0.3], [0.0, 0.4], alpha=1) == pytest.approx(0.8)
    assert garbe([0.1, 0.3], [0.2, 0.2], alpha=0.25) == pytest.approx(0.125)
    assert np.isnan(max_over_geomean([0.0, 0.1]))
    table = max_over_geomean([[0.1, 0.1], [0.1, 0.4], [np.nan, 0.1]])
    np.testing.assert_allclose(table, [1, 2, np.nan])


GROUPS = {"x": "A", "y": "B"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: measure_differentials([0.1, 0.2], [1, 0], ["x"], ["x", "y"], GROUPS, 0),
            r"people_a must be \(2,\)",
        ),
        (
            lambda: measure_differentials([0.1, 0.2], [1, 0], [1, 1], [1, 2], GROUPS, 0),
            "one name a score",
        ),
        (
            lambda: measure_differentials([0.1, 0.2], [1, 0], ["x", "x"], ["y", "y"], GROUPS, 0),
            "comparison 0 is mated, but its people are 'x' and 'y'",
        ),
        (
            lambda: measure_differentials([0.1, 0.2], [1, 0], ["x", "z"], ["x", "y"], GROUPS, 0),
            "1 of 3 people have no group, 'z' first",
        ),
        (
            lambda: measure_differentials(
                [0.1, 0.2], [1, 0], ["x", "x"], ["x", "y"], {"x": "A", "y": "A"}, 0
            ),
            "at least 2 groups, got 1",
        ),
        (
            lambda: measure_differentials(
                [0.1, 0.2], [1, 0], ["x", "x"], ["x", "y"], GROUPS, math.nan
            ),
            "threshold",
        ),
        (
            lambda: measure_differentials(
                [0.1, math.nan], [1, 0], ["x", "x"], ["x", "y"], GROUPS, 0
            ),
            "got nan in 1",
        ),
        (lambda: gini([0.1]), "at least 2 groups"),
        (lambda: garbe([0.1, 0.1], [0.1, 0.1], alpha=2), "alpha"),
    ],
)
def test_bad_input_is_one_sentence(call, message):
    with pytest.raises(InputError, match=message):
        call()
