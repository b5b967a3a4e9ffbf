"""Line plots, histograms and bars, as matplotlib figures for `Page.figure`.

Only matplotlib's objects are used (no pyplot, no global state). Series differ by line style,
marker and hatch as well as by colour, so that the plots can be read in greyscale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facerec.checks import InputError, check_one_of, require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, in an order whose brightness differs from one to the next.
_COLOURS = ("#0072b2", "#d55e00", "#000000", "#009e73", "#cc79a7", "#e69f00")
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)))
_MARKERS = ("o", "s", "^", "D", "v", "x")
_HATCHES = ("", "///", "...", "xx", "\\\\\\", "++")
_SCALES = ("linear", "log")


def build_line_plot(
    series: Mapping[str, tuple[ArrayLike, ArrayLike]],
    x_label: str,
    y_label: str,
    *,
    x_scale: str = "linear",
    y_scale: str = "linear",
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    lines: Mapping[str, float] | None = None,
    markers: bool | None = None,
) -> Figure:
    """Return a plot of one line a series.

    Args:
        series: name -> (x, y) of equal length; a log axis leaves out what is not positive.
        x_label: what x is, with its unit.
        y_label: what y is, with its unit.
        x_scale: `linear` or `log`.
        y_scale: `linear` or `log`.
        x_range: the axis limits, chosen from the data when None.
        y_range: the same for y.
        lines: name -> x of a vertical line (a threshold).
        markers: mark the points; by default where a series has at most 40.
    """
    check_one_of(x_scale, "x_scale", _SCALES)
    check_one_of(y_scale, "y_scale", _SCALES)
    figure, axes = _build_axes(x_label, y_label)
    drawn: dict[str, Any] = {}
    some = False
    for i, (name, (x, y)) in enumerate(series.items()):
        xs, ys = _take_drawable(name, x, y, x_scale, y_scale)
        some = some or bool(xs.size)
        marked = len(xs) <= 40 if markers is None else markers
        (drawn[name],) = axes.plot(
            xs,
            ys,
            color=_COLOURS[i % len(_COLOURS)],
            linestyle=_LINES[i % len(_LINES)],
            marker=_MARKERS[i % len(_MARKERS)] if marked else None,
            markersize=4,
            linewidth=1.6,
        )
    if some:
        axes.set_xscale(x_scale)
        axes.set_yscale(y_scale)
    else:
        axes.text(0.5, 0.5, "nothing to draw", ha="center", transform=axes.transAxes)
    if x_range is not None:
        axes.set_xlim(*x_range)
    if y_range is not None:
        axes.set_ylim(*y_range)
    drawn.update(_add_lines(axes, lines))
    _add_legend(axes, drawn, least=2)
    return figure


def build_histogram(
    groups: Mapping[str, ArrayLike],
    x_label: str,
    y_label: str = "share of the group",
    *,
    bins: int = 60,
    lines: Mapping[str, float] | None = None,
) -> Figure:
    """Return overlaid histograms, each group scaled to a sum of one.

    Args:
        groups: name -> values (infinite and NaN ones are left out).
        x_label: what the values are.
        y_label: what the height is.
        bins: number of equal bins over all groups.
        lines: name -> value of a vertical line (a threshold).
    """
    figure, axes = _build_axes(x_label, y_label)
    values = {name: np.asarray(v, dtype=np.float64).ravel() for name, v in groups.items()}
    values = {name: v[np.isfinite(v)] for name, v in values.items()}
    filled = [v for v in values.values() if v.size]
    low = min((float(v.min()) for v in filled), default=0.0)
    high = max((float(v.max()) for v in filled), default=1.0)
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    drawn: dict[str, Any] = {}
    for i, (name, v) in enumerate(values.items()):
        counts = np.histogram(v, edges)[0] / max(v.size, 1)
        drawn[f"{name} ({v.size:,})"] = axes.stairs(
            counts,
            edges,
            fill=True,
            facecolor=_COLOURS[i % len(_COLOURS)],
            edgecolor="black",
            alpha=0.55,
            hatch=_HATCHES[i % len(_HATCHES)],
        )
    drawn.update(_add_lines(axes, lines))
    _add_legend(axes, drawn, least=1)
    return figure


def build_bars(
    labels: Sequence[str],
    values: ArrayLike,
    x_label: str,
    *,
    intervals: Sequence[tuple[float, float]] | None = None,
) -> Figure:
    """Return horizontal bars, first label on top, the value written at each.

    Args:
        labels: one a bar.
        values: their lengths.
        x_label: what the length is, with its unit.
        intervals: (low, high) of each value, drawn as a whisker.
    """
    heights = np.asarray(values, dtype=np.float64)
    if heights.shape != (len(labels),):
        raise InputError(f"{len(labels)} bars need as many values, got {heights.shape}")
    figure, axes = _build_axes(x_label, "", height=1.2 + 0.36 * max(len(labels), 1))
    places = np.arange(len(labels))
    axes.barh(places, heights, color=_COLOURS[0], edgecolor="black", height=0.7)
    if intervals is not None:
        low, high = np.asarray(intervals, dtype=np.float64).T
        whiskers = np.abs(np.stack([heights - low, high - heights]))
        axes.errorbar(heights, places, xerr=whiskers, fmt="none", ecolor="black", capsize=3)
    for place, value in zip(places, heights, strict=True):
        axes.annotate(
            f"{value:.4g}",
            (float(value), float(place)),
            xytext=(5, 5 if intervals is not None else 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.set_yticks(places, [_plain(label) for label in labels])
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.grid(visible=False, axis="y")
    return figure


def _take_drawable(
    name: str, x: ArrayLike, y: ArrayLike, x_scale: str, y_scale: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the points that both axes can show: a log axis has no place for 0 or less."""
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if xs.shape != ys.shape or xs.ndim != 1:
        raise InputError(f"series {name!r} must be two equal rows, got {xs.shape}, {ys.shape}")
    shown = np.ones(len(xs), np.bool_)
    if x_scale == "log":
        shown &= xs > 0
    if y_scale == "log":
        shown &= ys > 0
    return xs[shown], ys[shown]


def _plain(text: str) -> str:
    # A dollar sign would start matplotlib's formula mode, and a lone one makes it fail.
    return text.replace("$", r"\$")


def _build_axes(x_label: str, y_label: str, height: float = 3.9) -> tuple[Figure, Axes]:
    require("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.6, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(_plain(x_label))
    axes.set_ylabel(_plain(y_label))
    axes.grid(visible=True, color="#d0d0d0", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _add_lines(axes: Axes, lines: Mapping[str, float] | None) -> dict[str, Any]:
    return {
        name: axes.axvline(x, color="black", linewidth=1.2, linestyle=_LINES[(i + 1) % len(_LINES)])
        for i, (name, x) in enumerate((lines or {}).items())
    }


def _add_legend(axes: Axes, artists: Mapping[str, Any], least: int) -> None:
    # Named here and not as `label`, which hides names that start with an underscore.
    if len(artists) >= least:
        axes.legend(list(artists.values()), [_plain(name) for name in artists], fontsize=9)
