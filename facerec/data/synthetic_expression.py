"""Painting of what moves in a face: eyes and mouth, and glasses; small patches, finely sampled."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from facerec.data.synthetic_canvas import LEFT, TOP, Canvas, Floats, blend, smooth_curve
from facerec.data.synthetic_people import Identity, Nuisance

_SHIFT = 4  # fixed-point bits of cv2's sub-pixel drawing
_LIP_TINT = np.array([0.80, 0.46, 0.46])

Mask = NDArray[np.uint8]
Points = NDArray[np.float64]
_Ink = float | Sequence[float] | NDArray[np.float64]


def _ink(colour: _Ink) -> tuple[float, ...]:
    """Return a colour as cv2 takes it."""
    if isinstance(colour, (int, float)):
        return (float(colour),)
    return tuple(float(v) for v in colour)


class Patch:
    """A pixel-aligned window of a canvas on which shapes are drawn finer and then averaged.

    Colours are drawn on `paint` and coverage on masks, all at the fine size; `lay` averages both.

    Args:
        canvas: the raster it belongs to.
        low: x and y of its upper left corner, head units.
        high: x and y of its lower right corner, head units.
    """

    def __init__(self, canvas: Canvas, low: tuple[float, float], high: tuple[float, float]) -> None:
        first = np.floor(canvas.to_pixels(np.array(low))).astype(int).clip(0, canvas.size - 2)
        last = np.ceil(canvas.to_pixels(np.array(high))).astype(int).clip(first + 1, canvas.size)
        self.rows = slice(first[1], last[1])
        self.columns = slice(first[0], last[0])
        self.width, self.height = (int(v) for v in last - first)
        self.fine = 4 if canvas.size < 128 else 3 if canvas.size < 200 else 2
        self.scale = canvas.scale * self.fine
        self._origin = first / canvas.scale + (LEFT, TOP)
        self.paint = np.zeros((self.height * self.fine, self.width * self.fine, 3), np.uint8)

    def blank(self) -> Mask:
        """Return an empty fine mask."""
        return np.zeros(self.paint.shape[:2], np.uint8)

    def _fixed(self, points: Points) -> NDArray[np.int32]:
        pixels = (np.asarray(points) - self._origin) * self.scale - 0.5
        return np.round(pixels * (1 << _SHIFT)).astype(np.int32)

    def fill(self, target: Mask, points: Points, colour: _Ink = 255) -> None:
        """Fill a polygon on a fine mask or on `paint`."""
        cv2.fillPoly(target, [self._fixed(points)], _ink(colour), cv2.LINE_8, _SHIFT)

    def disc(self, target: Mask, x: float, y: float, radius: float, colour: _Ink = 255) -> None:
        """Fill a disc on a fine mask or on `paint`."""
        centre = self._fixed(np.array([x, y]))
        size = round(radius * self.scale * (1 << _SHIFT))
        at = (int(centre[0]), int(centre[1]))
        cv2.circle(target, at, size, _ink(colour), -1, cv2.LINE_8, _SHIFT)

    def line(
        self,
        target: Mask,
        points: Points,
        width: float,
        colour: _Ink = 255,
        closed: bool = False,
    ) -> None:
        """Draw a line on a fine mask or on `paint`."""
        thick = max(1, round(width * self.scale))
        cv2.polylines(
            target, [self._fixed(points)], closed, _ink(colour), thick, cv2.LINE_8, _SHIFT
        )

    def lay(
        self, albedo: Floats, mask: Mask, colour: _Ink | None, strength: float, soft: float = 0.0
    ) -> None:
        """Blend a colour, or `paint` when None, into the canvas picture where the mask is."""
        sigma = soft * self.scale
        if sigma > 0.3:
            mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), sigma), np.uint8)
        size = (self.width, self.height)
        share = cv2.resize(mask, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        share *= np.float32(strength / 255)
        view = albedo[:, self.rows, self.columns]
        if colour is None:
            averaged = cv2.resize(self.paint, size, interpolation=cv2.INTER_AREA)
            blend(view, share, averaged.transpose(2, 0, 1).astype(np.float32))
        else:
            blend(view, share, np.asarray(colour, np.float32))


def _lids(person: Identity, side: int, closure: float) -> tuple[NDArray[np.float64], ...]:
    """Return the upper and the lower lid as curves from the inner to the outer corner."""
    t = np.linspace(0, 1, 12)
    half = person.eye_length / 2
    opening = person.eye_open * (1 - closure)
    tilt = np.tan(np.deg2rad(person.eye_tilt))
    x = -half + 2 * half * t
    base = -tilt * x
    arc = np.sin(np.pi * t**0.9)
    # A shutting lid comes down from above onto the lower one, which hardly moves.
    low = base + 0.38 * person.eye_open * np.sin(np.pi * t**1.1)
    high = low - (0.0 if closure >= 1 else 1.0) * opening * arc
    centre = side * person.eye_half
    upper = np.stack([centre + side * x, high], axis=1)
    lower = np.stack([centre + side * x, low], axis=1)
    return upper, lower


def _paint_eye(
    canvas: Canvas, person: Identity, nuisance: Nuisance, albedo: Floats, side: int
) -> None:
    """Paint one eye with lids and lashes onto the skin, in place; side -1 is the viewer's left."""
    centre = side * person.eye_half
    reach = 0.5 * person.eye_length + 0.08
    patch = Patch(canvas, (centre - reach, -0.34), (centre + reach, 0.26))
    tone = np.array(person.skin)
    upper, lower = _lids(person, side, nuisance.eye_closure)
    radius = person.iris_size
    # Gaze is what both eyes do together, so it does not depend on the side.
    x = centre + 0.12 * nuisance.gaze * person.eye_length
    y = -0.12 * person.eye_open
    iris = np.array(person.iris_colour)
    patch.paint[:] = (226, 220, 214)
    patch.disc(patch.paint, x, y, radius, iris * 0.45)
    patch.disc(patch.paint, x, y, radius * 0.84, iris)
    patch.disc(patch.paint, x, y, radius * 0.42, (14, 12, 12))
    glint = x + 0.03 * float(np.sign(nuisance.light_x or 1))
    patch.disc(patch.paint, glint, y - 0.035, 0.022, (246, 246, 246))
    patch.line(patch.paint, upper, 0.045, tone * 0.30)  # the lid's shadow on the ball
    soft, almond, dark = patch.blank(), patch.blank(), patch.blank()
    lid = upper - np.array([0, 0.075 * (1 - 0.5 * nuisance.eye_closure)])
    patch.line(soft, lid[1:], 0.022, 140)
    patch.line(soft, lower[1:-1], 0.02, 110)
    patch.lay(albedo, soft, tone * 0.38, 1.0, 0.012)
    patch.fill(almond, np.concatenate([upper, lower[::-1]]))
    patch.lay(albedo, almond, None, 1.0)
    patch.line(dark, upper, 0.036)
    patch.lay(albedo, dark, (24, 18, 16), 0.88, 0.006)


def paint_eyes(canvas: Canvas, person: Identity, nuisance: Nuisance, albedo: Floats) -> None:
    """Paint both eyes onto the skin, in place."""
    for side in (-1, 1):
        _paint_eye(canvas, person, nuisance, albedo, side)


def mouth_corner(person: Identity, nuisance: Nuisance) -> tuple[float, float]:
    """Return x and y of the viewer's right mouth corner before pose, head units."""
    half = person.mouth_half * (1 + 0.16 * nuisance.smile - 0.10 * nuisance.mouth_open)
    return half, person.mouth_y - 0.075 * nuisance.smile + 0.02 * nuisance.mouth_open


def _lip_curves(person: Identity, nuisance: Nuisance) -> list[Points]:
    """Return four curves from corner to corner: top edge, upper and lower rim, bottom edge."""
    half, corner = mouth_corner(person, nuisance)
    gap, y = 0.22 * nuisance.mouth_open, person.mouth_y
    thin = 1 - 0.18 * max(nuisance.smile, 0)
    top, low = y - person.upper_lip * thin - 0.25 * gap, y + person.lower_lip * thin + gap
    bow = person.upper_lip * (0.12 + 0.35 * person.cupid)
    wing = top + 0.3 * person.upper_lip
    fall = low - 0.28 * person.lower_lip
    rows = [
        [(-0.5, wing), (-0.18, top), (0, top + bow), (0.18, top), (0.5, wing)],
        [(-0.4, y - 0.25 * gap), (0, y + 0.012 - 0.2 * gap), (0.4, y - 0.25 * gap)],
        [(-0.45, y + 0.75 * gap), (0, y + 0.012 + gap), (0.45, y + 0.75 * gap)],
        [(-0.5, fall), (0, low), (0.5, fall)],
    ]
    curves: list[Points] = []
    for row in rows:
        inner = [(x * half, level) for x, level in row]
        curves.append(smooth_curve([(-half, corner), *inner, (half, corner)], 5))
    return curves


def paint_mouth(canvas: Canvas, person: Identity, nuisance: Nuisance, albedo: Floats) -> None:
    """Paint lips, teeth and the dark between them onto the skin, in place."""
    half, corner = mouth_corner(person, nuisance)
    gap, y = 0.22 * nuisance.mouth_open, person.mouth_y
    patch = Patch(canvas, (-half - 0.12, y - 0.32), (half + 0.12, y + 0.30 + gap))
    tone = np.array(person.skin)
    lips = tone * (1 - (0.35 + 0.65 * person.lip_red) * (1 - _LIP_TINT))
    edge, upper_rim, lower_rim, bottom = _lip_curves(person, nuisance)
    shade, cover = patch.blank(), patch.blank()
    patch.line(shade, bottom + np.array([0, 0.06]), 0.06, 72)
    patch.disc(shade, -half, corner, 0.035, 115)
    patch.disc(shade, half, corner, 0.035, 115)
    patch.lay(albedo, shade, tone * 0.42, 1.0, 0.025)
    outline = np.concatenate([edge, bottom[::-1]])
    patch.fill(cover, outline)
    patch.paint[:] = lips.astype(np.uint8)
    patch.fill(patch.paint, np.concatenate([edge, upper_rim[::-1]]), lips * 0.84)
    shine = (lower_rim[6:-6] + bottom[6:-6]) / 2
    patch.line(patch.paint, shine, 0.03, np.minimum(lips * 1.13, 252))
    if gap > 0.01:
        patch.fill(patch.paint, np.concatenate([upper_rim, lower_rim[::-1]]), (58, 24, 24))
        teeth = upper_rim[::-1] + np.array([0, min(0.09, 0.7 * gap)])
        patch.fill(patch.paint, np.concatenate([upper_rim, teeth]), (216, 208, 196))
    patch.line(patch.paint, upper_rim, 0.024, tone * 0.28)
    patch.lay(albedo, cover, None, 0.95, 0.008)


def paint_glasses(canvas: Canvas, person: Identity, nuisance: Nuisance, albedo: Floats) -> None:
    """Draw a frame over the eyes, in place; nothing when `nuisance.glasses` is 0."""
    if not nuisance.glasses:
        return
    half = person.eye_half
    patch = Patch(canvas, (-1.15, -0.40), (1.15, 0.48))
    wide, tall = min(0.40, half - 0.07), 0.24 + 0.08 * (nuisance.clothes % 3)
    power = 2 / (2.0 + 1.5 * (nuisance.clothes % 2))
    t = np.linspace(0, 2 * np.pi, 40)
    c, s = np.cos(t), np.sin(t)
    rim = np.stack(
        [
            wide * np.sign(c) * np.abs(c) ** power,
            0.04 + tall * np.sign(s) * np.abs(s) ** power,
        ],
        axis=1,
    )
    mask = patch.blank()
    for side in (-1, 1):
        patch.line(mask, rim + np.array([side * half, 0]), 0.035, closed=True)
        arm = np.array([(side * (half + wide), 0.0), (side * 1.15, -0.05)])
        patch.line(mask, arm, 0.03)
    patch.line(mask, np.array([(-half + wide, 0.0), (0, -0.04), (half - wide, 0.0)]), 0.035)
    grey = 120 * (1 - nuisance.glasses) + 18
    patch.lay(albedo, mask, (grey, grey, grey), 0.9)
