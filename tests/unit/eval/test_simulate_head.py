"""Heads cut out of stills, turned and drawn."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.simulate_head import (
    FACE_HEIGHT,
    FACE_MIDDLE,
    FACE_WIDTH,
    Pose,
    cut_head,
    draw_head,
    turn_points,
)
from facerec.data.align import ARCFACE_TEMPLATE
from facerec.data.linear_light import from_linear, to_linear


def smooth_still(side=200, seed=0):
    coarse = np.random.default_rng(seed).integers(40, 220, (8, 8, 3)).astype(np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


def still_landmarks(scale=1.0, shift=(44.0, 40.0)):
    return ARCFACE_TEMPLATE * scale + np.array(shift)


def test_a_frontal_head_at_its_own_size_is_the_still():
    still = smooth_still()
    head = cut_head(still, still_landmarks(), FACE_WIDTH)
    drawn = draw_head(head, Pose(), (60.0, 70.0), FACE_WIDTH)
    # The box's middle, (56, 64.5) of the chip, lies at (100, 104.5) of the still.
    y, x = 70 - drawn.top, 60 - drawn.left
    patch = from_linear(drawn.layer[y - 25 : y + 25, x - 20 : x + 20, :3])
    here = still[104 - 25 : 104 + 25, 100 - 20 : 100 + 20].astype(int)
    below = still[105 - 25 : 105 + 25, 100 - 20 : 100 + 20].astype(int)
    assert np.abs(patch - (here + below) / 2).max() < 6
    assert drawn.layer[y, x, 3] == pytest.approx(1)
    assert drawn.landmarks == pytest.approx(ARCFACE_TEMPLATE + np.array((4, 5.5)), abs=1e-3)


@pytest.mark.parametrize("face_px", [8, 12, 64])
def test_the_box_is_as_wide_as_asked_about_its_middle(face_px):
    drawn = draw_head(
        cut_head(smooth_still(), still_landmarks(), face_px), Pose(9, 4, 3), (50, 40), face_px
    )
    width, height = drawn.box[2:] - drawn.box[:2]
    assert (width, height) == pytest.approx((face_px, face_px * FACE_HEIGHT / FACE_WIDTH))
    assert (drawn.box[:2] + drawn.box[2:]) / 2 == pytest.approx([50, 40])
    inside = (drawn.landmarks > drawn.box[:2]) & (drawn.landmarks < drawn.box[2:])
    assert inside.all()


def test_small_faces_are_averages_and_never_aliases():
    fine = np.zeros((400, 400, 3), np.uint8)
    fine[::2, ::2], fine[1::2, 1::2] = 255, 255
    head = cut_head(fine, still_landmarks(2.4, (60, 60)), 12)
    drawn = draw_head(head, Pose(), (30.3, 30.7), 12)
    solid = drawn.layer[drawn.face >= 1]
    assert len(solid) > 50
    assert solid[:, :3] == pytest.approx(0.5, abs=0.06)


@settings(max_examples=20)
@given(yaw=st.floats(-30, 30), pitch=st.floats(-20, 33), roll=st.floats(-10, 10))
def test_what_is_drawn_lies_where_the_truth_says(yaw, pitch, roll):
    """A bright dot at the nose is found again at the nose's landmark."""
    still = np.full((200, 200, 3), 20, np.uint8)
    marks = still_landmarks()
    cv2.circle(still, tuple(int(v) for v in np.rint(marks[2])), 3, (255, 255, 255), -1)
    exact = np.rint(marks[2]) - marks[2]
    drawn = draw_head(cut_head(still, marks, 64), Pose(yaw, pitch, roll), (70, 70), 64)
    bright = np.clip(drawn.layer[..., 1] - 0.1, 0, None)
    rows, columns = np.indices(bright.shape)
    found = np.array([(bright * columns).sum(), (bright * rows).sum()]) / bright.sum()
    expected = drawn.landmarks[2] + 0.8 * exact - (drawn.left, drawn.top)
    assert np.linalg.norm(found - expected) < 1.0


def test_yaw_moves_the_nose_against_the_eyes():
    middle, nose = [(56.0, 51.6)], [(56.0, 71.7)]
    ahead = turn_points(nose, Pose(20))[0, 0] - turn_points(middle, Pose(20))[0, 0]
    back = turn_points(nose, Pose(-20))[0, 0] - turn_points(middle, Pose(-20))[0, 0]
    assert ahead > 1
    assert back == pytest.approx(-ahead)
    left, right = turn_points([(38.3, 51.6), (73.7, 51.6)], Pose(25))
    assert right[0] - left[0] < 0.95 * (73.7 - 38.3)
    assert turn_points([FACE_MIDDLE], Pose()) == pytest.approx(np.array([FACE_MIDDLE]))


def test_where_the_still_ends_the_head_fades():
    chip = smooth_still(112)
    layer = draw_head(cut_head(chip, ARCFACE_TEMPLATE, 64), Pose(), (99, 99), 64).layer
    whole = draw_head(cut_head(smooth_still(), still_landmarks(), 64), Pose(), (99, 99), 64).layer
    assert layer[..., 3].sum() < 0.95 * whole[..., 3].sum()
    assert layer[..., 3].max() == pytest.approx(1)
    assert (layer[..., :3].max(axis=2) <= layer[..., 3] + 1e-4).all()


def test_light_from_one_side_shades_the_other():
    still = np.full((200, 200, 3), 128, np.uint8)
    level = float(to_linear(still)[0, 0, 0])
    drawn = draw_head(cut_head(still, still_landmarks(), 64, slant=0.5), Pose(), (99, 99), 64)
    y, x = 99 - drawn.top, 99 - drawn.left
    assert drawn.layer[y, x - 24, 0] < 0.8 * level
    assert drawn.layer[y, x + 24, 0] > 1.2 * level
