"""`facerec-clean rejects`: what cleaning turned away, put to use."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from facerec.command import add_command, write_json_result


def add_rejects(commands: Any) -> None:
    """Add the `rejects` command."""
    parser = add_command(
        commands,
        "rejects",
        _run_rejects,
        "route what is not in the clean set: new identities, strangers for training, review or "
        "discard, into rejects.parquet",
        "facerec-clean rejects set/ --unlabelled strangers/ --new-identities",
    )
    parser.add_argument("out", type=Path, help="set folder")
    parser.add_argument(
        "--unlabelled",
        type=Path,
        metavar="DEST",
        help="new folder for links to the faces that show nobody known, for unlabelled.folder of "
        "facerec-train",
    )
    parser.add_argument(
        "--new-identities",
        action="store_true",
        help="take the new identities into the clean set, as new-00001 and on; undo takes them out",
    )
    parser.add_argument(
        "--leak",
        type=float,
        default=0.001,
        help="share of known people's faces that may pass for strangers: more lets more through",
    )
    parser.add_argument(
        "--grey",
        type=float,
        default=0.05,
        help="probability to be somebody known from which on a face is held back",
    )
    parser.add_argument(
        "--least-pictures", type=int, default=3, help="different pictures of a new identity"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is sampled")


def _run_rejects(arguments: argparse.Namespace) -> None:
    from data_tools.rejects_set import route_set

    figures = route_set(
        arguments.out,
        arguments.unlabelled,
        new_identities=arguments.new_identities,
        leak=arguments.leak,
        grey=arguments.grey,
        least_pictures=arguments.least_pictures,
        seed=arguments.seed,
    )
    print(f"{figures['rejects']:,} rejects, listed in {arguments.out / 'rejects.parquet'}:")
    for name, count in figures["routes"].items():
        print(f"  {count:>9,}  {name}")
    print(
        f"{figures['new_identities']:,} new identities; held back: {figures['groups_alike']:,} "
        f"groups that may be somebody of the set, {figures['groups_loose']:,} too loose to be one "
        "person"
    )
    _print_disjointness(figures["disjointness"])
    if figures["linked"]:
        print(f"{figures['linked']:,} chips of strangers linked in {arguments.unlabelled}")
    elif arguments.unlabelled is not None:
        print(f"nobody passes for a stranger: {arguments.unlabelled} was not made")
    if figures["round"] is not None:
        print(
            f"round {figures['round']}: new identities taken in; the clean set has "
            f"{figures['rows']:,} rows"
        )
    write_json_result(arguments, figures, seed=arguments.seed, hashes=figures["sha256"])


def _print_disjointness(report: dict[str, Any]) -> None:
    """Say how far the strangers are from everybody known, and how many known faces would pass."""
    if report["leaked"] is None or report["bound"] <= -1.0:
        print("strangers: too little is known of the set's own identities to tell them")
        return
    line = f"strangers: below {report['bound']:.3f} to every centre"
    if report["highest"] is not None:
        line += f" (highest left {report['highest']:.3f})"
    line += (
        f"; of {report['tested']:,.0f} right rows put to the test {report['leaked']:.3%} would "
        f"pass (at most {report['leaked_most']:.3%}; asked for {report['leak']:.3%}), and "
        f"{report['passing']:.1%} were their own identity not there"
    )
    print(line)
