"""Between sRGB levels and linear light, where blur and noise obey the laws of optics.

The curve is that of IEC 61966-2-1 (sRGB). Tables make it one look-up a value.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

_STEPS = 65535
_LINEAR_END = 0.04045


@functools.cache
def _decoding() -> NDArray[np.float32]:
    level = np.arange(256) / 255
    curve = ((level + 0.055) / 1.055) ** 2.4
    return np.where(level <= _LINEAR_END, level / 12.92, curve).astype(np.float32)


@functools.cache
def _encoding() -> NDArray[np.uint8]:
    light = np.arange(_STEPS + 1) / _STEPS
    curve = 1.055 * light ** (1 / 2.4) - 0.055
    level = np.where(light <= _LINEAR_END / 12.92, light * 12.92, curve)
    return np.asarray(np.rint(255 * level), np.uint8)


def to_linear(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return sRGB levels uint8 (h, w, 3) as linear light float32 (h, w, 3), 0 black to 1 white."""
    return np.asarray(cv2.LUT(image, _decoding()), np.float32)


def from_linear(light: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return linear light float32 (h, w, 3) as sRGB levels uint8, clipped to [0, 1] first.

    `from_linear(to_linear(image))` is `image`.
    """
    steps = light * np.float32(_STEPS)
    steps += np.float32(0.5)
    np.clip(steps, 0, _STEPS, out=steps)
    return np.asarray(np.take(_encoding(), steps.astype(np.uint16)), np.uint8)
