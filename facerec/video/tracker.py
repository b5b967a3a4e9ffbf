"""Faces of one frame after the other into tracks: motion, overlap and appearance, one assignment.

The two stages (sure detections first, then doubtful ones for the tracks that are left) follow
ByteTrack (Zhang et al., ECCV 2022); the appearance term and its veto are ours: two faces never
become one track because their boxes overlap.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_range
from facerec.embedder import Embeddings
from facerec.structures import Faces, Track

_GAIN, _SPEED_GAIN = 0.7, 0.3
"""Alpha-beta filter: share of the innovation that goes into the place and into the speed."""

_COAST_S = 0.5
"""A lost track is extrapolated no further than this; after it, it waits where it is."""

_MEMORY = 0.9
"""Share of the old appearance that is kept at each frame."""


@dataclass(frozen=True)
class TrackerSettings:
    """What decides an association; scores are the detector's, similarities cosines.

    Attributes:
        high_score: detections from here on can start a track.
        min_iou: least overlap of a detection with the predicted box.
        min_iou_doubtful: the same for detections below high_score.
        veto_similarity: below this a detection is somebody else, whatever the overlap.
        reunite_similarity: from here on a detection may continue a track without overlap.
        reach: how far from the prediction, in box sides, such a detection may be ...
        roam: ... and how much further for each second without a detection.
        confirm_hits: frames until a track counts; before that one miss ends it.
        max_gap_s: seconds without a detection after which a track ends.
    """

    high_score: float = 0.7
    min_iou: float = 0.2
    min_iou_doubtful: float = 0.4
    veto_similarity: float = 0.25
    reunite_similarity: float = 0.4
    reach: float = 2.0
    roam: float = 4.0
    confirm_hits: int = 3
    max_gap_s: float = 2.0

    def __post_init__(self) -> None:
        for name in ("high_score", "min_iou", "min_iou_doubtful"):
            check_range(getattr(self, name), name, 0, 1)
        for name in ("veto_similarity", "reunite_similarity"):
            check_range(getattr(self, name), name, -1, 1)
        if self.confirm_hits < 1 or not self.max_gap_s > 0 or not min(self.reach, self.roam) >= 0:
            raise InputError(
                "confirm_hits must be at least 1, max_gap_s above 0, reach and roam 0 or more"
            )


@dataclass
class _Live:
    """A track that may still grow."""

    number: int  # of all that were started
    state: NDArray[np.float64]  # centre x, y, width, height
    speed: NDArray[np.float64]  # of each, a second
    time_s: float
    look: NDArray[np.float32]
    best_norm: float
    track_id: int = 0  # of those that were confirmed, from 1; 0 = not yet
    missed: bool = False
    frames: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    faces: list[Faces] = field(default_factory=list)
    vectors: list[NDArray[np.float32]] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)

    def predict(self, time_s: float) -> NDArray[np.float64]:
        """Return the box expected at a time, float64 (4,): x1 y1 x2 y2."""
        step = min(time_s - self.time_s, _COAST_S)
        x, y, width, height = self.state + self.speed * step
        width, height = max(width, 1.0), max(height, 1.0)
        return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


class Tracker:
    """Feed frames in order with `update`; it gives back the tracks that ended.

    Deterministic: equal input gives equal tracks, and ties go to the lower number.

    Args:
        settings: see TrackerSettings.
    """

    def __init__(self, settings: TrackerSettings | None = None) -> None:
        self.settings = settings or TrackerSettings()
        self._live: list[_Live] = []
        self._last_time = -np.inf
        self._started = 0
        self._confirmed = 0

    def update(self, frame: int, time_s: float, faces: Faces, found: Embeddings) -> list[Track]:
        """Take in one frame and return the confirmed tracks that ended before it.

        Args:
            frame: its number.
            time_s: its time, not before the last frame's.
            faces: n faces, in any order.
            found: their n embeddings.

        Raises:
            InputError: time runs backwards, or n faces come with another number of embeddings.
        """
        if time_s < self._last_time:
            raise InputError(f"frame {frame} has time {time_s} s, before the last one's")
        if len(faces) != len(found):
            raise InputError(f"{len(faces)} faces came with {len(found)} embeddings")
        self._last_time = time_s
        ended = self._retire(time_s)
        sure = faces.scores >= self.settings.high_score
        pairs = self._assign(self._live, np.flatnonzero(sure), time_s, faces, found, True)
        taken = {t.number for t, _ in pairs}
        left = [t for t in self._live if t.number not in taken and not t.missed]
        pairs += self._assign(left, np.flatnonzero(~sure), time_s, faces, found, False)
        for track, position in pairs:
            self._extend(track, frame, time_s, faces[position], found, position)
        taken = {t.number for t, _ in pairs}
        for track in self._live:
            track.missed = track.number not in taken
        self._live = [t for t in self._live if t.track_id or not t.missed]
        used = [i for _, i in pairs]
        for i in (int(i) for i in np.flatnonzero(sure)):
            if i not in used and not _is_double(i, used, faces, found):
                self._start(frame, time_s, faces[i], found, i)
                used.append(i)
        return ended

    def finish(self) -> list[Track]:
        """End the video: return the confirmed tracks that were still alive."""
        ended = [_to_track(t) for t in self._live if t.track_id]
        self._live = []
        return ended

    def _retire(self, time_s: float) -> list[Track]:
        limit = self.settings.max_gap_s
        old = [t for t in self._live if time_s - t.time_s > limit]
        self._live = [t for t in self._live if time_s - t.time_s <= limit]
        return [_to_track(t) for t in old if t.track_id]

    def _assign(
        self,
        tracks: list[_Live],
        chosen: NDArray[np.int64],
        time_s: float,
        faces: Faces,
        found: Embeddings,
        sure: bool,
    ) -> list[tuple[_Live, int]]:
        if not tracks or not len(chosen):
            return []
        from scipy.optimize import linear_sum_assignment

        settings = self.settings
        predicted = np.stack([t.predict(time_s) for t in tracks])
        boxes = faces.boxes[chosen].astype(np.float64)
        overlap = box_iou(predicted, boxes)
        look = np.stack([t.look for t in tracks]) @ found.vectors[chosen].T
        near = overlap >= (settings.min_iou if sure else settings.min_iou_doubtful)
        # Where a track was lost for a while, overlap says little: appearance has to speak.
        fresh = np.array([not t.missed for t in tracks])[:, None]
        possible = fresh & near & (look >= settings.veto_similarity)
        if sure:
            gaps = np.array([time_s - t.time_s for t in tracks])[:, None]
            within = _centre_distance(predicted, boxes) <= settings.reach + settings.roam * gaps
            possible |= within & (look >= settings.reunite_similarity)
        # An impossible pair costs as much as staying alone, so that none is forced.
        cost = np.where(possible, -(overlap + look), 0.0)
        rows, columns = linear_sum_assignment(cost)
        return [
            (tracks[r], int(chosen[c]))
            for r, c in zip(rows, columns, strict=True)
            if possible[r, c]
        ]

    def _start(self, frame: int, time_s: float, face: Faces, found: Embeddings, i: int) -> None:
        self._started += 1
        vector = found.vectors[i]
        track = _Live(
            self._started,
            _to_state(face.boxes[0]),
            np.zeros(4),
            time_s,
            vector,
            float(found.norms[i]),
        )
        self._live.append(track)
        self._append(track, frame, time_s, face, found, i)

    def _extend(
        self, track: _Live, frame: int, time_s: float, face: Faces, found: Embeddings, i: int
    ) -> None:
        step = time_s - track.time_s
        expected = track.state + track.speed * step
        error = _to_state(face.boxes[0]) - expected
        # The second frame gives the first speed; from then on it is smoothed.
        first = len(track.frames) == 1
        track.state = expected + (1.0 if first else _GAIN) * error
        if step > 0:
            track.speed = track.speed + (1.0 if first else _SPEED_GAIN) * error / step
        track.time_s = time_s
        vector = found.vectors[i]
        # A frame with a low norm is a poor likeness: it changes the memory less.
        best = max(track.best_norm, float(found.norms[i]))
        share = (1 - _MEMORY) * (float(found.norms[i]) / best) ** 2
        track.best_norm = best
        look = (1 - share) * track.look + share * vector
        track.look = (look / max(float(np.linalg.norm(look)), 1e-12)).astype(np.float32)
        self._append(track, frame, time_s, face, found, i)

    def _append(
        self, track: _Live, frame: int, time_s: float, face: Faces, found: Embeddings, i: int
    ) -> None:
        track.frames.append(frame)
        track.times.append(time_s)
        track.faces.append(face)
        track.vectors.append(found.vectors[i])
        track.norms.append(float(found.norms[i]))
        if not track.track_id and len(track.frames) >= self.settings.confirm_hits:
            self._confirmed += 1
            track.track_id = self._confirmed


def box_iou(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return intersection over union of boxes (n, 4) and (m, 4), x1 y1 x2 y2: float64 (n, m)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    both = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(np.maximum(b[:, 2:] - b[:, :2], 0), axis=1) for b in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - both
    return np.asarray(both / np.maximum(union, 1e-12))


def _centre_distance(
    first: NDArray[np.float64], second: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the distances of box centres in sides of the first box, float64 (n, m)."""
    centres = [(b[:, :2] + b[:, 2:]) / 2 for b in (first, second)]
    sides = np.sqrt(np.prod(np.maximum(first[:, 2:] - first[:, :2], 1), axis=1))
    offsets = np.linalg.norm(centres[0][:, None] - centres[1][None], axis=2)
    return np.asarray(offsets / sides[:, None])


def _to_state(box: NDArray[np.float32]) -> NDArray[np.float64]:
    x1, y1, x2, y2 = (float(value) for value in box)
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])


def _is_double(i: int, used: Iterable[int], faces: Faces, found: Embeddings) -> bool:
    """Return whether a face is a second box on a face that is tracked already."""
    boxes = faces.boxes.astype(np.float64)
    return any(
        box_iou(boxes[i : i + 1], boxes[j : j + 1])[0, 0] > 0.5
        and float(found.vectors[i] @ found.vectors[j]) > 0.5
        for j in used
    )


def _to_track(live: _Live) -> Track:
    return Track(
        live.track_id,
        np.array(live.frames, np.int64),
        np.array(live.times, np.float64),
        np.concatenate([face.boxes for face in live.faces]),
        np.concatenate([face.landmarks for face in live.faces]),
        np.concatenate([face.scores for face in live.faces]),
        np.stack(live.vectors),
        np.array(live.norms, np.float32),
    )
