"""Sums, cosines without oneself, the nearest other identity: against a plain double loop."""

from __future__ import annotations

import numpy as np
import pytest

from data_tools import centres
from data_tools.centres import (
    count_members,
    find_others,
    group_rows,
    scale_to_unit,
    score_against,
    sum_members,
)


@pytest.fixture(params=[7, 1 << 14], ids=["many blocks", "one block"])
def block(request, monkeypatch):
    monkeypatch.setattr(centres, "_BLOCK", request.param)


def draw(n=60, people=8, dim=6, seed=0):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = rng.integers(-1, people, n)
    assigned = np.where(rng.random(n) < 0.3, rng.integers(-1, people, n), labels)
    neighbours = np.argsort(-(vectors @ vectors.T), axis=1, kind="stable")[:, 1:13]
    return vectors, labels.astype(np.int64), assigned.astype(np.int64), neighbours.astype(np.int32)


def score_plainly(vectors, row, whom, assigned):
    members = [i for i in range(len(vectors)) if assigned[i] == whom and i != row]
    if whom < 0 or not members:
        return np.nan
    total = vectors[members].astype(np.float64).sum(axis=0)
    return total @ vectors[row] / np.linalg.norm(total)


def test_sums_are_those_of_the_members(block):
    vectors, _, assigned, _ = draw()
    sums = sum_members(vectors, assigned, 8)
    for who in range(8):
        assert np.allclose(sums[who], vectors[assigned == who].sum(axis=0), atol=1e-5)
    assert count_members(assigned, 8).tolist() == [int((assigned == who).sum()) for who in range(8)]
    assert np.allclose(np.linalg.norm(scale_to_unit(sums), axis=1), 1.0, atol=1e-6)
    assert not scale_to_unit(np.zeros((1, 6), np.float32)).any()


def test_a_row_is_never_held_against_itself(block):
    vectors, labels, assigned, _ = draw()
    sums = sum_members(vectors, assigned, 8)
    found = score_against(vectors, labels, assigned, sums, count_members(assigned, 8))
    plain = [score_plainly(vectors, row, who, assigned) for row, who in enumerate(labels)]
    assert np.allclose(found, plain, atol=1e-5, equal_nan=True)


def test_the_nearest_other_identity_among_the_neighbours(block):
    vectors, labels, assigned, neighbours = draw()
    sums = sum_members(vectors, assigned, 8)
    best, whose = find_others(vectors, labels, assigned, sums, neighbours)
    for row in range(len(vectors)):
        near = assigned[neighbours[row]]
        order = [who for who in dict.fromkeys(near.tolist()) if who not in (-1, labels[row])][:3]
        plain = {who: score_plainly(vectors, row, who, assigned) for who in order}
        plain = {who: score for who, score in plain.items() if np.isfinite(score)}
        assert whose[row] == (max(plain, key=plain.get) if plain else -1)
        assert best[row] == pytest.approx(
            max(plain.values(), default=np.nan), abs=1e-5, nan_ok=True
        )


def test_without_neighbours_all_identities_are_candidates():
    vectors, labels, assigned, _ = draw()
    sums = sum_members(vectors, assigned, 8)
    best, whose = find_others(vectors, labels, assigned, sums, None)
    units = scale_to_unit(sums)
    cosines = vectors @ units.T
    cosines[labels >= 0, labels[labels >= 0]] = -np.inf
    assert np.array_equal(whose, cosines.argmax(axis=1))
    assert np.allclose(best, cosines.max(axis=1), atol=1e-6)


def test_groups_are_ascending_and_leave_unlabelled_rows_out():
    groups = group_rows(np.array([2, 0, -1, 2, 0]))
    assert [rows.tolist() for rows in groups] == [[1, 4], [], [0, 3]]
    assert group_rows(np.array([-1, -1])) == []
