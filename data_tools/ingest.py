"""Sources to a set: pictures through a detector to chips and a manifest, resumable, in parts.

The source is only read. Pictures are taken in the source's order, a fixed number to a part; a part
is published, whole and durable, after its chips. A killed run goes on behind the last part and
ends with the same set as an undisturbed one.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_tools.sets import SET_FORMAT, SetFolder, clear_leftovers, read_info, record_stage
from facerec.checks import InputError, check_one_of, check_range
from facerec.data.manifest import MANIFEST_SCHEMA, build_manifest
from facerec.data.sources import Source, SourceItem, scan_source
from facerec.detection import DetectedPicture, build_detector, hash_detector, iter_pictures
from facerec.io import atomic_path, sha256_bytes, sync_file, sync_folder, write_json
from facerec.progress import Progress
from facerec.provenance import versions
from facerec.structures import FACE_POLICIES, Detector

CHIP_FORMATS = ("png", "jpg")
PART_PICTURES = 1000
_SECONDS_KEY = b"facerec.seconds"
_ENCODING = {"png": [cv2.IMWRITE_PNG_COMPRESSION, 1], "jpg": [cv2.IMWRITE_JPEG_QUALITY, 95]}


def ingest(
    source: Path,
    out: Path,
    detector: str,
    *,
    policy: str = "largest",
    kind: str = "auto",
    root: Path | None = None,
    chip_format: str = "png",
    threads: int | None = None,
    part_pictures: int = PART_PICTURES,
) -> dict[str, Any]:
    """Detect and align the faces of a source into the set folder `out`.

    Args:
        source: a folder, a list or a picture: see `facerec.data.sources.scan_source`.
        out: the set folder; made if missing, gone on with if it was begun with these settings.
        detector: as for `facerec.detection.build_detector`.
        policy: which faces of a picture: "largest", "central" or "all".
        kind: "folder", "list", "loose" or "auto".
        root: for a list, the folder its paths are relative to.
        chip_format: "png" keeps every pixel; "jpg" (quality 95) takes a quarter of the space.
        threads: for decoding and detection, one a core when None.
        part_pictures: pictures a part.

    Returns:
        The figures: pictures, faces, unusable, reasons, identities, seconds, already (whether all
        had been done before).

    Raises:
        InputError: see `scan_source` and `build_detector`; `out` lies in the source or holds
            something else, a set of other settings, or is in use.
    """
    check_one_of(policy, "face policy", FACE_POLICIES)
    check_one_of(chip_format, "chip format", CHIP_FORMATS)
    check_range(part_pictures, "part_pictures", 1, 1_000_000)
    if threads is not None:
        check_range(threads, "threads", 1, 1024)
    _check_apart(source, out)
    found = scan_source(source, kind, root)
    _check_other(found.root, out)
    finder = build_detector(detector)
    settings = {
        **_describe_source(source, found),
        "detector": finder.name,
        "detector_sha256": hash_detector(detector, finder),
        "policy": policy,
        "chip_format": chip_format,
        "part_pictures": part_pictures,
    }
    folder = SetFolder(out)
    _check_free(folder)
    with folder.lock("ingest"):
        _begin(folder, settings)
        already = folder.manifest.is_file()
        if not already:
            _write_parts(folder, found, finder, policy, chip_format, threads)
            _merge_parts(folder)
        figures = {**_count(folder), "ignored": found.ignored}
        seconds = _record(folder, figures)
        _remove_parts(folder)
    return {**figures, "seconds": seconds, "already": already, "settings": settings}


def _check_apart(source: Path, out: Path) -> None:
    if not source.is_dir():
        return
    inner, outer = out.resolve(), source.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise InputError(
            f"the set {out} and its source {source} must lie apart: nothing is written to a source"
        )


def _check_other(root: Path, out: Path) -> None:
    if out.resolve() == root.resolve():
        raise InputError(f"the set {out} must not be the folder of the source; take another")


def _check_free(folder: SetFolder) -> None:
    if folder.root.exists() and not folder.root.is_dir():
        raise InputError(f"{folder.root} must be a folder for the set, but is a file")
    if folder.info.is_file() or not folder.root.is_dir():
        return
    if any(not entry.name.startswith(".") for entry in folder.root.iterdir()):
        raise InputError(
            f"{folder.root} holds other files and is no set; give a new or an empty folder"
        )


def _begin(folder: SetFolder, settings: dict[str, Any]) -> None:
    for place in (folder.root, folder.parts):
        clear_leftovers(place)
    if not folder.info.is_file():
        head = {"format": SET_FORMAT, "settings": settings, "versions": versions(), "stages": []}
        write_json(folder.info, head)
        return
    before = read_info(folder)["settings"]
    for name, value in settings.items():
        if before.get(name) != value:
            raise InputError(
                f"{folder.root} was begun with {name} {before.get(name)!r}, now it is {value!r}; "
                "use the same settings or another folder"
            )


def _describe_source(source: Path, found: Source) -> dict[str, Any]:
    """Return what a later run of the same ingest must find again."""
    return {
        "source": str(source.resolve()),
        "root": str(found.root.resolve()),
        "kind": found.kind,
        "listing": _hash_listing(found.items),
        "pictures": len(found.items),
    }


def _hash_listing(items: list[SourceItem]) -> str:
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps([item.key, item.identity, item.split]).encode())
    return digest.hexdigest()


def _write_parts(
    folder: SetFolder,
    source: Source,
    detector: Detector,
    policy: str,
    chip_format: str,
    threads: int | None,
) -> None:
    """Write the parts that are missing."""
    size = int(read_info(folder)["settings"]["part_pictures"])
    done, _ = _read_progress(folder)
    rest = source.items[done * size :]
    pictures = iter_pictures(rest, detector, policy, threads)
    with Progress("ingest", len(rest), "pictures") as progress:
        for number in range(done, -(-len(source.items) // size)):
            began = time.monotonic()
            rows: list[dict[str, Any]] = []
            chips: list[Path] = []
            for picture in islice(pictures, size):
                for row, chip in _write_picture(folder, picture, source, policy, chip_format):
                    rows.append(row)
                    chips.extend(chip)
                progress.advance()
            _sync_files(chips)
            spent = time.monotonic() - began
            _write_part(folder.parts / f"part-{number:05d}.parquet", rows, spent)


def _read_progress(folder: SetFolder) -> tuple[int, float]:
    """Return how many parts are there, without a gap from the first, and the seconds they took."""
    seconds, number = 0.0, 0
    while (part := folder.parts / f"part-{number:05d}.parquet").is_file():
        try:
            metadata = pq.read_schema(part).metadata or {}
        except Exception as error:  # whatever pyarrow says of a broken file
            raise InputError(f"{part} is damaged; delete it and run again") from error
        seconds += float(metadata.get(_SECONDS_KEY, b"0"))
        number += 1
    return number, seconds


def _write_picture(
    folder: SetFolder, picture: DetectedPicture, source: Source, policy: str, chip_format: str
) -> Iterator[tuple[dict[str, Any], list[Path]]]:
    """Write a picture's chips; yield its manifest rows, each with the chip files to be synced."""
    item = picture.item
    row = {
        "path": item.key,
        "identity": item.identity,
        "source": source.root.resolve().name,
        "split": item.split,
        "sha256": picture.sha256,
        "width": picture.width,
        "height": picture.height,
        "faces": picture.found,
        "policy": policy,
        "reason": picture.reason,
    }
    if not len(picture.chips):
        yield row, []
    for face, chip in enumerate(picture.chips):
        name = f"{picture.image_id}-{face}"
        file = _write_chip(folder.chips / name[:2], name, chip, chip_format)
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


def _write_chip(folder: Path, name: str, chip: NDArray[np.uint8], chip_format: str) -> Path:
    """Write a chip and return its file.

    The same bytes in two folders of the source share a chip. Where a side-car table gives them
    other faces, the second chip takes a name of its own.
    """
    done, encoded = cv2.imencode(
        f".{chip_format}", cv2.cvtColor(chip, cv2.COLOR_RGB2BGR), _ENCODING[chip_format]
    )
    assert done, "OpenCV encodes 112x112 chips"
    data = encoded.tobytes()
    file = folder / f"{name}.{chip_format}"
    if file.is_file() and file.read_bytes() != data:
        file = folder / f"{name}-{sha256_bytes(data)[:8]}.{chip_format}"
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{file.name}.tmp"
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
        folders.add(file.parent)
    for folder in sorted(folders):
        sync_folder(folder)


def _write_part(path: Path, rows: Iterable[Mapping[str, Any]], seconds: float) -> None:
    table = build_manifest(rows)
    metadata = {**(MANIFEST_SCHEMA.metadata or {}), _SECONDS_KEY: f"{seconds:.3f}".encode()}
    with atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")


def _merge_parts(folder: SetFolder) -> None:
    """Write the manifest from its parts, one part in memory at a time."""
    parts = sorted(folder.parts.glob("part-*.parquet"))
    with (
        atomic_path(folder.manifest) as temporary,
        pq.ParquetWriter(temporary, MANIFEST_SCHEMA, compression="zstd") as writer,
    ):
        for part in parts:
            table = pq.read_table(part, partitioning=None)
            writer.write_table(table.replace_schema_metadata(MANIFEST_SCHEMA.metadata))


def _record(folder: SetFolder, figures: dict[str, Any]) -> float:
    """Return the seconds that the ingest took over all its runs, entered in `set.json` once."""
    for stage in read_info(folder)["stages"]:
        if stage["stage"] == "ingest":
            return float(stage["seconds"])
    _, seconds = _read_progress(folder)
    record_stage(folder, "ingest", seconds, count=figures["pictures"], unit="pictures")
    return seconds


def _remove_parts(folder: SetFolder) -> None:
    for part in folder.parts.glob("part-*.parquet"):
        part.unlink()
    if folder.parts.is_dir():
        folder.parts.rmdir()


def _count(folder: SetFolder) -> dict[str, Any]:
    """Return the figures of a manifest, read column by column."""
    table = pq.read_table(folder.manifest, columns=["path", "identity", "reason"])
    reasons: dict[str, int] = {}
    for reason in table["reason"].to_pylist():
        if reason:
            reasons[reason] = reasons.get(reason, 0) + 1
    unusable = sum(reasons.values())
    return {
        "rows": table.num_rows,
        "pictures": len(set(table["path"].to_pylist())),
        "faces": table.num_rows - unusable,
        "unusable": unusable,
        "reasons": dict(sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))),
        "identities": len(set(table["identity"].to_pylist()) - {""}),
    }
