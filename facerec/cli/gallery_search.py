"""`facerec-gallery search` and `compare`: who is this, and is it who it is said to be?"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facerec.checks import InputError
from facerec.cli.gallery_options import (
    add_gallery,
    add_index,
    add_models,
    add_who,
    check_output,
    explain_interruption,
    note,
    open_gallery,
)
from facerec.command import BAD_INPUT, add_command, write_json_result

if TYPE_CHECKING:
    from facerec.data.pictures import DetectedPicture
    from facerec.embedder import Embedder, Embeddings
    from facerec.gallery.gallery import Gallery
    from facerec.gallery.results import Answer
    from facerec.structures import Detector

_COLUMNS = (
    "image",
    "face",
    "x1",
    "y1",
    "x2",
    "y2",
    "rank",
    "person",
    "score",
    "accepted",
    "threshold",
    "fpir",
    "margin",
    "mode",
    "note",
)


def add_search(commands: Any) -> None:
    """Add the commands that ask."""
    search = add_command(
        commands,
        "search",
        _run_search,
        "who is this? one answer a face, unknown is one",
        "facerec-gallery search list photo.jpg --top 5\n"
        "  facerec-gallery search list frames/ --csv answers.csv",
    )
    add_gallery(search)
    add = search.add_argument
    add("images", type=Path, nargs="+", metavar="IMAGE", help="files, folders, or lists of them")
    add("--top", type=int, default=5, help="candidates to list")
    add("--threshold", type=float, help="a score; the gallery's own unless given")
    add(
        "--investigate",
        action="store_true",
        help="no threshold: candidates for somebody to look at, nobody is accepted",
    )
    add("--people", nargs="+", metavar="NAME", help="search among these alone")
    add("--csv", type=Path, metavar="FILE", help="one row a candidate")
    add("--exact", action="store_true", help="scan every row, whatever the index")
    add_index(search)
    add_models(search)
    add_who(search)
    compare = add_command(
        commands,
        "compare",
        _run_compare,
        "is this the person it is said to be? 1:1",
        "facerec-gallery compare list 'Jane Doe' gate.jpg",
    )
    add_gallery(compare)
    compare.add_argument("person", help="who it is said to be")
    compare.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="files or folders")
    compare.add_argument("--threshold", type=float, help="cosine; the calibrated one unless given")
    add_models(compare)
    add_who(compare)


_KEPT = "what was printed was asked and is in the log; no --json or --csv was written"


def _run_search(arguments: argparse.Namespace) -> int | None:
    if arguments.investigate and arguments.threshold is not None:
        raise InputError("--investigate has no threshold; leave --threshold out, or --investigate")
    check_output(arguments.csv, "--csv")
    with explain_interruption(_KEPT):
        return _search(arguments)


def _search(arguments: argparse.Namespace) -> int | None:
    from facerec.gallery.tools import build_tools

    results: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    with open_gallery(arguments) as gallery:
        if not arguments.investigate:
            gallery.check_question(arguments.top, arguments.threshold)
        detector, embedder = build_tools(
            gallery, arguments.model, arguments.detector, arguments.runtime
        )
        _say_what_it_is(gallery, arguments)
        for picture, found, usable in _iter_faces(arguments, gallery, detector, embedder):
            name = picture.item.key
            if not usable:
                reason = picture.reason or "no face"
                print(f"{name}: {reason}")
                results.append({"image": name, "reason": reason})
            answers = gallery.search(
                found.vectors[usable],
                arguments.top,
                arguments.threshold,
                model_hash=embedder.model_hash,
                probes=[picture.sha256] * len(usable),
                sources=[name] * len(usable),
                people=arguments.people,
                investigate=arguments.investigate,
                exact=arguments.exact,
                purpose=arguments.purpose,
            )
            for face, answer in zip(usable, answers, strict=True):
                box = [round(float(v), 1) for v in picture.faces.boxes[face]]
                show_answer(name, answer)
                results.append({"image": name, "box": box, **answer.to_json()})
                rows += _list_rows(name, face, box, answer)
    if arguments.csv is not None:
        _write_csv(arguments.csv, rows)
    config = {"top": arguments.top, "detector": detector.name, "index": arguments.index}
    hashes = {"model": embedder.model_hash}
    write_json_result(arguments, {"results": results}, config=config, hashes=hashes)
    return BAD_INPUT if all("reason" in result for result in results) else None


def _run_compare(arguments: argparse.Namespace) -> int | None:
    with explain_interruption(_KEPT):
        return _compare(arguments)


def _compare(arguments: argparse.Namespace) -> int | None:
    from facerec.gallery.tools import build_tools

    results: list[dict[str, Any]] = []
    with open_gallery(arguments) as gallery:
        gallery.samples(arguments.person)  # nobody of that name is said before any work
        detector, embedder = build_tools(
            gallery, arguments.model, arguments.detector, arguments.runtime
        )
        for picture, found, usable in _iter_faces(arguments, gallery, detector, embedder):
            name = picture.item.key
            if not usable:
                print(f"{name}: {picture.reason or 'no face'}")
                results.append({"image": name, "reason": picture.reason or "no face"})
            answers = gallery.compare(
                arguments.person,
                found.vectors[usable],
                arguments.threshold,
                model_hash=embedder.model_hash,
                probes=[picture.sha256] * len(usable),
                purpose=arguments.purpose,
            )
            for answer in answers:
                said = "yes" if answer.accepted else "no"
                rate = "" if answer.fmr is None else f", FMR {answer.fmr:g}"
                print(f"{name}: {said} {answer.score:.3f} (threshold {answer.threshold:.4g}{rate})")
                results.append({"image": name, **answer.to_json()})
    hashes = {"model": embedder.model_hash}
    write_json_result(arguments, {"results": results}, hashes=hashes)
    return BAD_INPUT if all("reason" in result for result in results) else None


def _iter_faces(
    arguments: argparse.Namespace, gallery: Gallery, detector: Detector, embedder: Embedder
) -> Iterator[tuple[DetectedPicture, Embeddings, list[int]]]:
    """Yield each picture, its embeddings, and which of them can be compared."""
    from facerec.data.pictures import iter_pictures
    from facerec.data.sources import open_source
    from facerec.embedder import embed_pictures
    from facerec.progress import Progress

    items = [item for path in arguments.images for item in open_source(path, "loose")]
    policy = arguments.policy or gallery.store.read_setting("policy", "largest")
    with Progress(arguments.command, len(items), "pictures") as progress:
        for picture, found in embed_pictures(embedder, iter_pictures(items, detector, policy)):
            yield picture, found, [i for i in range(len(found)) if found.norms[i] > 0]
            progress.advance()


def _say_what_it_is(gallery: Gallery, arguments: argparse.Namespace) -> None:
    if arguments.investigate:
        note("investigation, no threshold: candidates for somebody to look at, nobody is accepted")
    elif arguments.threshold is None:
        from facerec.gallery.calibration import explain_growth

        note(explain_growth(gallery))


def show_answer(name: str, answer: Answer) -> None:
    """Print an answer and its candidates."""
    best = f" {answer.matches[0].score:.3f}" if answer.matches else ""
    if answer.threshold is None:
        print(f"{name}: investigation{best}")
    else:
        rate = "" if answer.fpir is None else f", FPIR {answer.fpir:.2g}"
        said = f"; {answer.note}" if answer.note else ""
        who = answer.person or "unknown"
        print(f"{name}: {who}{best} (threshold {answer.threshold:.4g}{rate}){said}")
    for match in answer.matches:
        mark = "*" if match.accepted else " "
        print(f"  {match.rank:3} {match.score:6.3f} {mark} {match.person}")


def _list_rows(image: str, face: int, box: list[float], answer: Answer) -> list[dict[str, Any]]:
    common = {
        "image": image,
        "face": face,
        **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)),
        "threshold": answer.threshold,
        "fpir": answer.fpir,
        "margin": answer.margin,
        "mode": answer.mode,
        "note": answer.note,
    }
    rows = [
        {**common, "rank": m.rank, "person": m.person, "score": m.score, "accepted": m.accepted}
        for m in answer.matches
    ]
    return rows or [{**common, "person": "unknown", "accepted": False}]


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    from facerec.io import atomic_path

    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
