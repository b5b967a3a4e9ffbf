import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.gallery.remote_ranking import SLACK, Hits, Stored, find_people

DIM = 4


def make_unit(angles):
    """Unit vectors whose cosine to the query (1, 0, 0, 0) is cos(angle)."""
    angles = np.asarray(angles, np.float64)
    zeros = np.zeros_like(angles)
    return np.stack([np.cos(angles), np.sin(angles), zeros, zeros], axis=1).astype(np.float32)


QUERY = make_unit([0.0])


class Server:
    """Ranks rows by rough scores; may show rows that are gone, or end early."""

    def __init__(self, rows, noise=None, ghosts=(), ghost_rounds=0):
        self.rows = rows  # id -> (vector, owner)
        self.noise = noise or {}
        self.ghosts = set(ghosts)
        self.ghost_rounds = ghost_rounds
        self.widths = []

    def ask(self, requests):
        self.widths.append([request.width for request in requests])
        shown = {i for i in self.rows if self.ghost_rounds > 0 or i not in self.ghosts}
        self.ghost_rounds -= 1
        return [self.answer(request, shown) for request in requests]

    def answer(self, request, shown):
        scored = [
            (float(vector @ request.vector) + self.noise.get(i, 0.0), i, owner)
            for i, (vector, owner) in self.rows.items()
            if i in shown and owner not in request.without
        ]
        best = sorted(scored, key=lambda row: -row[0])[: request.width]
        return Hits(
            np.array([i for _, i, _ in best], np.int64),
            np.array([owner for _, _, owner in best], np.int64),
            np.array([score for score, _, _ in best], np.float64),
        )

    def fetch(self, ids):
        there = [i for i in ids if i not in self.ghosts]
        return Stored({i: self.rows[i][1] for i in there}, {i: self.rows[i][0] for i in there})


def rank_all(rows, k):
    """The oracle."""
    best = {}
    for i, (vector, owner) in rows.items():
        score = float(np.float32(vector.astype(np.float64) @ QUERY[0].astype(np.float64)))
        best[owner] = min(best.get(owner, (np.inf, 0)), (-score, i))
    order = sorted((negative, owner, i) for owner, (negative, i) in best.items())
    return [(-negative, owner, i) for negative, owner, i in order[:k]]


@settings(max_examples=60)
@given(data=st.data())
def test_rounding_of_the_server_never_changes_the_answer(data):
    count = data.draw(st.integers(1, 60))
    steps = data.draw(st.lists(st.integers(0, 6), min_size=count, max_size=count))
    owners = data.draw(st.lists(st.integers(0, 9), min_size=count, max_size=count))
    vectors = make_unit([1.0 + 2e-6 * step for step in steps])  # many ties and near ties
    rows = {i: (vectors[i], owners[i]) for i in range(count)}
    part = st.floats(-SLACK / 2, SLACK / 2)
    noise = dict(enumerate(data.draw(st.lists(part, min_size=count, max_size=count))))
    k = data.draw(st.integers(1, 6))
    (found,) = find_people(Server(rows, noise), QUERY, k)
    assert found == rank_all(rows, k)


def test_a_person_near_the_end_of_the_hits_may_be_the_best_after_all():
    # In steps of the slack above the last hit: the server overrates person 0 and underrates 1.
    exact = [1.3, 2.8, *[0.0] * 15]
    rough = [2.2, 1.9, *[0.0] * 15]
    vectors = make_unit(np.arccos(0.5 + SLACK * np.array(exact)))
    rows = {i: (vectors[i], i) for i in range(17)}
    noise = {i: SLACK * (rough[i] - exact[i]) for i in range(17)}
    (found,) = find_people(Server(rows, noise), QUERY, 1)
    assert found == rank_all(rows, 1)
    assert found[0][1] == 1


def test_a_crowd_of_one_person_is_left_out_once_they_are_settled():
    angles = [*np.linspace(0.1, 0.2, 500), 1.0, 1.1]
    vectors = make_unit(angles)
    rows = {i: (vectors[i], 0) for i in range(500)}
    rows |= {500: (vectors[500], 1), 501: (vectors[501], 2)}
    server = Server(rows)
    (found,) = find_people(server, QUERY, 3)
    assert found == rank_all(rows, 3)
    assert max(width for widths in server.widths for width in widths) < 100


def test_a_thousand_equal_rows_are_all_seen_before_a_tie_is_broken():
    vectors = make_unit(np.full(1000, 0.5))
    rows = {i: (vectors[i], 1000 - i) for i in range(1000)}
    (found,) = find_people(Server(rows), QUERY, 2)
    assert [(owner, i) for _, owner, i in found] == [(1, 999), (2, 998)]


def test_rows_that_are_erased_meanwhile_are_no_answer():
    vectors = make_unit([0.1, 0.2, 0.3])
    rows = {0: (vectors[0], 0), 1: (vectors[1], 0), 2: (vectors[2], 1)}
    (found,) = find_people(Server(rows, ghosts=[0], ghost_rounds=1), QUERY, 2)
    assert [(owner, i) for _, owner, i in found] == [(0, 1), (1, 2)]


def test_a_server_that_keeps_showing_erased_rows_is_not_asked_for_ever():
    vectors = make_unit([0.1, 0.3])
    rows = {0: (vectors[0], 0), 2: (vectors[1], 1)}
    server = Server(rows, ghosts=[0], ghost_rounds=10**9)
    (found,) = find_people(server, QUERY, 2)
    assert [(owner, i) for _, owner, i in found] == [(1, 2)]
    assert len(server.widths) < 10


def test_answers_do_not_depend_on_the_batch():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(90, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = {i: (vectors[i], i % 30) for i in range(90)}
    queries = vectors[:70]
    together = find_people(Server(rows), queries, 4)
    alone = [find_people(Server(rows), query[None], 4)[0] for query in queries]
    assert together == alone


@pytest.mark.parametrize("k", [1, 5])
def test_nothing_there_is_an_empty_answer(k):
    assert find_people(Server({}), QUERY, k) == [[]]
