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
    if rank is not None and rank < 1:
        raise InputError(f"rank must be at least 1, got {rank}")
    return _rates(values, own, rank_of_own(values, own), threshold, rank)


def fnir_at_fpir(
    scores: ArrayLike, person: ArrayLike, fpirs: Sequence[float], rank: int | None = None
) -> list[OpenSetPoint]:
    """Return FNIR at each target FPIR, at the lowest threshold that keeps the target.

    Raises:
        InputError: as `check_search`, a target outside (0, 1], or no non-mated probe.
    """
    values, own = check_search(scores, person)
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
