"""ROC, DET and exact operating points of any number of scores, in memory that does not grow.

The scores are read twice. The first reading counts them in bins; the second keeps the few that
fall into the bins in which a target FAR or the equal error rate lies. Each TAR, threshold and the
equal error rate are then exact, whatever the target (`streaming.ScoreStream` reads once, but keeps
the top slice, which a lax target makes long), and every other point of the curve is exact too: a
bin's edge is a threshold like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_whole
from facerec.dist import cpu_count
from facerec.metrics.verification import (
    MIN_FALSE_ACCEPTS,
    OperatingPoint,
    RocCurve,
    count_allowed,
    eer_of_curve,
)

ScoreBlock = tuple[NDArray[Any], NDArray[Any]]
ReadBlocks = Callable[[], Iterable[ScoreBlock]]

# Cosines in [-1, 1]: a power of two, so that scaling by it is exact and so is every edge.
_BINS = 2**16
_HALF = _BINS // 2
_CHUNK = 2**19
# So many kept scores at once, then equal ones are merged.
_MOST_HELD = 2**22

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TracedRoc:
    """What two readings of all scores tell.

    Attributes:
        points: TAR at each target FAR, as `verification.tar_at_far` of all scores at once.
        curve: the ROC, exact at each of its points: the edges of 65,536 bins of [-1, 1] and, where
            a target or the equal error rate lies, every observed score. 1 - tar is the DET's FNMR.
        eer: the equal error rate, as `verification.eer` of all scores at once.
        mated: number of mated comparisons, failures included.
        non_mated: number of non-mated comparisons, failures included.
        mated_counts: int64 (65536,), mated scores a bin; failures are in none.
        non_mated_counts: int64 (65536,), likewise.
    """

    points: list[OperatingPoint]
    curve: RocCurve
    eer: float
    mated: int
    non_mated: int
    mated_counts: Counts
    non_mated_counts: Counts

    def histogram(self, bins: int = 128) -> tuple[Counts, Counts, Floats]:
        """Return mated and non-mated counts (bins,) and the edges (bins + 1,) over [-1, 1].

        Args:
            bins: a power of two up to 65,536.
        """
        if not 1 <= bins <= _BINS or _BINS % bins:
            raise InputError(f"bins must be a power of two up to {_BINS}, got {bins}")
        mated, non_mated = (
            counts.reshape(bins, -1).sum(axis=1)
            for counts in (self.mated_counts, self.non_mated_counts)
        )
        return mated, non_mated, np.linspace(-1, 1, bins + 1, dtype=np.float64)


def trace_roc(
    read_blocks: ReadBlocks, fars: Sequence[float], *, threads: int | None = None
) -> TracedRoc:
    """Return exact operating points and the ROC of scores that are made block by block.

    Args:
        read_blocks: gives a pass over all blocks each time it is called, the same scores both
            times; a block is its mated and its non-mated scores, floating arrays of any shape, one
            type throughout. Scores are cosines: those outside [-1, 1] share the bins at the ends,
            and -inf is a failure, which no threshold accepts.
        fars: targets in (0, 1].
        threads: how many count, all cores when None; the figures do not depend on it.

    Raises:
        InputError: NaN or +inf, a target outside (0, 1], no mated or no non-mated score, a second
            reading that differs from the first.
    """
    count_threads = check_whole(cpu_count() if threads is None else threads, "threads", 1, 4096)
    counts, failures = np.zeros((2, _BINS), np.int64), np.zeros(2, np.int64)
    kind_of_score: np.dtype[Any] | None = None
    greatest = -np.inf
    with ThreadPoolExecutor(count_threads, "roc") as pool:
        for block in read_blocks():
            kind_of_score = _check_types(block, kind_of_score)
            for kind, histogram, failed, high in pool.map(_count_chunk, *_split(block)):
                counts[kind] += histogram
                failures[kind] += failed
                greatest = max(greatest, high)
        totals = [int(total) for total in counts.sum(axis=1) + failures]
        _check_totals(totals)
        wanted = _choose_bins(counts, totals, [count_allowed(far, totals[1]) for far in fars])
        kept = _Kept()
        lowest = -np.inf if wanted[0] else int(np.argmax(wanted)) / _HALF - 1

        def keep(kind: int, chunk: NDArray[Any]) -> tuple[int, NDArray[Any]]:
            high = chunk[chunk >= lowest] if lowest > -np.inf else chunk[chunk > -np.inf]
            return kind, high[wanted[_find_bins(high)]]

        for block in read_blocks():
            for kind, values in pool.map(keep, *_split(block)):
                kept.add(kind, values)
    values, accepted = _tabulate(counts, wanted, kept)
    # Just above the greatest score, in the scores' own type: a float64 step would vanish in it.
    score = (kind_of_score or np.dtype(np.float64)).type
    refusing = float(np.nextafter(score(greatest), score(np.inf)))
    curve = _draw_curve(values, accepted, totals, refusing)
    return TracedRoc(
        points=_choose_points(values, accepted, totals, fars, refusing),
        curve=curve,
        eer=eer_of_curve(curve.far, curve.tar),
        mated=totals[0],
        non_mated=totals[1],
        mated_counts=counts[0],
        non_mated_counts=counts[1],
    )


class _Kept:
    """Distinct scores and how often each came, mated ones and non-mated ones apart."""

    def __init__(self) -> None:
        self._parts: tuple[list[NDArray[Any]], list[NDArray[Any]]] = ([], [])
        self._times: tuple[list[Counts], list[Counts]] = ([], [])
        self._held = 0

    def add(self, kind: int, values: NDArray[Any]) -> None:
        self._parts[kind].append(values)
        self._times[kind].append(np.ones(values.size, np.int64))
        self._held += values.size
        if self._held > _MOST_HELD:
            self._held = sum(self.merge(kind)[0].size for kind in (0, 1))

    def merge(self, kind: int) -> tuple[NDArray[Any], Counts]:
        """Return distinct scores, rising, and their counts."""
        parts, times = self._parts[kind], self._times[kind]
        if not parts:
            return np.zeros(0, np.float32), np.zeros(0, np.int64)
        values, places = np.unique(np.concatenate(parts), return_inverse=True)
        # Counts below 2**53 are exact as floats.
        counts = np.bincount(places, np.concatenate(times), values.size).astype(np.int64)
        parts[:], times[:] = [values], [counts]
        return values, counts


def _split(block: ScoreBlock) -> tuple[Iterator[int], Iterator[NDArray[Any]]]:
    """Return the kinds (0 = mated) and the scores of chunks that stay in the cache."""
    chunks = [
        (kind, flat[start : start + _CHUNK])
        for kind, flat in ((kind, side.reshape(-1)) for kind, side in enumerate(block))
        for start in range(0, flat.size, _CHUNK)
    ]
    return (kind for kind, _ in chunks), (chunk for _, chunk in chunks)


def _count_chunk(kind: int, chunk: NDArray[Any]) -> tuple[int, Counts, int, float]:
    """Return the kind, the histogram, the failures and the greatest of some scores."""
    low, high = chunk.min(), chunk.max()
    if np.isnan(low) or high == np.inf:
        raise InputError(
            "scores must be finite or -inf (a failure), got NaN or infinity; were the embeddings "
            "finite?"
        )
    failed = 0
    if low == -np.inf:
        made = chunk[chunk > -np.inf]
        failed, chunk = chunk.size - made.size, made
    return kind, np.bincount(_find_bins(chunk), minlength=_BINS), failed, float(high)


def _find_bins(values: NDArray[Any]) -> NDArray[np.intp]:
    """Return the bin of each finite score: bin k holds [k / 32768 - 1, (k + 1) / 32768 - 1)."""
    places = values * values.dtype.type(_HALF)
    np.floor(places, out=places)
    places += values.dtype.type(_HALF)
    np.clip(places, 0, _BINS - 1, out=places)
    bins: NDArray[np.intp] = places.astype(np.intp)
    return bins


def _check_types(block: ScoreBlock, known: np.dtype[Any] | None) -> np.dtype[Any]:
    """Return the type of all scores so far."""
    kinds = dict.fromkeys([*([known] if known else []), *(side.dtype for side in block)])
    if len(kinds) > 1 or not kinds.keys() <= {np.dtype(np.float32), np.dtype(np.float64)}:
        raise InputError(
            "scores must be of one type, float32 or float64, got "
            + " and ".join(str(kind) for kind in kinds)
        )
    return next(iter(kinds))


def _check_totals(totals: list[int]) -> None:
    for total, name in zip(totals, ("mated", "non-mated"), strict=True):
        if not total:
            raise InputError(
                f"of {sum(totals)} comparisons none is {name}; a rate needs some of both kinds"
            )


def _choose_bins(counts: Counts, totals: list[int], allowed: list[int]) -> NDArray[np.bool_]:
    """Return which bins must be known score by score, boolean (65536,).

    They are the bin with the score that would be one false accept too many, the next one above
    that holds any score, and the same two where FAR meets FNMR.
    """
    wanted = np.zeros(_BINS, np.bool_)
    above = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
    filled = np.flatnonzero(counts.sum(axis=0))
    crossed = above[1] / totals[1] >= 1 - above[0] / totals[0]
    barriers = [np.flatnonzero(above[1] > count)[-1:] for count in allowed]
    for barrier in [*barriers, np.flatnonzero(crossed)[-1:]]:
        # Without a barrier every score that is not a failure may be accepted: the lowest bin.
        place = int(barrier[0]) if barrier.size else -1
        wanted[max(place, 0)] = True
        wanted[filled[filled > place][:1]] = True
    return wanted


def _tabulate(counts: Counts, wanted: NDArray[np.bool_], kept: _Kept) -> tuple[Floats, Counts]:
    """Return thresholds, falling, and how many mated and non-mated scores each accepts.

    A bin that was not kept score by score stands for its lower edge. Without failures.
    """
    values, rows = [], []
    for kind in (0, 1):
        scores, times = kept.merge(kind)
        seen = np.bincount(_find_bins(scores), times, _BINS).astype(np.int64)
        if not np.array_equal(seen[wanted], counts[kind][wanted]):
            raise InputError(
                "the second reading of the scores differs from the first; read_blocks must give "
                "the same scores each time"
            )
        row = np.zeros((2, scores.size), np.int64)
        row[kind] = times
        values.append(scores.astype(np.float64))
        rows.append(row)
    coarse = np.flatnonzero(~wanted & (counts.sum(axis=0) > 0))
    values.append(coarse / _HALF - 1)
    rows.append(counts[:, coarse])
    names, places = np.unique(-np.concatenate(values), return_inverse=True)
    # Counts below 2**53 are exact as floats.
    merged = [np.bincount(places, row, names.size) for row in np.concatenate(rows, axis=1)]
    return -names, np.cumsum(merged, axis=1).astype(np.int64)


def _choose_points(
    values: Floats, accepted: Counts, totals: list[int], fars: Sequence[float], refusing: float
) -> list[OperatingPoint]:
    points = []
    for far in fars:
        allowed = count_allowed(far, totals[1])
        taken = int(np.searchsorted(accepted[1], allowed, side="right"))
        if taken:
            threshold = float(values[taken - 1])
            right, wrong = (int(count) for count in accepted[:, taken - 1])
        else:
            threshold, right, wrong = refusing, 0, 0
        points.append(
            OperatingPoint(
                far=far,
                tar=right / totals[0],
                threshold=threshold,
                false_accepts=wrong,
                allowed_false_accepts=allowed,
                non_mated=totals[1],
                supported=allowed >= MIN_FALSE_ACCEPTS,
            )
        )
    return points


def _draw_curve(values: Floats, accepted: Counts, totals: list[int], refusing: float) -> RocCurve:
    """Return the ROC with a point before all scores and, after failures, one that takes all."""
    tar, far = (
        np.concatenate([[0.0], row / total]) for row, total in zip(accepted, totals, strict=True)
    )
    thresholds = np.concatenate([[refusing], values])
    if tar[-1] < 1 or far[-1] < 1:
        tar, far = np.append(tar, 1.0), np.append(far, 1.0)
        thresholds = np.append(thresholds, -np.inf)
    return RocCurve(far, tar, thresholds)
