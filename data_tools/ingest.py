"""Sources to a set: pictures through a detector to chips and a manifest, resumable, in parts.

The source is only read. It is cut into parts, which are worked on here, in several processes or
on a cluster, in any order; a part is published, whole and durable, after its chips. A killed run
goes on with the parts that are missing and ends with the same set as an undisturbed one, whoever
did the work.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_tools.ingest_manifest import (
    check_faults,
    count_manifest,
    merge_parts,
    read_progress,
    remove_parts,
)
from data_tools.ingest_part import (
    PartNotes,
    PartTask,
    give_up_part,
    ingest_part,
    name_part_file,
)
from data_tools.sets import SET_FORMAT, SetFolder, clear_leftovers, read_info, record_stage
from data_tools.workers import Crew, Died, run_here, run_in_processes, run_on_ray
from facerec.checks import InputError, check_one_of, check_range, check_whole
from facerec.data.source_kinds import LABELLED_BY_COLUMN, open_parts
from facerec.data.source_parts import Fault, SourcePlan
from facerec.detection import build_detector, hash_detector
from facerec.io import write_json
from facerec.progress import Progress
from facerec.provenance import versions
from facerec.structures import FACE_POLICIES, Detector

CHIP_FORMATS = ("png", "jpg")
PART_PICTURES = 1000
PART_BYTES = 1 << 30
_LISTING = ".listing.parquet"  # of this run; a leftover of it is cleared like any temporary file
_LEAST_FAULTS = 3
_FAULT_SHARE = 0.1


def ingest(
    source: Path,
    out: Path,
    detector: str,
    *,
    policy: str = "largest",
    kind: str = "auto",
    root: Path | None = None,
    identity_column: str | None = None,
    chip_format: str = "png",
    threads: int | None = None,
    workers: int | None = None,
    ray: str | None = None,
    max_faults: int | None = None,
    part_pictures: int = PART_PICTURES,
    part_bytes: int = PART_BYTES,
) -> dict[str, Any]:
    """Detect and align the faces of a source into the set folder `out`.

    Args:
        source: a folder, a list, a picture, or shards: see `facerec.data.source_kinds.open_parts`.
        out: the set folder; made if missing, gone on with if it was begun with these settings.
        detector: as for `facerec.detection.build_detector`.
        policy: which faces of a picture: "largest", "central" or "all".
        kind: one of `facerec.data.source_kinds.SOURCE_KINDS`, or "auto".
        root: for a list, the folder its paths are relative to.
        identity_column: for lists and shards, the column or field that names who is shown.
        chip_format: "png" keeps every pixel; "jpg" (quality 95) takes a quarter of the space.
        threads: for decoding and detection in each worker; the cores shared out when None.
        workers: processes; see `Crew`.
        ray: address of a Ray cluster, or "local"; source and `out` must lie on storage that all
            its machines share.
        max_faults: shards that may be damaged or missing before the run stops; a tenth of them,
            at least 3, when None.
        part_pictures: pictures a part, in sources whose pictures can be listed.
        part_bytes: bytes a part in tar shards: a shard that is no bigger is one part.

    Returns:
        The figures: rows, pictures, faces, unusable, reasons, identities, ignored, skipped (rows
        of a source that say themselves that they hold no picture), faults (shard and reason of
        each), seconds (each part's time divided by `workers`: the wall time, on a cluster the
            workers' time together), already (whether all had been done before), settings.

    Raises:
        InputError: see `open_parts` and `build_detector`; `out` lies in the source or holds
            something else, a set of other settings, or is in use; too much cannot be read.
        MissingPackageError: `ray` is asked for and not installed.
    """
    check_one_of(policy, "face policy", FACE_POLICIES)
    check_one_of(chip_format, "chip format", CHIP_FORMATS)
    check_range(part_pictures, "part_pictures", 1, 1_000_000)
    check_range(part_bytes, "part_bytes", 1, 1 << 50)
    if max_faults is not None:
        check_whole(max_faults, "max_faults", 0, 1 << 31)
    crew = Crew(workers, ray, threads)
    source, out = Path(source), Path(out)
    _check_apart(source, out)
    found = open_parts(source, kind, root, identity_column)
    if out.resolve() == found.root.resolve():
        raise InputError(f"the set {out} must not be the folder of the source; take another")
    finder = build_detector(detector)
    settings: dict[str, Any] = {
        "detector": finder.name,
        "detector_sha256": hash_detector(detector, finder),
        "policy": policy,
        "chip_format": chip_format,
        "part_pictures": part_pictures,
    }
    if found.kind in LABELLED_BY_COLUMN:
        settings["identity_column"] = identity_column
    folder = SetFolder(out)
    _check_free(folder)
    with folder.lock("ingest"):
        for place in (folder.root, folder.parts):
            clear_leftovers(place)
        listing = folder.root / _LISTING
        try:
            plan = found.plan(listing, part_pictures, part_bytes)
            del found  # with the table or the index that the listing was written from
            settings = {**_describe_source(source, plan), **settings}
            if plan.pictures is None:
                settings["part_bytes"] = part_bytes
            _begin(folder, settings)
            already = folder.manifest.is_file()
            if not already:
                most = _bound_faults(plan, max_faults)
                _write_parts(
                    folder,
                    plan,
                    _build_task(plan, folder, detector, settings, crew),
                    finder,
                    crew,
                    most,
                )
                merge_parts(folder, len(plan.parts))
        finally:
            listing.unlink(missing_ok=True)
        figures = _record(folder, plan)
        remove_parts(folder)
    return {**figures, "already": already, "settings": settings}


def _check_apart(source: Path, out: Path) -> None:
    if not source.is_dir():
        return
    inner, outer = out.resolve(), source.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise InputError(
            f"the set {out} and its source {source} must lie apart: nothing is written to a source"
        )


def _check_free(folder: SetFolder) -> None:
    if folder.root.exists() and not folder.root.is_dir():
        raise InputError(f"{folder.root} must be a folder for the set, but is a file")
    if folder.info.is_file() or not folder.root.is_dir():
        return
    if any(not entry.name.startswith(".") for entry in folder.root.iterdir()):
        raise InputError(
            f"{folder.root} holds other files and is no set; give a new or an empty folder"
        )


def _describe_source(source: Path, plan: SourcePlan) -> dict[str, Any]:
    """Return what a later run of the same ingest must find again."""
    amount = {"shards": plan.shards} if plan.pictures is None else {"pictures": plan.pictures}
    return {
        "source": str(source.resolve()),
        "root": str(plan.root.resolve()),
        "kind": plan.kind,
        "listing": plan.listing,
        **amount,
    }


def _begin(folder: SetFolder, settings: dict[str, Any]) -> None:
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
    if not folder.manifest.is_file():
        for leftover in folder.chips.glob("*/.*.tmp"):
            leftover.unlink(missing_ok=True)


def _bound_faults(plan: SourcePlan, max_faults: int | None) -> int:
    if max_faults is not None:
        return max_faults
    return max(_LEAST_FAULTS, int(_FAULT_SHARE * (plan.shards or len(plan.parts))))


def _build_task(
    plan: SourcePlan, folder: SetFolder, detector: str, settings: dict[str, Any], crew: Crew
) -> functools.partial[PartTask]:
    """Return what makes the task of a part."""
    return functools.partial(
        PartTask,
        reader=plan.reader,
        out=folder.root.resolve(),
        source=plan.root.resolve().name,
        detector=_resolve_detector(detector),
        detector_sha256=settings["detector_sha256"],
        policy=settings["policy"],
        chip_format=settings["chip_format"],
        threads=crew.count_threads(),
        abreast=crew.abreast,
    )


def _resolve_detector(spec: str) -> str:
    """Return a detector's name with its path made absolute: workers may stand elsewhere."""
    kind, colon, rest = spec.partition(":")
    if colon and kind in ("annotations", "insightface"):
        return f"{kind}:{Path(rest).expanduser().resolve()}"
    return str(Path(spec).resolve()) if Path(spec).exists() and spec != "aligned" else spec


def _write_parts(
    folder: SetFolder,
    plan: SourcePlan,
    build: functools.partial[PartTask],
    detector: Detector,
    crew: Crew,
    most: int,
) -> None:
    """Write the parts that are missing, and anew those in which something could not be read."""
    before = read_progress(folder, len(plan.parts), again=True)
    faults = [*plan.faults, *before.notes.faults]
    check_faults(faults, plan.shards or len(plan.parts), most, str(plan.root))
    pictures, done = before.notes.pictures, len(plan.parts) - len(before.missing)
    left = None if plan.pictures is None else plan.pictures - pictures
    tasks = (build(plan.parts[number]) for number in before.missing)
    with Progress("ingest", left, "pictures") as progress:
        for notes in _run(tasks, detector, crew, progress):
            pictures, done = pictures + notes.pictures, done + 1
            faults += notes.faults
            check_faults(faults, plan.shards or len(plan.parts), most, str(plan.root))
            progress.advance(0, f"part {done:,} of {len(plan.parts):,}")
    if not pictures:
        reason = f"; {faults[0].shard}: {faults[0].reason}" if faults else ""
        raise InputError(f"source {plan.root} holds no picture that can be read{reason}")


def _run(
    tasks: Iterator[PartTask], detector: Detector, crew: Crew, progress: Progress
) -> Iterator[PartNotes]:
    """Yield the notes of parts as they are written, in any order."""
    if crew.ray is not None:
        outcomes = run_on_ray(ingest_part, tasks, crew.ray, crew.workers, crew.count_threads())
    elif crew.abreast > 1:
        outcomes = run_in_processes(ingest_part, tasks, crew.abreast)
    else:
        here = functools.partial(ingest_part, detector=detector, advance=progress.advance)
        for _, notes in run_here(here, tasks):
            assert not isinstance(notes, Died), "this process lives"
            yield notes
        return
    with contextlib.closing(outcomes):
        for task, outcome in outcomes:
            if isinstance(outcome, Died):
                outcome = give_up_part(task, outcome.reason)
            elif not name_part_file(SetFolder(task.out), task.part.number).is_file():
                raise InputError(
                    f"part {task.part.number} was written by a worker, but not to {task.out} as "
                    "seen here; the set folder must lie on storage that all machines share"
                )
            progress.advance(outcome.pictures)
            yield outcome


def _record(folder: SetFolder, plan: SourcePlan) -> dict[str, Any]:
    """Return the figures of the ingest over all its runs, entered in `set.json` once."""
    figures = count_manifest(folder)
    stage = next((s for s in read_info(folder)["stages"] if s["stage"] == "ingest"), None)
    if stage is None:
        notes = read_progress(folder, len(plan.parts)).notes
        faults = [_describe_fault(fault) for fault in (*plan.faults, *notes.faults)]
        # The stage last: it says that the rest is there.
        write_json(folder.info, {**read_info(folder), "faults": faults})
        stage = {"skipped": notes.skipped, "ignored": plan.ignored + notes.ignored}
        seconds = round(notes.seconds, 3)
        record_stage(folder, "ingest", seconds, count=figures["pictures"], unit="pictures", **stage)
        stage["seconds"] = seconds
    return {
        **figures,
        "ignored": stage.get("ignored", plan.ignored),
        "skipped": stage.get("skipped", 0),
        "faults": read_info(folder).get("faults", []),
        "seconds": float(stage["seconds"]),
    }


def _describe_fault(fault: Fault) -> dict[str, str]:
    """Return a fault for a JSON file, names that are no UTF-8 made printable."""
    texts = (text.encode("utf-8", "backslashreplace").decode() for text in fault)
    return dict(zip(("shard", "reason"), texts, strict=True))
