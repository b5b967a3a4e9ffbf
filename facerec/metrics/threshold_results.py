"""What a calibration found: a threshold with its intervals, or why there is none."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from facerec.checks import InputError, check_whole
from facerec.metrics.bootstrap import Interval
from facerec.metrics.error_rates import scale_fpir

_MOST_SUBJECTS = 10**9


@dataclass(frozen=True)
class Spread:
    """Relative variances of the rate at a threshold.

    Attributes:
        estimate: of the true rate at the threshold, as far as the calibration knows it.
        people: of a rate observed on as many people; falls with the number of people.
        pairs: likewise of what falls with its square, the luck of single pairs; 0 for FPIR.
    """

    estimate: float
    people: float
    pairs: float


@dataclass(frozen=True)
class TailSummary:
    """The fitted tail; see `facerec.metrics.tails`.

    Attributes:
        cut: score where it begins.
        share: of the sample, at or above the cut.
        above: scores at or above the cut that share no person.
        level: hazard at the cut.
        scale: in units of score.
        shape: in [-0.5, 0].
        misfit: the greatest gap between sample and fit, in standard deviations.
    """

    cut: float
    share: float
    above: int
    level: float
    scale: float
    shape: float
    misfit: float


@dataclass(frozen=True)
class RateThreshold:
    """A threshold for a stated error rate.

    Attributes:
        kind: "fpir" or "fmr".
        target: the stated rate.
        method: "tail", "empirical", or "none" where nothing supports a threshold.
        reason: one sentence: what the threshold rests on, or why there is none.
        weighting: "subjects" or "transactions".
        subjects: people whose scores were used.
        comparisons: searches (FPIR) or comparisons of strangers (FMR) that were used.
        expected_errors: target times independent people (FPIR) or pairs of people (FMR), the
            target being that at the size searched.
        confidence: nominal coverage of the intervals.
        resamples: of the subject bootstrap.
        seed: of the bootstrap.
        people: enrolled people that the threshold is for; None for FMR.
        searched_people: enrolled people of the gallery that was searched; None for FMR.
        threshold: a score at or above it is accepted; a float32 value; None without support.
        rate: estimated rate there, at most the target.
        rate_interval: of the true rate there.
        threshold_interval: of the threshold whose rate is the target.
        errors: scores of the sample at or above the threshold.
        independent_errors: those among them that share no person.
        needed_subjects: about how many people would support the target; None where it is supported.
        spread: what `predict` needs; None without support.
        tail: the fitted tail, also one that was refused; None where none was fitted.
    """

    kind: str
    target: float
    method: str
    reason: str
    weighting: str
    subjects: int
    comparisons: int
    expected_errors: float
    confidence: float
    resamples: int
    seed: int
    people: int | None = None
    searched_people: int | None = None
    threshold: float | None = None
    rate: float | None = None
    rate_interval: Interval | None = None
    threshold_interval: Interval | None = None
    errors: int | None = None
    independent_errors: int | None = None
    needed_subjects: int | None = None
    spread: Spread | None = None
    tail: TailSummary | None = None

    @property
    def supported(self) -> bool:
        """Return whether there is a threshold."""
        return self.threshold is not None

    def predict(self, subjects: int) -> Interval:
        """Return the interval of the rate that other strangers will show at the threshold.

        Two noises are in it: the calibration knows the true rate only so well, and so many people
        show it only so well. Errors are taken as Poisson about a rate that is gamma distributed, a
        negative binomial count. An interval of the true rate alone is too narrow for this: of two
        halves of a set it holds the other's rate in about 83 of 100 cases, not in 95.

        Args:
            subjects: how many other people there will be, of the same kind and with about as many
                pictures each.

        Raises:
            InputError: there is no threshold.
        """
        from scipy.stats import nbinom

        check_whole(subjects, "subjects", 1, _MOST_SUBJECTS)
        if self.spread is None or self.rate is None:
            raise InputError(f"nothing to predict: {self.reason}")
        rate, ratio = self._scale_rate(self.rate), self.subjects / subjects
        effective = 1 / (self.spread.people * ratio + self.spread.pairs * ratio**2)
        known = 1 / max(self.spread.estimate, 1e-9)
        tail = (1 - self.confidence) / 2
        counts = nbinom.ppf([tail, 1 - tail], known, known / (known + effective))
        low, high = (self._unscale_rate(min(rate * float(c) / effective, 1.0)) for c in counts)
        return Interval(low, high, self.confidence, self.resamples)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, `supported` among them."""
        return {**asdict(self), "supported": self.supported}

    def _scale_rate(self, rate: float) -> float:
        """Return a rate at the planned size as one at the size searched."""
        if self.people is None or self.searched_people is None:
            return rate
        return scale_fpir(rate, self.people, self.searched_people)

    def _unscale_rate(self, rate: float) -> float:
        if self.people is None or self.searched_people is None:
            return rate
        return scale_fpir(min(rate, math.nextafter(1, 0)), self.searched_people, self.people)
