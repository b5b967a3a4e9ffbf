"""MegaFace-style search among distractors (Kemelmacher-Shlizerman et al. 2016).

Every picture of a probe person is in turn the one enrolled beside N distractors, and each other
picture of that person is searched: rank k is the share of these ordered pairs whose mate is among
the k best. A distractor of an equal score stands before the mate. TAR at a FAR compares the probe
people's pictures with each other (mated) and with every distractor (non-mated).

Noise lists name pictures that show somebody else than they should. Such probes and distractors are
left out and counted; published clean-ups put a person's mean in the place of a noisy probe, which
makes it a very good probe, and send noisy distractors out of reach, which leaves N as it was.

The files are read by `eval.protocol_megaface_files`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.protocol_pair_rates import PairSample, TopScores, choose_depth
from eval.protocol_results import (
    FAILURE_RULE,
    Rate,
    check_faces,
    check_row,
    check_same_width,
    iter_draws,
    keep_interval,
    to_plain,
    widen_certain,
)
from facerec.checks import InputError, check_whole
from facerec.metrics.bootstrap import percentile_interval
from facerec.progress import Progress

RANKS = (1, 10)
FARS = (1e-4, 1e-5, 1e-6)
_TILE = 8192
_PROBES = 512


@dataclass(frozen=True)
class DistractorResult:
    """Figures of probes among distractors.

    Attributes:
        people: probe people with a pair.
        probes: their pictures, failures included.
        failed_probes: of them, without an embedding.
        noisy_probes: left out before.
        pairs: ordered pairs of two pictures of one person.
        distractors: N searched, all with an embedding.
        failed_distractors: without one, left out.
        noisy_distractors: left out before.
        ranks: N -> the rates at each rank among the first N distractors.
        tar: TAR at each target FAR over all distractors; the distractors stay as they are in a
            resample.
    """

    people: int
    probes: int
    failed_probes: int
    noisy_probes: int
    pairs: int
    distractors: int
    failed_distractors: int
    noisy_distractors: int
    ranks: dict[int, tuple[Rate, ...]]
    tar: tuple[Rate, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = to_plain(dict(vars(self)))
        return {"protocol": "probes among distractors", "failure_rule": FAILURE_RULE, **plain}


def identify_among_distractors(
    probes: NDArray[Any],
    people: ArrayLike,
    distractors: NDArray[Any],
    *,
    probe_norms: ArrayLike | None = None,
    distractor_norms: ArrayLike | None = None,
    noisy_probes: ArrayLike | None = None,
    noisy_distractors: ArrayLike | None = None,
    sizes: Sequence[int] | None = None,
    ranks: Sequence[int] = RANKS,
    fars: Sequence[float] = FARS,
    resamples: int = 1000,
    seed: int = 0,
) -> DistractorResult:
    """Return ranks among growing numbers of distractors and TAR at each FAR.

    Args:
        probes: float (p, d), unit norm; zero is a failure, which is never found.
        people: (p,), whole numbers or text; people of one picture have no pair and are left out.
        distractors: float (n, d), of nobody among the people; failures are left out.
        probe_norms: (p,), raw norms; 0 is a failure.
        distractor_norms: (n,).
        noisy_probes: bool (p,), to leave out.
        noisy_distractors: bool (n,).
        sizes: N to report, each at most the distractors left; None: powers of ten from 10 and all.
        ranks: k, each at least 1.
        fars: targets in (0, 1].
        resamples: of the probe people, for 95 % intervals; 0 for none.
        seed: of the resamples.

    Raises:
        InputError: as `check_faces`, rows of unequal length, no person with two pictures, no
            distractor left, a size beyond them.
    """
    rows, made = check_faces(probes, probe_norms, "probe embeddings")
    others, found = check_faces(distractors, distractor_norms, "distractor embeddings")
    check_same_width(rows, others, ("probe embeddings", "distractor embeddings"))
    names = check_row(people, "people", len(rows))
    clean = ~_check_noise(noisy_probes, len(rows), "noisy_probes")
    sound = ~_check_noise(noisy_distractors, len(others), "noisy_distractors")
    rows, made, names = rows[clean], made[clean], names[clean]
    others = others[sound & found]
    limits = _check_sizes(sizes, len(others))
    for rank in ranks:
        check_whole(rank, "rank", 1, 10**9)
    mates = _Mates(rows, made, names)
    counts, top = _scan(mates, others, limits, fars)
    hits = {
        size: np.stack([mates.found & (1 + ahead <= rank) for rank in ranks])
        for size, ahead in zip(limits, counts, strict=True)
    }
    sample = _build_sample(mates, top, len(others))
    return DistractorResult(
        people=mates.people,
        probes=len(mates.rows),
        failed_probes=int((~mates.made).sum()),
        noisy_probes=int((~clean).sum()),
        pairs=mates.probe.size,
        distractors=len(others),
        failed_distractors=int((sound & ~found).sum()),
        noisy_distractors=int((~sound).sum()),
        ranks={
            size: _rank_rates(found_at, mates, ranks, size, resamples, seed)
            for size, found_at in hits.items()
        },
        tar=tuple(sample.rates(fars, resamples=resamples, seed=seed)),
    )


class _Mates:
    """Pictures of people with at least two, and their ordered pairs, by probe."""

    def __init__(
        self, rows: NDArray[np.float32], made: NDArray[np.bool_], names: NDArray[Any]
    ) -> None:
        _, codes, times = np.unique(names, return_inverse=True, return_counts=True)
        kept = np.flatnonzero(times[codes] > 1)
        if not kept.size:
            raise InputError(
                f"none of {times.size} people has two pictures; a search needs one more than the "
                "one enrolled"
            )
        kept = kept[np.argsort(codes[kept], kind="stable")]
        self.rows, self.made = rows[kept], made[kept]
        _, self.codes = np.unique(codes[kept], return_inverse=True)
        self.people = int(self.codes[-1]) + 1
        starts = np.searchsorted(self.codes, np.arange(self.people + 1))
        probes, mates = [], []
        for first, last in itertools.pairwise(starts.tolist()):
            here = np.arange(first, last)
            pairs = ~np.eye(here.size, dtype=np.bool_)
            probe, mate = np.nonzero(pairs)
            probes.append(here[probe])
            mates.append(here[mate])
        self.probe, self.mate = np.concatenate(probes), np.concatenate(mates)
        self.found = self.made[self.probe] & self.made[self.mate]
        products = np.einsum(
            "nd,nd->n",
            self.rows[self.probe].astype(np.float64),
            self.rows[self.mate].astype(np.float64),
        )
        self.scores = np.where(self.found, products, -np.inf).astype(np.float32)
        # Pairs of each probe lie together.
        self.bounds = np.searchsorted(self.probe, np.arange(len(self.rows) + 1))


def _scan(
    mates: _Mates, others: NDArray[np.float32], limits: Sequence[int], fars: Sequence[float]
) -> tuple[list[NDArray[np.int64]], TopScores]:
    """Return how many of the first N distractors reach each pair's score, and the top scores."""
    ahead = np.zeros(mates.probe.size, np.int64)
    top = TopScores(choose_depth(fars, len(mates.rows) * len(others)))
    made = np.flatnonzero(mates.made)
    queries = mates.rows.astype(np.float64)
    counts = []
    with Progress("search", len(others), "distractors") as progress:
        for start, stop in _tiles(len(others), limits):
            tile = others[start:stop].astype(np.float64).T
            for first in range(0, made.size, _PROBES):
                part = made[first : first + _PROBES]
                scores = (queries[part] @ tile).astype(np.float32)
                top.add(scores, mates.codes[part])
                for row, probe in zip(scores, part.tolist(), strict=True):
                    pairs = slice(mates.bounds[probe], mates.bounds[probe + 1])
                    ahead[pairs] += _count_reached(row, mates.scores[pairs])
            if stop in limits:
                counts.append(ahead.copy())
            progress.advance(stop - start)
    return counts, top


def _count_reached(row: NDArray[np.float32], scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return for each of a probe's scores how many of a row are as great."""
    order = np.argsort(scores)
    made = scores[order]
    least = made[np.searchsorted(made, -np.inf, side="right") :]
    near = row[row >= least[0]] if least.size else row[:0]
    places = np.searchsorted(made, near, side="right")
    # Whatever reaches the k-th score reaches all below it.
    reached = np.cumsum(np.bincount(places, minlength=made.size + 1)[::-1])[::-1][1:]
    counts = np.empty(scores.size, np.int64)
    counts[order] = reached
    return counts


def _tiles(count: int, limits: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the ends of tiles that end at every limit."""
    start = 0
    for limit in limits:
        while start < limit:
            stop = min(start + _TILE, limit)
            yield start, stop
            start = stop
    while start < count:
        stop = min(start + _TILE, count)
        yield start, stop
        start = stop


def _build_sample(mates: _Mates, top: TopScores, distractors: int) -> PairSample:
    scores, people = top.sort()
    once = mates.probe < mates.mate
    per_person = np.bincount(mates.codes).astype(np.float64) * distractors
    return PairSample(
        mates.scores[once],
        mates.codes[mates.probe[once]],
        scores,
        people,
        None,
        len(mates.rows) * distractors,
        top.complete,
        mates.people,
        lambda times: float(times @ per_person),
    )


def _rank_rates(
    hits: NDArray[np.bool_],
    mates: _Mates,
    ranks: Sequence[int],
    size: int,
    resamples: int,
    seed: int,
) -> tuple[Rate, ...]:
    right = np.stack([np.bincount(mates.codes[mates.probe], row, mates.people) for row in hits])
    every = np.bincount(mates.codes[mates.probe], minlength=mates.people)
    intervals: list[Any] = [None] * len(ranks)
    if resamples:
        draws = np.array(
            [right @ times / (every @ times) for times in iter_draws(mates.people, resamples, seed)]
        )
        intervals = [keep_interval(percentile_interval(column)) for column in draws.T]
    whose = mates.codes[mates.probe]
    return tuple(
        widen_certain(
            Rate(f"rank-{rank} of {size}", float(row.mean()), trials=row.size, interval=interval),
            whose,
        )
        for rank, row, interval in zip(ranks, hits, intervals, strict=True)
    )


def _check_noise(noise: ArrayLike | None, count: int, name: str) -> NDArray[np.bool_]:
    marks = np.zeros(count, np.bool_) if noise is None else np.asarray(noise)
    if marks.shape != (count,) or marks.dtype != np.bool_:
        raise InputError(f"{name} must be boolean ({count},), got {marks.dtype} {marks.shape}")
    return marks


def _check_sizes(sizes: Sequence[int] | None, distractors: int) -> list[int]:
    if not distractors:
        raise InputError("no distractor with an embedding is left")
    if sizes is None:
        powers = [10**power for power in range(1, 13) if 10**power < distractors]
        return [*powers, distractors]
    for size in sizes:
        if not 1 <= size <= distractors:
            raise InputError(
                f"a number of distractors must lie in [1, {distractors}], those left, got {size}"
            )
    return sorted(set(sizes))
