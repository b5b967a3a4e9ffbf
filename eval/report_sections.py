"""The parts of a report that are drawn: trade-offs, scores, gallery sizes, slices.

Each takes model -> evaluation: one model for the page of an evaluation, several for a comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from eval.evaluation import Evaluation
from eval.evaluation_curves import Det, Growth, Histogram
from eval.evaluation_estimates import Bar, Slice, format_estimate, format_interval, format_value
from eval.report_page import ReportPage
from eval.report_plots import plot_det, plot_estimates, plot_growth, plot_histogram

Models = Mapping[str, Evaluation]
_TARGETS = (1e-4, 1e-3, 1e-2, 1e-1)


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_Part = TypeVar("_Part", bound=_Named)


def add_trade_offs(page: ReportPage, models: Models) -> None:
    """Add DET curves, models that have one of the same name on one plot."""
    found = _group(models, lambda each: each.det)
    if not found:
        return
    page.heading("Error trade-off")
    for name, series in found.items():
        page.heading(name, 3)
        first = next(iter(series.values()))
        caption = (
            f"DET: {first.y_label} against {first.x_label}, lower is better. Both axes are "
            "logarithmic, so rates of zero are not drawn."
        )
        read = {model: _read_det(det) for model, det in series.items()}
        said = "; ".join(_say_det(model, first, values) for model, values in read.items())
        page.plot(plot_det(series), f"DET, {name}", f"{said}.", caption)
        with page.details("The curve as a table"):
            page.table(
                ["model", *(f"{first.y_label} at {first.x_label} {x:g}" for x in _TARGETS)],
                [[model, *values] for model, values in read.items()],
                f"{name}: {first.y_label} at the greatest {first.x_label} drawn that does not "
                "exceed each target",
            )


def add_histograms(page: ReportPage, models: Models) -> None:
    """Add the scores' histograms, one plot a model and name."""
    found = _group(models, lambda each: each.histograms)
    if not found:
        return
    page.heading("Scores")
    for name, series in found.items():
        for model, histogram in series.items():
            title = name if len(models) == 1 else f"{name}: {model}"
            page.heading(title, 3)
            page.plot(
                plot_histogram(histogram),
                f"Histogram of scores, {title}",
                _describe_histogram(histogram),
                "Each kind is scaled to a sum of one; failures have no score and are not drawn.",
            )


def add_growth(page: ReportPage, models: Models) -> None:
    """Add figures against the number of people enrolled."""
    found = _group(models, lambda each: each.growth)
    if not found:
        return
    page.heading("Gallery size")
    for name, series in found.items():
        page.heading(name, 3)
        first = next(iter(series.values()))
        sizes = sorted({n for growth in series.values() for n in growth.people})
        table = {
            model: dict(zip(growth.people, growth.points, strict=True))
            for model, growth in series.items()
        }
        said = "; ".join(_describe_growth(model, growth) for model, growth in series.items())
        page.plot(
            plot_growth(series),
            f"{name} against the number of people enrolled",
            f"{said}.",
            "Vertical lines are 95 % intervals; sizes that were not measured are not drawn.",
        )
        with page.details("The same as a table"):
            page.table(
                ["N", *(model or "figure" for model in table)],
                [
                    [n, *(format_estimate(points.get(n), first.unit) for points in table.values())]
                    for n in sizes
                ],
                f"{name}, with 95 % intervals",
            )


def add_slices(page: ReportPage, models: Models) -> None:
    """Add each figure by slice: a plot with intervals and its table with counts."""
    found: dict[tuple[str, str], dict[str, Slice]] = {}
    for model, evaluation in models.items():
        for part in evaluation.slices:
            found.setdefault((part.name, part.figure), {})[model] = part
    if not found:
        return
    page.heading("Slices")
    for (name, figure), series in found.items():
        page.heading(f"{figure} by {name}", 3)
        labels = list(dict.fromkeys(bar.name for part in series.values() for bar in part.bars))
        if not labels:
            page.paragraph("No part of this slice holds anything.")
            continue
        unit = next(iter(series.values())).unit
        bars = {model: {bar.name: bar for bar in part.bars} for model, part in series.items()}
        rows: dict[str, list[Bar | None]] = {
            model: [part.get(label) for label in labels] for model, part in bars.items()
        }
        page.plot(
            plot_estimates(labels, rows, figure, unit),
            f"{figure} by {name}",
            "; ".join(_describe_bars(model, part, unit) for model, part in rows.items()) + ".",
            "Horizontal lines are 95 % intervals; what is not supported has no mark.",
        )
        _add_slice_table(page, f"{figure} by {name}", labels, rows, unit)


def _add_slice_table(
    page: ReportPage,
    caption: str,
    labels: Sequence[str],
    rows: Mapping[str, Sequence[Bar | None]],
    unit: str,
) -> None:
    table: list[list[Any]]
    if len(rows) > 1:
        columns = ["slice", *rows]
        table = [
            [label, *(format_estimate(bars[i], unit) for bars in rows.values())]
            for i, label in enumerate(labels)
        ]
    else:
        columns = ["slice", "n", "value", "95 % interval", "note"]
        (bars,) = rows.values()
        table = [_list_bar(bar, unit) for bar in bars if bar is not None]
    page.table(columns, table, caption)


def _list_bar(bar: Bar, unit: str) -> list[Any]:
    value = format_value(bar.value, unit)
    return [bar.name, bar.count, value, format_interval(bar, unit), bar.reason]


def _group(
    models: Models, parts_of: Callable[[Evaluation], Sequence[_Part]]
) -> dict[str, dict[str, _Part]]:
    """Return name of a part -> model -> the part."""
    found: dict[str, dict[str, _Part]] = {}
    for model, evaluation in models.items():
        for part in parts_of(evaluation):
            found.setdefault(part.name, {})[model] = part
    return found


def _read_det(det: Det) -> list[float | None]:
    """Return the least y whose x does not exceed each target."""
    x, y = np.asarray(det.x, np.float64), np.asarray(det.y, np.float64)
    values: list[float | None] = []
    for target in _TARGETS:
        # A target below every point that can err would be read off the strictest one.
        reached = (x <= target) & (x > 0)
        values.append(float(y[reached].min()) if reached.any() else None)
    return values


def _say_det(model: str, det: Det, values: Sequence[float | None]) -> str:
    parts = [
        f"{det.y_label} {value:.4g} at {det.x_label} {target:g}"
        for target, value in zip(_TARGETS, values, strict=True)
        if value is not None
    ]
    label = f"{model}: " if model else ""
    return label + (", ".join(parts) or "no point at the usual targets")


def _describe_histogram(histogram: Histogram) -> str:
    edges = np.asarray(histogram.edges)
    middles = (edges[:-1] + edges[1:]) / 2
    kinds = {"mated": histogram.mated, "non-mated": histogram.non_mated}
    parts = [
        f"{sum(counts):,} {kind} scores are densest near {middles[int(np.argmax(counts))]:.2f}"
        if sum(counts)
        else f"there are no {kind} scores"
        for kind, counts in kinds.items()
    ]
    parts += [f"{name} lies at {value:.4g}" for name, value in histogram.thresholds.items()]
    return "; ".join(parts) + "."


def _describe_growth(model: str, growth: Growth) -> str:
    parts = [
        f"{format_value(point.value, growth.unit)} at N = {people:,}"
        for people, point in zip(growth.people, growth.points, strict=True)
        if point.value is not None
    ]
    return (f"{model}: " if model else "") + (", ".join(parts) or "no size was measured")


def _describe_bars(model: str, bars: Sequence[Bar | None], unit: str) -> str:
    parts = [f"{bar.name} {format_value(bar.value, unit)}" for bar in bars if bar is not None]
    return (f"{model}: " if model else "") + ", ".join(parts)
