"""Synthetic surveillance video: people walk through, cross, enter and leave; with the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError
from facerec.data.scene_drawing import (
    ANNOTATION_SCHEMA,
    DrawnScene,
    PlacedFace,
    annotation_row,
    draw_scene,
    nuisance_columns,
    write_table,
)
from facerec.data.synthetic import Identity, Nuisance, sample_nuisance
from facerec.data.synthetic_camera import make_background
from facerec.data.video_writer import open_video
from facerec.progress import Progress

_SEEN = 0.5  # share of a face that must show for a detector to find it
_FACE_WIDTH = 2.15  # head units, what `face_px` measures


@dataclass(frozen=True)
class Walk:
    """One person's way through a video.

    Attributes:
        person: who.
        nuisance: of the whole walk; pose and expression sway about it.
        first: frame of entering.
        last: frame after which the person has left.
        start: x, y in pixels and eye distance at `first`.
        end: the same at `last`.
        phase: of the swaying, radians.
    """

    person: Identity
    nuisance: Nuisance
    first: int
    last: int
    start: tuple[float, float, float]
    end: tuple[float, float, float]
    phase: float

    def at(self, frame: int, fps: int) -> PlacedFace | None:
        """Return the person as seen in a frame, None when not there."""
        if not self.first <= frame <= self.last:
            return None
        share = (frame - self.first) / max(1, self.last - self.first)
        x, y, eyes = (a + share * (b - a) for a, b in zip(self.start, self.end, strict=True))
        seconds = frame / fps
        sway = np.sin(2 * np.pi * 0.35 * seconds + self.phase)
        step = abs(np.sin(2 * np.pi * 0.9 * seconds + self.phase))
        nuisance = replace(
            self.nuisance,
            yaw=float(np.clip(self.nuisance.yaw + 10 * sway, -35, 35)),
            pitch=self.nuisance.pitch + 3 * float(np.cos(1.7 * seconds + self.phase)),
            roll=self.nuisance.roll + 2 * float(sway),
            mouth_open=float(np.clip(0.4 * np.sin(2.1 * seconds + 2 * self.phase), 0, 1)),
            eye_closure=1.0
            if (frame + int(40 * self.phase)) % 90 < 4
            else self.nuisance.eye_closure,
        )
        return PlacedFace(self.person, nuisance, (x, y - 0.12 * eyes * step), eyes)


def plan_walks(
    people: Sequence[Identity],
    frames: int,
    seed: int,
    width: int,
    height: int,
    face_px: tuple[float, float],
) -> list[Walk]:
    """Return a walk a person: alternately from left and right, so that paths cross."""
    walks = []
    for number, person in enumerate(people):
        rng = np.random.default_rng([seed, number, 29])
        nuisance = sample_nuisance(rng, "surveillance")
        small, large = (v / _FACE_WIDTH for v in face_px)
        eyes = sorted(rng.uniform(small, large, 2).tolist())
        near = (np.array(eyes) - small) / max(large - small, 1e-6)
        y = height * (0.28 + 0.30 * near) + rng.uniform(-0.04, 0.04) * height
        margin = 1.5 * large
        left, right = -margin, width + margin
        x = (left, right) if number % 2 == 0 else (right, left)
        stay = int(frames * rng.uniform(0.6, 0.9))
        slack = max(frames - stay, 1)
        first = int(slack * ((number * 0.37 + rng.uniform(0, 0.3)) % 1.0))
        # A face turned the way it walks, but mostly to the camera.
        turned = (1 if number % 2 == 0 else -1) * float(rng.uniform(4, 16))
        walks.append(
            Walk(
                person=person,
                nuisance=replace(nuisance, yaw=turned, glasses=0.0, eye_closure=0.1),
                first=first,
                last=min(frames - 1, first + stay),
                start=(x[0], float(y[0]), eyes[0]),
                end=(x[1], float(y[1]), eyes[1]),
                phase=float(rng.uniform(0, 2 * np.pi)),
            )
        )
    return walks


def _room(seed: int, width: int, height: int) -> NDArray[np.uint8]:
    """Return a dim corridor: wall, floor and some vertical structure."""
    rng = np.random.default_rng([seed, 31])
    room = make_background(rng, width, height).astype(np.float32)
    room = 0.25 * room + 0.75 * rng.uniform(80, 130)
    floor = int(0.72 * height)
    room[floor:] *= 0.72
    for x in np.sort(rng.uniform(0, width, 6)).astype(int):
        cv2.line(room, (int(x), 0), (int(x), floor), (60, 60, 64), 2, cv2.LINE_AA)
    return np.asarray(np.clip(room, 0, 255), np.uint8)


def _film(
    image: NDArray[np.uint8],
    rng: np.random.Generator,
    grain: NDArray[np.float32],
    light: float,
    blur_px: float,
) -> NDArray[np.uint8]:
    """Return a frame as a dim camera sees it; `grain` is a field that is shifted, not redrawn."""
    if blur_px > 0.25:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), blur_px), np.uint8)
    dy, dx = rng.integers(0, 64, 2)
    height, width = image.shape[:2]
    noisy = image * np.float32(light)
    noisy += grain[dy : dy + height, dx : dx + width, None]
    film: NDArray[np.uint8] = np.clip(noisy, 0, 255).astype(np.uint8)
    return film


def write_video(
    path: Path,
    annotations: Path,
    truth: Path,
    people: Sequence[Identity],
    seed: int,
    seconds: float = 10.0,
    width: int = 640,
    height: int = 360,
    fps: int = 25,
    face_px: tuple[float, float] = (44.0, 84.0),
    light: float = 0.8,
    noise_sigma: float = 5.0,
    blur_px: float = 0.7,
) -> int:
    """Write an H.264 video of people walking past a camera; return the number of frames.

    The annotation table has a row for every face of which at least half is seen, with key
    `NAME.mp4#FRAME`, frames from 0. The truth table has a row for every person and frame, seen or
    not: key, frame, track (from 1), person, visible, annotated, eye_distance, nuisance parameters.

    Args:
        path: the .mp4 file.
        annotations: Parquet file for the `annotations` detector.
        truth: Parquet file; keep it away from what a detector or a search may read.
        people: who walks past, known and unknown alike.
        seed: of paths, poses and noise.
        seconds: length.
        width: pixels, even, as is height.
        height: pixels.
        fps: frames a second.
        face_px: least and greatest width of a face, pixels.
        light: brightness of the scene in (0, 1].
        noise_sigma: sensor noise, grey levels.
        blur_px: lens blur, Gaussian sigma in pixels.

    Raises:
        InputError: nobody walks, or odd sides.
    """
    if not people or seconds * fps < 1:
        raise InputError(f"a video needs people and time, got {len(people)} and {seconds} s")
    frames = round(seconds * fps)
    walks = plan_walks(people, frames, seed, width, height, face_px)
    room = _room(seed, width, height)
    rng = np.random.default_rng([seed, 37])
    grain = rng.normal(0, noise_sigma, (height + 64, width + 64)).astype(np.float32)
    faces, facts = list[dict[str, Any]](), list[dict[str, Any]]()
    with (
        Progress("draw video", frames, "frames") as progress,
        open_video(path, width, height, fps) as append,
    ):
        for frame in range(frames):
            seen = [(n, f) for n, walk in enumerate(walks, 1) if (f := walk.at(frame, fps))]
            scene = draw_scene(room, [face for _, face in seen])
            append(_film(scene.image, rng, grain, light, blur_px))
            _record(f"{path.name}#{frame}", frame, seen, scene, faces, facts)
            progress.advance()
    write_table(annotations, faces, ANNOTATION_SCHEMA)
    write_table(truth, facts)
    return frames


def _record(
    key: str,
    frame: int,
    seen: Sequence[tuple[int, PlacedFace]],
    scene: DrawnScene,
    faces: list[dict[str, Any]],
    facts: list[dict[str, Any]],
) -> None:
    """Append a frame's rows to the annotations and to the truth."""
    for place, (track, face) in enumerate(seen):
        visible = float(scene.visible[place])
        if visible >= _SEEN:
            faces.append(annotation_row(key, scene.boxes[place], scene.landmarks[place]))
        facts.append(
            {
                "key": key,
                "frame": frame,
                "track": track,
                "person": face.person.name,
                "visible": visible,
                "annotated": visible >= _SEEN,
                "eye_distance": face.eye_distance,
                **nuisance_columns(face.nuisance),
            }
        )
