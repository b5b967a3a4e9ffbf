"""Chip to network input, and the light augmentation of training; images are RGB in [-1, 1].

The convention is stated here once: uint8 RGB becomes (x - 127.5) / 127.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from facerec.checks import check_range

MEAN = 127.5
STD = 127.5
_GREY = 127.5


def resize_chip(chip: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return a square chip (s, s, 3) at (size, size, 3), averaged over areas when it shrinks."""
    if chip.shape[0] == size:
        return chip
    method = cv2.INTER_AREA if size < chip.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(chip, (size, size), interpolation=method), np.uint8)


@dataclass(frozen=True)
class Augmentation:
    """Random mirror image, contrast, brightness and blur of a chip.

    Careless augmentation costs small nets accuracy, so the defaults are light.

    Attributes:
        flip: probability of the mirror image.
        brightness: largest shift, as a share of the full range.
        contrast: largest relative change around mid grey.
        blur: probability of a Gaussian blur with sigma in [0.3, 1.2] pixels.
    """

    flip: float = 0.5
    brightness: float = 0.2
    contrast: float = 0.2
    blur: float = 0.1

    def __post_init__(self) -> None:
        for name in ("flip", "brightness", "contrast", "blur"):
            check_range(getattr(self, name), name, 0, 1)

    def apply(self, chip: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return a changed copy of a chip uint8 (s, s, 3).

        The same number of draws is made whatever the settings, so that turning one off leaves
        the others as they were.
        """
        mirror, shift, stretch, soften, sigma = rng.random(5)
        if mirror < self.flip:
            chip = np.ascontiguousarray(chip[:, ::-1])
        gain = 1 + self.contrast * (2 * stretch - 1)
        offset = 255 * self.brightness * (2 * shift - 1)
        if gain != 1 or offset != 0:
            levels = (np.arange(256) - _GREY) * gain + _GREY + offset
            chip = np.asarray(cv2.LUT(chip, np.clip(np.rint(levels), 0, 255).astype(np.uint8)))
        if soften < self.blur:
            chip = np.asarray(cv2.GaussianBlur(chip, (0, 0), 0.3 + 0.9 * sigma), np.uint8)
        return chip
