"""Who hides whom, what motion smears, and rooms."""

import numpy as np
import pytest

from eval.simulate_body import Walker
from eval.simulate_head import cut_head
from eval.simulate_scene import Room, build_room, draw_people
from eval.simulate_walks import Walk
from facerec.data.align import ARCFACE_TEMPLATE

WIDTH, HEIGHT = 240, 160


def stand(x=120.0, y=50.0, size=24.0, speed=0.0):
    return Walk((x, y), speed, size, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0)


def walker(walk, grey=200):
    still = np.full((200, 200, 3), grey, np.uint8)
    head = cut_head(still, ARCFACE_TEMPLATE + np.float32(44), walk.face_px)
    return Walker(head, walk, np.full(3, 0.1, np.float32), np.full(3, 0.1, np.float32))


def plain_room(level=0.25):
    light = np.full((HEIGHT, WIDTH, 3), level, np.float32)
    return Room(light, np.ones((HEIGHT, WIDTH), np.float32))


@pytest.mark.parametrize(
    ("x", "y", "visible"),
    [(120, 50, 1.0), (0, 50, 0.5), (239, 50, 0.5), (120, 0, 0.5), (-40, 50, 0)],
)
def test_the_border_hides_what_lies_beyond(x, y, visible):
    _, seen = draw_people(plain_room(), [walker(stand(x, y))], 0.0, 0.0)
    assert seen[0].visible == pytest.approx(visible, abs=0.04)


def test_the_nearer_person_hides_the_farther_whatever_their_order():
    near, far = walker(stand(size=26.0)), walker(stand(size=22.0), grey=60)
    for order, expected in (([near, far], [1, 0]), ([far, near], [0, 1])):
        light, seen = draw_people(plain_room(), order, 0.0, 0.0)
        assert [face.visible for face in seen] == pytest.approx(expected, abs=0.03)
        assert light[50, 120] == pytest.approx(near.head.skin, abs=0.02)


def test_somebody_half_in_front_hides_about_half():
    _, seen = draw_people(
        plain_room(), [walker(stand(size=22.0)), walker(stand(x=136.0, size=23.0))], 0.0, 0.0
    )
    assert 0.25 < seen[0].visible < 0.75
    assert seen[1].visible == pytest.approx(1, abs=0.01)


def test_a_body_hides_a_face_behind_it():
    _, seen = draw_people(
        plain_room(),
        [walker(stand(y=120.0, size=20.0)), walker(stand(y=50.0, size=30.0))],
        0.0,
        0.0,
    )
    assert seen[0].visible < 0.05


def test_motion_smears_along_the_way_and_keeps_the_light():
    people = [walker(stand(speed=3.0))]
    sharp, _ = draw_people(plain_room(0.0), people, 0.5, 0.0)
    moved, seen = draw_people(plain_room(0.0), people, 0.5, 0.1)
    assert moved[:100].sum() == pytest.approx(sharp[:100].sum(), rel=0.05)
    y = round(float(seen[0].box[[1, 3]].mean()))
    steep = [np.abs(np.diff(light[y, :, 0])).max() for light in (sharp, moved)]
    assert steep[1] < 0.5 * steep[0]


def test_the_place_itself_is_not_changed():
    room = plain_room()
    before = room.light.copy()
    draw_people(room, [walker(stand())], 0.0, 0.02)
    assert np.array_equal(room.light, before)


def test_rooms_follow_their_seed_and_end_above_the_knees():
    first, again, other = (
        build_room(np.random.default_rng(seed), WIDTH, HEIGHT, 90.0) for seed in (1, 1, 2)
    )
    assert np.array_equal(first.light, again.light)
    assert not np.array_equal(first.light, other.light)
    assert first.light.shape == (HEIGHT, WIDTH, 3)
    assert first.lamps.mean() == pytest.approx(1, abs=1e-3)
    assert (first.light >= 0).all()
