"""Overlap with an evaluation set: names, centres with a tail of strangers, and pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.duplicate_cut import CopyCut
from data_tools.overlap import FaceSet, decide_overlap, find_overlap
from data_tools.overlap_names import MIDDLE_NAME, compare_names, normalise_names
from data_tools.stranger_tails import FALLBACK_CENTRE, SIZES, StrangerTail, fit_tails
from facerec.checks import InputError

CUT = CopyCut(0.97, 3, 0.6, 0, 0, "given")
DIM = 96


def scale(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def draw_centres(count, seed):
    return scale(np.random.default_rng(seed).standard_normal((count, DIM)))


def draw_faces(centres, rows, seed, spread=0.8):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(centres)), rows)
    noise = rng.standard_normal((len(labels), DIM)) / np.sqrt(DIM)
    return scale(centres[labels] + spread * noise), labels.astype(np.int64)


def make_sets(shared=10, seed=0):
    """Return 200 own and 80 evaluation identities, of which the first `shared` are the same."""
    own, other = draw_centres(200, seed), draw_centres(80, seed + 1)
    other[:shared] = own[:shared]
    rows = np.random.default_rng(seed).integers(1, 8, 80)
    return FaceSet(*draw_faces(own, 10, seed + 2)), FaceSet(*draw_faces(other, rows, seed + 3))


@pytest.mark.parametrize("seed", range(4))
def test_the_same_people_are_found_by_their_centres(seed):
    own, evaluation = make_sets(seed=seed)
    overlap = find_overlap(own, evaluation, CUT)
    identities, rows = decide_overlap(overlap)
    assert identities[:10].sum() >= 9
    assert identities[10:].sum() <= 3
    assert not rows.any()
    assert all(tail.supported for tail in overlap.tails)
    assert overlap.comparisons == 200 * 80


def test_more_false_matches_find_more_and_less_fewer():
    overlap = find_overlap(*make_sets(), CUT)
    limits = [overlap.find_limits(false) for false in (0.01, 1, 100)]
    assert all(a > b > c for a, b, c in zip(*limits, strict=True))
    found = [decide_overlap(overlap, expected_false=false)[0] for false in (0.01, 1, 100)]
    assert not (found[0] & ~found[1]).any() and not (found[1] & ~found[2]).any()
    with pytest.raises(InputError, match="expected_false must lie in"):
        overlap.find_limits(1000)


def test_scores_of_listed_pairs_are_cosines_of_centres():
    own, evaluation = make_sets()
    overlap = find_overlap(own, evaluation, CUT)

    def centre(faces, label):
        return scale(faces.vectors[faces.labels == label].sum(axis=0, keepdims=True))[0]

    assert len(overlap.pairs) >= 10
    for (mine, theirs), found, size in zip(
        overlap.pairs, overlap.centres, overlap.sizes, strict=True
    ):
        assert found == pytest.approx(
            float(centre(own, mine) @ centre(evaluation, theirs)), abs=1e-5
        )
        members = int((evaluation.labels == theirs).sum())
        assert SIZES[size] <= members and (size == 2 or members < SIZES[size + 1])


def test_expected_false_matches_are_about_those_of_strangers():
    own = FaceSet(*draw_faces(draw_centres(300, 5), 6, 6))
    strangers = FaceSet(*draw_faces(draw_centres(2000, 7), 1, 8))
    overlap = find_overlap(own, strangers, CUT)
    matched = overlap.centres >= np.array(overlap.find_limits(50))[overlap.sizes]
    assert 15 <= matched.sum() <= 150
    assert (overlap.centres >= np.array(overlap.find_limits(0.5))[overlap.sizes]).sum() <= 6


def test_names_count_only_with_a_centre_that_is_not_a_strangers():
    own, evaluation = make_sets(shared=2)
    names = [f"Person Number{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(200)]
    others = [f"Somebody Else{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(80)]
    others[1], others[50] = names[1].replace(" ", "_").upper(), names[60]
    # Identity 1 is hard to tell: its evaluation pictures are far off.
    vectors = evaluation.vectors.copy()
    hard = evaluation.labels == 1
    vectors[hard] = scale(vectors[hard] + 1.6 * draw_centres(1, 77))
    own = FaceSet(own.vectors, own.labels, names)
    evaluation = FaceSet(vectors, evaluation.labels, others)
    overlap = find_overlap(own, evaluation, CUT)
    place = overlap.pairs.tolist().index([1, 1])
    limit = overlap.find_limits()[overlap.sizes[place]]
    assert limit / 2 < overlap.centres[place] < limit
    identities, _ = decide_overlap(overlap)
    assert identities[[0, 1]].all()
    stranger = overlap.pairs.tolist().index([60, 50])
    assert overlap.names[stranger] == 1 and not identities[60]
    # A word more in the name is as much of a hint; it too needs a centre above halfway.
    longer = [f"set {name}" for name in others]
    overlap = find_overlap(own, FaceSet(vectors, evaluation.labels, longer), CUT)
    assert overlap.names[overlap.pairs.tolist().index([1, 1])] == MIDDLE_NAME
    identities, _ = decide_overlap(overlap)
    assert identities[[0, 1]].all() and not identities[60]


def test_an_identity_without_pictures_goes_by_its_name():
    vectors, labels = draw_faces(draw_centres(2, 0), 3, 1)
    own = FaceSet(vectors, labels, ["Ann Other", "Jon Doe", "Ada Lovelace"])
    evaluation = FaceSet(vectors[:0], labels[:0], ["ada_lovelace", "Jon Dough"])
    overlap = find_overlap(own, evaluation, CUT, least_name=0.7)
    assert overlap.pairs.tolist() == [[1, 1], [2, 0]]
    assert np.isnan(overlap.centres).all() and overlap.names[1] == 1 > overlap.names[0]
    assert decide_overlap(overlap)[0].tolist() == [False, False, True]


def test_pictures_are_matched_by_bytes_hash_mirror_and_cosine():
    own, evaluation = make_sets(shared=0)
    rng = np.random.default_rng(4)
    vectors = own.vectors.copy()
    n, m = len(vectors), len(evaluation.vectors)
    hashes, mirrors = rng.integers(1, 2**63, (2, n), dtype=np.uint64)
    theirs = rng.integers(1, 2**63, m, dtype=np.uint64)
    sha, their_sha = np.arange(1, n + 1), np.arange(10**6, 10**6 + m)
    rows = np.array([3, 14, 25, 36, 47])
    shown = np.array([9, 8, 7, 6, 5])
    blurred = evaluation.vectors[shown] + 0.5 * rng.standard_normal((5, DIM)) / np.sqrt(DIM)
    vectors[rows[:4]] = scale(blurred)[:4]
    vectors[47] = evaluation.vectors[5]
    sha[3] = their_sha[9]
    hashes[14] = theirs[8] ^ np.uint64(0b101)
    mirrors[25] = theirs[7]
    sha[100], their_sha[20], hashes[101] = 0, 0, theirs[21]  # unknown bytes, a stranger's hash
    own = FaceSet(vectors, own.labels, (), hashes, mirrors, sha)
    overlap = find_overlap(
        own, FaceSet(evaluation.vectors, evaluation.labels, (), theirs, None, their_sha), CUT
    )
    assert overlap.kind[rows].tolist() == [1, 2, 2, 0, 3]
    assert overlap.row[rows].tolist() == [9, 8, 7, -1, 5]
    assert np.flatnonzero(decide_overlap(overlap)[1]).tolist() == [3, 14, 25, 47]
    listed = {
        tuple(pair): count
        for pair, count in zip(overlap.pairs.tolist(), overlap.pictures, strict=True)
    }
    for row, other in zip(rows[[0, 1, 2, 4]], shown[[0, 1, 2, 4]], strict=True):
        assert listed[int(own.labels[row]), int(evaluation.labels[other])] >= 1
    assert overlap.pictures.sum() == 4


def test_a_given_search_counts_instead_of_our_own():
    own, evaluation = make_sets()
    nearest = (
        np.full(len(own.vectors), -1, np.int32),
        np.full(len(own.vectors), -np.inf, np.float32),
    )
    exact = own.vectors @ evaluation.vectors.T
    loose = CopyCut(0.7, -1, 0.6, 0, 0, "given")
    best = exact.argmax(axis=1).astype(np.int32), exact.max(axis=1)
    whole = find_overlap(own, evaluation, loose)
    assert (whole.row >= 0).any()
    assert np.array_equal(find_overlap(own, evaluation, loose, nearest=best).row, whole.row)
    assert not (find_overlap(own, evaluation, loose, nearest=nearest).row >= 0).any()


def test_too_few_identities_are_said_to_be_too_few():
    own = FaceSet(*draw_faces(draw_centres(5, 0), 4, 1))
    overlap = find_overlap(own, own, CUT)
    assert not any(tail.supported for tail in overlap.tails)
    assert "too few" in overlap.tails[0].reason
    assert overlap.find_limits() == (FALLBACK_CENTRE,) * len(SIZES)
    assert decide_overlap(overlap)[0].all()
    assert (overlap.row == np.arange(20)).all()


def test_tails_of_normal_scores_are_carried_on_rightly():
    own = draw_faces(draw_centres(2000, 3), 2, 4)
    tail = fit_tails(*own)[0]
    exact = own[0][::2] @ scale(own[0][::2] + own[0][1::2]).T
    np.fill_diagonal(exact, -1)
    for rate in (1e-3, 1e-5):
        assert np.mean(exact >= tail.find_threshold(rate)) == pytest.approx(rate, rel=0.7)
    # Of 96 dimensions a cosine is nearly normal with a spread of 96 ** -0.5: 6.0 times at 1e-9.
    assert tail.find_threshold(1e-9) == pytest.approx(6.0 * DIM**-0.5, rel=0.12)
    assert tail.find_recall(-1) == 1 and tail.find_recall(1) == 0


def test_thresholds_of_straight_and_bent_tails():
    straight = StrangerTail(1, 0.0, 0.2, 50.0, 0.0, 10**6, np.zeros(0), True, "")
    assert straight.find_threshold(1e-2) == 0.2
    assert straight.find_threshold(1e-4) == pytest.approx(0.2 + np.log(100) / 50)
    assert straight.find_threshold(1e-40) == 1.0
    bent = StrangerTail(1, 0.0, 0.2, 50.0, 80.0, 10**6, np.zeros(0), True, "")
    beyond = bent.find_threshold(1e-6) - 0.2
    assert 50 * beyond + 80 * beyond**2 == pytest.approx(np.log(1e4))
    assert bent.find_recall(0.5) is None and bent.find_halfway(0.5) == 0.25


def test_names_are_spelled_alike():
    names = ["Penélope_Cruz", "BUSH, George", "Björk (singer)", "Łukasz  Żak", "Ana_Sá_0001", "(2)"]
    assert normalise_names(names) == [
        "cruz penelope",
        "bush george",
        "bjork",
        "lukasz zak",
        "ana sa",
        "2",
    ]
    # A number stays where it is all that tells the names of a set apart.
    assert normalise_names(["id_0001", "id_0002"]) == ["0001 id", "0002 id"]


def test_like_names_are_listed_with_a_score():
    own = ["George W Bush", "Jon Smythe", "n000001", "n000002", "Xu Bo", "", "Ibrahimovic"]
    theirs = ["George_Bush", "John Smythe", "n000002", "Xu Bi", "", "Ibrahimovich"]
    found = compare_names(own, theirs, least=0.8)
    assert found.pairs.tolist() == [[0, 0], [1, 1], [3, 2], [6, 5]]
    assert found.scores[2] == 1 and (found.scores[[0, 1, 3]] < 1).all()
    exact = compare_names(own, theirs, least=1)
    assert exact.pairs.tolist() == [[3, 2]]
    assert compare_names([], theirs).pairs.shape == (0, 2)


@settings(max_examples=40)
@given(st.lists(st.text(max_size=12), max_size=6, unique=True))
def test_every_name_with_letters_is_its_own_double(names):
    found = compare_names(names, names)
    kept = [number for number, name in enumerate(normalise_names(names)) if name]
    same = {
        tuple(pair)
        for pair, score in zip(found.pairs.tolist(), found.scores, strict=True)
        if score == 1
    }
    assert {(number, number) for number in kept} <= same


def test_bad_input_is_named():
    own, evaluation = make_sets()
    with pytest.raises(InputError, match="evaluation embeddings must have 96 dimensions"):
        find_overlap(own, FaceSet(evaluation.vectors[:, :8], evaluation.labels), CUT)
    with pytest.raises(InputError, match="own names must be one an identity, 200, got 3"):
        find_overlap(FaceSet(own.vectors, own.labels, ["a", "b", "c"]), evaluation, CUT)
    with pytest.raises(InputError, match="own hashes must have shape"):
        find_overlap(FaceSet(own.vectors, own.labels, (), np.zeros(3, np.uint64)), evaluation, CUT)
