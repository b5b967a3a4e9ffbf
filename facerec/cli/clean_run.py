"""`facerec-clean run`: a round of decisions on a set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from facerec.cli.clean_json import write_set_json
from facerec.command import add_command

Commands = Any


def add_run(commands: Commands) -> None:
    """Add the command `run`."""
    parser = add_command(
        commands,
        "run",
        _run_round,
        "embed the faces, judge every row, log the decisions and write the clean set",
        "facerec-clean run set/ --model recogniser.onnx",
    )
    add = parser.add_argument
    add("out", type=Path, help="set folder")
    add("--model", required=True, help="store name, artefact folder or .onnx file")
    add("--runtime", default="auto", help="auto, onnxruntime, openvino or torch")
    add(
        "--threshold",
        default="auto",
        help="least cosine to the identity's centre; auto judges by probabilities found from the "
        "set's own scores",
    )
    add("--max-drop", type=float, default=1.0, help="greatest share of an identity to drop")
    add(
        "--false-drops",
        type=float,
        default=0.01,
        help="expected share of the right faces that may be dropped",
    )
    add(
        "--false-relabels",
        type=float,
        default=0.01,
        help="expected share of wrong ones among the faces moved to another identity",
    )
    add(
        "--false-merges",
        type=float,
        default=0.005,
        help="expected share of wrong ones among the identities joined",
    )
    add(
        "--evaluation",
        type=Path,
        action="append",
        default=[],
        metavar="SET",
        help="set folder whose people and pictures must not be in the clean set; may be repeated",
    )
    add("--poorest", type=float, default=0.0, help="share of the poorest faces to leave out")
    add("--min-face-px", type=float, help="least side of a face in its picture, pixels")
    add("--min-sharpness", type=float, help="least variance of a chip's Laplacian")
    add("--keep-copies", action="store_true", help="do not take copies of a picture out")
    add("--flip", action="store_true", help="average with the mirror image")
    add("--threads", type=int, help="for embedding and search, all cores if left")
    add("--workers", type=int, help="processes that embed; this one if left")
    add(
        "--ray",
        metavar="ADDRESS",
        help="Ray cluster that embeds, the set folder and the model on storage that it shares; "
        "local starts one here",
    )
    add("--seed", type=int, default=0, help="of what is sampled")


def _run_round(arguments: argparse.Namespace) -> None:
    from data_tools.judgement import Targets
    from data_tools.round_quality import QualityLimits
    from data_tools.rounds import run_round
    from data_tools.workers import Crew

    targets = Targets(
        false_drops=arguments.false_drops,
        false_relabels=arguments.false_relabels,
        false_merges=arguments.false_merges,
        max_drop=arguments.max_drop,
        threshold=_read_threshold(arguments.threshold),
    )
    summary = run_round(
        arguments.out,
        arguments.model,
        runtime=arguments.runtime,
        targets=targets,
        duplicates=not arguments.keep_copies,
        evaluation=arguments.evaluation,
        limits=QualityLimits(arguments.poorest, arguments.min_face_px, arguments.min_sharpness),
        flip=arguments.flip,
        threads=arguments.threads,
        crew=Crew(arguments.workers, arguments.ray),
        seed=arguments.seed,
    )
    print(describe_round(summary))
    write_set_json(arguments, summary)


def _read_threshold(text: str) -> float | None:
    from facerec.checks import InputError

    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--threshold must be auto or a cosine, got {text!r}") from None


def describe_round(summary: dict[str, Any]) -> str:
    """Return what a round did, in a few lines."""
    lines = []
    if summary["round"] is None:
        lines.append("nothing changed: the last round had the same model, settings and manifest")
    lines.append(
        f"{summary['usable']:,} faces, {summary['judged']:,} judged, about {summary['noise']:.2%} "
        f"of them not who their folder says: {summary['kept']:,} kept, {summary['dropped']:,} "
        f"dropped, {summary['relabelled']:,} moved, {summary['merged']:,} joined, "
        f"{summary['split']:,} split off, {summary['duplicates']:,} copies, "
        f"{summary['overlap']:,} of evaluation sets, {summary['restored']:,} restored"
    )
    for reason, count in sorted(summary["reasons"].items(), key=lambda pair: -pair[1]):
        lines.append(f"  {count:>9,}  {reason}")
    return "\n".join(lines)
