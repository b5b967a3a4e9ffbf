"""The verdict of a round on clusters on the sphere: flips, strangers, two people, two names."""

from __future__ import annotations

import numpy as np
import pytest

from data_tools.judgement import OUT, Targets, find_meetings, find_siblings, judge
from data_tools.owners import Owners
from facerec.checks import InputError

PEOPLE, EACH, DIM = 60, 12, 64


def draw(people=PEOPLE, each=EACH, seed=0, spread=0.8):
    """Return unit vectors of people, each row's person, and a function for strangers."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((people, DIM))
    person = np.repeat(np.arange(people), each)
    noise = spread * rng.standard_normal((len(person), DIM))
    vectors = centres[person] + noise
    return to_unit(vectors), person.astype(np.int64), rng


def to_unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def flip(labels, rng, share):
    flipped = labels.copy()
    rows = rng.choice(len(labels), round(share * len(labels)), replace=False)
    flipped[rows] = (labels[rows] + rng.integers(1, labels.max() + 1, len(rows))) % (
        labels.max() + 1
    )
    return flipped


@pytest.mark.parametrize("share", [0.1, 0.2, 0.4])
def test_flips_go_back_to_their_person(share):
    vectors, person, rng = draw()
    labels = flip(person, rng, share)
    verdict = judge(vectors, labels)
    assert (verdict.fate == person).mean() >= 0.97
    moved = (verdict.fate != labels) & (verdict.fate >= 0)
    assert (verdict.fate == person)[moved].mean() >= 0.98
    assert verdict.noise == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_strangers_go_out_and_nobody_else_does(share):
    vectors, person, rng = draw()
    extra = round(share / (1 - share) * len(person))
    vectors = np.concatenate([vectors, to_unit(rng.standard_normal((extra, DIM)))])
    labels = np.concatenate([person, rng.integers(0, PEOPLE, extra)])
    verdict = judge(vectors, labels)
    wrong = np.arange(len(labels)) >= len(person)
    assert ((verdict.fate == OUT) == wrong).mean() >= 0.98
    assert verdict.noise == pytest.approx(share, abs=0.03)


def test_right_labels_stay_as_they_are():
    vectors, person, _ = draw()
    verdict = judge(vectors, person)
    assert np.array_equal(verdict.fate, person)
    assert np.array_equal(verdict.merged, np.arange(PEOPLE)) and not len(verdict.origin)


def test_two_names_of_one_person_are_joined_and_two_people_of_one_name_are_split():
    vectors, person, rng = draw()
    labels = flip(person, rng, 0.1)
    labels[(person == 1) & (labels == 1)] = 0  # persons 0 and 1 share a folder
    second = np.flatnonzero((person == 2) & (labels == 2))[::2]
    labels[second] = 1  # and person 2 has two
    verdict = judge(vectors, labels)
    assert verdict.merged[1] == verdict.merged[2]
    assert (verdict.origin == 0).any()
    fate_of = [np.bincount(verdict.fate[person == who] + 1).argmax() - 1 for who in (0, 1, 2)]
    assert len(set(fate_of)) == 3
    ends = np.array([fate_of[who] if who < 3 else who for who in person])
    assert (verdict.fate == ends).mean() >= 0.97


def test_order_and_numbering_do_not_matter():
    vectors, person, rng = draw(people=30)
    labels = flip(person, rng, 0.2)
    one = judge(vectors, labels)
    order = rng.permutation(len(labels))
    renamed = rng.permutation(30)
    two = judge(vectors[order], renamed[labels][order])
    same = np.append(renamed, OUT)[one.fate][order]
    assert (two.fate == same).mean() >= 0.995
    again = judge(vectors, labels)
    assert np.array_equal(one.fate, again.fate) and np.array_equal(one.owners.own, again.owners.own)


def test_a_given_threshold_and_a_cap_are_obeyed():
    vectors, person, rng = draw(people=30)
    labels = flip(person, rng, 0.2)
    lenient = judge(vectors, labels, targets=Targets(threshold=-1.0, false_relabels=1e-9))
    assert not (lenient.fate == OUT).any()
    strict = judge(vectors, labels, targets=Targets(threshold=1.0, max_drop=0.25))
    gone = np.bincount(labels[strict.fate == OUT], minlength=30)
    assert (gone <= np.floor(0.25 * np.bincount(labels))).all() and gone.sum() > 0
    assert strict.capped.any()


def test_rows_without_label_have_no_fate():
    vectors, person, _ = draw(people=20)
    labels = person.copy()
    labels[::7] = -1
    verdict = judge(vectors, labels)
    assert (verdict.fate[::7] == OUT).all()
    assert np.array_equal(verdict.fate[labels >= 0], labels[labels >= 0])


def test_bad_targets_are_named():
    with pytest.raises(InputError, match="false_drops must lie in"):
        Targets(false_drops=0.0)
    with pytest.raises(InputError, match="max_drop must lie in"):
        Targets(max_drop=2.0)


def test_faces_of_one_picture_are_two_people():
    photos = np.array([0, 0, 1, 1, 2, 3])
    assigned = np.array([4, 2, 2, 2, 4, -1])
    assert find_meetings(photos, assigned) == [(2, 4)]
    chance = np.array([0.9, 0.8, 0.3, 0.7, 0.5, 0.5])
    owners = Owners(chance, np.zeros(6), 1 - chance, (1.0, 0.0, 0.0))
    fate = np.array([4, 2, 2, 2, 4, -1])
    assert find_siblings(photos, fate, owners).tolist() == [False, False, True, False, False, False]


def test_two_names_that_meet_in_a_picture_are_not_joined():
    vectors, person, _ = draw(people=40)
    labels = person.copy()
    second = np.flatnonzero(person == 2)[::2]
    labels[second] = 40  # person 2 under two names
    photos = np.arange(len(labels))
    joined = judge(vectors, labels, photos=photos)
    assert joined.merged[40] == 2
    photos[second[0]] = photos[np.flatnonzero(labels == 2)[0]]
    apart = judge(vectors, labels, photos=photos)
    assert apart.merged[40] == 40


def test_a_model_to_which_all_are_one_is_refused(monkeypatch):
    vectors, person, _ = draw(people=30)
    everyone = np.zeros(30, np.int64)
    monkeypatch.setattr("data_tools.judgement.join_identities", lambda *_: everyone.copy())
    with pytest.raises(InputError, match="does not tell these people apart: 29 of 30"):
        judge(vectors, person)
