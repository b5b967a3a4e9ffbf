import json

import numpy as np
import pytest

from facerec.checks import InputError
from facerec.gallery.gallery import Gallery
from facerec.models.weights import ModelInfo


def mix(*parts):
    vector = np.zeros(8)
    for axis, weight in parts:
        vector[axis] = weight
    return (vector / np.linalg.norm(vector)).astype(np.float32)[None]


def enrol(gallery, name, *axes_):
    vectors = np.eye(8, dtype=np.float32)[list(axes_)]
    gallery.enrol(name, vectors, np.full(len(vectors), 10, np.float32))


@pytest.fixture
def gallery(tmp_path):
    info = ModelInfo(name="toy", sha256="a" * 64, embedding_dim=8)
    with Gallery.create(tmp_path, info, threshold=0.5) as gallery:
        enrol(gallery, "bob", 1)
        enrol(gallery, "ann", 0, 2, 3)
        yield gallery


def test_a_person_is_ranked_once_by_the_best_picture(gallery):
    (answer,) = gallery.search(mix((0, 3), (1, 2), (2, 2)))
    assert answer.person == "ann"
    assert [(m.person, m.rank, m.accepted) for m in answer.matches] == [
        ("ann", 1, True),
        ("bob", 2, False),
    ]
    assert answer.matches[0].score == pytest.approx(3 / np.sqrt(17), abs=1e-6)
    assert answer.matches[1].score == pytest.approx(2 / np.sqrt(17), abs=1e-6)


def test_unknown_is_an_answer_that_lists_the_candidates(gallery):
    (answer,) = gallery.search(mix((7, 10), (1, 1)))
    assert answer.person is None
    assert [m.person for m in answer.matches] == ["bob", "ann"]
    assert not any(m.accepted for m in answer.matches)
    written = json.loads(json.dumps(answer.to_json()))
    assert written["person"] == "unknown" and written["known"] is False
    assert written["threshold"] == 0.5


def test_the_threshold_is_inclusive_and_can_be_given(gallery):
    probe = mix((1, 1), (7, 1))  # 0.7071 with bob
    assert gallery.search(probe)[0].person == "bob"
    assert gallery.search(probe, threshold=0.71)[0].person is None
    assert gallery.search(np.eye(8, dtype=np.float32)[1:2], threshold=1)[0].person == "bob"
    with pytest.raises(InputError, match="threshold"):
        gallery.search(probe, threshold=1.5)


def test_equal_scores_are_in_the_order_of_enrolment(gallery):
    (answer,) = gallery.search(mix((0, 1), (1, 1)))
    assert [m.person for m in answer.matches] == ["bob", "ann"]
    assert answer.matches[0].score == answer.matches[1].score


def test_an_empty_gallery_knows_nobody(tmp_path):
    info = ModelInfo(name="toy", sha256="a" * 64, embedding_dim=8)
    with Gallery.create(tmp_path / "empty", info) as gallery:
        (answer,) = gallery.search(mix((0, 1)))
        assert answer.person is None and answer.matches == []
        assert answer.to_json()["score"] is None
        assert gallery.search(np.zeros((0, 8), np.float32)) == []


def test_what_another_process_enrols_is_found_at_once(gallery):
    probe = np.eye(8, dtype=np.float32)[5:6]
    assert gallery.search(probe)[0].person is None
    with Gallery.open(gallery.store.path.parent) as other:
        enrol(other, "cem", 5)
    assert gallery.search(probe)[0].person == "cem"


def test_top_limits_the_candidates(gallery):
    assert len(gallery.search(mix((0, 1)), top=1)[0].matches) == 1
    assert len(gallery.search(mix((0, 1)), top=10)[0].matches) == 2
