"""The faces of tracks, frame by frame, from pictures and videos.

Where a face is, the detector says: the one that overlaps the track's box most, or the largest where
a track has no box. With faces from the table, its landmarks are taken as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.doc2surv_layout import TrackFiles
from facerec.checks import InputError, check_one_of, check_whole
from facerec.data.align import align_faces
from facerec.data.images import UnreadableImageError, read_image
from facerec.dist import cpu_count
from facerec.io import atomic_path
from facerec.structures import FACE_POLICIES, Detector, Faces
from facerec.video.frames import Frame, VideoReader

DETECTOR, TABLE = "detector", "table"
_LEAST_OVERLAP = 0.3
_FRAMES = 16

Image = NDArray[np.uint8]
# A track's number in its video, the track, and the place of a frame among its own.
Wanted = tuple[int, TrackFiles, int]


@dataclass(frozen=True)
class EmbedSettings:
    """How faces are found.

    Attributes:
        faces: "detector", or "table": at the landmarks that come with the tracks, which takes
            detection, and its failures to acquire, out of the figures.
        every: look at every n-th frame of a video.
        policy: which face of a document counts, "largest" or "central".
    """

    faces: str = DETECTOR
    every: int = 1
    policy: str = "largest"

    def __post_init__(self) -> None:
        check_one_of(self.faces, "faces", (DETECTOR, TABLE))
        check_whole(self.every, "every", 1, 10_000)
        check_one_of(self.policy, "policy", [one for one in FACE_POLICIES if one != "all"])


@dataclass(frozen=True)
class TrackFace:
    """One face of a track.

    Attributes:
        track: its number in the video.
        chip: uint8 RGB (112, 112, 3).
        width: of its box in the picture, pixels.
    """

    track: int
    chip: Image
    width: float


@dataclass
class TrackFaces:
    """What became of a track's frames.

    Attributes:
        vectors: float32 (d,) each.
        norms: raw norms.
        widths: of the boxes, pixels.
        looked: frames looked at.
        unreadable: why the first picture that could not be read was not, "" when all could.
    """

    vectors: list[NDArray[np.float32]] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    looked: int = 0
    unreadable: str = ""


@dataclass(frozen=True)
class FaceFinder:
    """Finds tracks' faces in frames.

    Attributes:
        detector: called from several threads.
        settings: how.
    """

    detector: Detector
    settings: EmbedSettings

    def iter_faces(self, tracks: list[TrackFiles], found: list[TrackFaces]) -> Iterator[TrackFace]:
        """Yield the faces of a track of pictures, or of all tracks of one video.

        Args:
            tracks: one track of pictures, or those of one video.
            found: one a track; frames looked at are counted in it.

        Raises:
            InputError: no such video, or no landmarks where they are to be taken from the table.
        """
        if tracks[0].clip is None:
            yield from self._iter_pictures(tracks[0], found[0])
        else:
            yield from self._iter_clip(tracks[0].clip, tracks, found)

    def find(self, image: Image, wanted: list[Wanted], key: str) -> list[TrackFace]:
        """Return the faces of some tracks in a picture; fewer where some are not found."""
        faces: Faces | None = None
        found = []
        for number, track, place in wanted:
            box = None if track.boxes is None else track.boxes[place]
            if self.settings.faces == TABLE:
                if track.landmarks is None or box is None:
                    raise InputError(
                        f"track {track.name} comes without landmarks; take faces from the detector"
                    )
                one = Faces(box[None], track.landmarks[place][None], np.ones(1, np.float32))
            else:
                faces = self.detector.detect(image, key) if faces is None else faces
                one = _choose(faces, box, image)
            kept, chips = align_faces(image, one)
            if len(kept):
                width = float(kept.boxes[0, 2] - kept.boxes[0, 0])
                found.append(TrackFace(number, chips[0], width))
        return found

    def _iter_pictures(self, track: TrackFiles, found: TrackFaces) -> Iterator[TrackFace]:
        def look(place: int) -> tuple[list[TrackFace], str]:
            try:
                image = read_image(track.pictures[place])
            except UnreadableImageError as error:
                return [], error.reason
            return self.find(image, [(0, track, place)], track.pictures[place].name), ""

        places = iter(range(len(track.pictures)))
        with ThreadPoolExecutor(cpu_count(), thread_name_prefix="frames") as pool:
            while block := list(islice(places, _FRAMES)):
                for faces, reason in pool.map(look, block):
                    found.looked += 1
                    found.unreadable = found.unreadable or reason
                    yield from faces

    def _iter_clip(
        self, clip: Path, tracks: list[TrackFiles], found: list[TrackFaces]
    ) -> Iterator[TrackFace]:
        whole: list[Wanted] = []
        places: dict[int, list[Wanted]] = {}
        for number, track in enumerate(tracks):
            if track.frames is None:
                whole.append((number, track, 0))
                continue
            for place, frame in enumerate(track.frames.tolist()):
                places.setdefault(frame, []).append((number, track, place))
        last = None if whole else max(places)

        def look(frame: Frame) -> tuple[list[Wanted], list[TrackFace]]:
            wanted = whole + places.get(frame.number, [])
            return wanted, self.find(frame.image, wanted, f"{clip.name}#{frame.number}")

        with (
            VideoReader(clip, self.settings.every) as reader,
            ThreadPoolExecutor(cpu_count(), thread_name_prefix="frames") as pool,
        ):
            frames = (one for one in _until(reader, last) if whole or one.number in places)
            while block := list(islice(frames, _FRAMES)):
                for wanted, faces in pool.map(look, block):
                    for number, _, _ in wanted:
                        found[number].looked += 1
                    yield from faces


def save_faces(path: Path, found: list[TrackFaces], dim: int) -> None:
    """Keep what a video gave, all or nothing."""
    rows = [np.array(one.vectors, np.float32).reshape(-1, dim) for one in found]
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            counts=np.array([len(one.norms) for one in found]),
            vectors=np.concatenate(rows),
            norms=np.concatenate([np.array(one.norms, np.float64) for one in found]),
            widths=np.concatenate([np.array(one.widths, np.float64) for one in found]),
            looked=np.array([one.looked for one in found]),
            unreadable=np.array([one.unreadable for one in found], dtype=str),
        )


def load_faces(path: Path) -> list[TrackFaces]:
    """Return what a video gave, as `save_faces` kept it.

    Raises:
        InputError: the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in kept.files}
        cuts = np.cumsum(arrays["counts"])[:-1]
        vectors, norms, widths = (
            np.split(arrays[name], cuts) for name in ("vectors", "norms", "widths")
        )
        return [
            TrackFaces(
                list(vectors[i]),
                norms[i].tolist(),
                widths[i].tolist(),
                int(arrays["looked"][i]),
                str(arrays["unreadable"][i]),
            )
            for i in range(len(arrays["counts"]))
        ]
    except Exception as error:  # numpy and zipfile raise many kinds for one cause: a torn file
        raise InputError(f"{path} of the cache is damaged ({error}); delete it") from None


def _until(reader: VideoReader, last: int | None) -> Iterator[Frame]:
    for frame in reader:
        if last is not None and frame.number > last:
            return
        yield frame


def _choose(faces: Faces, box: NDArray[np.float32] | None, image: Image) -> Faces:
    """Return the face that overlaps a box most, if enough; the largest without a box."""
    if box is None or not len(faces):
        return faces.select("largest", *image.shape[:2])
    low = np.maximum(faces.boxes[:, :2], box[:2])
    high = np.minimum(faces.boxes[:, 2:], box[2:])
    common = np.prod(np.maximum(high - low, 0), axis=1)
    area = float(np.prod(box[2:] - box[:2]))
    shares = common / np.maximum(faces.areas() + area - common, 1e-9)
    best = int(np.argmax(shares))
    return faces[best] if shares[best] >= _LEAST_OVERLAP else Faces.empty()
