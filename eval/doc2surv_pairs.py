"""Comparisons of tracks with other people's documents: whose they are, and how to resample them.

Tracks and documents are two sides that share people: a person is probe in some comparisons and
enrolled in others. All of one's comparisons follow when that person is drawn again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError
from facerec.metrics.exceedances import MOST_PAIRS, Exceedances

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

NO_GROUP = -1
_SLACK = 1_000_000


@dataclass(frozen=True)
class CrossExceedances(Exceedances):
    """The greatest scores of tracks against other people's documents.

    A comparison of track i with enrolled person j weighs times[person of i] * times[j]. It is made
    where the two are different people of one group, or one of the groups is not known.

    Attributes:
        probes: float64 (s,), each person's number of tracks.
        enrolled: float64 (s,), 1 for a person with a document, else 0.
        groups: int64 (s,), -1 = not known.
    """

    probes: Floats
    enrolled: Floats
    groups: Labels

    @property
    def units(self) -> float:
        """Return how many equal independent comparisons weigh as much (Kish's effective size)."""
        ones = np.ones((1, self.people))
        squares = self._weigh_all(ones, self.probes**2, self.enrolled**2)[0]
        return float(self.total(ones)[0] ** 2 / squares)

    def total(self, times: NDArray[Any]) -> Floats:
        """Return the weight of all comparisons, float64 (r,), for multiplicities (r, s)."""
        return self._weigh_all(times, self.probes, self.enrolled)

    def count_needed(self, units: float) -> int:
        """Return how many people like these would make so many independent comparisons."""
        return math.ceil(self.people * math.sqrt(units / self.units))

    def influence(self, threshold: float) -> Floats:
        """Return what each person adds to rate - mean rate at a threshold, float64 (s,)."""
        wrong = np.where(self.scores >= threshold, self.weights, 0.0)
        second = self.first if self.second is None else self.second
        mine = np.bincount(self.first, wrong, self.people)
        mine = mine + np.bincount(second, wrong, self.people)
        ones = np.ones((1, self.people))
        as_probe = self.probes * (self._allowed(ones, self.enrolled)[0] - self.enrolled)
        as_enrolled = self.enrolled * (self._allowed(ones, self.probes)[0] - self.probes)
        exposed = as_probe + as_enrolled
        found: Floats = mine - exposed * mine.sum() / exposed.sum()
        return found

    def variance(self, threshold: float) -> float:
        """Return the variance of the rate, people being the clusters (dyadic, two-way).

        The sum over people of the squared influence counts twice what two people share; the squares
        of the pairs of people are taken off (Aronow, Samii & Assenova 2015). Never less than if all
        pairs of people were independent. Terms of the rate's own order beside 1 are left out.
        """
        errors = self.count_errors(threshold)
        if not errors or self.second is None:
            return 0.0
        first, second = self.first[:errors], self.second[:errors]
        pair = np.minimum(first, second) * self.people + np.maximum(first, second)
        _, codes = np.unique(pair, return_inverse=True)
        pairs = float((np.bincount(codes.reshape(-1), self.weights[:errors]) ** 2).sum())
        both = float((self.influence(threshold) ** 2).sum())
        weight = float(self.total(np.ones((1, self.people)))[0])
        return max(both - pairs, pairs) / weight**2

    def _weigh_all(self, times: NDArray[Any], probes: Floats, enrolled: Floats) -> Floats:
        """Return sum over allowed pairs of different people of the products, float64 (r,)."""
        mine = times * probes
        found: Floats = (mine * (self._allowed(times, enrolled) - times * enrolled)).sum(axis=1)
        return found

    def _allowed(self, times: NDArray[Any], masses: Floats) -> Floats:
        """Return for each person the mass of the people they may be compared with, themselves too.

        float64 (r, s).
        """
        weighed = times * masses
        every = weighed.sum(axis=1, keepdims=True)
        if (self.groups == NO_GROUP).all():
            open_to_all: Floats = np.broadcast_to(every, weighed.shape).astype(np.float64)
            return open_to_all
        member = (self.groups[:, None] == np.arange(self.groups.max() + 1)).astype(np.float64)
        open_ = weighed[:, self.groups == NO_GROUP].sum(axis=1, keepdims=True)
        each = weighed @ member + open_
        found: Floats = np.where(self.groups == NO_GROUP, every, each[:, self.groups])
        return found


class PairKeeper:
    """Keeps the greatest scores that come, with the two people of each.

    Args:
        depth: how many to keep at most.
        floor: keep no score below it.
    """

    def __init__(self, depth: int, floor: float = -np.inf) -> None:
        self.depth = min(depth, MOST_PAIRS)
        self.floor = floor
        self.cut_off = False
        self.comparisons = 0
        self._parts: list[tuple[NDArray[np.float32], Labels, Labels]] = []
        self._held = 0

    def add(
        self,
        scores: NDArray[np.float32],
        allowed: NDArray[np.bool_],
        rows: Labels,
        columns: Labels,
    ) -> None:
        """Take a block of scores (b, n) with the people of its rows (b,) and columns (n,)."""
        self.comparisons += int(np.count_nonzero(allowed))
        i, j = np.nonzero(allowed & (scores >= self.floor))
        self._parts.append((scores[i, j], rows[i], columns[j]))
        self._held += i.size
        if self._held > self.depth + _SLACK:
            self._sort()

    def finish(self, probes: Floats, enrolled: Floats, groups: Labels) -> CrossExceedances:
        """Return the sample; `probes`, `enrolled` and `groups` are those of each person.

        Raises:
            InputError: no comparison of different people.
        """
        if not self.comparisons:
            raise InputError(
                "no track can be compared with another person's document; the half needs at least "
                "2 people of one group"
            )
        scores, first, second = self._sort()
        floor = self.floor if self.cut_off else float(np.nextafter(self.floor, -np.inf))
        return CrossExceedances(
            scores=scores.astype(np.float64),
            weights=np.ones(scores.size),
            first=first,
            second=second,
            masses=np.ones(probes.size),
            comparisons=self.comparisons,
            floor=floor,
            probes=probes,
            enrolled=enrolled,
            groups=groups,
        )

    def _sort(self) -> tuple[NDArray[np.float32], Labels, Labels]:
        scores, first, second = (np.concatenate(part) for part in _transpose(self._parts))
        order = np.lexsort((second, first, -scores))
        if order.size > self.depth:
            order = order[: self.depth]
            self.cut_off = True
            self.floor = float(scores[order[-1]])
        self._parts = [(scores[order], first[order], second[order])]
        self._held = order.size
        return self._parts[0]


def _transpose(
    parts: Iterable[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]],
) -> tuple[list[NDArray[Any]], list[NDArray[Any]], list[NDArray[Any]]]:
    empty = (np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64))
    scores, first, second = zip(empty, *parts, strict=True)
    return list(scores), list(first), list(second)
