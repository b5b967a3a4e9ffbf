"""`facerec-clean` on what was decided: undo, explain, diff, export, erase, verdicts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from facerec.cli.clean_json import write_set_json
from facerec.command import add_command

_SHOWN = 20


def add_log(commands: Any) -> None:
    """Add the commands that work on the decision log and on what comes of it."""
    _add_undo(commands)
    _add_explain(commands)
    _add_diff(commands)
    _add_export(commands)
    _add_erase(commands)
    _add_verdicts(commands)


def _add_undo(commands: Any) -> None:
    parser = add_command(
        commands,
        "undo",
        _run_undo,
        "take a round and all later ones back; the log keeps them, marked",
        "facerec-clean undo set/ --round 3",
    )
    parser.add_argument("out", type=Path, help="set folder")
    parser.add_argument("--round", type=int, help="the first to take back, the last if left")


def _add_explain(commands: Any) -> None:
    parser = add_command(
        commands,
        "explain",
        _run_explain,
        "say why a picture is in the clean set or not: every decision and score",
        "facerec-clean explain set/ somebody/0001.jpg",
    )
    parser.add_argument("out", type=Path, help="set folder")
    parser.add_argument("image", help="path in the source, image_id, sha256 or a chip's name")
    parser.add_argument("--face", type=int, help="number of the face in it, all if left")


def _add_diff(commands: Any) -> None:
    parser = add_command(
        commands,
        "diff",
        _run_diff,
        "count the rows whose fate differs between two rounds (0: as ingested)",
        "facerec-clean diff set/ 1 2 --csv changed.csv",
    )
    parser.add_argument("out", type=Path, help="set folder")
    parser.add_argument("first", type=int, metavar="ROUND", help="a round, as it was then")
    parser.add_argument("second", type=int, metavar="ROUND", help="another one")
    parser.add_argument(
        "--csv", type=Path, metavar="FILE", help="list the rows here: a new .csv, .json or .parquet"
    )


def _add_export(commands: Any) -> None:
    parser = add_command(
        commands,
        "export",
        _run_export,
        "write the clean set as folders (hard links), list, Parquet, RecordIO or WebDataset",
        "facerec-clean export set/ train/ --kind recordio",
    )
    parser.add_argument("out", type=Path, help="set folder")
    parser.add_argument(
        "destination", type=Path, help="new folder, or new .csv or .parquet file; not in the set"
    )
    parser.add_argument(
        "--kind",
        default="auto",
        choices=("auto", "folder", "list", "parquet", "recordio", "webdataset"),
        help="auto: a list if the name ends so, else folders",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order of a webdataset")


def _add_erase(commands: Any) -> None:
    parser = add_command(
        commands,
        "erase",
        _run_erase,
        "remove a person from the set for good; the source is not touched",
        "facerec-clean erase set/ --identity 'Somebody' --dry-run",
    )
    parser.add_argument("out", type=Path, help="set folder")
    parser.add_argument(
        "--identity", help="the name, as in the source; left out: finish an erasure that was begun"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would go and touch nothing"
    )
    parser.add_argument(
        "--delete-unknown",
        action="store_true",
        help="delete what is in the set folder and not of the set, which may show the person",
    )


def _add_verdicts(commands: Any) -> None:
    parser = add_command(
        commands,
        "verdicts",
        _run_verdicts,
        "take a reviewer's verdicts (keep, drop, relabel) as a round that later ones respect",
        "facerec-clean verdicts set/ verdicts.csv",
    )
    parser.add_argument("out", type=Path, help="set folder")
    parser.add_argument(
        "table",
        type=Path,
        help=".csv or .parquet with path or image_id, verdict and, if there, face, identity (for "
        "relabel), reviewer, note",
    )
    parser.add_argument(
        "--skip-unknown", action="store_true", help="leave out lines that fit no row of the set"
    )


def _run_undo(arguments: argparse.Namespace) -> None:
    from data_tools.log_clean import undo_rounds

    figures = undo_rounds(arguments.out, arguments.round)
    numbers = ", ".join(str(number) for number in figures["undone"])
    many = "rounds" if len(figures["undone"]) > 1 else "round"
    print(f"{many} {numbers} undone; the clean set has {figures['rows']:,} rows")
    write_set_json(arguments, figures)


def _run_explain(arguments: argparse.Namespace) -> None:
    from data_tools.explain import describe_rows, explain

    rows = explain(arguments.out, arguments.image, arguments.face)
    for line in describe_rows(rows):
        print(line)
    write_set_json(arguments, {"rows": rows})


def _run_diff(arguments: argparse.Namespace) -> None:
    from data_tools.log_diff import diff_rounds

    figures = diff_rounds(arguments.out, arguments.first, arguments.second, arguments.csv)
    print(
        f"{figures['changed']:,} of {figures['rows']:,} rows differ; the clean set has "
        f"{figures['before']:,} rows after round {arguments.first}, {figures['after']:,} after "
        f"round {arguments.second}"
    )
    for entry in figures["changes"]:
        print(f"  {entry['rows']:>9,}  {entry['action']:<9}  {entry['check'] or '-'}")
    if arguments.csv is not None:
        print(f"the rows are listed in {arguments.csv}")
    write_set_json(arguments, figures)


def _run_export(arguments: argparse.Namespace) -> None:
    from data_tools.exports import export_set

    figures = export_set(arguments.out, arguments.destination, arguments.kind, seed=arguments.seed)
    print(
        f"{figures['rows']:,} rows of {figures['identities']:,} identities written to "
        f"{arguments.destination} ({figures['repeated']:,} repeated pictures left out"
        + (f", {figures['unlabelled']:,} without a name" if figures["unlabelled"] else "")
        + ")"
    )
    write_set_json(arguments, figures)


def _run_erase(arguments: argparse.Namespace) -> None:
    from data_tools.erasure import erase

    figures = erase(
        arguments.out,
        arguments.identity,
        dry_run=arguments.dry_run,
        delete_unknown=arguments.delete_unknown,
    )
    removed = figures["removed"]
    if figures["finished"] is not None:
        print(f"erasure {figures['finished']}, begun before, is finished")
    would = "would be removed" if arguments.dry_run else "removed"
    print(f"{would} (erasure {figures['id']}):")
    print(
        f"  {removed['rows']:,} rows: {removed['as_ingested']:,} ingested under the name, "
        f"{removed['decided']:,} that decisions gave it or took from it"
    )
    for name in ("chips", "embeddings", "decisions"):
        print(f"  {removed[name]:,} {name}")
    print(f"  {removed['scores']:,} rows of score tables")
    print(f"  the name in {removed['mentions']:,} rows of other people")
    for name in removed["deleted"]:
        print(f"  {name}")
    if removed["shared_chips"]:
        print(
            f"{removed['shared_chips']:,} chips stay for rows of other people who have the very "
            "same picture"
        )
    _print_places(figures)
    write_set_json(arguments, figures)


def _print_places(figures: dict[str, Any]) -> None:
    """Say where the person still is, outside the set."""
    source = figures["source"]
    print(f"not touched: {len(source['paths']):,} pictures in the source {source['root']}:")
    for path in source["paths"][:_SHOWN]:
        print(f"  {path}")
    if len(source["paths"]) > _SHOWN:
        print("  … (--json FILE has all)")
    for place in figures["exports"]:
        print(f"not touched: the export {place}; make it again")
    for place in figures["named_in"]:
        print(f"the name still stands in {place}")


def _run_verdicts(arguments: argparse.Namespace) -> None:
    from data_tools.verdicts import import_verdicts

    figures = import_verdicts(arguments.out, arguments.table, skip_unknown=arguments.skip_unknown)
    counts = ", ".join(f"{count:,} {name}" for name, count in figures["verdicts"].items())
    if figures["round"] is None:
        print("nothing to take: no verdict is in the table, or the same table stands already")
    else:
        print(
            f"round {figures['round']}: {counts}; {figures['changed']:,} rows changed, the clean "
            f"set has {figures['rows']:,} rows"
        )
    if figures["skipped"]:
        print(f"{figures['skipped']:,} verdicts fit no row: {'; '.join(figures['unknown'])}")
    write_set_json(arguments, figures)
