"""What an image sensor does in linear light: photons counted, read-out, gain, colour filter.

A pixel holds at most `FULL_WELL` electrons. Their number is Poisson, which from some ten electrons
on is a normal distribution of variance equal to the mean; the read-out adds a normal distribution
of its own. Divided by the electrons of white, N, the variance of a signal x in [0, 1] is

    x / N + (READ_NOISE / N)^2

(Foi et al., "Practical Poissonian-Gaussian noise modeling and fitting for single-image raw-data",
2008). Gain g leaves N = FULL_WELL / g. Pixel and column patterns are EMVA standard 1288's PRNU and
DSNU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from facerec.data.degrade_operation import SEEDS, Image, Operation, draw_seed
from facerec.data.linear_light import from_linear, to_linear

FULL_WELL = 10_000.0
"""Electrons of white at gain 1: a surveillance sensor's pixel of about 3 micrometres."""
READ_NOISE = 3.0
"""Standard deviation of the read-out, electrons."""

# Below this side there is no pixel of every colour.
_LEAST_MOSAIC = 2


@dataclass(frozen=True)
class SensorNoise(Operation):
    """Shot and read noise of a well lit sensor at some gain.

    Attributes:
        gain: over base sensitivity (ISO / 100), in [1, 1024].
        seed: of the noise.
        mosaic: each pixel measures one colour, and its error spreads to neighbours, which makes
            noise coarse and coloured.
        prnu: standard deviation of the pixels' own gains, share of the signal.
        column_electrons: standard deviation of the columns' own offsets, electrons.
    """

    gain: float
    seed: int = 0
    mosaic: bool = True
    prnu: float = 0.0
    column_electrons: float = 0.0

    name: ClassVar[str] = "sensor_noise"
    limits: ClassVar[Mapping[str, tuple[float, float]]] = {
        "gain": (1, 1024),
        "seed": (0, SEEDS - 1),
        "prnu": (0, 0.1),
        "column_electrons": (0, 100),
    }

    @classmethod
    def draw(cls, gain: float, rng: np.random.Generator) -> SensorNoise:
        """Return one with its own seed, mostly behind a colour filter, and a faint pattern."""
        seed = draw_seed(rng)
        mosaic, prnu, column = rng.random(3).tolist()
        return cls(gain, seed, mosaic < 0.75, 0.01 * prnu, 2 * column)

    def apply(self, chip: Image) -> Image:
        """Return the noisy picture."""
        rng = np.random.default_rng(self.seed)
        light, electrons = to_linear(chip), FULL_WELL / self.gain
        pattern = (self.prnu, self.column_electrons)
        if not self.mosaic or min(chip.shape[:2]) < _LEAST_MOSAIC:
            return from_linear(expose(light, electrons, rng, *pattern))
        signal = _measure(light)
        error = expose(signal, electrons, rng, *pattern) - signal
        return from_linear(light + spread_error(error))


@dataclass(frozen=True)
class LowLight(Operation):
    """A scene too dark for the exposure, and the camera's gain that brings part of it back.

    Attributes:
        stops: by how many halvings the exposure is short, in [0, 10].
        regain: share of these stops that gain brings back, in [0, 1].
        seed: of the noise.
        bits: of the converter, which counts in steps of FULL_WELL / 2^bits electrons.
        black: error of the black level after gain, share of white: haze above 0, lost shadows
            below.
        red: red's gain over green's: the cast of the lamp.
        blue: blue's gain over green's.
        mosaic: as in `SensorNoise`.
        column_electrons: as in `SensorNoise`.
    """

    stops: float
    regain: float = 1.0
    seed: int = 0
    bits: int = 10
    black: float = 0.0
    red: float = 1.0
    blue: float = 1.0
    mosaic: bool = True
    column_electrons: float = 0.0

    name: ClassVar[str] = "low_light"
    limits: ClassVar[Mapping[str, tuple[float, float]]] = {
        "stops": (0, 10),
        "regain": (0, 1),
        "seed": (0, SEEDS - 1),
        "bits": (6, 16),
        "black": (-0.1, 0.1),
        "red": (0.25, 4),
        "blue": (0.25, 4),
        "column_electrons": (0, 100),
    }

    @classmethod
    def draw(cls, stops: float, rng: np.random.Generator) -> LowLight:
        """Return one with 1/2 to all of the light regained, from a warm to a cold lamp."""
        seed = draw_seed(rng)
        regain, black, warmth, mosaic, column = rng.random(5).tolist()
        tint = 2 * warmth - 1
        return cls(
            stops=stops,
            regain=0.5 + 0.5 * regain,
            seed=seed,
            black=0.03 * black - 0.01,
            red=1.3**tint,
            blue=1.4**-tint,
            mosaic=mosaic < 0.75,
            column_electrons=2 * column,
        )

    def apply(self, chip: Image) -> Image:
        """Return the picture as the camera shows it."""
        rng = np.random.default_rng(self.seed)
        light = to_linear(chip) * np.float32(2.0**-self.stops)
        if not self.mosaic or min(chip.shape[:2]) < _LEAST_MOSAIC:
            light = self._count(light, rng)
        else:
            signal = _measure(light)
            light += spread_error(self._count(signal, rng) - signal)
        gain = 2.0 ** (self.stops * self.regain)
        light *= np.array([self.red * gain, gain, self.blue * gain], np.float32)
        light += np.float32(self.black)
        return from_linear(light)

    def _count(self, signal: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return a signal as it is read and converted; not clipped, converters have a pedestal."""
        steps = np.float32(2**self.bits - 1)
        raw = expose(signal, FULL_WELL, rng, 0.0, self.column_electrons)
        return np.asarray(np.rint(raw * steps) / steps, np.float32)


def expose(
    signal: NDArray[np.float32],
    electrons: float,
    rng: np.random.Generator,
    prnu: float = 0.0,
    column_electrons: float = 0.0,
) -> NDArray[np.float32]:
    """Return a signal as a sensor reads it, not clipped.

    Args:
        signal: float32 (h, w) or (h, w, 3), linear, 1 is white.
        electrons: that make white.
        rng: of the noise.
        prnu: standard deviation of the pixels' own gains, share of the signal.
        column_electrons: standard deviation of the columns' own offsets, electrons.
    """
    white = np.float32(electrons)
    spread = np.sqrt(signal / white + np.float32(READ_NOISE / electrons) ** 2)
    spread *= rng.standard_normal(signal.shape, np.float32)
    spread += signal
    if prnu:
        own = rng.standard_normal(signal.shape, np.float32)
        spread += np.float32(prnu) * signal * own
    if column_electrons:
        columns = rng.standard_normal((1, signal.shape[1]), np.float32)
        offsets = columns * np.float32(column_electrons / electrons)
        spread += offsets if signal.ndim == 2 else offsets[..., None]
    return np.asarray(spread, np.float32)


def spread_error(error: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what an RGGB colour filter makes of errors of single pixels, float32 (h, w, 3).

    Each pixel's error belongs to the one colour that it measures; the other pixels take it over by
    bilinear interpolation, as the simplest camera does. The picture itself is not sent this way:
    better cameras keep its edges, and a chip has long lost what the filter would lose.

    Args:
        error: float32 (h, w), both sides at least 2.
    """
    planes = np.zeros((*error.shape, 3), np.float32)
    planes[::2, ::2, 0] = error[::2, ::2]
    planes[::2, 1::2, 1] = error[::2, 1::2]
    planes[1::2, ::2, 1] = error[1::2, ::2]
    planes[1::2, 1::2, 2] = error[1::2, 1::2]
    # A mirrored border keeps the filter's order of colours.
    sides = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 4
    near = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32) / 4
    spread = cv2.filter2D(planes, -1, sides, borderType=cv2.BORDER_REFLECT_101)
    green = cv2.filter2D(planes[..., 1], -1, near, borderType=cv2.BORDER_REFLECT_101)
    spread[..., 1] = green
    return np.asarray(spread, np.float32)


def _measure(light: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the one colour of each pixel that an RGGB filter lets through, float32 (h, w)."""
    raw: NDArray[np.float32] = light[..., 1].copy()
    raw[::2, ::2] = light[::2, ::2, 0]
    raw[1::2, 1::2] = light[1::2, 1::2, 2]
    return raw
