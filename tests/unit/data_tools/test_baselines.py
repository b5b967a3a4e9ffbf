"""The rules to beat, by hand-made folders and brute force."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.baselines import cleanlab_issues, largest_cluster, mean_cosine, sub_centre
from facerec.checks import InputError

RULES = (mean_cosine, largest_cluster, sub_centre)


def turn(*degrees):
    """Return unit vectors of a plane at these angles, with a third dimension of zeros."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1).astype(np.float32)


def label(vectors, number=0):
    return np.full(len(vectors), number, np.int64)


def draw_people(seed=0, people=12, rows=10, dim=32, spread=0.12):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(people), rows)
    vectors = rng.normal(size=(people, dim))[labels] / math.sqrt(dim)
    vectors = vectors + rng.normal(size=(len(labels), dim)) * spread
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), labels, rng


def test_mean_cosine_by_hand():
    vectors = turn(0, 0, 0, 90)
    # The mean is (3, 1) / 4: its cosines are 3 / sqrt(10) = 0.949 and 1 / sqrt(10) = 0.316.
    assert mean_cosine(vectors, label(vectors)).tolist() == [True, True, True, False]
    assert mean_cosine(vectors, label(vectors), 0.31).all()
    assert not mean_cosine(vectors, label(vectors), 0.95).any()


def test_the_largest_cluster_stays_and_noise_goes():
    vectors = turn(0, 5, 10, 100, 105, 200)
    assert largest_cluster(vectors, label(vectors)).tolist() == [True] * 3 + [False] * 3
    even = turn(100, 105, 0, 5)
    assert largest_cluster(even, label(even)).tolist() == [True, True, False, False]
    apart = turn(0, 90, 180)
    assert not largest_cluster(apart, label(apart)).any()
    # 0.6 between unit vectors is an angle of 2 asin(0.3) = 34.9 degrees, and links make chains.
    chain = turn(0, 34, 68, 104)
    assert largest_cluster(chain, label(chain)).tolist() == [True, True, True, False]


def test_sub_centre_measures_all_rows_against_the_dominant_one():
    # Three groups; the dominant centre lies at 5 degrees, 75 degrees reach from -70 to 80.
    vectors = turn(0, 5, 10, 5, 78, 82, -69, -71)
    keep = sub_centre(vectors, label(vectors))
    assert keep.tolist() == [True] * 5 + [False, True, False]
    assert sub_centre(vectors, label(vectors), degrees=180).all()
    assert sub_centre(turn(0), label(turn(0))).all()
    pair = turn(0, 80)
    assert sub_centre(pair, label(pair)).sum() == 1


@pytest.mark.parametrize("rule", RULES)
def test_folders_do_not_touch_each_other_and_no_label_is_kept(rule):
    vectors, labels, rng = draw_people()
    labels = np.where(rng.random(len(labels)) < 0.2, rng.integers(12, size=len(labels)), labels)
    keep = rule(vectors, labels)
    alone = np.where(labels == 5, 5, -1)
    assert np.array_equal(rule(vectors, alone)[labels == 5], keep[labels == 5])
    assert rule(vectors, alone)[labels != 5].all()
    assert keep.dtype == bool and 0 < keep.sum() < len(keep)
    assert np.array_equal(keep, rule(vectors, labels))
    none = np.full(len(labels), -1)
    assert rule(vectors, none).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_mean_cosine_and_clusters_do_not_know_the_order(seed):
    vectors, labels, rng = draw_people(seed, people=4)
    labels = rng.permutation(labels)
    order = rng.permutation(len(labels))
    assert np.array_equal(
        mean_cosine(vectors, labels, 0.3)[order], mean_cosine(vectors[order], labels[order], 0.3)
    )


def test_mean_cosine_against_a_plain_loop():
    vectors, labels, rng = draw_people(3)
    labels = rng.permutation(labels)
    for identity in range(12):
        rows = np.flatnonzero(labels == identity)
        mean = vectors[rows].astype(np.float64).mean(axis=0)
        cosines = vectors[rows] @ (mean / np.linalg.norm(mean))
        clear = np.abs(cosines - 0.3) > 1e-5
        found = mean_cosine(vectors, labels, 0.3)[rows]
        assert np.array_equal(found[clear], (cosines >= 0.3)[clear])


def test_cleanlab_finds_flips_and_says_why_it_does_not_run(monkeypatch):
    vectors, labels, rng = draw_people()
    true = labels.copy()
    wrong = rng.choice(len(labels), 12, replace=False)
    labels[wrong] = (labels[wrong] + 1 + rng.integers(10, size=12)) % 12
    keep, reason = cleanlab_issues(vectors, labels, max_bytes=10_000)
    assert keep is None and "120 rows x 12 identities need about" in reason
    assert cleanlab_issues(vectors, np.zeros_like(labels))[0] is None
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    keep, reason = cleanlab_issues(vectors, labels)
    assert keep is None and "pip install cleanlab" in reason
    monkeypatch.undo()
    pytest.importorskip("cleanlab")
    keep, reason = cleanlab_issues(vectors, labels)
    assert keep is not None and reason == ""
    found = ~keep
    assert (found & (labels != true)).sum() >= 11 and (found & (labels == true)).sum() <= 2
    mixed = np.where(np.arange(len(labels)) == 0, -1, labels)
    assert cleanlab_issues(vectors, mixed)[0][0]


@pytest.mark.parametrize("rule", [*RULES, cleanlab_issues])
def test_bad_arrays_are_named(rule):
    vectors, labels, _ = draw_people()
    with pytest.raises(InputError, match="must have shape"):
        rule(vectors, labels[:-1])
    with pytest.raises(InputError, match="unit norm"):
        rule(2 * vectors, labels)


@pytest.mark.parametrize(
    ("rule", "changes", "message"),
    [
        (mean_cosine, {"least": 2}, "least must lie in"),
        (largest_cluster, {"eps": 0}, "eps must lie in"),
        (largest_cluster, {"min_samples": 0}, "min_samples must lie in"),
        (sub_centre, {"k": 0}, "k must lie in"),
        (sub_centre, {"degrees": 190}, "degrees must lie in"),
    ],
)
def test_bad_settings_are_named(rule, changes, message):
    vectors, labels, _ = draw_people()
    with pytest.raises(InputError, match=message):
        rule(vectors, labels, **changes)
