"""Readers of public sets' layouts; sentences and rules are ours, the layouts theirs.

**SCface** (Grgic, Delac & Grgic 2011; the file names as the set's protocol gives them): anywhere
below the root, `001_frontal.jpg` is the mugshot of person 001 and `001_cam1_2.jpg` their picture by
camera 1 at distance label 2 (1: 4.20 m, 2: 2.60 m, 3: 1.00 m). Where a folder
`mugshot_frontal_cropped_all` is there, mugshots are taken from it alone. Cameras 6 and 7 are
infrared. Each picture is a track of one frame: the set holds no videos.

**ChokePoint** (Wong et al. 2011): a folder of frames a sequence, `P1E_S1_C1/00000123.jpg` for
portal 1, entering, sequence 1, camera 1, and `groundtruth/P1E_S1_C1.xml` with a `frame` (number),
in it a `person` (id) with `leftEye` and `rightEye` (x, y). The set has no documents: give a folder
of stills, a folder a person named by the id. Its groups G1 and G2 are lists of sequences, not of
people: halves are drawn by person.

**COX** (Huang et al. 2015): `still/ID.jpg`, `still/ID_any.jpg` or `still/ID/any.jpg`, and frames in
`video/cam1/ID/any.jpg` for cameras 1 to 3; both below the root or its folder `data`.

**IJB-S style** (Kalka et al. 2018): `protocols/cs6_metadata.csv` with SUBJECT_ID, FILENAME, the
frame's number and FACE_X, FACE_Y, FACE_WIDTH, FACE_HEIGHT; `protocols/galleries/
cs6_surveillance_to_booking_g1.csv` and `_g2.csv` (or `..._single_...`) whose second and third
columns are the subject and the picture; `protocols/cs6_surveillance_to_single-booking_probe.csv`, a
video a line. Pictures and videos lie below the root. Galleries 1 and 2 hold different subjects:
they are the development and the test half. A subject in a video is a track.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from eval.doc2surv_data import DEV, TEST
from eval.doc2surv_layout import (
    DocumentFile,
    Layout,
    TrackFiles,
    list_people,
    list_pictures,
    read_documents,
)
from facerec.checks import InputError
from facerec.data.images import IMAGE_SUFFIXES
from facerec.data.sources import read_table

_SCFACE = re.compile(r"(\d{3})_(?:frontal|cam([1-7])(?:_([123]))?)", re.IGNORECASE)
_METRES = {"1": "4.20 m", "2": "2.60 m", "3": "1.00 m"}
_INFRARED = ("6", "7")
_CHOKEPOINT = re.compile(r"P\d[EL]_S\d_C(\d)(?:\.\d)?")
_EYES_TO_BOX = 2.26  # a frontal face's box, in distances between the eyes
_EYES_DOWN = 0.4  # the eyes' place in the box, from its top
_GALLERIES = ("booking", "single")
_FRAME_COLUMNS = ("FRAME", "FRAME_NUM", "FRAME_NUMBER", "FRAME_NO")
_FACE_COLUMNS = ("FACE_X", "FACE_Y", "FACE_WIDTH", "FACE_HEIGHT")


def read_scface(root: Path, *, infrared: bool = False) -> Layout:
    """Return SCface: mugshots against surveillance pictures.

    Args:
        root: the set.
        infrared: take cameras 6 and 7 too.

    Raises:
        InputError: no mugshot or no surveillance picture.
    """
    mugshots, tracks = [], []
    cropped = root / "mugshot_frontal_cropped_all"
    for path in sorted(_walk(root)):
        match = _SCFACE.fullmatch(path.stem)
        if match is None:
            continue
        person, camera, distance = match.groups()
        if camera is None:
            if path.parent == cropped or not cropped.is_dir():
                mugshots.append(DocumentFile(path, path.name, person))
        elif infrared or camera not in _INFRARED:
            place = f"camera {camera}" + (f" at {_METRES[distance]}" if distance else "")
            tracks.append(TrackFiles(path.name, person, path.name, (path,), camera=place))
    unique = {one.name: one for one in tracks}  # the set holds each picture in two folders
    note = "SCface: still pictures of surveillance cameras, each a track of one frame."
    return Layout("SCface", tuple(mugshots), tuple(unique.values()), notes=(note,))


def read_chokepoint(root: Path, documents: Path) -> Layout:
    """Return ChokePoint: stills of one's own against the sequences' people.

    Args:
        root: the set, with `groundtruth`.
        documents: a folder a person, or a table; the set itself has none.

    Raises:
        InputError: no ground truth, a broken file, or a sequence without frames.
    """
    truths = sorted((root / "groundtruth").glob("*.xml"))
    if not truths:
        raise InputError(f"{root / 'groundtruth'} must hold the ground truth .xml of ChokePoint")
    tracks: list[TrackFiles] = []
    for truth in truths:
        match = _CHOKEPOINT.fullmatch(truth.stem)
        if match is None:
            raise InputError(f"{truth} must be named as a sequence of ChokePoint, P1E_S1_C1.xml")
        pictures = {one.stem: one for one in _walk(root / truth.stem)}
        if not pictures:
            raise InputError(f"{root / truth.stem} must hold the frames of {truth.name}; unpack it")
        tracks += _read_truth(truth, pictures, f"camera {match.group(1)}")
    note = (
        "ChokePoint: the set has no documents, those used are the operator's; its groups G1 and G2 "
        "are lists of sequences and are not the halves here."
    )
    return Layout("ChokePoint", tuple(read_documents(documents)), tuple(tracks), notes=(note,))


def read_cox(root: Path) -> Layout:
    """Return COX: stills against the videos of three cameras.

    Raises:
        InputError: the folders `still` or `video` are missing or hold nothing.
    """
    base = root / "data" if (root / "data" / "video").is_dir() else root
    stills, videos = base / "still", base / "video"
    if not stills.is_dir() or not videos.is_dir():
        raise InputError(f"{root} must hold the folders 'still' and 'video' of COX")
    tracks = [
        TrackFiles(
            f"{camera}/{person}",
            person,
            f"{camera}/{person}",
            tuple(list_pictures(videos / camera / person)),
            camera=camera,
        )
        for camera in list_people(videos)
        for person in list_people(videos / camera)
        if list_pictures(videos / camera / person)
    ]
    people = {one.person for one in tracks}
    documents = []
    for path in sorted(_walk(stills)):
        name = path.relative_to(stills)
        person = name.parts[0] if len(name.parts) > 1 else path.stem
        if person not in people:
            person = person.rpartition("_")[0] or person
        documents.append(DocumentFile(path, name.as_posix(), person))
    note = "COX: its ten splits of 300 and 700 people serve training; halves here are by person."
    return Layout("COX", tuple(documents), tuple(tracks), notes=(note,))


def read_ijbs(root: Path, gallery: str = "booking") -> Layout:
    """Return an IJB-S style set: booking pictures, or single ones, against surveillance videos.

    Args:
        root: the set, with `protocols`.
        gallery: "booking" (several pictures a person) or "single".

    Raises:
        InputError: a file or column is missing, or no subject of a gallery is in a video.
    """
    if gallery not in _GALLERIES:
        raise InputError(f"gallery must be booking or single, got {gallery!r}")
    protocols = root / "protocols"
    documents = []
    for half, number in ((DEV, "g1"), (TEST, "g2")):
        path = protocols / "galleries" / f"cs6_surveillance_to_{gallery}_{number}.csv"
        table = read_table(path)
        if table.num_columns < 3:
            raise InputError(f"{path} must hold template, subject and file name in its columns")
        subjects, names = (table.column(i).to_pylist() for i in (1, 2))
        for subject, name in zip(subjects, names, strict=True):
            documents.append(DocumentFile(root / name, name, str(subject), half))
    halves = {one.person: one.half for one in documents}
    probes = read_table(protocols / "cs6_surveillance_to_single-booking_probe.csv")
    wanted = set(probes.column(0).to_pylist())
    tracks = list(_iter_ijbs_tracks(root, protocols / "cs6_metadata.csv", wanted, halves))
    note = (
        "IJB-S style: gallery 1's subjects are the development half and gallery 2's the test half; "
        "the official figures average searches of both galleries and are not these."
    )
    return Layout(f"IJB-S, {gallery}", tuple(documents), tuple(tracks), notes=(note,))


def _walk(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in folder.rglob("*"):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            yield path


def _read_truth(truth: Path, pictures: dict[str, Path], camera: str) -> list[TrackFiles]:
    """Return a track for each person of a sequence, boxes drawn about the eyes."""
    try:
        root = ElementTree.parse(truth).getroot()
    except ElementTree.ParseError as error:
        raise InputError(f"{truth} must be XML, but: {error}") from None
    seen: dict[str, list[tuple[Path, NDArray[np.float32]]]] = {}
    for frame in root.iter("frame"):
        picture = pictures.get(frame.get("number", ""))
        for person in frame.iter("person"):
            eyes = [person.find(name) for name in ("leftEye", "rightEye")]
            if picture is None or eyes[0] is None or eyes[1] is None:
                continue
            places = [(float(eye.get("x", "nan")), float(eye.get("y", "nan"))) for eye in eyes if
                      eye is not None]  # fmt: skip
            box = _box_of_eyes(np.array(places))
            if np.isfinite(box).all():
                seen.setdefault(person.get("id", ""), []).append((picture, box))
    return [
        TrackFiles(
            f"{truth.stem}/{person}",
            person,
            truth.stem,
            tuple(path for path, _ in faces),
            boxes=np.array([box for _, box in faces], np.float32),
            camera=camera,
        )
        for person, faces in sorted(seen.items())
    ]


def _box_of_eyes(eyes: NDArray[np.float64]) -> NDArray[np.float32]:
    side = _EYES_TO_BOX * float(np.hypot(*(eyes[1] - eyes[0])))
    x, y = eyes.mean(axis=0)
    top = y - _EYES_DOWN * side
    return np.array([x - side / 2, top, x + side / 2, top + side], np.float32)


def _iter_ijbs_tracks(
    root: Path, metadata: Path, wanted: set[str], halves: dict[str, str]
) -> Iterator[TrackFiles]:
    table = read_table(metadata)
    names = {name.upper(): name for name in table.column_names}
    frame = next((name for name in _FRAME_COLUMNS if name in names), None)
    for name in ("SUBJECT_ID", "FILENAME", *_FACE_COLUMNS):
        if name not in names or frame is None:
            missing = name if name not in names else " or ".join(_FRAME_COLUMNS)
            raise InputError(f"{metadata} must have the column {missing}, which is missing")
    subjects = table[names["SUBJECT_ID"]].to_pylist()
    files = table[names["FILENAME"]].to_pylist()
    frames = np.array([int(v) for v in table[names[str(frame)]].to_pylist()], np.int64)
    faces = [table[names[name]].to_pylist() for name in _FACE_COLUMNS]
    x, y, width, height = (np.array(column, np.float32) for column in faces)
    boxes = np.stack([x, y, x + width, y + height], axis=1)
    rows: dict[tuple[str, str], list[int]] = {}
    for row, (subject, file) in enumerate(zip(subjects, files, strict=True)):
        if file in wanted and str(subject) in halves:
            rows.setdefault((str(file), str(subject)), []).append(row)
    if not rows:
        raise InputError(f"no subject of the galleries is in a probe video of {metadata}")
    for (file, subject), places in sorted(rows.items()):
        order = np.array(places)[np.unique(frames[places], return_index=True)[1]]
        yield TrackFiles(
            f"{file}#{subject}",
            subject,
            file,
            clip=root / file,
            frames=frames[order],
            boxes=boxes[order],
            half=halves[subject],
        )
