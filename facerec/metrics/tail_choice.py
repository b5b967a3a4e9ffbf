"""Where the tail of a sample begins: the lowest cut from which the extreme-value law holds.

A low cut sees many scores and the law may not hold there yet; a high cut sees few. From the lowest
on, the first cut is taken whose fit agrees with the sample at every level above it: the gap between
the observed and the fitted rate, divided by the spread of that same gap over resamples of people
(each with its own fit), stays below 3. This follows the automated choices that test cuts in
turn (Bader, Yan & Zhang 2018), with a test that knows that scores share people. Above the level of
ten errors that spread is no measure (what should not be there would widen it): there the errors of
different people are held against the Poisson law of as many as the fit expects. It finds people
who are enrolled after all, or bear two names: where they were 1 % of 900 probes, it refused the
tail of 34 of 40 simulated samples, and of none without them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.metrics.exceedances import Exceedances, Floats, Labels, sum_groups
from facerec.metrics.tails import Tails, fit_tails

LEAST_ABOVE = 40
"""Scores of different people that a fit of two parameters and a level needs above its cut."""

MOST_MISFIT = 3.0
_GROUPS = 256
_LEVELS = 10
_STEP = 2**0.5
_FEW_ERRORS, _LEAST_ERRORS = 3, 10  # at the highest levels where the fit is held against the sample


@dataclass(frozen=True)
class SampleTail:
    """The tail of a sample and of its resamples.

    Attributes:
        point: the sample's own, r = 1.
        resampled: one a resample.
        share: of the sample, at or above the cut.
        above: scores at or above the cut that share no person.
        misfit: the greatest gap between sample and fit, in standard deviations.
    """

    point: Tails
    resampled: Tails
    share: float
    above: int
    misfit: float

    @property
    def fits(self) -> bool:
        """Return whether the law agrees with the sample above the cut."""
        return self.misfit <= MOST_MISFIT


def choose_tail(
    sample: Exceedances,
    times: NDArray[np.int64],
    lowest: float,
    highest: float,
    *,
    end: float = 1.0,
) -> SampleTail | None:
    """Return the tail from the lowest cut that fits, else the one that fits best.

    Args:
        sample: the greatest scores.
        times: int64 (r, s), multiplicities of people in resamples.
        lowest: the greatest share of the sample that may lie above a cut.
        highest: the least share.
        end: no score can be greater.

    Returns:
        None where no cut has 40 scores of different people above it, or they hardly differ.
    """
    shares = sample.cumulate()
    usable = int(np.count_nonzero((shares <= lowest) & np.isfinite(sample.scores)))
    if usable < LEAST_ABOVE or sample.scores[0] == sample.scores[usable - 1]:
        return None
    grid = _Grid.build(sample.head(usable), times)
    best: SampleTail | None = None
    wanted = float(shares[usable - 1])
    while wanted >= highest:
        groups = int(np.searchsorted(shares[grid.last], wanted * (1 + 1e-9), side="right"))
        cut = float(sample.scores[grid.last[groups - 1]]) if groups > 1 else np.inf
        above = sample.count_independent(cut)
        if groups < 2 or above < LEAST_ABOVE:
            break
        found = grid.fit(groups, cut, above, end)
        if found is not None and found.fits:
            return found
        if found is not None and (best is None or found.misfit < best.misfit):
            best = found
        wanted /= _STEP
    return best


@dataclass(frozen=True)
class _Grid:
    """Scores in narrow groups, falling, weighed for the sample (row 0) and its resamples."""

    values: Floats  # (g,) mean score of each group
    lows: Floats  # (g,) its lowest
    last: Labels  # (g,) place of its last score
    weights: Floats  # (1 + r, g)
    totals: Floats  # (1 + r,)
    independent: Labels  # (g,) scores that share no person, up to here
    counts: Floats  # (g,) the same, at most Kish's number of equal weights

    @classmethod
    def build(cls, sample: Exceedances, times: NDArray[np.int64]) -> _Grid:
        scores = sample.scores
        width = (scores[0] - scores[-1]) / _GROUPS
        number = np.minimum(((scores[0] - scores) / width).astype(np.int64), _GROUPS - 1)
        # Ties stay together: equal scores have equal numbers.
        starts = np.append(0, np.flatnonzero(np.diff(number)) + 1)
        last = np.append(starts[1:], scores.size) - 1
        rows = np.concatenate([np.ones((1, sample.people), np.int64), times])
        weights = sum_groups(sample, rows, starts)
        sums = np.add.reduceat(sample.weights * scores, starts)
        values = np.maximum(sums / weights[0], scores[last])
        independent = _count_rising(sample, last)
        kish = np.cumsum(sample.weights) ** 2 / np.cumsum(sample.weights**2)
        counts = np.minimum(kish[last], independent)
        return cls(values, scores[last], last, weights, sample.total(rows), independent, counts)

    def fit(self, groups: int, cut: float, above: int, end: float) -> SampleTail | None:
        """Return the tail of the first groups; None where no level is left to judge it by."""
        weights = self.weights[:, :groups]
        seen = np.cumsum(weights, axis=1) / self.totals[:, None]
        levels = self._levels(groups, seen[0])
        if not levels.size:
            return None
        below = np.maximum(self.totals - weights.sum(axis=1), 0.0)
        tails = fit_tails(self.values[:groups], weights, below, cut, end=end)
        column = Tails(cut, *(a[:, None] for a in (tails.level, tails.scale, tails.shape)))
        gaps = seen[:, levels] - column.rate(self.lows[levels][None])
        spread = np.maximum(gaps[1:].std(axis=0), 1e-300)
        point = _rows(tails, slice(0, 1))
        misfit = max(float(np.max(np.abs(gaps[0]) / spread)), self._excess(seen[0], point))
        return SampleTail(point, _rows(tails, slice(1, None)), float(seen[0, -1]), above, misfit)

    def _excess(self, seen: Floats, point: Tails) -> float:
        """Return by how much the very highest scores are too many, in standard deviations.

        The signed root of the Poisson deviance, upwards only, of as many errors as weigh alike and
        share no person.
        """
        counts = self.counts[: seen.size]
        top = (counts >= _FEW_ERRORS) & (self.independent[: seen.size] <= _LEAST_ERRORS)
        if not top.any():
            return 0.0
        expected = np.maximum(point.rate(self.lows[: seen.size][top]), 1e-300)
        ratio = np.maximum(seen[top] / expected, 1.0)
        deviance = 2 * counts[top] * (np.log(ratio) - 1 + 1 / ratio)
        return float(np.sqrt(deviance.max()))

    def _levels(self, groups: int, seen: Floats) -> Labels:
        """Return groups at which to hold the fit against the sample, even in their logarithms."""
        first = int(np.searchsorted(self.independent, _LEAST_ERRORS))
        if first >= groups - 1:
            return np.zeros(0, np.int64)
        wanted = np.geomspace(seen[first], seen[-1], _LEVELS + 1)[:-1]
        return np.unique(np.searchsorted(seen[: groups - 1], wanted * (1 - 1e-9)))


def _rows(tails: Tails, rows: slice) -> Tails:
    return Tails(tails.cut, tails.level[rows], tails.scale[rows], tails.shape[rows])


def _count_rising(sample: Exceedances, last: Labels) -> Labels:
    """Return how many scores share no person, up to each place in `last`, int64 (g,)."""
    fresh = np.zeros(sample.scores.size, np.int64)
    seen = np.zeros(sample.people, np.bool_)
    second: NDArray[Any] = sample.first if sample.second is None else sample.second
    for place, (a, b) in enumerate(zip(sample.first.tolist(), second.tolist(), strict=True)):
        if not seen[a] and not seen[b]:
            seen[a] = seen[b] = True
            fresh[place] = 1
    found: Labels = np.cumsum(fresh)[last]
    return found
