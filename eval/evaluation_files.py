"""Evaluations as files: JSON to read again, CSV for a table of figures."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from eval.compare import Comparison
from eval.evaluation import FORMAT, Evaluation
from eval.evaluation_estimates import Estimate
from eval.evaluation_verify import describe_verification
from facerec.checks import InputError
from facerec.io import read_json, write_text

COLUMNS = (
    "part",
    "name",
    "item",
    "model",
    "x",
    "value",
    "low",
    "high",
    "count",
    "unit",
    "better",
    "supported",
    "reason",
    "simulated",
)
# A spreadsheet runs a cell that begins so as a formula; file names are not ours to choose.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

Row = dict[str, Any]


def read_evaluation(path: Path) -> Evaluation:
    """Return the evaluation in a JSON file of a `facerec-eval` command.

    The file is an evaluation, holds one under "evaluation", or is the result of `verify`. Versions
    and hashes are those that the command wrote.

    Raises:
        InputError: the file is missing, is not JSON, or holds no evaluation.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path} must hold an evaluation, got {type(value).__name__}")
    if value.get("format") != FORMAT and value.get("task") == "verify":
        return describe_verification(value, str(path))
    inner = value.get("evaluation", value)
    if isinstance(inner, dict) and isinstance(value.get("provenance"), dict):
        inner = {**inner, "provenance": value["provenance"]}
    return Evaluation.from_json(inner, str(path))


def write_csv(path: Path, what: Evaluation | Comparison) -> None:
    """Write an evaluation or a comparison as CSV, all or nothing: see `to_csv`."""
    write_text(path, to_csv(what))


def to_csv(what: Evaluation | Comparison) -> str:
    """Return one table, a number a row: which part of the report it is in, whose, its interval.

    A text that a spreadsheet would run as a formula is led by an apostrophe; JSON has it as it is.
    """
    if isinstance(what, Comparison):
        rows = [row for name, each in what.models.items() for row in _list_rows(each, name)]
        rows += [_difference_row(what, place) for place in range(len(what.differences))]
    else:
        rows = list(_list_rows(what, what.model))
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows({key: _guard(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _list_rows(evaluation: Evaluation, model: str) -> Iterator[Row]:
    shared = {"model": model, "simulated": _flag(evaluation.simulated)}
    for row in _list_parts(evaluation):
        yield {**row, **shared}


def _list_parts(evaluation: Evaluation) -> Iterator[Row]:
    for figure in evaluation.headline:
        row = _estimate("headline", figure.name, figure)
        yield {**row, "unit": figure.unit, "better": figure.better}
    for part in evaluation.slices:
        for bar in part.bars:
            row = _estimate("slice", part.figure, bar)
            row |= {"item": f"{part.name}: {bar.name}", "unit": part.unit, "better": part.better}
            yield {**row, "count": "" if bar.count is None else bar.count}
    for growth in evaluation.growth:
        for people, point in zip(growth.people, growth.points, strict=True):
            yield {**_estimate("gallery size", growth.name, point), "x": people}
    for det in evaluation.det:
        for x, y in zip(det.x, det.y, strict=True):
            item = f"{det.y_label} at {det.x_label}"
            yield {"part": "det", "name": det.name, "item": item, "x": x, "value": y}
    for histogram in evaluation.histograms:
        for kind, counts in (("mated", histogram.mated), ("non-mated", histogram.non_mated)):
            for edge, count in zip(histogram.edges, counts, strict=False):
                yield {
                    "part": "histogram", "name": histogram.name, "item": f"{kind}, bin from x",
                    "x": edge, "count": count,
                }  # fmt: skip
        for name, threshold in histogram.thresholds.items():
            yield {"part": "threshold", "name": histogram.name, "item": name, "value": threshold}
    yield from _list_names(evaluation)


def _list_names(evaluation: Evaluation) -> Iterator[Row]:
    for failure in evaluation.failures:
        yield {
            "part": "failure", "name": failure.kind, "item": failure.file,
            "reason": failure.reason,
        }  # fmt: skip
    for error in evaluation.worst:
        item = f"{error.first} | {error.second}"
        yield {"part": "worst error", "name": error.kind, "item": item, "value": error.score}
    for name, count in evaluation.counts.items():
        yield {"part": "count", "name": name, "count": count}
    origin = evaluation.provenance
    for part in ("versions", "hashes"):
        for name, text in (origin.get(part) or {}).items():
            yield {"part": part, "name": name, "item": text}
    yield {
        "part": "seed",
        "name": "seed",
        "item": "" if origin.get("seed") is None else origin["seed"],
    }
    for text in evaluation.protocol:
        yield {"part": "protocol", "item": text}


def _difference_row(comparison: Comparison, place: int) -> Row:
    difference = comparison.differences[place]
    figure = comparison.find(comparison.baseline, difference.name) or comparison.find(
        difference.model, difference.name
    )
    row = _estimate("difference", difference.name, difference)
    row |= {"item": f"minus {difference.baseline}", "model": difference.model}
    row |= {"count": "" if difference.people is None else difference.people}
    if figure is not None:
        row |= {"unit": figure.unit, "better": figure.better}
    if difference.verdict:
        row["reason"] = difference.verdict
    return {**row, "simulated": _flag(comparison.simulated)}


def _estimate(part: str, name: str, estimate: Estimate) -> Row:
    numbers: Iterable[tuple[str, float | None]] = (
        ("value", estimate.value),
        ("low", estimate.low),
        ("high", estimate.high),
    )
    return {
        "part": part,
        "name": name,
        "supported": _flag(estimate.supported),
        "reason": estimate.reason,
        **{key: "" if number is None else number for key, number in numbers},
    }


def _flag(value: bool) -> str:
    return "yes" if value else "no"


def _guard(value: Any) -> Any:
    """Return a cell that no spreadsheet runs; numbers stay numbers."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value
