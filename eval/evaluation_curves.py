"""Curves of an evaluation: error trade-offs, histograms of scores, FNIR against gallery size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.evaluation_estimates import SHARE, Estimate
from facerec.checks import InputError

DET_POINTS = 200
HISTOGRAM_BINS = 80


@dataclass(frozen=True)
class Det:
    """An error trade-off: both rates fall towards the better.

    Attributes:
        name: such as "1:1, documents against tracks".
        x_label: the false alarms' rate: "FMR" or "FPIR, N = 1,000".
        y_label: the misses' rate: "FNMR" or "FNIR".
        x: (p,) in [0, 1].
        y: (p,) in [0, 1].
    """

    name: str
    x_label: str
    y_label: str
    x: tuple[float, ...]
    y: tuple[float, ...]

    def __post_init__(self) -> None:
        x, y = np.asarray(self.x, np.float64), np.asarray(self.y, np.float64)
        if x.shape != y.shape or x.ndim != 1:
            raise InputError(f"DET {self.name!r} needs equal rows, got {x.shape} and {y.shape}")
        # NaN compares false with everything, so it is found here too.
        if not all(((row >= 0) & (row <= 1)).all() for row in (x, y)):
            raise InputError(f"DET {self.name!r} must hold rates in [0, 1]")


@dataclass(frozen=True)
class Histogram:
    """How often each score was seen; failures have no score and are not in it.

    Attributes:
        name: of what.
        edges: (b + 1,), rising.
        mated: (b,), counts.
        non_mated: (b,), counts.
        thresholds: what it is for -> score.
    """

    name: str
    edges: tuple[float, ...]
    mated: tuple[int, ...]
    non_mated: tuple[int, ...]
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.edges) - 1 == len(self.mated) == len(self.non_mated) or not self.mated:
            raise InputError(
                f"histogram {self.name!r} needs b + 1 edges and b counts of each kind, got "
                f"{len(self.edges)}, {len(self.mated)} and {len(self.non_mated)}"
            )
        edges = np.asarray([*self.edges, *self.thresholds.values()], np.float64)
        if not np.isfinite(edges).all() or not (np.diff(self.edges) > 0).all():
            raise InputError(f"histogram {self.name!r} needs finite, rising edges")
        if min(*self.mated, *self.non_mated) < 0:
            raise InputError(f"histogram {self.name!r} must hold counts of at least 0")


@dataclass(frozen=True)
class Growth:
    """A figure against N, the number of people enrolled.

    Attributes:
        name: such as "FNIR at FPIR 1 %, exact search".
        people: (k,), N, rising.
        points: (k,), the figure at each N; without a value where it was not measured.
        unit: as `eval.evaluation_estimates.Headline.unit`.
    """

    name: str
    people: tuple[int, ...]
    points: tuple[Estimate, ...]
    unit: str = SHARE

    def __post_init__(self) -> None:
        if len(self.people) != len(self.points):
            raise InputError(
                f"growth {self.name!r} needs a figure a gallery size, got {len(self.people)} "
                f"sizes and {len(self.points)} figures"
            )
        if any(n < 1 for n in self.people) or not (np.diff(self.people) > 0).all():
            raise InputError(f"growth {self.name!r} needs rising sizes of at least 1")


def build_det(name: str, x_label: str, y_label: str, x: ArrayLike, y: ArrayLike) -> Det:
    """Return a trade-off of about 200 points, x evenly spaced on a log scale, the ends kept.

    Args:
        name: see `Det`.
        x_label: see `Det`.
        y_label: see `Det`.
        x: (p,), rising.
        y: (p,), falling; of the points of one x the lowest is kept.
    """
    across, up = np.asarray(x, np.float64), np.asarray(y, np.float64)
    positive = across[across > 0]
    if across.size > DET_POINTS and across.shape == up.shape and positive.size:
        wanted = np.concatenate(
            [[0.0], np.geomspace(positive.min(), across.max(), DET_POINTS), [across.max()]]
        )
        kept = np.unique(np.searchsorted(across, wanted, side="right") - 1)
        kept = kept[kept >= 0]
        across, up = across[kept], up[kept]
    return Det(name, x_label, y_label, tuple(across.tolist()), tuple(up.tolist()))


def build_histogram(
    name: str,
    mated: ArrayLike,
    non_mated: ArrayLike,
    thresholds: Mapping[str, float] | None = None,
) -> Histogram:
    """Return a histogram of 80 equal bins over the scores seen; infinite ones are left out."""
    groups = [_finite(scores) for scores in (mated, non_mated)]
    every = np.concatenate(groups)
    if not every.size:
        raise InputError(f"histogram {name!r} needs at least one finite score")
    low, high = float(every.min()), float(every.max())
    edges = np.linspace(low, high if high > low else low + 1e-3, HISTOGRAM_BINS + 1)
    counts: Sequence[NDArray[np.int64]] = [np.histogram(group, edges)[0] for group in groups]
    return Histogram(
        name,
        tuple(edges.tolist()),
        tuple(counts[0].tolist()),
        tuple(counts[1].tolist()),
        dict(thresholds or {}),
    )


def _finite(scores: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(scores, np.float64).ravel()
    return values[np.isfinite(values)]
