"""`facerec-gallery enrol`: pictures into the watch list, with a reason for every refusal."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from facerec.checks import InputError
from facerec.cli.gallery_options import (
    add_gallery,
    add_models,
    add_who,
    explain_interruption,
    note,
    open_gallery,
)
from facerec.command import BAD_INPUT, add_command, write_json_result

_KINDS = ("person", "stranger")
_DOCUMENTS = ("passport", "id_card", "licence", "visa", "photo", "other")
_CHECKS = ("off", "warn", "strict")


def add_enrol(commands: Any) -> None:
    """Add the command that enrols."""
    enrol = add_command(
        commands,
        "enrol",
        _run_enrol,
        "add pictures: a folder a person, a list, or loose pictures named after the person",
        "facerec-gallery enrol list people/\n"
        "  facerec-gallery enrol list scans/ --document passport --captured 2019",
    )
    add_gallery(enrol)
    add = enrol.add_argument
    add("source", type=Path, help="folder, picture, or CSV or Parquet list")
    add("--person", default="", help="all pictures show this one person")
    add("--kind", choices=_KINDS, default="person", help="stranger: turned away, never an answer")
    add("--document", choices=_DOCUMENTS, help="they are pages of this: take the main portrait")
    add("--mrz", nargs="+", metavar="LINE", help="its machine readable zone: class and expiry")
    add("--captured", default="", metavar="DATE", help="YYYY, YYYY-MM or YYYY-MM-DD")
    add("--print-scan", action="store_true", help="they are scans of prints")
    add("--check", choices=_CHECKS, default="", help="the gallery's own unless given")
    add("--min-face-px", type=float, metavar="PX", help="least side of the face; 48, 0: any")
    add("--min-eyes-px", type=float, metavar="PX", help="least distance of the eyes; 24, 0: any")
    add("--min-score", type=float, metavar="S", help="least score of the detector; 0.6")
    add("--min-norm", type=float, metavar="N", help="least norm of the embedding")
    add("--min-sharpness", type=float, metavar="V", help="least variance of the chip's Laplacian")
    add("--max-yaw-deg", type=float, metavar="DEG", help="furthest turn to a side; 45, 90: any")
    add_models(enrol)
    add_who(enrol)


def _run_enrol(arguments: argparse.Namespace) -> int | None:
    kept = "what was counted is enrolled; the same command goes on with the rest"
    with explain_interruption(kept):
        return _enrol(arguments)


def _enrol(arguments: argparse.Namespace) -> int | None:
    from facerec.data.sources import open_source
    from facerec.gallery.enrolment import ENROLLED, REFUSED, enrol_pictures, name_people
    from facerec.gallery.samples import Origin
    from facerec.gallery.schema import DOCUMENT, SCENE
    from facerec.gallery.tools import build_tools
    from facerec.progress import Progress

    items = name_people(open_source(arguments.source), arguments.person)
    document = _find_document(arguments)
    captured = _read_captured(arguments.captured)
    origin = Origin(DOCUMENT if document else SCENE, document, captured, arguments.print_scan)
    gate = _build_gate(arguments)
    rows = []
    with open_gallery(arguments) as gallery:
        detector, embedder = build_tools(
            gallery, arguments.model, arguments.detector, arguments.runtime
        )
        policy = arguments.policy or gallery.store.read_setting("policy", "largest")
        with Progress("enrol", len(items), "pictures") as progress:
            for row in enrol_pictures(
                gallery,
                items,
                detector,
                embedder,
                policy,
                origin=origin,
                document=bool(document),
                kind=arguments.kind,
                gate=gate,
                check=arguments.check,
                purpose=arguments.purpose,
            ):
                rows.append(row)
                progress.advance()
                if row.reason:
                    print(f"{row.key}: {row.status}: {row.reason}")
        people = len(gallery.people())
    counts = {status: sum(r.status == status for r in rows) for status in (ENROLLED, REFUSED)}
    counts["already enrolled"] = len(rows) - sum(counts.values())
    print(
        f"{counts[ENROLLED]} enrolled, {counts['already enrolled']} already enrolled, "
        f"{counts[REFUSED]} refused; {people} people in the collection"
    )
    if document and not captured:
        note("no capture date: how old a document's picture is matters for its score")
    write_json_result(
        arguments,
        {**counts, "people": people, "pictures": [vars(row) for row in rows]},
        config={
            "source": str(arguments.source),
            "policy": policy,
            "detector": detector.name,
            "document": document,
        },
        hashes={"model": embedder.model_hash},
    )
    return BAD_INPUT if counts[REFUSED] == len(rows) else None


def _find_document(arguments: argparse.Namespace) -> str:
    """Return the class of the document, "" for scenes; say so if it has expired."""
    if arguments.mrz is None:
        return str(arguments.document or "")
    from facerec.gallery.documents_mrz import parse_mrz

    zone = parse_mrz(arguments.mrz)
    if arguments.document not in (None, zone.document_class):
        raise InputError(
            f"--document {arguments.document} contradicts --mrz, which is that of a "
            f"{zone.document_class}; give one of them"
        )
    note(zone.describe_expiry())
    return zone.document_class


def _read_captured(text: str) -> str:
    """Return a capture date as the store keeps it; of a date in another form the year."""
    from facerec.gallery.documents import parse_capture_year
    from facerec.gallery.schema import check_captured

    year = parse_capture_year(text)  # refuses what is no date, and a year to come
    try:
        return check_captured(text.strip())
    except InputError:
        return str(year)


def _build_gate(arguments: argparse.Namespace) -> Any:
    from facerec.gallery.enrolment_quality import QualityGate

    given = {
        "min_face_px": arguments.min_face_px,
        "min_inter_eye_px": arguments.min_eyes_px,
        "min_det_score": arguments.min_score,
        "min_norm": arguments.min_norm,
        "min_sharpness": arguments.min_sharpness,
        "max_yaw_deg": arguments.max_yaw_deg,
    }
    return QualityGate(**{name: value for name, value in given.items() if value is not None})
