"""Blur kernels against geometry, few pixels and two fields against hand-made pictures."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.data.degrade_optics import (
    Defocus,
    DownUp,
    Interlace,
    Motion,
    disk_kernel,
    path_kernel,
)
from facerec.data.linear_light import from_linear, to_linear


def picture(seed=0, height=48, width=64):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def point(side=61):
    image = np.zeros((side, side, 3), np.uint8)
    image[side // 2, side // 2] = 255
    return image


def moments(weights):
    """Return centroid (x, y) and covariance (2, 2) of weights (h, w)."""
    weights = weights / weights.sum()
    y, x = np.mgrid[: weights.shape[0], : weights.shape[1]]
    middle = np.array([(weights * x).sum(), (weights * y).sum()])
    dx, dy = x - middle[0], y - middle[1]
    cross = (weights * dx * dy).sum()
    return middle, np.array([[(weights * dx**2).sum(), cross], [cross, (weights * dy**2).sum()]])


def test_every_level_survives_linear_light():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    assert np.array_equal(from_linear(to_linear(ramp)), ramp)


def test_linear_light_is_srgb():
    levels = np.array([[[0, 10, 128], [188, 255, 255]]], np.uint8)
    expected = [0, 10 / 255 / 12.92, ((128 / 255 + 0.055) / 1.055) ** 2.4]
    np.testing.assert_allclose(to_linear(levels)[0, 0], expected, rtol=1e-5)
    assert to_linear(levels)[0, 1, 0] == pytest.approx(0.5029, abs=1e-4)
    beyond = np.array([[[-0.5, 0.0, 7.0]]], np.float32)
    assert from_linear(beyond).tolist() == [[[0, 0, 255]]]


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 20))
def test_a_disk_keeps_energy_and_has_its_radius(radius):
    kernel = disk_kernel(radius)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert kernel.min() >= 0
    assert kernel.shape[0] == kernel.shape[1]
    assert kernel.shape[0] % 2 == 1
    np.testing.assert_allclose(kernel, kernel.T, atol=1e-6)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-6)
    if radius >= 1:
        # A pixel inside holds 1 / area.
        assert math.sqrt(1 / (math.pi * kernel.max())) == pytest.approx(radius, rel=0.02)


def test_a_disk_of_hand_counted_shape():
    # About a pixel's middle: all of it, nearly all of its four neighbours, part of the corners.
    kernel = disk_kernel(1.5)
    assert kernel.shape == (3, 3)
    assert kernel[1, 1] == pytest.approx(1 / (math.pi * 1.5**2), rel=0.02)
    assert 0 < kernel[0, 0] < kernel[0, 1] < kernel[1, 1]
    assert disk_kernel(0.3).shape == (1, 1)


@pytest.mark.parametrize("radius", [2.0, 4.5, 9.0])
def test_defocus_spreads_a_point_into_the_disk(radius):
    light = to_linear(Defocus(radius).apply(point()))[..., 1]
    assert light.sum() == pytest.approx(1, abs=0.03)
    middle, spread = moments(light)
    np.testing.assert_allclose(middle, [30, 30], atol=0.02)
    # A disk's variance is r^2 / 4 along either axis, a pixel's 1 / 12.
    np.testing.assert_allclose(np.diag(spread), radius**2 / 4 + 1 / 12, rtol=0.06)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 40), st.floats(-360, 360), st.floats(-180, 180))
def test_a_path_keeps_energy_and_place(length, angle, bend):
    kernel = path_kernel(length, angle, bend)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert kernel.min() >= 0
    assert kernel.shape[0] % 2 == kernel.shape[1] % 2 == 1
    middle, _ = moments(kernel.astype(np.float64))
    centre = [(kernel.shape[1] - 1) / 2, (kernel.shape[0] - 1) / 2]
    np.testing.assert_allclose(middle, centre, atol=1e-3)


@pytest.mark.parametrize("angle", [0, 30, 45, 90, 120, 165])
def test_motion_runs_in_its_direction(angle):
    light = to_linear(Motion(15.0, angle).apply(point()))[..., 0]
    _, spread = moments(light)
    values, vectors = np.linalg.eigh(spread)
    x, y = vectors[:, 1]
    found = np.rad2deg(np.arctan2(y, x)) % 180
    assert min(abs(found - angle), 180 - abs(found - angle)) < 1.5
    # A line's variance is L^2 / 12; interpolation adds at most 1/4 of a pixel each way.
    assert values[1] == pytest.approx(15**2 / 12, rel=0.06)
    assert values[0] < 0.3


def test_a_bent_path_leaves_its_line():
    _, straight = moments(path_kernel(16, 0).astype(np.float64))
    _, bent = moments(path_kernel(16, 0, 90).astype(np.float64))
    assert bent[1, 1] > straight[1, 1] + 0.5
    assert bent[0, 0] < straight[0, 0]


def test_no_blur_is_no_change():
    image = picture()
    assert np.array_equal(Defocus(0).apply(image), image)
    assert np.array_equal(Motion(0, 40).apply(image), image)
    assert np.array_equal(DownUp(1.0).apply(image), image)


def test_blur_leaves_a_flat_picture_alone():
    flat = np.full((20, 30, 3), (10, 128, 250), np.uint8)
    assert np.array_equal(Defocus(3).apply(flat), flat)
    assert np.array_equal(Motion(9, 20, 30).apply(flat), flat)


def test_down_up_averages_blocks():
    image = picture(1, 8, 12)
    blocks = image.reshape(4, 2, 6, 2, 3).astype(float).mean(axis=(1, 3))
    expected = np.rint(blocks).repeat(2, axis=0).repeat(2, axis=1)
    out = DownUp(0.5, "area", "nearest").apply(image)
    assert np.abs(out.astype(float) - expected).max() <= 1


def test_eye_distance_is_a_scale():
    assert DownUp.to_eye_distance(8.81, 112).scale == pytest.approx(0.25, abs=1e-3)
    assert DownUp.to_eye_distance(8.81, 224).scale == pytest.approx(0.125, abs=1e-3)
    with pytest.raises(InputError, match=r"between the eyes must lie in \[1, 35"):
        DownUp.to_eye_distance(60)


def test_weave_moves_odd_rows_alone():
    image = picture(2)
    out = Interlace(2.0).apply(image)
    assert np.array_equal(out[::2], image[::2])
    assert np.array_equal(out[1::2, 2:], image[1::2, :-2])


@pytest.mark.parametrize("height", [2, 3, 8, 9])
def test_bob_fills_odd_rows_from_even_ones(height):
    image = picture(3, height)
    out = Interlace(0.0, "bob").apply(image)
    assert np.array_equal(out[::2], image[::2])
    for row in range(1, height, 2):
        below = image[min(row + 1, height - 1 if height % 2 else height - 2)].astype(float)
        mean = (image[row - 1] + below) / 2
        assert np.abs(out[row] - mean).max() <= 0.5


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DownUp(0.5, "arae"), "down_up.down must be one of .*did you mean 'area'"),
        (lambda: DownUp(0), "down_up.scale must lie in"),
        (lambda: Defocus(-1), "defocus.radius_px must lie in"),
        (lambda: Motion(float("nan")), "motion.length_px must lie in"),
        (lambda: Motion("long"), "motion.length_px must be a number"),
        (lambda: Interlace(1, "wave"), "interlace.method must be one of .*'weave'"),
    ],
)
def test_bad_parameters_are_named(build, message):
    with pytest.raises(InputError, match=message):
        build()
