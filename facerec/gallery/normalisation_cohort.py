"""How alike faces are to a cohort: people who are not in the gallery."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_embeddings, check_range, check_whole
from facerec.gallery.index import NOBODY, check_numbers

LEAST_COHORT = 20
"""Fewer rows give no standard deviation to speak of."""

LEAST_STD = 0.01
"""Floor of a standard deviation of cosines; real faces have 0.02 and more."""

SAME_COSINE = 0.5
"""A row of the cohort that is as alike as this is taken for the same person and left out."""

_BLOCK_VALUES = 1 << 22
_GRID = np.linspace(-1.01, 1.01, 129)
_GRID.flags.writeable = False

_Array = NDArray[np.float64]
_Owners = NDArray[np.int64]


@dataclass(frozen=True)
class CohortStats:
    """How alike n faces are to a cohort.

    Attributes:
        means: float64 (n,), mean cosine to the cohort.
        stds: float64 (n,), standard deviation, at least LEAST_STD.
        left_out: int64 (n,), rows of the cohort that are this person and were not counted.
        owners: int64 (n,), ascending, whose each row is; None for probes, which have no owner.
    """

    means: _Array
    stds: _Array
    left_out: NDArray[np.int64]
    owners: _Owners | None = None

    def __len__(self) -> int:
        return len(self.means)

    def take(self, rows: NDArray[np.int64]) -> CohortStats:
        """Return the statistics of some rows."""
        owners = None if self.owners is None else self.owners[rows]
        return CohortStats(self.means[rows], self.stds[rows], self.left_out[rows], owners)

    def find(self, owners: _Owners) -> NDArray[np.int64]:
        """Return the row of each owner, of any shape; NOBODY where the owner is NOBODY.

        Raises:
            InputError: an owner has no statistics.
        """
        if self.owners is None:
            raise InputError("template statistics need owners; measure them with owners")
        known = np.zeros(owners.shape, bool)
        rows = np.searchsorted(self.owners, owners)
        if len(self.owners):
            rows = np.minimum(rows, len(self.owners) - 1)
            known = self.owners[rows] == owners
        missing = owners[~known & (owners != NOBODY)]
        if missing.size:
            raise InputError(
                f"person {missing[0]} has no cohort statistics; measure them for every person in "
                "the index"
            )
        return np.where(known, rows, NOBODY).astype(np.int64)

    @cached_property
    def _ceiling(self) -> _Array:
        """The greatest z-score at each cosine of a grid, whoever the template is, float64 (129,).

        The maximum of lines is convex, so that linear interpolation between is never below it.
        """
        tops = np.full(len(_GRID), -np.inf)
        step = _BLOCK_VALUES // len(_GRID)
        for start in range(0, len(self), step):
            part = slice(start, start + step)
            scores = (_GRID[:, None] - self.means[part]) / self.stds[part]
            tops = np.maximum(tops, scores.max(axis=1))
        return tops

    def bound(self, cosines: _Array) -> _Array:
        """Return what no template's z-score exceeds at a cosine of at most this, float64 (m,)."""
        return np.asarray(np.interp(cosines, _GRID, self._ceiling), np.float64)


def measure_cohort(
    vectors: NDArray[np.float32],
    cohort: NDArray[np.float32],
    *,
    owners: _Owners | None = None,
    top: int | None = None,
    same_cosine: float = SAME_COSINE,
) -> CohortStats:
    """Return mean and standard deviation of faces against a cohort.

    A person of several rows scores by the best of them against each row of the cohort, as in a
    search. Rows of the cohort that are the person themselves are left out of that person's
    statistics, or they would push down the very scores that are right.

    Args:
        vectors: float32 (n, d), unit norm: templates, samples or probes.
        cohort: float32 (c, d), unit norm, c at least LEAST_COHORT.
        owners: int64 (n,), for templates: whose each row is; None: each row for itself.
        top: only the nearest `top` of the cohort count (adaptive), at least LEAST_COHORT.
        same_cosine: from which a row of the cohort is the same person, in [-1, 1].

    Raises:
        InputError: arrays that do not fit, or fewer than LEAST_COHORT rows are left for somebody.
    """
    check_embeddings(cohort, "cohort")
    check_embeddings(vectors, "faces", cohort.shape[1])
    check_range(same_cosine, "same_cosine", -1, 1)
    if len(cohort) < LEAST_COHORT:
        raise InputError(
            f"a cohort needs at least {LEAST_COHORT} faces of people who are not in the gallery, "
            f"got {len(cohort)}; some hundreds are better"
        )
    if top is not None:
        check_whole(top, "top", LEAST_COHORT, len(cohort))
    order, starts = np.arange(len(vectors)), np.arange(len(vectors))
    people = None
    if owners is not None:
        check_numbers(owners, "owners")
        if owners.shape != (len(vectors),):
            raise InputError(f"owners must have shape ({len(vectors)},), got {owners.shape}")
        order = np.argsort(owners, kind="stable")
        people, starts = np.unique(owners[order], return_index=True)
    means, stds = np.empty(len(starts)), np.empty(len(starts))
    left_out = np.empty(len(starts), np.int64)
    wide = cohort.astype(np.float64)
    for part, rows in _iter_parts(starts, len(order), len(cohort)):
        cosines = vectors[order[rows]].astype(np.float64) @ wide.T
        best = np.maximum.reduceat(cosines, starts[part] - rows.start, axis=0)
        used = best < same_cosine
        left_out[part] = (~used).sum(axis=1)
        means[part], stds[part] = _measure_rows(np.where(used, best, -np.inf), top)
    poor = np.flatnonzero(len(cohort) - left_out < LEAST_COHORT)
    if poor.size:
        who = f"person {people[poor[0]]}" if people is not None else f"row {poor[0]}"
        raise InputError(
            f"{left_out[poor[0]]} of {len(cohort)} cohort faces reach cosine {same_cosine:g} with "
            f"{who}, which leaves fewer than {LEAST_COHORT}; take a cohort of many other people"
        )
    return CohortStats(means, np.maximum(stds, LEAST_STD), left_out, people)


def _iter_parts(starts: NDArray[np.int64], total: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Yield people and their rows, some at once, so that rows times width stay in memory."""
    size, begin = max(1, _BLOCK_VALUES // width), 0
    while begin < len(starts):
        end = int(np.searchsorted(starts, starts[begin] + size, side="right")) - 1
        if starts[begin] + size >= total:
            end = len(starts)
        end = max(end, begin + 1)
        stop = int(starts[end]) if end < len(starts) else total
        yield slice(begin, end), slice(int(starts[begin]), stop)
        begin = end


def _measure_rows(cosines: _Array, top: int | None) -> tuple[_Array, _Array]:
    """Return mean and standard deviation of each row, of its greatest `top`; -inf is left out."""
    if top is not None:
        cosines = -np.partition(-cosines, top - 1, axis=1)[:, :top]
    used = np.isfinite(cosines)
    count = np.maximum(used.sum(axis=1), 1)
    means = np.where(used, cosines, 0.0).sum(axis=1) / count
    apart = np.where(used, cosines - means[:, None], 0.0)
    return means, np.sqrt((apart**2).sum(axis=1) / count)
