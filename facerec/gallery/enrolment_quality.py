"""Is this picture good enough to be enrolled? Bounds on what the pipeline measures of a face."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facerec.checks import InputError, check_range
from facerec.structures import Faces

_POINTS = np.array(
    [
        [-0.5, 0.0, 0.0],
        [0.5, 0.0, 0.0],
        [0.0, 0.571, 0.55],
        [-0.414, 1.155, 0.1],
        [0.414, 1.155, 0.1],
    ]
)
"""Eyes, nose and mouth corners in inter-eye distances: x and y are those of the alignment template
made symmetric, z towards the camera is a common face's."""
_POINTS.flags.writeable = False

_Array = NDArray[np.float64]


@dataclass(frozen=True)
class FaceMeasures:
    """What is known of n faces, each float64 (n,), NaN where it is not.

    Attributes:
        face_px: shorter side of the box in pixels of the picture.
        inter_eye_px: distance of the eyes in pixels of the picture.
        det_score: the detector's, in [0, 1].
        norm: raw norm of the embedding, whose scale is the model's.
        sharpness: variance of the aligned chip's Laplacian, in squared grey levels.
        yaw_deg: turn to a side in degrees, positive with the nose to the right in the picture.
    """

    face_px: _Array
    inter_eye_px: _Array
    det_score: _Array
    norm: _Array
    sharpness: _Array
    yaw_deg: _Array

    def __len__(self) -> int:
        return len(self.face_px)


@dataclass(frozen=True)
class Refusal:
    """Why a picture is not enrolled.

    Attributes:
        measure: name of the field of FaceMeasures.
        value: what was measured.
        bound: what was asked.
        text: one sentence with both and what to do.
    """

    measure: str
    value: float
    bound: float
    text: str


_RULES = {
    "face_px": ("face {} px", 0, "take a larger picture"),
    "inter_eye_px": ("inter-eye distance {} px", 0, "take a larger picture"),
    "det_score": ("detector score {}", 2, "show the whole face, in even light"),
    "norm": ("norm of the embedding {}", 1, "take a clearer picture"),
    "sharpness": ("sharpness {}", 0, "take a picture that is in focus"),
    "yaw_deg": ("face turned by {} degrees", 0, "take a picture from the front"),
}
"""Measure -> how it is called, decimals, what to do."""


@dataclass(frozen=True)
class QualityGate:
    """The least that a picture must be to be enrolled; None asks for nothing.

    A measure that is not known refuses nobody. There is no bound on the head's pitch: five
    landmarks do not tell it from a long nose.

    Attributes:
        min_face_px: of the box's shorter side; below it a face is upscaled to the chip.
        min_inter_eye_px: of the eyes' distance; in the chip it is 35.
        min_det_score: in [0, 1].
        min_norm: of the raw embedding; no default, because each model has another scale.
        min_sharpness: of the chip's Laplacian; no default, because cameras sharpen differently.
        max_yaw_deg: turn to either side, in degrees.
    """

    min_face_px: float | None = 48.0
    min_inter_eye_px: float | None = 24.0
    min_det_score: float | None = 0.6
    min_norm: float | None = None
    min_sharpness: float | None = None
    max_yaw_deg: float | None = 45.0

    def __post_init__(self) -> None:
        highest = {"min_det_score": 1.0, "max_yaw_deg": 90.0}
        for name, value in vars(self).items():
            if value is not None:
                check_range(value, name, 0, highest.get(name, 1e9))

    def find_refusals(self, measures: FaceMeasures) -> list[list[Refusal]]:
        """Return for each face what speaks against it, in the order of the fields."""
        found: list[list[Refusal]] = [[] for _ in range(len(measures))]
        for setting, bound in vars(self).items():
            if bound is None:
                continue
            side, _, measure = setting.partition("_")
            values = np.asarray(getattr(measures, measure), np.float64)
            at_least = side == "min"
            if not at_least:
                values = np.abs(values)
            for row in np.flatnonzero(values < bound if at_least else values > bound):
                found[row].append(_word(measure, float(values[row]), bound, at_least))
        return found

    def explain(self, measures: FaceMeasures) -> list[str]:
        """Return one reason a face, "" for those that pass; several are joined by `; `."""
        return ["; ".join(r.text for r in refusals) for refusals in self.find_refusals(measures)]


def measure_faces(
    faces: Faces, norms: ArrayLike | None = None, sharpness: ArrayLike | None = None
) -> FaceMeasures:
    """Return the measures of n detected faces.

    Args:
        faces: boxes and landmarks in pixels of the picture, before any alignment.
        norms: (n,), raw norms; None: unknown.
        sharpness: (n,), variance of each chip's Laplacian; None: unknown.

    Raises:
        InputError: lengths that differ.
    """
    count = len(faces)
    sides = np.asarray(faces.boxes[:, 2:] - faces.boxes[:, :2], np.float64).min(axis=1)
    eyes = np.asarray(faces.landmarks[:, 1] - faces.landmarks[:, 0], np.float64)
    return FaceMeasures(
        sides,
        np.linalg.norm(eyes, axis=1),
        faces.scores.astype(np.float64),
        _read_column(norms, "norms", count),
        _read_column(sharpness, "sharpness", count),
        measure_yaw(faces.landmarks),
    )


def measure_yaw(landmarks: NDArray[np.float32]) -> _Array:
    """Return how far faces are turned to a side, float64 (n,), degrees in [-180, 180].

    Five points of a common face are fitted by an affine camera, which is linear least squares; the
    camera's direction, seen from the head, has the yaw, whatever the roll. A face's own
    proportions move it by some degrees: it tells a profile from a portrait, not 20 from 25.

    Args:
        landmarks: (n, 5, 2): left eye, right eye, nose, left and right mouth corner, as seen by
            the viewer, in pixels. NaN gives NaN, and so do points that all coincide.

    Raises:
        InputError: another shape.
    """
    points = np.asarray(landmarks, np.float64)
    if points.ndim != 3 or points.shape[1:] != (5, 2):
        raise InputError(f"landmarks must have shape (n, 5, 2), got {points.shape}")
    solid = np.linalg.pinv(_POINTS - _POINTS.mean(axis=0))
    camera = np.einsum("nkc,dk->ncd", points - points.mean(axis=1, keepdims=True), solid)
    lengths = np.linalg.norm(camera, axis=2, keepdims=True)
    known = (lengths > 1e-9).all(axis=(1, 2))
    camera = camera / np.where(lengths > 1e-9, lengths, 1.0)
    ahead = np.cross(camera[:, 0], camera[:, 1])
    # x to the right, y down and z to the viewer is a left-handed frame: the sign follows from it.
    yaw = np.degrees(np.arctan2(-ahead[:, 0], ahead[:, 2]))
    return np.where(known, yaw, np.nan)


def _read_column(values: ArrayLike | None, name: str, count: int) -> _Array:
    if values is None:
        return np.full(count, np.nan)
    column = np.asarray(values, np.float64)
    if column.shape != (count,):
        raise InputError(f"{name} must have shape ({count},), got {column.shape}")
    return column


def _word(measure: str, value: float, bound: float, at_least: bool) -> Refusal:
    what, decimals, advice = _RULES[measure]
    figure = f"{value:.{decimals}f}"
    while float(figure) == round(bound, decimals) and decimals < 6:  # 23.8 is not "24, 24 asked"
        decimals += 1
        figure = f"{value:.{decimals}f}"
    asked = f"at {'least' if at_least else 'most'} {bound:g} asked"
    return Refusal(measure, value, bound, f"{what.format(figure)}, {asked}; {advice}")
