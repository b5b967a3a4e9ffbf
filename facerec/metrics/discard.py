"""Error versus discard: whether a quality measure knows which comparisons go wrong.

Comparisons are discarded from the lowest quality on, at a threshold that stays; a good measure
makes the error rate of the rest fall fast (error-discard characteristic of ISO/IEC 29794-1:2024;
Grother and Tabassi 2007). Comparisons of equal quality go together: what share is discarded is
a question of the quality's steps, and between two steps the curve is level, never a slope that
no threshold reaches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facerec.checks import InputError, check_range

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DiscardCurve:
    """Error rate of what is left, for each threshold on quality.

    Attributes:
        discarded: float64 (k,), share of comparisons discarded, rising from 0, below 1.
        errors: float64 (k,), error rate of the rest.
        qualities: float64 (k,), the lowest quality that is kept.
        comparisons: how many there were.
    """

    discarded: Floats
    errors: Floats
    qualities: Floats
    comparisons: int


@dataclass(frozen=True)
class DiscardArea:
    """Area under a curve from no discard to a greatest one.

    Attributes:
        limit: the greatest share discarded.
        area: of the curve, in error rate times share.
        ideal: of a quality that discards every error first.
        level: of one that knows nothing: the error rate stays.
    """

    limit: float
    area: float
    ideal: float
    level: float

    @property
    def relative(self) -> float | None:
        """Where the area lies from the ideal (0) to knowing nothing (1); None without errors."""
        span = self.level - self.ideal
        return (self.area - self.ideal) / span if span > 0 else None


def pair_quality(quality_a: ArrayLike, quality_b: ArrayLike) -> Floats:
    """Return the quality of comparisons: the lower of both sides', float64 (n,).

    Raises:
        InputError: lengths that differ.
    """
    first, second = (np.asarray(side, dtype=np.float64) for side in (quality_a, quality_b))
    if first.ndim != 1 or first.shape != second.shape:
        raise InputError(
            f"qualities must be two rows of equal length, got {first.shape} and {second.shape}"
        )
    return np.minimum(first, second)


def error_versus_discard(wrong: ArrayLike, quality: ArrayLike) -> DiscardCurve:
    """Return the error-discard characteristic.

    Args:
        wrong: (n,) boolean, n >= 1: for FNMR the mated scores below the threshold, failures
            included.
        quality: (n,) of each comparison (see `pair_quality`), larger is better; -inf for one
            without quality: it goes first.

    Raises:
        InputError: lengths that differ, no comparison, NaN.
    """
    errors, values = _check_discard(wrong, quality)
    starts, counts, failed = _group(errors, values, np.ones(values.size))
    return DiscardCurve(
        discarded=(counts[0] - counts) / counts[0],
        errors=failed / counts,
        qualities=starts,
        comparisons=values.size,
    )


def discard_area(curve: DiscardCurve, limit: float = 0.2) -> DiscardArea:
    """Return the area under a curve up to a share discarded (partial AUC).

    Args:
        curve: of `error_versus_discard`.
        limit: in (0, 1]; figures are usually quoted at 0.2.

    Raises:
        InputError: limit outside (0, 1].
    """
    _check_limit(limit)
    count = curve.comparisons
    wrong = round(float(curve.errors[0]) * count)
    # One discard after the other, each an error as long as there are any.
    left = np.arange(min(wrong, count - 1) + 1, dtype=np.float64)
    ideal = DiscardCurve(left / count, (wrong - left) / (count - left), left, count)
    return DiscardArea(
        limit=float(limit),
        area=float(_integrate(curve.discarded, curve.errors, limit)),
        ideal=float(_integrate(ideal.discarded, ideal.errors, limit)),
        level=float(curve.errors[0]) * float(limit),
    )


def build_area_statistic(
    wrong: ArrayLike, quality: ArrayLike, limit: float = 0.2
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Return weights -> area under the curve (one figure), for `bootstrap.bootstrap_subjects`.

    With all weights 1 it equals `discard_area(error_versus_discard(wrong, quality), limit).area`.

    Args:
        wrong: (n,) boolean.
        quality: (n,).
        limit: in (0, 1].
    """
    errors, values = _check_discard(wrong, quality)
    _check_limit(limit)

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        drawn = weights > 0
        if not drawn.any():
            return np.array([np.nan])
        _, counts, failed = _group(errors[drawn], values[drawn], weights[drawn])
        discarded = (counts[0] - counts) / counts[0]
        return np.array([_integrate(discarded, failed / counts, limit)])

    return statistic


def _check_discard(wrong: ArrayLike, quality: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    errors, values = np.asarray(wrong), np.asarray(quality, dtype=np.float64)
    if errors.ndim != 1 or errors.shape != values.shape or not errors.size:
        raise InputError(
            "wrong and quality must be rows of equal length with at least one comparison, "
            f"got {errors.shape} and {values.shape}"
        )
    if errors.dtype != np.bool_:
        raise InputError(f"wrong must be boolean, one decision a comparison, got {errors.dtype}")
    if np.isnan(values).any():
        place = int(np.flatnonzero(np.isnan(values))[0])
        raise InputError(
            f"quality must be a number or -inf (no quality), got NaN in comparison {place}"
        )
    return errors, values


def _check_limit(limit: float) -> None:
    check_range(limit, "limit", 0, 1)
    if not limit:
        raise InputError("limit must lie in (0, 1], got 0: nothing discarded has no area")


def _group(
    errors: NDArray[np.bool_], values: Floats, weights: NDArray[Any]
) -> tuple[Floats, Floats, Floats]:
    """Return distinct qualities, rising, and the weight and the errors at or above each."""
    starts, places = np.unique(values, return_inverse=True)
    counts: Floats = np.bincount(places, weights).astype(np.float64)
    failed: Floats = np.bincount(places, weights * errors, starts.size).astype(np.float64)
    return starts, np.cumsum(counts[::-1])[::-1], np.cumsum(failed[::-1])[::-1]


def _integrate(discarded: Floats, errors: Floats, limit: float) -> float:
    """Return the area of a staircase: each error rate holds until the next share discarded."""
    ends = np.append(discarded[1:], np.inf)
    widths = np.clip(ends, None, limit) - np.clip(discarded, None, limit)
    return float(widths @ errors)
