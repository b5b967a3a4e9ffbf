"""Plots of evaluations: series differ by line, marker and hatch, so greyscale shows them too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from eval.evaluation_curves import Det, Growth, Histogram
from eval.evaluation_estimates import SHARE, Estimate
from facerec.plots import build_line_plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches: on a phone the plot is as wide as the page and its text still as high as small print.
_WIDTH, _HEIGHT = 4.8, 3.7
_LONGEST_LABEL = 22
_LONGEST_NAME = 36
_Series = TypeVar("_Series")


def plot_det(series: Mapping[str, Det]) -> Figure:
    """Return error trade-offs on log axes, one line a model; rates of zero have no place there."""
    first = next(iter(series.values()))
    figure = build_line_plot(
        {name: (det.x, det.y) for name, det in _name_series(series).items()},
        first.x_label,
        first.y_label,
        x_scale="log",
        y_scale="log",
        markers=True,
    )
    for place, line in enumerate(figure.axes[0].lines):
        step = max(np.size(line.get_xdata()) // 8, 1)
        # Each series is marked at other points, so that lines on each other stay apart.
        line.set_markevery((place * step // max(len(series), 1), step))
    return _resize(figure)


def plot_histogram(histogram: Histogram) -> Figure:
    """Return the share of each kind's scores a bin, thresholds as vertical lines."""
    edges = np.asarray(histogram.edges)
    middles = (edges[:-1] + edges[1:]) / 2
    kinds = {"mated": histogram.mated, "non-mated": histogram.non_mated}
    shares = {
        f"{kind} ({sum(counts):,})": np.asarray(counts) / max(sum(counts), 1)
        for kind, counts in kinds.items()
    }
    figure = build_line_plot(
        {name: (middles, share) for name, share in shares.items()},
        "cosine",
        "share of the kind",
        markers=False,
        lines=histogram.thresholds,
    )
    axes = figure.axes[0]
    fills: tuple[dict[str, Any], ...] = ({"alpha": 0.3}, {"facecolor": "none", "hatch": "////"})
    for line, share, fill in zip(axes.lines, shares.values(), fills, strict=False):
        line.set_drawstyle("steps-mid")
        colour = {"facecolor": line.get_color(), "edgecolor": line.get_color()}
        axes.fill_between(middles, share, step="mid", linewidth=0, **{**colour, **fill})
    axes.set_ylim(bottom=0)
    return _resize(figure)


def plot_growth(series: Mapping[str, Growth]) -> Figure:
    """Return a figure against the number of people enrolled, with intervals, N on a log axis."""
    first = next(iter(series.values()))
    measured = {
        name: [
            (people, point)
            for people, point in zip(growth.people, growth.points, strict=True)
            if point.value is not None
        ]
        for name, growth in _name_series(series).items()
    }
    figure = build_line_plot(
        {
            name: ([n for n, _ in points], _values(point for _, point in points))
            for name, points in measured.items()
        },
        "people enrolled (N)",
        "figure",
        x_scale="log",
        markers=True,
    )
    axes = figure.axes[0]
    for line, points in zip(axes.lines, measured.values(), strict=False):
        for people, point in points:
            if point.low is not None and point.high is not None:
                axes.plot([people] * 2, [point.low, point.high], color=line.get_color(), lw=1)
    axes.set_ylabel("share" if first.unit == SHARE else first.unit)
    axes.set_ylim(bottom=0)
    _use_percent(axes, first.unit, "y")
    return _resize(figure)


def plot_estimates(
    labels: Sequence[str],
    series: Mapping[str, Sequence[Estimate | None]],
    label: str,
    unit: str,
) -> Figure:
    """Return a row a label with a mark and a whisker a model; what has no value has no mark.

    Args:
        labels: of the rows, first on top.
        series: model -> an estimate a row, None where the model has no such row.
        label: what is measured.
        unit: as `eval.evaluation_estimates.Headline.unit`.
    """
    count = max(len(series), 1)
    offsets = (np.arange(count) - (count - 1) / 2) * min(0.6 / count, 0.25)
    places = {}
    for (name, estimates), offset in zip(_name_series(series).items(), offsets, strict=True):
        shown = [(row + offset, each) for row, each in enumerate(estimates) if each is not None]
        places[name] = [(row, each) for row, each in shown if each.value is not None]
    figure = build_line_plot(
        {
            name: (_values(each for _, each in points), [row for row, _ in points])
            for name, points in places.items()
        },
        label,
        "",
        markers=True,
    )
    axes = figure.axes[0]
    for line, points in zip(list(axes.lines), places.values(), strict=False):
        line.set_linestyle("none")
        line.set_markersize(6)
        for row, each in points:
            if each.low is not None and each.high is not None:
                axes.plot([each.low, each.high], [row] * 2, color=line.get_color(), lw=1.6)
    axes.set_yticks(range(len(labels)), [_shorten(text) for text in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    _use_percent(axes, unit, "x")
    return _resize(figure, 1.1 + 0.32 * len(labels) * (1 + 0.35 * (count - 1)))


def _name_series(series: Mapping[str, _Series]) -> dict[str, _Series]:
    """Return the series under names that a legend has room for, none of them twice."""
    return {
        name
        if len(name) <= _LONGEST_NAME
        else f"{name[: _LONGEST_NAME - 5]}\N{HORIZONTAL ELLIPSIS} ({place})": part
        for place, (name, part) in enumerate(series.items(), start=1)
    }


def _values(estimates: Iterable[Estimate]) -> NDArray[np.float64]:
    return np.array([each.value for each in estimates], dtype=np.float64)


def _use_percent(axes: Axes, unit: str, which: str) -> None:
    if unit == SHARE:
        from matplotlib.ticker import PercentFormatter

        axis = axes.xaxis if which == "x" else axes.yaxis
        axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))


def _shorten(text: str) -> str:
    kept = (
        text
        if len(text) <= _LONGEST_LABEL
        else text[: _LONGEST_LABEL - 1] + "\N{HORIZONTAL ELLIPSIS}"
    )
    # A dollar sign would start matplotlib's formula mode.
    return kept.replace("$", r"\$")


def _resize(figure: Figure, height: float = _HEIGHT) -> Figure:
    figure.set_size_inches(_WIDTH, height)
    return figure
