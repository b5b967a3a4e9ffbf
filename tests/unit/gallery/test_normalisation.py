import numpy as np
import plain_index
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.gallery.index import Ranked
from facerec.gallery.normalisation import (
    LEAST_STD,
    NORMALISATIONS,
    CohortStats,
    measure_cohort,
    normalise,
    rank_normalised,
)


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def faces(seed, n, d=32, lean=0.0):
    """Faces of strangers that lean to one direction, each as far as chance has it."""
    rng = np.random.default_rng(seed)
    return unit(rng.standard_normal((n, d)) + lean * rng.random((n, 1)) * np.eye(d)[0])


def stats(means, stds, owners=None):
    means = np.asarray(means, np.float64)
    return CohortStats(means, np.asarray(stds, np.float64), np.zeros(len(means), np.int64), owners)


def test_mean_and_std_by_hand():
    cohort = np.zeros((20, 3), np.float32)
    cohort[:10, 0], cohort[10:, 1] = 1, 1
    face = np.array([[0.28, 0.0, 0.96]], np.float32)
    found = measure_cohort(face, cohort)
    assert found.means[0] == pytest.approx(0.14) and found.stds[0] == pytest.approx(0.14)
    assert found.left_out.tolist() == [0] and found.owners is None
    adaptive = measure_cohort(face, np.concatenate([cohort, cohort]), top=20)
    assert adaptive.means[0] == pytest.approx(0.28) and adaptive.stds[0] == LEAST_STD  # floored


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), top=st.sampled_from([None, 20, 25]))
def test_statistics_of_people_against_a_loop(seed, top):
    rng = np.random.default_rng(seed)
    owners, cohort = rng.choice(np.array([4, 7, 90]), 9), faces(seed, 40)
    vectors = faces(seed + 1, 9)
    vectors[0] = cohort[3]
    found = measure_cohort(vectors, cohort, owners=owners, top=top)
    for row, owner in enumerate(np.unique(owners)):
        mine = vectors[owners == owner].astype(np.float64)
        best = (mine @ cohort.astype(np.float64).T).max(axis=0)
        used = np.sort(best[best < 0.5])[::-1][:top]
        assert found.owners[row] == owner and found.left_out[row] == (best >= 0.5).sum()
        assert found.means[row] == pytest.approx(used.mean())
        assert found.stds[row] == pytest.approx(used.std())


def test_blocks_do_not_change_statistics(monkeypatch):
    owners, cohort, vectors = np.repeat([1, 2, 5, 6], [1, 7, 1, 3]), faces(0, 30), faces(1, 12)
    whole = measure_cohort(vectors, cohort, owners=owners)
    for values in (30, 60, 100, 330):
        monkeypatch.setattr("facerec.gallery.normalisation_cohort._BLOCK_VALUES", values)
        parts = measure_cohort(vectors, cohort, owners=owners)
        np.testing.assert_allclose(parts.means, whole.means, rtol=1e-12)
        np.testing.assert_allclose(parts.stds, whole.stds, rtol=1e-12)


def test_a_person_of_the_gallery_in_the_cohort_does_not_count_against_themselves():
    cohort, face = faces(2, 50), faces(3, 1)
    clean = measure_cohort(face, cohort)
    found = measure_cohort(face, np.concatenate([cohort, face, face]))
    assert found.left_out.tolist() == [2]
    assert found.means[0] == pytest.approx(clean.means[0])
    assert found.stds[0] == pytest.approx(clean.stds[0])


def test_scores_by_hand():
    cosines = np.array([[0.5, 0.4, -np.inf]], np.float32)
    templates, probes = stats([0.1, 0.0], [0.2, 0.1], np.array([3, 8])), stats([0.1], [0.1])
    owners = np.array([[3, 8, -1]])
    arguments = {"templates": templates, "probes": probes, "owners": owners}
    assert normalise(cosines, "none").tolist() == cosines.tolist()
    z, t, s = (normalise(cosines, kind, **arguments)[0] for kind in ("z", "t", "s"))
    np.testing.assert_allclose(z, [2, 4, -np.inf], rtol=1e-6)
    np.testing.assert_allclose(t, [4, 3, -np.inf], rtol=1e-6)
    np.testing.assert_allclose(s, [3, 3.5, -np.inf], rtol=1e-6)
    columns = normalise(cosines[:, :2], "z", templates=templates)
    np.testing.assert_array_equal(columns[0], z[:2])


def test_s_norm_is_symmetric():
    one, two, cohort = faces(4, 5), faces(5, 6), faces(6, 60)
    stats_one, stats_two = measure_cohort(one, cohort), measure_cohort(two, cohort)
    cosines = (one @ two.T).astype(np.float32)
    forth = normalise(cosines, "s", templates=stats_two, probes=stats_one)
    back = normalise(cosines.T.copy(), "s", templates=stats_one, probes=stats_two)
    np.testing.assert_array_equal(forth, back.T)


def rank_everybody(index, queries, k, kind, templates, probes, people=None):
    """The oracle: every person's best cosine, normalised, ranked."""
    count = len(np.unique(index.owners)) if people is None else len(people)
    every = index.search(queries, max(count, k), people=people)
    scores = normalise(every.scores, kind, templates=templates, probes=probes, owners=every.owners)
    order = np.lexsort((every.owners, -scores), axis=-1)[:, :k]
    return [
        np.take_along_axis(a, order, 1) for a in (scores, every.owners, every.ids, every.scores)
    ]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(NORMALISATIONS),
    k=st.sampled_from([1, 3, 10]),
    rows=st.sampled_from([1, 12, 150]),
    some=st.booleans(),
)
def test_ranking_is_that_of_scoring_everybody(seed, kind, k, rows, some):
    rng = np.random.default_rng(seed)
    owners = rng.integers(0, max(1, rows // 2), rows)
    index = plain_index.PlainIndex(faces(seed, rows, 8, 3.0), owners)
    known = np.unique(owners)
    # Spreads that differ by far more than real ones, so that the best is far down by cosine.
    templates = stats(rng.normal(0, 0.3, len(known)), rng.uniform(0.02, 0.3, len(known)), known)
    queries = faces(seed + 1, 4, 8, 3.0)
    probes = stats(rng.normal(0, 0.1, 4), rng.uniform(0.05, 0.2, 4))
    people = rng.choice(known, max(1, len(known) // 2), replace=False) if some else None
    found = rank_normalised(
        index, queries, k, kind, templates=templates, probes=probes, people=people
    )
    wanted = rank_everybody(index, queries, k, kind, templates, probes, people)
    for got, right in zip(
        (found.scores, found.owners, found.ids, found.cosines), wanted, strict=True
    ):
        np.testing.assert_array_equal(got, right)
    assert isinstance(found, Ranked)


def test_one_template_far_down_by_cosine_wins_and_is_found():
    vectors = unit(np.array([[1, 0.001 * i, 0.2] for i in range(1000)]))
    index = plain_index.PlainIndex(vectors, np.arange(1000))
    means = np.zeros(1000)
    means[900] = -0.9
    templates = stats(means, np.full(1000, 0.1), np.arange(1000))
    query = vectors[:1]
    found = rank_normalised(index, query, 2, "z", templates=templates)
    assert found.owners[0].tolist() == [900, 0]
    assert len(index.widths) > 1 and found.cosines[0, 0] < found.cosines[0, 1]


def test_a_search_is_no_wider_than_it_must_be():
    index = plain_index.PlainIndex(faces(7, 600), np.arange(600))
    templates = stats(np.zeros(600), np.full(600, 0.1), np.arange(600))
    rank_normalised(index, faces(8, 3), 5, "z", templates=templates)
    assert index.widths == [64]
    # A template that bounds everybody, but has been seen, asks for nothing more.
    odd = stats(np.zeros(600), np.full(600, 0.1), np.arange(600))
    odd.means[0] = -5
    queries = faces(7, 600)[:1]
    found = rank_normalised(index, queries, 5, "z", templates=odd)
    assert index.widths == [64, 64] and found.owners[0, 0] == 0


def test_who_is_not_asked_for_does_not_widen_a_search():
    index = plain_index.PlainIndex(faces(7, 600), np.arange(600))
    odd = stats(np.zeros(600), np.full(600, 0.1), np.arange(600))
    odd.means[300] = -5
    people = np.arange(300)
    rank_normalised(index, faces(8, 3), 5, "z", templates=odd, people=people)
    assert index.widths == [64]


def test_ties_go_to_the_lowest_owner():
    index = plain_index.PlainIndex(np.repeat(faces(0, 1), 30, 0), np.arange(30)[::-1])
    templates = stats(np.zeros(30), np.full(30, 0.1), np.arange(30))
    templates.means[:2] = 0.5
    found = rank_normalised(index, faces(0, 1), 3, "z", templates=templates)
    assert found.owners.tolist() == [[2, 3, 4]] and found.ids.tolist() == [[27, 26, 25]]


def test_many_pending_queries_are_searched_in_blocks(monkeypatch):
    index = plain_index.PlainIndex(faces(9, 100, 8), np.arange(100))
    templates = stats(np.zeros(100), np.linspace(0.02, 0.3, 100), np.arange(100))
    queries = faces(10, 7, 8)
    whole = rank_normalised(index, queries, 3, "z", templates=templates)
    monkeypatch.setattr("facerec.gallery.normalisation._BLOCK_VALUES", 130)
    parts = rank_normalised(index, queries, 3, "z", templates=templates)
    np.testing.assert_array_equal(parts.owners, whole.owners)
    np.testing.assert_array_equal(parts.scores, whole.scores)


@pytest.mark.parametrize("kind", NORMALISATIONS)
def test_nobody_and_no_queries(kind):
    index = plain_index.PlainIndex(faces(0, 0), [])
    nobody = stats([], [], np.zeros(0, np.int64))
    found = rank_normalised(
        index, faces(1, 2), 3, kind, templates=nobody, probes=stats([0, 0], [1, 1])
    )
    assert (found.owners == -1).all() and np.isneginf(found.scores).all()
    none = rank_normalised(index, faces(1, 0), 3, kind, templates=nobody, probes=stats([], []))
    assert none.scores.shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cohort": faces(0, 19)}, "at least 20 faces"),
        ({"cohort": np.ones((30, 32), np.float32)}, "unit norm"),
        ({"vectors": faces(1, 2, 16)}, "32 dimensions"),
        ({"top": 19}, "top must lie in"),
        ({"top": 41}, "top must lie in"),
        ({"owners": np.array([1])}, r"owners must have shape \(2,\)"),
        ({"owners": np.array([-1, 2])}, "at least 0"),
        (
            {"vectors": faces(0, 1), "cohort": np.repeat(faces(0, 1), 40, 0)},
            "40 of 40 cohort faces",
        ),
        ({"same_cosine": 2}, "same_cosine"),
    ],
)
def test_bad_cohorts(change, message):
    arguments = {"vectors": faces(1, 2), "cohort": faces(2, 40), **change}
    with pytest.raises(InputError, match=message):
        measure_cohort(**arguments)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("S", {}, "did you mean 's'|must be one of"),
        ("z", {"templates": None}, "needs the templates'"),
        ("t", {"probes": None}, "of 1 probes, got none"),
        ("s", {"probes": stats([0, 0], [1, 1])}, "got 2 rows"),
        ("z", {"owners": np.array([[3, 4]])}, "person 4 has no cohort statistics"),
        ("z", {"templates": stats([0], [1])}, "of 2 columns, got 1"),
        ("z", {"templates": stats([0], [1]), "owners": np.array([[0, 0]])}, "need owners"),
    ],
)
def test_bad_statistics(kind, change, message):
    arguments = {
        "templates": stats([0, 0], [1, 1], np.array([3, 8])),
        "probes": stats([0], [1]),
        **change,
    }
    with pytest.raises(InputError, match=message):
        normalise(np.zeros((1, 2), np.float32), kind, **arguments)
