"""One-to-one verification over a list of pairs, and over all pairs of its pictures.

A picture without an embedding is a failure to acquire: it is counted and named, and each pair it
stands in scores -inf, which no threshold accepts. A mated pair so lost counts against TAR and
accuracy, as ISO/IEC 19795-1's generalised FNMR has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.embedding import EmbeddedPictures
from eval.pairs import PairList, identities_of
from facerec.checks import InputError
from facerec.metrics.bootstrap import (
    Interval,
    bootstrap_subjects,
    build_share_statistic,
    build_tar_statistic,
)
from facerec.metrics.streaming import ScoreStream
from facerec.metrics.verification import (
    OperatingPoint,
    RocCurve,
    eer_of_curve,
    kfold_accuracy,
    roc_curve,
    tar_at_far,
)

PAIR_FARS = (1e-1, 1e-2, 1e-3, 1e-4)
ALL_PAIR_FARS = (1e-3, 1e-4, 1e-5, 1e-6)
_TILE = 1024
_HISTOGRAM_BINS = 100


@dataclass(frozen=True)
class Verification:
    """Figures and what the plots need.

    Attributes:
        figures: plain JSON values.
        curve: the ROC.
        mated_counts: int64 (b,), mated scores a bin over [-1, 1].
        non_mated_counts: int64 (b,), likewise.
    """

    figures: dict[str, Any]
    curve: RocCurve
    mated_counts: NDArray[np.int64]
    non_mated_counts: NDArray[np.int64]


def score_pairs(pairs: PairList, pictures: EmbeddedPictures) -> NDArray[np.float32]:
    """Return the cosine of each pair, float32 (n,); -inf where a picture has no embedding."""
    places = {name: place for place, name in enumerate(pictures.names)}
    first = np.array([places[name] for name in pairs.image_a])
    second = np.array([places[name] for name in pairs.image_b])
    scores = np.einsum("nd,nd->n", pictures.vectors[first], pictures.vectors[second])
    made = pictures.made()
    scores[~(made[first] & made[second])] = -np.inf
    filled: NDArray[np.float32] = scores.astype(np.float32)
    return filled


def verify_pairs(
    pairs: PairList,
    pictures: EmbeddedPictures,
    fars: Sequence[float] = PAIR_FARS,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Verification:
    """Return accuracy by folds, TAR at each FAR with intervals, and EER over a list of pairs.

    Args:
        pairs: the comparisons.
        pictures: embeddings of every picture in them.
        fars: target FARs.
        resamples: of the subject bootstrap (95 % intervals); 0 leaves them out, as does a list
            whose folders are not its people.
        seed: of the bootstrap.
    """
    scores = score_pairs(pairs, pictures)
    accuracy = kfold_accuracy(scores, pairs.same, pairs.folds)
    points = tar_at_far(scores, pairs.same, fars)
    curve = roc_curve(scores, pairs.same)
    fold_of = np.searchsorted(accuracy.folds, pairs.folds)
    right = (scores >= accuracy.thresholds[fold_of]) == pairs.same
    intervals = _bootstrap(pairs, scores, right, fars, resamples, seed)
    figures = {
        "pairs": len(pairs),
        "mated": int(pairs.same.sum()),
        "non_mated": int((~pairs.same).sum()),
        "failed_pairs": int(np.isneginf(scores).sum()),
        "accuracy": {
            "mean": accuracy.mean,
            "std": accuracy.std,
            "interval": intervals[0],
            "folds": [
                {"fold": fold, "accuracy": float(value), "threshold": float(threshold)}
                for fold, value, threshold in zip(
                    accuracy.folds, accuracy.accuracies, accuracy.thresholds, strict=True
                )
            ],
        },
        "tar_at_far": _describe_points(points, intervals[1:]),
        "eer": eer_of_curve(curve.far, curve.tar),
    }
    return Verification(figures, curve, _count(scores[pairs.same]), _count(scores[~pairs.same]))


def verify_all_pairs(
    pictures: EmbeddedPictures, fars: Sequence[float] = ALL_PAIR_FARS
) -> Verification:
    """Return TAR at each FAR over all pairs of the embedded pictures, in bounded memory.

    Two pictures are mated when they lie in one folder. Failed pictures are in no pair here; they
    are counted beside the figures.

    Raises:
        InputError: a picture lies in no folder, or no two pictures are mated or non-mated.
    """
    made = pictures.made()
    names = [name for name, ok in zip(pictures.names, made, strict=True) if ok]
    people, codes = np.unique(identities_of(names), return_inverse=True)
    vectors = pictures.vectors[made]
    total = len(names) * (len(names) - 1) // 2
    sizes = np.bincount(codes, minlength=1)
    mated = int((sizes * (sizes - 1) // 2).sum())
    if not mated:
        raise InputError("no person has two embedded pictures: all pairs hold no mated one")
    stream = ScoreStream(total - mated, max_far=max(fars))
    for scores, same in _iter_tiles(vectors, codes):
        stream.add(scores[same], scores[~same])
    curve = stream.curve()
    figures = {
        "pictures": len(names),
        "people": len(people),
        "pairs": total,
        "mated": mated,
        "non_mated": total - mated,
        "tar_at_far": _describe_points(stream.tar_at_far(fars), None),
        "eer": eer_of_curve(curve.far, curve.tar),
    }
    counts, _ = stream.histogram(_HISTOGRAM_BINS)
    return Verification(figures, curve, _count(stream.mated()), counts)


def thin_curve(curve: RocCurve, points: int = 200) -> RocCurve:
    """Return at most about `points` of a curve: FAR evenly spaced on a log scale, the ends kept.

    Of the points of one FAR the one of the greatest TAR is kept.
    """
    least = curve.far[curve.far > 0].min()
    wanted = np.concatenate([[0.0], np.geomspace(least, 1, points)])
    kept = np.unique(np.searchsorted(curve.far, wanted, side="right") - 1)
    return RocCurve(curve.far[kept], curve.tar[kept], curve.thresholds[kept])


def _iter_tiles(vectors: NDArray[np.float32], codes: NDArray[np.intp]) -> Any:
    """Yield (scores, same) rows that cover each pair of different pictures once."""
    n = len(vectors)
    for top in range(0, n, _TILE):
        rows = slice(top, top + _TILE)
        for left in range(top, n, _TILE):
            columns = slice(left, left + _TILE)
            scores = vectors[rows] @ vectors[columns].T
            same = codes[rows, None] == codes[None, columns]
            if left == top:
                above = np.triu(np.ones(scores.shape, np.bool_), k=1)
                yield scores[above], same[above]
            else:
                yield scores.ravel(), same.ravel()


def _bootstrap(
    pairs: PairList,
    scores: NDArray[np.float32],
    right: NDArray[np.bool_],
    fars: Sequence[float],
    resamples: int,
    seed: int,
) -> list[dict[str, Any] | None]:
    """Return intervals of accuracy and of each TAR; None each where people are not known."""
    nothing: list[dict[str, Any] | None] = [None] * (1 + len(fars))
    if not resamples:
        return nothing
    try:
        people_a, people_b = identities_of(pairs.image_a), identities_of(pairs.image_b)
    except InputError:
        return nothing
    if not np.array_equal(np.array(people_a) == np.array(people_b), pairs.same):
        return nothing
    accuracy, tar = build_share_statistic(right), build_tar_statistic(scores, pairs.same, fars)
    found = bootstrap_subjects(
        lambda weights: np.concatenate([accuracy(weights), tar(weights)]),
        people_a,
        people_b,
        resamples=resamples,
        seed=seed,
    )
    return [_describe_interval(interval) for interval in found]


def _describe_interval(interval: Interval) -> dict[str, Any] | None:
    return asdict(interval) if np.isfinite(interval.low) else None


def _describe_points(
    points: Sequence[OperatingPoint], intervals: Sequence[dict[str, Any] | None] | None
) -> list[dict[str, Any]]:
    described = [asdict(point) for point in points]
    if intervals is not None:
        for entry, interval in zip(described, intervals, strict=True):
            entry["interval"] = interval
    return described


def _count(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return counts of the finite scores in equal bins over [-1, 1]."""
    finite = np.clip(scores[np.isfinite(scores)], -1, 1)
    counts: NDArray[np.int64] = np.histogram(finite, _HISTOGRAM_BINS, (-1, 1))[0]
    return counts
