"""Pictures shrunk and turned for a detector, and the faces found there moved back."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from facerec.structures import Faces

LEAST_SIDE = 32
"""No side of a turned canvas is shorter, in pixels: detectors need some room."""


def shrink_image(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """Return a picture shrunk by area averaging, as it is where scale is 1 or more."""
    if scale >= 1:
        return image
    height, width = image.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def turn_image(
    image: NDArray[np.uint8], degrees: int, side: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return the picture turned on a bordered canvas, and the matrix (2, 3) that brought it there.

    The canvas is twice the turned picture, shrunk to `side` pixels, at angle 0, and just holds it
    otherwise.
    """
    height, width = image.shape[:2]
    angle = math.radians(degrees)
    cosine, sine = math.cos(angle), math.sin(angle)
    extent = np.array(
        [abs(cosine) * width + abs(sine) * height, abs(sine) * width + abs(cosine) * height]
    ) * (1 if degrees else 2)
    scale = min(1.0, side / float(extent.max()))
    small = shrink_image(image, scale)
    sizes = np.maximum(np.ceil(extent * scale - 1e-6), LEAST_SIDE).astype(int)
    linear = np.array([[cosine, -sine], [sine, cosine]])
    # Middles of pixel centres: from middle to middle, whatever the sizes.
    shift = (sizes - 1) / 2 - linear @ (np.array([small.shape[1], small.shape[0]]) - 1) / 2
    canvas = cv2.warpAffine(
        small, np.hstack([linear, shift[:, None]]), (int(sizes[0]), int(sizes[1]))
    )
    shrink = shrink_matrix(image, small)
    whole = np.hstack([linear @ shrink[:, :2], (linear @ shrink[:, 2] + shift)[:, None]])
    return np.asarray(canvas, np.uint8), whole


def shrink_matrix(image: NDArray[np.uint8], small: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the matrix (2, 3) from a picture's pixels to those of its shrunk copy.

    Pixel centres lie at +0.5, so shrinking shifts them as well.
    """
    x = small.shape[1] / image.shape[1]
    y = small.shape[0] / image.shape[0]
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2]])


def move_faces(faces: Faces, matrix: NDArray[Any]) -> Faces:
    """Return the faces moved by an affine matrix (2, 3); a box stays upright and as large.

    The centre of a box is moved and its sides are scaled: the corners of a turned box would span
    a larger one.
    """
    linear, shift = matrix[:, :2], matrix[:, 2]
    landmarks = faces.landmarks @ linear.T + shift
    centres = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2 @ linear.T + shift
    halves = (faces.boxes[:, 2:] - faces.boxes[:, :2]) / 2 * np.linalg.norm(linear, axis=0)
    boxes = np.concatenate([centres - halves, centres + halves], axis=1)
    return Faces(boxes.astype(np.float32), landmarks.astype(np.float32), faces.scores)
