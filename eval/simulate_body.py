"""Bodies below the heads: neck, clothes, arms and legs that swing, in the pixels of a scene."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from eval.simulate_head import FACE_MIDDLE, FACE_WIDTH, Head, Light
from eval.simulate_walks import Walk

_FRACTION = 4  # binary digits behind the point of OpenCV's drawing
# A standing person in chip pixels, x from the middle line, mirrored.
_NECK = ((22, 96), (23, 132), (58, 150))
_TORSO = ((24, 138), (88, 158), (104, 190), (96, 300), (80, 330), (84, 470))
_HIPS, _KNEE, _FEET, _LEG = 455.0, 680.0, 905.0, 40.0
_SHOULDER, _HAND, _ARM = (98.0, 185.0), (112.0, 440.0), 17.0

KNEES = 7.7
"""Knees below the middle of the face's box, in face widths."""


@dataclass(frozen=True)
class Walker:
    """Somebody who can be drawn at any time.

    Attributes:
        head: of that person.
        walk: the way.
        cloth: linear colour of what is worn above, float32 (3,).
        legs: below.
    """

    head: Head
    walk: Walk
    cloth: Light
    legs: Light


def draw_body(walker: Walker, time_s: float, width: int, height: int) -> tuple[int, int, Light]:
    """Return a body's window (left, top) and layer, cut to the picture and a little more."""
    scale = walker.walk.size(time_s) / FACE_WIDTH
    x, y = walker.walk.place(time_s)
    reach = math.ceil(175 * scale) + 1
    left, top = math.floor(x) - reach, math.floor(y) - math.ceil(40 * scale)
    bottom = min(math.ceil(y + 900 * scale), height + reach)
    if bottom <= top or left > width or left + 2 * reach < 0:
        return left, top, np.zeros((0, 0, 4), np.float32)
    size = (2 * reach + 1, bottom - top)
    drawing = _Drawing(size, scale, (x - left, y - top))
    stride = walker.walk.stride(time_s)
    for side in (-1, 1):
        swing = 60 * side * stride
        leg = [(22 * side, _HIPS), (20 * side + 0.5 * swing, _KNEE), (14 * side + swing, _FEET)]
        drawing.line(leg, _LEG, walker.legs * np.float32(1.0 if side > 0 else 0.8))
    drawing.polygon(_mirror(_NECK), walker.head.skin * np.float32(0.55))
    drawing.oval((0.0, 50 - FACE_MIDDLE[1]), (43, 68), walker.head.hair)
    drawing.polygon(_mirror(_TORSO), walker.cloth)
    for side in (-1, 1):
        hand = (side * _HAND[0] - 34 * side * stride, _HAND[1])
        drawing.line([(side * _SHOULDER[0], _SHOULDER[1]), hand], _ARM * 2,
                     walker.cloth * np.float32(0.82))  # fmt: skip
    return left, top, drawing.finish()


def _mirror(half: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [*half, *((-x, y) for x, y in reversed(half))]


class _Drawing:
    """Shapes in chip pixels about the middle line, onto a layer of a scene's pixels."""

    def __init__(self, size: tuple[int, int], scale: float, middle: tuple[float, float]) -> None:
        self._light = np.zeros((size[1], size[0], 3), np.float32)
        self._alpha = np.zeros((size[1], size[0]), np.float32)
        self._scale = scale
        self._middle = np.array(middle)
        # Round bodies: darker towards the sides.
        aside = (np.arange(size[0], dtype=np.float32) - np.float32(middle[0])) / (110 * scale)
        self._shade = (1 - np.float32(0.45) * np.minimum(aside**2, 1))[None, :, None]

    def _place(self, points: Sequence[tuple[float, float]]) -> NDArray[np.int32]:
        there = np.array(points) - np.array([0.0, FACE_MIDDLE[1]])
        pixels = there * self._scale + self._middle
        return np.asarray(np.rint(pixels * (1 << _FRACTION)), np.int32)

    def polygon(self, points: Sequence[tuple[float, float]], colour: Light) -> None:
        """Fill a polygon."""
        there = self._place(points)
        part, shift = self._find_part(there, 1)
        mask = np.zeros(self._alpha[part].shape, np.uint8)
        if mask.size:
            cv2.fillPoly(mask, [there - shift], 255, cv2.LINE_AA, _FRACTION)
        self._paint(part, mask, colour)

    def line(self, points: Sequence[tuple[float, float]], wide: float, colour: Light) -> None:
        """Draw a line `wide` chip pixels wide."""
        there, pen = self._place(points), max(1, round(wide * self._scale))
        part, shift = self._find_part(there, pen)
        mask = np.zeros(self._alpha[part].shape, np.uint8)
        if mask.size:
            cv2.polylines(mask, [there - shift], False, 255, pen, cv2.LINE_AA, _FRACTION)
        self._paint(part, mask, colour)

    def oval(self, middle: tuple[float, float], half: tuple[float, float], colour: Light) -> None:
        """Fill an ellipse; its middle is given from the middle of the face."""
        angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        x = middle[0] + half[0] * np.cos(angle)
        y = middle[1] + FACE_MIDDLE[1] + half[1] * np.sin(angle)
        self.polygon(list(zip(x.tolist(), y.tolist(), strict=True)), colour)

    def _find_part(
        self, points: NDArray[np.int32], room: int
    ) -> tuple[tuple[slice, slice], NDArray[np.int32]]:
        """Return the part of the layer round some points, and its corner in their units."""
        low = np.maximum((points.min(axis=0) >> _FRACTION) - room, 0)
        high = np.maximum((points.max(axis=0) >> _FRACTION) + room + 2, low)
        return (slice(low[1], high[1]), slice(low[0], high[0])), low << _FRACTION

    def _paint(self, part: tuple[slice, slice], mask: NDArray[np.uint8], colour: Light) -> None:
        share = mask.astype(np.float32) * np.float32(1 / 255)
        light, alpha = self._light[part], self._alpha[part]
        light *= 1 - share[..., None]
        light += share[..., None] * (self._shade[:, part[1]] * colour)
        alpha += share * (1 - alpha)

    def finish(self) -> Light:
        """Return linear light times alpha, and alpha, float32 (h, w, 4)."""
        return np.dstack([self._light, self._alpha])
