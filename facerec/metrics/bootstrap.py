"""Intervals that know that comparisons share people: the subject bootstrap.

Pairs share people and pictures, so an interval that treats them as independent is too narrow.
People are drawn with replacement; a non-mated comparison weighs the product of its two people's
multiplicities, a mated one its person's (a copy of a person is no stranger to the other copy).
An interval is the resamples' percentiles, or those moved for bias and skewness (BCa), which a rate
of few errors has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facerec.checks import InputError, check_range
from facerec.metrics.verification import check_scores

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Interval:
    """An interval from resamples.

    Attributes:
        low: lower end.
        high: upper end.
        confidence: the share of resamples between them.
        resamples: how many were drawn.
    """

    low: float
    high: float
    confidence: float
    resamples: int


def bootstrap_subjects(
    statistic: Statistic,
    people_a: Sequence[str] | NDArray[Any],
    people_b: Sequence[str] | NDArray[Any],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[Interval]:
    """Return a percentile interval for each figure that `statistic` returns.

    Args:
        statistic: weights (n,) of the comparisons -> figures (f,); NaN where a resample has none.
        people_a: (n,) person of each comparison's first side.
        people_b: (n,) person of the second side.
        resamples: how many to draw.
        confidence: share of resamples inside the interval.
        seed: of the draws.

    Returns:
        f intervals; NaN ends where every resample was NaN.
    """
    check_range(confidence, "confidence", 0.5, 0.9999)
    check_range(resamples, "resamples", 2, 1e7)
    names, codes = np.unique(
        np.concatenate([np.asarray(people_a), np.asarray(people_b)]), return_inverse=True
    )
    half = codes.size // 2
    if len(people_a) != len(people_b) or not half:
        raise InputError(
            f"people must be two rows of equal length, got {len(people_a)} and {len(people_b)}"
        )
    first, second = codes[:half], codes[half:]
    one_person = first == second
    rng = np.random.default_rng(seed)
    figures = []
    for _ in range(resamples):
        times = np.bincount(rng.integers(names.size, size=names.size), minlength=names.size)
        weights = times[first] * np.where(one_person, 1, times[second])
        figures.append(statistic(weights.astype(np.float64)))
    table = np.asarray(figures, dtype=np.float64)
    return [percentile_interval(column, confidence) for column in table.T]


def percentile_interval(resampled: ArrayLike, confidence: float = 0.95) -> Interval:
    """Return the interval that leaves out equal shares of the resampled figures at both ends.

    Args:
        resampled: (r,), figures of resamples; those that are not finite are left out.
        confidence: share of resamples inside the interval.

    Returns:
        NaN ends where no figure is finite.
    """
    check_range(confidence, "confidence", 0.5, 0.9999)
    figures = np.asarray(resampled, dtype=np.float64)
    made = figures[np.isfinite(figures)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(made, [tail, 1 - tail]) if made.size else (np.nan, np.nan)
    return Interval(float(low), float(high), confidence, figures.size)


def bca_interval(
    resampled: ArrayLike, estimate: float, influence: ArrayLike, confidence: float = 0.95
) -> Interval:
    """Return the bias-corrected and accelerated interval (Efron 1987, section 4).

    Args:
        resampled: (r,), finite figures of resamples.
        estimate: the figure of the sample itself.
        influence: (s,), what each person moves the figure, to scale; their skewness is the
            acceleration.
        confidence: nominal coverage.
    """
    check_range(confidence, "confidence", 0.5, 0.9999)
    figures = np.asarray(resampled, dtype=np.float64)
    moved = np.asarray(influence, dtype=np.float64)
    spread = float((moved**2).sum())
    if not spread or figures.min() == figures.max():
        return percentile_interval(figures, confidence)
    normal = NormalDist()
    lower = np.count_nonzero(figures < estimate) + np.count_nonzero(figures == estimate) / 2
    share = float(np.clip(lower / figures.size, 1 / figures.size, 1 - 1 / figures.size))
    bias, acceleration = normal.inv_cdf(share), float((moved**3).sum()) / (6 * spread**1.5)
    ends = []
    for quantile in ((1 - confidence) / 2, (1 + confidence) / 2):
        z = bias + normal.inv_cdf(quantile)
        # A long influence can turn the map round: it is held where it still rises.
        turned = max(1 - acceleration * z, 0.1)
        ends.append(normal.cdf(bias + z / turned))
    low, high = np.quantile(figures, ends)
    return Interval(float(low), float(high), confidence, figures.size)


def build_tar_statistic(scores: ArrayLike, same: ArrayLike, fars: Sequence[float]) -> Statistic:
    """Return weights -> TAR at each target FAR, the threshold chosen anew for the weights.

    With all weights 1 it equals `verification.tar_at_far`.
    """
    values, labels = check_scores(scores, same)
    order = np.argsort(-values, kind="stable")
    falling, mated = values[order], labels[order]
    last = np.append(np.flatnonzero(falling[1:] != falling[:-1]), falling.size - 1)
    if falling[-1] == -np.inf:
        # Failures weigh in the denominators, but no threshold accepts them.
        last = last[:-1]

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        ordered = weights[order]
        right = np.cumsum(np.where(mated, ordered, 0))
        wrong = np.cumsum(np.where(mated, 0, ordered))
        if not right[-1] or not wrong[-1]:
            return np.full(len(fars), np.nan)
        share = wrong[last] / wrong[-1]
        taken = np.searchsorted(share, np.asarray(fars), side="right")
        accepted = np.concatenate([[0.0], right[last]])[taken]
        tars: NDArray[np.float64] = accepted / right[-1]
        return tars

    return statistic


def build_share_statistic(right: ArrayLike) -> Statistic:
    """Return weights -> weighted share of right decisions (one figure): accuracy.

    Args:
        right: (n,) boolean.
    """
    decisions = np.asarray(right, dtype=np.float64)

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        total = weights.sum()
        return np.array([weights @ decisions / total if total else np.nan])

    return statistic
