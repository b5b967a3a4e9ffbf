"""One-to-many figures: FNIR, FPIR and rank-k, as in ISO/IEC 19795-1:2021.

A probe is one transaction (for video: one track). It is mated when its person is enrolled.
FNIR(N, R, T): share of mated probes whose person is not among the R best candidates with
score >= T. FPIR(N, T): share of non-mated probes with at least one candidate >= T. Equal scores
rank by position. A score of -inf is no candidate: a probe without a face is a row of -inf, which
counts against FNIR and never vanishes from the denominator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facerec.checks import InputError
from facerec.metrics.verification import MIN_FALSE_ACCEPTS, count_allowed, top_slice

NON_MATED = -1


@dataclass(frozen=True)
class IdentificationRates:
    """Error rates of a search at one threshold.

    Attributes:
        people: N, the number of people enrolled.
        rank: R, the length of the candidate list; None = all.
        threshold: T.
        mated: number of mated probes.
        non_mated: number of non-mated probes.
        misses: mated probes that were missed.
        false_alarms: non-mated probes that returned somebody.
    """

    people: int
    rank: int | None
    threshold: float
    mated: int
    non_mated: int
    misses: int
    false_alarms: int

    @property
    def fnir(self) -> float | None:
        """Misses over mated probes, None without mated probes."""
        return self.misses / self.mated if self.mated else None

    @property
    def tpir(self) -> float | None:
        """1 - FNIR: own person among the R best and at or above T, None without mated probes."""
        return 1 - self.misses / self.mated if self.mated else None

    @property
    def fpir(self) -> float | None:
        """False alarms over non-mated probes, None without non-mated probes."""
        return self.false_alarms / self.non_mated if self.non_mated else None


@dataclass(frozen=True)
class OpenSetPoint:
    """FNIR at one target FPIR.

    Attributes:
        fpir: the target.
        rates: what holds at the lowest threshold whose FPIR does not exceed the target.
        supported: whether at least 10 false alarms were possible.
    """

    fpir: float
    rates: IdentificationRates
    supported: bool


@dataclass(frozen=True)
class IdentificationCurve:
    """FNIR against FPIR at every threshold that changes either, from the strictest on.

    Attributes:
        thresholds: float64 (p,), falling; the first lies just above the greatest score.
        fnir: float64 (p,), falling from 1; failures and ranks beyond R are never found.
        fpir: float64 (p,), rising from 0.
    """

    thresholds: NDArray[np.float64]
    fnir: NDArray[np.float64]
    fpir: NDArray[np.float64]


@dataclass(frozen=True)
class SearchScores:
    """What open-set figures need of a search: one score a probe, however large the gallery.

    Attributes:
        people: N, the number of people enrolled.
        rank: R, the length of the candidate list; None = all.
        own: floating (m,), of each mated probe: the score of its own person if that is among the
            R best, else -inf.
        best: floating (k,), of each non-mated probe: its best score; -inf without a candidate.
    """

    people: int
    rank: int | None
    own: NDArray[Any]
    best: NDArray[Any]

    def __post_init__(self) -> None:
        for name, values in (("own", self.own), ("best", self.best)):
            if values.ndim != 1 or not np.issubdtype(values.dtype, np.floating):
                raise InputError(
                    f"{name} must be a row of floating scores, one a probe, got {values.dtype} "
                    f"{values.shape}"
                )
            if (np.isnan(values) | (values == np.inf)).any():
                raise InputError(f"{name} must be finite or -inf (no candidate), got NaN or +inf")

    def rates(self, threshold: float) -> IdentificationRates:
        """Return FNIR and FPIR at a threshold."""
        found, raised = (
            int(np.count_nonzero((values >= threshold) & (values > -np.inf)))
            for values in (self.own, self.best)
        )
        return IdentificationRates(
            people=self.people,
            rank=self.rank,
            threshold=float(threshold),
            mated=self.own.size,
            non_mated=self.best.size,
            misses=self.own.size - found,
            false_alarms=raised,
        )

    def curve(self) -> IdentificationCurve:
        """Return FNIR and FPIR at every distinct score.

        Raises:
            InputError: no mated or no non-mated probe.
        """
        for values, name in ((self.own, "enrolled people"), (self.best, "people not enrolled")):
            if not values.size:
                raise InputError(f"a curve of FNIR over FPIR needs probes of {name}, got none")
        kind = np.result_type(self.own, self.best).type
        every = np.unique(np.concatenate([self.own, self.best]))[::-1]
        every = every[every > -np.inf]
        first = np.nextafter(every[0] if every.size else kind(-np.inf), kind(np.inf))
        thresholds = np.concatenate([[first], every]).astype(np.float64)
        below = [
            np.searchsorted(np.sort(values).astype(np.float64), thresholds)
            for values in (self.own, self.best)
        ]
        return IdentificationCurve(
            thresholds,
            fnir=below[0] / self.own.size,
            fpir=(self.best.size - below[1]) / self.best.size,
        )


def collect_search(scores: ArrayLike, person: ArrayLike, rank: int | None = None) -> SearchScores:
    """Return what open-set figures need of a matrix of scores.

    Args:
        scores: (m, n), m probes against n people.
        person: (m,) column of the probe's own person, -1 when it is not enrolled.
        rank: the length of the candidate list, None for all.

    Raises:
        InputError: as `check_search`, or a rank below 1.
    """
    values, own = check_search(scores, person)
    _check_rank(rank)
    mated = np.flatnonzero(own != NON_MATED)
    mine = values[mated, own[mated]]
    if rank is not None:
        mine = np.where(rank_of_own(values, own)[mated] <= rank, mine, values.dtype.type(-np.inf))
    return SearchScores(values.shape[1], rank, mine, values[own == NON_MATED].max(axis=1))


def check_search(scores: ArrayLike, person: ArrayLike) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return scores as a floating matrix and persons as an integer row.

    Args:
        scores: (m, n), m probes against n people.
        person: (m,) column of the probe's own person, -1 when it is not enrolled.

    Raises:
        InputError: shapes that do not fit, NaN or +inf, a column that does not exist.
    """
    values = np.asarray(scores)
    if not np.issubdtype(values.dtype, np.floating):
        values = values.astype(np.float64)
    own = np.asarray(person)
    if values.ndim != 2 or own.shape != values.shape[:1] or not values.shape[1]:
        raise InputError(
            "scores must be a matrix (probes, people) with one person a probe, "
            f"got {values.shape} and {own.shape}"
        )
    if own.size and not np.issubdtype(own.dtype, np.integer):
        raise InputError(f"person must hold column numbers or -1, got {own.dtype}")
    if (np.isnan(values) | (values == np.inf)).any():
        raise InputError("scores must be finite or -inf (a failure), got NaN or infinity")
    if own.size and (own.min() < NON_MATED or own.max() >= values.shape[1]):
        raise InputError(
            f"person must lie in [-1, {values.shape[1] - 1}], got {own.min()} to {own.max()}"
        )
    return values, own.astype(np.int64)


def rank_of_own(scores: ArrayLike, person: ArrayLike) -> NDArray[np.int64]:
    """Return the rank (from 1) of each mated probe's own person; 0 for non-mated probes.

    Args:
        scores: (m, n).
        person: (m,), -1 = non-mated.
    """
    values, own = check_search(scores, person)
    ranks = np.zeros(len(own), np.int64)
    rows = np.flatnonzero(own != NON_MATED)
    mine = values[rows, own[rows]][:, None]
    others = values[rows]
    earlier = np.arange(values.shape[1])[None, :] < own[rows][:, None]
    ranks[rows] = 1 + ((others > mine) | ((others == mine) & earlier)).sum(axis=1)
    return ranks


def identification_rates(
    scores: ArrayLike, person: ArrayLike, threshold: float, rank: int | None = None
) -> IdentificationRates:
    """Return FNIR and FPIR at a threshold.

    Args:
        scores: (m, n), m probes against n people.
        person: (m,) column of the probe's own person, -1 when it is not enrolled.
        threshold: candidates need score >= threshold.
        rank: the length of the candidate list, None for all.
    """
    values, own = check_search(scores, person)
    _check_rank(rank)
    return _rates(values, own, rank_of_own(values, own), threshold, rank)


def fnir_at_fpir(
    scores: ArrayLike, person: ArrayLike, fpirs: Sequence[float], rank: int | None = None
) -> list[OpenSetPoint]:
    """Return FNIR at each target FPIR, at the lowest threshold that keeps the target.

    Raises:
        InputError: as `check_search`, a target outside (0, 1], or no non-mated probe.
    """
    values, own = check_search(scores, person)
    _check_rank(rank)
    loudest = values[own == NON_MATED].max(axis=1)
    if not loudest.size:
        raise InputError("FPIR needs probes of people who are not enrolled, got none")
    ranks, falling = rank_of_own(values, own), top_slice(loudest, loudest.size)
    points = []
    for fpir in fpirs:
        allowed = count_allowed(fpir, loudest.size)
        every = allowed >= loudest.size
        barrier = falling.dtype.type(-np.inf) if every else falling[allowed]
        above = np.min(values, where=values > barrier, initial=np.inf)
        if above == np.inf:
            above = np.nextafter(barrier, falling.dtype.type(np.inf))
        rates = _rates(values, own, ranks, float(above), rank)
        points.append(OpenSetPoint(fpir, rates, allowed >= MIN_FALSE_ACCEPTS))
    return points


def rank_rates(scores: ArrayLike, person: ArrayLike, ranks: Sequence[int]) -> dict[int, float]:
    """Return closed-set identification: k -> share of mated probes with own rank <= k.

    Non-mated probes are left out; a failed probe (-inf) counts as not found.

    Raises:
        InputError: as `check_search`, or no mated probe.
    """
    values, own = check_search(scores, person)
    mated = own != NON_MATED
    if not mated.any():
        raise InputError("a rank needs probes of enrolled people, got none")
    found = rank_of_own(values, own)[mated]
    made = values[mated, own[mated]] > -np.inf
    return {k: float(np.mean((found <= k) & made)) for k in ranks}


def _check_rank(rank: int | None) -> None:
    if rank is not None and rank < 1:
        raise InputError(f"rank must be at least 1, got {rank}")


def _rates(
    values: NDArray[Any],
    own: NDArray[np.int64],
    ranks: NDArray[np.int64],
    threshold: float,
    rank: int | None,
) -> IdentificationRates:
    mated = own != NON_MATED
    accepted = (values >= threshold) & (values > -np.inf)
    hits = accepted[mated, own[mated]]
    if rank is not None:
        hits = hits & (ranks[mated] <= rank)
    return IdentificationRates(
        people=values.shape[1],
        rank=rank,
        threshold=float(threshold),
        mated=int(mated.sum()),
        non_mated=int((~mated).sum()),
        misses=int(hits.size - hits.sum()),
        false_alarms=int(accepted[~mated].any(axis=1).sum()),
    )
