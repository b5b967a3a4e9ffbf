"""Aligned arrays for n faces, the answer to a search, a track: validated where they are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_one_of

FACE_POLICIES = ("largest", "central", "all")


@dataclass(frozen=True)
class Faces:
    """n faces of one picture.

    Attributes:
        boxes: float32 (n, 4), x1 y1 x2 y2 in pixels.
        landmarks: float32 (n, 5, 2): left eye, right eye, nose, left and right mouth corner, as
            seen by the viewer, in pixels.
        scores: float32 (n,), the detector's, in [0, 1].
    """

    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]

    def __post_init__(self) -> None:
        n = len(self.boxes)
        for name, shape in (("boxes", (n, 4)), ("landmarks", (n, 5, 2)), ("scores", (n,))):
            array = np.asarray(getattr(self, name), dtype=np.float32)
            if array.shape != shape:
                raise InputError(f"{name} of {n} faces must have shape {shape}, got {array.shape}")
            object.__setattr__(self, name, array)

    @classmethod
    def empty(cls) -> Faces:
        """Return no faces."""
        return cls(
            np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, np.float32)
        )

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Any) -> Faces:
        """Return the faces at a slice, a mask or a list of positions."""
        if isinstance(index, (int, np.integer)):
            index = [int(index)]
        return Faces(self.boxes[index], self.landmarks[index], self.scores[index])

    def areas(self) -> NDArray[np.float32]:
        """Return the box areas in square pixels, float32 (n,)."""
        sides = np.maximum(self.boxes[:, 2:] - self.boxes[:, :2], 0)
        areas: NDArray[np.float32] = sides[:, 0] * sides[:, 1]
        return areas

    def select(self, policy: str, height: int, width: int) -> Faces:
        """Return the faces that a policy takes from a picture of the given size.

        `largest`: the greatest box; `central`: the box centre nearest the picture's; `all`: every
        face. Ties go to the lower position.
        """
        check_one_of(policy, "face policy", FACE_POLICIES)
        if policy == "all" or not len(self):
            return self
        if policy == "largest":
            return self[int(np.argmax(self.areas()))]
        centres = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2
        offsets = np.linalg.norm(centres - np.array([width / 2, height / 2]), axis=1)
        return self[int(np.argmin(offsets))]


class Detector(Protocol):
    """Anything that finds faces in a picture."""

    name: str

    def detect(self, image: NDArray[np.uint8], key: str = "") -> Faces:
        """Return the faces in a uint8 RGB picture (h, w, 3), best score first.

        Args:
            image: the picture.
            key: its path relative to the set's root, for detectors that read a side-car table;
                a video frame is `name.mp4#12`.
        """
        ...


@dataclass(frozen=True)
class Match:
    """One candidate of a search.

    Attributes:
        person: the name it was enrolled under.
        score: cosine in [-1, 1].
        rank: 1 for the best.
        accepted: whether the score reaches the threshold.
    """

    person: str
    score: float
    rank: int
    accepted: bool


@dataclass
class Track:
    """One person through a video; the track, not the frame, is what is searched and counted.

    Attributes:
        track_id: unique in its video, from 1.
        frames: int64 (t,), frame numbers from 0.
        times_s: float64 (t,), seconds from the start of the video.
        boxes: float32 (t, 4).
        landmarks: float32 (t, 5, 2).
        scores: float32 (t,), the detector's.
        embeddings: float32 (t, d), unit norm.
        norms: float32 (t,), raw norms.
        dropped: position in the arrays -> why that frame does not count.
        template: float32 (d,), unit norm; None until aggregated.
    """

    track_id: int
    frames: NDArray[np.int64]
    times_s: NDArray[np.float64]
    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    norms: NDArray[np.float32]
    dropped: dict[int, str] = field(default_factory=dict)
    template: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        t = len(self.frames)
        for name in ("times_s", "boxes", "landmarks", "scores", "embeddings", "norms"):
            if len(getattr(self, name)) != t:
                raise InputError(f"{name} of a track of {t} frames has {len(getattr(self, name))}")

    def __len__(self) -> int:
        return len(self.frames)
