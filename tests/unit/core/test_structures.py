import numpy as np
import pytest

from facerec.checks import InputError
from facerec.registry import Registry
from facerec.structures import Faces


def make_faces(*boxes):
    n = len(boxes)
    return Faces(np.array(boxes, np.float32), np.zeros((n, 5, 2)), np.ones(n))


@pytest.mark.parametrize(("policy", "expected"), [("largest", [0]), ("central", [1])])
def test_one_face_policies(policy, expected):
    faces = make_faces((0, 0, 60, 60), (40, 40, 60, 60), (0, 0, 60, 60))
    np.testing.assert_array_equal(faces.select(policy, 100, 100).boxes, faces[expected].boxes)


def test_all_and_none():
    faces = make_faces((0, 0, 1, 1), (5, 5, 9, 9))
    assert len(faces.select("all", 10, 10)) == 2
    assert len(Faces.empty().select("largest", 10, 10)) == 0
    with pytest.raises(InputError, match="did you mean 'largest'"):
        faces.select("largst", 10, 10)


def test_mask_keeps_rows_together():
    faces = Faces(np.arange(12).reshape(3, 4), np.arange(30).reshape(3, 5, 2), np.arange(3))
    kept = faces[np.array([True, False, True])]
    assert kept.scores.tolist() == [0, 2]
    assert kept.landmarks[1, 0, 0] == 20


def test_unequal_lengths_are_refused():
    with pytest.raises(InputError, match="landmarks of 1 faces"):
        Faces(np.zeros((1, 4)), np.zeros((2, 5, 2)), np.zeros(1))


def test_registry_names_the_nearest_and_refuses_twice():
    registry = Registry("backbone")
    registry.register("iresnet50")(dict)
    with pytest.raises(InputError, match="did you mean 'iresnet50'"):
        registry.get("iresnt50")
    with pytest.raises(ValueError, match="registered twice"):
        registry.register("iresnet50")(list)
