"""Thresholds for an FPIR: what they promise, when, and whether it comes true."""

import json
import math

import numpy as np
import pytest

from facerec.checks import InputError
from facerec.metrics.error_rates import measure_fpir, scale_fpir
from facerec.metrics.thresholds import LEAST_ERRORS, calibrate_fpir

PEOPLE = 300
END = 0.8


def true_fpir(threshold):
    """FPIR of `draw_strangers` at PEOPLE: 1 - exp(-3 (1.6 (0.8 - t))^10)."""
    return -math.expm1(-3 * (2 * max(END - threshold, 0)) ** 10)


def draw_strangers(seed, people, probes=1):
    """Best scores of strangers, bounded by 0.8, and whose they are."""
    rng = np.random.default_rng(seed)
    hazard = rng.exponential(size=people * probes) / 3
    best = END - 0.5 * np.minimum(hazard, 30) ** 0.1
    return best.astype(np.float32), np.repeat(np.arange(people), probes)


def calibrate(seed, people, target=0.01, probes=1, **settings):
    best, subjects = draw_strangers(seed, people, probes)
    settings.setdefault("resamples", 200)
    return calibrate_fpir(best, subjects, PEOPLE, target, seed=seed, **settings)


def test_the_true_rate_is_the_stated_one_in_the_mean():
    rates = [true_fpir(calibrate(seed, 900).threshold) for seed in range(40)]
    assert np.mean(rates) == pytest.approx(0.01, rel=0.12)
    assert np.std(rates) / 0.01 < 0.3  # 1 / sqrt(9) = 0.33 without the tail


def test_intervals_hold_the_truth():
    held = np.zeros(3)
    for seed in range(40):
        found = calibrate(seed, 900)
        truth = true_fpir(found.threshold)
        exact = END - 0.5 * (-math.log1p(-0.01) / 3) ** 0.1
        other = measure_fpir(*draw_strangers(1000 + seed, 900), found.threshold, resamples=200)
        predicted = found.predict(900)
        held += (
            found.rate_interval.low <= truth <= found.rate_interval.high,
            found.threshold_interval.low <= exact <= found.threshold_interval.high,
            predicted.low <= other.rate <= predicted.high,
        )
    # 38 of 40 are nominal; 33 or fewer would come by chance in 1 of 300 cases.
    assert (held >= 34).all(), held


def test_the_tail_is_nearer_than_the_quantile_where_both_are_supported():
    errors = {}
    for method in ("tail", "empirical"):
        rates = [
            true_fpir(calibrate(seed, 900, 0.05, method=method, resamples=100).threshold)
            for seed in range(40)
        ]
        errors[method] = np.sqrt(np.mean((np.array(rates) - 0.05) ** 2))
    assert errors["tail"] < 0.9 * errors["empirical"]


def test_quantile_is_the_lowest_score_that_keeps_the_target():
    best = np.concatenate([np.full(960, 0.1), np.linspace(0.2, 0.6, 40)])
    found = calibrate_fpir(best, np.arange(1000), PEOPLE, 0.0305, method="empirical", resamples=100)
    assert found.method == "empirical"
    assert found.threshold == pytest.approx(np.sort(best)[-30])
    assert found.rate == pytest.approx(0.03)
    assert (found.errors, found.independent_errors) == (30, 30)
    tied = np.concatenate([np.full(969, 0.1), np.full(2, 0.4), np.linspace(0.5, 0.6, 29)])
    found = calibrate_fpir(tied, np.arange(1000), PEOPLE, 0.03, method="empirical", resamples=100)
    assert found.threshold == 0.5
    assert found.rate == pytest.approx(0.029)


def test_a_lower_target_never_has_a_lower_threshold():
    targets = (0.2, 0.1, 0.05, 0.02, 0.01, 0.005)
    found = [calibrate(3, 900, target) for target in targets]
    thresholds = [one.threshold for one in found]
    assert thresholds == sorted(thresholds)
    assert all(one.rate <= target for one, target in zip(found, targets, strict=True))


def test_threshold_is_a_float32_at_or_above_the_fitted_one():
    found = calibrate(1, 900)
    assert float(np.float32(found.threshold)) == found.threshold
    assert found.rate == pytest.approx(0.01, rel=1e-4)


def test_planned_people_raise_the_threshold_as_their_rate_at_this_size_would():
    planned = calibrate(2, 2000, 0.01, planned_people=2 * PEOPLE)
    here = calibrate(2, 2000, scale_fpir(0.01, 2 * PEOPLE, PEOPLE))
    assert planned.threshold == here.threshold
    assert planned.people == 2 * PEOPLE
    assert planned.searched_people == PEOPLE
    assert planned.rate == pytest.approx(0.01, rel=1e-4)
    assert planned.rate_interval.low < 0.01 < planned.rate_interval.high
    assert planned.predict(500).high == pytest.approx(
        scale_fpir(here.predict(500).high, PEOPLE, 2 * PEOPLE)
    )
    assert planned.threshold > calibrate(2, 2000).threshold


def test_too_few_people_are_told_how_many_are_needed():
    found = calibrate(0, 200)
    assert not found.supported
    assert found.method == "none"
    assert (found.threshold, found.rate_interval, found.spread) == (None, None, None)
    assert found.needed_subjects == 300
    assert "about 300 people" in found.reason
    assert calibrate(0, 300).supported
    with pytest.raises(InputError, match="nothing to predict: 200 people"):
        found.predict(100)


def test_many_pictures_of_few_people_support_nothing():
    found = calibrate(0, 30, probes=100)
    assert not found.supported
    assert found.expected_errors == pytest.approx(0.3)
    assert found.comparisons == 3000


def test_weight_of_one_person_with_most_searches_is_counted_as_such():
    best, subjects = draw_strangers(0, 900)
    subjects = np.where(np.arange(900) < 450, 0, subjects)
    equal = calibrate_fpir(best, subjects, PEOPLE, 0.02, resamples=100)
    counted = calibrate_fpir(best, subjects, PEOPLE, 0.02, weighting="transactions", resamples=100)
    assert equal.expected_errors == pytest.approx(451 * 0.02)
    # Kish: 900^2 / (450^2 + 450)
    assert counted.expected_errors == pytest.approx(0.02 * 900**2 / (450**2 + 450))
    assert equal.supported
    assert not counted.supported


def test_enrolled_people_among_the_strangers_are_pointed_at():
    best, subjects = draw_strangers(0, 900)
    best[:25] = np.linspace(0.7, 0.78, 25)
    found = calibrate_fpir(best, subjects, PEOPLE, 0.01, resamples=200)
    assert not found.supported
    assert "enrolled or bears two names" in found.reason
    assert found.tail.misfit > 3
    assert found.needed_subjects == 100 * LEAST_ERRORS
    # Where the quantile is supported it is used, and the tail's refusal is told.
    found = calibrate_fpir(best, subjects, PEOPLE, 0.04, resamples=200)
    assert found.method == "empirical"
    assert "do not follow" in found.reason


def test_quantile_of_one_person_alone_is_refused():
    best, subjects = draw_strangers(0, 4000)
    found = calibrate_fpir(best, subjects % 5, PEOPLE, 0.5, weighting="transactions")
    assert not found.supported
    many = np.concatenate([np.full(60, 0.7, np.float32), np.full(1940, 0.1, np.float32)])
    whose = np.concatenate([np.zeros(60, int), np.arange(1, 1941)])
    found = calibrate_fpir(many, whose, PEOPLE, 0.035, method="empirical", resamples=100)
    assert not found.supported
    assert "1 independent findings" in found.reason


def test_failures_count_and_never_err():
    best, subjects = draw_strangers(0, 2000)
    lost = best.copy()
    lost[::2] = -np.inf
    one = calibrate_fpir(lost, subjects, PEOPLE, 0.02, resamples=100)
    two = calibrate_fpir(best[1::2], subjects[1::2], PEOPLE, 0.04, resamples=100)
    assert one.threshold == pytest.approx(two.threshold, abs=0.003)


def test_fewer_future_people_are_predicted_less_well():
    found = calibrate(0, 900)
    widths = [found.predict(n).high - found.predict(n).low for n in (100, 900, 10**6)]
    assert widths == sorted(widths, reverse=True)
    known = found.rate_interval
    assert widths[-1] == pytest.approx(known.high - known.low, rel=0.25)


def test_json_and_seed():
    one, two = calibrate(0, 900), calibrate(0, 900)
    assert one == two
    plain = json.loads(json.dumps(one.to_json()))
    assert plain["supported"] is True
    assert plain["tail"]["shape"] < 0
    assert plain["rate_interval"]["resamples"] == 200
    assert json.loads(json.dumps(calibrate(0, 100).to_json()))["threshold"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": 0.0}, "target FPIR"),
        ({"target": 0.6}, "target FPIR"),
        ({"people": 0}, "people"),
        ({"planned_people": 0}, "planned_people"),
        ({"method": "tails"}, "did you mean 'tail'"),
        ({"weighting": "people"}, "weighting must be one of"),
        ({"resamples": 10}, "resamples"),
        ({"confidence": 1.0}, "confidence"),
        ({"best": [0.1, 0.2]}, "rows of equal length"),
        ({"best": [0.1, 0.2, np.nan]}, "NaN"),
        ({"best": [0.1, 0.2, np.inf]}, "infinity"),
        ({"best": [], "subjects": []}, "at least one probe"),
    ],
)
def test_bad_input_is_named(change, message):
    given = {"best": [0.1, 0.2, 0.3], "subjects": [1, 2, 3], "people": 5, "target": 0.1, **change}
    with pytest.raises(InputError, match=message):
        calibrate_fpir(**given)
