"""A head cut out of a still, turned as in space, and drawn at a given size.

Heads live in the coordinates of the aligned chip (`ARCFACE_TEMPLATE`, 112 pixels), which go on
beyond the chip's border. All light is linear, and multiplied by its alpha.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from facerec.data.align import ARCFACE_TEMPLATE, similarity_transform
from facerec.data.linear_light import to_linear

Light = NDArray[np.float32]

FACE_WIDTH = 80.0
"""Width of YuNet's box round a face, chip pixels: the median over 318 pictures of LFW is 79.7."""
FACE_HEIGHT = 110.0
FACE_MIDDLE = (56.0, 64.5)
"""Middle of that box, chip pixels."""
_LEFT, _TOP, _RIGHT, _BOTTOM = -20.0, -36.0, 132.0, 148.0  # what is cut out, chip pixels
_MIDDLE = (56.0, 49.0)  # of the outline of a head
_HALF = (44.0, 71.0)
_ROUNDNESS = 2.2
_FEATHER = 7.0
# A smooth head: no slope so steep that a turn by 30 degrees folds it.
_DEPTH = 40.0
_DEPTH_MIDDLE = (56.0, 62.0)
_DEPTH_HALF = (64.0, 88.0)
_NOSE = (56.0, 73.0, 6.0, 9.0)  # place, height and width
_PIVOT = 0.6 * _DEPTH
_STEPS, _CLOSE = 16, 0.05  # of turning back: at most, and near enough, chip pixels
REACH = 118.0
"""No part of a head lies farther from its middle than this, chip pixels."""


@dataclass(frozen=True)
class Pose:
    """A turn of the head.

    Attributes:
        yaw_deg: to the viewer's right.
        pitch_deg: downwards.
        roll_deg: clockwise in the picture.
    """

    yaw_deg: float = 0.0
    pitch_deg: float = 0.0
    roll_deg: float = 0.0


@dataclass(frozen=True)
class Head:
    """A head that can be drawn.

    Attributes:
        sprite: float32 (h, w, 4), linear RGB times alpha, and alpha.
        scale: pixels of the sprite over chip pixels.
        landmarks: float64 (5, 2), chip pixels.
        hair: float32 (3,), linear colour of what is above the face.
        skin: float32 (3,), of the cheeks.
    """

    sprite: Light
    scale: float
    landmarks: NDArray[np.float64]
    hair: Light
    skin: Light


@dataclass(frozen=True)
class DrawnHead:
    """A head in the pixels of a scene.

    Attributes:
        left: column of the window's first pixel; may be negative.
        top: row, likewise.
        layer: float32 (h, w, 4), linear RGB times alpha, and alpha.
        face: float32 (h, w), 1 where the face is.
        box: float64 (4,), x1 y1 x2 y2, pixels of the scene.
        landmarks: float64 (5, 2), pixels of the scene.
    """

    left: int
    top: int
    layer: Light
    face: Light
    box: NDArray[np.float64]
    landmarks: NDArray[np.float64]


def cut_head(
    image: NDArray[np.uint8], landmarks: ArrayLike, face_px: float, slant: float = 0.0
) -> Head:
    """Return the head of a still, ready to be drawn up to `face_px` wide.

    Where the still ends the head does too, softly.

    Args:
        image: uint8 RGB (h, w, 3).
        landmarks: (5, 2) in its pixels.
        face_px: greatest width at which it will be drawn, pixels.
        slant: light from one side: by how much its share changes from the middle to the edge.

    Raises:
        InputError: degenerate landmarks.
    """
    scale = 2 * face_px / FACE_WIDTH
    matrix = similarity_transform(landmarks, ARCFACE_TEMPLATE)
    own = math.hypot(matrix[0, 0], matrix[1, 0])  # chip pixels a pixel of the still
    # Warped finer and averaged down where the still has more pixels than are wanted.
    fine = max(1, math.ceil(1 / (scale * own)))
    size = (math.ceil((_RIGHT - _LEFT) * scale), math.ceil((_BOTTOM - _TOP) * scale))
    to_sprite = matrix * (scale * fine)
    to_sprite[:, 2] += (np.array([0.5 - _LEFT, 0.5 - _TOP]) * scale * fine) - 0.5
    wide = (size[0] * fine, size[1] * fine)
    light = cv2.warpAffine(to_linear(image), to_sprite, wide, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.ones(image.shape[:2], np.float32), to_sprite, wide)
    if fine > 1:
        light = cv2.resize(light, size, interpolation=cv2.INTER_AREA)
        inside = cv2.resize(inside, size, interpolation=cv2.INTER_AREA)
    x, y = _sprite_grid(size, scale)
    shade = np.clip(1 + np.float32(slant) * (x - _MIDDLE[0]) / _HALF[0], 0.05, 2.0)
    colour = np.asarray(light, np.float32) * shade[..., None]
    alpha = _outline(x, y) * _fade_in(np.asarray(inside, np.float32), _FEATHER * scale)
    sprite = np.dstack([colour * alpha[..., None], alpha]).astype(np.float32)
    hair = _mean_colour(colour, (np.abs(x - 56) < 22) & (y > -14) & (y < 4) & (inside > 0.5))
    skin = _mean_colour(colour, (np.abs(np.abs(x - 56) - 20) < 8) & (y > 62) & (y < 82))
    points = np.asarray(landmarks, np.float64) @ matrix[:, :2].T + matrix[:, 2]
    return Head(sprite, scale, points, hair, skin)


def turn_points(points: ArrayLike, pose: Pose) -> NDArray[np.float64]:
    """Return where points of a head lie after yaw and pitch, float64 (n, 2), chip pixels."""
    places = np.asarray(points, np.float64)
    x, y = _turn(places[:, 0], places[:, 1], pose)
    return np.stack([x, y], axis=1)


def draw_head(head: Head, pose: Pose, middle: tuple[float, float], face_px: float) -> DrawnHead:
    """Draw a head with the middle of its face's box at `middle`, pixels of the scene.

    Each pixel is the mean of four samples, as a sensor's pixel collects light over its area.
    """
    scale = face_px / FACE_WIDTH
    reach = math.ceil(REACH * scale) + 1
    left, top = math.floor(middle[0]) - reach, math.floor(middle[1]) - reach
    side = 2 * reach + 1
    places = (np.arange(2 * side, dtype=np.float32) + 0.5) / 2 - 0.5
    angle = math.radians(pose.roll_deg)
    cosine, sine = math.cos(angle) / scale, math.sin(angle) / scale
    across = places + np.float32(left - middle[0])
    down = (places + np.float32(top - middle[1]))[:, None]
    centre = turn_points([FACE_MIDDLE], pose)[0]
    x = np.float32(cosine) * across + np.float32(sine) * down + np.float32(centre[0])
    y = np.float32(-sine) * across + np.float32(cosine) * down + np.float32(centre[1])
    x, y = _turn_back(x, y, pose)
    layer = cv2.remap(
        head.sprite,
        (x + np.float32(0.5 - _LEFT)) * np.float32(head.scale) - np.float32(0.5),
        (y + np.float32(0.5 - _TOP)) * np.float32(head.scale) - np.float32(0.5),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
    )
    layer = cv2.resize(layer, (side, side), interpolation=cv2.INTER_AREA)
    oval = ((x - FACE_MIDDLE[0]) / (FACE_WIDTH / 2)) ** 2
    oval += ((y - FACE_MIDDLE[1]) / (FACE_HEIGHT / 2)) ** 2
    face = cv2.resize((oval <= 1).astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    turn = np.array([[cosine, sine], [-sine, cosine]]) * scale**2
    points = (turn_points(head.landmarks, pose) - centre) @ turn + np.array(middle)
    half = np.array([FACE_WIDTH, FACE_HEIGHT]) * scale / 2
    box = np.concatenate([np.array(middle) - half, np.array(middle) + half])
    return DrawnHead(left, top, np.asarray(layer), np.asarray(face), box, points)


def _sprite_grid(size: tuple[int, int], scale: float) -> tuple[Light, Light]:
    """Return the chip coordinates of a sprite's pixels, float32 (1, w) and (h, 1)."""
    x = (np.arange(size[0], dtype=np.float32) + 0.5) / scale - 0.5 + _LEFT
    y = (np.arange(size[1], dtype=np.float32) + 0.5) / scale - 0.5 + _TOP
    return x[None, :].astype(np.float32), y[:, None].astype(np.float32)


def _outline(x: Light, y: Light) -> Light:
    """Return 1 inside the outline of a head, 0 outside, with a soft edge."""
    far = np.abs((x - _MIDDLE[0]) / _HALF[0]) ** _ROUNDNESS
    far = far + np.abs((y - _MIDDLE[1]) / _HALF[1]) ** _ROUNDNESS
    beyond = (far ** (1 / _ROUNDNESS) - 1) * _HALF[0]
    return np.asarray(np.clip(0.5 - beyond / _FEATHER, 0, 1), np.float32)


def _fade_in(inside: Light, feather: float) -> Light:
    """Return 0 at the border of the still to 1 `feather` pixels within it."""
    whole = (inside > 0.5).astype(np.uint8)
    if whole.all():
        return np.ones_like(inside)
    depth = cv2.distanceTransform(np.pad(whole, 1, mode="edge"), cv2.DIST_L2, 5)[1:-1, 1:-1]
    return np.asarray(np.clip(depth / max(feather, 1e-3), 0, 1), np.float32)


def _mean_colour(light: Light, where: NDArray[np.bool_]) -> Light:
    chosen = light[where]
    if not len(chosen):
        return np.array([0.08, 0.06, 0.05], np.float32)
    return np.asarray(np.median(chosen, axis=0), np.float32)


def _depth(x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return how far a head comes towards the camera at a place, chip pixels."""
    far = ((x - _DEPTH_MIDDLE[0]) / _DEPTH_HALF[0]) ** 2
    far = far + ((y - _DEPTH_MIDDLE[1]) / _DEPTH_HALF[1]) ** 2
    depth = (0.5 * _DEPTH) * (1 + np.cos(np.pi * np.sqrt(np.minimum(far, 1))))
    near = (x - _NOSE[0]) ** 2 + (y - _NOSE[1]) ** 2
    deep: NDArray[np.floating] = depth + _NOSE[2] * np.exp(-near / (2 * _NOSE[3] ** 2))
    return deep


def _turn(
    x: NDArray[np.floating], y: NDArray[np.floating], pose: Pose
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return places after a turn about the middle of the head, seen from far away."""
    yaw, pitch = math.radians(pose.yaw_deg), math.radians(pose.pitch_deg)
    ahead = _depth(x, y) - _PIVOT
    across = (x - _DEPTH_MIDDLE[0]) * math.cos(yaw) + ahead * math.sin(yaw)
    ahead = ahead * math.cos(yaw) - (x - _DEPTH_MIDDLE[0]) * math.sin(yaw)
    down = (y - _DEPTH_MIDDLE[1]) * math.cos(pitch) + ahead * math.sin(pitch)
    return across + _DEPTH_MIDDLE[0], down + _DEPTH_MIDDLE[1]


def _turn_back(x: Light, y: Light, pose: Pose) -> tuple[Light, Light]:
    """Return which places of the head a turn brings to x and y, by fixed-point steps."""
    from_x, from_y = x, y
    for _ in range(_STEPS):
        at_x, at_y = _turn(from_x, from_y, pose)
        off_x, off_y = x - at_x, y - at_y
        from_x, from_y = from_x + off_x, from_y + off_y
        if max(np.abs(off_x).max(), np.abs(off_y).max()) < _CLOSE:
            break
    return np.asarray(from_x, np.float32), np.asarray(from_y, np.float32)
