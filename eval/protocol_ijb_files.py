"""The files of IJB-B and IJB-C as the public evaluations ship them.

Layout of a set's folder (PREFIX is `ijbb` or `ijbc`):

- `loose_crop/`: one picture a face, `1.jpg`, `2.jpg`, …
- `meta/PREFIX_name_5pts_score.txt`: a line a face: picture, ten landmark coordinates in pixels
  (x y of left eye, right eye, nose, left and right mouth corner, as seen by the viewer), detector
  score in [0, 1].
- `meta/PREFIX_face_tid_mid.txt`: a line a face, in the same order: picture, template, medium.
- `meta/PREFIX_template_pair_label.txt`: a line a pair: template, template, 1 or 0.
- `meta/PREFIX_1N_gallery_G1.csv`, `…_G2.csv` (IJB-B: `S1`, `S2`) and `…_1N_probe_mixed.csv`: a
  header and a row a face; the columns TEMPLATE_ID and SUBJECT_ID are read, others are not.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.protocol_ijb import TemplateList
from facerec.checks import InputError
from facerec.io import sha256_file
from facerec.structures import Faces

_COLUMNS = ("TEMPLATE_ID", "SUBJECT_ID")


@dataclass(frozen=True)
class IjbFaces:
    """n faces of a set.

    Attributes:
        names: picture of each face, relative to `images`.
        landmarks: float32 (n, 5, 2), pixels.
        detector_scores: float32 (n,).
        template_ids: int64 (n,).
        media_ids: int64 (n,).
        images: the pictures' folder.
        sha256: of the file with the landmarks.
    """

    names: list[str]
    landmarks: NDArray[np.float32]
    detector_scores: NDArray[np.float32]
    template_ids: NDArray[np.int64]
    media_ids: NDArray[np.int64]
    images: Path
    sha256: str


class ListedDetector:
    """Knows the one face of each picture from a list of landmarks.

    Args:
        faces: the list.
    """

    def __init__(self, faces: IjbFaces) -> None:
        self.name = "listed"
        self._faces = faces
        self._rows = {name: row for row, name in enumerate(faces.names)}

    def detect(self, image: NDArray[np.uint8], key: str = "") -> Faces:
        """Return the listed face of a picture; none for one that is not listed."""
        row = self._rows.get(key)
        if row is None:
            return Faces.empty()
        box = np.array([[0, 0, image.shape[1], image.shape[0]]], np.float32)
        return Faces(
            box, self._faces.landmarks[row : row + 1], self._faces.detector_scores[row : row + 1]
        )


def find_prefix(root: Path) -> Path:
    """Return `root/meta/ijbb` or `root/meta/ijbc`, whichever set lies there.

    Raises:
        InputError: neither, or both.
    """
    found = [
        root / "meta" / prefix
        for prefix in ("ijbb", "ijbc")
        if (root / "meta" / f"{prefix}_face_tid_mid.txt").is_file()
    ]
    if len(found) != 1:
        raise InputError(
            f"{root / 'meta'} must hold ijbb_face_tid_mid.txt or ijbc_face_tid_mid.txt, one of "
            f"them, got {len(found)}; give the folder of one set (the one above meta)"
        )
    return found[0]


def read_faces(prefix: Path, images: Path | None = None) -> IjbFaces:
    """Return the faces of a set with their landmarks, templates and media.

    Args:
        prefix: from `find_prefix`.
        images: the pictures' folder, `loose_crop` beside `meta` when None.

    Raises:
        InputError: a file is missing, a line is not as described, or the two lists differ.
    """
    scored = prefix.with_name(f"{prefix.name}_name_5pts_score.txt")
    listed = prefix.with_name(f"{prefix.name}_face_tid_mid.txt")
    names, values = _read_named(scored, 11)
    again, ids = _read_named(listed, 2)
    if names != again:
        row = next(
            (row for row, pair in enumerate(zip(names, again, strict=False)) if pair[0] != pair[1]),
            min(len(names), len(again)),
        )
        raise InputError(
            f"{scored.name} and {listed.name} must list the same faces in the same order, but "
            f"differ in line {row + 1} ({len(names)} and {len(again)} faces); fetch both again"
        )
    return IjbFaces(
        names,
        values[:, :10].reshape(-1, 5, 2).astype(np.float32),
        values[:, 10].astype(np.float32),
        ids[:, 0].astype(np.int64),
        ids[:, 1].astype(np.int64),
        images or prefix.parent.parent / "loose_crop",
        sha256_file(scored),
    )


def read_template_pairs(
    prefix: Path,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return both template ids and the label of each pair.

    Raises:
        InputError: the file is missing or not three whole numbers a line.
    """
    path = prefix.with_name(f"{prefix.name}_template_pair_label.txt")
    try:
        table = np.loadtxt(path, np.int64, ndmin=2)
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path} does not exist; check the folder given") from None
    except ValueError as error:
        raise InputError(f"{path} must hold `TEMPLATE TEMPLATE LABEL` lines: {error}") from None
    if table.shape[1:] != (3,) or not len(table):
        raise InputError(f"{path} must hold `TEMPLATE TEMPLATE LABEL` lines, got {table.shape}")
    if not np.isin(table[:, 2], (0, 1)).all():
        raise InputError(f"{path} must end each line with 0 or 1")
    return table[:, 0].copy(), table[:, 1].copy(), table[:, 2] == 1


def read_search_lists(prefix: Path) -> tuple[list[TemplateList], TemplateList]:
    """Return the two galleries and the probes of the 1:N protocol.

    Raises:
        InputError: a file is missing or not as described.
    """
    names = ("G1", "G2") if prefix.name == "ijbc" else ("S1", "S2")
    galleries = [
        read_template_list(prefix.with_name(f"{prefix.name}_1N_gallery_{name}.csv"), name)
        for name in names
    ]
    probes = prefix.with_name(f"{prefix.name}_1N_probe_mixed.csv")
    return galleries, read_template_list(probes, "probes")


def read_template_list(path: Path, name: str) -> TemplateList:
    """Return the templates and subjects of a CSV with a row a face.

    Raises:
        InputError: missing, without the two columns, or a template of two subjects.
    """
    found: dict[int, int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            missing = [column for column in _COLUMNS if column not in (reader.fieldnames or [])]
            if missing:
                raise InputError(f"{path} must have the column {missing[0]}, which is missing")
            for row in reader:
                try:
                    template, subject = (int(row[column]) for column in _COLUMNS)
                except (TypeError, ValueError):
                    raise InputError(
                        f"{path}, line {reader.line_num}: TEMPLATE_ID and SUBJECT_ID must be whole "
                        "numbers"
                    ) from None
                if found.setdefault(template, subject) != subject:
                    raise InputError(
                        f"{path}, line {reader.line_num}: template {template} is of subject "
                        f"{found[template]} and of {subject}"
                    )
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path} does not exist; check the folder given") from None
    ids = np.array(list(found), np.int64)
    return TemplateList(name, ids, np.array(list(found.values()), np.int64))


def join_lists(galleries: list[TemplateList], probes: TemplateList) -> TemplateList:
    """Return all templates of galleries and probes in one list: the subjects of the 1:1 pairs."""
    lists = [*galleries, probes]
    return TemplateList(
        "the 1:N lists",
        np.concatenate([entry.template_ids for entry in lists]),
        np.concatenate([entry.subjects for entry in lists]),
    )


def _read_named(path: Path, numbers: int) -> tuple[list[str], NDArray[np.float64]]:
    """Return the first field of each line and the others as a table."""
    try:
        with path.open(encoding="utf-8") as file:
            names = [text.split(None, 1)[0] for text in file if text.strip()]
        if not names:
            raise InputError(f"{path} holds no face")
        table = np.loadtxt(path, np.float64, usecols=range(1, numbers + 1), ndmin=2, comments=None)
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path} does not exist; check the folder given") from None
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} must hold a picture and {numbers} numbers a line: {error}"
        ) from None
    if not np.isfinite(table).all():
        row = int(np.flatnonzero(~np.isfinite(table).all(axis=1))[0])
        raise InputError(f"{path} must hold finite numbers, but those of {names[row]} are not")
    return names, table
