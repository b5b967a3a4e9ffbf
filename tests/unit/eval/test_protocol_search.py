import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol_faces import coarse, cosine

from eval import protocol_search as module
from eval.protocol_search import search_gallery
from facerec.checks import InputError


def brute(probe, person, gallery, owners, unit):
    """Rank and score of one's own person and the best score, by sorting everything."""
    if unit == "person":
        order = list(dict.fromkeys(owners))
        units = [
            (max(cosine(probe, g) for g, o in zip(gallery, owners, strict=True) if o == name), name)
            for name in order
        ]
    else:
        units = [(cosine(probe, g), o) for g, o in zip(gallery, owners, strict=True)]
    found = [u for u in units if u[0] > -np.inf]
    # sorted() is stable: equal scores stay in the order of the gallery.
    ranked = sorted(found, key=lambda u: -u[0])
    best = ranked[0][0] if ranked else -np.inf
    for rank, (score, name) in enumerate(ranked, start=1):
        if name == person:
            return rank, score, best
    return 0, -np.inf, best


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["person", "row"]), st.sampled_from([1, 2, 8192]))
def test_search_equals_brute_force_ties_and_failures_included(seed, unit, tile):
    rng = np.random.default_rng(seed)
    gallery, owners = coarse(rng, 9), rng.integers(4, size=9)
    probes, people = coarse(rng, 7), rng.integers(6, size=7)
    before = module._TILE, module._MOST_SCORES
    module._TILE, module._MOST_SCORES = tile, 10
    try:
        found = search_gallery(probes, people, gallery, owners, unit=unit)
    finally:
        module._TILE, module._MOST_SCORES = before
    wanted = [
        brute(p, person, gallery, owners.tolist(), unit)
        for p, person in zip(probes, people.tolist(), strict=True)
    ]
    mated = np.isin(people, owners)
    assert found.ranks.tolist() == [w[0] for w, m in zip(wanted, mated, strict=True) if m]
    assert found.own.tolist() == [w[1] for w, m in zip(wanted, mated, strict=True) if m]
    assert found.best.tolist() == [w[2] for w, m in zip(wanted, mated, strict=True) if not m]
    assert found.mated_people.tolist() == people[mated].tolist()
    acquired = np.any(probes != 0, axis=1)
    assert found.failed_mated == (mated & ~acquired).sum()
    assert found.failed_non_mated == (~mated & ~acquired).sum()
    enrolled = np.any(gallery != 0, axis=1)
    assert found.people == np.unique(owners[enrolled]).size
    assert found.failed_people == np.unique(owners).size - found.people
    assert (found.rows, found.failed_rows) == (enrolled.sum(), (~enrolled).sum())


def test_a_person_that_failed_to_enrol_is_missed_not_forgotten():
    x, zero = [1.0, 0.0], [0.0, 0.0]
    gallery = np.array([x, zero], np.float32)
    found = search_gallery(np.array([x, x], np.float32), ["a", "b"], gallery, ["a", "b"])
    assert found.ranks.tolist() == [1, 0]
    assert found.own.tolist() == [1, -np.inf]
    plain = found.to_json()
    assert (plain["people"], plain["failed_to_enrol"], plain["mated_probes"]) == (1, 1, 2)


def test_a_norm_of_zero_is_a_failure():
    x = np.array([[1.0, 0.0]], np.float32)
    found = search_gallery(x, [1], x, [1], probe_norms=[0])
    assert (found.ranks[0], found.failed_mated) == (0, 1)
    found = search_gallery(x, [2], x, [1], gallery_norms=[0])
    assert (found.best[0], found.people, found.failed_people) == (-np.inf, 0, 1)


def test_a_candidate_list_cuts_scores_off():
    gallery = np.eye(3, dtype=np.float32)
    probe = np.array([[0.8, 0.6, 0.0]], np.float32)
    found = search_gallery(probe, [1], gallery, [0, 1, 2])
    assert found.ranks.tolist() == [2]
    assert found.scores(2).own.tolist() == [np.float32(0.6)]
    assert found.scores(1).own.tolist() == [-np.inf]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probes": np.ones((1, 3), np.float32) / 3**0.5}, "3 dimensions .* two models"),
        ({"probe_people": [1, 2]}, "probe_people must be"),
        ({"probe_people": ["a"]}, "of one kind"),
        ({"gallery": np.full((1, 2), np.nan, np.float32)}, "embeddings of gallery must be finite"),
        ({"unit": "face"}, "unit must be one of"),
    ],
)
def test_bad_input_is_named(change, message):
    x = np.array([[1.0, 0.0]], np.float32)
    given = {"probes": x, "probe_people": [1], "gallery": x, "gallery_people": [1]} | change
    with pytest.raises(InputError, match=message):
        search_gallery(**given)
