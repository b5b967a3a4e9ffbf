"""facerec-train: train a backbone from a recipe."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from facerec.command import add_json, build_parser, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = build_parser(
        "facerec-train",
        "Train a face recognition backbone and export it. Recipes are YAML files;\n"
        "configs/base.yaml lists every key. Run again with the same run folder, a\n"
        "stopped training goes on exactly where its last checkpoint is.",
        "facerec-train configs/demo.yaml run=runs/demo data.manifest=SET/clean.parquet seed=1",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a YAML recipe")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings that differ, such as optim.lr=0.05",
    )
    add_json(parser)
    parser.set_defaults(run=_run)
    return run_command(parser, argv)


def _run(arguments: argparse.Namespace) -> None:
    from facerec.config import load_config
    from facerec.dist import is_main
    from facerec.io import read_json, write_json
    from facerec.training.memory import keep_freed_memory
    from facerec.training.run import RESULT, train
    from facerec.training.settings import TrainSettings

    keep_freed_memory()
    settings = load_config(TrainSettings, arguments.config, arguments.overrides)
    folder = settings.run or Path("runs") / arguments.config.stem
    result = train(settings, folder)
    if not is_main():
        return
    values = result.values
    if result.was_finished:
        print(f"{folder} is finished; nothing was done")
    else:
        print(
            f"{values['steps']} steps on {values['chips']} chips of {values['identities']} "
            f"identities ({values['dropped_identities']} identities dropped: too few chips)"
        )
        if values["best_tar"] is not None:
            far = settings.validation.far
            print(f"best TAR@FAR={far:g} on held-out people: {values['best_tar']:.3f}")
    print(f"artefact: {folder / values['artefact']}")
    if arguments.json is not None:
        write_json(arguments.json, read_json(folder / RESULT))


if __name__ == "__main__":  # torchrun -m facerec.cli.train
    raise SystemExit(main())
