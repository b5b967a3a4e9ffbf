"""The calibration benchmark: who is dropped, and how its verdicts are counted."""

from types import SimpleNamespace

import numpy as np
import pytest

from eval.bench.calibration_honesty import (
    find_plain_threshold,
    judge,
    measure_scaling,
    summarise,
    try_fmr,
    try_fpir,
)
from eval.bench.calibration_people import select_people
from facerec.checks import InputError
from facerec.metrics.bootstrap import Interval
from facerec.metrics.error_rates import MeasuredRate


def draw_people(count, seed=0, dim=32, pictures=2):
    rng = np.random.default_rng(seed)
    vectors = np.repeat(rng.normal(size=(count, dim)), pictures, axis=0)
    vectors += 0.5 * rng.normal(size=vectors.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), [f"p{i:04d}" for i in range(count) for _ in range(pictures)]


def test_people_who_are_there_twice_are_dropped():
    vectors, names = draw_people(8, dim=64)
    names[2:4] = ["Ann", "Ann"]
    names[4:6] = ["glint_Ann", "glint_Ann"]  # the same name in another set
    extra = vectors[[0, 8]]  # another name's picture, once each
    people = select_people(
        np.concatenate([vectors, extra]), [*names, "twin", "other"], {"p0007"}, failed=3
    )
    # Ann and the listed one, then the two copies, which have fewer pictures.
    assert (people.shared_names, people.look_alikes, people.copies) == (2, 2, 2)
    assert len(people) == 6
    assert people.failed == 3
    assert np.bincount(people.person).tolist() == [2] * 6
    assert np.linalg.norm(people.templates, axis=1) == pytest.approx(np.ones(6))


def test_nobody_left_is_said():
    vectors, names = draw_people(2)
    with pytest.raises(InputError, match="nobody is left"):
        select_people(vectors, names, set(names))


def test_plain_threshold_keeps_the_target():
    scores, shares = np.array([0.9, 0.5, 0.5, 0.1]), np.array([0.25, 0.75, 0.75, 1.0])
    assert find_plain_threshold(scores, shares, 0.74) == 0.9
    assert find_plain_threshold(scores, shares, 0.75) == 0.5
    assert find_plain_threshold(scores, shares, 0.1) > 0.9


def make_stated(rate=0.01):
    return SimpleNamespace(
        target=0.01,
        threshold=0.5,
        method="tail",
        rate=rate,
        rate_interval=Interval(0.008, 0.0125, 0.95, 100),
        predict=lambda _: Interval(0.005, 0.02, 0.95, 100),
    )


def test_three_intervals_are_judged_apart():
    seen = MeasuredRate(0.016, Interval(0.0105, 0.024, 0.95, 100), 16, 16, 1000, 1000)
    trial = judge(make_stated(), seen, 0.02, 1000)
    assert (trial.in_own, trial.in_predicted, trial.in_both) == (False, True, True)
    # ln(16 / 10.5) = 0.42121 and ln(1.25) = 0.22314: together 0.47667.
    assert trial.both[0] == pytest.approx(0.016 * np.exp(-0.47667), rel=1e-4)
    far = MeasuredRate(0.03, Interval(0.02, 0.04, 0.95, 100), 30, 30, 1000, 1000)
    worse = judge(make_stated(), far, 0.02, 1000)
    assert (worse.in_own, worse.in_predicted, worse.in_both) == (False, False, False)
    counts = summarise([trial, worse], 0.01)
    assert [counts[f"{kind}_holds"] for kind in ("own", "predicted", "both")] == [0, 1, 1]
    # Root of the mean of 0.006^2 and 0.02^2, over 0.01; the baseline was off by 0.01 twice.
    assert counts["error"] == pytest.approx(1.4765, rel=1e-4)
    assert counts["error_ratio"] == pytest.approx(1.4765, rel=1e-4)


def test_a_split_gives_its_trials():
    people = select_people(*draw_people(330, dim=64), set())
    order = np.random.default_rng(0).permutation(len(people))
    halves = [np.isin(people.person, part) for part in np.array_split(order[30:], 2)]
    best = (people.vectors @ people.templates[order[:30]].T).max(axis=1)
    fpir = try_fpir(best, people.person, halves, 30, 0.05, 0)
    fmr = try_fmr(people, halves, 1e-3, 0)
    assert fpir.realised == pytest.approx(0.05, abs=0.05)
    assert fmr.realised == pytest.approx(1e-3, abs=1e-3)
    with pytest.raises(InputError, match="no threshold for this rate"):
        try_fpir(best, people.person, halves, 30, 0.001, 0)


def test_independent_people_scale_as_the_law_says():
    vectors, names = draw_people(460, dim=64, pictures=1)
    people = select_people(vectors, names, set())
    rows = measure_scaling(people.vectors @ people.templates.T, people.person, 3, 0)
    assert [row["people"] for row in rows] == [25, 50, 100, 200]
    assert rows[2]["scaled_ratio"] == pytest.approx(1)
    assert rows[3]["scaled_ratio"] == pytest.approx(1, abs=0.25)
    assert measure_scaling(np.zeros((10, 10), np.float32), np.arange(10), 1, 0) == []
