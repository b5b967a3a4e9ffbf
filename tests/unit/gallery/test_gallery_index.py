import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.gallery.index import FlatIndex


def unit_rows(rng, n, d=16):
    rows = rng.standard_normal((n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def rank_by_hand(vectors, owners, query, k):
    scores = (vectors.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
    best = {}
    for row, (owner, score) in enumerate(zip(owners, scores, strict=True)):
        if owner not in best or score > best[owner][0]:
            best[owner] = (score, row)
    ranked = sorted(best.items(), key=lambda item: (-item[1][0], item[0]))[:k]
    return [(int(owner), row) for owner, (_, row) in ranked]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 120),
    people=st.integers(1, 12),
    k=st.integers(1, 15),
)
def test_each_person_is_ranked_once_and_exactly(seed, n, people, k):
    rng = np.random.default_rng(seed)
    vectors = unit_rows(rng, n, 4)
    vectors[rng.integers(0, n, n // 3)] = vectors[0]  # equal vectors: ties
    owners = rng.integers(0, people, n)
    queries = unit_rows(rng, 5, 4)
    scores, rows = FlatIndex(vectors, owners).search(queries, k)
    assert scores.shape == rows.shape == (5, k)
    assert scores.dtype == np.float32 and rows.dtype == np.int64
    for query, score, row in zip(queries, scores, rows, strict=True):
        found = [(int(owners[r]), int(r)) for r in row if r >= 0]
        assert found == rank_by_hand(vectors, owners, query, k)
        assert (row[len(found) :] == -1).all() and np.isneginf(score[len(found) :]).all()
        assert (np.diff(score[: len(found)]) <= 0).all()


def test_one_person_with_most_samples_does_not_hide_the_others():
    rng = np.random.default_rng(0)
    query = unit_rows(rng, 1)
    crowd = unit_rows(rng, 500) * 0.05 + query
    crowd = (crowd / np.linalg.norm(crowd, axis=1, keepdims=True)).astype(np.float32)
    vectors = np.concatenate([crowd, unit_rows(rng, 3)])
    owners = np.array([0] * 500 + [1, 2, 3])
    _, rows = FlatIndex(vectors, owners).search(query, 4)
    assert sorted(owners[rows[0]]) == [0, 1, 2, 3]


def test_a_batch_scores_as_single_queries_do():
    rng = np.random.default_rng(1)
    index = FlatIndex(unit_rows(rng, 300, 128), np.arange(300) // 3)
    queries = unit_rows(rng, 40, 128)
    scores, rows = index.search(queries, 5)
    singles = [index.search(query[None], 5) for query in queries]
    np.testing.assert_array_equal(rows, np.concatenate([s[1] for s in singles]))
    np.testing.assert_array_equal(scores, np.concatenate([s[0] for s in singles]))


def test_an_empty_gallery_answers_nobody():
    index = FlatIndex(np.zeros((0, 8), np.float32), np.zeros(0, np.int64))
    scores, rows = index.search(unit_rows(np.random.default_rng(0), 2, 8), 3)
    assert (rows == -1).all() and np.isneginf(scores).all()


@pytest.mark.parametrize(
    ("query", "k", "message"),
    [
        (np.full((1, 8), np.nan, np.float32), 1, "finite"),
        (np.zeros((1, 8), np.float32), 1, "unit norm"),
        (np.ones((1, 8), np.float32), 1, "unit norm"),
        (np.eye(8, dtype=np.float32)[:1, :4], 1, "8 dimensions"),
        (np.eye(8)[:1], 1, "float32"),
        (np.eye(8, dtype=np.float32)[:1], 0, "at least 1"),
    ],
)
def test_bad_queries_are_refused(query, k, message):
    index = FlatIndex(np.eye(8, dtype=np.float32), np.arange(8))
    with pytest.raises(InputError, match=message):
        index.search(query, k)
