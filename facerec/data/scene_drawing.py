"""Pictures with any number of synthetic people in them, and the tables that say who is where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from facerec.data.synthetic import FacePicture, Identity, Nuisance, draw_face
from facerec.data.synthetic_camera import degrade, lay_over, make_background
from facerec.io import atomic_path

CHIP_EYE_DISTANCE = 35.2
"""Pixels between the eyes of an aligned chip: blur is stated at this scale."""

_WINDOW = 2.6  # head units drawn around the eyes; below that the body goes straight down

ANNOTATION_SCHEMA = pa.schema(
    [("key", pa.string())]
    + [(name, pa.float32()) for name in ("x1", "y1", "x2", "y2")]
    + [(f"l{axis}{mark}", pa.float32()) for mark in range(1, 6) for axis in "xy"]
    + [("score", pa.float32())]
)
"""Columns of the side-car table that the `annotations` detector reads: one row a face."""


@dataclass(frozen=True)
class PlacedFace:
    """One person in a picture.

    Attributes:
        person: who.
        nuisance: pose, light, expression.
        centre: x and y in pixels of the point between the eyes.
        eye_distance: pixels.
    """

    person: Identity
    nuisance: Nuisance
    centre: tuple[float, float]
    eye_distance: float


@dataclass(frozen=True)
class DrawnScene:
    """A picture and where its faces are.

    Attributes:
        image: uint8 RGB (h, w, 3).
        landmarks: float32 (n, 5, 2), in the order of the placed faces, pixels.
        boxes: float32 (n, 4), clipped to the picture.
        visible: float32 (n,), share of each face's box that no nearer person and no border hides.
    """

    image: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    boxes: NDArray[np.float32]
    visible: NDArray[np.float32]


def draw_scene(background: NDArray[np.uint8], faces: Sequence[PlacedFace]) -> DrawnScene:
    """Draw people over a background, the smallest (farthest) first.

    Args:
        background: uint8 RGB (h, w, 3), not changed.
        faces: whom to draw and where; no degradation is applied.
    """
    image = background.copy()
    height, width = image.shape[:2]
    owner = np.full((height, width), -1, np.int16)
    n = len(faces)
    landmarks = np.zeros((n, 5, 2), np.float32)
    boxes = np.zeros((n, 4), np.float32)
    for index in sorted(range(n), key=lambda i: (faces[i].eye_distance, i)):
        drawn, (x, y) = _paste(image, owner, index, faces[index])
        landmarks[index] = drawn.landmarks + np.array([x, y])
        boxes[index] = drawn.box + np.array([x, y, x, y])
    visible = np.array([_visible(owner, i, box) for i, box in enumerate(boxes)], np.float32)
    limit = np.array([width, height, width, height], np.float32)
    return DrawnScene(image, landmarks, np.clip(boxes, 0, limit), visible)


def _paste(
    image: NDArray[np.uint8], owner: NDArray[np.int16], index: int, face: PlacedFace
) -> tuple[FacePicture, tuple[int, int]]:
    """Draw one face into `image` and its number into `owner`; return it and its window's corner."""
    height, width = image.shape[:2]
    reach = _WINDOW * face.eye_distance
    x, y = face.centre
    left, top = int(np.clip(x - reach, 0, width - 1)), int(np.clip(y - reach, 0, height - 1))
    right = int(np.clip(np.ceil(x + reach), left + 1, width))
    bottom = int(np.clip(np.ceil(y + reach), top + 1, height))
    drawn = draw_face(
        face.person,
        face.nuisance,
        (x - left, y - top),
        face.eye_distance,
        right - left,
        bottom - top,
    )
    window = (slice(top, bottom), slice(left, right))
    image[window] = lay_over(image[window], drawn.image, drawn.alpha)
    owner[window][drawn.alpha > 127] = index
    if bottom < height:
        below = (slice(bottom, height), slice(left, right))
        image[below] = lay_over(image[below], drawn.image[-1:], drawn.alpha[-1:])
        owner[below][:, drawn.alpha[-1] > 127] = index
    return drawn, (left, top)


def _visible(owner: NDArray[np.int16], index: int, box: NDArray[np.float32]) -> float:
    """Return which share of a box's area belongs to person `index`, corners of the box aside."""
    x1, y1, x2, y2 = (float(v) for v in box)
    # The middle half of the box lies on the face whatever its outline.
    quarter_x, quarter_y = (x2 - x1) / 4, (y2 - y1) / 4
    columns = np.linspace(x1 + quarter_x, x2 - quarter_x, 9).astype(int)
    rows = np.linspace(y1 + quarter_y, y2 - quarter_y, 9).astype(int)
    height, width = owner.shape
    inside_x = columns[(columns >= 0) & (columns < width)]
    inside_y = rows[(rows >= 0) & (rows < height)]
    return float((owner[np.ix_(inside_y, inside_x)] == index).sum()) / 81


def draw_photo(
    faces: Sequence[PlacedFace],
    width: int,
    height: int,
    seed: int,
    look: Nuisance,
    plain: bool = False,
) -> DrawnScene:
    """Draw a still picture: background, people, and the camera's blur and noise.

    Args:
        faces: the first one sets the scale of the blur; none gives a background alone.
        width: pixels.
        height: pixels.
        seed: of the background.
        look: blur_px, noise_sigma and seed are read; JPEG is left to the writer.
        plain: a light wall as on documents.
    """
    background = make_background(np.random.default_rng([seed, 5]), width, height, plain)
    scene = draw_scene(background, faces)
    scale = faces[0].eye_distance / CHIP_EYE_DISTANCE if faces else 1.0
    look = Nuisance(blur_px=look.blur_px, noise_sigma=look.noise_sigma, seed=look.seed)
    image = degrade(scene.image, look, scale)
    return DrawnScene(image, scene.landmarks, scene.boxes, scene.visible)


def annotation_row(
    key: str, box: NDArray[np.float32], landmarks: NDArray[np.float32], score: float = 0.99
) -> dict[str, Any]:
    """Return one row of the annotation table: `key`, box (4,), landmarks (5, 2), score."""
    row: dict[str, Any] = {"key": key, "score": score}
    row.update(zip(("x1", "y1", "x2", "y2"), (float(v) for v in box), strict=True))
    for mark, (x, y) in enumerate(landmarks, 1):
        row[f"lx{mark}"], row[f"ly{mark}"] = float(x), float(y)
    return row


def nuisance_columns(nuisance: Nuisance) -> dict[str, Any]:
    """Return the nuisance parameters as columns of a truth table."""
    return asdict(nuisance)


def write_table(
    path: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema | None = None
) -> None:
    """Write rows as Parquet, all or nothing."""
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
