"""Pictures of a source through a detector: decoded, searched and aligned in threads, in order."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_one_of
from facerec.data.align import CHIP_SIZE, align_faces
from facerec.data.images import UnreadableImageError, decode_image
from facerec.data.sources import SourceItem
from facerec.dist import cpu_count
from facerec.io import sha256_bytes
from facerec.structures import FACE_POLICIES, Detector, Faces

NO_FACE = "no face"
BAD_LANDMARKS = "degenerate landmarks"


def _no_chips() -> NDArray[np.uint8]:
    return np.zeros((0, CHIP_SIZE, CHIP_SIZE, 3), np.uint8)


@dataclass(frozen=True)
class DetectedPicture:
    """What one picture gave.

    Attributes:
        item: the picture.
        sha256: of its file, 64 hex digits; "" when the file could not be read.
        width: of the upright picture in pixels, 0 when it was not decoded.
        height: likewise.
        faces: those that the policy took, boxes inside the picture.
        chips: uint8 RGB (n, 112, 112, 3), aligned, one for each of `faces`.
        found: how many faces were found, before the policy.
        reason: "" when there is at least one chip, else why there is none: "no face",
            "degenerate landmarks", a reason of UnreadableImageError, or "detector failed: …".
        note: what is noteworthy though there is a chip, "" otherwise.
    """

    item: SourceItem
    sha256: str = ""
    width: int = 0
    height: int = 0
    faces: Faces = field(default_factory=Faces.empty)
    chips: NDArray[np.uint8] = field(default_factory=_no_chips)
    found: int = 0
    reason: str = ""
    note: str = ""

    @property
    def image_id(self) -> str:
        """The first 16 hex digits of `sha256`."""
        return self.sha256[:16]


Look = Callable[[SourceItem, Detector, str], "DetectedPicture"]
"""What makes a DetectedPicture of an item, a detector and a policy; see `detect_picture`."""


def detect_picture(
    item: SourceItem, detector: Detector, policy: str = "largest"
) -> DetectedPicture:
    """Return what one picture gives; whatever is wrong with it comes out as `reason`."""
    sha256, width, height = "", 0, 0
    try:
        data = item.read_bytes()
        sha256 = sha256_bytes(data)
        image = decode_image(data, item.key)
        height, width = image.shape[:2]
        every = clip_faces(detector.detect(image, item.key), height, width)
        faces, chips = align_faces(image, every.select(policy, height, width))
    except UnreadableImageError as error:
        return DetectedPicture(item, sha256, width, height, reason=error.reason)
    except Exception as error:  # one bad picture among millions must not end the run
        text = f"detector failed: {type(error).__name__}: {error}".split("\n")[0]
        return DetectedPicture(item, sha256, width, height, reason=text[:200])
    reason = "" if len(faces) else BAD_LANDMARKS if len(every) else NO_FACE
    return DetectedPicture(item, sha256, width, height, faces, chips, len(every), reason)


def iter_pictures(
    items: Iterable[SourceItem],
    detector: Detector,
    policy: str = "largest",
    threads: int | None = None,
    look: Look = detect_picture,
) -> Iterator[DetectedPicture]:
    """Yield what each picture gives, in the order of `items`.

    Pictures are read, decoded, searched and aligned in threads, a few ahead of the consumer and
    no more, so memory stays bounded. No picture raises: see `DetectedPicture.reason`. When the
    consumer stops, by an exception or Ctrl-C, pictures not yet begun are dropped.

    Args:
        items: the pictures; read lazily.
        detector: safe to call from several threads, as those of facerec.detection are.
        policy: "largest", "central" or "all".
        threads: number of threads, one a core when None.
        look: what is done with each picture; it must not raise.

    Raises:
        InputError: the policy or the number of threads is wrong; at the call, not later.
    """
    check_one_of(policy, "face policy", FACE_POLICIES)
    if threads is not None and threads < 1:
        raise InputError(f"threads must be at least 1, got {threads}")
    return _iter_in_threads(iter(items), detector, policy, threads or cpu_count(), look)


def _iter_in_threads(
    items: Iterator[SourceItem], detector: Detector, policy: str, threads: int, look: Look
) -> Iterator[DetectedPicture]:
    waiting: deque[Future[DetectedPicture]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="pictures")
    try:
        while True:
            for item in itertools.islice(items, 2 * threads - len(waiting)):
                waiting.append(pool.submit(look, item, detector, policy))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def clip_faces(faces: Faces, height: int, width: int) -> Faces:
    """Return the faces with boxes cut to the picture, without those that lie outside it.

    Faces with a value that is not finite are dropped too; scores are cut to [0, 1].
    """
    if not len(faces):
        return faces
    boxes = np.clip(faces.boxes, 0, np.array([width, height, width, height], np.float32))
    finite = np.isfinite(faces.boxes).all(axis=1) & np.isfinite(faces.scores)
    finite &= np.isfinite(faces.landmarks).all(axis=(1, 2))
    kept = finite & (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])
    scores = np.clip(faces.scores, 0, 1)
    return Faces(boxes[kept], faces.landmarks[kept], scores[kept])
