"""Where documents and tracks lie: lists of files, and readers of plain folders and tables.

Plain folders:

    documents/PERSON/any.jpg          one or several documents of PERSON
    tracks/PERSON/TRACK/any.jpg       a folder of frames is a track
    tracks/PERSON/any.jpg             a picture beside it is a track of one frame
    tracks/PERSON/any.mp4             a video of one person is a track

A person without a document is unknown. Tables (CSV or Parquet) give more: documents with the
columns `path`, `person` and, if known, `half`, `group`, `year`; people with `person` and `half`,
`group`; tracks with one row a face, see `read_track_table`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError
from facerec.data.images import IMAGE_SUFFIXES
from facerec.data.sources import read_table

VIDEO_SUFFIXES = frozenset((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"))


@dataclass(frozen=True)
class DocumentFile:
    """A document's picture.

    Attributes:
        path: where it lies.
        name: what reports call it.
        person: whose it is.
        half: "dev", "test" or "".
        group: "" where not known.
        year: NaN where not known.
    """

    path: Path
    name: str
    person: str
    half: str = ""
    group: str = ""
    year: float = float("nan")


@dataclass(frozen=True)
class TrackFiles:
    """A track's pictures: files, or faces of a video.

    Attributes:
        name: what reports call it, each once.
        person: "" = somebody unknown.
        video: name of the video or sequence.
        pictures: files, in order; none for a video.
        clip: the video, None for pictures.
        frames: int64 (k,), rising frame numbers in the video; None: every frame.
        boxes: float32 (k, 4), where the face is in each frame or picture; None: the largest.
        landmarks: float32 (k, 5, 2); None where not known.
        camera: "" where not known.
        half: "dev", "test" or "".
        group: "" where not known.
        year: NaN where not known.
    """

    name: str
    person: str
    video: str
    pictures: tuple[Path, ...] = ()
    clip: Path | None = None
    frames: NDArray[np.int64] | None = None
    boxes: NDArray[np.float32] | None = None
    landmarks: NDArray[np.float32] | None = None
    camera: str = ""
    half: str = ""
    group: str = ""
    year: float = float("nan")


_Row = TypeVar("_Row", DocumentFile, TrackFiles)


@dataclass(frozen=True)
class Layout:
    """A set of documents and tracks.

    Attributes:
        name: of the set.
        documents: one a picture.
        tracks: one a track.
        simulated: whether the tracks are simulated.
        notes: sentences for the report.
        hashes: name of a table -> sha256.
    """

    name: str
    documents: tuple[DocumentFile, ...]
    tracks: tuple[TrackFiles, ...]
    simulated: bool = False
    notes: tuple[str, ...] = ()
    hashes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.documents:
            raise InputError(f"{self.name} holds no document; a document is a picture of a person")
        if not self.tracks:
            raise InputError(f"{self.name} holds no track; check the folder of tracks or videos")

    def place(self, people: Mapping[str, Mapping[str, str]]) -> Layout:
        """Return the same set with the halves and groups that a table of people gives.

        What a document or track says itself stands.
        """
        return replace(
            self,
            documents=tuple(_fill(one, people.get(one.person, {})) for one in self.documents),
            tracks=tuple(_fill(one, people.get(one.person, {})) for one in self.tracks),
        )


def read_folders(documents: Path, tracks: Path) -> Layout:
    """Return the set in two plain folders (the first may be a table of documents).

    Raises:
        InputError: a folder is missing or holds nothing.
    """
    found = list(_iter_track_folders(tracks))
    return Layout(f"{documents.name} and {tracks.name}", tuple(read_documents(documents)),
                  tuple(found))  # fmt: skip


def read_documents(path: Path) -> list[DocumentFile]:
    """Return the documents in a folder with a folder a person, or in a table.

    A table's `path` is relative to the folder that the table lies in. Its person may be called
    `person` or `identity`, its half `half` or `split`.

    Raises:
        InputError: nothing there, a picture outside a person's folder, a column is missing.
    """
    if path.is_file():
        return list(_iter_document_rows(path))
    found = []
    for person in list_people(path):
        pictures = list_pictures(path / person)
        found += [DocumentFile(one, f"{person}/{one.name}", person) for one in pictures]
    if not found:
        raise InputError(f"{path} must hold a folder of pictures a person, but holds none")
    return found


def read_track_table(table: Path, videos: Path) -> list[TrackFiles]:
    """Return the tracks of a table with one row a face and frame.

    Args:
        table: columns `video` (file in `videos`), `track` (number or name in it), `person` ("" =
            unknown), `frame` (from 0), `box` (x1 y1 x2 y2), and, if known, `landmarks` (five times
            x y), `camera`, `half`, `group`, `year`, each one value a track.
        videos: the folder of the videos.

    Raises:
        InputError: a column is missing, a track with two people or a frame twice, a video that is
            not there.
    """
    columns = _columns(table, ("video", "track", "person", "frame", "box"))
    count = len(columns["video"])
    keys = [
        f"{video}#{track}" for video, track in zip(columns["video"], columns["track"], strict=True)
    ]
    frames = np.array([int(one) for one in columns["frame"]], np.int64)
    names, codes = np.unique(np.array(keys, dtype=str), return_inverse=True)
    order = np.lexsort((frames, codes.reshape(-1)))
    bounds = np.searchsorted(codes.reshape(-1)[order], np.arange(names.size + 1))
    boxes = _lists(columns["box"], 4, table)
    marks = _lists(columns["landmarks"], 10, table) if "landmarks" in columns else None
    facts = {
        name: columns.get(name, [None] * count) for name in ("camera", "half", "group", "year")
    }
    found = []
    for place, name in enumerate(names.tolist()):
        rows = order[bounds[place] : bounds[place + 1]]
        first = int(rows[0])
        if len({columns["person"][row] for row in rows.tolist()}) > 1:
            raise InputError(f"track {name} of {table} has two people; give each its own track")
        if (np.diff(frames[rows]) == 0).any():
            raise InputError(f"track {name} of {table} has a frame twice; give it once")
        clip = videos / str(columns["video"][first])
        if not clip.is_file():
            raise InputError(f"{clip} of {table} does not exist; check the folder of videos")
        person = str(columns["person"][first] or "")
        told = {key: facts[key][first] for key in facts}
        track = TrackFiles(
            name,
            person,
            clip.name,
            clip=clip,
            frames=frames[rows],
            boxes=boxes[rows],
            landmarks=None if marks is None else marks[rows].reshape(-1, 5, 2),
            camera=str(told["camera"] or ""),
            half=str(told["half"] or ""),
            group=str(told["group"] or ""),
            year=_year(told["year"]),
        )
        found.append(track)
    return found


def read_people(table: Path) -> dict[str, dict[str, str]]:
    """Return person -> what a table says of them: "half", "group", "role", where it has these.

    Raises:
        InputError: no column `person`, or a person twice.
    """
    columns = _columns(table, ("person",))
    found: dict[str, dict[str, str]] = {}
    for row, person in enumerate(columns["person"]):
        if str(person) in found:
            raise InputError(f"person {person!r} is in {table} twice; give each once")
        found[str(person)] = {
            name: str(columns[name][row] or "")
            for name in ("half", "group", "role")
            if name in columns
        }
    return found


def list_people(folder: Path) -> list[str]:
    """Return the names of a folder's folders, sorted.

    Raises:
        InputError: no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} must be a folder with a folder a person; check the path")
    return sorted(one.name for one in folder.iterdir() if one.is_dir() and one.name[0] != ".")


def list_pictures(folder: Path) -> list[Path]:
    """Return the pictures that lie in a folder, sorted by name; not those below it."""
    return _list_files(folder, IMAGE_SUFFIXES)


def _list_files(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    return sorted(
        one for one in folder.iterdir() if one.suffix.lower() in suffixes and one.is_file()
    )


def _iter_track_folders(root: Path) -> Iterator[TrackFiles]:
    for person in list_people(root):
        folder = root / person
        for track in list_people(folder):
            pictures = list_pictures(folder / track)
            if pictures:
                name = f"{person}/{track}"
                yield TrackFiles(name, person, name, tuple(pictures))
        for one in list_pictures(folder):
            name = f"{person}/{one.name}"
            yield TrackFiles(name, person, name, (one,))
        for one in _list_files(folder, VIDEO_SUFFIXES):
            name = f"{person}/{one.name}"
            yield TrackFiles(name, person, name, clip=one)


def _iter_document_rows(table: Path) -> Iterator[DocumentFile]:
    columns = _columns(table, ("path",))
    person = "person" if "person" in columns else "identity"
    half = "half" if "half" in columns else "split"
    if person not in columns:
        raise InputError(f"{table} must have the column 'person' or 'identity'; name each document")
    count = len(columns["path"])
    for row in range(count):
        name = str(columns["path"][row])
        yield DocumentFile(
            table.parent / name,
            name,
            str(columns[person][row] or ""),
            str(columns.get(half, [""] * count)[row] or ""),
            str(columns.get("group", [""] * count)[row] or ""),
            _year(columns.get("year", [None] * count)[row]),
        )


def _columns(table: Path, needed: tuple[str, ...]) -> dict[str, list[Any]]:
    found = read_table(table)
    for name in needed:
        if name not in found.column_names:
            raise InputError(f"{table} must have the column {name!r}, which is missing")
    columns: dict[str, list[Any]] = found.to_pydict()
    return columns


def _lists(values: list[Any], length: int, table: Path) -> NDArray[np.float32]:
    """Return lists of numbers, or texts of numbers with blanks, as float32 (n, length)."""
    rows = [one.replace(",", " ").split() if isinstance(one, str) else one for one in values]
    try:
        found = np.array(rows, np.float32).reshape(-1, length)
    except (TypeError, ValueError):
        found = np.full((0, length), np.nan, np.float32)
    if len(found) != len(values) or not np.isfinite(found).all():
        raise InputError(f"{table}: every box must be 4 numbers and every landmarks 10, all finite")
    return found


def _year(value: Any) -> float:
    if value is None or value == "":
        return float("nan")
    try:
        return float(value)
    except ValueError:
        raise InputError(f"a year must be a number, got {value!r}") from None


def _fill(row: _Row, known: Mapping[str, str]) -> _Row:
    half, group = row.half or known.get("half", ""), row.group or known.get("group", "")
    return replace(row, half=half, group=group)
