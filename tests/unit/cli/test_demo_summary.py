"""The demo's own figures on cases counted by hand."""

from dataclasses import fields

import pytest

from facerec.cli.demo.sets import DemoSet
from facerec.cli.demo.summary import count_answers, find_point, match_tracks


def build_set(listed, seen=()):
    blank = dict.fromkeys((field.name for field in fields(DemoSet)), "")
    return DemoSet(**{**blank, "listed": listed, "seen": list(seen), "synthetic": True})


def walk(person, x, frames=range(10), y=0):
    return {"person": person, "boxes": [[f, x, y, x + 100, y + 100] for f in frames]}


def track(box, person, first=0, last=9):
    return {
        "track": 1,
        "first_frame": first,
        "last_frame": last,
        "first_s": 0.0,
        "last_s": 1.0,
        "frames": 10,
        "dropped": [],
        "person": person,
        "score": 0.5,
        "median_box": box,
    }


@pytest.mark.parametrize(
    ("box", "answer", "truth", "right"),
    [
        ([30, 30, 70, 70], "ann", "ann", True),
        ([30, 30, 70, 70], "unknown", "ann", False),  # missed
        ([330, 30, 370, 70], "unknown", "bob", True),  # a stranger, rejected
        ([330, 30, 370, 70], "ann", "bob", False),  # a stranger, accepted
        ([190, 30, 210, 70], "unknown", "", True),  # nobody walks there
        ([99.5, 50, 99.5, 50], "ann", "ann", True),  # just within half a width
        ([100, 50, 100, 50], "ann", "", False),  # just without
    ],
)
def test_a_track_belongs_to_the_walk_it_lies_in(box, answer, truth, right):
    data = build_set(["ann"], [walk("ann", 0), walk("bob", 300)])
    row = match_tracks(data, [track(box, answer)])[0]
    assert (row["truth"], row["right"]) == (truth, right)


def test_only_the_frames_of_the_track_count():
    data = build_set(["ann", "bob"], [walk("ann", 0, range(10)), walk("bob", 0, range(10, 20))])
    early, late = match_tracks(
        data, [track([0, 0, 100, 100], "ann"), track([0, 0, 100, 100], "ann", 10, 19)]
    )
    assert (early["truth"], early["right"]) == ("ann", True)
    assert (late["truth"], late["right"]) == ("bob", False)


def test_no_track_gives_no_row():
    assert match_tracks(build_set(["ann"], [walk("ann", 0)]), []) == []


def test_answers_are_counted_by_whether_the_person_is_listed():
    answers = [
        {"image": "ann/1.jpg", "known": True, "person": "ann"},
        {"image": "ann/2.jpg", "known": True, "person": "bob"},  # somebody else: missed
        {"image": "ann/3.jpg", "known": False, "person": "unknown"},  # missed
        {"image": "bob/1.jpg", "reason": "no face"},  # missed: nothing to compare
        {"image": "eve/1.jpg", "known": True, "person": "ann"},  # accepted
        {"image": "eve/2.jpg", "known": False, "person": "unknown"},
        {"image": "eve/3.jpg", "reason": "no face"},
    ]
    assert count_answers(build_set(["ann", "bob"]), answers) == {
        "mated": 4,
        "missed": 3,
        "fnir": 3 / 4,
        "non_mated": 3,
        "accepted": 1,
        "fpir": 1 / 3,
    }


def test_no_probe_of_a_kind_gives_no_rate():
    empty = count_answers(build_set(["ann"]), [])
    assert (empty["fnir"], empty["fpir"]) == (None, None)


def test_the_point_is_that_of_far_one_in_a_thousand():
    points = [{"far": far, "tar": tar} for far, tar in ((1e-2, 0.9), (1e-3, 0.8), (1e-4, 0.7))]
    assert find_point({"all_pairs": {"tar_at_far": points}})["tar"] == 0.8
