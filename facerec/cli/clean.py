"""`facerec-clean`: from a crawl to a clean set, every decision logged and none for ever."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facerec.command import add_command, build_parser, run_command, write_json_result

Commands = Any


def main(argv: Sequence[str] | None = None) -> int:
    """Run `facerec-clean` and return its exit code."""
    parser = build_parser(
        "facerec-clean",
        "Clean a crawl: detect, align, embed, find the faces that are not who their folder says. "
        "The source is never touched; every decision is logged with its score and can be undone.",
        "facerec-clean ingest crawl/ set/ --detector yunet.onnx\n"
        "  facerec-clean run set/ --model recogniser.onnx\n"
        "  facerec-clean report set/",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_ingest(commands)
    _add_run(commands)
    _add_report(commands)
    _add_others(commands)
    return run_command(parser, argv)


def _add_ingest(commands: Commands) -> None:
    parser = add_command(
        commands,
        "ingest",
        _run_ingest,
        "detect and align the faces of a source into a set folder; run again, it goes on",
        "facerec-clean ingest crawl/ set/ --detector yunet.onnx --policy largest",
    )
    parser.add_argument("source", type=Path, help="folder of pictures, or a .csv or .parquet list")
    parser.add_argument("out", type=Path, help="set folder, outside the source")
    parser.add_argument(
        "--detector",
        required=True,
        help="YuNet model (store name, folder or file), insightface:FOLDER, annotations:TABLE "
        "or aligned",
    )
    parser.add_argument(
        "--policy",
        default="largest",
        choices=("largest", "central", "all"),
        help="which of several faces",
    )
    parser.add_argument(
        "--kind", default="auto", choices=("auto", "folder", "list", "loose"), help="kind of source"
    )
    parser.add_argument("--root", type=Path, help="folder that a list's paths are relative to")
    parser.add_argument(
        "--chips",
        default="png",
        choices=("png", "jpg"),
        help="png keeps every pixel, jpg (quality 95) saves space",
    )
    parser.add_argument("--threads", type=int, help="for decoding and detection, all cores if left")


def _add_run(commands: Commands) -> None:
    parser = add_command(
        commands,
        "run",
        _run_round,
        "embed the faces, find outliers of each identity, log the decisions",
        "facerec-clean run set/ --model recogniser.onnx",
    )
    parser.add_argument("out", type=Path, help="set folder")
    parser.add_argument("--model", required=True, help="store name, artefact folder or .onnx file")
    parser.add_argument("--runtime", default="auto", help="auto, onnxruntime, openvino or torch")
    parser.add_argument(
        "--threshold",
        default="auto",
        help="least cosine to the identity's centre; auto finds it from the set's own scores",
    )
    parser.add_argument(
        "--max-drop", type=float, default=0.8, help="greatest share of an identity to drop"
    )
    parser.add_argument("--flip", action="store_true", help="average with the mirror image")
    parser.add_argument("--threads", type=int, help="for embedding, all cores if left")


def _add_report(commands: Commands) -> None:
    parser = add_command(
        commands,
        "report",
        _run_report,
        "write report.html and report.json into the set folder",
        "facerec-clean report set/",
    )
    parser.add_argument("out", type=Path, help="set folder")
    parser.add_argument(
        "--with-images", action="store_true", help="show dropped faces (real people!)"
    )
    parser.add_argument("--top", type=int, default=50, help="identities in the table")


def _add_others(commands: Commands) -> None:
    undo = add_command(
        commands, "undo", _run_undo, "take the last round back", "facerec-clean undo set/"
    )
    undo.add_argument("out", type=Path, help="set folder")
    export = add_command(
        commands,
        "export",
        _run_export,
        "write the clean set as a folder an identity (hard links) or as a list",
        "facerec-clean export set/ clean_faces/",
    )
    export.add_argument("out", type=Path, help="set folder")
    export.add_argument("destination", type=Path, help="new folder, or new .csv or .parquet file")
    export.add_argument(
        "--kind", default="auto", choices=("auto", "folder", "list"), help="of export"
    )
    score = add_command(
        commands,
        "score",
        _run_score,
        "compare the decisions with the truth, where it is known",
        "facerec-clean score set/ --truth truth.parquet",
    )
    score.add_argument("out", type=Path, help="set folder")
    score.add_argument(
        "--truth",
        type=Path,
        required=True,
        help="table with key (path in the source), person and, if there, face and kind",
    )


def _run_ingest(arguments: argparse.Namespace) -> None:
    from data_tools.ingest import ingest

    figures = ingest(
        arguments.source,
        arguments.out,
        arguments.detector,
        policy=arguments.policy,
        kind=arguments.kind,
        root=arguments.root,
        chip_format=arguments.chips,
        threads=arguments.threads,
    )
    if figures["already"]:
        print(f"{arguments.out} was ingested already; nothing to do")
    print(
        f"{figures['pictures']:,} pictures of {figures['identities']:,} identities in "
        f"{figures['seconds']:.1f} s: {figures['faces']:,} faces, "
        f"{figures['unusable']:,} without a usable face"
    )
    for reason, count in figures["reasons"].items():
        print(f"  {count:>7,}  {reason}")
    _write_json(arguments, figures)


def _run_round(arguments: argparse.Namespace) -> None:
    from data_tools.rounds import run_round
    from facerec.checks import InputError

    threshold = None
    if arguments.threshold != "auto":
        try:
            threshold = float(arguments.threshold)
        except ValueError:
            raise InputError(
                f"--threshold must be auto or a cosine, got {arguments.threshold!r}"
            ) from None
    summary = run_round(
        arguments.out,
        arguments.model,
        runtime=arguments.runtime,
        threshold=threshold,
        max_drop=arguments.max_drop,
        flip=arguments.flip,
        threads=arguments.threads,
    )
    if summary["round"] is None:
        print("nothing changed: the last round had the same model, settings and manifest")
    judged = summary["judged"]
    share = summary["flagged"] / judged if judged else 0.0
    origin = "found" if summary["threshold_found"] else "given"
    print(
        f"{summary['usable']:,} faces, {judged:,} judged, {summary['flagged']:,} flagged "
        f"({share:.2%}), {summary['dropped']:,} dropped, {summary['kept']:,} kept; "
        f"threshold {summary['threshold']:.3f} ({origin})"
    )
    _write_json(arguments, summary)


def _run_report(arguments: argparse.Namespace) -> None:
    from data_tools.report import write_report

    page, figures = write_report(
        arguments.out,
        with_images=arguments.with_images,
        top=arguments.top,
        json_path=arguments.json,
    )
    print(f"{figures['decided']:,} of {figures['rows']:,} rows decided; report: {page}")


def _run_undo(arguments: argparse.Namespace) -> None:
    from data_tools.rounds import undo_round

    number, rows = undo_round(arguments.out)
    print(f"round {number} undone; the clean set has {rows:,} rows")
    _write_json(arguments, {"undone": number, "rows": rows})


def _run_export(arguments: argparse.Namespace) -> None:
    from data_tools.exports import export_set

    figures = export_set(arguments.out, arguments.destination, arguments.kind)
    print(
        f"{figures['rows']:,} rows of {figures['identities']:,} identities written to "
        f"{arguments.destination} ({figures['repeated']:,} repeated pictures left out)"
    )
    _write_json(arguments, figures)


def _run_score(arguments: argparse.Namespace) -> None:
    from data_tools.score import score_set

    figures = score_set(arguments.out, arguments.truth)
    shown = {name: figures[name] for name in ("precision", "recall", "f1")}
    text = ", ".join(f"{n} {'-' if v is None else f'{v:.4f}'}" for n, v in shown.items())
    print(f"{figures['wrong']:,} wrong rows, {figures['dropped']:,} dropped: {text}")
    for kind, counts in figures["kinds"].items():
        print(f"  {kind}: {counts['hit']:,} of {counts['wrong']:,} found")
    _write_json(arguments, figures)


def _write_json(arguments: argparse.Namespace, figures: dict[str, Any]) -> None:
    """Write `--json` with the hashes of the model, the detector and the set's own files."""
    if arguments.json is None:
        return
    from data_tools.sets import SetFolder
    from facerec.io import sha256_file

    folder = SetFolder(arguments.out)
    files = {
        "manifest": folder.manifest,
        "decisions": folder.log,
        "clean": folder.clean,
        "truth": getattr(arguments, "truth", None),
    }
    hashes = {n: sha256_file(file) for n, file in files.items() if file and file.is_file()}
    settings = figures.get("settings", {})
    for name in ("model", "detector"):
        if settings.get(f"{name}_sha256"):
            hashes[name] = settings[f"{name}_sha256"]
    write_json_result(arguments, figures, hashes=hashes)
