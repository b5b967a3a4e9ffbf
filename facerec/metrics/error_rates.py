"""What strangers do at a threshold that is given: FPIR and FMR with an interval over people.

FPIR (ISO/IEC 19795-1): the share of searches by people who are not enrolled that return somebody.
FMR: the share of comparisons of different people that are accepted. By default each person (each
pair of people) weighs the same: that one person has 150 pictures and the next has one is an
accident of how a set was collected, and an operator's next stranger comes once. Where the set is a
record of real traffic, "transactions" counts every search alike.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facerec.checks import InputError, check_range, check_whole
from facerec.metrics.bootstrap import Interval, bca_interval
from facerec.metrics.exceedances import (
    Exceedances,
    collect_best,
    collect_pairs,
    draw_people,
    resampled_rates,
)

MOST_PEOPLE = 10**10
LEAST_RESAMPLES = 100


@dataclass(frozen=True)
class MeasuredRate:
    """The rate of a sample at one threshold.

    Attributes:
        rate: share of the sample at or above the threshold, in [0, 1].
        interval: of the rate, over people.
        errors: scores at or above the threshold.
        independent_errors: those among them that share no person.
        subjects: people in the sample.
        comparisons: searches or comparisons in the sample.
    """

    rate: float
    interval: Interval
    errors: int
    independent_errors: int
    subjects: int
    comparisons: int

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def scale_fpir(fpir: float, people: float, new_people: float) -> float:
    """Return the FPIR at `new_people` enrolled of a threshold whose FPIR at `people` is known.

    F' = 1 - (1 - F)^(people' / people): each person enrolled is one more independent chance. A 1:1
    FMR is the FPIR of a gallery of one person. Where the gallery's people resemble each other (one
    region, one sex) the chances overlap, and growing the gallery raises FPIR by less than this; the
    law is then careful upwards and rash downwards.

    Args:
        fpir: in [0, 1).
        people: how many are enrolled now, at least 1.
        new_people: how many will be, at least 1.
    """
    check_range(fpir, "fpir", 0, math.nextafter(1, 0))
    for count, name in ((people, "people"), (new_people, "new_people")):
        check_range(count, name, 1, MOST_PEOPLE)
    return -math.expm1(new_people / people * math.log1p(-fpir))


def measure_fpir(
    best: ArrayLike,
    subjects: ArrayLike,
    threshold: float,
    *,
    weighting: str = "subjects",
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> MeasuredRate:
    """Return the FPIR of non-mated searches at a threshold.

    Args:
        best: float (m,), each probe's best score against the whole gallery; -inf is a failure.
        subjects: (m,), the probe's person, who is not enrolled.
        threshold: a score at or above it is a false alarm.
        weighting: "subjects" or "transactions", see above.
        resamples: of the subject bootstrap.
        confidence: nominal coverage of the interval.
        seed: of the bootstrap.

    Raises:
        InputError: as `facerec.metrics.exceedances.collect_best`, or a setting out of range.
    """
    sample = collect_best(best, subjects, weighting)
    return measure_rate(sample, threshold, resamples=resamples, confidence=confidence, seed=seed)


def measure_fmr(
    vectors: NDArray[np.float32],
    subjects: ArrayLike,
    threshold: float,
    *,
    weighting: str = "subjects",
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> MeasuredRate:
    """Return the FMR of all comparisons of different people at a threshold.

    Args:
        vectors: float32 (m, d), unit norm.
        subjects: (m,), whose each is.
        threshold: a score at or above it is a false match.
        weighting: "subjects" or "transactions", see above.
        resamples: of the two-way subject bootstrap.
        confidence: nominal coverage of the interval.
        seed: of the bootstrap.

    Raises:
        InputError: as `facerec.metrics.exceedances.collect_pairs`, or a setting out of range.
    """
    sample = collect_pairs(vectors, subjects, weighting=weighting, floor=threshold)
    return measure_rate(sample, threshold, resamples=resamples, confidence=confidence, seed=seed)


def measure_rate(
    sample: Exceedances,
    threshold: float,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> MeasuredRate:
    """Return the share of a sample at or above a threshold, with its BCa interval over people.

    Without a single error the bootstrap knows nothing: the interval then reaches from 0 to what
    would show an error with probability `confidence` (at 0.95 the rule of three, 3 / n).

    Args:
        sample: must hold every score at or above the threshold.
        threshold: finite.
        resamples: how many to draw.
        confidence: nominal coverage.
        seed: of the draws.

    Raises:
        InputError: a setting out of range, or a sample whose kept scores end above the threshold.
    """
    check_range(threshold, "threshold", -1e6, 1e6)
    check_range(confidence, "confidence", 0.5, 0.9999)
    check_whole(resamples, "resamples", LEAST_RESAMPLES, 10**6)
    errors = sample.count_errors(threshold)
    if not sample.covers(threshold):
        raise InputError(
            f"the sample keeps its {sample.scores.size} greatest scores only, down to "
            f"{sample.scores[-1]:.6g}; a threshold of {threshold:.6g} needs more of them"
        )
    if errors:
        rate = float(sample.cumulate()[errors - 1])
        times = draw_people(sample.people, resamples, seed)
        rates = resampled_rates(sample, times, threshold)
        interval = bca_interval(rates, rate, sample.influence(threshold), confidence)
    else:
        rate = 0.0
        most = -math.expm1(math.log1p(-confidence) / sample.units)
        interval = Interval(0.0, most, confidence, resamples)
    independent = sample.count_independent(threshold)
    return MeasuredRate(rate, interval, errors, independent, sample.people, sample.comparisons)
