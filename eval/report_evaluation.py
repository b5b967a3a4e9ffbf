"""The page of an evaluation, and the page of a comparison: the same parts with more columns."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.compare import Comparison, Difference
from eval.evaluation import WORST_KINDS, Evaluation, WorstError
from eval.evaluation_estimates import (
    SHARE,
    Headline,
    format_estimate,
    format_interval,
    format_value,
)
from eval.report_page import ReportPage
from eval.report_sections import (
    Models,
    add_growth,
    add_histograms,
    add_slices,
    add_trade_offs,
)
from facerec.checks import InputError

MOST_FAILURES = 1000
"""A page lists so many failures by name; the JSON file has all of them."""
_PICTURE_SIDE = 112
_DASH = "\N{EN DASH}"


def build_evaluation_page(evaluation: Evaluation, images: Sequence[Path] = ()) -> ReportPage:
    """Return the page of one evaluation.

    Args:
        evaluation: what to show.
        images: folders that the worst errors' files are relative to; pictures are shown only
            where one is given. A picture that lies in none of them is left out.
    """
    page = ReportPage(evaluation.title, evaluation.model, simulated=evaluation.simulated)
    _say_simulated(page, evaluation.simulated)
    page.heading("Figures")
    page.table(
        ["figure", "value", "95 % interval", "better", "note"],
        [
            [
                each.name,
                format_value(each.value, each.unit),
                format_interval(each, each.unit),
                _better(each),
                each.reason,
            ]
            for each in evaluation.headline
        ],
        "Headline figures",
    )
    _add_shared(page, {evaluation.model: evaluation}, images)
    return page


def build_comparison_page(comparison: Comparison, images: Sequence[Path] = ()) -> ReportPage:
    """Return the page of a comparison: a column a model, and differences from the first.

    Args:
        comparison: what to show.
        images: as in `build_evaluation_page`.
    """
    page = ReportPage(
        comparison.title, ", ".join(comparison.models), simulated=comparison.simulated
    )
    _say_simulated(page, comparison.simulated)
    for note in comparison.notes:
        page.paragraph(f"Note: {note}")
    page.heading("Figures")
    rows = []
    for figure in comparison.figures:
        found = [comparison.find(model, figure) for model in comparison.models]
        first = next(each for each in found if each is not None)
        rows.append(
            [figure, _better(first), *(format_estimate(each, first.unit) for each in found)]
        )
    page.table(["figure", "better", *comparison.models], rows, "Headline figures of each model")
    _add_differences(page, comparison)
    _add_shared(page, comparison.models, images)
    return page


def _say_simulated(page: ReportPage, simulated: bool) -> None:
    if simulated:
        page.paragraph(
            "The probes are simulated: the figures rank methods, they do not forecast a camera."
        )


def _better(figure: Headline) -> str:
    return _DASH if figure.better == "neither" else figure.better


def _add_differences(page: ReportPage, comparison: Comparison) -> None:
    page.heading("Differences")
    page.paragraph(
        f"Each model minus {comparison.baseline}. Intervals come from drawing people with "
        f"replacement, the same people for both models ({comparison.resamples:,} draws), at "
        "thresholds held as they are. A point is one hundredth of a share. Of many figures side by "
        "side some will seem different by chance."
    )
    for model in list(comparison.models)[1:]:
        page.heading(f"{model} minus {comparison.baseline}", 3)
        rows = []
        for each in comparison.differences:
            if each.model == model:
                figure = comparison.find(model, each.name)
                unit = "" if figure is None else figure.unit
                rows.append([each.name, *_difference_cells(each, unit), each.people, each.reason])
        columns = ["figure", "difference", "95 % interval", "verdict", "people", "note"]
        page.table(columns, rows, f"Paired differences, {model} minus {comparison.baseline}")


def _difference_cells(difference: Difference, unit: str) -> list[str]:
    numbers = [difference.value, difference.low, difference.high]
    scale, name = (100, "points") if unit == SHARE else (1, unit)
    texts = [_DASH if number is None else f"{scale * number:+.3g}" for number in numbers]
    value = texts[0] if difference.value is None else f"{texts[0]} {name}".rstrip()
    interval = _DASH if difference.low is None else f"{texts[1]} to {texts[2]}"
    return [value, interval, difference.verdict or _DASH]


def _add_shared(page: ReportPage, models: Models, images: Sequence[Path]) -> None:
    add_trade_offs(page, models)
    add_histograms(page, models)
    add_growth(page, models)
    add_slices(page, models)
    _add_failures(page, models)
    _add_worst(page, models, images)
    _add_counts(page, models)
    _add_protocol(page, models)
    _add_provenance(page, models)


def _add_failures(page: ReportPage, models: Models) -> None:
    page.heading("Failures")
    page.paragraph(
        "What gave no embedding stays in every denominator. FTE: a document that could not be "
        "enrolled; FTA: a probe that was not acquired."
    )
    for model, evaluation in models.items():
        if len(models) > 1:
            page.heading(f"Failures of {model}", 3)
        failures = evaluation.failures
        if not failures:
            page.paragraph("Everything gave an embedding.")
            continue
        whose = f" of {model}" if len(models) > 1 else ""
        reasons = Counter((each.kind, each.reason) for each in failures)
        page.table(
            ["kind", "reason", "number"],
            [[kind, reason, count] for (kind, reason), count in reasons.most_common()],
            f"Failures by reason{whose}",
        )
        shown = failures[:MOST_FAILURES]
        folded = page.details(f"{len(failures):,} failures by file name")
        with folded if len(failures) > 20 else contextlib.nullcontext():
            page.table(
                ["file", "kind", "reason"],
                [[each.file, each.kind, each.reason] for each in shown],
                f"Failures by file name{whose}",
            )
            if len(failures) > len(shown):
                page.paragraph(
                    f"{len(failures) - len(shown):,} more are in the JSON and CSV files."
                )


def _add_worst(page: ReportPage, models: Models, images: Sequence[Path]) -> None:
    if not any(evaluation.worst for evaluation in models.values()):
        return
    page.heading("Worst errors")
    captions = {
        "mated": "One person's comparisons with the lowest scores",
        "non-mated": "Two people's comparisons with the highest scores",
    }
    for model, evaluation in models.items():
        whose = f", {model}" if len(models) > 1 else ""
        if whose and evaluation.worst:
            page.heading(f"Worst errors of {model}", 3)
        for kind in WORST_KINDS:
            errors = [each for each in evaluation.worst if each.kind == kind]
            if not errors:
                continue
            page.table(
                ["first", "second", "score"],
                [[each.first, each.second, each.score] for each in errors],
                f"{captions[kind]}{whose}",
            )
            _add_pictures(page, errors, images)


def _add_pictures(page: ReportPage, errors: Sequence[WorstError], images: Sequence[Path]) -> None:
    """Add both pictures of each error, small; those that are in none of the folders are named."""
    pictures, labels, missing = [], [], 0
    for error in errors if images else ():
        for name in (error.first, error.second):
            picture = _read_small(name, images)
            if picture is None:
                missing += 1
            else:
                pictures.append(picture)
                labels.append(f"{name} (score {error.score:.4g})")
    if pictures:
        page.pictures(pictures, labels, "Pairs in the order of the table")
    if missing:
        page.paragraph(f"{missing:,} of these files are no picture in the folders given.")


def _read_small(name: str, images: Sequence[Path]) -> NDArray[np.uint8] | None:
    """Return a picture of at most 112 pixels a side, None when no folder holds it."""
    import cv2

    from facerec.data.images import read_image

    for folder in images:
        path = (folder / name).resolve()
        # The names come from a file: none of them leads out of the folder.
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            continue
        with contextlib.suppress(InputError):
            image = read_image(path)
            scale = _PICTURE_SIDE / max(image.shape[:2])
            if scale >= 1:
                return image
            size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
            return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    return None


def _add_counts(page: ReportPage, models: Models) -> None:
    names = list(dict.fromkeys(name for each in models.values() for name in each.counts))
    if not names:
        return
    page.heading("Counts")
    page.table(
        ["what", *(model if len(models) > 1 else "number" for model in models)],
        [[name, *(each.counts.get(name) for each in models.values())] for name in names],
        "How many of each",
    )


def _add_protocol(page: ReportPage, models: Models) -> None:
    page.heading("Protocol")
    told: dict[tuple[str, ...], list[str]] = {}
    for model, evaluation in models.items():
        told.setdefault(evaluation.protocol, []).append(model)
    for protocol, who in told.items():
        if len(told) > 1:
            page.heading(f"Protocol of {', '.join(who)}", 3)
        for text in protocol:
            page.paragraph(text)


def _add_provenance(page: ReportPage, models: Models) -> None:
    page.heading("Provenance")
    rows: dict[str, list[Any]] = {}
    for place, evaluation in enumerate(models.values()):
        origin = evaluation.provenance
        entries = {"created": origin.get("created"), "seed": origin.get("seed")}
        entries |= {f"version of {k}": v for k, v in (origin.get("versions") or {}).items()}
        entries |= {f"sha256 of {k}": v for k, v in (origin.get("hashes") or {}).items()}
        for name, value in entries.items():
            row = rows.setdefault(name, [None] * len(models))
            row[place] = None if value is None else str(value)
    page.table(
        ["what", *(model if len(models) > 1 else "value" for model in models)],
        [[name, *values] for name, values in rows.items()],
        "What the figures were made with",
    )
