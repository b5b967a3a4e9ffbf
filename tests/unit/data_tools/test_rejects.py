"""Rejects on clusters on the sphere: who becomes new, who passes for a stranger, who is held."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.centres import sum_members
from data_tools.owners import Owners
from data_tools.rejects import DISCARD, NEW, REASONS, REVIEW, UNLABELLED, Evidence, route_rejects
from data_tools.rejects_groups import count_different
from data_tools.rejects_levels import find_levels
from data_tools.rejects_strangers import find_bound
from facerec.checks import InputError

CUT, DIM = 0.4, 64
KEPT, ADDED, LONE = 40, 12, 30


def draw(centres, labels, rng, spread=0.8):
    """Return unit vectors around centres, float32."""
    noise = rng.standard_normal((len(labels), centres.shape[1])) / np.sqrt(centres.shape[1])
    return scale(centres[labels] + spread * noise)


def scale(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def build_rejects(seed=0):
    """Return vectors, people and fates: 40 kept people, 12 unknown ones, 30 lone strangers.

    Of each kept person the last row is rejected.
    """
    rng = np.random.default_rng(seed)
    centres = scale(rng.standard_normal((KEPT + ADDED + LONE, DIM)))
    people = np.repeat(np.arange(KEPT + ADDED + LONE), [12] * KEPT + [6] * ADDED + [1] * LONE)
    fate = np.where(people < KEPT, people, -1)
    fate[11 : 12 * KEPT : 12] = -1
    return draw(centres, people, rng), people, fate


def reason(routes, number):
    """Return the rows that have a reason, by its text's beginning."""
    return routes.rows[[REASONS[code].startswith(number) for code in routes.reason]]


def cluster_sets(routes, rows=None):
    """Return the new identities as sets of rows, renamed by `rows`."""
    names = np.arange(routes.rows.max() + 1) if rows is None else rows
    found = (routes.rows[routes.cluster == number] for number in range(routes.new))
    return {frozenset(names[group].tolist()) for group in found}


def find_best(vectors, rows, groups):
    """Return each row's cosine to the nearest centre of groups, one by one."""
    centres = scale(np.stack([vectors[group].sum(axis=0, dtype=np.float64) for group in groups]))
    return (vectors[rows] @ centres.T).max(axis=1)


def test_unknown_people_become_identities_and_known_ones_do_not():
    taken = []
    for seed in range(5):
        vectors, people, fate = build_rejects(seed)
        label = np.where(people < KEPT, people, -1)
        routes = route_rejects(vectors, fate, CUT, Evidence(label=label))
        assert all(len(set(people[list(group)])) == 1 for group in cluster_sets(routes))
        whose = people[routes.rows]
        added = (whose >= KEPT) & (whose < KEPT + ADDED)
        taken.append((routes.route[added] == NEW).mean())
        assert (routes.route[added] == UNLABELLED).mean() <= 0.05
        assert (routes.route[whose < KEPT] == REVIEW).mean() >= 0.95
        assert not (routes.route[whose < KEPT] == NEW).any()
        assert (routes.route[whose >= KEPT + ADDED] == UNLABELLED).mean() >= 0.8
    # One identity in ten is held back as loose by design, and one in fifty as alike.
    assert np.mean(taken) >= 0.7


def test_a_group_that_is_an_identity_of_the_set_goes_to_review_with_that_name():
    vectors, people, fate = build_rejects()
    fate[people == 7] = np.where(np.arange(12) < 6, 7, -1)
    routes = route_rejects(vectors, fate, CUT)
    mine = people[routes.rows] == 7
    assert (routes.route[mine] == REVIEW).all() and (routes.identity[mine] == 7).all()
    group = set(routes.cluster[mine].tolist()) - {-1}
    assert len(group) == 1 and routes.alike[group.pop() - routes.new] == 7
    new = set().union(*cluster_sets(routes))
    assert new and new.isdisjoint(np.flatnonzero(people == 7).tolist())


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 50), st.sampled_from([0.001, 0.01, 0.1]), st.booleans())
def test_strangers_are_disjoint_from_everybody(seed, leak, chances):
    vectors, people, fate = build_rejects(seed)
    label = np.where(people < KEPT, people, -1)
    owners = None
    if chances:
        own = np.where(label >= 0, 0.97, 0.0)
        owners = Owners(own, np.full(len(own), 0.01), 0.99 - own, (0.9, 0.01, 0.09))
    routes = route_rejects(vectors, fate, CUT, Evidence(label=label, owners=owners), leak=leak)
    report = routes.disjointness
    passed = routes.rows[routes.route == UNLABELLED]
    groups = [np.flatnonzero(fate == number) for number in range(KEPT)]
    groups += [np.array(sorted(group)) for group in cluster_sets(routes)]
    assert report.admitted == len(passed)
    if len(passed):
        best = find_best(vectors, passed, groups)
        assert best.max() < report.bound
        assert report.highest == pytest.approx(best.max(), abs=1e-5)
    if chances:
        assert not (people[passed] < KEPT).any()
        assert report.known == pytest.approx(0.01 * len(passed))
    assert report.leaked <= report.leaked_most


def test_the_bound_is_the_quantile_of_right_rows_and_its_leak_is_measured():
    vectors, _, fate = build_rejects()
    kept = np.flatnonzero(fate >= 0)
    sums = sum_members(vectors, fate, KEPT)
    for leak in (0.01, 0.05, 0.2):
        report = find_bound(vectors, fate, fate, (fate >= 0).astype(float), sums, leak)
        best = np.empty(len(kept))
        for place, row in enumerate(kept):
            rest = sums.astype(np.float64)
            rest[fate[row]] -= vectors[row]
            best[place] = (vectors[row] @ scale(rest).T).max()
        assert (best < report.bound - 1e-6).mean() <= leak < (best <= report.bound + 1e-6).mean()
        assert report.leaked == pytest.approx(leak, abs=0.03)
        assert report.passing > 0.5 and report.tested == len(kept)
        capped = find_bound(vectors, fate, fate, (fate >= 0).astype(float), sums, leak, 0, 0.1)
        assert capped.bound == 0.1 and capped.leaked <= report.leaked


def test_again_the_same_and_the_order_of_rows_does_not_matter():
    vectors, people, fate = build_rejects(3)
    label = np.where(people < KEPT, people, -1)
    routes = route_rejects(vectors, fate, CUT, Evidence(label=label))
    again = route_rejects(vectors, fate, CUT, Evidence(label=label))
    for name in ("rows", "route", "reason", "score", "identity", "cluster"):
        assert np.array_equal(
            getattr(routes, name), getattr(again, name), equal_nan=name == "score"
        )
    order = np.random.default_rng(1).permutation(len(fate))
    mixed = route_rejects(vectors[order], fate[order], CUT, Evidence(label=label[order]))
    assert cluster_sets(mixed, order) == cluster_sets(routes)
    place = np.argsort(order[mixed.rows])
    assert np.array_equal(order[mixed.rows][place], routes.rows)
    assert np.array_equal(mixed.reason[place], routes.reason)
    assert np.array_equal(mixed.identity[place], routes.identity)
    np.testing.assert_allclose(mixed.score[place], routes.score, atol=1e-6)


def test_a_graph_of_all_rows_does_as_well():
    vectors, _, fate = build_rejects(4)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    near = np.argsort(-cosines, axis=1, kind="stable")[:, :16].astype(np.int32)
    scores = np.take_along_axis(cosines, near.astype(np.int64), axis=1)
    routes = route_rejects(vectors, fate, CUT, neighbours=near, scores=scores)
    assert cluster_sets(routes) == cluster_sets(route_rejects(vectors, fate, CUT)) != set()


def test_what_is_discarded_and_why():
    vectors, people, fate = build_rejects()
    rows = np.flatnonzero(people == KEPT)
    masks = {}
    for place, name in enumerate(("taken_out", "overlap", "duplicate", "low_quality")):
        masks[name] = np.zeros(len(fate), bool)
        masks[name][[rows[place], 0]] = True  # row 0 is kept: not asked
    vectors[rows[4]] = 0.0
    picture = np.arange(len(fate))
    lone = np.flatnonzero(people >= KEPT + ADDED)
    picture[lone[0]] = picture[0]
    picture[lone[2]] = picture[lone[1]]
    vectors[lone[2]] = vectors[lone[1]]
    routes = route_rejects(vectors, fate, CUT, Evidence(**masks, picture=picture))
    assert reason(routes, "decided by a person").tolist() == [rows[0]]
    assert reason(routes, "overlaps").tolist() == [rows[1]]
    assert reason(routes, "duplicate").tolist() == [rows[2]]
    assert reason(routes, "low quality").tolist() == [rows[3]]
    assert reason(routes, "no direction").tolist() == [rows[4]]
    assert reason(routes, "the very picture").tolist() == [lone[0], lone[2]]
    gone = routes.route == DISCARD
    assert gone.sum() == 7 and np.isnan(routes.score[gone]).all()
    assert 0 not in routes.rows


def test_the_grey_zone_is_held_back():
    vectors, people, fate = build_rejects()
    lone = np.flatnonzero(people >= KEPT + ADDED)
    plain = route_rejects(vectors, fate, CUT)
    passing = plain.rows[(plain.route == UNLABELLED) & np.isin(plain.rows, lone)][:3]
    own, other = np.where(fate >= 0, 0.99, 0.0), np.full(len(fate), 0.001)
    own[passing[0]], other[passing[1]], own[passing[2]] = 0.06, 0.06, 0.04
    owners = Owners(own, other, 1.0 - own - other, (0.9, 0.0, 0.1))
    label = np.where(fate >= 0, fate, 0)
    routes = route_rejects(vectors, fate, CUT, Evidence(label=label, owners=owners))
    at = np.searchsorted(routes.rows, passing)
    assert [REASONS[code] for code in routes.reason[at]] == [
        "may show its own identity after all",
        "may show another identity",
        "unlike every identity",
    ]
    known = Evidence(nearest=np.where(np.arange(len(fate)) == passing[2], 0.9, np.nan))
    routes = route_rejects(vectors, fate, CUT, known)
    assert passing[2] in reason(routes, "too alike an identity")


def test_no_chain_no_loose_group_no_copies_and_no_two_faces_of_a_photo():
    vectors, people, fate = build_rejects()
    # Each 45 degrees from the next: the ends are strangers.
    angles = np.deg2rad(45.0) * np.arange(3)
    chain = np.zeros((3, DIM))
    chain[:, 0], chain[:, 1] = np.cos(angles), np.sin(angles)
    common, alone = np.zeros((8, DIM)), np.eye(8, DIM, 10)
    common[:, 9] = 1.0
    loose = np.sqrt(0.54) * common + np.sqrt(0.46) * alone  # every pair at 0.54
    rng = np.random.default_rng(5)
    centre = scale(rng.standard_normal((2, DIM)))
    copies = np.repeat(draw(centre, [0], rng), 4, axis=0)
    photo_faces = draw(centre, [1] * 3, rng, spread=0.4)
    more = np.concatenate([chain, loose, copies, photo_faces]).astype(np.float32)
    vectors, n = np.concatenate([vectors, more]), len(fate)
    fate = np.append(fate, np.full(len(more), -1))
    photo = np.arange(len(fate))
    photo[-3:] = photo[-1]
    routes = route_rejects(vectors, fate, CUT, Evidence(photo=photo))
    cluster = dict(zip(routes.rows.tolist(), routes.cluster.tolist(), strict=True))
    assert len({cluster[n], cluster[n + 1], cluster[n + 2]} - {-1}) == 0
    assert set(range(n + 3, n + 11)) <= set(reason(routes, "in a group too loose").tolist())
    assert all(cluster[row] == -1 for row in range(n + 11, len(fate)))
    without = route_rejects(vectors, fate, CUT)
    assert frozenset(range(n + 15, n + 18)) in cluster_sets(without)
    assert count_different(vectors[n + 11 : n + 15]) == 1 and count_different(chain) == 3
    assert len(people) == n


def test_nothing_to_route_and_too_little_to_learn_from():
    vectors, people, _ = build_rejects()
    routes = route_rejects(vectors, people.astype(np.int64), CUT)
    assert not len(routes.rows) and routes.new == 0 and routes.disjointness.highest is None
    assert set(routes.count().values()) == {0}
    few = np.where(people < 10, people, -1)
    for fate in (few, np.full(len(people), -1)):
        routes = route_rejects(vectors, fate)
        assert routes.count()["review"] == len(routes.rows) == np.count_nonzero(fate < 0)
        assert routes.levels is None and routes.disjointness.bound == -1.0
        assert {REASONS[code] for code in routes.reason} == {
            "too little is known of the set to tell"
        }


def test_more_rejects_ask_for_more_likeness():
    vectors, _, fate = build_rejects()
    sums = sum_members(vectors, fate, KEPT)
    small, large = (find_levels(vectors, fate, sums, pool) for pool in (100, 100_000))
    assert large.join[0, 0] > small.join[0, 0] > small.edge
    assert np.array_equal(small.join, small.join.T) and np.isfinite(small.join).all()
    assert (small.own <= small.alike).all()
    # A row and a group of eight are more alike by chance than two groups, one person's are not.
    same = 1 / (1 + 0.8**2)
    assert small.join[3, 3] < same < large.join[0, 0] + 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fate": np.zeros(3, np.int64)}, "fate int64"),
        ({"leak": 0.0}, "leak must lie in"),
        ({"grey": 2.0}, "grey must lie in"),
        ({"cut": 2.0}, "cut must lie in"),
        ({"least_pictures": 1}, "least_pictures must lie in"),
        ({"evidence": Evidence(duplicate=np.zeros(3, bool))}, "duplicate must have shape"),
        ({"neighbours": np.zeros((594, 2), np.int32)}, "belong together"),
    ],
)
def test_bad_arguments_are_named(change, message):
    vectors, _, fate = build_rejects()
    with pytest.raises(InputError, match=message):
        route_rejects(**{"vectors": vectors, "fate": fate, **change})


def test_a_kept_row_without_direction_and_long_vectors_are_refused():
    vectors, _, fate = build_rejects()
    with pytest.raises(InputError, match="unit norm"):
        route_rejects(vectors * 2, fate)
    vectors[5] = 0.0
    with pytest.raises(InputError, match="row 5 is kept but has no direction"):
        route_rejects(vectors, fate)
