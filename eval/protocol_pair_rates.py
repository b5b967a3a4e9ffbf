"""TAR at a FAR, with intervals over people, from the scores that decide it.

All mated scores and the greatest non-mated ones are enough for every TAR and for its interval; the
others need only be counted, for each pair of people. So 15 million pairs of IJB-C and billions of
pairs of videos have the same figures as a short list. The threshold is the lowest observed score
whose FAR does not exceed the target, chosen anew in every resample; a non-mated comparison weighs
the product of its two people's multiplicities, a mated one its person's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.protocol_results import Rate, iter_draws, keep_interval, rate_of_point, widen_certain
from facerec.metrics.bootstrap import Interval, percentile_interval
from facerec.metrics.verification import count_allowed, points_from_top

# So many non-mated scores are kept whatever the target; a lax one keeps twice what it allows.
LEAST_DEPTH = 2_000_000
_SLACK = 1_000_000

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class PairSample:
    """The scores of many comparisons that decide a TAR.

    Attributes:
        mated: floating (m,), all of them; -inf is a failure.
        mated_people: int64 (m,), whose they are, in [0, people); None where people are not known.
        top: floating (k,), the greatest non-mated scores, falling; of the mated ones' type.
        first: int64 (k,), the one person; None where people are not known.
        second: int64 (k,), the other; None where only one side's people are drawn.
        non_mated: non-mated comparisons in all, failures included.
        complete: whether every non-mated score that is not a failure is in `top`.
        people: how many; 0 where they are not known.
        weigh: multiplicities float64 (people,) -> weight of all non-mated comparisons.
    """

    mated: NDArray[Any]
    mated_people: Labels | None
    top: NDArray[Any]
    first: Labels | None
    second: Labels | None
    non_mated: int
    complete: bool
    people: int = 0
    weigh: Callable[[Floats], float] | None = None

    def rates(self, fars: Sequence[float], *, resamples: int = 1000, seed: int = 0) -> list[Rate]:
        """Return TAR at each target FAR, in the order given.

        Args:
            fars: targets in (0, 1], no greater than `choose_depth` was asked for.
            resamples: of people, for 95 % intervals; 0 for none.
            seed: of the resamples.
        """
        top = self.top
        needed = 1 + max((count_allowed(far, self.non_mated) for far in fars), default=0)
        if self.complete and top.size < needed:
            top = np.append(top, np.full(needed - top.size, -np.inf, top.dtype))
        points = points_from_top(self.mated, top, self.non_mated, fars)
        intervals = self._intervals(fars, resamples, seed)
        rates = [
            rate_of_point("tar", point, interval)
            for point, interval in zip(points, intervals, strict=True)
        ]
        whose = self.mated_people
        return rates if whose is None else [widen_certain(rate, whose) for rate in rates]

    def _intervals(self, fars: Sequence[float], resamples: int, seed: int) -> list[Interval | None]:
        whose, first, second, weigh = self.mated_people, self.first, self.second, self.weigh
        if not resamples or whose is None or first is None or weigh is None:
            return [None] * len(fars)
        order = np.argsort(-self.mated, kind="stable")
        mated, whose = self.mated[order], whose[order]
        last = np.flatnonzero(np.append(self.top[1:] != self.top[:-1], True)[: self.top.size])
        # Beyond the kept ones nothing is known; where all are kept only failures are beyond.
        barriers = self.top[last].astype(np.float64)
        barriers = np.append(barriers, -np.inf if self.complete else np.nan)
        table = np.full((resamples, len(fars)), np.nan)
        for row, times in enumerate(iter_draws(self.people, resamples, seed)):
            total = weigh(times)
            right = np.concatenate([[0.0], np.cumsum(times[whose])])
            if not total or not right[-1]:
                continue
            weights = times[first] if second is None else times[first] * times[second]
            shares = np.cumsum(weights)[last] / total
            barrier = barriers[np.searchsorted(shares, np.asarray(fars), side="right")]
            known = ~np.isnan(barrier)
            accepted = np.searchsorted(-mated, -barrier[known], side="left")
            table[row, known] = right[accepted] / right[-1]
        return [keep_interval(percentile_interval(column)) for column in table.T]


def choose_depth(fars: Sequence[float], non_mated: int) -> int:
    """Return how many of the greatest non-mated scores to keep.

    Twice what the laxest target allows, since a resample may weigh them half; at least 2 million.
    """
    allowed = max((count_allowed(far, non_mated) for far in fars), default=0)
    return min(max(2 * allowed + 1, LEAST_DEPTH), non_mated)


class TopScores:
    """Keeps the greatest scores of a stream and whose they are; ties at the cut all stay.

    Args:
        depth: how many to keep.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._floor = np.float32(-np.inf)
        self._scores: list[NDArray[np.float32]] = []
        self._people: list[Labels] = []
        self._held = 0

    def add(self, scores: NDArray[np.float32], people: Labels) -> None:
        """Take a block of scores (b, n), its rows of the people (b,)."""
        rows, columns = np.nonzero(scores >= self._floor)
        self._scores.append(scores[rows, columns])
        self._people.append(people[rows])
        self._held += rows.size
        if self._held > self._depth + _SLACK:
            self._cut()

    @property
    def complete(self) -> bool:
        """Return whether nothing was cut off."""
        return bool(self._floor == -np.inf)

    def sort(self) -> tuple[NDArray[np.float32], Labels]:
        """Return what is kept, falling."""
        scores, people = self._cut()
        order = np.argsort(-scores, kind="stable")
        return scores[order], people[order]

    def _cut(self) -> tuple[NDArray[np.float32], Labels]:
        scores = np.concatenate([np.zeros(0, np.float32), *self._scores])
        people = np.concatenate([np.zeros(0, np.int64), *self._people])
        if scores.size > self._depth:
            place = scores.size - self._depth
            self._floor = np.partition(scores, place)[place]
            kept = scores >= self._floor
            scores, people = scores[kept], people[kept]
        self._scores, self._people, self._held = [scores], [people], scores.size
        return scores, people


def sample_list(
    scores: NDArray[Any],
    same: NDArray[np.bool_],
    people: tuple[Labels, Labels] | None,
    fars: Sequence[float],
) -> PairSample:
    """Return the sample of a list of comparisons.

    Args:
        scores: floating (n,); -inf is a failure.
        same: bool (n,).
        people: int64 (n,) twice, whose the two sides are, from 0; None where they are not known.
        fars: targets that will be asked for.
    """
    wrong = np.flatnonzero(~same)
    depth = choose_depth(fars, wrong.size)
    values = scores[wrong]
    if depth < wrong.size:
        # Ties at the cut must not be cut: all that reach the least one stay.
        least = np.partition(values, wrong.size - depth)[wrong.size - depth]
        wrong = wrong[values >= least]
    wrong = wrong[np.argsort(-scores[wrong], kind="stable")]
    non_mated = int(np.count_nonzero(~same))
    complete = wrong.size == non_mated
    if people is None:
        return PairSample(scores[same], None, scores[wrong], None, None, non_mated, complete)
    first, second = people
    count = int(max(first.max(initial=-1), second.max(initial=-1))) + 1
    return PairSample(
        scores[same],
        first[same],
        scores[wrong],
        first[wrong],
        second[wrong],
        non_mated,
        complete,
        count,
        _count_pairs(first[~same], second[~same], count),
    )


def _count_pairs(first: Labels, second: Labels, people: int) -> Callable[[Floats], float]:
    """Return what weighs all comparisons: a sum over the distinct pairs of people."""
    low, high = np.minimum(first, second), np.maximum(first, second)
    pairs, counts = np.unique(low * people + high, return_counts=True)
    low, high = pairs // people, pairs % people

    def weigh(times: Floats) -> float:
        return float((times[low] * times[high]) @ counts)

    return weigh
