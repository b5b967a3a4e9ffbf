"""Bad input of documents and tracks, one sentence each; halves; overlaps."""

import numpy as np
import pytest
from surveillance_cases import draw_people, draw_sets, unit

from eval.doc2surv_checks import find_overlaps, refuse_overlaps
from eval.doc2surv_data import build_documents, build_tracks, split_halves
from eval.doc2surv_settings import Doc2SurvSettings
from facerec.checks import InputError

PEOPLE = draw_people(4)


def spoil(vectors, value):
    spoiled = vectors.copy()
    spoiled[1, 0] = value
    return spoiled


@pytest.mark.parametrize(
    ("vectors", "people", "more", "message"),
    [
        (spoil(PEOPLE, np.nan), "abcd", {}, "must be finite, but row 1 holds NaN"),
        (PEOPLE * 2, "abcd", {}, "must have unit norm or be zero"),
        (PEOPLE, "abc", {}, "must be 4, one a row of embeddings, got 3"),
        (PEOPLE, ["a", "", "c", "d"], {}, "'document 1' has no person"),
        (PEOPLE, "abcd", {"names": "xxyz"}, "document 'x' is given twice"),
        (PEOPLE, "abcd", {"halves": ["dev", "train", "", ""]}, "a half must be dev, test or empty"),
        (PEOPLE, "abcd", {"years": [1, 2, 3, 4]}, "a year must lie in"),
        (PEOPLE, "abcd", {"years": [2020]}, r"must be \(4,\) numbers"),
        (PEOPLE, "abcd", {"failed": {"document 0": "no face"}}, "has an embedding, but is named"),
        (PEOPLE, "abcd", {"failed": {"none": "no face"}}, "is no document of the set"),
    ],
)
def test_bad_documents(vectors, people, more, message):
    with pytest.raises(InputError, match=message):
        build_documents(vectors, list(people), **more)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"sizes_px": [3, 0, 1, 1]}, "sizes_px must be positive"),
        ({"names": "aabc"}, "track 'a' is given twice"),
        ({"hashes": [["f"]]}, "one set a track, got 1"),
        ({"qualities": [np.inf] * 4}, "numbers or NaN"),
    ],
)
def test_bad_tracks(more, message):
    with pytest.raises(InputError, match=message):
        build_tracks(PEOPLE, list("abcd"), **more)


def test_a_failure_stays_as_a_row_with_its_reason():
    vectors = PEOPLE.copy()
    vectors[2] = 0
    documents = build_documents(vectors, list("abcd"), failed={"document 2": "no face"})
    assert documents.made.tolist() == [True, True, False, True]
    assert documents.reasons.tolist() == ["", "", "no face", ""]
    assert build_tracks(vectors, list("abcd")).reasons[2] == "no embedding"


def test_unequal_dimensions_and_people_in_both_halves_are_refused():
    documents, tracks = draw_sets(12, 4)
    with pytest.raises(InputError, match="24 dimensions and tracks 8"):
        split_halves(documents, build_tracks(draw_people(3, dim=8), list("abc")))
    halves = ["dev"] * 6 + ["test"] * 6
    documents, tracks = draw_sets(
        12, 4, documents={"halves": halves}, tracks={"halves": ["dev", "test"] * 24}
    )
    with pytest.raises(InputError, match="'p0000' is in both halves"):
        split_halves(documents, tracks)
    documents, tracks = draw_sets(12, 4, documents={"halves": [*halves[:-1], ""]})
    with pytest.raises(InputError, match="halves must be given for every row or for none"):
        split_halves(documents, tracks)
    documents, tracks = draw_sets(
        12, 4, documents={"halves": ["dev"] * 12}, tracks={"halves": ["dev"] * 48}
    )
    with pytest.raises(InputError, match="the test half has no document"):
        split_halves(documents, tracks)


def test_halves_are_drawn_by_person_whatever_the_order():
    documents, tracks = draw_sets(20, 10)
    split = split_halves(documents, tracks, seed=3)
    half_of = dict(zip(documents.people.tolist(), split.documents.tolist(), strict=True))
    for person, half in zip(tracks.people.tolist(), split.tracks.tolist(), strict=True):
        assert half_of.setdefault(person, half) == half
    assert list(half_of.values())[:20].count("test") == 10
    assert list(half_of.values())[20:].count("test") == 5
    order = np.random.default_rng(0).permutation(20)
    turned = build_documents(documents.vectors[order], documents.people[order])
    again = split_halves(turned, tracks, seed=3)
    assert again.documents.tolist() == [half_of[p] for p in turned.people.tolist()]
    assert split_halves(documents, tracks, seed=4).documents.tolist() != split.documents.tolist()


def test_unnamed_tracks_of_a_video_go_to_one_half():
    documents, _ = draw_sets(8, 0)
    tracks = build_tracks(draw_people(12, 5), [""] * 12, videos=[f"v{i // 3}" for i in range(12)])
    split = split_halves(documents, tracks)
    assert all(np.unique(split.tracks[i : i + 3]).size == 1 for i in range(0, 12, 3))
    assert np.unique(tracks.subjects()).size == 12


def test_overlaps_by_file_and_by_likeness_are_found_and_refused():
    people = draw_people(3)
    documents = build_documents(people, list("abc"), hashes=["1", "2", "1"])
    tracks = build_tracks(
        unit(np.concatenate([people[1:2] + 1e-3, -people])), list("babc"), hashes=[(), "1", (), "9"]
    )
    found = find_overlaps(documents, tracks)
    assert [(one.first, one.second, one.same_file) for one in found] == [
        ("document 0", "document 2", True),
        ("document 0", "track 1", True),
        ("document 1", "track 0", False),
    ]
    with pytest.raises(InputError, match="'document 0' and 'document 2' are the same file, and 2"):
        refuse_overlaps(found, False)
    with pytest.raises(InputError, match="a near-duplicate"):
        refuse_overlaps(found[2:], False)
    refuse_overlaps(found, True)
    # Two documents of one person may be alike.
    twice = build_documents(people[[0, 0]], list("aa"))
    assert not find_overlaps(twice, build_tracks(-people, list("abc")))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"fmrs": (), "fpirs": ()}, "at least one target"),
        ({"fmrs": (0.9,)}, "target in fmrs must lie in"),
        ({"fpirs": (0.01, 0.01)}, "fpirs must be finite and differ"),
        ({"rank": 0}, "rank must lie in"),
        ({"sizes": (0,)}, "gallery size must lie in"),
        ({"fpir_probes": "all"}, "fpir_probes must be one of"),
        ({"resamples": 10}, "resamples must lie in"),
        ({"size_edges_px": (20, 10)}, "size_edges_px must be finite and differ, rising"),
    ],
)
def test_bad_settings(more, message):
    with pytest.raises(InputError, match=message):
        Doc2SurvSettings(**more)
