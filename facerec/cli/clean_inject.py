"""`facerec-clean inject` and `score`: noise whose truth is known, and how well it was found."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from facerec.cli.clean_json import write_set_json
from facerec.command import add_command, write_json_result

Commands = Any

_SHARES = (
    ("flips", "of the rows: somebody else of the set"),
    ("outliers", "of the rows: nobody of the set; needs --outliers-from"),
    ("duplicates", "of the rows: near copies"),
    ("low-quality", "of the rows: too few pixels"),
    ("leakage", "of the rows: people of a test set, in folders of their own; needs --leak-from"),
    ("splits", "of the people: two folders each"),
    ("merges", "of the people: another person in their folder too"),
)


def add_inject(commands: Commands) -> None:
    """Add `inject` and `score` to the sub-commands of `facerec-clean`."""
    _add_inject(commands)
    _add_score(commands)


def _add_inject(commands: Commands) -> None:
    parser = add_command(
        commands,
        "inject",
        _run_inject,
        "make a noisy crawl of a clean one, the truth beside it",
        "facerec-clean inject clean/ noisy/ --flips 0.2 --outliers 0.1 --outliers-from others/\n"
        "  facerec-clean ingest noisy/crawl set/ --detector aligned\n"
        "  facerec-clean run set/ --model recogniser.onnx\n"
        "  facerec-clean score set/ --truth noisy/truth.parquet --baselines",
    )
    parser.add_argument("source", type=Path, help="clean pictures, a folder an identity")
    parser.add_argument(
        "out", type=Path, help="new folder: crawl/ with neutral names, truth.parquet, inject.json"
    )
    for name, what in _SHARES:
        parser.add_argument(f"--{name}", type=float, default=0.0, metavar="SHARE", help=what)
    parser.add_argument("--outliers-from", type=Path, metavar="DIR", help="pictures of strangers")
    parser.add_argument(
        "--leak-from", type=Path, metavar="DIR", help="test set, a folder an identity"
    )
    parser.add_argument(
        "--profile",
        default="as is",
        choices=("as is", "long tail"),
        help="folder sizes; long tail thins them to Zipf's law, most to 3 to 10 pictures",
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything random")


def _add_score(commands: Commands) -> None:
    parser = add_command(
        commands,
        "score",
        _run_score,
        "compare the decisions with the truth, where it is known",
        "facerec-clean score set/ --truth noisy/truth.parquet --baselines",
    )
    parser.add_argument("out", type=Path, help="set folder")
    parser.add_argument(
        "--truth",
        type=Path,
        required=True,
        help="table with key (path in the source), person and, if there, face, kind and copy_of",
    )
    parser.add_argument(
        "--baselines",
        action="store_true",
        help="score mean cosine 0.6, largest DBSCAN cluster, sub-centre 75 degrees and cleanlab "
        "(if installed) on the same rows",
    )
    parser.add_argument(
        "--max-gib", type=float, default=4.0, help="memory that cleanlab may take, else left out"
    )
    parser.add_argument(
        "--resamples", type=int, default=200, help="of the bootstrap for intervals; 0: none"
    )


def _run_inject(arguments: argparse.Namespace) -> None:
    from data_tools.inject import NoiseRates
    from data_tools.inject_folder import TRUTH, inject

    shares = {name.replace("-", "_") for name, _ in _SHARES}
    info = inject(
        arguments.source,
        arguments.out,
        NoiseRates(**{name: getattr(arguments, name) for name in shares}),
        profile=arguments.profile,
        outliers_from=arguments.outliers_from,
        leak_from=arguments.leak_from,
        seed=arguments.seed,
    )
    print(
        f"{info['pictures']:,} pictures of {info['people']:,} people in {info['folders']:,} folders"
    )
    for kind, count in info["kinds"].items():
        print(f"  {count:>9,}  {kind}")
    print(f"{info['splits']:,} people split, {info['merges']:,} pairs of people merged")
    if info["people_left_out"]:
        print(f"{info['people_left_out']:,} people left out: too few strangers for the share")
    if info["unreadable"]:
        print(f"{info['unreadable']:,} pictures could not be read and were not changed")
    print(f"truth: {arguments.out / TRUTH}")
    hashes = {"truth": info["truth_sha256"]}
    write_json_result(arguments, info, seed=arguments.seed, hashes=hashes)


def _run_score(arguments: argparse.Namespace) -> None:
    from data_tools.score import score_set
    from data_tools.score_tables import format_kinds, format_methods
    from facerec.checks import check_range

    check_range(arguments.max_gib, "--max-gib", 0, 1e6)
    figures = score_set(
        arguments.out,
        arguments.truth,
        baselines=arguments.baselines,
        max_bytes=int(arguments.max_gib * 2**30),
        resamples=arguments.resamples,
    )
    shown = {name: figures[name] for name in ("precision", "recall", "f1")}
    text = ", ".join(f"{n} {'-' if v is None else f'{v:.4f}'}" for n, v in shown.items())
    print(f"{figures['wrong']:,} wrong rows, {figures['dropped']:,} taken out: {text}")
    for kind, counts in figures["kinds"].items():
        print(f"  {kind}: {counts['hit']:,} of {counts['wrong']:,} found")
    methods = figures["methods"]
    print(format_kinds(methods["facerec-clean"]))
    print(format_methods({name: [one] for name, one in methods.items()}))
    for name, reason in figures["skipped"].items():
        print(f"{name} left out: {reason}")
    write_set_json(arguments, figures)
