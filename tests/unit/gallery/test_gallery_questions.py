import dataclasses

import numpy as np
import pytest
from gallery_cases import faces, ones, toy

from facerec.checks import InputError
from facerec.gallery.samples import Origin


def near(vector, cosine, seed=9):
    """A unit vector with this cosine to another."""
    other = faces(1, seed)[0].astype(np.float64)
    other -= (other @ vector) * vector
    other /= np.linalg.norm(other)
    return (cosine * vector + np.sqrt(1 - cosine**2) * other).astype(np.float32)[None]


@pytest.fixture
def gallery(tmp_path):
    with toy(tmp_path, threshold=0.5) as gallery:
        gallery.enrol_many(["ann", "bob", "cem"], faces(3), ones(3))
        yield gallery


def test_an_investigation_accepts_nobody_and_says_so(gallery):
    (answer,) = gallery.search(faces(1), investigate=True)
    assert (answer.person, answer.threshold, answer.mode) == (None, None, "investigation")
    assert answer.matches[0].person == "ann" and not any(m.accepted for m in answer.matches)
    assert gallery.list_audit()[-1].details["mode"] == "investigation"
    with pytest.raises(InputError, match="takes top of at least 1 and no threshold"):
        gallery.search(faces(1), threshold=0.3, investigate=True)


def test_a_margin_tells_how_alone_the_best_is(gallery):
    (answer,) = gallery.search(faces(1))
    assert answer.margin == pytest.approx(answer.matches[0].score - answer.matches[1].score)
    assert gallery.search(faces(1), top=1)[0].margin is None


def test_among_some_people_only(gallery):
    (answer,) = gallery.search(faces(1), people=["bob", "cem"])
    assert answer.person is None and {m.person for m in answer.matches} == {"bob", "cem"}
    assert len(gallery.list_audit()[-1].details["among"]) == 2
    with pytest.raises(InputError, match="nobody called 'eve'"):
        gallery.search(faces(1), people=["eve"])


def test_a_known_stranger_is_never_an_answer(gallery):
    gallery.enrol("the courier", faces(1, seed=5), ones(1), kind="stranger")
    probe = near(faces(1, seed=5)[0], 0.9)
    (answer,) = gallery.search(probe)
    assert answer.person is None and answer.note == "known stranger"
    assert "the courier" not in {m.person for m in answer.matches}
    (stranger,) = [p for p in gallery.people() if p.kind == "stranger"]
    candidates = gallery.list_audit()[-1].details["candidates"]
    assert candidates[0][0::2] == [stranger.uid, "stranger"] and len(candidates) == 4
    assert gallery.search(faces(1))[0].person == "ann"  # the others are found as before
    with pytest.raises(InputError, match="is in the collection as a stranger"):
        gallery.enrol("the courier", faces(1, seed=6), ones(1))
    assert gallery.verify_audit() == []


def test_one_to_one(gallery):
    yes, no = gallery.compare("ann", faces(2))
    assert yes.accepted and not no.accepted and yes.threshold == 0.5 and yes.fmr is None
    assert yes.score == pytest.approx(1, abs=1e-6)
    assert gallery.list_audit()[-1].action == "compare"
    with pytest.raises(InputError, match="nobody called 'eve'"):
        gallery.compare("eve", faces(1))


def test_a_renamed_person_is_the_same_person(gallery):
    gallery.rename("ann", "anna")
    assert gallery.search(faces(1))[0].person == "anna"
    assert gallery.verify_audit() == []
    with pytest.raises(InputError, match="somebody called 'bob'"):
        gallery.rename("anna", "bob")


def test_what_is_known_of_a_picture_is_kept(gallery):
    origin = Origin("document", "passport", "2019-05", print_scan=True)
    gallery.enrol("dee", faces(1, seed=4), ones(1), origin=origin, qualities=[0.25], sources=["d"])
    (sample,) = gallery.samples("dee")
    kept = dataclasses.asdict(sample)
    told = ("source_class", "document_class", "captured", "print_scan")
    assert [kept[name] for name in told] == ["document", "passport", "2019-05", True]
    assert (kept["quality"], kept["source"]) == (0.25, "d")
    for bad in ({"source_class": "video"}, {"captured": "May 2019"}, {"captured": "2019-13"}):
        with pytest.raises(InputError, match=r"source class|capture date"):
            Origin(**bad)
    with pytest.raises(InputError, match="does not take this"):
        gallery.enrol("dee", faces(1, seed=4), ones(1), colour="red")


def test_many_people_are_all_there_or_nobody_is(gallery):
    head = gallery.audit_head()
    bad = faces(3, seed=8)
    bad[2] = 0
    with pytest.raises(InputError, match="unit norm"):
        gallery.enrol_many(["x", "y", "z"], bad, ones(3))
    with pytest.raises(InputError, match="people must have length 3, got 2"):
        gallery.enrol_many(["x", "y"], faces(3, seed=8), ones(3))
    assert gallery.audit_head() == head and len(gallery.people()) == 3


@pytest.mark.parametrize("fusion", ["mean", "trimmed", "quality"])
def test_a_template_stands_for_all_samples(tmp_path, fusion):
    base = faces(1, seed=2)[0]
    several = np.concatenate([near(base, 0.8, seed) for seed in range(20, 24)])
    with toy(tmp_path / "g", fusion=fusion, threshold=0.5) as gallery:
        gallery.enrol("ann", several[:2], ones(2))
        gallery.enrol("ann", several[2:], ones(2))
        (answer,) = gallery.search(base[None])
        assert answer.person == "ann" and len(answer.matches) == 1
        assert answer.matches[0].score > (several @ base).max()  # better than any of them
        assert gallery.verify_audit() == []


def test_two_collections_know_different_people(tmp_path):
    with toy(tmp_path) as main, toy(tmp_path, collection="staff") as staff:
        main.enrol("ann", faces(1), ones(1))
        staff.enrol("bob", faces(1), ones(1))  # the same picture is nobody's business there
        assert main.search(faces(1))[0].person == "ann"
        assert staff.search(faces(1))[0].person == "bob"
        assert main.verify_audit() == staff.verify_audit() == []
        with pytest.raises(InputError, match="with a collection 'staff' already"):
            toy(tmp_path, collection="staff")
