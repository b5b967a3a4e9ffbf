"""The greatest scores of strangers and whose they are: what a threshold and its spread need.

A sample is one-way (a probe's best score against a whole gallery belongs to one person) or two-way
(a comparison belongs to two). People are drawn with replacement; a two-way score weighs the product
of its two people's multiplicities. For rare errors that product is careful: its spread is up to
1.7 times the true one (Owen 2007, The pigeonhole bootstrap), since no bootstrap of two-way data is
exact (McCullagh 2000).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facerec.checks import InputError, check_embeddings, check_one_of, check_whole

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

WEIGHTINGS = ("subjects", "transactions")
MOST_PAIRS = 20_000_000
_TILE = 1024
_SLACK = 1_000_000


@dataclass(frozen=True)
class Exceedances:
    """The k greatest scores of a sample, and what is needed to weigh people anew.

    Attributes:
        scores: float64 (k,), falling.
        weights: float64 (k,), of each score.
        first: int64 (k,), the score's person in [0, s).
        second: int64 (k,), its other person; None for a one-way sample.
        masses: float64 (s,), each person's mass: a one-way sample weighs their sum in all, a
            two-way one the sum over pairs of people of the products.
        comparisons: how many scores the whole sample has.
        floor: every score of the sample that is greater than this is here.
    """

    scores: Floats
    weights: Floats
    first: Labels
    second: Labels | None
    masses: Floats
    comparisons: int
    floor: float

    @property
    def people(self) -> int:
        """Return how many people the sample has."""
        return self.masses.size

    @property
    def units(self) -> float:
        """Return how many equal independent scores weigh as much (Kish's effective size).

        A person counts once in a one-way sample and a pair of people once in a two-way one,
        however many pictures they have.
        """
        squares = self._total(self.masses[None] ** 2)[0]
        return float(self._total(self.masses[None])[0] ** 2 / squares)

    def total(self, times: NDArray[Any]) -> Floats:
        """Return the weight of the whole sample, float64 (r,), for multiplicities (r, s)."""
        return self._total(times * self.masses)

    def _total(self, masses: Floats) -> Floats:
        if self.second is None:
            found: Floats = masses.sum(axis=1)
            return found
        pairs: Floats = (masses.sum(axis=1) ** 2 - (masses**2).sum(axis=1)) / 2
        return pairs

    def head(self, count: int) -> Exceedances:
        """Return the same sample with its `count` greatest scores only; ties must not be cut."""
        second = None if self.second is None else self.second[:count]
        rest = self.scores[count:]
        return replace(
            self,
            scores=self.scores[:count],
            weights=self.weights[:count],
            first=self.first[:count],
            second=second,
            floor=float(rest[0]) if rest.size else self.floor,
        )

    def count_needed(self, units: float) -> int:
        """Return how many people like these would make so many independent units."""
        if self.second is None:
            return math.ceil(units * self.people / self.units)
        pairs = units * (self.people * (self.people - 1) / 2) / self.units
        return math.ceil((1 + math.sqrt(1 + 8 * pairs)) / 2)

    def weigh(self, times: NDArray[Any]) -> Floats:
        """Return each score's weight, float64 (k,), for the people's multiplicities (s,)."""
        found: Floats = self.weights * times[self.first]
        if self.second is not None:
            found *= times[self.second]
        return found

    def cumulate(self) -> Floats:
        """Return the share of the sample at or above each score, float64 (k,), ties together."""
        shares = np.cumsum(self.weights) / self.total(np.ones((1, self.people)))[0]
        last = np.searchsorted(-self.scores, -self.scores, side="right") - 1
        found: Floats = np.minimum(shares[last], 1.0)
        return found

    def count_errors(self, threshold: float) -> int:
        """Return how many of these scores are at or above a threshold."""
        return int(np.searchsorted(-self.scores, -threshold, side="right"))

    def covers(self, threshold: float) -> bool:
        """Return whether all scores at or above a threshold are here."""
        return threshold > self.floor

    def count_independent(self, threshold: float) -> int:
        """Return how many scores >= threshold share nobody with a greater one among them.

        Ten errors of one person are one finding, not ten.
        """
        errors = self.count_errors(threshold)
        if self.second is None:
            return int(np.unique(self.first[:errors]).size)
        seen = np.zeros(self.people, np.bool_)
        count = 0
        for a, b in zip(self.first[:errors].tolist(), self.second[:errors].tolist(), strict=True):
            if not seen[a] and not seen[b]:
                seen[a] = seen[b] = True
                count += 1
        return count

    def influence(self, threshold: float) -> Floats:
        """Return what each person adds to rate - mean rate at a threshold, float64 (s,)."""
        wrong = np.where(self.scores >= threshold, self.weights, 0.0)
        mine = np.bincount(self.first, wrong, self.people)
        exposed = self.masses
        if self.second is not None:
            mine = mine + np.bincount(self.second, wrong, self.people)
            exposed = self.masses * (self.masses.sum() - self.masses)
        found: Floats = mine - exposed * mine.sum() / exposed.sum()
        return found


def draw_people(people: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """Return multiplicities int64 (resamples, people) of people drawn with replacement."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(people, np.full(people, 1 / people), size=resamples)


def sum_groups(sample: Exceedances, times: NDArray[np.int64], starts: Labels) -> Floats:
    """Return the weight of groups of neighbouring scores in each resample, float64 (r, g).

    Args:
        sample: k scores.
        times: int64 (r, s), multiplicities.
        starts: int64 (g,), rising, the first score of each group, the first 0; a group ends where
            the next begins.
    """
    if sample.second is None:
        group = np.searchsorted(starts, np.arange(sample.scores.size), side="right") - 1
        places = sample.first * starts.size + group
        table = np.bincount(places, sample.weights, sample.people * starts.size)
        product: Floats = times.astype(np.float64) @ table.reshape(sample.people, starts.size)
        return product
    return np.stack([np.add.reduceat(sample.weigh(row), starts) for row in times])


def resampled_rates(sample: Exceedances, times: NDArray[np.int64], threshold: float) -> Floats:
    """Return the share of scores >= threshold in each resample, float64 (r,)."""
    errors = sample.count_errors(threshold)
    if not errors:
        return np.zeros(len(times))
    starts = np.array([0, errors][: 1 + (errors < sample.scores.size)])
    found: Floats = sum_groups(sample, times, starts)[:, 0] / sample.total(times)
    return found


def resampled_thresholds(sample: Exceedances, times: NDArray[np.int64], rate: float) -> Floats:
    """Return the lowest score whose share does not exceed `rate` in each resample, float64 (r,).

    Where even the greatest score is too frequent, that score.
    """
    last = np.append(np.flatnonzero(np.diff(sample.scores)), sample.scores.size - 1)
    found = np.empty(len(times))
    for row, (mine, total) in enumerate(zip(times, sample.total(times), strict=True)):
        shares = np.cumsum(sample.weigh(mine))[last] / total
        taken = int(np.searchsorted(shares, rate, side="right"))
        found[row] = sample.scores[last[max(taken - 1, 0)]]
    return found


def collect_best(best: ArrayLike, subjects: ArrayLike, weighting: str = "subjects") -> Exceedances:
    """Return the one-way sample of each probe's best score against a gallery.

    Args:
        best: float (m,); -inf is a probe that could not be searched: it weighs, but never errs.
        subjects: (m,), the probe's person; none of them is enrolled.
        weighting: "subjects": every person weighs the same, shared among their probes;
            "transactions": every probe does.

    Raises:
        InputError: shapes that do not fit, NaN or +inf, no probe.
    """
    check_one_of(weighting, "weighting", WEIGHTINGS)
    values = np.asarray(best, dtype=np.float64)
    names = np.asarray(subjects)
    if values.ndim != 1 or names.shape != values.shape or not values.size:
        raise InputError(
            "best scores and subjects must be rows of equal length with at least one probe, "
            f"got {values.shape} and {names.shape}"
        )
    if np.isnan(values).any() or values.max() == np.inf:
        raise InputError("best scores must be finite or -inf (a failure), got NaN or infinity")
    codes, counts, each = _weigh_people(names, weighting)
    order = np.argsort(-values, kind="stable")
    return Exceedances(
        values[order],
        each[codes][order],
        codes[order],
        None,
        each * counts,
        values.size,
        -np.inf,
    )


def collect_pairs(
    vectors: NDArray[np.float32],
    subjects: ArrayLike,
    depth: int = MOST_PAIRS,
    *,
    weighting: str = "subjects",
    floor: float = -np.inf,
) -> Exceedances:
    """Return the two-way sample of all comparisons of different people: the greatest of them.

    The matrix of scores is made in blocks of 1024 by 1024 and never held.

    Args:
        vectors: float32 (m, d), unit norm.
        subjects: (m,), whose each is.
        depth: how many of the greatest scores to keep, at most 20 million.
        weighting: "subjects": every pair of people weighs the same, shared among their
            comparisons; "transactions": every comparison does.
        floor: keep no score below it.

    Raises:
        InputError: as `check_embeddings`, lengths that differ, fewer than two people, too great a
            depth.
    """
    check_one_of(weighting, "weighting", WEIGHTINGS)
    check_whole(depth, "depth", 1, MOST_PAIRS)
    rows = check_embeddings(vectors)
    names = np.asarray(subjects)
    if names.shape != (len(rows),):
        raise InputError(f"subjects must be ({len(rows)},), one a vector, got {names.shape}")
    codes, counts, each = _weigh_people(names, weighting)
    if counts.size < 2:
        raise InputError(
            f"comparisons of strangers need at least 2 people, got {counts.size}; "
            "give each person's name"
        )
    scores, first, second, reached = _top_pairs(rows, codes, depth, floor)
    return Exceedances(
        scores.astype(np.float64),
        each[codes[first]] * each[codes[second]],
        codes[first],
        codes[second],
        each * counts,
        int((len(rows) ** 2 - (counts**2).sum()) // 2),
        reached,
    )


def _weigh_people(names: NDArray[Any], weighting: str) -> tuple[Labels, Labels, Floats]:
    """Return each row's person, each person's number of rows and what each row weighs."""
    _, codes, counts = np.unique(names, return_inverse=True, return_counts=True)
    each = 1 / counts if weighting == "subjects" else np.ones(counts.size)
    return codes.reshape(-1).astype(np.int64), counts.astype(np.int64), each


class _Top:
    """Keeps the greatest scores that come, and their places; of equal ones the lowest places."""

    def __init__(self, depth: int, floor: float) -> None:
        self.depth = depth
        self.floor = np.float32(floor)
        self.cut_off = False
        self._scores: list[NDArray[np.float32]] = []
        self._places: list[Labels] = []
        self._held = 0

    def add(self, scores: NDArray[np.float32], places: Labels) -> None:
        self._scores.append(scores)
        self._places.append(places)
        self._held += scores.size
        if self._held > self.depth + _SLACK:
            self.sort()

    def sort(self) -> tuple[NDArray[np.float32], Labels]:
        """Return what is kept, falling."""
        scores = np.concatenate([np.zeros(0, np.float32), *self._scores])
        places = np.concatenate([np.zeros(0, np.int64), *self._places])
        order = np.lexsort((places, -scores))
        if order.size > self.depth:
            order = order[: self.depth]
            self.cut_off = True
            self.floor = scores[order[-1]]
        self._scores, self._places = [scores[order]], [places[order]]
        self._held = order.size
        return self._scores[0], self._places[0]


def _top_pairs(
    rows: NDArray[np.float32], codes: Labels, depth: int, floor: float
) -> tuple[NDArray[np.float32], Labels, Labels, float]:
    """Return the greatest scores of different people, falling, their rows, and the floor."""
    count = len(rows)
    top = _Top(depth, floor)
    for upper in range(0, count, _TILE):
        for left in range(upper, count, _TILE):
            block = rows[upper : upper + _TILE] @ rows[left : left + _TILE].T
            wanted = block >= top.floor
            wanted &= codes[upper : upper + _TILE, None] != codes[None, left : left + _TILE]
            if upper == left:
                wanted = np.triu(wanted, 1)
            i, j = np.nonzero(wanted)
            top.add(block[i, j], (i + upper) * count + (j + left))
    scores, places = top.sort()
    # Ties of the last kept score may be missing: only what is greater is certain to be here.
    reached = float(top.floor) if top.cut_off else float(np.nextafter(top.floor, -np.inf))
    return scores, places // count, places % count, reached
