"""Scores against a cohort of nobody in the gallery: z-, t- and s-norm, and who is a stranger.

A cosine of 0.4 says more of a face that resembles few than of one that resembles many. A cohort,
faces of people who are not in the gallery, shows how alike a face is to strangers; scores are then
given in standard deviations above that. Sources: z-norm Li and Porter 1988, t-norm Auckenthaler et
al. 2000, s-norm Kenny 2010, the adaptive one (the nearest of the cohort only) Matejka et al. 2017.
Whether it helps depends on model and cohort: measure it on the gallery before it is switched on.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_one_of, check_range
from facerec.gallery.index import NOBODY, Ranked, VectorIndex
from facerec.gallery.normalisation_cohort import (
    LEAST_COHORT,
    LEAST_STD,
    SAME_COSINE,
    CohortStats,
    measure_cohort,
)
from facerec.gallery.results import KNOWN_STRANGER, NEAR_STRANGER

__all__ = [
    "LEAST_COHORT",
    "LEAST_STD",
    "NORMALISATIONS",
    "SAME_COSINE",
    "STRANGER_MARGIN",
    "CohortStats",
    "NormalisedRanking",
    "StrangerScreen",
    "apply_strangers",
    "check_statistics",
    "measure_cohort",
    "normalise",
    "rank_normalised",
]

NORMALISATIONS = ("none", "z", "t", "s")
"""z: by the template's cohort scores; t: by the probe's; s: the mean of both."""

STRANGER_MARGIN = 0.03
"""A listed person must be ahead of a known stranger by this cosine to be accepted."""

_FIRST_WIDTH = 64
_GROW = 4
_BLOCK_VALUES = 1 << 23
_ROUNDING = 1e-9

_Array = NDArray[np.float64]
_Owners = NDArray[np.int64]


@dataclass(frozen=True)
class NormalisedRanking(Ranked):
    """The k best people of each query by normalised score.

    Attributes:
        cosines: float32 (m, k), the cosine behind each score; -inf = none.
    """

    cosines: NDArray[np.float32]


@dataclass(frozen=True)
class StrangerScreen:
    """What is left of m rankings when known strangers are nobody's answer.

    Attributes:
        accepted: bool (m, k), candidates that may be given as an answer.
        answers: int64 (m,), the owner who is the answer; NOBODY = unknown.
        strangers: int64 (m,), the stranger who made it unknown, for the audit trail, or NOBODY.
        review: bool (m,), a listed person and a stranger are about as close: have somebody look.
        reasons: one a ranking: KNOWN_STRANGER, NEAR_STRANGER or "".
    """

    accepted: NDArray[np.bool_]
    answers: _Owners
    strangers: _Owners
    review: NDArray[np.bool_]
    reasons: list[str]


def normalise(
    cosines: NDArray[np.float32],
    kind: str,
    *,
    templates: CohortStats | None = None,
    probes: CohortStats | None = None,
    owners: _Owners | None = None,
) -> NDArray[np.float32]:
    """Return normalised scores: (cosine - mean) / std of the template, the probe, or both's mean.

    Args:
        cosines: float32 (m, k), -inf where there is no candidate, which stays.
        kind: one of NORMALISATIONS.
        templates: for "z" and "s": of each column, or with `owners` of people.
        probes: for "t" and "s": of the m rows.
        owners: int64 (m, k), whose each cosine is, NOBODY = none; None: column j is template j.

    Returns:
        float32 (m, k), computed in float64.

    Raises:
        InputError: statistics that the kind needs are not given or do not fit.
    """
    check_statistics(kind, templates, probes, len(cosines))
    scores = cosines.astype(np.float64)
    if kind == "none":
        return cosines
    terms = []
    if kind in ("z", "s") and templates is not None:
        if owners is None and len(templates) != cosines.shape[1]:
            raise InputError(
                f"template statistics must be of {cosines.shape[1]} columns, got {len(templates)}"
            )
        rows = np.arange(len(templates)) if owners is None else templates.find(owners)
        if len(templates):
            terms.append(_shift(scores, templates.means[rows], templates.stds[rows]))
        else:
            terms.append(scores)  # nobody: all of it is -inf
    if kind in ("t", "s") and probes is not None:
        terms.append(_shift(scores, probes.means[:, None], probes.stds[:, None]))
    return np.asarray(sum(terms) / len(terms), np.float32)


def rank_normalised(
    index: VectorIndex,
    queries: NDArray[np.float32],
    k: int,
    kind: str,
    *,
    templates: CohortStats | None = None,
    probes: CohortStats | None = None,
    exact: bool = False,
    people: _Owners | None = None,
) -> NormalisedRanking:
    """Return each query's k best people by normalised score; ties go to the lowest owner.

    The best by normalised score may lie far down by cosine. A search is widened until nobody
    unseen can win: at a cosine of at most the last one seen, their score has a bound. What comes
    out is what scoring everybody would give, as far as the index itself is exact.

    Args:
        index: of people's rows.
        queries: float32 (m, d), unit norm.
        k: people a query, at least 1.
        kind: one of NORMALISATIONS.
        templates: for "z" and "s", of every person in the index; more are fine.
        probes: for "t" and "s", of the queries.
        exact: answer exactly whatever the index.
        people: only these owners; None for all.

    Raises:
        InputError: as `VectorIndex.search` and `normalise` do.
    """
    check_statistics(kind, templates, probes, len(queries))
    shape = (len(queries), k)
    if kind == "none" or not len(queries):
        found = index.search(queries, k, exact=exact, people=people)
        return NormalisedRanking(found.scores, found.owners, found.ids, found.scores)
    unseen = _Unseen(kind, templates, people)
    out = NormalisedRanking(
        np.full(shape, -np.inf, np.float32),
        np.full(shape, NOBODY, np.int64),
        np.full(shape, NOBODY, np.int64),
        np.full(shape, -np.inf, np.float32),
    )
    pending: NDArray[np.int64] = np.arange(len(queries))
    width = max(_GROW * k, _FIRST_WIDTH)
    while len(pending):
        width = min(width, max(k, len(index)))
        again = []
        step = max(1, _BLOCK_VALUES // width)
        for chosen in (pending[i : i + step] for i in range(0, len(pending), step)):
            found = index.search(queries[chosen], width, exact=exact, people=people)
            mine = None if probes is None else probes.take(chosen)
            scores = normalise(
                found.scores, kind, templates=templates, probes=mine, owners=found.owners
            )
            order = np.lexsort((found.owners, -scores), axis=-1)[:, :k]
            floor = np.take_along_axis(scores, order, axis=1)[:, -1]
            done = unseen.cannot_reach(found, floor, mine) | (width >= len(index))
            for target, values in (
                (out.scores, scores),
                (out.owners, found.owners),
                (out.ids, found.ids),
                (out.cosines, found.scores),
            ):
                target[chosen[done]] = np.take_along_axis(values, order, axis=1)[done]
            again.append(chosen[~done])
        pending = np.concatenate(again)
        width *= _GROW
    return out


def apply_strangers(
    ranked: Ranked,
    threshold: float,
    strangers: Collection[int],
    margin: float = STRANGER_MARGIN,
) -> StrangerScreen:
    """Return who is the answer when some of the people ranked are never one.

    A stranger at or above the threshold makes the answer unknown unless a listed person is ahead
    by more than the margin: the two scores of a face that resembles both are noise of that size.
    Unknown is the safe side of a watch list, and `review` says where somebody should look.

    Args:
        ranked: cosines or normalised scores; ask for some people more than are shown, because
            strangers take places.
        threshold: from which a candidate is accepted, in the unit of the scores.
        strangers: owners who are never an answer.
        margin: 0 or more, in the unit of the scores: with a normalisation, in deviations.

    Raises:
        InputError: a threshold or margin that is no such number.
    """
    check_range(margin, "margin", 0, 1e9)
    check_range(threshold, "threshold", -1e9, 1e9)
    is_stranger = np.isin(ranked.owners, np.fromiter(strangers, np.int64, len(strangers)))
    is_listed = ~is_stranger & (ranked.owners != NOBODY)
    stranger, who = _find_best(ranked, is_stranger)
    listed, answers = _find_best(ranked, is_listed)
    turned_away = (stranger >= threshold) & (stranger >= listed - margin)
    accepted = is_listed & (ranked.scores >= threshold) & ~turned_away[:, None]
    review = turned_away & (listed >= threshold) & (stranger <= listed + margin)
    reasons = [
        "" if not away else KNOWN_STRANGER if first else NEAR_STRANGER
        for away, first in zip(turned_away, stranger >= listed, strict=True)
    ]
    return StrangerScreen(
        accepted,
        np.where(accepted.any(axis=1), answers, NOBODY),
        np.where(turned_away, who, NOBODY),
        review,
        reasons,
    )


def check_statistics(
    kind: str, templates: CohortStats | None, probes: CohortStats | None, queries: int
) -> None:
    """Raise InputError unless the statistics that a normalisation needs are there.

    Args:
        kind: one of NORMALISATIONS.
        templates: needed for "z" and "s".
        probes: needed for "t" and "s".
        queries: how many rows `probes` must have.
    """
    check_one_of(kind, "normalisation", NORMALISATIONS)
    if kind in ("z", "s") and templates is None:
        raise InputError(f"normalisation {kind!r} needs the templates' cohort statistics")
    if kind in ("t", "s") and (probes is None or len(probes) != queries):
        got = "none" if probes is None else f"{len(probes)} rows"
        raise InputError(
            f"normalisation {kind!r} needs cohort statistics of {queries} probes, got {got}"
        )


class _Unseen:
    """What people whom a search has not shown can still score."""

    def __init__(self, kind: str, templates: CohortStats | None, people: _Owners | None) -> None:
        self._kind = kind
        self._templates = None if kind == "t" else templates
        self._outside: NDArray[np.bool_] | None = None
        if people is not None and self._templates is not None:
            owners = self._templates.owners
            self._outside = None if owners is None else ~np.isin(owners, people)

    def cannot_reach(
        self, found: Ranked, floor: NDArray[np.float32], probes: CohortStats | None
    ) -> NDArray[np.bool_]:
        """Return, bool (m,), where nobody unseen reaches the floor, the k-th best score (m,).

        A cheap bound over all templates first; where that does not do, everybody's own.
        """
        last = found.scores[:, -1].astype(np.float64)
        done = np.asarray(found.owners[:, -1] == NOBODY)  # everybody was seen
        if self._templates is None:
            return np.asarray(done | (self._top(last, last, probes) < floor))
        done |= self._top(self._templates.bound(last), last, probes) < floor
        for row in np.flatnonzero(~done):
            scores = (last[row] - self._templates.means) / self._templates.stds
            scores[self._templates.find(found.owners[row])] = -np.inf
            if self._outside is not None:
                scores[self._outside] = -np.inf
            one = slice(row, row + 1)
            mine = None if probes is None else probes.take(np.array([row]))
            done[row] = self._top(scores.max(keepdims=True), last[one], mine)[0] < floor[row]
        return done

    def _top(
        self, template_scores: _Array, cosines: _Array, probes: CohortStats | None
    ) -> NDArray[np.float32]:
        """Return the normalised score of m cosines with the best template's z-scores, (m,)."""
        top = template_scores
        if self._kind != "z" and probes is not None:
            shifted = _shift(cosines, probes.means, probes.stds)
            top = shifted if self._kind == "t" else (template_scores + shifted) / 2
        slack = _ROUNDING * (1 + np.abs(np.where(np.isfinite(top), top, 0.0)))
        return np.asarray(top + slack, np.float32)


def _shift(cosines: _Array, means: _Array, stds: _Array) -> _Array:
    return np.asarray((cosines - means) / stds, np.float64)


def _find_best(ranked: Ranked, among: NDArray[np.bool_]) -> tuple[_Array, _Owners]:
    """Return the best score (m,) of the candidates among which, -inf = none, and their owner."""
    scores = np.where(among, ranked.scores.astype(np.float64), -np.inf)
    first = np.argmax(scores, axis=1)
    rows = np.arange(len(scores))
    owners = np.where(among[rows, first], ranked.owners[rows, first], NOBODY)
    return scores[rows, first], owners
