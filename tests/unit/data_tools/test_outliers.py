"""Robust centres and the threshold found from the scores, on clusters on the sphere."""

from __future__ import annotations

import numpy as np
import pytest

from data_tools.judgement import cap_drops
from data_tools.outliers import MIN_PICTURES, score_rows
from facerec.checks import InputError


def build_clusters(seed=0, people=40, rows=15, dim=64, spread=0.8):
    """Return unit vectors (n, dim) around random centres, and their identities."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((people, dim))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    labels = np.repeat(np.arange(people), rows)
    noise = rng.standard_normal((len(labels), dim)) / np.sqrt(dim)
    vectors = centres[labels] + spread * noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), labels.astype(np.int64)


def flip(labels, rate, seed=1):
    rng = np.random.default_rng(seed)
    people = labels.max() + 1
    wrong = rng.random(len(labels)) < rate
    flipped = labels.copy()
    flipped[wrong] = (labels[wrong] + rng.integers(1, people, wrong.sum())) % people
    return flipped, wrong


def judge(vectors, labels, threshold=None):
    scores, cut = score_rows(vectors, labels, threshold)
    return (scores.size >= MIN_PICTURES) & (scores.own < cut.value), scores, cut


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.4])
def test_flips_are_found_with_a_threshold_of_its_own(rate):
    vectors, labels = build_clusters()
    flipped, wrong = flip(labels, rate)
    dropped, _, cut = judge(vectors, flipped)
    hit = np.count_nonzero(dropped & wrong)
    assert hit / wrong.sum() >= 0.97
    assert hit / dropped.sum() >= 0.97
    assert cut.found
    assert cut.noise == pytest.approx(wrong.mean(), abs=0.05)


def test_strangers_who_look_alike_are_found_too():
    # Two camps of people, and the wrong person is always of the same camp.
    vectors, labels = build_clusters(people=60)
    camp = np.zeros(vectors.shape[1], np.float32)
    camp[0] = 0.35
    vectors += np.where(labels % 2, 1, -1)[:, None].astype(np.float32) * camp
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rng = np.random.default_rng(3)
    wrong = rng.random(len(labels)) < 0.2
    flipped = np.where(wrong, (labels + 2 * rng.integers(1, 30, len(labels))) % 60, labels)
    dropped, _, _ = judge(vectors, flipped)
    assert 2 * np.count_nonzero(dropped & wrong) / (dropped.sum() + wrong.sum()) >= 0.97


@pytest.mark.parametrize("spread", [0.01, 0.3, 0.6])
def test_nothing_is_dropped_from_tight_identities(spread):
    vectors, labels = build_clusters(spread=spread)
    dropped, _, cut = judge(vectors, labels)
    assert not dropped.any()
    assert cut.noise <= 0.005


def test_order_does_not_matter_and_repeats_agree():
    vectors, labels = build_clusters(seed=4)
    flipped, _ = flip(labels, 0.3)
    dropped, scores, cut = judge(vectors, flipped)
    again = judge(vectors, flipped)
    assert np.array_equal(again[0], dropped) and np.array_equal(again[1].own, scores.own)
    order = np.random.default_rng(9).permutation(len(labels))
    mixed, mixed_scores, mixed_cut = judge(vectors[order], flipped[order])
    assert np.array_equal(mixed, dropped[order])
    assert mixed_cut.value == cut.value
    np.testing.assert_allclose(mixed_scores.own, scores.own[order], atol=1e-6)


def test_the_row_itself_is_left_out_of_its_centre():
    vectors, labels = build_clusters(people=5, rows=3)
    _, scores, _ = judge(vectors, labels, threshold=-1.0)
    rest = vectors[1] + vectors[2]
    assert scores.core[:3].all()
    assert scores.own[0] == pytest.approx(float(vectors[0] @ rest / np.linalg.norm(rest)), abs=1e-6)


def test_few_pictures_cannot_be_judged_and_unlabelled_rows_have_no_score():
    vectors, labels = build_clusters(people=10)
    labels = labels.copy()
    labels[labels == 9] = -1
    labels[np.flatnonzero(labels == 8)[2:]] = -1
    dropped, scores, _ = judge(vectors, labels, threshold=1.0)
    small = labels == 8
    assert not dropped[small].any() and not dropped[labels < 0].any()
    assert np.isnan(scores.own[labels < 0]).all() and (scores.size[labels < 0] == 0).all()
    assert (scores.other_identity[labels < 0] >= 0).all()
    assert dropped[scores.size >= 3].all()


def test_one_identity_needs_a_given_threshold():
    vectors, labels = build_clusters(people=1)
    with pytest.raises(InputError, match="at least two identities"):
        score_rows(vectors, labels)
    scores, cut = score_rows(vectors, labels, 0.2)
    assert not cut.found and cut.noise is None
    assert (scores.other_identity == -1).all() and np.isnan(scores.other).all()


def test_the_cap_keeps_the_best_of_a_bad_identity():
    vectors, labels = build_clusters(people=4, rows=10)
    flagged, scores, _ = judge(vectors, labels, threshold=1.0)
    allowed = cap_drops(flagged, scores.own, labels, 0.3)
    for identity in range(4):
        rows = np.flatnonzero(labels == identity)
        assert allowed[rows].sum() == 3
        assert scores.own[rows][allowed[rows]].max() <= scores.own[rows][~allowed[rows]].min()
    assert np.array_equal(cap_drops(flagged, scores.own, labels, 1.0), flagged)


def test_bad_arguments_are_named():
    vectors, labels = build_clusters(people=3)
    with pytest.raises(InputError, match="labels must have shape"):
        score_rows(vectors, labels[1:])
    with pytest.raises(InputError, match="threshold must lie in"):
        score_rows(vectors, labels, 2.0)
    with pytest.raises(InputError, match="unit norm"):
        score_rows(vectors * 2, labels)
