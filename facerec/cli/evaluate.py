"""`facerec-eval`: figures that can be believed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facerec.cli.evaluate_compare import add_compare, add_report
from facerec.cli.evaluate_doc2surv import add_doc2surv
from facerec.cli.evaluate_protocols import add_protocols
from facerec.cli.evaluate_simulate import add_simulate
from facerec.command import add_command, build_parser, run_command, write_json_result


def main(argv: Sequence[str] | None = None) -> int:
    """Run `facerec-eval` and return its exit code."""
    parser = build_parser(
        "facerec-eval",
        "Evaluate face recognition.",
        "facerec-eval verify --pairs pairs.csv --images lfw/ --model M --detector D",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_verify(commands)
    for add in (add_doc2surv, add_protocols, add_simulate, add_compare, add_report):
        add(commands)
    return run_command(parser, argv)


def _add_verify(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "verify",
        _run_verify,
        "accuracy, TAR at FAR and EER over a list of pairs",
        "facerec-eval verify --pairs pairs.csv --images lfw/ --model M --detector D "
        "--all-pairs --html lfw.html --json lfw.json",
    )
    add = parser.add_argument
    add("--pairs", type=Path, required=True, metavar="FILE",
        help="CSV with fold,same,image_a,image_b, or LFW's pairs.txt")  # fmt: skip
    add("--images", type=Path, required=True, metavar="DIR",
        help="the folder that the pairs' paths are relative to")  # fmt: skip
    add("--model", required=True, help="store name, artefact folder or .onnx file")
    add("--detector", required=True,
        help="store name, artefact folder or .onnx file of YuNet, insightface:FOLDER, "
        "annotations:FILE, or aligned")  # fmt: skip
    add("--policy", choices=("central", "largest"), default="central",
        help="which face of a picture counts; LFW's person is the central one")  # fmt: skip
    add("--flip", action="store_true", help="average each face with its mirror image")
    add("--runtime", default="auto", help="auto, onnxruntime, openvino or torch")
    add("--batch-size", type=int, default=32, help="faces a call of the model")
    add("--all-pairs", action="store_true",
        help="also over all pairs of the pictures; people are the folders")  # fmt: skip
    add("--resamples", type=int, default=1000,
        help="of people, for the 95%% intervals; 0 for none")  # fmt: skip
    add("--seed", type=int, default=0, help="of the resampling")
    add("--cache", type=Path, metavar="DIR", help="keep embeddings here; nothing is embedded twice")
    add("--html", type=Path, metavar="FILE", help="write a page with ROC and DET plots here")


def _run_verify(arguments: argparse.Namespace) -> int:
    from eval.protocol import VerifySettings, run_verify
    from eval.report import POINT_COLUMNS, build_verify_page, describe_points, format_table

    names = ("policy", "flip", "runtime", "batch_size", "all_pairs", "resamples", "seed", "cache")
    settings = VerifySettings(**{name: getattr(arguments, name) for name in names})
    run = run_verify(
        arguments.pairs, arguments.images, arguments.model, arguments.detector, settings
    )
    write_json_result(arguments, run.result, seed=arguments.seed, hashes=run.hashes)
    if arguments.html:
        build_verify_page(run.result, run.pairs, run.all_pairs).write(arguments.html)
    result = run.result
    print(_summarise(result))
    print(format_table(POINT_COLUMNS, describe_points(result["tar_at_far"])))
    if run.all_pairs is not None:
        figures = run.all_pairs.figures
        print(
            f"\nall {figures['pairs']:,} pairs of {figures['pictures']:,} pictures of "
            f"{figures['people']:,} people: EER {figures['eer']:.2%}"
        )
        print(format_table(POINT_COLUMNS, describe_points(figures["tar_at_far"])))
    for name in ("json", "html"):
        if getattr(arguments, name):
            print(f"wrote {getattr(arguments, name)}")
    return 0


def _summarise(result: dict[str, Any]) -> str:
    accuracy = result["accuracy"]
    lines = [
        f"model     {result['model']} ({result['model_sha256'][:16]}) on {result['runtime']}",
        f"pairs     {result['pairs']:,} of {result['embedded']:,} embedded pictures, "
        f"{result['failures']} failures",
        f"accuracy  {accuracy['mean']:.4f} ± {accuracy['std']:.4f} over "
        f"{len(accuracy['folds'])} folds",
        f"EER       {result['eer']:.2%}",
    ]
    failed = list(result["failed_files"].items())
    lines += [f"no face   {name}: {why}" for name, why in failed[:5]]
    if len(failed) > 5:
        lines.append(f"          and {len(failed) - 5} more: see --json or --html")
    return "\n".join(lines) + "\n"
