"""A stand-in for a surveillance video of a user's own people: their pictures cross a scene."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from facerec.data.images import UnreadableImageError, read_image
from facerec.data.video_writer import open_video
from facerec.progress import Progress

_WIDTH, _HEIGHT, _FPS, _SECONDS = 960, 540, 25, 8
_SIDE = 200


def write_slides(path: Path, people: dict[str, list[Path]]) -> list[dict[str, Any]]:
    """Write an H.264 video in which a picture a person crosses from side to side, in two rows.

    Args:
        path: the .mp4 file.
        people: name -> pictures; the first that can be read is shown, a person without one is
            not.

    Returns:
        person and boxes (frame, x1, y1, x2, y2 of the whole picture) for each, as truth.
    """
    pictures = {}
    for name, paths in people.items():
        if (picture := _read_first(paths)) is not None:
            pictures[name] = _fit(picture)
    frames = _SECONDS * _FPS
    seen: list[dict[str, Any]] = [{"person": name, "boxes": []} for name in pictures]
    with (
        Progress("draw video", frames, "frames") as progress,
        open_video(path, _WIDTH, _HEIGHT, _FPS) as append,
    ):
        for frame in range(frames):
            scene = np.full((_HEIGHT, _WIDTH, 3), 110, np.uint8)
            for number, (picture, walk) in enumerate(zip(pictures.values(), seen, strict=True)):
                height, width = picture.shape[:2]
                row, column = number % 2, number // 2
                # Each has a third of a row to itself, so that no picture covers another.
                x = int(column * _WIDTH / 3 + (_WIDTH / 3 - width) * frame / frames)
                y = int(row * _HEIGHT / 2 + (_HEIGHT / 2 - height) / 2)
                scene[y : y + height, x : x + width] = picture
                walk["boxes"].append([frame, x, y, x + width, y + height])
            append(scene)
            progress.advance()
    return seen


def _read_first(paths: list[Path]) -> NDArray[np.uint8] | None:
    for path in paths:
        with contextlib.suppress(UnreadableImageError):
            return read_image(path)
    return None


def _fit(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = _SIDE / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    fitted = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return np.asarray(fitted, dtype=np.uint8)
