"""Rank and open-set figures of searches in one or several galleries, with intervals over people.

Definitions are those of ISO/IEC 19795-1:2021, as in `facerec.metrics.identification`. FPIR(N, T) is
the share of non-mated probes that return anybody at or above T; TPIR(N, R, T) is the share of mated
probes whose person is at or above T and among the R best. The threshold for a target FPIR comes
from the non-mated probes' best scores: the lowest that does not exceed the target, never the
nearest. Where two galleries are searched apart, a figure is the mean of theirs. The galleries stay
as they are in a resample; the probes' people are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from eval.protocol_results import Rate, build_rate, iter_draws, keep_interval, widen_certain
from eval.protocol_search import Search
from facerec.checks import InputError, check_whole
from facerec.metrics.bootstrap import Interval, percentile_interval
from facerec.metrics.identification import SearchScores
from facerec.metrics.verification import count_allowed

Floats = NDArray[np.float64]
# Weights of the mated and of the non-mated probes of each search -> figures.
Figures = Callable[[list[tuple[Floats, Floats]]], Floats]


def measure_ranks(
    searches: Sequence[Search], ranks: Sequence[int], *, resamples: int = 1000, seed: int = 0
) -> list[Rate]:
    """Return closed-set identification: the share of mated probes found among the k best.

    Args:
        searches: one a gallery; a figure is their mean.
        ranks: k, each at least 1.
        resamples: of people, for 95 % intervals; 0 for none.
        seed: of the resamples.
    """
    for rank in ranks:
        check_whole(rank, "rank", 1, 10**9)
    names = [f"rank-{rank}" for rank in ranks]
    if not all(search.own.size for search in searches):
        reason = "not supported: no probe of an enrolled person"
        return [Rate(name, None, reason=reason) for name in names]
    hits = [
        np.stack([(search.ranks > 0) & (search.ranks <= rank) for rank in ranks])
        for search in searches
    ]
    values = np.mean([found.mean(axis=1) for found in hits], axis=0)

    def figures(weights: list[tuple[Floats, Floats]]) -> Floats:
        means: Floats = np.mean(
            [
                found @ mated / mated.sum() if mated.sum() else np.full(len(names), np.nan)
                for found, (mated, _) in zip(hits, weights, strict=True)
            ],
            axis=0,
        )
        return means

    intervals = _bootstrap(searches, figures, len(names), resamples, seed)
    trials = sum(search.own.size for search in searches)
    people = np.concatenate([search.mated_people for search in searches])
    return [
        widen_certain(Rate(name, float(value), trials=trials, interval=interval), people)
        for name, value, interval in zip(names, values, intervals, strict=True)
    ]


def measure_tpir(
    searches: Sequence[Search],
    fpirs: Sequence[float],
    rank: int | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> list[list[Rate]]:
    """Return TPIR at each target FPIR: the mean over galleries, then each gallery's own.

    Each gallery has its own threshold, from its own non-mated probes. A mean is supported where
    each of its parts is.

    Args:
        searches: one a gallery.
        fpirs: targets in (0, 1].
        rank: R, the length of the candidate list; None = all.
        resamples: of people, for 95 % intervals; 0 for none.
        seed: of the resamples.

    Returns:
        A list a target: first the mean (threshold None where there are several galleries).
    """
    name = "tpir" if rank is None else f"tpir{rank}"
    missing = [kind for kind in ("mated", "non-mated") if not all(_sizes(searches, kind))]
    if missing:
        reason = f"not supported: no {missing[0]} probe"
        return [[Rate(name, None, fpir, reason=reason)] for fpir in fpirs]
    tables = [_SearchTable(search.scores(rank)) for search in searches]

    def figures(weights: list[tuple[Floats, Floats]]) -> Floats:
        each = np.array(
            [table.weighted(fpirs, *pair) for table, pair in zip(tables, weights, strict=True)]
        )
        return np.concatenate([each.mean(axis=0), each.ravel()])

    count = len(fpirs)
    intervals = _bootstrap(searches, figures, count * (1 + len(searches)), resamples, seed)
    people = np.concatenate([search.mated_people for search in searches])
    rates = []
    for place, fpir in enumerate(fpirs):
        each = [
            widen_certain(
                table.rate(name, fpir, intervals[count * (1 + number) + place]),
                search.mated_people,
            )
            for number, (table, search) in enumerate(zip(tables, searches, strict=True))
        ]
        mean = _average(name, fpir, each, intervals[place])
        rates.append([widen_certain(mean, people), *each])
    return rates


def choose_threshold(scores: SearchScores, fpir: float) -> float:
    """Return the lowest observed score whose FPIR does not exceed a target.

    Just above the greatest score where there is none.

    Raises:
        InputError: no non-mated probe, or a target outside (0, 1].
    """
    if not scores.best.size:
        raise InputError("FPIR needs probes of people who are not enrolled, got none")
    allowed = count_allowed(fpir, scores.best.size)
    kind = scores.best.dtype.type
    barrier = kind(-np.inf)
    if allowed < scores.best.size:
        barrier = np.sort(scores.best)[::-1][allowed]
    threshold = min(
        np.min(scores.own[scores.own > barrier], initial=np.inf),
        np.min(scores.best[scores.best > barrier], initial=np.inf),
    )
    return float(np.nextafter(barrier, kind(np.inf)) if threshold == np.inf else threshold)


class _SearchTable:
    """Scores in falling order, so that a resample costs no sorting."""

    def __init__(self, scores: SearchScores) -> None:
        self._scores = scores
        self._own_order = np.argsort(-scores.own, kind="stable")
        self._best_order = np.argsort(-scores.best, kind="stable")
        self._own = scores.own[self._own_order]
        self._best = scores.best[self._best_order]
        # The last of each run of equal scores: they alarm together or not at all.
        self._last = np.append(
            np.flatnonzero(self._best[1:] != self._best[:-1]), self._best.size - 1
        )

    def rate(self, name: str, fpir: float, interval: Interval | None) -> Rate:
        threshold = choose_threshold(self._scores, fpir)
        found = self._scores.rates(threshold)
        return build_rate(
            name,
            found.tpir or 0.0,
            target=fpir,
            threshold=threshold,
            errors=found.false_alarms,
            trials=found.non_mated,
            interval=interval,
        )

    def weighted(self, fpirs: Sequence[float], mated: Floats, non_mated: Floats) -> Floats:
        """Return TPIR at each target for weights of the probes; NaN without any."""
        right = np.concatenate([[0.0], np.cumsum(mated[self._own_order])])
        wrong = np.cumsum(non_mated[self._best_order])
        if not right[-1] or not wrong[-1]:
            return np.full(len(fpirs), np.nan)
        shares = wrong[self._last] / wrong[-1]
        # A failure is never an alarm, however lax the target.
        taken = np.searchsorted(shares, np.asarray(fpirs), side="right")
        barriers = np.append(self._best[self._last], -np.inf)[taken]
        accepted = np.searchsorted(-self._own, -barriers, side="left")
        tpirs: Floats = right[accepted] / right[-1]
        return tpirs


def _average(name: str, fpir: float, each: list[Rate], interval: Interval | None) -> Rate:
    if len(each) == 1:
        return each[0]
    lost = next((rate for rate in each if rate.value is None), None)
    if lost is not None:
        return Rate(name, None, fpir, trials=lost.trials, allowed=lost.allowed, reason=lost.reason)
    value = float(np.mean([rate.value for rate in each if rate.value is not None]))
    return Rate(
        name,
        value,
        fpir,
        errors=sum(rate.errors or 0 for rate in each),
        allowed=sum(rate.allowed or 0 for rate in each),
        trials=sum(rate.trials or 0 for rate in each),
        interval=interval,
    )


def _sizes(searches: Sequence[Search], kind: str) -> list[int]:
    return [search.own.size if kind == "mated" else search.best.size for search in searches]


def _bootstrap(
    searches: Sequence[Search], figures: Figures, count: int, resamples: int, seed: int
) -> list[Interval | None]:
    """Return the interval of each figure; all searches see the same people drawn."""
    if not resamples:
        return [None] * count
    groups = [row for search in searches for row in (search.mated_people, search.non_mated_people)]
    names, codes = np.unique(np.concatenate(groups), return_inverse=True)
    parts = np.split(codes, np.cumsum([row.size for row in groups])[:-1])
    table = np.empty((resamples, count))
    for row, times in enumerate(iter_draws(names.size, resamples, seed)):
        weights = [times[part] for part in parts]
        table[row] = figures(list(zip(weights[::2], weights[1::2], strict=True)))
    return [keep_interval(percentile_interval(column)) for column in table.T]
