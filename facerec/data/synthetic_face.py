"""Painting of what does not move in a face: skin, nose, brows, beard and the relief under light."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from facerec.data.synthetic_canvas import Canvas, Floats, blend, smooth_curve
from facerec.data.synthetic_hair import paint_back_hair, paint_beard, paint_front_hair
from facerec.data.synthetic_people import Identity

HEAD_TOP = -1.70
DEPTH = 0.78
"""How far the middle of the face stands out over its edge, head units."""


@dataclass(frozen=True)
class FaceMaps:
    """The layers of one identity on one canvas of s x s pixels.

    Attributes:
        canvas: the raster.
        albedo: float32 (3, s, s), colour without light, 0..255; eyes and mouth not yet on it.
        alpha: uint8 (s, s), 255 where the person covers the background.
        height: float32 (s, s), relief towards the viewer, head units.
        normals: float32 (3, s * s), unit.
        wrinkles: float32 (s, s), darkening at age 1.
        hair: float32 (s, s), share of hair.
        clothes: float32 (s, s), share of clothes.
    """

    canvas: Canvas
    albedo: Floats
    alpha: NDArray[np.uint8]
    height: Floats
    normals: Floats
    wrinkles: Floats
    hair: Floats
    clothes: Floats


def face_outline(identity: Identity) -> NDArray[np.float64]:
    """Return the closed outline of head and jaw, float64 (k, 2)."""
    wide, jaw = identity.face_width, identity.jaw_width * identity.face_width
    chin = identity.chin_y
    right = [
        (0.0, HEAD_TOP),
        (0.55 * wide, HEAD_TOP + 0.12),
        (0.90 * wide, -1.15),
        (0.99 * wide, -0.55),
        (1.00 * wide, 0.0),
        (0.98 * wide, 0.45),
        (0.55 * (wide + jaw) - 0.08, 0.9),
        (0.90 * jaw, identity.mouth_y + 0.12),
        (identity.chin_width + 0.12, chin - 0.16),
        (0.55 * identity.chin_width, chin - 0.02),
        (0.0, chin),
    ]
    left = [(-x, y) for x, y in right[-2:0:-1]]
    return smooth_curve([*right, *left, right[0]])


def face_height(canvas: Canvas, identity: Identity, head: Floats) -> Floats:
    """Return the relief of the head, float32 (s, s), head units towards the viewer."""
    middle = (HEAD_TOP + identity.chin_y) / 2
    tall = (identity.chin_y - HEAD_TOP) / 2
    r2 = (canvas.x / identity.face_width) ** 2 + ((canvas.y - middle) / tall) ** 2
    height: Floats = (DEPTH * (1 - np.minimum(r2, 1.25))).astype(np.float32)
    nose_y, wide = identity.nose_y, identity.nose_width
    # The ridge rises from between the eyes to the tip and falls quickly below it.
    along = np.clip((canvas.y + 0.15) / (nose_y + 0.15), 0, 1) ** 1.3
    along = along * np.exp(-0.5 * (np.maximum(canvas.y - nose_y, 0) / 0.10) ** 2)
    spread = identity.nose_bridge + 0.35 * wide * along
    height += identity.nose_height * along * np.exp(-0.5 * (canvas.x / spread) ** 2)
    for side in (-1, 1):
        eye = side * identity.eye_half
        canvas.raise_spot(height, -(0.06 + 0.06 * identity.eye_depth), eye, 0.02, 0.30, 0.17)
        canvas.raise_spot(height, 0.05, eye, 0.0, 0.15, 0.09)
        canvas.raise_spot(height, 0.06, eye, identity.brow_y, 0.34, 0.09)
        canvas.raise_spot(height, 0.07 * wide / 0.3, side * wide, nose_y + 0.03, 0.09, 0.09)
        canvas.raise_spot(height, 0.03 + 0.07 * identity.cheek, side * 0.62, 0.55, 0.25, 0.22)
    mouth = identity.mouth_y
    canvas.raise_spot(height, 0.05, 0, mouth, identity.mouth_half, 0.14)
    canvas.raise_spot(height, -0.04, 0, mouth + identity.lower_lip + 0.11, 0.25, 0.06)
    canvas.raise_spot(height, 0.07, 0, identity.chin_y - 0.2, identity.chin_width * 0.6, 0.13)
    edge = canvas.blur(head, 0.05)
    relief: Floats = (height * edge - 0.25 * DEPTH * (1 - edge)).astype(np.float32)
    return canvas.blur(relief, 0.025)


def find_normals(height: Floats, scale: float) -> Floats:
    """Return the unit normals of a relief, float32 (3, s * s); y runs down."""
    dx = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=scale / 8)
    dy = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=scale / 8)
    up = 1 / np.sqrt(dx * dx + dy * dy + 1)
    return np.stack([-dx * up, -dy * up, up]).reshape(3, -1).astype(np.float32)


def _paint_skin(canvas: Canvas, person: Identity, rng: np.random.Generator) -> Floats:
    """Return the skin as float32 (3, s, s): tone, blush, pores, freckles, moles, scar."""
    tone = np.array(person.skin, np.float32)
    patchy = 1 + canvas.noise(rng, 0.5) * 0.02 + canvas.noise(rng, 0.09) * 0.012
    skin: Floats = tone[:, None, None] * patchy.astype(np.float32)
    blush = tone * np.array([1.02, 0.82, 0.80], np.float32)
    for side in (-1, 1):
        canvas.dab(skin, (side * 0.6, 0.65, 0.26, 0.22), blush, 0.25 + 0.35 * person.cheek)
        socket = (side * person.eye_half, 0.03, 0.27, 0.16)
        canvas.dab(skin, socket, tone * np.float32(0.6), 0.16 + 0.24 * person.eye_depth)
        canvas.dab(skin, (side * 0.20, -0.06, 0.09, 0.16), tone * np.float32(0.6), 0.22)
    canvas.dab(skin, (0, person.nose_y, 0.18, 0.14), blush, 0.30)
    if person.freckles:
        dots = canvas.noise(rng, 0.045)
        where = canvas.spot(0, 0.45, 0.62, 0.30)
        mask = np.clip(dots - 1.0, 0, 1) * where * np.float32(0.8 * person.freckles)
        blend(skin, mask, tone * np.array([0.66, 0.52, 0.44], np.float32))
    for x, y, radius in person.moles:
        canvas.dab(skin, (x, y, radius, radius), tone * np.float32(0.32), 0.85)
    if person.scar is not None:
        x, y, degrees, length = person.scar
        canvas.dab(skin, (x, y, length / 2, 0.018), np.minimum(tone * 1.25, 250), 0.75, degrees)
    return skin


def _paint_nose(canvas: Canvas, person: Identity, skin: Floats) -> None:
    """Add what light alone does not give a nose: nostrils, wings and the shadow below."""
    tone = np.array(person.skin, np.float32)
    y, wide = person.nose_y, person.nose_width
    canvas.dab(skin, (0, y + 0.15, wide * 0.95, 0.045), tone * np.float32(0.5), 0.40)
    bright = np.minimum(tone * 1.33, 253)
    for side in (-1, 1):
        nostril = (side * wide * 0.48, y + 0.105, 0.065, 0.033)
        canvas.dab(skin, nostril, tone * np.float32(0.2), 1.15, side * 18)
        wing = smooth_curve(
            [
                (side * wide * 0.92, y - 0.08),
                (side * wide * 1.08, y + 0.03),
                (side * wide * 0.90, y + 0.12),
            ]
        )
        canvas.line(skin, wing, 0.04, 0.02, tone * np.float32(0.45), 0.6)
        flank = (side * (person.nose_bridge + 0.10), y * 0.45, 0.07, 0.26)
        canvas.dab(skin, flank, tone * np.float32(0.5), 0.16)
        ridge = (side * 0.05, (y + person.mouth_y) / 2 + 0.04, 0.025, 0.10)
        canvas.dab(skin, ridge, tone * np.float32(0.6), 0.15)
    canvas.dab(skin, (0, y * 0.4, 0.05, 0.25), bright, 0.18)
    canvas.dab(skin, (0, y - 0.02, 0.07, 0.06), bright, 0.25)


def _paint_brows(canvas: Canvas, person: Identity, skin: Floats, rng: np.random.Generator) -> None:
    """Draw two brows of strands, mirrored but for the strands' places."""
    tilt = np.tan(np.deg2rad(person.brow_tilt))
    colour = np.array(person.hair, np.float32) * np.float32(0.65)
    grain = 1 + 0.35 * canvas.noise(rng, 0.05)
    for side in (-1, 1):
        inner = person.eye_half - 0.45 * person.brow_length
        t = np.linspace(0, 1, 14)
        x = inner + t * person.brow_length
        arch = person.brow_arch * np.sin(np.pi * np.minimum(t * 0.85, 1)) ** 1.2
        y = person.brow_y - arch + tilt * (t - 0.5) * person.brow_length
        half = 0.5 * person.brow_thickness * np.clip(1.25 - t * 0.95, 0.15, 1)
        edge = np.concatenate([np.stack([x, y - half], 1), np.stack([x, y + half], 1)[::-1]])
        edge[:, 0] *= side
        mask = canvas.fill(edge, 0.018) * np.float32(person.brow_density)
        blend(skin, np.clip(mask * grain, 0, 1), colour)


def _paint_folds(canvas: Canvas, person: Identity) -> Floats:
    """Return where age draws lines, float32 (s, s) in [0, 1]."""
    lines = np.zeros((canvas.size, canvas.size), np.float32)
    for side in (-1, 1):
        fold = smooth_curve(
            [
                (side * (person.nose_width + 0.04), person.nose_y + 0.02),
                (side * (person.mouth_half + 0.06), person.mouth_y - 0.16),
                (side * (person.mouth_half + 0.13), person.mouth_y + 0.12),
            ]
        )
        canvas.raise_line(lines, fold, 0.05, 0.025, 0.55)
        outer = side * (person.eye_half + 0.5 * person.eye_length)
        for angle in (-0.12, 0.02, 0.16):
            foot = np.array([(outer, 0.02), (outer + side * 0.22, 0.02 + angle)])
            canvas.raise_line(lines, foot, 0.025, 0.012, 0.4)
        bag = smooth_curve(
            [
                (side * (person.eye_half - 0.24), 0.13),
                (side * person.eye_half, 0.24),
                (side * (person.eye_half + 0.24), 0.15),
            ]
        )
        canvas.raise_line(lines, bag, 0.03, 0.02, 0.5)
    for level in (0.25, 0.45, 0.65):
        y = person.brow_y + level * (person.hairline_y - person.brow_y)
        furrow = smooth_curve(
            [(-0.6, y + 0.03), (-0.25, y - 0.02), (0.25, y - 0.02), (0.6, y + 0.03)]
        )
        canvas.raise_line(lines, furrow, 0.025, 0.015, 0.45)
    return np.clip(lines, 0, 1)


def _paint_body(canvas: Canvas, person: Identity, picture: Floats) -> tuple[Floats, Floats]:
    """Paint neck and shoulders; return their joint mask and the mask of the clothes."""
    tone = np.array(person.skin, np.float32)
    neck_half = 0.72 * person.jaw_width * person.face_width
    neck = canvas.fill(
        np.array(
            [(-neck_half, 0.8), (neck_half, 0.8), (neck_half * 1.12, 2.6), (-neck_half * 1.12, 2.6)]
        ),
        0.02,
    )
    blend(picture, neck, tone * np.float32(0.78))
    shadow = canvas.spot(0, person.chin_y + 0.02, 0.7, 0.20)
    blend(picture, 0.55 * shadow * neck, tone * np.float32(0.42))
    shoulder = smooth_curve(
        [
            (-2.6, 2.23),
            (-1.5, 2.00),
            (-neck_half * 1.05, 1.76),
            (0.0, 2.04),
            (neck_half * 1.05, 1.76),
            (1.5, 2.00),
            (2.6, 2.23),
        ]
    )
    clothes = canvas.fill(np.concatenate([shoulder, [(2.6, 2.8), (-2.6, 2.8)]]), 0.01)
    blend(picture, clothes, (128, 128, 128))
    return np.maximum(neck, clothes), clothes


def _paint_ears(canvas: Canvas, person: Identity, picture: Floats) -> Floats:
    """Paint both ears; return their mask."""
    tone = np.array(person.skin, np.float32)
    mask: Floats = np.zeros((canvas.size, canvas.size), np.float32)
    for side in (-1, 1):
        x = side * person.face_width
        out = x + side * person.ear
        ear = smooth_curve(
            [(x, -0.22), (out, -0.24), (out, 0.12), (x + side * 0.06, 0.52), (x, 0.5)]
        )
        one = canvas.fill(ear, 0.012)
        blend(picture, one, tone * np.float32(0.9))
        hollow = canvas.spot(x + side * person.ear * 0.5, 0.06, person.ear * 0.3, 0.16)
        blend(picture, 0.5 * one * hollow, tone * np.float32(0.5))
        mask = np.maximum(mask, one)
    return mask


@lru_cache(maxsize=48)
def build_maps(person: Identity, size: int) -> FaceMaps:
    """Paint the layers of one person on a canvas of `size` pixels (about ten milliseconds).

    The last 48 are kept (some 100 MB), since pictures of one person come together.
    """
    canvas = Canvas(size)
    rng = np.random.default_rng(person.texture_seed)
    picture = np.empty((3, size, size), np.float32)
    picture[:] = 0.5 * np.array(person.skin, np.float32)[:, None, None]
    hair = paint_back_hair(canvas, person, picture, rng)
    body, clothes = _paint_body(canvas, person, picture)
    ears = _paint_ears(canvas, person, picture)
    head = canvas.fill(face_outline(person), 0.012)
    skin = _paint_skin(canvas, person, rng)
    _paint_nose(canvas, person, skin)
    paint_beard(canvas, person, skin, rng)
    _paint_brows(canvas, person, skin, rng)
    blend(picture, head, skin)
    front = paint_front_hair(canvas, person, picture, rng)
    height = face_height(canvas, person, head)
    height += np.float32(0.10) * canvas.blur(front, 0.05)
    return FaceMaps(
        canvas=canvas,
        albedo=picture,
        alpha=(np.maximum.reduce([hair, body, ears, head, front]) * 255).astype(np.uint8),
        height=height,
        normals=find_normals(height, canvas.scale),
        wrinkles=_paint_folds(canvas, person) * (1 - front),
        hair=np.clip(hair * (1 - np.maximum(np.maximum(head, body), ears)) + front, 0, 1),
        clothes=clothes * (1 - head) * (1 - front),
    )
