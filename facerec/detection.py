"""Faces in pictures: YuNet, InsightFace, side-car annotations and already aligned chips."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_image, check_range, require
from facerec.data.align import ARCFACE_TEMPLATE, CHIP_SIZE
from facerec.data.geometry import LEAST_SIDE, move_faces, shrink_image, shrink_matrix, turn_image
from facerec.data.images import UnreadableImageError
from facerec.data.pictures import DetectedPicture, clip_faces, detect_picture, iter_pictures
from facerec.data.sources import read_table
from facerec.io import sha256_bytes, sha256_file
from facerec.opencv import quiet_opencv
from facerec.structures import Detector, Faces

__all__ = [
    "AlignedDetector",
    "AnnotationDetector",
    "DetectedPicture",
    "InsightFaceDetector",
    "YuNetDetector",
    "build_detector",
    "detect_picture",
    "hash_detector",
    "iter_pictures",
]

_BORDERED_SIDE = 320
_RETRY_SIDE = 480
_RETRY_DEGREES = (0, -45, 45, 90, -90, 180)


def build_detector(
    spec: str, resolve: Callable[[str], Path] | None = None, second_look: bool = True
) -> Detector:
    """Return the detector that `--detector` names.

    Args:
        spec: "aligned" (pictures are chips), "annotations:PATH" (a side-car table),
            "insightface:FOLDER" (a local model folder), or a YuNet model: store name, artefact
            folder or .onnx file.
        resolve: turns the last kind into the path of the graph; the model store when None.
        second_look: whether YuNet looks again at a picture without a face; False for video, where
            an empty frame should cost no more than a full one and the next frame comes anyway.

    Raises:
        InputError: nothing there, or it is no such detector.
    """
    kind, colon, rest = spec.partition(":")
    if spec == "aligned":
        return AlignedDetector()
    if colon and kind in ("annotations", "insightface"):
        if not rest:
            raise InputError(f"detector {spec!r} must name a path behind the colon")
        path = Path(rest).expanduser()
        return AnnotationDetector(path) if kind == "annotations" else InsightFaceDetector(path)
    if resolve is None:
        from facerec.models.store import resolve_model

        graph = resolve_model(spec, task="detection").graph
    else:
        graph = resolve(spec)
    return YuNetDetector(graph) if second_look else YuNetDetector(graph, retry_score=None)


def hash_detector(spec: str, detector: Detector) -> str:
    """Return the sha256 of what decides where faces are found: files and settings.

    Args:
        spec: as given to `build_detector`.
        detector: what it built.
    """
    parts = [detector.name]
    graph = getattr(detector, "graph", None)
    place = Path(graph) if graph is not None else Path(spec.partition(":")[2]).expanduser()
    files = sorted(place.glob("*.onnx")) if place.is_dir() and spec != "aligned" else [place]
    parts += [sha256_file(file) for file in files if file.is_file()]
    parts += [
        f"{name}={value!r}"
        for name, value in sorted(vars(detector).items())
        if isinstance(value, (int, float)) and not name.startswith("_")
    ]
    return sha256_bytes("\n".join(parts).encode())


class YuNetDetector:
    """YuNet (Wu et al. 2023) through cv2.FaceDetectorYN, callable from several threads.

    A picture is shrunk so that its longer side is at most `max_side`. When nothing is found, it is
    looked at again: with a border of half its size on each side, shrunk to 320 pixels, at
    `retry_score`, which finds faces that fill the picture or are cut by its edge, and faint ones;
    then turned by -45, 45, 90, -90 and 180 degrees at `min_score`, which finds heads on one side
    and pictures whose rotation was lost. The first look that finds a face ends it.

    Args:
        graph: the .onnx file, with a free or a fixed input size.
        min_score: least score of a face, in [0, 1].
        retry_score: least score at the second look, in [0, 1]; None: no second look (video: an
            empty frame should cost no more than a full one).
        max_side: pixels.
        nms_overlap: of two boxes of a greater intersection over union the lower score goes.

    Raises:
        InputError: the file is missing or no YuNet model.
    """

    def __init__(
        self,
        graph: Path,
        min_score: float = 0.6,
        retry_score: float | None = 0.3,
        max_side: int = 1280,
        nms_overlap: float = 0.3,
    ) -> None:
        self.graph = Path(graph)
        self.name = f"yunet:{self.graph.name}"
        self.min_score = check_range(min_score, "min_score", 0, 1)
        self.retry_score = retry_score
        if retry_score is not None:
            check_range(retry_score, "retry_score", 0, 1)
        self.max_side = int(check_range(max_side, "max_side", LEAST_SIDE, 1 << 14))
        self.nms_overlap = check_range(nms_overlap, "nms_overlap", 0, 1)
        self._local = threading.local()  # FaceDetectorYN keeps state: one a thread
        if not self.graph.is_file():
            raise InputError(f"detector model {self.graph} does not exist; check the path")
        try:
            self._find(np.zeros((64, 64, 3), np.uint8), self.min_score)
        except cv2.error as error:
            raise InputError(
                f"{self.graph} must be a YuNet model for cv2.FaceDetectorYN, but OpenCV cannot run "
                "it as one; facerec models fetch yunet downloads one"
            ) from error

    def detect(self, image: NDArray[np.uint8], key: str = "") -> Faces:
        """Return the faces in a uint8 RGB picture (h, w, 3), best score first, boxes inside it."""
        check_image(image)
        height, width = image.shape[:2]
        small = shrink_image(image, min(1.0, self.max_side / max(height, width)))
        matrix = cv2.invertAffineTransform(shrink_matrix(image, small))
        faces = move_faces(self._find(small, self.min_score), matrix)
        if not len(faces) and self.retry_score is not None:
            faces = self._look_again(image, self.retry_score)
        return clip_faces(faces, height, width)

    def _look_again(self, image: NDArray[np.uint8], retry_score: float) -> Faces:
        """Look at the picture with a border, then turned; return what the first look finds."""
        for degrees in _RETRY_DEGREES:
            side = _RETRY_SIDE if degrees else _BORDERED_SIDE
            canvas, matrix = turn_image(image, degrees, side)
            # A turned picture must convince: it is the likelier one to show a false face.
            found = self._find(canvas, self.min_score if degrees else retry_score)
            if len(found):
                return move_faces(found, cv2.invertAffineTransform(matrix))
        return Faces.empty()

    def _find(self, image: NDArray[np.uint8], min_score: float) -> Faces:
        """Return the faces of one pass over a picture as it is."""
        model = getattr(self._local, "model", None)
        if model is None:
            quiet_opencv()
            model = cv2.FaceDetectorYN.create(
                str(self.graph), "", (64, 64), min_score, self.nms_overlap
            )
            self._local.model = model
        height, width = image.shape[:2]
        model.setScoreThreshold(min_score)
        model.setInputSize((width, height))
        # Colour order is turned here and nowhere else: OpenCV's models want BGR.
        _, found = model.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        if found is None:
            return Faces.empty()
        rows = np.asarray(found, np.float32)
        rows = rows[np.argsort(-rows[:, 14], kind="stable")]
        boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
        # YuNet's "right eye" is the subject's, hence the viewer's left: our order already.
        return Faces(boxes, rows[:, 4:14].reshape(-1, 5, 2), rows[:, 14])


class InsightFaceDetector:
    """The detector of an InsightFace model folder (SCRFD or RetinaFace), from local files only.

    Args:
        folder: a folder with the .onnx files of a pack such as buffalo_l.
        min_score: least score of a face, in [0, 1].
        side: pixels; pictures are brought to this square.

    Raises:
        InputError: no such folder, or no detector with landmarks in it.
        MissingPackageError: insightface is not installed.
    """

    def __init__(self, folder: Path, min_score: float = 0.5, side: int = 640) -> None:
        self.folder = Path(folder)
        self.name = f"insightface:{self.folder.name}"
        self.min_score = check_range(min_score, "min_score", 0, 1)
        self.side = int(check_range(side, "side", LEAST_SIDE, 1 << 14))
        if not self.folder.is_dir():
            raise InputError(f"InsightFace folder {self.folder} does not exist; check the path")
        self._model = self._load()
        self._lock = threading.Lock()  # its anchor cache and input size are not thread-safe

    def _load(self) -> Any:
        graphs = sorted(self.folder.glob("*.onnx"))
        if graphs:
            zoo = require("insightface.model_zoo")
        for graph in graphs:
            try:
                model = zoo.get_model(str(graph), download=False)
            except Exception:  # a file of another kind: look at the next
                continue
            if getattr(model, "taskname", "") == "detection":
                model.prepare(-1, det_thresh=self.min_score, input_size=(self.side, self.side))
                return model
        raise InputError(
            f"InsightFace folder {self.folder} must hold a detector (.onnx), but none of its "
            f"{len(graphs)} .onnx files is one; unpack a pack such as buffalo_l there"
        )

    def detect(self, image: NDArray[np.uint8], key: str = "") -> Faces:
        """Return the faces in a uint8 RGB picture (h, w, 3), best score first, boxes inside it.

        Raises:
            InputError: the model gives no landmarks.
        """
        check_image(image)
        with self._lock:
            rows, landmarks = self._model.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        if landmarks is None:
            raise InputError(f"detector {self.name} gives no landmarks; take one with five points")
        order = np.argsort(-rows[:, 4], kind="stable")
        faces = Faces(rows[order, :4], landmarks[order], rows[order, 4])
        return clip_faces(faces, *image.shape[:2])


class AlignedDetector:
    """Pictures that are aligned chips already: one face each, the template's landmarks."""

    name = "aligned"

    def detect(self, image: NDArray[np.uint8], key: str = "") -> Faces:
        """Return one face that fills a square uint8 RGB picture, its template scaled with it.

        Raises:
            UnreadableImageError: the picture is not square: it is no aligned chip.
        """
        check_image(image)
        height, width = image.shape[:2]
        if height != width:
            raise UnreadableImageError(
                key or "picture",
                "not a square chip",
                f"must be a square aligned chip, got {width} x {height}; take another detector",
            )
        scale = width / CHIP_SIZE
        # Pixel centres lie at +0.5: shrinking by 2 puts the first centre between two pixels.
        landmarks = (ARCFACE_TEMPLATE + 0.5) * scale - 0.5
        return Faces(
            np.array([[0, 0, width, height]], np.float32),
            landmarks[None].astype(np.float32),
            np.ones(1, np.float32),
        )


_BOX_COLUMNS = ("x1", "y1", "x2", "y2")
_POINT_COLUMNS = tuple(f"l{axis}{number}" for number in range(1, 6) for axis in "xy")


class AnnotationDetector:
    """Boxes and landmarks from a side-car table, as IJB-style sets ship them.

    Args:
        table: CSV or Parquet with the columns key, x1, y1, x2, y2, lx1, ly1, …, lx5, ly5 (pixels)
            and, if there, score; several rows of one key are several faces. A key is the picture's
            path relative to the set's root, or `name.mp4#12` for a video frame.

    Raises:
        InputError: no such file, a column is missing, or a value is not a finite number.
    """

    def __init__(self, table: Path) -> None:
        self.name = f"annotations:{Path(table).name}"
        rows = read_table(Path(table))
        missing = [n for n in ("key", *_BOX_COLUMNS, *_POINT_COLUMNS) if n not in rows.column_names]
        if missing:
            raise InputError(f"{table} must have the column {missing[0]!r}, which is missing")
        boxes = self._numbers(rows, _BOX_COLUMNS, table)
        points = self._numbers(rows, _POINT_COLUMNS, table)
        scores: NDArray[np.float32] = np.ones(len(boxes), np.float32)
        if "score" in rows.column_names:
            scores = self._numbers(rows, ("score",), table)[:, 0]
        self._faces = Faces(boxes, points.reshape(-1, 5, 2), scores)
        self._rows: dict[str, list[int]] = {}
        for row, key in enumerate(rows["key"].to_pylist()):
            self._rows.setdefault(str(key), []).append(row)

    @staticmethod
    def _numbers(rows: Any, columns: tuple[str, ...], table: Path) -> NDArray[np.float32]:
        values = np.zeros((rows.num_rows, len(columns)), np.float32)
        for number, column in enumerate(columns):
            for row, text in enumerate(rows[column].to_pylist()):
                try:
                    values[row, number] = math.nan if text is None else float(text)
                except ValueError:
                    values[row, number] = math.nan
        broken = np.argwhere(~np.isfinite(values))
        if len(broken):
            row, number = broken[0]
            raise InputError(f"{table}, row {row}: {columns[number]} must be a finite number")
        return values

    def detect(self, image: NDArray[np.uint8], key: str = "") -> Faces:
        """Return the table's faces for `key`, best score first; an unknown key has none."""
        check_image(image)
        found = self._faces[self._rows.get(key, [])]
        order = np.argsort(-found.scores, kind="stable")
        return clip_faces(found[order], *image.shape[:2])
