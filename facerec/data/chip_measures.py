"""What an aligned chip says of its own quality: how sharp it is, and how well exposed."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from facerec.checks import check_chips

_DARK, _BRIGHT = 16, 239
_MARGIN = 16


@dataclass(frozen=True)
class ChipMeasures:
    """What chips say of themselves.

    Attributes:
        sharpness: float32 (n,), variance of the Laplacian of the grey, in squared grey levels.
        exposure: float32 (n,), share of the inner pixels that are neither black nor burnt out.
    """

    sharpness: NDArray[np.float32]
    exposure: NDArray[np.float32]


def measure_chips(chips: NDArray[np.uint8]) -> ChipMeasures:
    """Return sharpness and exposure of aligned chips.

    Args:
        chips: uint8 RGB (n, 112, 112, 3).

    Raises:
        InputError: other arrays than such chips.
    """
    check_chips(chips)
    sharpness, exposure = np.empty(len(chips), np.float32), np.empty(len(chips), np.float32)
    inner = slice(_MARGIN, -_MARGIN)
    for row, chip in enumerate(chips):
        grey = cv2.cvtColor(chip, cv2.COLOR_RGB2GRAY)
        sharpness[row] = cv2.Laplacian(grey, cv2.CV_32F).var()
        face = grey[inner, inner]
        exposure[row] = ((face >= _DARK) & (face <= _BRIGHT)).mean()
    return ChipMeasures(sharpness, exposure)
