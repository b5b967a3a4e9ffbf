"""One part of an ingest: pictures through the detector to chips and a manifest part, anywhere.

The work of a part depends on nothing but its task and the source, and writes nothing but what the
part names: the same function runs inline, in a process of a pool and on a machine of a cluster.
"""

from __future__ import annotations

import functools
import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_tools.sets import SetFolder
from facerec.checks import InputError
from facerec.data.manifest import MANIFEST_SCHEMA, build_manifest
from facerec.data.pictures import DetectedPicture, iter_pictures
from facerec.data.source_parts import Fault, Part, PartReader
from facerec.detection import build_detector, hash_detector
from facerec.io import atomic_path, sha256_bytes, sync_file, sync_folder
from facerec.structures import Detector

_NOTES_KEY = b"facerec.ingest"
_ENCODING = {"png": [cv2.IMWRITE_PNG_COMPRESSION, 1], "jpg": [cv2.IMWRITE_JPEG_QUALITY, 95]}
_BESIDE_PICTURES = "annotations:"
_PROCESS = uuid.uuid4().hex[:12]  # in the names of temporary files: others write there too


@dataclass(frozen=True)
class PartTask:
    """What a worker is told; a few hundred bytes.

    Attributes:
        part: which pictures.
        reader: reads them.
        out: the set folder.
        source: name of the source, for the manifest.
        detector: as for `facerec.detection.build_detector`.
        detector_sha256: what `hash_detector` must say of it.
        policy: which faces of a picture.
        chip_format: "png" or "jpg".
        threads: that decode and detect.
        abreast: how many parts are worked on at the same time, for the time spent.
    """

    part: Part
    reader: PartReader
    out: Path
    source: str
    detector: str
    detector_sha256: str
    policy: str
    chip_format: str
    threads: int
    abreast: int = 1


@dataclass(frozen=True)
class PartNotes:
    """What a part says beside its rows.

    Attributes:
        seconds: its share of the wall time.
        pictures: how many it holds.
        skipped: rows of the source that say themselves that they hold no picture.
        ignored: files whose names end like no picture's.
        faults: what could not be read.
    """

    seconds: float = 0.0
    pictures: int = 0
    skipped: int = 0
    ignored: int = 0
    faults: tuple[Fault, ...] = field(default=())


def name_part_file(folder: SetFolder, number: int) -> Path:
    """Return where a part's rows lie."""
    return folder.parts / f"part-{number:05d}.parquet"


def ingest_part(
    task: PartTask, detector: Detector | None = None, advance: Callable[[], None] | None = None
) -> PartNotes:
    """Write the chips and then the rows of a part, whole and durable.

    Args:
        task: which part, and how.
        detector: built already; None: built once a process.
        advance: called after each picture.

    Returns:
        What the part says; what was damaged in the source stands there, and does not raise.

    Raises:
        InputError: the source or the set folder is not there on this machine, or the detector is
            another one than where the ingest was started.
        OSError: the set folder cannot be written.
    """
    _check_shared(task)
    finder = detector or _load_detector(task.detector, task.detector_sha256)
    folder, began = SetFolder(task.out), time.monotonic()
    content = task.reader.read_part(task.part)
    rows: list[dict[str, Any]] = []
    chips: list[Path] = []
    for picture in iter_pictures(content.items, finder, task.policy, task.threads):
        for row, written in _write_picture(folder, picture, task):
            rows.append(row)
            chips.extend(written)
        if advance is not None:
            advance()
    _sync_files(chips)
    notes = PartNotes(
        (time.monotonic() - began) / task.abreast,
        len(content.items),
        content.skipped,
        content.ignored,
        content.faults,
    )
    _write_part(name_part_file(folder, task.part.number), rows, notes)
    return notes


def give_up_part(task: PartTask, reason: str) -> PartNotes:
    """Write the rows of a part that no worker survives: its pictures, each with the reason.

    The pictures are listed, not read.
    """
    content = task.reader.read_part(task.part)
    rows = [
        {
            "path": item.key,
            "identity": item.identity,
            "source": task.source,
            "split": item.split,
            "sha256": "",
            "width": 0,
            "height": 0,
            "policy": task.policy,
            "reason": reason[:200],
        }
        for item in content.items
    ]
    fault = Fault(task.reader.name_part(task.part), reason)
    notes = PartNotes(
        pictures=len(rows),
        skipped=content.skipped,
        ignored=content.ignored,
        faults=(*content.faults, fault),
    )
    _write_part(name_part_file(SetFolder(task.out), task.part.number), rows, notes)
    return notes


def read_notes(path: Path) -> PartNotes | None:
    """Return what a part says beside its rows, None when there is no such part.

    Raises:
        InputError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        metadata = pq.read_schema(path).metadata or {}
        values = json.loads(metadata[_NOTES_KEY])
        faults = tuple(Fault(*fault) for fault in values.pop("faults"))
        return PartNotes(**values, faults=faults)
    except Exception as error:  # whatever pyarrow says of a broken file
        raise InputError(f"{path} is damaged; delete it and run again") from error


def _check_shared(task: PartTask) -> None:
    for place in (task.reader.root, task.out):
        if not place.is_dir():
            raise InputError(
                f"{place} is not there on the machine of a worker; put the source and the set "
                "folder on storage that all machines share, under the same path"
            )


@functools.lru_cache(maxsize=1)
def _load_detector(spec: str, sha256: str) -> Detector:
    """Return the detector of this process.

    Raises:
        InputError: it is not the one that the run began with.
    """
    detector = build_detector(spec)
    if hash_detector(spec, detector) != sha256:
        raise InputError(
            f"detector {spec} is another one on this machine than where the ingest was started; "
            "give all machines the same files"
        )
    return detector


def _write_picture(
    folder: SetFolder, picture: DetectedPicture, task: PartTask
) -> Iterator[tuple[dict[str, Any], list[Path]]]:
    """Write a picture's chips; yield its manifest rows, each with the chip files to be synced."""
    item = picture.item
    row = {
        "path": item.key,
        "identity": item.identity,
        "source": task.source,
        "split": item.split,
        "sha256": picture.sha256,
        "width": picture.width,
        "height": picture.height,
        "faces": picture.found,
        "policy": task.policy,
        "reason": picture.reason,
    }
    if not len(picture.chips):
        yield row, []
    for face, chip in enumerate(picture.chips):
        data = _encode(chip, task.chip_format)
        name = f"{picture.image_id}-{face}"
        if task.detector.startswith(_BESIDE_PICTURES):
            # Equal pictures may have other faces there: the name must not depend on who is first.
            name = f"{name}-{sha256_bytes(data)[:8]}"
        file = _write_chip(folder.chips / name[:2], f"{name}.{task.chip_format}", data)
        yield (
            {
                **row,
                "face": face,
                "box": picture.faces.boxes[face],
                "landmarks": picture.faces.landmarks[face],
                "det_score": float(picture.faces.scores[face]),
                "chip": file.relative_to(folder.root).as_posix(),
            },
            [file],
        )


def _encode(chip: NDArray[np.uint8], chip_format: str) -> bytes:
    done, encoded = cv2.imencode(
        f".{chip_format}", cv2.cvtColor(chip, cv2.COLOR_RGB2BGR), _ENCODING[chip_format]
    )
    assert done, "OpenCV encodes 112x112 chips"
    return bytes(encoded.tobytes())


def _write_chip(folder: Path, name: str, data: bytes) -> Path:
    """Write a chip, which the same picture elsewhere in the source may share, all or nothing."""
    file = folder / name
    if file.is_file() and file.read_bytes() == data:
        return file
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{name}.{_PROCESS}.tmp"
    try:
        temporary.write_bytes(data)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    return file


def _sync_files(files: Iterable[Path]) -> None:
    """Flush a part's chips to disk before the part says that they are there."""
    folders: set[Path] = set()
    for file in files:
        sync_file(file)
        folders |= {file.parent, file.parent.parent}
    for folder in sorted(folders):
        sync_folder(folder)


def _write_part(path: Path, rows: Iterable[Mapping[str, Any]], notes: PartNotes) -> None:
    table = build_manifest(rows)
    values = {
        "seconds": round(notes.seconds, 3),
        "pictures": notes.pictures,
        "skipped": notes.skipped,
        "ignored": notes.ignored,
        "faults": notes.faults,
    }
    metadata = {**(MANIFEST_SCHEMA.metadata or {}), _NOTES_KEY: json.dumps(values).encode()}
    with atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")
