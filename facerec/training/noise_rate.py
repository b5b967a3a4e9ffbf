"""The share of wrong labels, read off how alike rows and their own classes are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BINS = 400
_FEWEST_ROWS = 500
_STARTS = (0.1, 0.3, 0.5, 0.7)
_MAX_STEPS = 500
_LARGEST_RATE = 0.8
_LEAST_DISTANCE = 2.0
_DEEPEST_VALLEY = 0.8
_SIGNIFICANCE = 4.0

Array = NDArray[np.float64]


@dataclass(frozen=True)
class NoiseEstimate:
    """A noise rate and whether it can be relied on.

    Attributes:
        rate: share of wrong labels in [0, 0.8]; 0 where no second group of rows is found.
        confident: whether the values fall into two groups apart from each other. One group means
            clean labels or a net too young to tell: both are reasons to drop nothing.
        noisy_mean: mean of the lower group, NaN where there is none.
        clean_mean: mean of the other group, or of everything.
    """

    rate: float
    confident: bool
    noisy_mean: float
    clean_mean: float


@dataclass(frozen=True)
class _Fit:
    """Two normal components over bins, the lower first."""

    weights: Array
    means: Array
    spreads: Array
    likelihood: float


def estimate_noise_rate(values: NDArray[np.floating]) -> NoiseEstimate:
    """Return the share of rows that belong to the lower of two groups.

    Two normal components are fitted by expectation maximisation. They count as two groups when
    their means are two spreads apart (Ashman's D > 2) and the histogram has a valley between
    them that chance does not explain; a skewed single group has none.

    Best read off after a warm-up and before the net learns wrong labels by heart.

    Args:
        values: (n,), larger for cleaner rows: the plain cosine of each row with its own class, or
            minus its loss. NaN and infinity are left out.
    """
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    if len(finite) < _FEWEST_ROWS:
        return _nothing(finite)
    # A few wild values would stretch the bins.
    low, high = np.quantile(finite, (0.0005, 0.9995))
    if not high - low > 1e-9 * max(1.0, abs(low), abs(high)):
        return _nothing(finite)
    counts, edges = np.histogram(np.clip(finite, low, high), _BINS, (low, high))
    mids = (edges[1:] + edges[:-1]) / 2
    fits = [_fit(mids, counts.astype(np.float64), start) for start in _STARTS]
    best = max(fits, key=lambda fit: fit.likelihood)
    rate = float(best.weights[0])
    if not _is_apart(best, mids, counts.astype(np.float64)):
        return _nothing(finite)
    return NoiseEstimate(
        min(rate, _LARGEST_RATE), rate <= _LARGEST_RATE, float(best.means[0]), float(best.means[1])
    )


def _nothing(values: Array) -> NoiseEstimate:
    mean = float(values.mean()) if len(values) else math.nan
    return NoiseEstimate(0.0, False, math.nan, mean)


def _fit(mids: Array, counts: Array, start: float) -> _Fit:
    """Return two components, fitted from a first cut at quantile `start`."""
    width = mids[1] - mids[0]
    total = counts.sum()
    below = np.cumsum(counts) <= start * total
    shares = np.stack([below, ~below]).astype(np.float64)
    # A first cut that leaves one side empty still needs two components.
    shares = 0.98 * shares + 0.01
    likelihood = -math.inf
    for _ in range(_MAX_STEPS):
        mass = shares * counts
        sizes = mass.sum(axis=1)
        means = (mass @ mids) / sizes
        spread = np.sqrt((mass * (mids - means[:, None]) ** 2).sum(axis=1) / sizes)
        spread = np.maximum(spread, 2 * width)
        weights = sizes / total
        deviation = (mids - means[:, None]) / spread[:, None]
        densities = weights[:, None] * np.exp(-0.5 * deviation**2) / spread[:, None]
        both = np.maximum(densities.sum(axis=0), 1e-300)
        shares = densities / both
        before, likelihood = likelihood, float(counts @ np.log(both))
        if likelihood - before < 1e-9 * total:
            break
    order = np.argsort(means, kind="stable")
    return _Fit(weights[order], means[order], spread[order], likelihood)


def _is_apart(fit: _Fit, mids: Array, counts: Array) -> bool:
    """Return whether the components are two groups: far apart, with a real valley between."""
    distance = (fit.means[1] - fit.means[0]) / math.sqrt(float((fit.spreads**2).mean()))
    if distance <= _LEAST_DISTANCE:
        return False
    window = max(1, round(0.5 * float(fit.spreads.min()) / (mids[1] - mids[0])))
    near = np.convolve(counts, np.ones(window), mode="same")
    first, last = np.searchsorted(mids, fit.means)
    if last - first < 2:
        return False
    valley = first + int(near[first : last + 1].argmin())
    peak = min(near[: valley + 1].max(), near[valley:].max())
    bottom = near[valley]
    is_deep = bottom < _DEEPEST_VALLEY * peak
    return bool(is_deep and peak - bottom > _SIGNIFICANCE * math.sqrt(peak + bottom))
