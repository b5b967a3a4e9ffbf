"""`facerec-eval report` and `compare`: evaluations as a page and a table, alone or side by side."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from facerec.checks import InputError
from facerec.command import add_command, write_json_result

if TYPE_CHECKING:
    from eval.compare import Comparison, Difference


def add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `report`."""
    parser = add_command(
        commands,
        "report",
        _run_report,
        "the page and the table of an evaluation's JSON file",
        "facerec-eval report A.json --html A.html --csv A.csv",
    )
    parser.add_argument("file", type=Path, help="written by --json of a facerec-eval command")
    _add_outputs(parser)


def add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `compare`."""
    parser = add_command(
        commands,
        "compare",
        _run_compare,
        "evaluations of several models side by side, with paired intervals",
        "facerec-eval compare A.json B.json --html comparison.html",
    )
    add = parser.add_argument
    add("files", type=Path, nargs="+", metavar="FILE",
        help="written by --json of facerec-eval; the first is the baseline")  # fmt: skip
    add("--resamples", type=int, default=1000, help="of people, for the 95%% intervals")
    add("--seed", type=int, default=0, help="of the resampling")
    _add_outputs(parser)


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--html", type=Path, metavar="FILE", help="write the page here")
    add("--csv", type=Path, metavar="FILE", help="write the figures as a table here")
    add("--with-images", type=Path, action="append", default=None, metavar="DIR",
        help="show the pictures of the worst errors in the page; DIR is what their names are "
        "relative to (may be given again)")  # fmt: skip


def _check_outputs(arguments: argparse.Namespace) -> None:
    if arguments.with_images and arguments.html is None:
        raise InputError("--with-images puts pictures into the page: say where with --html")
    for folder in arguments.with_images or ():
        if not folder.is_dir():
            raise InputError(f"--with-images {folder} must be a folder; check the path")


def _run_report(arguments: argparse.Namespace) -> int:
    from eval.evaluation_estimates import format_interval, format_value
    from eval.evaluation_files import read_evaluation, write_csv
    from eval.report import format_table
    from eval.report_evaluation import build_evaluation_page

    _check_outputs(arguments)
    evaluation = read_evaluation(arguments.file)
    write_json_result(arguments, {"evaluation": evaluation.to_json()})
    if arguments.html:
        build_evaluation_page(evaluation, arguments.with_images or ()).write(arguments.html)
    if arguments.csv:
        write_csv(arguments.csv, evaluation)
    print(_summarise_title(evaluation.title, evaluation.simulated))
    rows = [
        [each.name, format_value(each.value, each.unit), format_interval(each, each.unit)]
        for each in evaluation.headline
    ]
    print(format_table(("figure", "value", "95 % interval"), rows))
    _say_written(arguments)
    return 0


def _run_compare(arguments: argparse.Namespace) -> int:
    from eval.compare import compare_evaluations
    from eval.evaluation_files import read_evaluation, write_csv
    from eval.report_evaluation import build_comparison_page
    from facerec.io import sha256_file

    _check_outputs(arguments)
    evaluations = [read_evaluation(path) for path in arguments.files]
    labels = [path.stem for path in arguments.files]
    comparison = compare_evaluations(
        evaluations, labels, resamples=arguments.resamples, seed=arguments.seed
    )
    hashes = {str(path): sha256_file(path) for path in arguments.files}
    write_json_result(arguments, comparison.to_json(), seed=arguments.seed, hashes=hashes)
    if arguments.html:
        build_comparison_page(comparison, arguments.with_images or ()).write(arguments.html)
    if arguments.csv:
        write_csv(arguments.csv, comparison)
    print(_summarise(comparison))
    _say_written(arguments)
    return 0


def _summarise(comparison: Comparison) -> str:
    from eval.evaluation_estimates import format_value
    from eval.report import format_table

    columns = ["figure", *comparison.models]
    rows = []
    for name in comparison.figures:
        found = [comparison.find(model, name) for model in comparison.models]
        rows.append([name, *("-" if x is None else format_value(x.value, x.unit) for x in found)])
    lines = [_summarise_title(comparison.title, comparison.simulated)]
    lines += [f"note: {text}" for text in comparison.notes]
    lines += [format_table(columns, rows), ""]
    lines += [_describe(each) for each in comparison.differences]
    return "\n".join(lines)


def _describe(difference: Difference) -> str:
    head = f"{difference.name}: {difference.model} minus {difference.baseline}"
    if difference.value is None:
        return f"{head}: {difference.reason}"
    if difference.low is None:
        return f"{head} = {difference.value:+.4g} ({difference.reason})"
    verdict = f", {difference.verdict}" if difference.verdict else ""
    return (
        f"{head} = {difference.value:+.4g}, 95 % interval {difference.low:+.4g} to "
        f"{difference.high:+.4g}{verdict}"
    )


def _summarise_title(title: str, simulated: bool) -> str:
    return f"{title} (simulated)\n" if simulated else f"{title}\n"


def _say_written(arguments: argparse.Namespace) -> None:
    for name in ("json", "csv", "html"):
        if getattr(arguments, name):
            print(f"wrote {getattr(arguments, name)}")
