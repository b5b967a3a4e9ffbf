"""`facerec-gallery`: create a watch list, enrol, search, watch a video, list, audit."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facerec.command import BAD_INPUT, add_command, build_parser, run_command, write_json_result

if TYPE_CHECKING:
    from facerec.gallery.gallery import Answer

_POLICIES = ("largest", "central", "all")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `facerec-gallery` and return its exit code."""
    parser = build_parser(
        "facerec-gallery",
        "A watch list that knows when to say unknown. SQLite is the authority; every action is "
        "written to a hash-chained audit log.",
        "facerec-gallery create list --model mobilefacenet --detector yunet",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_create(commands)
    _add_enrol(commands)
    _add_search(commands)
    _add_watch(commands)
    _add_list_and_audit(commands)
    return run_command(parser, argv)


def _add_create(commands: Any) -> None:
    create = add_command(
        commands,
        "create",
        _run_create,
        "make an empty gallery for one recogniser",
        "facerec-gallery create list --model mobilefacenet --detector yunet",
    )
    create.add_argument("gallery", type=Path, help="folder of the gallery, made if missing")
    create.add_argument("--model", required=True, help="store name, artefact folder or .onnx file")
    create.add_argument(
        "--detector",
        help="store name, folder, file, aligned, annotations:TABLE or insightface:FOLDER; "
        "recorded for later commands",
    )
    create.add_argument(
        "--policy", choices=_POLICIES, default="largest", help="which of several faces to take"
    )
    create.add_argument(
        "--threshold", type=float, default=0.4, help="cosine from which a candidate is accepted"
    )
    create.add_argument("--flip", action="store_true", help="average with the mirror image")
    _add_who(create)


def _add_enrol(commands: Any) -> None:
    enrol = add_command(
        commands,
        "enrol",
        _run_enrol,
        "add pictures: a folder a person, a list, or loose pictures named after the person",
        "facerec-gallery enrol list people/",
    )
    enrol.add_argument("gallery", type=Path, help="folder of the gallery")
    enrol.add_argument("source", type=Path, help="folder, picture, or CSV or Parquet list")
    enrol.add_argument("--person", default="", help="all pictures show this one person")
    enrol.add_argument("--policy", choices=_POLICIES, help="the gallery's own unless given")
    _add_models(enrol)
    _add_who(enrol)


def _add_search(commands: Any) -> None:
    search = add_command(
        commands,
        "search",
        _run_search,
        "who is this? one answer a picture, unknown is one",
        "facerec-gallery search list photo.jpg --top 5 --threshold 0.4",
    )
    search.add_argument("gallery", type=Path, help="folder of the gallery")
    search.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="files or folders")
    search.add_argument("--policy", choices=_POLICIES, help="the gallery's own unless given")
    _add_question(search)


def _add_watch(commands: Any) -> None:
    watch = add_command(
        commands,
        "watch",
        _run_watch,
        "search every track of a video once; JSON lines out",
        "facerec-gallery watch list door.mp4 --out tracks.jsonl",
    )
    watch.add_argument("gallery", type=Path, help="folder of the gallery")
    watch.add_argument("video", type=Path, help="anything FFmpeg reads")
    watch.add_argument("--out", type=Path, metavar="FILE", help="standard output unless given")
    watch.add_argument("--every", type=int, default=1, help="look at every n-th frame")
    _add_question(watch)


def _add_list_and_audit(commands: Any) -> None:
    people = add_command(
        commands,
        "list",
        _run_list,
        "show who is in the gallery",
        "facerec-gallery list mygallery",
    )
    people.add_argument("gallery", type=Path, help="folder of the gallery")
    audit = add_command(
        commands,
        "audit",
        _run_audit,
        "show the log and check it, and the gallery against it; exit code 1 when it is not whole",
        "facerec-gallery audit mygallery --last 20",
    )
    audit.add_argument("gallery", type=Path, help="folder of the gallery")
    audit.add_argument("--last", type=int, default=20, help="entries to show, 0 for none")
    audit.add_argument("--head", default="", help="a head hash noted earlier that must be there")


def _add_question(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--top", type=int, default=5, help="candidates to list")
    parser.add_argument("--threshold", type=float, help="cosine; the gallery's own unless given")
    _add_models(parser)
    _add_who(parser)


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="", help="the gallery's own unless given")
    parser.add_argument("--detector", default="", help="the gallery's own unless given")
    parser.add_argument("--runtime", default="auto", help="auto, onnxruntime, openvino or torch")


def _add_who(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--operator", default="", help="who asks, for the audit log; you")
    parser.add_argument("--purpose", default="", help="why, for the audit log")


def _run_create(arguments: argparse.Namespace) -> None:
    from facerec.detection import build_detector
    from facerec.embedder import Embedder
    from facerec.gallery.gallery import Gallery
    from facerec.gallery.tools import keep_spec

    embedder = Embedder(arguments.model, flip=arguments.flip)
    if arguments.detector:
        build_detector(arguments.detector)  # a wrong one is refused now, not at the first picture
    settings = {
        "model": keep_spec(arguments.model),
        "detector": keep_spec(arguments.detector or ""),
        "policy": arguments.policy,
        "flip": "yes" if arguments.flip else "no",
    }
    with Gallery.create(
        arguments.gallery,
        embedder.info,
        dim=embedder.dim,
        model_hash=embedder.model_hash,
        threshold=arguments.threshold,
        settings=settings,
        operator=arguments.operator,
    ) as gallery:
        model = gallery.model
    print(f"{arguments.gallery}: empty gallery for {model.name}, {model.dim} dimensions")
    result = {"gallery": str(arguments.gallery), "model": model.name, "dim": model.dim}
    write_json_result(arguments, result, config=settings, hashes={"model": model.hash})


def _run_enrol(arguments: argparse.Namespace) -> int | None:
    from facerec.data.sources import open_source
    from facerec.gallery.enrolment import ENROLLED, REFUSED, enrol_pictures, name_people
    from facerec.gallery.gallery import Gallery
    from facerec.gallery.tools import build_tools
    from facerec.progress import Progress

    items = name_people(open_source(arguments.source), arguments.person)
    rows = []
    with Gallery.open(arguments.gallery, arguments.operator) as gallery:
        detector, embedder = build_tools(
            gallery, arguments.model, arguments.detector, arguments.runtime
        )
        policy = arguments.policy or gallery.store.read_setting("policy", "largest")
        with Progress("enrol", len(items), "pictures") as progress:
            for row in enrol_pictures(
                gallery, items, detector, embedder, policy, purpose=arguments.purpose
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
        f"{counts[REFUSED]} refused; {people} people in the gallery"
    )
    pictures = [vars(row) for row in rows]
    write_json_result(
        arguments,
        {**counts, "people": people, "pictures": pictures},
        config={"source": str(arguments.source), "policy": policy, "detector": detector.name},
        hashes={"model": embedder.model_hash},
    )
    return BAD_INPUT if counts[REFUSED] == len(rows) else None


def _run_search(arguments: argparse.Namespace) -> int | None:
    from facerec.data.sources import open_source
    from facerec.detection import iter_pictures
    from facerec.embedder import embed_pictures
    from facerec.gallery.gallery import Gallery
    from facerec.gallery.tools import build_tools

    items = [item for path in arguments.images for item in open_source(path, "loose")]
    results: list[dict[str, Any]] = []
    with Gallery.open(arguments.gallery, arguments.operator) as gallery:
        gallery.check_question(arguments.top, arguments.threshold)
        detector, embedder = build_tools(
            gallery, arguments.model, arguments.detector, arguments.runtime
        )
        policy = arguments.policy or gallery.store.read_setting("policy", "largest")
        pictures = iter_pictures(items, detector, policy)
        for picture, found in embed_pictures(embedder, pictures):
            usable = [i for i in range(len(found)) if found.norms[i] > 0]
            if not usable:
                reason = picture.reason or "no face"
                print(f"{picture.item.key}: {reason}")
                results.append({"image": picture.item.key, "reason": reason})
            answers = gallery.search(
                found.vectors[usable],
                arguments.top,
                arguments.threshold,
                model_hash=embedder.model_hash,
                probes=[picture.sha256] * len(usable),
                sources=[picture.item.key] * len(usable),
                purpose=arguments.purpose,
            )
            for face, answer in zip(usable, answers, strict=True):
                box = [round(float(v), 1) for v in picture.faces.boxes[face]]
                _show_answer(picture.item.key, answer)
                results.append({"image": picture.item.key, "box": box, **answer.to_json()})
    config = {"top": arguments.top, "policy": policy, "detector": detector.name}
    hashes = {"model": embedder.model_hash}
    write_json_result(arguments, {"results": results}, config=config, hashes=hashes)
    return BAD_INPUT if all("reason" in result for result in results) else None


def _run_watch(arguments: argparse.Namespace) -> None:
    try:
        _watch(arguments)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "the tracks that had ended are written; the same command begins the video again"
        ) from None


def _watch(arguments: argparse.Namespace) -> None:
    from facerec.gallery.gallery import Gallery
    from facerec.gallery.tools import build_tools
    from facerec.io import sha256_file
    from facerec.progress import Progress
    from facerec.video.frames import check_video
    from facerec.video.sinks import JsonLines
    from facerec.video.watch import WatchCounts, WatchSettings, watch_video

    settings = WatchSettings(every=arguments.every)
    counts = WatchCounts()
    check_video(arguments.video)  # before --out is emptied
    with Gallery.open(arguments.gallery, arguments.operator) as gallery:
        gallery.check_question(arguments.top, arguments.threshold)
        detector, embedder = build_tools(
            gallery, arguments.model, arguments.detector, arguments.runtime, second_look=False
        )
        keep = arguments.json is not None
        with JsonLines(arguments.out, keep) as sink, Progress("watch", None, "frames") as progress:
            for now in watch_video(
                gallery,
                arguments.video,
                detector,
                embedder,
                sink,
                settings,
                top=arguments.top,
                threshold=arguments.threshold,
                purpose=arguments.purpose,
            ):
                progress.advance(now.frames - progress.done, f"{now.tracks} tracks")
                counts = now
            records = sink.records
    if counts.corrupt or counts.missing:
        _note(f"{counts.corrupt} packets corrupt, {counts.missing} frames missing at the end")
    _note(f"{counts.tracks} tracks, {counts.known} known; {counts.faces} faces")
    if arguments.json:  # a video may be large: it is hashed only where the hash is kept
        config = {"every": arguments.every, "top": arguments.top, "detector": detector.name}
        hashes = {"model": embedder.model_hash, "video": sha256_file(arguments.video)}
        result = {**vars(counts), "records": records}
        write_json_result(arguments, result, config=config, hashes=hashes)


def _run_list(arguments: argparse.Namespace) -> None:
    from facerec.gallery.gallery import Gallery

    with Gallery.open(arguments.gallery) as gallery:
        people = gallery.people()
        model, threshold = gallery.model, gallery.store.read_threshold()
    for person in people:
        print(f"{person.name}\t{person.samples} pictures\tsince {person.created[:10]}")
    samples = sum(person.samples for person in people)
    print(f"{len(people)} people, {samples} pictures, {model.name}, threshold {threshold:g}")
    result = {"people": [vars(person) for person in people], "threshold": threshold}
    write_json_result(arguments, result, hashes={"model": model.hash})


def _run_audit(arguments: argparse.Namespace) -> int | None:
    from facerec.gallery.gallery import Gallery

    with Gallery.open(arguments.gallery) as gallery:
        faults = gallery.verify_audit(arguments.head)
        count, head = gallery.audit_head()
        entries = [] if faults else gallery.list_audit()
    for entry in entries[len(entries) - arguments.last :] if arguments.last > 0 else []:
        what = entry.details.get("person") or entry.details.get("model") or "unknown"
        print(f"{entry.number}\t{entry.created[:19]}\t{entry.operator}\t{entry.action}\t{what}")
    for fault in faults:
        print(f"FAULT: {fault}")
    print(f"{count} entries, {'NOT whole' if faults else 'whole'}; head {head}")
    rows = [vars(entry) for entry in entries]
    result = {"entries": rows, "count": count, "head": head, "faults": faults}
    write_json_result(arguments, result)
    return 1 if faults else None


def _show_answer(name: str, answer: Answer) -> None:
    best = f" {answer.matches[0].score:.3f}" if answer.matches else ""
    print(f"{name}: {answer.person or 'unknown'}{best} (threshold {answer.threshold:g})")
    for match in answer.matches:
        mark = "*" if match.accepted else " "
        print(f"  {match.rank:3} {match.score:6.3f} {mark} {match.person}")


def _note(text: str) -> None:
    import sys

    sys.stderr.write(f"watch: {text}\n")
