"""Models beside each other: paired differences, names, notes."""

from dataclasses import replace

import numpy as np
import pytest
from evaluation_cases import FNIR, PEOPLE, make_counts, make_evaluation
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.compare import MIN_DIFFERING, compare_evaluations, pair_difference
from eval.evaluation import SubjectCounts
from eval.evaluation_estimates import Headline
from facerec.checks import InputError
from facerec.metrics.bootstrap import percentile_interval


def count(counted, trials=None, figure=FNIR):
    trials = trials or [4.0] * len(counted)
    names = tuple(f"p{i}" for i in range(len(counted)))
    return SubjectCounts(figure, names, tuple(map(float, counted)), tuple(map(float, trials)))


def shuffle(counts, seed):
    order = np.random.default_rng(seed).permutation(len(counts.subjects))
    rows = ([row[i] for i in order] for row in (counts.subjects, counts.counted, counts.trials))
    return SubjectCounts(counts.figure, *map(tuple, rows))


def test_the_order_of_people_does_not_matter():
    base, other = make_counts(0.3, 0), make_counts(0.2, 1)
    found = pair_difference(base, other, resamples=200)
    assert found == pair_difference(base, shuffle(other, 3), resamples=200)
    assert found[2] == PEOPLE


def test_an_interval_agrees_with_a_bootstrap_written_out():
    base, other = make_counts(0.3, 0), make_counts(0.2, 1)
    interval, reason, _ = pair_difference(base, other, resamples=4000, seed=5)
    rng = np.random.default_rng(11)
    a, b = np.array(base.counted), np.array(other.counted)
    draws = rng.integers(PEOPLE, size=(4000, PEOPLE))
    plain = percentile_interval((b[draws] - a[draws]).sum(axis=1) / (5 * PEOPLE))
    assert reason == ""
    # BCa moves a nearly symmetric figure's ends by little.
    assert interval.low == pytest.approx(plain.low, abs=0.012)
    assert interval.high == pytest.approx(plain.high, abs=0.012)


def test_pairing_is_narrower_than_the_models_apart():
    hard = np.random.default_rng(0).beta(0.5, 0.5, 200)
    rng = np.random.default_rng(1)
    misses = rng.binomial(4, hard)
    base, other = count(misses), count(np.maximum(misses - rng.binomial(1, 0.2, 200), 0))
    paired = pair_difference(base, other, resamples=500)[0]
    apart = pair_difference(base, count(rng.permutation(other.counted)), resamples=500)[0]
    assert paired.high < 0
    assert paired.high - paired.low < (apart.high - apart.low) / 3


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_swapping_the_models_mirrors_the_interval(seed):
    base, other = make_counts(0.3, seed, 40), make_counts(0.3, seed + 1, 40)
    forth, back = (
        pair_difference(*pair, resamples=60)[0] for pair in ((base, other), (other, base))
    )
    if forth is not None:
        assert back.low == pytest.approx(-forth.high, abs=1e-9)
        assert back.high == pytest.approx(-forth.low, abs=1e-9)


@pytest.mark.parametrize("differing", [0, MIN_DIFFERING - 1, MIN_DIFFERING])
def test_too_few_differing_people_give_no_interval(differing):
    interval, reason, _ = pair_difference(
        count([1] * 50), count([2] * differing + [1] * (50 - differing))
    )
    assert (interval is None) == (differing < MIN_DIFFERING)
    assert (f"differ on {differing} of 50 people" in reason) == (differing < MIN_DIFFERING)


def test_other_people_are_not_paired():
    interval, reason, _ = pair_difference(count([1] * 50), count([1] * 52))
    assert interval is None
    assert reason == "not paired: 2 people are in one of the two only"


def test_people_without_trials_leave_the_figure_as_it_is():
    rng = np.random.default_rng(0)
    trials = np.where(np.arange(60) < 30, 0, 4)
    base, other = (count(rng.binomial(trials, p), list(trials)) for p in (0.3, 0.6))
    interval, _, people = pair_difference(base, other, resamples=300)
    assert people == 60
    assert 0 < interval.low < other.value - base.value < interval.high < 1


@pytest.mark.parametrize(
    ("better", "verdict"), [("lower", "better"), ("higher", "worse"), ("neither", "")]
)
def test_the_verdict_follows_the_better_side(better, verdict):
    pair = [make_evaluation("a", 0.6), make_evaluation("b", 0.2, 1)]
    pair = [
        replace(each, headline=(replace(each.headline[0], better=better),), slices=())
        for each in pair
    ]
    (difference,) = compare_evaluations(pair, ["x", "y"], resamples=100).differences
    assert difference.verdict == verdict
    assert difference.value == pytest.approx(pair[1].headline[0].value - pair[0].headline[0].value)


def test_figures_without_value_or_people_say_why():
    pair = [make_evaluation("a"), make_evaluation("b", 0.3, 1)]
    comparison = compare_evaluations(pair, ["x", "y"], resamples=100)
    first, second, third, _ = comparison.differences
    assert first.verdict == "not separable"
    assert second.reason == "not paired: the figure is not given by subject"
    assert third.value is None and third.reason.startswith("a has no value: not supported")
    assert comparison.figures[0] == FNIR
    assert comparison.to_json()["figures"][0]["models"]["b"]["value"] == pair[1].headline[0].value


def test_models_are_named_by_what_tells_them_apart():
    three = [make_evaluation(m) for m in ("same", "same", "")]
    names = list(compare_evaluations(three, ["one", "one", "three"]).models)
    assert names == ["one", "one (2)", "three"]
    assert list(compare_evaluations(three[1:], ["x", "y"]).models) == ["same", "y"]


def test_notes_say_what_is_hard_to_compare():
    base = make_evaluation("a")
    assert compare_evaluations([base, make_evaluation("b")], ["x", "y"]).notes == ()
    hashes = {"hashes": {"model": "ef", "documents": "ee"}}
    other = replace(
        make_evaluation("b", simulated=True),
        protocol=("Another.",),
        counts={"people": PEOPLE, "tracks": 7},
        provenance=hashes,
    )
    comparison = compare_evaluations([base, other], ["x", "y"], resamples=50)
    assert comparison.simulated
    assert comparison.notes == (
        "b was evaluated on simulated probes, a was not.",
        "The protocols of a and b differ in their words.",
        "a and b differ in their counts: tracks.",
        "a and b were evaluated on other data: documents differ.",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "verify"}, "evaluations of one task"),
        ({"headline": (Headline("else", 0.1),), "subjects": ()}, "no headline figure in common"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, message):
    pair = [make_evaluation("a"), replace(make_evaluation("b"), **change)]
    with pytest.raises(InputError, match=message):
        compare_evaluations(pair, ["x", "y"])
    with pytest.raises(InputError, match="at least two"):
        compare_evaluations(pair[:1], ["x"])
    with pytest.raises(InputError, match="confidence"):
        compare_evaluations(pair, ["x", "y"], confidence=2)
