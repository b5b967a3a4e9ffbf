import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.data.align import ARCFACE_TEMPLATE, align_face, align_faces, similarity_transform
from facerec.structures import Faces


def umeyama_by_svd(source, target):
    """Umeyama 1991 as published: singular value decomposition, reflection undone."""
    source, target = np.asarray(source, float), np.asarray(target, float)
    n = len(source)
    mean_s, mean_t = source.mean(0), target.mean(0)
    covariance = (target - mean_t).T @ (source - mean_s) / n
    u, d, vt = np.linalg.svd(covariance)
    sign = np.eye(2)
    if np.linalg.det(u) * np.linalg.det(vt) < 0:
        sign[1, 1] = -1
    rotation = u @ sign @ vt
    scale = np.trace(np.diag(d) @ sign) / (source - mean_s).var(0).sum()
    return np.hstack([scale * rotation, (mean_t - scale * rotation @ mean_s)[:, None]])


numbers = st.floats(-500, 500, allow_nan=False, width=32)
five_points = st.lists(st.tuples(numbers, numbers), min_size=5, max_size=5, unique=True)


@settings(max_examples=150, deadline=None)
@given(five_points, five_points)
def test_closed_form_equals_umeyama_by_svd(source, target):
    source, target = np.array(source), np.array(target)
    reference = umeyama_by_svd(source, target)
    scale = np.hypot(*reference[0, :2])
    # Where no rotation fits, the optimum is not unique; where scale vanishes, we refuse.
    if np.ptp(source, axis=0).min() < 1 or scale < 1e-3:
        return
    # With a reflection in play, the published form needs d1 > d2 to be unique.
    covariance = (target - target.mean(0)).T @ (source - source.mean(0))
    d = np.linalg.svd(covariance)[1]
    if d[0] - d[1] < 1e-3 * d[0] and np.linalg.det(covariance) < 0:
        return
    assert np.allclose(similarity_transform(source, target), reference, rtol=1e-6, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(st.floats(-np.pi, np.pi), st.floats(0.05, 20), numbers, numbers)
def test_a_known_similarity_is_recovered(angle, scale, x, y):
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    source = ARCFACE_TEMPLATE.astype(float)
    found = similarity_transform(source, source @ linear.T + [x, y])
    assert np.allclose(found, np.hstack([linear, [[x], [y]]]), atol=1e-6 * (1 + scale))


def test_mirrored_points_are_never_mirrored_back():
    mirrored = ARCFACE_TEMPLATE * [-1, 1] + [112, 0]
    matrix = similarity_transform(mirrored, ARCFACE_TEMPLATE)
    assert np.linalg.det(matrix[:, :2]) > 0


def test_least_squares_optimum():
    rng = np.random.default_rng(0)
    source = rng.normal(0, 50, (5, 2))
    target = ARCFACE_TEMPLATE + rng.normal(0, 3, (5, 2))

    def error(matrix):
        return ((source @ matrix[:, :2].T + matrix[:, 2] - target) ** 2).sum()

    best = similarity_transform(source, target)
    for _ in range(200):
        a, b, x, y = rng.normal(0, 1e-3, 4)
        nudge = np.array([[a, -b, x], [b, a, y]])
        assert error(best + nudge) >= error(best)


@pytest.mark.parametrize(
    "source",
    [
        np.full((5, 2), 60.0),
        np.full((5, 2), 1e6) + 1e-7,
        np.full((5, 2), np.nan),
        np.zeros((5, 3)),
        np.zeros((1, 2)),
        np.array([[0, 0], [np.inf, 1], [2, 2], [3, 3], [4, 4]]),
    ],
)
def test_degenerate_landmarks_are_refused(source):
    with pytest.raises(InputError, match="landmarks"):
        similarity_transform(source, ARCFACE_TEMPLATE[: len(source)])
    if source.shape == (5, 2):
        with pytest.raises(InputError, match="landmarks"):
            align_face(np.zeros((112, 112, 3), np.uint8), source)


def test_landmarks_on_the_template_leave_the_picture_alone():
    image = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    assert np.array_equal(align_face(image, ARCFACE_TEMPLATE), image)


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_a_dot_on_each_landmark_lands_on_the_template(turn):
    """Quarter turns and a doubling: where the dots go is known to the pixel."""
    points = (ARCFACE_TEMPLATE * 2 + [40, 30]).astype(float)
    image = np.zeros((300, 280, 3), np.uint8)
    for number, (x, y) in enumerate(points):
        image[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3] = 50 * (number + 1)
    for _ in range(turn):  # np.rot90 turns anticlockwise: (x, y) -> (y, width - 1 - x)
        points = np.stack([points[:, 1], image.shape[1] - 1 - points[:, 0]], axis=1)
        image = np.ascontiguousarray(np.rot90(image))
    chip = align_face(image, points)
    for number, (x, y) in enumerate(ARCFACE_TEMPLATE):
        assert abs(int(chip[round(y), round(x), 0]) - 50 * (number + 1)) <= 2


def test_size_scales_the_template():
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    assert np.array_equal(align_face(image, ARCFACE_TEMPLATE * 2, size=224), image)


def test_very_wide_pictures_are_aligned():
    image = np.zeros((120, 40_000, 3), np.uint8)
    image[:112, 39_000:39_112] = 77
    chip = align_face(image, ARCFACE_TEMPLATE + np.array([39_000, 0]))
    assert (chip[:110, :110] == 77).all()


def test_align_faces_stacks_and_takes_none():
    image = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    boxes = np.array([[0, 0, 112, 112]] * 2, np.float32)
    faces = Faces(boxes, np.stack([ARCFACE_TEMPLATE] * 2), np.ones(2, np.float32))
    kept, chips = align_faces(image, faces)
    assert len(kept) == 2 and chips.shape == (2, 112, 112, 3) and np.array_equal(chips[1], image)
    none, chips = align_faces(image, Faces.empty())
    assert len(none) == 0 and chips.shape == (0, 112, 112, 3)


def test_faces_whose_landmarks_coincide_are_left_out():
    image = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    points = np.stack([np.full((5, 2), 30, np.float32), ARCFACE_TEMPLATE])
    faces = Faces(np.array([[0, 0, 112, 112]] * 2, np.float32), points, np.array([0.9, 0.5]))
    kept, chips = align_faces(image, faces)
    assert kept.scores.tolist() == [0.5] and len(chips) == 1 and np.array_equal(chips[0], image)


def test_wrong_pictures_are_refused():
    with pytest.raises(InputError, match="uint8 RGB"):
        align_face(np.zeros((112, 112, 3)), ARCFACE_TEMPLATE)
