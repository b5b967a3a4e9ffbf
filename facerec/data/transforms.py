"""Chip to network input, and light and colour augmentation; images are RGB in [-1, 1].

The convention is stated here once: uint8 RGB becomes (x - 127.5) / 127.5.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from facerec.checks import check_known, check_range, require

MEAN = 127.5
STD = 127.5
_GREY = 127.5
_LEAST_SIDE = 8
_SEEDS = 2**32
# Width of a shadow's soft edge, share of the chip.
_PENUMBRA = 0.03


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


@dataclass(frozen=True)
class Photometric:
    """Random light and colour of a chip through albumentations, each change on its own.

    Colour changes cost small nets accuracy too (TRAINING 2.1), so by default about one chip in
    five is touched.

    Attributes:
        tone: probability of another brightness and contrast.
        gamma: probability of another gamma.
        colour: probability of another hue and saturation.
        grey: probability of a picture without colour.
        shadow: probability of one or two cast shadows.
        brightness_limit: largest shift, as a share of the full range.
        contrast_limit: largest relative change.
        gamma_limit: gamma lies in [1 / (1 + limit), 1 + limit].
        hue_limit_deg: largest turn of the hue, degrees.
        saturation_limit: largest change of the saturation, share of full saturation.
        shadow_limit: darkest shadow, share of the light that it takes.

    Raises:
        InputError: a value out of its limits, or a probability above 0 without albumentations.
    """

    tone: float = 0.08
    gamma: float = 0.04
    colour: float = 0.05
    grey: float = 0.02
    shadow: float = 0.03
    brightness_limit: float = 0.2
    contrast_limit: float = 0.2
    gamma_limit: float = 0.4
    hue_limit_deg: float = 10.0
    saturation_limit: float = 0.15
    shadow_limit: float = 0.5

    def __post_init__(self) -> None:
        for field in fields(self):
            highest = {"hue_limit_deg": 180.0, "gamma_limit": 4.0}.get(field.name, 1.0)
            check_range(getattr(self, field.name), field.name, 0, highest)
        if any(getattr(self, name) > 0 for name in _PHOTOMETRIC):
            _albumentations()

    def apply(self, chip: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return the chip uint8 RGB (h, w, 3), or a changed copy of it.

        The same number of draws is made whatever the settings, so that turning one change off
        leaves the others as they were.
        """
        chances = rng.random(len(_PHOTOMETRIC)).tolist()
        seeds = rng.integers(_SEEDS, size=len(_PHOTOMETRIC)).tolist()
        for name, chance, seed in zip(_PHOTOMETRIC, chances, seeds, strict=True):
            if chance < getattr(self, name):
                transform = self._build_transform(name)
                # Not through Compose: it gives all its transforms one seed, so that their
                # chances and strengths are the same.
                transform.set_random_seed(seed)
                chip = _darken(chip, transform) if name == "shadow" else _transform(chip, transform)
        return chip

    def _build_transform(self, name: str) -> Any:
        """Return a fresh transform: they keep state, and threads share this object."""
        library = _albumentations()
        if name == "tone":
            return library.RandomBrightnessContrast(
                brightness_limit=self.brightness_limit, contrast_limit=self.contrast_limit, p=1
            )
        if name == "gamma":
            highest = 1 + self.gamma_limit
            return library.RandomGamma(gamma_limit=(100 / highest, 100 * highest), p=1)
        if name == "colour":
            # OpenCV's hue counts in steps of two degrees.
            return library.HueSaturationValue(
                hue_shift_limit=self.hue_limit_deg / 2,
                sat_shift_limit=255 * self.saturation_limit,
                val_shift_limit=0,
                p=1,
            )
        if name == "grey":
            return library.ToGray(p=1)
        return library.RandomShadow(
            shadow_roi=(0, 0, 1, 1),
            num_shadows_limit=(1, 2),
            shadow_dimension=3,
            shadow_intensity_range=(0.4 * self.shadow_limit, self.shadow_limit),
            p=1,
        )


_PHOTOMETRIC = ("tone", "gamma", "colour", "grey", "shadow")


def build_photometric(**settings: Any) -> Photometric:
    """Return `Photometric` from a recipe's settings.

    Raises:
        InputError: an unknown name, a value out of its limits, or albumentations is missing.
    """
    check_known(settings, [field.name for field in fields(Photometric)], "photometric")
    return Photometric(**settings)


def _albumentations() -> Any:
    # It asks the network for news of itself at import.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    return require("albumentations")


def _transform(chip: NDArray[np.uint8], transform: Any) -> NDArray[np.uint8]:
    height, width = chip.shape[:2]
    # Several transforms fail on pictures of a few pixels.
    down, across = max(0, _LEAST_SIDE - height), max(0, _LEAST_SIDE - width)
    if down or across:
        chip = np.asarray(cv2.copyMakeBorder(chip, 0, down, 0, across, cv2.BORDER_REPLICATE))
    changed = np.asarray(transform(image=chip)["image"], np.uint8)
    return np.ascontiguousarray(changed[:height, :width])


def _darken(chip: NDArray[np.uint8], transform: Any) -> NDArray[np.uint8]:
    """Return the chip under a cast shadow; what the transform draws has too sharp an edge."""
    shade = _transform(np.full_like(chip, 255), transform)
    sigma = max(0.3, _PENUMBRA * max(chip.shape[:2]))
    soft = cv2.GaussianBlur(shade, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.multiply(chip, soft, scale=1 / 255), np.uint8)
