"""A threshold from a set's own scores: what strangers score is known in plenty, so count them.

The scores of rows against their own centre are a mixture, f = f0 + f1: outliers and right rows.
Strangers are at hand: every picture against the centres of OTHER identities. But the wrong person
in a folder is rarely just anybody (same sex, same film), so three densities of strangers are
measured: all other identities, the nearer half, the nearest quarter. Their shares are fitted where
hardly a right row lies, below the median of the middle one, by maximum likelihood (the tail count
of Storey 2002 with a shape); f1 is what f leaves over. The cut is where wrong drops plus missed
outliers are expected to be fewest: where both densities are equal (Efron 2008, local rate 1/2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import isotonic_regression

from data_tools.centres import Array
from facerec.checks import InputError

BINS = 400
EDGES = np.linspace(-1.0, 1.0, BINS + 1)
MIDS = (EDGES[1:] + EDGES[:-1]) / 2
NEAR_SHARES = (1.0, 0.5, 0.25)
"""Of the other identities, by likeness to the row's own: whose scores stand for strangers."""

_STEPS = 500

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Threshold:
    """Where rows are cut, and what that is expected to cost.

    Attributes:
        value: cosine; rows below it are flagged.
        found: True when found from the set's own scores, False when given.
        noise: estimated share of outliers among the judged rows, in [0, 1]; None when not fitted.
        wrong_drops: expected share of the judged rows that are right and fall below; likewise.
        missed: expected share of the judged rows that are wrong and stay above; likewise.
        own: int64 (400,), histogram over [-1, 1] of the judged rows' scores.
        strangers: int64 (3, 400), the same of core rows against other identities, one row a
            value of NEAR_SHARES.
        right: float64 (400,), the share of the judged rows that is right and scores so.
        wrong: float64 (400,), the share of the judged rows that is wrong and scores so.
    """

    value: float
    found: bool
    noise: float | None
    wrong_drops: float | None
    missed: float | None
    own: Counts
    strangers: Counts
    right: Array
    wrong: Array


def count_scores(scores: Array) -> Counts:
    """Return the histogram of cosines over [-1, 1], int64 (400,)."""
    return np.bincount(bin_scores(scores), minlength=BINS).astype(np.int64)


def bin_scores(scores: Array) -> Counts:
    """Return the number of each cosine's bin, int64, any shape."""
    bins = ((np.clip(scores, -1, 1) + 1) * (BINS / 2)).astype(np.int64)
    return np.minimum(bins, BINS - 1)


def find_threshold(own: Counts, strangers: Counts) -> Threshold:
    """Return the cut with the fewest expected errors.

    Args:
        own: int64 (400,), of the judged rows against their own centres.
        strangers: int64 (3, 400), of right rows against others' centres.

    Raises:
        InputError: no stranger's score, as with a single identity.
    """
    if not strangers.sum(axis=1).all():
        raise InputError(
            "a threshold can only be found with pictures of at least two identities; "
            "give one with --threshold"
        )
    n = int(own.sum())
    right, wrong = split_scores(own, strangers)
    if not n:
        return Threshold(-1.0, True, 0.0, 0.0, 0.0, own, strangers, right, wrong)
    # At the lower edge of bin i: outliers from i on are missed, right rows before i are lost.
    missed = np.append(np.cumsum(wrong[::-1])[::-1], 0.0)
    lost = np.append(0.0, np.cumsum(right))
    errors = missed + lost
    best = np.flatnonzero(errors <= errors.min() + 1e-6)
    at = int(best[len(best) // 2])
    # What is below, without the right rows there, with the wrong ones above: steadier than the
    # sum of the shares, whose densities overlap.
    noise = float(np.clip(own[:at].sum() / n - lost[at] + missed[at], 0.0, 1.0))
    costs = noise, float(lost[at]), float(missed[at])
    return Threshold(float(EDGES[at]), True, *costs, own, strangers, right, wrong)


def keep_threshold(value: float, own: Counts, strangers: Counts) -> Threshold:
    """Return a threshold that the user gave, with the histograms it cuts."""
    densities = split_scores(own, strangers)
    return Threshold(value, False, None, None, None, own, strangers, *densities)


def split_scores(own: Counts, strangers: Counts) -> tuple[Array, Array]:
    """Return the densities of right and of wrong rows over the bins, float64 (400,) each.

    Together they sum to about 1; both are 0 where there is no score to split or to split it by.
    """
    n = int(own.sum())
    if not n or not strangers.sum(axis=1).all():
        return np.zeros(BINS), np.zeros(BINS)
    widths = _bandwidths(strangers, n)
    shapes = np.stack(
        [
            gaussian_filter1d(row / row.sum(), width, mode="nearest")
            for row, width in zip(strangers, widths, strict=True)
        ]
    )
    clear = int(np.searchsorted(np.cumsum(shapes[1]), 0.5))
    shares = _fit_shares(own[:clear] / n, shapes[:, :clear])
    wrong = shares @ shapes
    everyone = gaussian_filter1d(own / n, widths[0], mode="nearest")
    right = _rise(np.maximum(everyone - wrong, 0.0), clear)
    return right, wrong


def _bandwidths(strangers: Counts, n: int) -> Array:
    """Return the smoothing widths in bins, float64 (3,): Silverman's rule for n scores."""
    weights = strangers / strangers.sum(axis=1, keepdims=True)
    means = weights @ MIDS
    spreads = np.sqrt(np.maximum(weights @ MIDS**2 - means**2, 0.0))
    widths: Array = np.maximum(1.06 * spreads * n**-0.2 / (EDGES[1] - EDGES[0]), 1.0)
    return widths


def _rise(right: Array, clear: int) -> Array:
    """Return the right rows' density, nothing in the clear region, rising from there to its mode.

    Outliers that the shares did not account for make a hill before the mode; levelled over the
    valley behind it, it no longer passes for right rows.
    """
    risen: Array = right.copy()
    risen[:clear] = 0.0
    mode = clear + int(np.argmax(risen[clear:]))
    risen[clear:mode] = isotonic_regression(risen[clear:mode]).x
    return risen


def _fit_shares(own: Array, shapes: Array) -> Array:
    """Return how much of each density explains the clear region, float64 (3,), sum at most 1.

    Maximum likelihood of Poisson counts by expectation maximisation (Richardson-Lucy): what
    multiplies a density converges to its share of ALL rows, seen through the region only.
    """
    reach = shapes.sum(axis=1)
    total = own.sum()
    if total <= 0 or not (reach > 0).all():
        return np.zeros(len(shapes))
    shares = np.full(len(shapes), total / reach.sum())
    for _ in range(_STEPS):
        expected = np.maximum(shares @ shapes, 1e-300)
        shares = shares * (shapes @ (own / expected)) / reach
    return shares / max(1.0, float(shares.sum()))
