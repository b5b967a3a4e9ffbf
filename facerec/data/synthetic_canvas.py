"""A square canvas in head units: soft masks, noise and colour blending for the face painter."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LEFT, TOP, SPAN = -2.2, -2.2, 4.4
"""The canvas shows x and y from LEFT and TOP over SPAN inter-eye distances."""

_SHIFT = 4  # fixed-point bits of cv2's sub-pixel drawing


class Canvas:
    """A square raster of `size` pixels over the head plane; y runs down.

    Attributes:
        size: side in pixels.
        scale: pixels per inter-eye distance.
        x: float32 (1, size), the x of each column in head units.
        y: float32 (size, 1), the y of each row in head units.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.scale = size / SPAN
        steps = (np.arange(size, dtype=np.float32) + 0.5) / self.scale
        self.x: Floats = (LEFT + steps)[None, :].astype(np.float32)
        self.y: Floats = (TOP + steps)[:, None].astype(np.float32)

    def to_pixels(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return head coordinates (k, 2) as pixel coordinates, centre of pixel 0 at 0."""
        return (np.asarray(points, np.float64) - (LEFT, TOP)) * self.scale - 0.5

    def _fixed(self, points: NDArray[np.floating]) -> NDArray[np.int32]:
        return np.round(self.to_pixels(points) * (1 << _SHIFT)).astype(np.int32)

    def fill(self, points: NDArray[np.floating], soft: float = 0.0) -> Floats:
        """Return the mask in [0, 1] of a polygon, its edge blurred by `soft` head units."""
        mask = np.zeros((self.size, self.size), np.uint8)
        cv2.fillPoly(mask, [self._fixed(points)], 255, cv2.LINE_AA, _SHIFT)
        return self.blur(mask.astype(np.float32) / np.float32(255), soft)

    def spot(self, x: float, y: float, rx: float, ry: float) -> Floats:
        """Return a Gaussian spot in [0, 1] with the given radii (one sigma), float32 (s, s)."""
        across = np.exp(-0.5 * ((self.x - np.float32(x)) / np.float32(rx)) ** 2)
        down = np.exp(-0.5 * ((self.y - np.float32(y)) / np.float32(ry)) ** 2)
        return np.asarray(across * down, np.float32)

    def window(self, x: float, y: float, rx: float, ry: float) -> tuple[slice, slice]:
        """Return rows and columns within rx and ry of a point, clipped to the canvas."""
        low = self.to_pixels(np.array([x - rx, y - ry]))
        high = self.to_pixels(np.array([x + rx, y + ry]))
        first = np.clip(np.floor(low), 0, self.size - 1).astype(int)
        last = np.clip(np.ceil(high) + 1, first + 1, self.size).astype(int)
        return slice(first[1], last[1]), slice(first[0], last[0])

    def _windowed_spot(
        self, x: float, y: float, rx: float, ry: float, degrees: float
    ) -> tuple[tuple[slice, slice], Floats]:
        """Return the part of a Gaussian spot that matters, and its window."""
        reach = 3.0 * (max(rx, ry) if degrees else 1.0)
        window = self.window(x, y, reach * (1 if degrees else rx), reach * (1 if degrees else ry))
        dx = self.x[:, window[1]] - np.float32(x)
        dy = self.y[window[0]] - np.float32(y)
        if degrees:
            angle = np.deg2rad(degrees)
            c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
            u, v = (c * dx + s * dy) / np.float32(rx), (c * dy - s * dx) / np.float32(ry)
            return window, np.exp(-0.5 * (u * u + v * v))
        across = np.exp(-0.5 * (dx / np.float32(rx)) ** 2)
        return window, across * np.exp(-0.5 * (dy / np.float32(ry)) ** 2)

    def dab(
        self,
        picture: Floats,
        spot: tuple[float, float, float, float],
        colour: Sequence[float] | Floats,
        strength: float,
        degrees: float = 0.0,
    ) -> None:
        """Blend a Gaussian spot (x, y, rx, ry) of a colour into `picture`, in place."""
        window, mask = self._windowed_spot(*spot, degrees)
        strong = np.minimum(mask * np.float32(strength), np.float32(1))
        blend(picture[:, window[0], window[1]], strong, colour)

    def raise_spot(
        self, relief: Floats, amount: float, x: float, y: float, rx: float, ry: float
    ) -> None:
        """Add a Gaussian hill of `amount` to a relief, in place."""
        window, mask = self._windowed_spot(x, y, rx, ry, 0.0)
        relief[window] += np.float32(amount) * mask

    def line(
        self,
        picture: Floats,
        points: NDArray[np.floating],
        width: float,
        soft: float,
        colour: Sequence[float] | Floats,
        strength: float,
    ) -> None:
        """Blend a soft open line of a colour into `picture`, in place."""
        window, mask = self._windowed_stroke(points, width, soft)
        blend(picture[:, window[0], window[1]], mask * np.float32(strength), colour)

    def raise_line(
        self, relief: Floats, points: NDArray[np.floating], width: float, soft: float, amount: float
    ) -> None:
        """Add a soft open line of `amount` to a map, in place."""
        window, mask = self._windowed_stroke(points, width, soft)
        relief[window] += mask * np.float32(amount)

    def _windowed_stroke(
        self, points: NDArray[np.floating], width: float, soft: float
    ) -> tuple[tuple[slice, slice], Floats]:
        """Return a soft line on its own window; thin lines fade instead of vanishing."""
        low, high = np.min(points, axis=0), np.max(points, axis=0)
        middle, half = (low + high) / 2, (high - low) / 2 + width + 3 * soft
        window = self.window(middle[0], middle[1], half[0], half[1])
        shape = (window[0].stop - window[0].start, window[1].stop - window[1].start)
        mask = np.zeros(shape, np.uint8)
        corner = np.array([window[1].start, window[0].start]) << _SHIFT
        pixels = width * self.scale
        cv2.polylines(
            mask,
            [self._fixed(points) - corner.astype(np.int32)],
            False,
            255,
            max(1, round(pixels)),
            cv2.LINE_AA,
            _SHIFT,
        )
        faded = mask.astype(np.float32) * np.float32(min(1.0, pixels) / 255)
        return window, self.blur(faded, soft)

    def blur(self, mask: Floats, soft: float) -> Floats:
        """Return `mask` blurred by a Gaussian of `soft` head units."""
        sigma = soft * self.scale
        if sigma < 0.3:
            return mask
        return np.asarray(cv2.GaussianBlur(mask, (0, 0), sigma), np.float32)

    def noise(self, rng: np.random.Generator, grain: float) -> Floats:
        """Return smooth noise of about unit deviation with grains of `grain` head units.

        The field is drawn on a grid of its own, so that it looks alike at every canvas size.
        """
        cells = max(2, round(SPAN / grain))
        coarse = rng.standard_normal((cells, cells)).astype(np.float32)
        how = cv2.INTER_AREA if cells > self.size else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(coarse, (self.size, self.size), interpolation=how), np.float32)


def blend(picture: Floats, mask: Floats, colour: Sequence[float] | Floats) -> None:
    """Lay a colour, or a picture, over `picture` where `mask` says so, in place.

    Args:
        picture: float32 (3, h, w): planes, because numpy is several times faster on them.
        mask: float32 (h, w) in [0, 1].
        colour: three numbers or float32 (3, h, w).
    """
    paint = np.asarray(colour, np.float32)
    change = (paint[:, None, None] if paint.ndim == 1 else paint) - picture
    change *= mask
    picture += change


def smooth_curve(points: Sequence[tuple[float, float]], steps: int = 8) -> NDArray[np.float64]:
    """Return a Catmull-Rom curve through the points, float64 (k, 2), ends included."""
    p = np.asarray(points, np.float64)
    p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = (np.arange(steps) / steps)[None, :, None]
    a, b, c, d = (p[i : len(p) - 3 + i, None, :] for i in range(4))
    curve = 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    )
    return np.concatenate([curve.reshape(-1, 2), p[-2:-1]])


def smooth_step(values: Floats, low: float, high: float) -> Floats:
    """Return 0 below `low`, 1 above `high` and a smooth ramp between."""
    t = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    ramp: Floats = t * t * (3 - 2 * t)
    return ramp
