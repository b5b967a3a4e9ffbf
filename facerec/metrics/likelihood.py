"""From scores to likelihood ratios: how much a score is worth as evidence, and what it costs.

A likelihood ratio says how many times likelier a score is if both pictures show one person than
if they show two. Its logarithm (natural here) is calibrated when acting on it at any prior costs
what it promises; Cllr measures that over all priors, in bits (Brummer and du Preez,
Application-independent evaluation of speaker detection, 2006). minCllr is what is left of it when
the scores are calibrated on the very labels that judge them, by the best map that keeps their
order (pool adjacent violators): the loss of discrimination. The rest is the loss of calibration.

A score of -inf is a comparison that could not be made. It says nothing: log-likelihood ratio 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facerec.checks import InputError, check_range
from facerec.metrics.verification import check_scores

Floats = NDArray[np.float64]

_STEPS = 100


@dataclass(frozen=True)
class LogisticCalibration:
    """Log-likelihood ratio = slope * score + offset.

    Attributes:
        slope: natural log units a unit of score.
        offset: log-likelihood ratio at score 0.
    """

    slope: float
    offset: float

    def llr(self, scores: ArrayLike) -> Floats:
        """Return natural log-likelihood ratios, float64, of scores of any shape."""
        values = np.asarray(scores, dtype=np.float64)
        made = values > -np.inf
        found: Floats = np.where(made, self.slope * np.where(made, values, 0) + self.offset, 0.0)
        return found


@dataclass(frozen=True)
class StepCalibration:
    """Log-likelihood ratio as a rising staircase of the score.

    Attributes:
        scores: float64 (k,), rising: where each step begins.
        llrs: float64 (k,), rising, finite: the steps; below the first score the first holds too.
    """

    scores: Floats
    llrs: Floats

    def llr(self, scores: ArrayLike) -> Floats:
        """Return natural log-likelihood ratios, float64, of scores of any shape."""
        values = np.asarray(scores, dtype=np.float64)
        places = np.searchsorted(self.scores, values, side="right") - 1
        found: Floats = np.where(values > -np.inf, self.llrs[np.maximum(places, 0)], 0.0)
        return found


@dataclass(frozen=True)
class CalibrationLoss:
    """Cost of log-likelihood ratios in bits.

    Attributes:
        cllr: of the ratios as they are; 1 is what knowing nothing costs.
        min_cllr: after the best monotone map: loss of discrimination.
    """

    cllr: float
    min_cllr: float

    @property
    def calibration(self) -> float:
        """Loss of calibration, cllr - min_cllr."""
        return self.cllr - self.min_cllr


def cllr(mated_llrs: ArrayLike, non_mated_llrs: ArrayLike) -> float:
    """Return the log-likelihood-ratio cost in bits: the mean of both kinds' mean costs.

    Args:
        mated_llrs: natural log-likelihood ratios of mated comparisons, at least one; infinite
            ones are allowed and cost nothing or infinitely much.
        non_mated_llrs: likewise of non-mated ones.

    Raises:
        InputError: NaN, or none of a kind.
    """
    costs = []
    for llrs, sign, name in ((mated_llrs, -1.0, "mated"), (non_mated_llrs, 1.0, "non-mated")):
        values = np.asarray(llrs, dtype=np.float64).reshape(-1)
        if not values.size or np.isnan(values).any():
            raise InputError(
                f"{name} log-likelihood ratios must be numbers, at least one, got "
                + ("NaN" if values.size else "none")
            )
        costs.append(float(np.logaddexp(0.0, sign * values).mean()))
    return (costs[0] + costs[1]) / 2 / float(np.log(2))


def calibration_loss(llrs: ArrayLike, same: ArrayLike) -> CalibrationLoss:
    """Return what log-likelihood ratios cost and what they would cost at best.

    Args:
        llrs: (n,), finite.
        same: (n,) boolean or 0/1.

    Raises:
        InputError: as `verification.check_scores`.
    """
    values, labels = check_scores(llrs, same)
    return CalibrationLoss(
        cllr=cllr(values[labels], values[~labels]), min_cllr=min_cllr(values, labels)
    )


def min_cllr(scores: ArrayLike, same: ArrayLike) -> float:
    """Return Cllr after the best monotone map of the scores, in bits; 0 when they separate.

    Depends on the order of the scores alone. Failures stand at log-likelihood ratio 0.

    Args:
        scores: (n,), larger is more alike; -inf is a failure.
        same: (n,) boolean or 0/1.

    Raises:
        InputError: as `verification.check_scores`.
    """
    values, labels = check_scores(scores, same)
    made = values > -np.inf
    kinds = np.array([np.count_nonzero(labels[made]), np.count_nonzero(~labels[made])])
    failed = np.array([np.count_nonzero(labels), np.count_nonzero(~labels)]) - kinds
    if not kinds.all():
        return 1.0  # without one kind's scores nothing tells the kinds apart
    _, counts = _pool_scores(values[made], labels[made])
    with np.errstate(divide="ignore"):
        llrs = np.log(counts[0] / kinds[0]) - np.log(counts[1] / kinds[1])
    cost = 0.0
    for kind, sign in ((0, -1.0), (1, 1.0)):
        seen = counts[kind] > 0  # a step without this kind costs it nothing
        paid = float(counts[kind][seen] @ np.logaddexp(0.0, sign * llrs[seen])) / np.log(2)
        cost += (paid + failed[kind]) / (kinds[kind] + failed[kind]) / 2
    return cost


def fit_logistic(
    scores: ArrayLike, same: ArrayLike, *, smoothing: float = 1.0
) -> LogisticCalibration:
    """Return the line of least Cllr: logistic regression in which both kinds weigh the same.

    Args:
        scores: (n,), larger is more alike; failures (-inf) are left out.
        same: (n,) boolean or 0/1.
        smoothing: made-up comparisons of the other kind that soften each kind's labels (Platt
            1999); they keep the slope finite when the kinds do not overlap and fade as n grows.
            0 is plain maximum likelihood.

    Raises:
        InputError: as `verification.check_scores`; one kind without a score; all scores equal;
            smoothing 0 and scores that separate the kinds.
    """
    check_range(smoothing, "smoothing", 0, 1e6)
    values, labels = _made_scores(scores, same)
    spread = float(values.std())
    if not spread:
        raise InputError("a calibration needs different scores, but all are equal")
    wrong, right = values[~labels], values[labels]
    apart = wrong.max() < right.min() or right.max() < wrong.min()
    if apart and not smoothing:
        raise InputError(
            "the scores separate mated from non-mated comparisons, so that any slope would do; "
            "give more scores or smoothing above 0"
        )
    centre = float(values.mean())
    x = (values - centre) / spread
    sizes = np.where(labels, right.size, wrong.size)
    # One made-up comparison among n real ones: label (n + 1) / (n + 2), and 1 / (n + 2).
    soft = smoothing / (sizes + 2 * smoothing)
    targets = np.where(labels, 1 - soft, soft)
    slope, offset = _climb(x, targets, 0.5 / sizes)
    return LogisticCalibration(slope / spread, offset - slope * centre / spread)


def fit_pav(scores: ArrayLike, same: ArrayLike) -> StepCalibration:
    """Return the best monotone map, kept finite by one made-up comparison of each kind at each end.

    Args:
        scores: (n,), larger is more alike; failures (-inf) are left out.
        same: (n,) boolean or 0/1.

    Raises:
        InputError: as `verification.check_scores`; one kind without a score.
    """
    values, labels = _made_scores(scores, same)
    sizes = np.array([np.count_nonzero(labels), np.count_nonzero(~labels)])
    # With both kinds at both ends, no step is left without one of them.
    ends = np.array([values.min(), values.max()])
    starts, counts = _pool_scores(
        np.concatenate([values, ends, ends]),
        np.concatenate([labels, [True, True, False, False]]),
    )
    llrs = np.log(counts[0] / (sizes[0] + 2)) - np.log(counts[1] / (sizes[1] + 2))
    return StepCalibration(starts, llrs)


def _made_scores(scores: ArrayLike, same: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the scores that are no failures, both kinds present."""
    values, labels = check_scores(scores, same)
    made = values > -np.inf
    values, labels = values[made].astype(np.float64), labels[made]
    for count, name in ((labels.sum(), "mated"), ((~labels).sum(), "non-mated")):
        if not count:
            raise InputError(f"a calibration needs {name} scores, but all of them are failures")
    return values, labels


def _pool_scores(values: NDArray[Any], labels: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return where each pooled step begins, rising, and its mated and non-mated counts (2, k)."""
    from scipy.optimize import isotonic_regression

    starts, places = np.unique(values, return_inverse=True)
    sizes = np.bincount(places)
    mated = np.bincount(places, labels)
    pooled = isotonic_regression(mated / sizes, weights=sizes)
    first = pooled.blocks[:-1]
    right, every = np.add.reduceat(mated, first), np.add.reduceat(sizes, first)
    return starts[first].astype(np.float64), np.stack([right, (every - right).astype(np.float64)])


def _climb(x: Floats, targets: Floats, weights: Floats) -> tuple[float, float]:
    """Return slope and offset of greatest weighted likelihood, by damped Newton steps."""
    design = np.stack([x, np.ones_like(x)])
    place = np.zeros(2)

    def cost(at: Floats) -> float:
        logits = at @ design
        return float(weights @ (np.logaddexp(0.0, logits) - targets * logits))

    best = cost(place)
    for _ in range(_STEPS):
        chance = 0.5 * (1 + np.tanh(place @ design / 2))
        slope = design @ (weights * (chance - targets))
        bend = (design * (weights * chance * (1 - chance))) @ design.T
        step = np.linalg.solve(bend + 1e-12 * np.eye(2), slope)
        size = 1.0
        while (found := cost(place - size * step)) > best and size > 1e-6:
            size /= 2
        if best - found <= 1e-15:
            break
        place, best = place - size * step, found
    return float(place[0]), float(place[1])
