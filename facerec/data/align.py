"""Faces brought upright: five-point similarity in closed form, straight into one warp."""

from __future__ import annotations

import contextlib

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from facerec.checks import InputError, check_image
from facerec.structures import Faces

CHIP_SIZE = 112
"""Side of an aligned chip in pixels."""
ARCFACE_TEMPLATE: NDArray[np.float32] = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ],
    np.float32,
)
"""Where left eye, right eye, nose, left and right mouth corner (as seen by the viewer) lie in a
112x112 chip, float32 (5, 2), pixels. Source: ArcFace, Deng et al. 2019, and its public code."""
ARCFACE_TEMPLATE.flags.writeable = False


def similarity_transform(source: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """Return the similarity that brings `source` nearest to `target`, without reflection.

    Rotation, scale and shift are least squares optimal: Umeyama, "Least-squares estimation of
    transformation parameters between two point patterns", 1991. In two dimensions its singular
    value decomposition has a closed form: with points as complex numbers about their means, the
    factor is a = sum(conj(s) t) / sum(|s|^2). It is a rotation by the angle of a and a scale by
    |a|, so it can never mirror.

    Args:
        source: (n, 2), n at least 2, for a face the five landmarks in the picture.
        target: (n, 2), the same points where they should lie.

    Returns:
        float64 (2, 3): [R*scale | shift], as cv2.warpAffine takes it.

    Raises:
        InputError: shapes differ, a value is not finite, or all source or target points coincide.
    """
    points = np.asarray(source, np.float64)
    goals = np.asarray(target, np.float64)
    if points.shape != goals.shape or points.ndim != 2 or points.shape[1] != 2 or len(points) < 2:
        raise InputError(
            f"landmarks must be two arrays (n, 2) of the same n >= 2, "
            f"got {points.shape} and {goals.shape}"
        )
    if not (np.isfinite(points).all() and np.isfinite(goals).all()):
        raise InputError("landmarks must be finite, but hold NaN or infinity; detect again")
    middle, goal = points.mean(axis=0), goals.mean(axis=0)
    x, y = (points - middle).T
    u, v = (goals - goal).T
    spread = float((x * x + y * y).sum())
    real = float((x * u + y * v).sum())
    imaginary = float((x * v - y * u).sum())
    # Relative to the coordinates: subtracting means of equal points leaves rounding, not zero.
    tiny = len(points) * (1e-9 * (1 + np.abs(points).max())) ** 2
    if spread <= tiny or np.hypot(real, imaginary) <= 1e-12 * spread:
        raise InputError("landmarks must not all coincide; a face needs five different points")
    a, b = real / spread, imaginary / spread
    shift_x = goal[0] - (a * middle[0] - b * middle[1])
    shift_y = goal[1] - (b * middle[0] + a * middle[1])
    return np.array([[a, -b, shift_x], [b, a, shift_y]])


def align_face(
    image: NDArray[np.uint8], landmarks: ArrayLike, size: int = CHIP_SIZE
) -> NDArray[np.uint8]:
    """Return one face aligned to the ArcFace template: uint8 RGB (size, size, 3).

    What lies outside the picture is black.

    Args:
        image: uint8 RGB (h, w, 3).
        landmarks: (5, 2) in pixels, in the order of `ARCFACE_TEMPLATE`.
        size: side of the chip; the template is scaled with it.

    Raises:
        InputError: the picture is no uint8 RGB array, or the landmarks are degenerate.
    """
    check_image(image)
    matrix = similarity_transform(landmarks, ARCFACE_TEMPLATE * (size / CHIP_SIZE))
    chip = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)
    return np.asarray(chip, np.uint8)


def align_faces(image: NDArray[np.uint8], faces: Faces) -> tuple[Faces, NDArray[np.uint8]]:
    """Return the faces that can be aligned, and their chips, uint8 RGB (n, 112, 112, 3).

    Faces whose landmarks lie in one point are left out; n may be 0.

    Args:
        image: uint8 RGB (h, w, 3).
        faces: what a detector found in it.

    Raises:
        InputError: the picture is no uint8 RGB array.
    """
    check_image(image)
    kept: list[int] = []
    chips = np.zeros((len(faces), CHIP_SIZE, CHIP_SIZE, 3), np.uint8)
    for position, landmarks in enumerate(faces.landmarks):
        with contextlib.suppress(InputError):
            chips[len(kept)] = align_face(image, landmarks)
            kept.append(position)
    return faces[kept], chips[: len(kept)]
