import index_backends as backends
import numpy as np
import pytest

from facerec.checks import InputError
from facerec.gallery.index import Ranked
from facerec.gallery.index_flat import FlatIndex
from facerec.gallery.index_probes import move_rows
from facerec.gallery.index_recall import find_share, measure_recall

draw_unit = backends.draw_unit


class Forgetful(FlatIndex):
    """Never finds the people of its list unless it is asked for the exact answer."""

    forgotten = ()

    def _answer(self, queries, k, exact, allowed, skip):
        ranked = super()._answer(queries, k, True, allowed, skip)
        if exact:
            return ranked
        lost = np.isin(ranked.owners, self.forgotten)
        return Ranked(ranked.scores, np.where(lost, -1, ranked.owners), ranked.ids)


def build(cls, rows_each, people=60, dim=64):
    rng = np.random.default_rng(0)
    owners = np.repeat(np.arange(people), rows_each)
    vectors = draw_unit(rng, people, dim)[owners] + 0.9 * draw_unit(rng, len(owners), dim)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    index = cls(dim, 1)
    index.upsert(np.arange(len(owners)), vectors, owners)
    return index


def test_exact_search_misses_nobody_and_everything_is_counted():
    recall = measure_recall(build(FlatIndex, 3), 0.4, people=5)
    assert recall.probes == 180 and recall.moved == 0
    assert recall.at_threshold.share == recall.edge.share == recall.rank1.share == 1
    assert recall.edge.compared >= 180  # each moved row's own person, at least
    assert 100 < recall.at_threshold.compared < 400


def test_forgotten_people_are_the_recall_that_is_lost():
    index = build(Forgetful, 3)
    index.forgotten = np.arange(15)
    recall = measure_recall(index, 0.3, people=60)
    exact = index.search_without(*_own_rows(index), exact=True)
    accepted = exact.owners[exact.scores >= 0.3]
    lost = np.isin(accepted, index.forgotten).sum()
    assert recall.at_threshold.compared == len(accepted)
    assert recall.at_threshold.found == len(accepted) - lost
    assert recall.rank1.found == (~np.isin(exact.owners[:, 0], index.forgotten)).sum()
    assert recall.at_threshold.low < recall.at_threshold.share < recall.at_threshold.high
    assert 0.6 < recall.edge.share < 0.9


def _own_rows(index):
    ids, rows, _ = index.draw(10_000, 0)
    return rows, 60, ids


def test_of_a_person_with_one_row_the_row_is_moved_to_the_threshold():
    index = build(FlatIndex, 1)
    recall = measure_recall(index, 0.5)
    assert recall.moved == recall.probes == 60
    assert recall.at_threshold == recall.edge
    assert recall.at_threshold.compared >= 60


def test_given_probes_are_asked_as_they_are():
    index = build(Forgetful, 2)
    index.forgotten = np.array([0])
    probes = index.draw(1000, 0)[1]
    recall = measure_recall(index, 0.99, probes=probes)
    assert recall.probes == 120 and recall.moved == 0
    assert (recall.at_threshold.found, recall.at_threshold.compared) == (118, 120)
    assert recall.edge.compared == 0 and (recall.edge.low, recall.edge.high) == (0, 1)


def test_the_same_seed_gives_the_same_figures():
    index = build(Forgetful, 3)
    index.forgotten = np.arange(9)
    first = measure_recall(index, 0.4, count=50, seed=3)
    assert first == measure_recall(index, 0.4, count=50, seed=3)
    assert first.probes == 50


def test_moved_rows_lie_where_they_should_and_vary_as_the_data_does():
    rng = np.random.default_rng(0)
    scale = np.array([1.0] * 4 + [0.05] * 28)
    rows = rng.standard_normal((500, 32)) * scale
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    cosines = rng.uniform(0.3, 0.6, 500)
    moved = move_rows(rows, cosines, rows, rng)
    np.testing.assert_allclose(np.sum(moved.astype(float) * rows, axis=1), cosines, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1, atol=1e-6)
    assert (moved[:, 4:] ** 2).sum(axis=1).mean() < 0.2
    alone = move_rows(rows[:1], np.array([0.5]), rows[:1], rng)  # nothing to mix
    np.testing.assert_allclose(alone @ rows[0], 0.5, atol=1e-6)


@pytest.mark.parametrize(
    ("found", "compared", "low", "high"),
    [(0, 10, 0, 0.27753), (10, 10, 0.72247, 1), (5, 10, 0.23659, 0.76341), (0, 0, 0, 1)],
)
def test_wilsons_interval(found, compared, low, high):
    share = find_share(found, compared)
    np.testing.assert_allclose((share.low, share.high), (low, high), atol=1e-5)


def test_what_cannot_be_measured_is_said():
    with pytest.raises(InputError, match="empty"):
        measure_recall(FlatIndex(8, 1), 0.4)
    index = build(FlatIndex, 1)
    with pytest.raises(InputError, match="threshold"):
        measure_recall(index, 1.5)
    with pytest.raises(InputError, match="64 dimensions"):
        measure_recall(index, 0.4, probes=np.eye(8, dtype=np.float32))

    class Elsewhere:
        name, dim = "elsewhere", 64

        def __len__(self):
            return 1

    with pytest.raises(InputError, match="elsewhere gives no rows of its own"):
        measure_recall(Elsewhere(), 0.4)
