"""A surveillance set simulated from stills: documents, H.264 videos, and the truth of both.

    OUT/documents/PERSON/0.png   a document of everybody enrolled
    OUT/videos/NAME.mp4          people walking by, each at each size
    OUT/tracks.parquet           a row a person and frame: `eval.simulate_film.TRACK_SCHEMA`
    OUT/annotations.parquet      the faces half seen or better, for the detector annotations:FILE
    OUT/people.parquet           person, half, role, stills
    OUT/simulation.json          parameters, seed, versions, hashes of the sources, cameras

Everything follows from the stills, the settings and the seed, whatever the number of workers.
What is written stays: a killed run goes on at the videos that it was in.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eval.simulate_cast import ROLES, Cast, list_people, read_cast, write_cast
from eval.simulate_crew import name_path, run_tasks
from eval.simulate_documents import DocumentTask, make_document
from eval.simulate_film import TRACK_SCHEMA, FilmTask, describe_videos, film_scene
from eval.simulate_settings import SIMULATED, SimulationSettings
from eval.simulate_stills import choose_cast
from eval.simulate_walks import ScenePlan, plan_scenes
from facerec.checks import InputError, JobError, check_whole
from facerec.data.degrade_codec import check_h264
from facerec.data.scene_drawing import ANNOTATION_SCHEMA, annotation_row
from facerec.data.sources import SourceItem
from facerec.dist import cpu_count
from facerec.io import atomic_path, lock_folder, read_json, sha256_bytes, sha256_file
from facerec.progress import Progress
from facerec.provenance import write_result
from facerec.structures import Detector

T = TypeVar("T")

MARK = {b"facerec.simulation": SIMULATED.encode()}
"""What the metadata of every table of a simulation holds."""
NOTE = "simulated surveillance: no figure from it is a figure of real cameras"
_VERSION = 1
_RECORD, _PARTS = "simulation.json", ".parts"
_SEEN = 0.5  # share of a face that must show for a detector to be given it
_DOCUMENT_BYTES = 200_000
_PEOPLE_SCHEMA: pa.Schema = pa.schema(
    [
        ("person", pa.string()),
        ("half", pa.string()),  # dev or test
        ("role", pa.string()),  # enrolled, unknown, document only
        ("document", pa.string()),  # path in the simulation, "" for none
        ("document_still", pa.string()),  # key of the still that it is made of
        ("video_stills", pa.list_(pa.string())),
    ],
    metadata=MARK,
)


@dataclass(frozen=True)
class Inputs:
    """What a simulation is made from.

    Attributes:
        sources: folders with a folder a person, or lists.
        detector: finds the face in each still.
        detector_hash: from `facerec.detection.hash_detector`.
        policy: which face of a still is the person's: "central" or "largest".
        leave_out: people who must not appear.
    """

    sources: tuple[Path, ...]
    detector: Detector
    detector_hash: str
    policy: str = "central"
    leave_out: frozenset[str] = frozenset()


def simulate(
    inputs: Inputs, out: Path, settings: SimulationSettings, workers: int | None = None
) -> dict[str, Any]:
    """Write a simulation into `out`, or go on with one; return what simulation.json holds.

    Args:
        inputs: stills and detector.
        out: new or empty folder, or one of an earlier run with the same inputs and settings.
        settings: of everything that is drawn.
        workers: processes, one a core when None; they change nothing but the time.

    Raises:
        InputError: too few usable stills, a folder with something else in it, or no x264.
        JobError: too little disk, or a worker process was killed.
        OSError: the disk is full or may not be written.
    """
    crew = cpu_count() if workers is None else check_whole(workers, "workers", 1, 1024)
    check_h264()
    listed = list_people(inputs.sources, inputs.leave_out)
    record = _describe_inputs(inputs, settings, listed)
    with lock_folder(out, "simulate"), name_path(out):
        _check_target(out, record)
        _remove_leavings(out)
        cast = read_cast(out / _PARTS / "cast.json", record["fingerprint"])
        if cast is None:
            cast = choose_cast(listed, settings, inputs.detector, inputs.policy)
            write_cast(out / _PARTS / "cast.json", record["fingerprint"], cast)
        scenes = plan_scenes(cast, settings)
        record |= _describe_plan(cast, scenes, settings)
        _write_record(out, record, settings, complete=False)
        documents = [
            DocumentTask(person.document, settings, out / "documents" / person.name / "0.png")
            for person in cast.people
            if person.document is not None
        ]
        films = [
            FilmTask(
                scene,
                settings,
                out / "videos" / f"{scene.name}.mp4",
                out / _PARTS / f"{scene.name}.parquet",
            )
            for scene in scenes
        ]
        new_documents = [task for task in documents if not task.path.is_file()]
        new_films = [task for task in films if not (task.rows.is_file() and task.video.is_file())]
        _check_space(out, len(new_documents), len(new_films), settings)
        _run("documents", make_document, new_documents, len(new_documents), crew)
        _run("frames", film_scene, new_films, len(new_films) * settings.count_frames(), crew)
        record["tables"] = _gather(out, films, cast)
        _write_record(out, record, settings, complete=True)
    return read_record(out)


def read_record(out: Path) -> dict[str, Any]:
    """Return what simulation.json of a simulation holds.

    Raises:
        InputError: there is none, or it is no such file.
    """
    record = read_json(out / _RECORD)
    if not isinstance(record, dict) or record.get(SIMULATED) is not True:
        raise InputError(f"{out / _RECORD} must be the record of a simulation; simulate again")
    return record


def _describe_inputs(
    inputs: Inputs, settings: SimulationSettings, listed: Mapping[str, Sequence[SourceItem]]
) -> dict[str, Any]:
    """Return what a simulation follows from, and one hash of it."""
    listing = "\n".join(item.key for items in listed.values() for item in items)
    basis = {
        "settings": settings.to_json(),
        "stills_listed": sum(map(len, listed.values())),
        "listing_sha256": sha256_bytes(listing.encode()),
        "detector": inputs.detector.name,
        "detector_sha256": inputs.detector_hash,
        "policy": inputs.policy,
    }
    fingerprint = sha256_bytes(json.dumps([_VERSION, basis], sort_keys=True).encode())
    return {
        SIMULATED: True,
        "note": NOTE,
        "version": _VERSION,
        "sources": [str(source) for source in inputs.sources],
        **basis,
        "fingerprint": fingerprint,
    }


def _describe_plan(
    cast: Cast, scenes: Sequence[ScenePlan], settings: SimulationSettings
) -> dict[str, Any]:
    used = [s for person in cast.people for s in (person.document, *person.videos) if s is not None]
    return {
        "people": {role: sum(p.role == role for p in cast.people) for role in ROLES},
        "halves": {
            half: sum(p.half == half for p in cast.people)
            for half in sorted({p.half for p in cast.people})
        },
        "tracks": sum(len(scene.tracks) for scene in scenes),
        "rejected": [{"still": key, "reason": reason} for key, reason in cast.rejected],
        "stills_sha256": {f"{s.person}: {s.key}": s.sha256 for s in used},
        "videos": describe_videos(scenes, settings),
    }


def _write_record(
    out: Path, record: Mapping[str, Any], settings: SimulationSettings, *, complete: bool
) -> None:
    write_result(
        out / _RECORD,
        {**record, "complete": complete},
        seed=settings.seed,
        config=settings.to_json(),
        hashes={
            "listing": record["listing_sha256"],
            "detector": record["detector_sha256"],
            "stills": sha256_bytes(json.dumps(record["stills_sha256"], sort_keys=True).encode()),
        },
    )


def _check_target(out: Path, record: Mapping[str, Any]) -> None:
    """Refuse a folder of something else, or of a simulation that differs."""
    if not (out / _RECORD).is_file():
        other = next((entry.name for entry in out.iterdir() if entry.name[0] != "."), None)
        if other is not None:
            raise InputError(f"{out} must be a new or empty folder, but holds {other}")
        return
    old = read_record(out)
    if old.get("fingerprint") == record["fingerprint"]:
        return
    was, now = old.get("settings") or {}, record["settings"]
    differing = [f"{name} was {was.get(name)}" for name in now if was.get(name) != now[name]]
    what = ", ".join(differing) or "the stills, the detector or the version differ"
    raise InputError(f"{out} holds another simulation ({what}); give a new folder")


def _remove_leavings(out: Path) -> None:
    """Remove the temporary files of a run that was killed; nobody else writes here now."""
    for folder in (out, out / "videos", out / _PARTS, *(out / "documents").glob("*")):
        for ending in ("mp4", "parquet", "png", "json"):
            for path in folder.glob(f".*.{ending}"):
                path.unlink()


def _check_space(out: Path, documents: int, films: int, settings: SimulationSettings) -> None:
    needed = documents * _DOCUMENT_BYTES
    needed += round(1.2 * films * settings.seconds * settings.bit_rate_kbit * 1000 / 8)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise JobError(
            f"{out}: about {needed / 1e6:,.0f} MB are needed, but {free / 1e6:,.0f} MB are free; "
            "free some space, or lower --people, --seconds or --bit-rate"
        )


def _run(
    what: str, function: Callable[[T], int], tasks: Sequence[T], total: int, workers: int
) -> None:
    """Run the tasks, whose function returns how many of `what` it made."""
    with Progress(f"simulate {what}", total, what) as progress:
        for made in run_tasks(function, tasks, workers):
            progress.advance(made)


def _gather(out: Path, films: Iterable[FilmTask], cast: Cast) -> dict[str, str]:
    """Write the tables of the whole simulation; return their hashes."""
    marked = ANNOTATION_SCHEMA.with_metadata(MARK)
    with (
        atomic_path(out / "tracks.parquet") as tracks,
        atomic_path(out / "annotations.parquet") as faces,
        pq.ParquetWriter(tracks, TRACK_SCHEMA, compression="zstd") as track_writer,
        pq.ParquetWriter(faces, marked, compression="zstd") as face_writer,
    ):
        for film in films:
            rows = pq.read_table(film.rows, schema=TRACK_SCHEMA)
            track_writer.write_table(rows)
            seen = [_annotate(row) for row in rows.to_pylist() if row["visible"] >= _SEEN]
            face_writer.write_table(pa.Table.from_pylist(seen, schema=marked))
    people = [
        {
            "person": person.name,
            "half": person.half,
            "role": person.role,
            "document": f"documents/{person.name}/0.png" if person.document else "",
            "document_still": person.document.key if person.document else "",
            "video_stills": [still.key for still in person.videos],
        }
        for person in cast.people
    ]
    with atomic_path(out / "people.parquet") as temporary:
        pq.write_table(pa.Table.from_pylist(people, schema=_PEOPLE_SCHEMA), temporary)
    names = ("tracks.parquet", "annotations.parquet", "people.parquet")
    return {name: sha256_file(out / name) for name in names}


def _annotate(row: Mapping[str, Any]) -> dict[str, Any]:
    landmarks = np.array(row["landmarks"], np.float32).reshape(5, 2)
    return annotation_row(f"{row['video']}#{row['frame']}", np.array(row["box"]), landmarks)
