"""`facerec-clean` for people: the report of a set, and the site from which they judge its rows."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from facerec.command import add_command, write_json_result


def add_review(commands: Any) -> None:
    """Add the commands that show a set to people: report and review."""
    _add_report(commands)
    _add_review(commands)


def _add_report(commands: Any) -> None:
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


def _add_review(commands: Any) -> None:
    parser = add_command(
        commands,
        "review",
        _run_review,
        "write review/ into the set folder: contact sheets of identities, those first where a look "
        "mends most, and a sample from which the residual noise is estimated; with --verdicts, "
        "print that estimate",
        "facerec-clean review set/ --with-images\n"
        "  facerec-clean review set/ --verdicts verdicts.csv\n"
        "  facerec-clean verdicts set/ verdicts.csv",
    )
    parser.add_argument("out", type=Path, help="set folder")
    parser.add_argument("--with-images", action="store_true", help="show faces (real people!)")
    parser.add_argument("--per-page", type=int, default=100, help="identities a page")
    parser.add_argument("--rows", type=int, default=30, help="rows shown of an identity")
    parser.add_argument("--sample", type=int, default=500, help="rows in the sample, at least 40")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument(
        "--verdicts",
        type=Path,
        metavar="FILE",
        help="verdicts on the sample (.csv or .parquet): print the estimate and write no pages; "
        "the log is not touched, facerec-clean verdicts takes them in",
    )


def _run_report(arguments: argparse.Namespace) -> None:
    from data_tools.report import write_report

    page, figures = write_report(
        arguments.out,
        with_images=arguments.with_images,
        top=arguments.top,
        json_path=arguments.json,
    )
    print(f"{figures['decided']:,} of {figures['rows']:,} rows decided; report: {page}")


def _run_review(arguments: argparse.Namespace) -> None:
    if arguments.verdicts is not None:
        _run_estimate(arguments)
        return
    from data_tools.review import write_review

    figures = write_review(
        arguments.out,
        with_images=arguments.with_images,
        per_page=arguments.per_page,
        rows=arguments.rows,
        sample=arguments.sample,
        seed=arguments.seed,
    )
    if not figures["written"]:
        print("nothing changed: the site is of this log and these settings already")
    print(
        f"{figures['identities']:,} identities on {figures['pages']:,} pages, "
        f"{figures['gain']:.1f} wrong decisions expected, {figures['sample']:,} rows sampled; "
        f"open {figures['page']}"
    )
    write_json_result(arguments, figures, seed=arguments.seed)


def _run_estimate(arguments: argparse.Namespace) -> None:
    from data_tools.review_answers import answer_sample
    from facerec.io import sha256_file

    figures = answer_sample(arguments.out, arguments.verdicts)
    parts = (("wrong rows in the clean set", "residual"), ("right rows among the dropped", "lost"))
    for what, name in parts:
        found = figures[name]
        if found is None:
            print(f"{what}: no verdict on them yet")
            continue
        print(
            f"{what}: {found['value']:.2%} (95 % interval {found['low']:.2%} to "
            f"{found['high']:.2%}; {found['answered']:,} of {found['asked']:,} judged)"
        )
        if found["blind"]:
            print(
                f"  {found['blind']} strata have no verdict: the model's own doubt stands in "
                "for their share, their whole range for their interval"
            )
    write_json_result(arguments, figures, hashes={"verdicts": sha256_file(arguments.verdicts)})
