"""The place that people walk through, their bodies, and who hides whom: light before the camera."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from eval.simulate_body import Walker, draw_body
from eval.simulate_head import DrawnHead, Light, draw_head
from eval.simulate_walks import Walk
from facerec.data.degrade_optics import path_kernel
from facerec.data.linear_light import to_linear

_LEAST_BLUR_PX = 0.3


@dataclass(frozen=True)
class Room:
    """A still scene.

    Attributes:
        light: float32 (h, w, 3), linear.
        lamps: float32 (h, w), by which light at a place differs from the mean.
    """

    light: Light
    lamps: Light


@dataclass(frozen=True)
class SeenFace:
    """What the truth says of a person in a frame.

    Attributes:
        box: float64 (4,), x1 y1 x2 y2, pixels; may leave the picture.
        landmarks: float64 (5, 2), pixels.
        visible: share of the face that no nearer person and no border hides, in [0, 1].
    """

    box: NDArray[np.float64]
    landmarks: NDArray[np.float64]
    visible: float


def build_room(rng: np.random.Generator, width: int, height: int, knees: float) -> Room:
    """Return a corridor or a hall: wall, floor, doors, posters and the pools of its lamps.

    Args:
        rng: of everything in it.
        width: pixels.
        height: pixels.
        knees: row at which the people's knees are: the wall ends above it.
    """
    tone = rng.uniform(90, 175) + rng.uniform(-14, 14, 3)
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = tone.astype(np.uint8)
    floor = int(min(height * rng.uniform(0.5, 0.68), max(knees, 0.25 * height)))
    picture[floor:] = (tone * rng.uniform(0.45, 0.8) + rng.uniform(-10, 10, 3)).astype(np.uint8)
    _draw_tiles(picture, rng, floor)
    _draw_wall(picture, rng, floor)
    picture[floor - 3 : floor + 2] = (0.5 * tone).astype(np.uint8)
    across = np.arange(width, dtype=np.float32) / width
    down = np.arange(height, dtype=np.float32)[:, None] / height
    lamps = np.full((height, width), 0.55, np.float32)
    for x in rng.uniform(0, 1, 3):
        far = ((across - x) / 0.22) ** 2 + ((down - 0.3) / 0.6) ** 2
        lamps += np.float32(rng.uniform(0.2, 0.6)) * np.exp(-far)
    lamps /= lamps.mean()
    grain = rng.standard_normal((height, width), np.float32)
    grain = np.asarray(cv2.GaussianBlur(grain, (0, 0), 1.2), np.float32)
    light = to_linear(picture) * (lamps * (1 + np.float32(0.06) * grain))[..., None]
    return Room(np.asarray(light, np.float32), lamps)


def _draw_tiles(picture: NDArray[np.uint8], rng: np.random.Generator, floor: int) -> None:
    """Draw the joints of a tiled floor that runs to the horizon."""
    height, width = picture.shape[:2]
    joint = [int(0.8 * v) for v in picture[-1, 0]]
    vanish = (width * rng.uniform(0.3, 0.7), floor - 0.25 * height)
    for foot in np.arange(-1.5 * width, 2.5 * width, 0.16 * width):
        share = (floor - vanish[1]) / (height - vanish[1])
        start = (round(vanish[0] + (foot - vanish[0]) * share), floor)
        cv2.line(picture, start, (round(foot), height), joint, 1, cv2.LINE_AA)
    depth = 1.0
    while floor + (height - floor) * depth > floor + 2:
        y = round(floor + (height - floor) * depth)
        cv2.line(picture, (0, y), (width, y), joint, 1, cv2.LINE_AA)
        depth *= 0.72


def _draw_wall(picture: NDArray[np.uint8], rng: np.random.Generator, floor: int) -> None:
    """Draw doors, posters and pillars."""
    width = picture.shape[1]
    for x in np.sort(rng.uniform(0, width, int(rng.integers(2, 5)))):
        wide, high = width * rng.uniform(0.05, 0.11), floor * rng.uniform(0.55, 0.85)
        corner, end = (round(x), round(floor - high)), (round(x + wide), floor)
        colour = [int(v) for v in rng.uniform(50, 170) + rng.uniform(-25, 25, 3)]
        cv2.rectangle(picture, corner, end, colour, -1)
        cv2.rectangle(picture, corner, end, [int(0.6 * v) for v in colour], 2, cv2.LINE_AA)
    for x, y in rng.uniform((0, 0.1), (width, 0.5), (int(rng.integers(1, 4)), 2)):
        size = width * rng.uniform(0.03, 0.07)
        top = round(y * floor)
        blots = rng.integers(40, 200, (6, 4, 1)) + rng.integers(-30, 30, (6, 4, 3))
        sides = (round(size), round(1.4 * size))
        poster = np.asarray(cv2.resize(np.asarray(blots, np.uint8), sides), np.uint8)
        room = picture[top : top + len(poster), round(x) : round(x) + poster.shape[1]]
        room[:] = poster[: room.shape[0], : room.shape[1]]
    for x in rng.uniform(0, width, 2):
        cv2.line(picture, (round(x), 0), (round(x), floor), (70, 70, 74), 3, cv2.LINE_AA)


def draw_people(
    room: Room, walkers: Sequence[Walker], time_s: float, exposure_s: float
) -> tuple[Light, list[SeenFace]]:
    """Return a frame's light and each walker's truth, in the order given.

    The smaller a face, the farther its owner: nearer people are drawn over farther ones.

    Args:
        room: the place, not changed.
        walkers: everybody.
        time_s: of the frame.
        exposure_s: how long the shutter is open; what moves is smeared.

    Returns:
        Linear light, float32 (h, w, 3), and what is seen of each face.
    """
    light = room.light.copy()
    masks: dict[int, _Mask] = {}
    heads: dict[int, DrawnHead] = {}
    for number in sorted(range(len(walkers)), key=lambda i: (walkers[i].walk.size(time_s), i)):
        walker = walkers[number]
        walk = walker.walk
        head = draw_head(walker.head, walk.pose(time_s), walk.place(time_s), walk.size(time_s))
        blur = _motion_kernel(walk, time_s, exposure_s)
        height, width = room.lamps.shape
        x, y = (min(max(round(v), 0), side - 1) for v, side in
                zip(walk.place(time_s), (width, height), strict=True))  # fmt: skip
        layers = [draw_body(walker, time_s, width, height)]
        layers.append((head.left, head.top, head.layer))
        for left, top, layer in layers:
            if not layer.size:
                continue
            smeared, dx, dy = _smear(layer, blur)
            covered = _lay_over(light, smeared, left - dx, top - dy, float(room.lamps[y, x]))
            for mask in masks.values():
                mask.hide(covered)
        masks[number] = _Mask.of(head, width, height)
        heads[number] = head
    return light, [
        SeenFace(heads[i].box, heads[i].landmarks, masks[i].share()) for i in range(len(walkers))
    ]


def _motion_kernel(walk: Walk, time_s: float, exposure_s: float) -> Light:
    across, down = walk.velocity(time_s)
    length = math.hypot(across, down) * exposure_s
    if length < _LEAST_BLUR_PX:
        return np.ones((1, 1), np.float32)
    return path_kernel(length, math.degrees(math.atan2(down, across)))


def _smear(layer: Light, kernel: Light) -> tuple[Light, int, int]:
    """Return a layer blurred, with room for it at the border, and how much room (x, y)."""
    if kernel.size == 1:
        return layer, 0, 0
    down, across = (side // 2 for side in kernel.shape)
    # A body that reaches the bottom of the picture goes on below it.
    wider = cv2.copyMakeBorder(layer, down, down, across, across, cv2.BORDER_CONSTANT)
    return np.asarray(cv2.filter2D(wider, -1, kernel)), across, down


_Covered = tuple[slice, slice, Light]


def _lay_over(light: Light, layer: Light, left: int, top: int, gain: float) -> _Covered:
    """Lay a layer over the light; return where, and its alpha there."""
    height, width = light.shape[:2]
    x1, x2 = max(left, 0), min(left + layer.shape[1], width)
    y1, y2 = max(top, 0), min(top + layer.shape[0], height)
    if x1 >= x2 or y1 >= y2:
        return slice(0, 0), slice(0, 0), np.zeros((0, 0), np.float32)
    part = layer[y1 - top : y2 - top, x1 - left : x2 - left]
    there = light[y1:y2, x1:x2]
    there *= 1 - part[..., 3:]
    there += np.float32(gain) * part[..., :3]
    return slice(y1, y2), slice(x1, x2), part[..., 3]


@dataclass
class _Mask:
    """The face of somebody, to see how much of it is left."""

    rows: slice
    columns: slice
    left: Light
    whole: float

    @classmethod
    def of(cls, head: DrawnHead, width: int, height: int) -> _Mask:
        x1, y1 = max(head.left, 0), max(head.top, 0)
        x2 = max(min(head.left + head.face.shape[1], width), x1)
        y2 = max(min(head.top + head.face.shape[0], height), y1)
        inside = head.face[y1 - head.top : y2 - head.top, x1 - head.left : x2 - head.left]
        return cls(slice(y1, y2), slice(x1, x2), inside.copy(), float(head.face.sum()))

    def hide(self, covered: _Covered) -> None:
        """Take away what a nearer layer covers."""
        rows, columns, alpha = covered
        y1, y2 = max(rows.start, self.rows.start), min(rows.stop, self.rows.stop)
        x1, x2 = max(columns.start, self.columns.start), min(columns.stop, self.columns.stop)
        if y1 < y2 and x1 < x2:
            here = self.left[
                y1 - self.rows.start : y2 - self.rows.start,
                x1 - self.columns.start : x2 - self.columns.start,
            ]
            here *= (
                1
                - alpha[y1 - rows.start : y2 - rows.start, x1 - columns.start : x2 - columns.start]
            )

    def share(self) -> float:
        return float(self.left.sum()) / self.whole
