"""Synthetic identities: seeded pictures of people who do not exist, with known truth.

A person is drawn in a head plane with a relief. A picture lights the relief, turns it, draws the
expression and degrades the result. Identity lives in shape and texture that all this leaves alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from facerec.checks import check_range
from facerec.data.align import ARCFACE_TEMPLATE, similarity_transform
from facerec.data.synthetic_camera import degrade, lay_over, make_background
from facerec.data.synthetic_canvas import LEFT, SPAN, TOP, Floats, blend
from facerec.data.synthetic_expression import mouth_corner, paint_eyes, paint_glasses, paint_mouth
from facerec.data.synthetic_face import FaceMaps, build_maps
from facerec.data.synthetic_people import (
    Identity,
    Nuisance,
    sample_identity,
    sample_nuisance,
)

__all__ = [
    "FacePicture",
    "Identity",
    "Nuisance",
    "degrade",
    "draw_face",
    "make_chips",
    "render_chip",
    "render_face",
    "sample_identity",
    "sample_nuisance",
]

_CANVAS_SIZES = (64, 96, 160, 256, 400)
_POSE_STEPS = 5


class FacePicture(NamedTuple):
    """A drawn face.

    Attributes:
        image: uint8 RGB (h, w, 3).
        alpha: uint8 (h, w), 255 where the person covers the background.
        landmarks: float32 (5, 2), eyes, nose tip, mouth corners in pixels, as the viewer sees them.
        box: float32 (4,), x1 y1 x2 y2 of the face from brow to chin, pixels.
    """

    image: NDArray[np.uint8]
    alpha: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    box: NDArray[np.float32]


def _turn(nuisance: Nuisance) -> NDArray[np.float64]:
    """Return the head's rotation by yaw and pitch, float64 (3, 3)."""
    yaw, pitch = np.deg2rad(nuisance.yaw), np.deg2rad(nuisance.pitch)
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    turn: NDArray[np.float64] = about_x @ about_y
    return turn


def _project(
    maps: FaceMaps, turn: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return head plane points (k, 2) after the turn, seen from the front, float64 (k, 2)."""
    pixels = maps.canvas.to_pixels(points).astype(np.float32)
    z = cv2.remap(maps.height, pixels[:, :1], pixels[:, 1:], cv2.INTER_LINEAR)
    solid = np.concatenate([points, z.astype(np.float64)], axis=1)
    seen: NDArray[np.float64] = solid @ turn[:2].T
    return seen


def _landmarks(person: Identity, nuisance: Nuisance) -> NDArray[np.float64]:
    """Return the five landmarks in the head plane, float64 (5, 2)."""
    half, corner = mouth_corner(person, nuisance)
    eye = -0.12 * person.eye_open
    return np.array(
        [
            (-person.eye_half, eye),
            (person.eye_half, eye),
            (0.0, person.nose_y),
            (-half, corner),
            (half, corner),
        ]
    )


def _light(
    maps: FaceMaps, person: Identity, nuisance: Nuisance, turn: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Return the expression drawn and lit, with alpha, uint8 (s, s, 4)."""
    albedo = maps.albedo.copy()
    if nuisance.age > 0.02:
        albedo *= 1 - np.float32(0.42 * nuisance.age) * maps.wrinkles
    _recolour(maps, nuisance, albedo)
    paint_eyes(maps.canvas, person, nuisance, albedo)
    paint_mouth(maps.canvas, person, nuisance, albedo)
    paint_glasses(maps.canvas, person, nuisance, albedo)
    lamp = np.array([nuisance.light_x, nuisance.light_y, 1.0])
    lamp = turn.T @ (lamp / np.linalg.norm(lamp))
    facing = lamp.astype(np.float32) @ maps.normals
    np.maximum(facing, 0, out=facing)
    size = maps.canvas.size
    # A surface that faces the viewer under a frontal lamp keeps its own colour.
    even = np.float32(1 - nuisance.light)
    shade = (even + np.float32(1.25 * nuisance.light) * facing).reshape(size, size)
    gains = nuisance.exposure * np.array(
        [1 + 0.10 * nuisance.warmth, 1.0, 1 - 0.14 * nuisance.warmth], np.float32
    )
    planes = []
    for plane, gain in zip(albedo, gains, strict=True):
        plane *= shade
        plane *= np.float32(gain)
        np.minimum(plane, 255, out=plane)
        planes.append(plane.astype(np.uint8))
    return np.asarray(cv2.merge([*planes, maps.alpha]), np.uint8)


def _recolour(maps: FaceMaps, nuisance: Nuisance, albedo: Floats) -> None:
    """Apply grey hair, dye and the colour of the clothes, in place."""
    grey = 0.6 * max(0.0, nuisance.age - 0.25)
    gain = 1 + (0.5 if nuisance.hair_change > 0 else 0.35) * nuisance.hair_change
    if abs(gain - 1) > 0.02 or grey > 0.02:
        change = np.float32(gain - 1) * maps.hair
        albedo *= 1 + change
        blend(albedo, np.float32(grey) * maps.hair, (150, 148, 146))
    tone = np.random.default_rng(nuisance.clothes).uniform(0.15, 1.7, 3).astype(np.float32)
    rows = slice(int(0.84 * maps.canvas.size), None)
    albedo[:, rows] *= 1 + maps.clothes[rows] * (tone[:, None, None] - 1)


def _pose_maps(
    maps: FaceMaps,
    turn: NDArray[np.float64],
    matrix: NDArray[np.float64],
    width: int,
    height: int,
) -> tuple[Floats, Floats]:
    """Return where each output pixel lies on the canvas, two float32 (height, width).

    The turned relief is inverted by fixed-point steps; they contract because the relief is
    nowhere steeper than the turns are flat, but at the outline, where it is hidden anyway.
    """
    back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    u = np.arange(width, dtype=np.float32)[None, :]
    v = np.arange(height, dtype=np.float32)[:, None]
    b = back.astype(np.float32)
    x = b[0, 0] * u + b[0, 1] * v + b[0, 2]
    y = b[1, 0] * u + b[1, 1] * v + b[1, 2]
    plane = np.linalg.inv(turn[:2, :2])
    scale = maps.canvas.scale
    # canvas = plane^-1 (seen - depth column * z), in canvas pixels
    p = plane.astype(np.float32) * np.float32(scale)
    d = (plane @ turn[:2, 2] * scale).astype(np.float32)
    flat_x = p[0, 0] * x + p[0, 1] * y - np.float32(LEFT * scale + 0.5)
    flat_y = p[1, 0] * x + p[1, 1] * y - np.float32(TOP * scale + 0.5)
    z = np.float32(0.5) * np.ones_like(flat_x)
    for _ in range(_POSE_STEPS):
        z = cv2.remap(
            maps.height,
            flat_x - d[0] * z,
            flat_y - d[1] * z,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
    return flat_x - d[0] * z, flat_y - d[1] * z


def _draw(
    person: Identity, nuisance: Nuisance, matrix: NDArray[np.float64], width: int, height: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return RGB and alpha of a face under `matrix` (2, 3), from head units to pixels."""
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    fitting = [s for s in _CANVAS_SIZES if s / SPAN >= 0.72 * scale]
    maps = build_maps(person, fitting[0] if fitting else _CANVAS_SIZES[-1])
    turn = _turn(nuisance)
    lit = _light(maps, person, nuisance, turn)
    map_x, map_y = _pose_maps(maps, turn, matrix, width, height)
    drawn = cv2.remap(lit, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    image, alpha = np.ascontiguousarray(drawn[..., :3]), np.ascontiguousarray(drawn[..., 3])
    return image.astype(np.uint8, copy=False), alpha.astype(np.uint8, copy=False)


def _seen(person: Identity, nuisance: Nuisance) -> NDArray[np.float64]:
    """Return landmarks and box corners after pose, before roll, head units, float64 (7, 2)."""
    maps = build_maps(person, _CANVAS_SIZES[1])
    marks = _landmarks(person, nuisance)
    chin = person.chin_y + 0.05 * nuisance.mouth_open
    wide = 0.97 * person.face_width
    frame = np.array([(-wide, 0.3), (wide, 0.3), (0, -0.95), (0, chin)])
    seen = _project(maps, _turn(nuisance), np.concatenate([marks, frame]))
    x = seen[5:, 0]
    box = [(x.min(), seen[7:, 1].min()), (x.max(), seen[7:, 1].max())]
    return np.concatenate([seen[:5], box])


def _rotation(degrees: float) -> NDArray[np.float64]:
    angle = np.deg2rad(degrees)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def draw_face(
    person: Identity,
    nuisance: Nuisance,
    centre: tuple[float, float],
    eye_distance: float,
    width: int,
    height: int,
) -> FacePicture:
    """Draw a face without background or degradation into a picture of the given size.

    Args:
        person: who.
        nuisance: pose, light, expression; blur, noise and JPEG are not applied.
        centre: x and y in pixels of the point between the eyes.
        eye_distance: pixels per inter-eye distance of a mean face seen from the front.
        width: of the picture, pixels.
        height: of the picture, pixels.
    """
    check_range(eye_distance, "eye_distance", 1, 4096)
    seen = _seen(person, nuisance)
    turn = _rotation(nuisance.roll) * eye_distance
    shift = np.asarray(centre) - turn @ seen[:2].mean(axis=0)
    matrix = np.column_stack([turn, shift])
    image, alpha = _draw(person, nuisance, matrix, width, height)
    placed = seen @ turn.T + shift
    (x1, y1), (x2, y2) = seen[5], seen[6]
    corners = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)]) @ turn.T + shift
    middle, half = corners.mean(axis=0), 0.5 * eye_distance * np.array([x2 - x1, y2 - y1])
    box = np.concatenate([middle - half, middle + half])
    return FacePicture(image, alpha, placed[:5].astype(np.float32), box.astype(np.float32))


def render_face(person: Identity, nuisance: Nuisance, size: int) -> FacePicture:
    """Draw a head on a background into a square picture, degraded.

    Args:
        person: who.
        nuisance: everything else.
        size: side of the picture in pixels; the head fills about two thirds of it.

    Raises:
        InputError: size out of [32, 2048].
    """
    check_range(size, "size of the picture in pixels", 32, 2048)
    drawn = draw_face(person, nuisance, (0.5 * size, 0.46 * size), size / 4.4, size, size)
    rng = np.random.default_rng([nuisance.seed, 2])
    background = make_background(rng, size, size)
    mixed = lay_over(background, drawn.image, drawn.alpha)
    return drawn._replace(image=degrade(mixed, nuisance, size / 4.4 / 35.2))


def render_chip(person: Identity, nuisance: Nuisance) -> NDArray[np.uint8]:
    """Return an aligned chip, uint8 RGB (112, 112, 3), on the ArcFace five-point template.

    It is drawn straight in place, so roll has no effect; `nuisance.shift` moves the landmarks as
    a detector's error would.
    """
    seen = _seen(person, nuisance)[:5]
    rng = np.random.default_rng([nuisance.seed, 3])
    seen = seen + rng.normal(0, 1, seen.shape) * nuisance.shift
    matrix = similarity_transform(seen, ARCFACE_TEMPLATE)
    image, alpha = _draw(person, nuisance, np.asarray(matrix, np.float64), 112, 112)
    background = make_background(np.random.default_rng([nuisance.seed, 2]), 112, 112)
    return degrade(lay_over(background, image, alpha), nuisance)


def make_chips(
    people: int | Sequence[Identity], images: int, seed: int, kind: str = "web"
) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[Nuisance]]:
    """Return aligned chips of synthetic people with the truth.

    Args:
        people: how many (`sample_identity(seed, 0..people-1)`), or the identities themselves.
        images: chips a person.
        seed: of identities and pictures.
        kind: as in `sample_nuisance`.

    Returns:
        chips uint8 (n, 112, 112, 3), the person of each int64 (n,), the nuisance of each.
    """
    if isinstance(people, int):
        people = [sample_identity(seed, index) for index in range(people)]
    chips = np.empty((len(people) * images, 112, 112, 3), np.uint8)
    labels = np.repeat(np.arange(len(people), dtype=np.int64), images)
    nuisances = []
    for row, label in enumerate(labels):
        rng = np.random.default_rng([seed, int(label), row - int(label) * images, 104729])
        nuisances.append(sample_nuisance(rng, kind))
        chips[row] = render_chip(people[int(label)], nuisances[-1])
    return chips, labels, nuisances
