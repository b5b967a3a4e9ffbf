"""Noise measured on flat patches against the Poisson-Gaussian law; dark scenes and their gain."""

import numpy as np
import pytest

from facerec.checks import InputError
from facerec.data.degrade_sensor import (
    FULL_WELL,
    READ_NOISE,
    LowLight,
    SensorNoise,
    expose,
    spread_error,
)
from facerec.data.linear_light import from_linear, to_linear

SIDE = 160


def flat(level):
    return np.full((SIDE, SIDE, 3), level, np.uint8)


def law(signal, gain):
    electrons = FULL_WELL / gain
    return signal / electrons + (READ_NOISE / electrons) ** 2


@pytest.mark.parametrize("gain", [4.0, 32.0])
@pytest.mark.parametrize("level", [90, 130, 170, 210])
def test_variance_follows_the_law(gain, level):
    light = to_linear(flat(level))
    noisy = to_linear(SensorNoise(gain, seed=5, mosaic=False).apply(flat(level)))
    # Rounding to a level adds a twelfth of its step squared.
    step = float(to_linear(flat(level + 1))[0, 0, 0] - light[0, 0, 0])
    expected = law(float(light[0, 0, 0]), gain) + step**2 / 12
    assert noisy.var() == pytest.approx(expected, rel=0.05)
    assert noisy.mean() == pytest.approx(light.mean(), abs=4 * np.sqrt(expected / noisy.size))


def test_the_exposed_signal_is_unbiased_and_not_clipped():
    black = np.zeros((300, 300), np.float32)
    read = expose(black, 100.0, np.random.default_rng(0))
    assert read.min() < 0
    assert read.std() == pytest.approx(READ_NOISE / 100, rel=0.02)
    assert abs(read.mean()) < 4 * READ_NOISE / 100 / 300


def test_noise_grows_with_signal_and_gain():
    spread = [SensorNoise(g, mosaic=False).apply(flat(150)).std() for g in (1, 4, 16, 64)]
    assert spread == sorted(spread)
    signal = [to_linear(SensorNoise(16, mosaic=False).apply(flat(v))).std() for v in (40, 110, 200)]
    assert signal == sorted(signal)


def test_the_colour_filter_makes_noise_coarse():
    plain = SensorNoise(32, mosaic=False).apply(flat(150)).astype(float) - 150
    mosaic = SensorNoise(32, mosaic=True).apply(flat(150)).astype(float) - 150

    def neighbours(noise):
        return np.mean([np.corrcoef(p[:, 1:].ravel(), p[:, :-1].ravel())[0, 1] for p in noise.T])

    assert abs(neighbours(plain)) < 0.03
    assert neighbours(mosaic) > 0.3
    # Green is measured twice as often as red and blue: its noise is finer, nearer to the pixel's.
    red, green, blue = (np.corrcoef(p[2:].ravel(), p[:-2].ravel())[0, 1] for p in mosaic.T)
    assert green < min(red, blue)


def test_spreading_keeps_an_even_error():
    even = np.full((7, 10), 0.25, np.float32)
    np.testing.assert_allclose(spread_error(even), 0.25, atol=1e-6)
    single = np.zeros((6, 6), np.float32)
    single[2, 2] = 4  # a red pixel
    spread = spread_error(single)
    assert spread[..., 1:].max() == 0
    np.testing.assert_allclose(spread[1:4, 1:4, 0], [[1, 2, 1], [2, 4, 2], [1, 2, 1]])


def test_columns_and_pixels_have_their_own_pattern():
    offsets = SensorNoise(8, 3, False, column_electrons=20).apply(flat(150)).astype(float)
    assert offsets.mean(axis=0).std() > 4 * offsets.mean(axis=1).std()
    quiet = to_linear(SensorNoise(1, 3, False).apply(flat(150))).var()
    uneven = to_linear(SensorNoise(1, 3, False, prnu=0.05).apply(flat(150)))
    expected = (0.05 * to_linear(flat(150)).mean()) ** 2
    assert uneven.var() - quiet == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("mosaic", [False, True])
@pytest.mark.parametrize("stops", [1.0, 3.0])
def test_gain_brings_the_mean_back(stops, mosaic):
    image = flat(150)
    light = to_linear(image).mean()
    back = to_linear(LowLight(stops, 1.0, 1, mosaic=mosaic).apply(image)).mean()
    assert back == pytest.approx(light, rel=0.02)
    dark = to_linear(LowLight(stops, 0.0, 1, mosaic=mosaic).apply(image)).mean()
    assert dark == pytest.approx(light * 2**-stops, rel=0.02)
    half = to_linear(LowLight(stops, 0.5, 1, mosaic=mosaic).apply(image)).mean()
    assert half == pytest.approx(light * 2 ** (-stops / 2), rel=0.02)


def test_a_darker_scene_is_noisier_after_gain():
    spread = [LowLight(stops, 1.0, 2, mosaic=False).apply(flat(120)).std() for stops in (0, 2, 4)]
    assert spread == sorted(spread)
    noise = to_linear(LowLight(4.0, 1.0, 2, bits=16, mosaic=False).apply(flat(150))).var()
    assert noise == pytest.approx(law(to_linear(flat(150)).mean(), 16), rel=0.05)


def test_a_coarse_converter_leaves_few_levels():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    fine = LowLight(5.0, 1.0, 0, bits=16, mosaic=False).apply(ramp)
    coarse = LowLight(5.0, 1.0, 0, bits=8, mosaic=False).apply(ramp)
    assert len(np.unique(coarse)) < 20 < len(np.unique(fine))


def test_cast_and_black_level_move_colours():
    image = flat(128)
    warm = LowLight(0.5, 1.0, 0, red=1.3, blue=0.7).apply(image).mean(axis=(0, 1))
    light = to_linear(image).mean()
    np.testing.assert_allclose(
        warm, from_linear(np.array([[[1.3, 1, 0.7]]], np.float32) * light)[0, 0], atol=1.5
    )
    haze = LowLight(0.5, 1.0, 0, black=0.02).apply(flat(0)).mean()
    assert haze == pytest.approx(from_linear(np.full((1, 1, 3), 0.02, np.float32))[0, 0, 0], abs=1)


def test_the_seed_alone_decides():
    image = flat(100)
    for operation, other in (
        (SensorNoise(16, 7), SensorNoise(16, 8)),
        (LowLight(3, seed=7), LowLight(3, seed=8)),
    ):
        assert np.array_equal(operation.apply(image), operation.apply(image))
        assert not np.array_equal(operation.apply(image), other.apply(image))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SensorNoise(0.5), "sensor_noise.gain must lie in"),
        (lambda: SensorNoise(2, seed=1.5), "sensor_noise.seed must be a whole number"),
        (lambda: SensorNoise(2, seed=-1), "sensor_noise.seed must lie in"),
        (lambda: SensorNoise(2, mosaic=1), "sensor_noise.mosaic must be true or false"),
        (lambda: LowLight(11), "low_light.stops must lie in"),
        (lambda: LowLight(1, bits=4), "low_light.bits must lie in"),
    ],
)
def test_bad_parameters_are_named(build, message):
    with pytest.raises(InputError, match=message):
        build()
