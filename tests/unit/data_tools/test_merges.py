"""Identities compared with each other: shares, tails, guarded joins."""

from __future__ import annotations

import numpy as np
import pytest

from data_tools.merges import Kinship, compare_identities, join_identities


def draw(sizes, seed=0, dim=64, spread=0.9):
    """Return unit vectors and labels of people with so many pictures each."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    vectors = rng.standard_normal((len(sizes), dim))[labels]
    vectors = vectors + spread * rng.standard_normal(vectors.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), labels.astype(np.int64)


def build_kinship(shares, members):
    """Return a kinship of given pair shares: vectors whose products they are."""
    values, axes = np.linalg.eigh(np.array(shares, np.float64))
    scaled = (axes * np.sqrt(np.maximum(values, 0))).astype(np.float32)
    pairs = np.argwhere(np.triu(np.array(shares), 1) >= 0.8)
    order = np.argsort([-shares[a][b] for a, b in pairs], kind="stable")
    pairs = pairs[order].astype(np.int64).reshape(-1, 2)
    worth = np.array([shares[a][b] for a, b in pairs])
    ends = (0.8,) * 5, (0.7,) * 5
    return Kinship(scaled, np.array(members, np.int64), *ends, pairs, worth, 0.0)


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_one_person_under_two_names_is_found_and_strangers_are_not(share):
    vectors, labels = draw([16] * 120)
    halved = labels.copy()
    for person in range(0, 20):
        rows = np.flatnonzero(labels == person)
        halved[rows[: round(share * len(rows))]] = 120 + person
    kinship = compare_identities(vectors, halved, 140)
    merged = join_identities(kinship)
    found = {(row, head) for row, head in enumerate(merged.tolist()) if row != head}
    pairs = {tuple(sorted(pair)) for pair in found}
    assert pairs == {(person, 120 + person) for person in range(20)}
    assert kinship.false_rate <= 0.005


def test_a_share_is_about_one_for_one_person_at_any_size():
    vectors, labels = draw([30] * 60)
    for size in (2, 5, 12):
        halved = np.where(np.tile(np.arange(30) < size, 60), labels, labels + 60)
        scaled = compare_identities(vectors, halved, 120).scaled
        shares = np.einsum("cd,cd->c", scaled[:60], scaled[60:])
        assert np.median(shares) == pytest.approx(1.0, abs=0.06)


def test_nothing_is_joined_where_it_cannot_be_judged():
    vectors, labels = draw([2] * 30)
    merged = join_identities(compare_identities(vectors, labels, 30))
    assert np.array_equal(merged, np.arange(30))


def test_a_chain_does_not_pull_strangers_together():
    shares = [[1.0, 0.9, 0.1], [0.9, 1.0, 0.85], [0.1, 0.85, 1.0]]
    merged = join_identities(build_kinship(shares, [5, 9, 5]))
    assert merged.tolist() == [1, 1, 2]


def test_the_largest_stands_for_a_group_and_ties_go_to_the_lowest_number():
    shares = np.full((3, 3), 0.95) + 0.05 * np.eye(3)
    assert join_identities(build_kinship(shares.tolist(), [5, 9, 5])).tolist() == [1, 1, 1]
    assert join_identities(build_kinship(shares.tolist(), [5, 5, 5])).tolist() == [0, 0, 0]


def test_what_must_stay_apart_stays_apart_through_others_too():
    shares = np.full((3, 3), 0.95) + 0.05 * np.eye(3)
    merged = join_identities(build_kinship(shares.tolist(), [5, 5, 5]), apart=[(2, 0)])
    assert merged[0] != merged[2]
    assert len(set(merged.tolist())) == 2


def test_a_hub_does_not_grow_without_bound():
    shares = np.full((8, 8), 0.95) + 0.05 * np.eye(8)
    merged = join_identities(build_kinship(shares.tolist(), [5] * 8), most=3)
    assert np.bincount(merged).max() <= 3
