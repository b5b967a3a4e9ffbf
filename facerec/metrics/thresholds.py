"""Thresholds for a stated error rate, from strangers' scores, with what they are worth.

What supports a threshold is counted in people. n independent people give target * n errors:

- from 3 on (the rule of three: with fewer, not one error may show) the extreme-value tail of
  `tail_choice` is used, which reaches 10 times further than the sample's own quantile could;
- from 30 on (the rule of thirty: the rate is known to 30 % with 90 % confidence) the sample's own
  quantile will do, where the tail does not fit;
- below 3 there is no threshold, but the number of people that would give one.

On real faces (eval/bench/calibration_honesty.py) the tail was better wherever it fitted, also where
the quantile was supported: at FPIR 1 % from 996 people the realised rate spread by 35 % of the
target instead of 41 %, at 5 % by 17 % instead of 19 %. From 3 expected errors the realised rate was
1.05 times the target in the mean; from 1 it was 1.4 times, and the intervals held too seldom.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facerec.checks import InputError, check_one_of, check_range, check_whole
from facerec.metrics.bootstrap import Interval, bca_interval, percentile_interval
from facerec.metrics.error_rates import LEAST_RESAMPLES, MOST_PEOPLE, scale_fpir
from facerec.metrics.exceedances import (
    MOST_PAIRS,
    Exceedances,
    collect_best,
    collect_pairs,
    draw_people,
    resampled_rates,
    resampled_thresholds,
)
from facerec.metrics.tail_choice import SampleTail, choose_tail
from facerec.metrics.threshold_results import RateThreshold, Spread, TailSummary

LEAST_ERRORS = 30
LEAST_TAIL_ERRORS = 3
LEAST_INDEPENDENT = 10
"""Errors that share no person, of those that a quantile rests on."""

METHODS = ("auto", "tail", "empirical")
_LEAST_TARGET, _MOST_TARGET = 1e-12, 0.5
_MOST_ABOVE = {"fpir": 0.5, "fmr": 0.01}  # of a sample, above the lowest cut tried
_FIRST_DEPTH = 200_000


def calibrate_fpir(
    best: ArrayLike,
    subjects: ArrayLike,
    people: int,
    target: float,
    *,
    planned_people: int | None = None,
    weighting: str = "subjects",
    method: str = "auto",
    end: float = 1.0,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> RateThreshold:
    """Return the threshold whose FPIR is `target`, or why there is none.

    Args:
        best: float (m,), each non-mated probe's best score against the whole gallery; -inf is a
            probe that could not be searched: it counts and never errs.
        subjects: (m,), the probe's person, who is not enrolled.
        people: N, how many people the gallery had when it was searched.
        target: FPIR in (0, 0.5].
        planned_people: the size the threshold is for, N when None; see `scale_fpir`.
        weighting: "subjects" or "transactions"; see `facerec.metrics.error_rates`.
        method: "auto" as told above; "tail" or "empirical" alone, to compare.
        end: no score can be greater: 1 for cosines; for normalised scores a value far above all.
        resamples: of the subject bootstrap.
        confidence: nominal coverage of the intervals.
        seed: of the bootstrap.

    Raises:
        InputError: as `facerec.metrics.exceedances.collect_best`, or a setting out of range.
    """
    check_whole(people, "people", 1, MOST_PEOPLE)
    planned = people if planned_people is None else planned_people
    check_whole(planned, "planned_people", 1, MOST_PEOPLE)
    settings = SampleSettings("fpir", target, weighting, method, end, resamples, confidence, seed)
    sample = collect_best(best, subjects, weighting)
    return calibrate_sample(sample, settings, people, planned)


def calibrate_fmr(
    vectors: NDArray[np.float32],
    subjects: ArrayLike,
    target: float,
    *,
    weighting: str = "subjects",
    method: str = "auto",
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> RateThreshold:
    """Return the threshold whose FMR over comparisons of different people is `target`.

    All m (m - 1) / 2 comparisons are made, in blocks; only the greatest are held. The expected
    errors count pairs of people, not people: rare false matches have little in common, and where
    they have, the two-way subject bootstrap widens the intervals.

    Args:
        vectors: float32 (m, d), unit norm.
        subjects: (m,), whose each is.
        target: FMR in (0, 0.5].
        weighting: "subjects" (each pair of people weighs the same) or "transactions".
        method: as `calibrate_fpir`.
        resamples: of the bootstrap.
        confidence: nominal coverage of the intervals.
        seed: of the bootstrap.

    Raises:
        InputError: as `facerec.metrics.exceedances.collect_pairs`, a setting out of range, or more
            than 20 million comparisons above the threshold.
    """
    settings = SampleSettings("fmr", target, weighting, method, 1.0, resamples, confidence, seed)
    count = len(vectors)
    depth = max(_FIRST_DEPTH, math.ceil(4 * target * count * (count - 1) / 2))
    while True:
        if depth > MOST_PAIRS:
            raise InputError(
                f"an FMR of {target:g} over {count} pictures needs more than {MOST_PAIRS} of the "
                "greatest scores at once; give a random part of the people"
            )
        sample = collect_pairs(vectors, subjects, depth, weighting=weighting)
        # Where people weigh the same, the greatest scores may be those of light comparisons.
        if sample.floor == -np.inf or sample.cumulate()[-1] >= 2.5 * target:
            return calibrate_sample(sample, settings, None, None)
        depth *= 4


@dataclass(frozen=True)
class SampleSettings:
    """What is asked of a sample of non-mated scores.

    Attributes:
        kind: "fpir" or "fmr".
        target: the stated rate.
        weighting: as the sample was collected.
        method: one of METHODS.
        end: no score can be greater.
        resamples: of the subject bootstrap.
        confidence: of the intervals.
        seed: of the bootstrap.

    Raises:
        InputError: a setting out of range.
    """

    kind: str
    target: float
    weighting: str
    method: str
    end: float
    resamples: int
    confidence: float
    seed: int

    def __post_init__(self) -> None:
        check_range(self.target, f"target {self.kind.upper()}", _LEAST_TARGET, _MOST_TARGET)
        check_one_of(self.method, "method", METHODS)
        check_range(self.confidence, "confidence", 0.5, 0.9999)
        check_whole(self.resamples, "resamples", LEAST_RESAMPLES, 10**6)


@dataclass(frozen=True)
class _Found:
    """A threshold at the size searched; without one, why and how many people would give one."""

    method: str
    reason: str
    tail: SampleTail | None = None
    needed: int | None = None
    threshold: float | None = None
    rate: float = 0.0
    rate_interval: Interval | None = None
    threshold_interval: Interval | None = None
    variance: float = 0.0  # relative, of the rate over resamples


def calibrate_sample(
    sample: Exceedances, settings: SampleSettings, searched: int | None, planned: int | None
) -> RateThreshold:
    """Find the threshold at the size searched and describe it at the size planned.

    Args:
        sample: non-mated scores.
        settings: what is asked.
        searched: people of the gallery that was searched; None for 1:1.
        planned: people that the threshold is for; None for 1:1.
    """
    target = settings.target
    scale: Callable[[float], float] = _keep
    if searched is not None and planned is not None:
        target = scale_fpir(target, planned, searched)
        scale = partial(_scale_rate, searched=searched, planned=planned)
    times = draw_people(sample.people, settings.resamples, settings.seed)
    found = _choose(sample, times, settings, target)
    made: dict[str, Any] = {}
    if found.threshold is not None and found.rate_interval is not None:
        low, high = scale(found.rate_interval.low), scale(found.rate_interval.high)
        made = {
            "threshold": found.threshold,
            "rate": scale(found.rate),
            "rate_interval": Interval(low, high, settings.confidence, settings.resamples),
            "threshold_interval": found.threshold_interval,
            "errors": sample.count_errors(found.threshold),
            "independent_errors": sample.count_independent(found.threshold),
            "spread": _measure_spread(sample, times, target, found.variance),
        }
    return RateThreshold(
        kind=settings.kind,
        target=settings.target,
        method=found.method,
        reason=found.reason,
        weighting=settings.weighting,
        subjects=sample.people,
        comparisons=sample.comparisons,
        expected_errors=target * sample.units,
        confidence=settings.confidence,
        resamples=settings.resamples,
        seed=settings.seed,
        people=planned,
        searched_people=searched,
        needed_subjects=found.needed,
        tail=_summarise(found.tail),
        **made,
    )


def _keep(rate: float) -> float:
    return rate


def _scale_rate(rate: float, searched: int, planned: int) -> float:
    # The rate of a resample may reach 1, where nothing is left to scale.
    return scale_fpir(min(rate, math.nextafter(1, 0)), searched, planned)


def _choose(
    sample: Exceedances, times: NDArray[np.int64], settings: SampleSettings, target: float
) -> _Found:
    expected = target * sample.units
    if expected < LEAST_TAIL_ERRORS:
        needed = sample.count_needed(LEAST_TAIL_ERRORS / target)
        return _Found(
            "none",
            f"{sample.people} people let {expected:.2g} errors be expected at a rate of "
            f"{target:.3g}, at least {LEAST_TAIL_ERRORS} are needed: about {needed} people",
            needed=needed,
        )
    tail = None
    if settings.method != "empirical":
        lowest = max(_MOST_ABOVE[settings.kind], min(4 * target, 0.5))
        tail = choose_tail(sample, times, lowest, 2 * target, end=settings.end)
        if tail is not None and tail.fits:
            return _use_tail(tail, target, settings)
    why = _explain_tail(tail)
    if settings.method == "tail" or expected < LEAST_ERRORS:
        needed = sample.count_needed(LEAST_ERRORS / target)
        return _Found("none", f"{why}; without it about {needed} people are needed", tail, needed)
    return _use_quantile(sample, times, target, settings, tail)


def _use_tail(tail: SampleTail, target: float, settings: SampleSettings) -> _Found:
    exact = float(tail.point.threshold(target)[0])
    # Scores are float32: the least of them that is not below.
    threshold = np.float32(exact)
    if float(threshold) < exact:
        threshold = np.nextafter(threshold, np.float32(np.inf))
    value = float(threshold)
    rates = tail.resampled.rate(value)
    return _Found(
        "tail",
        f"the extreme-value tail of {tail.share:.2g} of the scores, fitted to {tail.above} that "
        "share no person",
        tail,
        None,
        value,
        float(tail.point.rate(value)[0]),
        percentile_interval(rates, settings.confidence),
        percentile_interval(tail.resampled.threshold(target), settings.confidence),
        float(rates.var() / rates.mean() ** 2),
    )


def _use_quantile(
    sample: Exceedances,
    times: NDArray[np.int64],
    target: float,
    settings: SampleSettings,
    tail: SampleTail | None,
) -> _Found:
    """Return the lowest score whose share does not exceed the target, if people support it."""
    shares = sample.cumulate()
    taken = int(np.searchsorted(shares, target, side="right"))
    threshold = float(sample.scores[taken - 1]) if taken else np.inf
    independent = sample.count_independent(threshold)
    if independent < LEAST_INDEPENDENT:
        # Twice the people make twice the people that err.
        needed = sample.people * math.ceil(LEAST_INDEPENDENT / max(independent, 1))
        return _Found(
            "none",
            f"the highest scores come from {independent} independent findings, at least "
            f"{LEAST_INDEPENDENT} are needed: look whether somebody among them is enrolled or "
            "bears two names",
            tail,
            needed,
        )
    rate = float(shares[taken - 1])
    rates = resampled_rates(sample, times, threshold)
    return _Found(
        "empirical",
        f"the sample's own quantile, {taken} errors of {independent} independent findings"
        + (f"; {_explain_tail(tail)}" if tail is not None else ""),
        tail,
        None,
        threshold,
        rate,
        bca_interval(rates, rate, sample.influence(threshold), settings.confidence),
        percentile_interval(resampled_thresholds(sample, times, target), settings.confidence),
        float(rates.var() / rates.mean() ** 2),
    )


def _explain_tail(tail: SampleTail | None) -> str:
    if tail is None:
        return "too few people score high enough for the tail to be fitted"
    return (
        f"the highest scores do not follow the tail of strangers' scores (gap of {tail.misfit:.1f} "
        f"standard deviations): look whether somebody among them is enrolled or bears two names"
    )


def _measure_spread(
    sample: Exceedances, times: NDArray[np.int64], target: float, estimate: float
) -> Spread:
    """Return how a rate observed at the threshold spreads, from a level where errors are many."""
    shares = sample.cumulate()
    level = max(target, min(LEAST_ERRORS / sample.units, 0.5))
    place = max(int(np.searchsorted(shares, level, side="right")) - 1, 0)
    rates = resampled_rates(sample, times, float(sample.scores[place]))
    share = float(rates.mean())
    seen = float(rates.var() / share**2)
    if sample.second is None:
        # A binomial share of fewer people: what is above the level falls as the errors do.
        errors = share * sample.units / max(1 - share, 1e-9)
        return Spread(estimate, seen * errors * (1 - target) / (target * sample.units), 0.0)
    common = max(seen - 1 / (share * sample.units), 0.0)
    return Spread(estimate, common, 1 / (target * sample.units))


def _summarise(tail: SampleTail | None) -> TailSummary | None:
    if tail is None:
        return None
    level, scale, shape = (
        float(a[0]) for a in (tail.point.level, tail.point.scale, tail.point.shape)
    )
    return TailSummary(tail.point.cut, tail.share, tail.above, level, scale, shape, tail.misfit)
