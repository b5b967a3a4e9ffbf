"""The portrait on a picture of a document page: found at any quarter turn, apart from its ghost."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from facerec.checks import check_image, check_range
from facerec.data.geometry import move_faces, shrink_image, shrink_matrix
from facerec.data.pictures import clip_faces
from facerec.structures import Detector, Faces

NO_PORTRAIT = "no portrait: no face was found, on the page or in parts of it, at any quarter turn"

_TURNS = (0, 90, 180, 270)
_TILE_SIDE = 640
_LARGEST_ZOOM = 3.0
_EDGE = 1.0  # pixels
_CROP_SIDE = 320
_LEAST_CROP_SIDE = 160
# Of the face's longer side, to each side of the box: room for hair, for the aligned chip, and for
# detectors, which miss faces that fill the picture.
_MARGIN = 0.5
_SAME_FACE = 0.4
_RIVAL = 0.25
_FACE_SIDE = 64
_FEW_PIXELS = 56
_SURE_LEAD = 0.005


@dataclass(frozen=True)
class Portrait:
    """The main portrait of a page, or why there is none.

    Attributes:
        faces: the portrait's face in pixels of `image`, upright; none when there is a reason.
        image: uint8 RGB (h, w, 3), the portrait cut from the page at the page's own resolution
            and turned upright; (0, 0, 3) when there is none.
        box: float32 (4,), x1 y1 x2 y2 of `image` in pixels of the page as it was given.
        turn: degrees by which the page has to be turned clockwise to stand upright: 0, 90, 180 or
            270.
        others: how many other faces the page shows, such as a ghost portrait.
        ambiguous: another face is nearly as large, sharp and full of contrast: somebody should
            look whether the right one was taken.
        note: what is noteworthy, in clauses; "" otherwise.
        reason: why there is no portrait, "" when there is one.
    """

    faces: Faces = field(default_factory=Faces.empty)
    image: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0, 3), np.uint8))
    box: NDArray[np.float32] = field(default_factory=lambda: np.zeros(4, np.float32))
    turn: int = 0
    others: int = 0
    ambiguous: bool = False
    note: str = ""
    reason: str = ""


def crop_portrait(
    image: NDArray[np.uint8], detector: Detector, least_score: float = 0.6
) -> Portrait:
    """Return the main portrait of a document page: a data page, a card, a scan with a card on it.

    The page is searched whole, as it is and then at the other quarter turns, until a face scores
    `least_score`; then in overlapping tiles of half its longer side, enlarged where they are
    small. Of several faces the one of the greatest area x contrast^2 x sharpness is taken: ghost
    portraits are smaller, or larger and faint. Which way is up is what the detector scores
    highest on the crop at the four quarter turns; on a page that was turned, the choice among its
    faces is made again upright. The landmarks are those found on the crop, which are finer than
    those found on the shrunken page.

    Args:
        image: uint8 RGB (h, w, 3).
        detector: one that looks at the picture; a side-car table knows neither turns nor crops.
            YuNet's own second look helps on the worst prints only, and triples the time that a
            page without a face takes.
        least_score: of the face on its upright crop, in [0, 1].

    Returns:
        A portrait, or one without faces whose `reason` says why.

    Raises:
        InputError: the picture is no uint8 RGB array, or the score is out of range.
    """
    check_image(image)
    check_range(least_score, "least_score", 0, 1)
    faces = _search(image, detector, least_score)
    if not len(faces):
        return Portrait(reason=NO_PORTRAIT)
    prominence = _weigh(image, faces)
    found = _cut(image, faces[int(np.argmax(prominence))], detector)
    if found is not None and found.turn:
        upright = _quarter(image, found.turn)
        again = _drop_repeats(_confident(detector.detect(upright), least_score))
        if len(again):
            faces, prominence = again, _weigh(upright, again)
            second = _cut(upright, faces[int(np.argmax(prominence))], detector)
            if second is not None and not second.turn:
                box = _turn_back(second.box, image, found.turn)
                found = _Cut(second.faces, second.image, box, found.turn, second.lead)
    if found is None or found.faces.scores[0] < least_score:
        score = 0.0 if found is None else float(found.faces.scores[0])
        return Portrait(
            reason=f"no portrait: the likeliest place on the page scores {score:.2f} as a face, "
            f"below {least_score:.2f}"
        )
    rest = np.sort(prominence)[::-1]
    ambiguous = len(rest) > 1 and bool(rest[1] > _RIVAL * rest[0])
    note = _describe(found, len(faces) - 1, ambiguous)
    return Portrait(
        found.faces, found.image, found.box, found.turn, len(faces) - 1, ambiguous, note
    )


@dataclass(frozen=True)
class _Cut:
    """A face on its crop: as in Portrait; `lead` is its score's over that of the next turn."""

    faces: Faces
    image: NDArray[np.uint8]
    box: NDArray[np.float32]
    turn: int
    lead: float


def _describe(found: _Cut, others: int, ambiguous: bool) -> str:
    clauses = []
    if found.turn:
        clauses.append(f"the page was turned by {found.turn} degrees to stand upright")
    if found.lead < _SURE_LEAD:
        clauses.append("which way is up is not certain")
    if ambiguous:
        clauses.append("another face is nearly as prominent: look whether the right one was taken")
    elif others:
        clauses.append(
            "a smaller or fainter second portrait was passed over"
            if others == 1
            else f"{others} smaller or fainter portraits were passed over"
        )
    sides = found.faces.boxes[0, 2:] - found.faces.boxes[0, :2]
    if sides.min() < _FEW_PIXELS:
        clauses.append(
            f"the face is only {int(sides.min())} pixels wide: scan it at a higher resolution"
        )
    return "; ".join(clauses)


def _search(image: NDArray[np.uint8], detector: Detector, least_score: float) -> Faces:
    """Return the faces of the first look that finds one, in pixels of `image`."""
    for turn in _TURNS:
        faces = _confident(detector.detect(_quarter(image, turn)), least_score)
        if len(faces):
            return _drop_repeats(_faces_back(faces, image, turn))
    for turn in _TURNS:
        turned = _quarter(image, turn)
        parts = [_look_at_tile(tile, turned, detector) for tile in _list_tiles(turned)]
        faces = Faces(
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.landmarks for part in parts]),
            np.concatenate([part.scores for part in parts]),
        )
        faces = clip_faces(_confident(faces, least_score), *turned.shape[:2])
        if len(faces):
            return _drop_repeats(_faces_back(faces, image, turn))
    return Faces.empty()


def _confident(faces: Faces, least_score: float) -> Faces:
    return faces[faces.scores >= least_score]


def _drop_repeats(faces: Faces) -> Faces:
    """Return the faces, best score first, without those that mostly cover a better one."""
    faces = faces[np.argsort(-faces.scores, kind="stable")]
    areas = faces.areas()
    kept: list[int] = []
    for i, box in enumerate(faces.boxes):
        corners = np.minimum(box[2:], faces.boxes[kept][:, 2:]) - np.maximum(
            box[:2], faces.boxes[kept][:, :2]
        )
        shared = np.maximum(corners, 0).prod(axis=1)
        # Over the smaller box: half a face, cut by a tile's edge, lies within the whole one.
        if not (shared > _SAME_FACE * np.minimum(areas[i], areas[kept])).any():
            kept.append(i)
    return faces[kept]


def _list_tiles(image: NDArray[np.uint8]) -> list[tuple[int, int, int, int]]:
    """Return x1 y1 x2 y2 of tiles of half the longer side that overlap by half."""
    height, width = image.shape[:2]
    side = max(1, -(-max(height, width) // 2))
    return [
        (left, top, min(left + side, width), min(top + side, height))
        for top in _starts(height, side)
        for left in _starts(width, side)
    ]


def _look_at_tile(
    tile: tuple[int, int, int, int], image: NDArray[np.uint8], detector: Detector
) -> Faces:
    """Return the faces that lie whole in a tile, in pixels of the picture."""
    x1, y1, x2, y2 = tile
    cut = image[y1:y2, x1:x2]
    enlarged = _enlarge(cut, _TILE_SIDE)
    matrix = cv2.invertAffineTransform(shrink_matrix(cut, enlarged))
    faces = move_faces(detector.detect(enlarged), matrix + np.array([[0, 0, x1], [0, 0, y1]]))
    # What an edge inside the picture cuts lies whole in the next tile.
    inner = np.array([x1 > 0, y1 > 0, x2 < image.shape[1], y2 < image.shape[0]])
    gaps = (faces.boxes - np.array(tile)) * [1, 1, -1, -1]
    return faces[((gaps > _EDGE) | ~inner).all(axis=1)]


def _enlarge(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return a picture whose longer side is at least `side`, but never enlarged beyond thrice."""
    zoom = min(side / max(image.shape[:2]), _LARGEST_ZOOM)
    if zoom <= 1:
        return image
    larger = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
    return np.asarray(larger, np.uint8)


def _starts(length: int, side: int) -> list[int]:
    """Return where tiles of `side` begin so that they overlap by about half and end at `length`."""
    if length <= side:
        return [0]
    count = -(-2 * length // side) - 1
    return [round(i * (length - side) / (count - 1)) for i in range(count)]


def _weigh(image: NDArray[np.uint8], faces: Faces) -> NDArray[np.float64]:
    """Return each face's prominence, float64 (n,): area x contrast^2 x sharpness.

    Contrast is the standard deviation of the luma, sharpness the mean absolute Laplacian over it,
    both on the box brought to 64 x 64 pixels.
    """
    weights = np.zeros(len(faces))
    for i, box in enumerate(faces.boxes):
        x1, y1, x2, y2 = _whole_box(box, image)
        luma = cv2.cvtColor(image[y1:y2, x1:x2], cv2.COLOR_RGB2GRAY)
        small = max(luma.shape) > _FACE_SIDE
        luma = cv2.resize(
            luma,
            (_FACE_SIDE, _FACE_SIDE),
            interpolation=cv2.INTER_AREA if small else cv2.INTER_LINEAR,
        )
        contrast = float(luma.std()) + 1e-3
        sharpness = float(np.abs(cv2.Laplacian(luma, cv2.CV_32F)).mean()) / contrast
        weights[i] = float(faces.areas()[i]) * contrast**2 * (sharpness + 1e-3)
    return weights


def _whole_box(box: NDArray[np.float32], image: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Return a box on whole pixels inside the picture, at least one pixel large."""
    height, width = image.shape[:2]
    x1, y1 = min(int(box[0]), width - 1), min(int(box[1]), height - 1)
    x2, y2 = int(np.ceil(box[2])), int(np.ceil(box[3]))
    return max(0, x1), max(0, y1), max(x1 + 1, min(x2, width)), max(y1 + 1, min(y2, height))


def _cut(image: NDArray[np.uint8], face: Faces, detector: Detector) -> _Cut | None:
    """Return one face on its upright crop, None where no turn of the crop shows it again."""
    box = face.boxes[0]
    room = _MARGIN * float((box[2:] - box[:2]).max())
    x1, y1, x2, y2 = _whole_box(box + np.array([-room, -room, room, room], np.float32), image)
    crop = image[y1:y2, x1:x2]
    small = _enlarge(crop, _LEAST_CROP_SIDE)
    small = shrink_image(small, _CROP_SIDE / max(small.shape[:2]))
    looks: list[tuple[float, int, Faces]] = []
    for turn in _TURNS:
        turned = _quarter(small, turn)
        seen = detector.detect(turned)
        tilt = np.abs(_tilts(seen))
        # Detectors that turn the picture themselves find the face in every look, but tilted.
        seen = seen[tilt < 45].select("largest", *turned.shape[:2])
        if len(seen):
            looks.append((float(seen.scores[0]), turn, seen))
    if not looks:
        return None
    looks.sort(key=lambda look: (-look[0], look[1]))
    score, turn, seen = looks[0]
    upright = _quarter(crop, turn)
    back = cv2.invertAffineTransform(shrink_matrix(upright, _quarter(small, turn)))
    faces = clip_faces(move_faces(seen, back), *upright.shape[:2])
    lead = score - looks[1][0] if len(looks) > 1 else 1.0
    return _Cut(faces, upright, np.array([x1, y1, x2, y2], np.float32), turn, lead)


def _tilts(faces: Faces) -> NDArray[np.float64]:
    """Return by how many degrees each face is rolled clockwise, float64 (n,), from eyes to mouth.

    The line between the middles, for the eyes alone change places in a face that is mirrored.
    """
    down = faces.landmarks[:, 3:].mean(axis=1) - faces.landmarks[:, :2].mean(axis=1)
    return np.asarray(np.degrees(np.arctan2(-down[:, 0], down[:, 1])), np.float64)


def _quarter(image: NDArray[np.uint8], turn: int) -> NDArray[np.uint8]:
    """Return the picture turned clockwise by 0, 90, 180 or 270 degrees, pixel for pixel."""
    return np.ascontiguousarray(np.rot90(image, -turn // 90))


def _quarter_matrix(image: NDArray[np.uint8], turn: int) -> NDArray[np.float64]:
    """Return the matrix (2, 3) from the turned picture's pixel centres to the picture's."""
    height, width = image.shape[:2]
    matrices = {
        0: [[1, 0, 0], [0, 1, 0]],
        90: [[0, 1, 0], [-1, 0, height - 1]],
        180: [[-1, 0, width - 1], [0, -1, height - 1]],
        270: [[0, -1, width - 1], [1, 0, 0]],
    }
    return np.array(matrices[turn], np.float64)


def _faces_back(faces: Faces, image: NDArray[np.uint8], turn: int) -> Faces:
    """Return faces of the turned picture in pixels of the picture itself."""
    boxes = [_turn_back(box, image, turn) for box in faces.boxes]
    moved = move_faces(faces, _quarter_matrix(image, turn))
    return Faces(np.asarray(boxes, np.float32).reshape(-1, 4), moved.landmarks, faces.scores)


def _turn_back(
    box: NDArray[np.float32], image: NDArray[np.uint8], turn: int
) -> NDArray[np.float32]:
    """Return a box of the turned picture in pixels of the picture itself.

    A box goes by the edges of pixels, landmarks by their centres: half a pixel between them.
    """
    matrix = _quarter_matrix(image, turn)
    corners = (box.reshape(2, 2) - 0.5) @ matrix[:, :2].T + matrix[:, 2] + 0.5
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)]).astype(np.float32)
