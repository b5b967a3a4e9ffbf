"""`facerec`: the model store, the demo, and what is installed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facerec import __version__
from facerec.command import add_command, build_parser, run_command, write_json_result


def main(argv: Sequence[str] | None = None) -> int:
    """Run `facerec` and return its exit code."""
    from facerec.cli.models import add_models_commands

    parser = build_parser(
        "facerec",
        "Face recognition for surveillance. The jobs have commands of their own: facerec-clean, "
        "facerec-train, facerec-gallery, facerec-eval.",
        "facerec demo",
    )
    parser.add_argument("--version", action="version", version=f"facerec {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_models_commands(commands)
    demo = add_command(
        commands,
        "demo",
        _run_demo,
        "run the whole line, from crawl to score, on people who do not exist",
        "facerec demo --out demo_out",
    )
    demo.add_argument("--out", type=Path, default=Path("demo_out"), help="folder for all of it")
    demo.add_argument("--data", type=Path, help="your own pictures instead, one folder a person")
    demo.add_argument("--detector", help="a detector for --data, or over the demo's annotations")
    demo.add_argument("--seed", type=int, default=1, help="of everything random")
    add_command(
        commands, "info", _run_info, "show versions, cores and the model store", "facerec info"
    )
    return run_command(parser, argv)


def _run_demo(arguments: argparse.Namespace) -> int:
    from facerec.cli.demo import run_demo

    return run_demo(
        arguments.out,
        data=arguments.data,
        detector=arguments.detector,
        seed=arguments.seed,
        json_path=arguments.json,
    )


def _run_info(arguments: argparse.Namespace) -> None:
    from facerec.dist import cpu_count
    from facerec.models.store import ModelStore
    from facerec.provenance import versions

    store = ModelStore()
    found: dict[str, Any] = {
        "versions": versions(),
        "cores": cpu_count(),
        "model_store": str(store.home),
    }
    for name, version in found["versions"].items():
        print(f"{name:24} {version}")
    print(f"{'cores':24} {found['cores']}")
    print(f"{'model store':24} {store.home}")
    write_json_result(arguments, found)
