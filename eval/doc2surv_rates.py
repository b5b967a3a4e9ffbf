"""Shares of tracks and of comparisons with intervals over people, and thresholds for them.

People are drawn with replacement, all their tracks with them; models, slices and rates of one half
see the same draws, so that they can be subtracted resample by resample. The interval is BCa,
widened by what few people (or few who err) know of their own spread: Student's t of Satterthwaite's
degrees of freedom of the variance. For comparisons of two people the product of multiplicities
spreads up to 1.7 times too wide (Owen 2007): its resamples are drawn together until their variance
is the dyadic one. `eval.bench.interval_coverage` checks both: nominal 95 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.doc2surv_pairs import CrossExceedances
from facerec.checks import InputError
from facerec.metrics.bootstrap import Interval, bca_interval, percentile_interval
from facerec.metrics.exceedances import draw_people, resampled_rates

LEAST_PEOPLE = 10
"""Of fewer people no rate is given: their bootstrap knows nothing of other people."""

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Figure:
    """One rate, or why there is none.

    Attributes:
        name: such as "fnmr" or "fpir".
        value: in [0, 1]; None where it is not supported.
        interval: over people; None without a value.
        errors: how many of the trials count towards it.
        trials: tracks, people or comparisons.
        people: who have any of the trials.
        reason: "" where there is a value, else a sentence that begins with "not supported".
        by_person: float64 (s, 2), errors and trials of each person of the half; None for rates
            over pairs of people and without a value.
    """

    name: str
    value: float | None
    interval: Interval | None
    errors: int
    trials: int
    people: int
    reason: str = ""
    by_person: Floats | None = field(default=None, repr=False, compare=False)

    @property
    def supported(self) -> bool:
        """Return whether there is a value."""
        return self.value is not None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, without the people."""
        interval = self.interval
        return {
            "name": self.name,
            "value": self.value,
            "low": interval.low if interval else None,
            "high": interval.high if interval else None,
            "confidence": interval.confidence if interval else None,
            "errors": self.errors,
            "trials": self.trials,
            "people": self.people,
            "supported": self.supported,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Draws:
    """The resamples of one half's people.

    Attributes:
        times: float64 (r, s), how often each person is drawn.
        confidence: nominal coverage of intervals.
    """

    times: Floats
    confidence: float = 0.95


def draw(people: int, resamples: int, seed: int, confidence: float = 0.95) -> Draws:
    """Return the resamples of so many people; the same for the same seed."""
    return Draws(draw_people(people, resamples, seed).astype(np.float64), confidence)


def measure_share(name: str, errors: NDArray[np.bool_], people: Labels, draws: Draws) -> Figure:
    """Return the share of trials that err.

    Args:
        name: of the figure.
        errors: bool (n,).
        people: int64 (n,), each trial's person in [0, s).
        draws: of the half.
    """
    size = draws.times.shape[1]
    wrong = np.bincount(people, errors, size).astype(np.float64)
    trials = np.bincount(people, minlength=size).astype(np.float64)
    present = int(np.count_nonzero(trials))
    count, total = int(errors.sum()), int(errors.size)
    if present < LEAST_PEOPLE:
        return Figure(name, None, None, count, total, present, say_few(present))
    rate = count / total
    by_person = np.column_stack([wrong, trials])
    if 0 < count < total:
        resampled = _resample(by_person, draws)
        interval = find_interval(resampled, rate, wrong - rate * trials, draws.confidence, present)
    else:
        interval = _bound(rate, total**2 / float((trials**2).sum()), draws)
    return Figure(name, rate, interval, count, total, present, "", by_person)


def measure_pairs(name: str, sample: CrossExceedances, threshold: float, draws: Draws) -> Figure:
    """Return the share of comparisons of different people at or above a threshold.

    Args:
        name: of the figure.
        sample: must hold every score at or above the threshold.
        threshold: finite.
        draws: of the half.

    Raises:
        InputError: the sample keeps only scores above the threshold.
    """
    if not sample.covers(threshold):
        raise InputError(
            f"more than {sample.scores.size:,} comparisons of strangers reach the threshold "
            f"{threshold:.4g}: it is no operating point; are the people's names right?"
        )
    errors = sample.count_errors(threshold)
    present = int(np.count_nonzero(sample.probes + sample.enrolled))
    if present < LEAST_PEOPLE:
        return Figure(name, None, None, errors, sample.comparisons, present, say_few(present))
    rate = errors / sample.comparisons
    if 0 < errors < sample.comparisons:
        rates = resampled_rates(sample, draws.times, threshold)  # type: ignore[arg-type]
        spread = float(np.nanvar(rates))
        share = min(1.0, math.sqrt(sample.variance(threshold) / spread)) if spread else 1.0
        pulled = rate + (rates - rate) * share
        moved = sample.influence(threshold)
        interval = find_interval(pulled, rate, moved, draws.confidence, present)
    else:
        interval = _bound(rate, sample.units, draws)
    return Figure(name, rate, interval, errors, sample.comparisons, present)


def subtract(name: str, first: Floats, second: Floats, draws: Draws) -> Figure:
    """Return the difference of two shares over the same people, from the same resamples.

    Args:
        name: of the figure.
        first: float64 (s, 2), errors and trials of each person.
        second: likewise; first - second is measured.
        draws: of those people.
    """
    rates = [float(each[:, 0].sum() / each[:, 1].sum()) for each in (first, second)]
    present = int(np.count_nonzero(first[:, 1] + second[:, 1]))
    resampled = _resample(first, draws) - _resample(second, draws)
    moved = [
        (each[:, 0] - rate * each[:, 1]) / each[:, 1].sum()
        for each, rate in zip((first, second), rates, strict=True)
    ]
    value = rates[0] - rates[1]
    interval = find_interval(
        resampled, value, moved[0] - moved[1], draws.confidence, present, low=-1.0
    )
    errors = int(first[:, 0].sum() - second[:, 0].sum())
    return Figure(name, value, interval, errors, int(first[:, 1].sum()), present)


def mirror(figure: Figure, name: str) -> Figure:
    """Return 1 - a share, such as TPIR of FNIR."""
    if figure.value is None or figure.interval is None:
        errors = figure.trials - figure.errors
        return Figure(name, None, None, errors, figure.trials, figure.people, figure.reason)
    old = figure.interval
    interval = Interval(1 - old.high, 1 - old.low, old.confidence, old.resamples)
    errors = figure.trials - figure.errors
    return Figure(name, 1 - figure.value, interval, errors, figure.trials, figure.people)


def refuse(name: str, reason: str) -> Figure:
    """Return a figure without a value."""
    return Figure(name, None, None, 0, 0, 0, f"not supported: {reason}")


def say_few(people: int) -> str:
    """Return why so few people support no rate."""
    return f"not supported: {people} people, at least {LEAST_PEOPLE} are needed"


def find_interval(
    resampled: Floats,
    estimate: float,
    influence: Floats,
    confidence: float,
    people: int,
    *,
    low: float = 0.0,
    high: float = 1.0,
) -> Interval:
    """Return the BCa interval, widened for few people and cut to what is possible.

    Args:
        resampled: (r,), NaN where a resample had no trial.
        estimate: of the sample itself.
        influence: (s,), what each person moves the figure, to scale.
        confidence: nominal coverage.
        people: who have any trial.
        low: least possible figure.
        high: greatest possible figure.
    """
    made = resampled[np.isfinite(resampled)]
    if not made.size or made.min() == made.max():
        found = percentile_interval(resampled, confidence)
        return Interval(found.low, found.high, confidence, resampled.size)
    found = bca_interval(made, estimate, influence, confidence)
    factor = _widen(influence, people, confidence)
    lower, upper = (_stretch(end, estimate, factor, low, high) for end in (found.low, found.high))
    return Interval(lower, upper, confidence, resampled.size)


def _stretch(end: float, estimate: float, factor: float, low: float, high: float) -> float:
    """Return an end moved away from the estimate, on the linear or the logit scale of [low, high].

    The scale that moves it less: rates near an end of the scale have a short tail towards it.
    """
    places = [(value - low) / (high - low) for value in (end, estimate)]
    if not all(0 < place < 1 for place in places):
        return float(np.clip(end, low, high))
    there, here = (math.log(place / (1 - place)) for place in places)
    curved = low + (high - low) / (1 + math.exp(-(here + (there - here) * factor)))
    straight = estimate + (end - estimate) * factor
    return max(curved, straight) if end < estimate else min(curved, straight)


def _widen(influence: Floats, people: int, confidence: float) -> float:
    """Return by how much people who know their spread from one another widen an interval."""
    from scipy.stats import t

    squares, fourths = float((influence**2).sum()), float((influence**4).sum())
    noise = fourths - squares**2 / people
    freedom = 2 * squares**2 / noise if noise > 0 else people - 1.0
    quantile = (1 + confidence) / 2
    student = float(t.ppf(quantile, max(min(freedom, people - 1), 1)))
    return math.sqrt(people / (people - 1)) * student / NormalDist().inv_cdf(quantile)


def _resample(by_person: Floats, draws: Draws) -> Floats:
    sums = draws.times @ by_person
    with np.errstate(invalid="ignore"):
        rates: Floats = sums[:, 0] / sums[:, 1]
    return rates


def _bound(rate: float, units: float, draws: Draws) -> Interval:
    """Return the interval where no trial errs, or every one (at 95 % the rule of three)."""
    most = -math.expm1(math.log1p(-draws.confidence) / units)
    low, high = (0.0, most) if rate == 0 else (1 - most, 1.0)
    return Interval(low, high, draws.confidence, len(draws.times))
