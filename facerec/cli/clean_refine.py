"""`facerec-clean refine`: train on the set, judge it with what was learnt, and train again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from facerec.cli.clean_json import write_set_json
from facerec.command import add_command


def add_refine(commands: Any) -> None:
    """Add the command that cleans a set by rounds of training and judging."""
    parser = add_command(
        commands,
        "refine",
        _run_refine,
        "clean by rounds of training and judging; run again, it goes on where it was",
        "facerec-clean refine set/ --recipe configs/clean_refine.yaml --validation lfw.bin --final",
    )
    parser.add_argument("out", type=Path, help="set folder")
    parser.add_argument("--recipe", type=Path, metavar="YAML", help="of facerec-train")
    _add_training(parser)
    _add_judging(parser)
    parser.add_argument(
        "--final", action="store_true", help="then train one model on the whole clean set"
    )
    parser.add_argument(
        "--restart",
        action="store_true",
        help="forget earlier trainings of refine; rounds in the log stay",
    )


def _add_training(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--set", action="append", metavar="KEY=VALUE", help="override of the recipe")
    add(
        "--later",
        action="append",
        metavar="KEY=VALUE",
        help="override for the trainings after the first, such as epochs=8",
    )
    add("--model", help="recogniser for round 0 that was not trained on this set; else one is")
    add("--rounds", type=int, default=3, help="at most, round 0 included; may be raised later")
    add(
        "--stop-share",
        type=float,
        default=0.01,
        help="a round that changes less than this share of the rows is the last",
    )
    add(
        "--robust",
        default="coteaching",
        choices=("coteaching", "subcenter", "none"),
        help="against wrong labels in training: two nets (twice the cost), or three sub-centres",
    )
    add(
        "--no-cross-fit",
        action="store_true",
        help="train one net a round on all pictures, not two on a half each: half the trainings, "
        "each twice as long, but a net judges labels that it has learnt by heart",
    )
    add(
        "--validation",
        type=Path,
        metavar="PAIRS",
        help=".bin pack, or folder of chips of people who are not in the set",
    )
    add("--seed", type=int, help="of sampling and training, the recipe's if left")


def _add_judging(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--false-drops",
        type=float,
        default=0.01,
        help="greatest share of the right rows to lose, expected",
    )
    add("--false-relabels", type=float, default=0.01, help="of the moved rows to be wrong")
    add("--false-merges", type=float, default=0.005, help="of the joined identities to be wrong")
    add("--max-drop", type=float, default=1.0, help="greatest share of an identity to drop")
    add(
        "--evaluation",
        type=Path,
        action="append",
        metavar="SET",
        help="evaluation set whose people and pictures are taken out",
    )
    add("--runtime", default="auto", help="of embedding: auto, onnxruntime, openvino or torch")
    add("--flip", action="store_true", help="average with the mirror image")
    add("--batch-size", type=int, default=32, help="chips a call when embedding")
    add("--threads", type=int, help="for embedding, all cores if left")


def _run_refine(arguments: argparse.Namespace) -> None:
    from data_tools.judgement import Targets
    from data_tools.refine import WORK, refine
    from data_tools.refine_state import NAME, Row, format_head, format_row
    from facerec.io import read_json
    from facerec.training.memory import keep_freed_memory

    keep_freed_memory()
    told: list[Row] = []

    def report(row: Row) -> None:
        if not told:
            print(format_head())
        told.append(row)
        print(format_row(row), flush=True)

    refine(
        arguments.out,
        arguments.recipe,
        model=arguments.model,
        rounds=arguments.rounds,
        stop_share=arguments.stop_share,
        robust=arguments.robust,
        cross_fit=not arguments.no_cross_fit,
        validation=arguments.validation,
        overrides=arguments.set or (),
        later=arguments.later or (),
        targets=Targets(
            arguments.false_drops,
            arguments.false_relabels,
            arguments.false_merges,
            arguments.max_drop,
        ),
        evaluation=arguments.evaluation or (),
        runtime=arguments.runtime,
        flip=arguments.flip,
        batch_size=arguments.batch_size,
        threads=arguments.threads,
        seed=arguments.seed,
        final=arguments.final,
        restart=arguments.restart,
        report=report,
    )
    result = read_json(arguments.out / WORK / NAME)
    print(f"stopped after round {told[-1]['round']}: {result['stopped']}")
    if result["note"]:
        print(result["note"])
    if arguments.final and result["final"] is not None:
        figure = result["final"]["validation"]
        scored = "" if figure is None else f", validation {figure:.4f}"
        print(f"model of the clean set: {arguments.out / result['final']['artefact']}{scored}")
    write_set_json(arguments, result, seed=result["settings"]["seed"])
