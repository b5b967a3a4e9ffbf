"""One-to-one figures: TAR at a FAR, ROC, equal error rate, k-fold accuracy.

A comparison is accepted when score >= threshold. FAR is the share of non-mated comparisons that
are accepted (FMR in ISO/IEC 19795-1), TAR the share of mated ones (1 - FNMR). A score of -inf
stands for a comparison that could not be made: no threshold here accepts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facerec.checks import InputError

# Fewer possible false accepts than this, and a figure is luck: the figure is flagged.
MIN_FALSE_ACCEPTS = 10
_SAMPLE = 20_000


@dataclass(frozen=True)
class OperatingPoint:
    """TAR at one target FAR.

    Attributes:
        far: the target.
        tar: share of mated scores at or above the threshold.
        threshold: the lowest observed score whose FAR does not exceed the target; just above the
            greatest score when there is none.
        false_accepts: non-mated scores at or above the threshold.
        allowed_false_accepts: the most that the target allows, floor(far * non_mated).
        non_mated: number of non-mated comparisons.
        supported: whether at least `MIN_FALSE_ACCEPTS` false accepts were possible.
    """

    far: float
    tar: float
    threshold: float
    false_accepts: int
    allowed_false_accepts: int
    non_mated: int
    supported: bool


@dataclass(frozen=True)
class RocCurve:
    """Every operating point of a set of scores, from the strictest threshold to the laxest.

    Attributes:
        far: float64 (p,), rising from 0 to 1.
        tar: float64 (p,), rising from 0 to 1.
        thresholds: float64 (p,), falling; the first lies just above the greatest score.
    """

    far: NDArray[np.float64]
    tar: NDArray[np.float64]
    thresholds: NDArray[np.float64]


@dataclass(frozen=True)
class FoldAccuracy:
    """Accuracy of each fold at the threshold that is best on the other folds.

    Attributes:
        folds: the folds' numbers, rising.
        accuracies: float64 (k,).
        thresholds: float64 (k,).
    """

    folds: list[int]
    accuracies: NDArray[np.float64]
    thresholds: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Mean over folds."""
        return float(self.accuracies.mean())

    @property
    def std(self) -> float:
        """Standard deviation over folds (division by k, as LFW results are quoted)."""
        return float(self.accuracies.std())


def check_scores(scores: ArrayLike, same: ArrayLike) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return scores as a floating row and `same` as a boolean row of equal length.

    Raises:
        InputError: unequal lengths, NaN, +inf, values of `same` other than 0 and 1, no mated or
            no non-mated comparison.
    """
    values = np.asarray(scores)
    if not np.issubdtype(values.dtype, np.floating):
        values = values.astype(np.float64)
    labels = np.asarray(same)
    if values.ndim != 1 or labels.shape != values.shape:
        raise InputError(
            f"scores and same must be rows of equal length, got {values.shape} and {labels.shape}"
        )
    if labels.dtype != np.bool_:
        if not np.isin(labels, (0, 1)).all():
            raise InputError("same must hold only 0 and 1 (1 = one person)")
        labels = labels.astype(np.bool_)
    # Two reductions see NaN and +inf without a mask as large as the scores.
    if values.size and (np.isnan(values.min()) or values.max() == np.inf):
        row = int(np.flatnonzero(np.isnan(values) | (values == np.inf))[0])
        raise InputError(f"scores must be finite or -inf (a failure), got {values[row]} in {row}")
    mated = int(np.count_nonzero(labels))
    for count, name in ((mated, "mated"), (labels.size - mated, "non-mated")):
        if not count:
            raise InputError(
                f"of {labels.size} comparisons none is {name}; a rate needs some of both kinds"
            )
    return values, labels


def count_allowed(far: float, non_mated: int) -> int:
    """Return the greatest count k with k / non_mated <= far.

    Raises:
        InputError: far outside (0, 1].
    """
    if not 0 < far <= 1:
        raise InputError(f"a target FAR must lie in (0, 1], got {far!r}")
    count = int(far * non_mated)
    # The product may round across an integer; the quotient decides.
    while count < non_mated and (count + 1) / non_mated <= far:
        count += 1
    while count / non_mated > far:
        count -= 1
    return count


def tar_at_far(scores: ArrayLike, same: ArrayLike, fars: Sequence[float]) -> list[OperatingPoint]:
    """Return TAR at each target FAR, exactly, ties included.

    Only the top slice of the non-mated scores is partitioned.

    Args:
        scores: (n,), larger is more alike; -inf is a failure.
        same: (n,) boolean or 0/1.
        fars: targets in (0, 1].

    Returns:
        One point a target, in the order given.

    Raises:
        InputError: as `check_scores`, or a target outside (0, 1].
    """
    values, labels = check_scores(scores, same)
    mated = int(np.count_nonzero(labels))
    non_mated = values.size - mated
    depths = sorted({count_allowed(far, non_mated) for far in fars})
    right, wrong = _split_above(values, labels, depths[-1] + 1 if depths else 1)
    # Only the scores at the targets' places need to stand where a sorted row has them.
    places = [wrong.size - 1 - depth for depth in depths if depth < wrong.size]
    top = np.partition(wrong, places)[::-1] if places else wrong
    return points_from_top(right, top, non_mated, fars, mated)


def _split_above(
    values: NDArray[Any], labels: NDArray[np.bool_], count: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the mated and non-mated scores above a floor that leaves `count` non-mated ones.

    All of them where there are few, or where so many are asked for that a floor would not pay.
    """
    if values.size > 2 * _SAMPLE:
        step = values.size // _SAMPLE
        sample = np.sort(values[::step][~labels[::step]])
        # A sample's quantile, chosen low; a patterned input may belie it.
        share = count / max(values.size - np.count_nonzero(labels), 1)
        place = sample.size - 1 - int(sample.size * 1.1 * share + 50)
        if place > sample.size // 2:
            high = np.flatnonzero(values >= sample[place])
            kept, own = values[high], labels[high]
            wrong = kept.compress(~own)
            if wrong.size >= count:
                return kept.compress(own), wrong
    # compress is several times faster than a mask as an index.
    return values.compress(labels), values.compress(~labels)


def top_slice(values: NDArray[Any], count: int) -> NDArray[Any]:
    """Return the `count` greatest values, falling (all of them if there are fewer)."""
    if 20 * count < values.size > 2 * _SAMPLE:
        # A sample's quantile, chosen low, leaves little to partition; when it was too high (a
        # sorted or patterned input), everything is partitioned.
        sample = np.sort(values[:: values.size // _SAMPLE])
        place = sample.size - 1 - int(sample.size * 1.2 * count / values.size + 50)
        slice_ = values[values >= sample[place]]
        values = slice_ if slice_.size >= count else values
    if count < values.size:
        values = np.partition(values, values.size - count)[values.size - count :]
    top: NDArray[Any] = np.sort(values)[::-1]
    return top


def points_from_top(
    mated: NDArray[Any],
    top: NDArray[Any],
    non_mated: int,
    fars: Sequence[float],
    mated_total: int | None = None,
) -> list[OperatingPoint]:
    """Return operating points from all mated scores and the top of the non-mated ones.

    Args:
        mated: (m,) scores, any order: all of them, or all at or above the least of `top`.
        top: the greatest non-mated scores; at least one more than the greatest target allows, or
            all of them; at the place of each count allowed stands what a falling row has there.
        non_mated: how many non-mated comparisons there were in all.
        fars: targets in (0, 1].
        mated_total: how many mated comparisons there were in all, m when None.
    """
    total = mated.size if mated_total is None else mated_total
    points = []
    for far in fars:
        allowed = count_allowed(far, non_mated)
        # Accepting the score at place `allowed` would be one too many, and so would its ties.
        barrier = top[allowed] if allowed < non_mated else top.dtype.type(-np.inf)
        threshold = min(
            np.min(mated.compress(mated > barrier), initial=np.inf),
            np.min(top.compress(top > barrier), initial=np.inf),
        )
        if threshold == np.inf:
            # In the scores' own type: a float64 step would vanish in a float32 comparison.
            threshold = np.nextafter(barrier, top.dtype.type(np.inf))
        points.append(
            OperatingPoint(
                far=far,
                tar=int(np.count_nonzero(mated >= threshold)) / total,
                threshold=float(threshold),
                false_accepts=int(np.count_nonzero(top >= threshold)),
                allowed_false_accepts=allowed,
                non_mated=non_mated,
                supported=allowed >= MIN_FALSE_ACCEPTS,
            )
        )
    return points


def roc_curve(scores: ArrayLike, same: ArrayLike) -> RocCurve:
    """Return all points of the ROC, one a distinct score; FRR of the DET curve is 1 - tar.

    Where some scores are -inf, only the last point accepts them.

    Args:
        scores: (n,), larger is more alike.
        same: (n,) boolean or 0/1.
    """
    values, labels = check_scores(scores, same)
    order = np.argsort(-values, kind="stable")
    falling, mated = values[order], labels[order]
    # The last of each run of equal scores: they are accepted together or not at all.
    last = np.append(np.flatnonzero(falling[1:] != falling[:-1]), falling.size - 1)
    accepted = np.cumsum(mated, dtype=np.int64)[last]
    tar = accepted / accepted[-1]
    wrong = last + 1 - accepted
    first = np.nextafter(falling[0], falling.dtype.type(np.inf))
    return RocCurve(
        far=np.concatenate([[0.0], wrong / wrong[-1]]),
        tar=np.concatenate([[0.0], tar]),
        thresholds=np.concatenate([[first], falling[last]]).astype(np.float64),
    )


def eer(scores: ArrayLike, same: ArrayLike) -> float:
    """Return the equal error rate: where FAR = 1 - TAR on the ROC joined by straight lines."""
    curve = roc_curve(scores, same)
    return eer_of_curve(curve.far, curve.tar)


def eer_of_curve(far: NDArray[np.float64], tar: NDArray[np.float64]) -> float:
    """Return the equal error rate of ROC points that rise from (0, 0) to (1, 1)."""
    gap = far - (1 - tar)
    after = int(np.argmax(gap >= 0))
    if after == 0:
        return float(far[0])
    step = gap[after] - gap[after - 1]
    share = -gap[after - 1] / step
    return float(far[after - 1] + share * (far[after] - far[after - 1]))


def best_threshold(scores: ArrayLike, same: ArrayLike) -> float:
    """Return the threshold of greatest accuracy on these scores.

    Candidates lie halfway between neighbouring distinct scores, so that the choice favours
    neither side of the gap, with the least finite score and one just above the greatest at the
    ends. Of
    equally accurate ones the highest is taken: it accepts fewer strangers.

    Args:
        scores: (n,), n >= 1; either kind may be absent here.
        same: (n,) boolean.
    """
    values, labels = np.asarray(scores), np.asarray(same, dtype=np.bool_)
    order = np.argsort(-values, kind="stable")
    falling, mated = values[order].astype(np.float64), labels[order]
    last = np.append(np.flatnonzero(falling[1:] != falling[:-1]), falling.size - 1)
    # Right decisions when nothing is accepted, then down to each distinct score.
    gained = np.cumsum(np.where(mated, 1, -1))[last]
    right = int(np.count_nonzero(~labels)) + np.concatenate([[0], gained])
    if falling[-1] == -np.inf:
        right = right[:-1]
    place = int(np.argmax(right))
    if place == 0:
        return float(np.nextafter(values.max(), values.dtype.type(np.inf)))
    lowest_accepted = float(falling[last[place - 1]])
    if place == last.size:
        return lowest_accepted
    highest_refused = float(falling[last[place]])
    middle = highest_refused + (lowest_accepted - highest_refused) / 2
    return middle if highest_refused < middle <= lowest_accepted else lowest_accepted


def kfold_accuracy(scores: ArrayLike, same: ArrayLike, folds: ArrayLike) -> FoldAccuracy:
    """Return each fold's accuracy at the threshold chosen on all other folds.

    Args:
        scores: (n,), larger is more alike; -inf is a failure and counts as rejected.
        same: (n,) boolean or 0/1.
        folds: (n,) integers.

    Raises:
        InputError: as `check_scores`, fewer than two folds, or a length that differs.
    """
    values, labels = check_scores(scores, same)
    numbers = np.asarray(folds)
    if numbers.shape != values.shape:
        raise InputError(f"folds must have one number a score, got {numbers.shape}")
    names = np.unique(numbers)
    if names.size < 2:
        raise InputError(
            f"accuracy by folds needs at least 2 folds, got {names.size}: the threshold of a fold "
            "is chosen on the others"
        )
    accuracies, thresholds = [], []
    for name in names:
        here = numbers == name
        threshold = best_threshold(values[~here], labels[~here])
        accepted = values[here].astype(np.float64) >= threshold
        accuracies.append(float(np.mean(accepted == labels[here])))
        thresholds.append(threshold)
    return FoldAccuracy([int(name) for name in names], np.array(accuracies), np.array(thresholds))
