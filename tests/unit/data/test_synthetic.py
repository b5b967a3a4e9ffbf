"""Synthetic people: pure functions of their seeds, with landmarks where the features are."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.data.align import ARCFACE_TEMPLATE, align_face, similarity_transform
from facerec.data.synthetic import (
    Nuisance,
    draw_face,
    make_chips,
    render_chip,
    render_face,
    sample_identity,
    sample_nuisance,
)
from facerec.data.synthetic_camera import degrade, lay_over
from facerec.data.synthetic_canvas import Canvas, blend, smooth_curve
from facerec.data.synthetic_face import build_maps

PLAIN = replace(
    sample_identity(0, 0),
    skin=(225.0, 180.0, 155.0),
    beard="none",
    hair_style="short",
    hairline_y=-0.95,
    moles=(),
    scar=None,
    freckles=0.0,
)


def test_an_identity_is_a_pure_function_of_seed_and_index():
    assert sample_identity(3, 5) == sample_identity(3, 5)
    assert sample_identity(3, 5) != sample_identity(3, 6)
    assert sample_identity(3, 5) != sample_identity(4, 5)
    # Asking for one person does not depend on having asked for others.
    assert [sample_identity(3, i).name for i in (7, 2)] == ["p0003-00007", "p0003-00002"]


def test_negative_seed_or_index_is_refused():
    with pytest.raises(InputError, match="must not be negative"):
        sample_identity(0, -1)


def test_any_two_people_differ_in_many_shape_parameters():
    shapes = np.stack([sample_identity(1, i).geometry() for i in range(200)])
    spread = shapes.max(axis=0) - shapes.min(axis=0)
    scaled = shapes / spread
    apart = np.abs(scaled[:, None] - scaled[None])
    # A parameter differs when it is more than a twentieth of its range away.
    differing = (apart > 0.05).sum(axis=2) + 99 * np.eye(200, dtype=int)
    assert differing.min() >= 15


def test_the_same_chip_twice_is_the_same_bytes_even_with_a_cold_cache():
    person, nuisance = sample_identity(2, 1), sample_nuisance(np.random.default_rng(9))
    first = render_chip(person, nuisance)
    build_maps.cache_clear()
    assert np.array_equal(first, render_chip(person, nuisance))
    assert first.shape == (112, 112, 3) and first.dtype == np.uint8


def test_make_chips_returns_truth_and_grows_without_changing():
    chips, labels, nuisances = make_chips(3, 2, seed=5)
    assert chips.shape == (6, 112, 112, 3)
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert len(nuisances) == 6 and len(set(nuisances)) == 6
    more, _, _ = make_chips(4, 3, seed=5)
    assert np.array_equal(more[[0, 1, 3, 4]], chips[:4])
    people = [sample_identity(5, i) for i in range(3)]
    assert np.array_equal(make_chips(people, 2, seed=5)[0], chips)


def test_every_nuisance_parameter_changes_the_picture():
    base = Nuisance(seed=1, clothes=4)
    reference = render_chip(PLAIN, base).astype(int)
    changes = {
        "yaw": 20.0,
        "pitch": -12.0,
        "light_x": 0.9,
        "light_y": 0.5,
        "light": 0.8,
        "exposure": 0.7,
        "warmth": 0.8,
        "smile": 0.9,
        "mouth_open": 0.8,
        "eye_closure": 1.0,
        "gaze": 1.0,
        "age": 0.9,
        "glasses": 0.9,
        "hair_change": 0.9,
        "blur_px": 2.0,
        "noise_sigma": 8.0,
        "jpeg": 40,
        "shift": 0.05,
        "seed": 2,
    }
    for name, value in changes.items():
        changed = render_chip(PLAIN, replace(base, **{name: value})).astype(int)
        assert np.abs(changed - reference).max() > 8, name
    clothed = render_face(PLAIN, replace(base, clothes=5), 200).image.astype(int)
    assert np.abs(clothed - render_face(PLAIN, base, 200).image.astype(int)).max() > 8
    assert base.roll == 0  # an aligned chip is upright whatever the roll
    assert np.array_equal(render_chip(PLAIN, replace(base, roll=15.0)), reference)


@pytest.mark.parametrize("yaw", [-25.0, 0.0, 25.0])
@pytest.mark.parametrize("roll", [-20.0, 0.0])
def test_landmarks_lie_on_the_features(yaw, roll):
    nuisance = Nuisance(yaw=yaw, roll=roll, light=0.2, light_y=0.0)
    size = 320
    drawn = draw_face(PLAIN, nuisance, (160, 150), 60, size, size)
    grey = drawn.image.astype(np.float32).mean(axis=2)
    skin = np.median(grey[int(drawn.landmarks[2, 1]) - 15, 120:200])
    for x, y in drawn.landmarks[:2]:  # the pupil: the darkest spot around
        window = cv2.GaussianBlur(grey, (0, 0), 1.5)[
            int(y) - 9 : int(y) + 10, int(x) - 9 : int(x) + 10
        ]
        row, column = np.unravel_index(window.argmin(), window.shape)
        assert window.min() < 0.5 * skin
        assert np.hypot(row - 9, column - 9) < 6, (x, y)
    for (x, y), away in zip(drawn.landmarks[3:], (-1, 1), strict=True):
        # The dark line between the lips ends at the corner.
        turn = np.deg2rad(roll)
        step = 10 * away * np.array([np.cos(turn), np.sin(turn)])
        (in_x, in_y), (out_x, out_y) = (
            np.round(np.array([x, y]) + move).astype(int) for move in (-step, step)
        )
        inside = grey[in_y - 4 : in_y + 5, in_x].min()
        outside = grey[out_y - 4 : out_y + 5, out_x].min()
        assert inside < outside - 20


def test_a_chip_is_what_alignment_by_the_stated_landmarks_gives():
    nuisance = Nuisance(yaw=12.0, roll=14.0, smile=0.5, seed=3)
    picture = draw_face(PLAIN, nuisance, (130, 120), 52.8, 256, 256)
    over = lay_over(np.full((256, 256, 3), 128, np.uint8), picture.image, picture.alpha)
    aligned = align_face(over, picture.landmarks)
    chip = render_chip(PLAIN, nuisance)
    inner = (slice(35, 100), slice(30, 82))  # inside the face, away from the background
    difference = np.abs(aligned[inner].astype(float) - chip[inner])
    assert difference.mean() < 6  # two samplings of one face, not two faces
    matrix = similarity_transform(picture.landmarks, ARCFACE_TEMPLATE)
    placed = picture.landmarks @ matrix[:, :2].T + matrix[:, 2]
    assert np.linalg.norm(placed - ARCFACE_TEMPLATE, axis=1).max() < 10


def test_centre_scale_and_box_are_as_asked():
    small = draw_face(PLAIN, Nuisance(), (100, 90), 20, 200, 200)
    large = draw_face(PLAIN, Nuisance(), (100, 90), 40, 200, 200)
    assert np.allclose(small.landmarks[:2].mean(axis=0), (100, 90), atol=1e-3)
    ratio = np.ptp(large.landmarks, axis=0) / np.ptp(small.landmarks, axis=0)
    assert np.allclose(ratio, 2, atol=1e-3)
    x1, y1, x2, y2 = large.box
    assert (large.landmarks > (x1, y1)).all() and (large.landmarks < (x2, y2)).all()
    assert large.alpha[90, 100] == 255 and large.alpha[2, 2] == 0


def test_roll_turns_the_landmarks_and_nothing_else():
    upright = draw_face(PLAIN, Nuisance(), (100, 90), 30, 200, 200).landmarks - (100, 90)
    turned = draw_face(PLAIN, Nuisance(roll=30), (100, 90), 30, 200, 200).landmarks - (100, 90)
    angle = np.deg2rad(30)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert np.allclose(upright @ turn.T, turned, atol=1e-3)


def test_yaw_moves_the_nose_to_the_viewers_right():
    noses = [
        draw_face(PLAIN, Nuisance(yaw=yaw), (100, 90), 30, 200, 200).landmarks[2, 0]
        for yaw in (-20, 0, 20)
    ]
    assert noses[0] < noses[1] - 3 < noses[2] - 6
    looking_down = draw_face(PLAIN, Nuisance(pitch=-15), (100, 90), 30, 200, 200).landmarks[2, 1]
    looking_up = draw_face(PLAIN, Nuisance(pitch=15), (100, 90), 30, 200, 200).landmarks[2, 1]
    assert looking_down > looking_up


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["web", "document", "surveillance"]))
def test_any_person_in_any_kind_of_picture_can_be_drawn(seed, kind):
    nuisance = sample_nuisance(np.random.default_rng(seed), kind)
    picture = render_face(sample_identity(seed, seed), nuisance, 64)
    assert picture.image.shape == (64, 64, 3) and picture.image.dtype == np.uint8
    assert np.isfinite(picture.landmarks).all()
    eyes = picture.landmarks[1] - picture.landmarks[0]
    assert eyes[0] > 5 and picture.image.std() > 1


def test_kinds_differ_as_their_names_say():
    rng = np.random.default_rng(0)
    web, document, watched = (
        [sample_nuisance(rng, kind) for _ in range(200)]
        for kind in ("web", "document", "surveillance")
    )

    def spread(kind, name):
        return np.std([getattr(n, name) for n in kind])

    assert spread(document, "yaw") < 3 < spread(web, "yaw")
    assert all(n.mouth_open == 0 and n.glasses == 0 for n in document)
    assert np.mean([n.pitch for n in watched]) < -8  # seen from above
    assert np.mean([n.blur_px for n in watched]) > 1.5 * np.mean([n.blur_px for n in web])
    with pytest.raises(InputError, match="did you mean 'document'"):
        sample_nuisance(rng, "documents")


def test_identity_outweighs_chance_but_pixels_do_not_give_it_away():
    chips, labels, _ = make_chips(12, 6, seed=8)
    flat = np.stack([cv2.resize(c, (28, 28), interpolation=cv2.INTER_AREA) for c in chips])
    flat = flat.reshape(len(chips), -1).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    scores = flat @ flat.T
    np.fill_diagonal(scores, -2)
    right = (labels[scores.argmax(axis=1)] == labels).mean()
    assert 2 / 12 < right < 0.9


def test_degrade_leaves_a_clean_look_alone_and_is_seeded():
    image = render_face(PLAIN, Nuisance(), 96).image
    assert np.array_equal(degrade(image, Nuisance()), image)
    noisy = Nuisance(noise_sigma=10, seed=4)
    assert np.array_equal(degrade(image, noisy), degrade(image, noisy))
    assert not np.array_equal(degrade(image, noisy), degrade(image, replace(noisy, seed=5)))
    flat = np.full((64, 64, 3), 128, np.uint8)
    assert degrade(flat, noisy).astype(float).std() == pytest.approx(10, rel=0.1)


def test_sizes_out_of_range_are_refused():
    with pytest.raises(InputError, match="size of the picture"):
        render_face(PLAIN, Nuisance(), 8)
    with pytest.raises(InputError, match="eye_distance"):
        draw_face(PLAIN, Nuisance(), (5, 5), 0.0, 10, 10)


def test_canvas_shapes_have_their_area_and_blend_mixes():
    canvas = Canvas(200)
    square = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    assert canvas.fill(square).sum() / canvas.scale**2 == pytest.approx(1.0, rel=0.06)
    picture = np.zeros((3, 2, 2), np.float32)
    blend(picture, np.full((2, 2), 0.25, np.float32), (100, 40, 8))
    assert picture[:, 1, 1].tolist() == [25, 10, 2]
    curve = smooth_curve([(0, 0), (1, 1), (2, 0)], steps=4)
    assert curve[[0, 4, 8]].tolist() == [[0, 0], [1, 1], [2, 0]]
