"""What an approximate index misses: recall against exact at the operating threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_embeddings, check_range, check_whole
from facerec.gallery.index import NOBODY, Ranked, VectorIndex
from facerec.gallery.index_flat import FlatIndex
from facerec.gallery.index_probes import move_rows

_EDGE = 0.02
"""How far above the threshold moved rows lie at most."""

_MIXED = 1024
_MOST_COSINE = 0.999
_QUERIES_AT_ONCE = 256
_Z = 1.959963984540054


@dataclass(frozen=True)
class Share:
    """A share with its 95 % interval (Wilson 1927), which takes its cases for independent.

    Attributes:
        found: cases that were right.
        compared: cases there were.
        share: found / compared, 1 of nothing.
        low: lower end, 0 of nothing.
        high: upper end.
    """

    found: int
    compared: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Recall:
    """How an index compares with exact search.

    Attributes:
        threshold: the operating threshold, a cosine.
        probes: how many were asked.
        moved: how many of them were moved rows, the others being the gallery's own or given.
        at_threshold: of the (probe, person) answers that exact search accepts at the threshold,
            those that the index gives too.
        edge: the same of rows moved to lie just above the threshold, where misses are likeliest.
        rank1: of the probes, those whose best person is the same.
    """

    threshold: float
    probes: int
    moved: int
    at_threshold: Share
    edge: Share
    rank1: Share


def measure_recall(
    index: VectorIndex,
    threshold: float,
    *,
    probes: NDArray[np.float32] | None = None,
    count: int = 1000,
    people: int = 20,
    seed: int = 0,
) -> Recall:
    """Compare an index with its own exact search, on the gallery itself.

    Without probes, `count` of the gallery's rows are asked, each left out of its own search: what
    a new picture of that person would find. A person with one row would find nobody, so that such
    a row is moved instead: to a cosine just above the threshold, in the directions in which this
    gallery's rows differ (see `move_rows`). As many moved rows are asked besides, for `edge`.

    Args:
        index: any; without probes a local one.
        threshold: cosine, in [-1, 1).
        probes: float32 (n, d), unit norm, asked as they are.
        count: rows to draw, at least 1.
        people: answers a probe that are compared, at least 1.
        seed: of draw and moves.

    Raises:
        InputError: the index is empty, or gives no rows of its own and there are no probes.
    """
    check_range(threshold, "threshold", -1, 1)
    check_whole(count, "count", 1, 1 << 30)
    check_whole(people, "people", 1, 1 << 30)
    if not len(index):
        raise InputError("the index must hold rows to measure its recall, but it is empty")
    if probes is not None:
        check_embeddings(probes, "probes", index.dim)
        pairs = [_ask(index, probes, people, None)]
        return _compare(threshold, pairs, [], 0)
    if not isinstance(index, FlatIndex):
        raise InputError(
            f"index {index.name} gives no rows of its own to measure its recall; give probes"
        )
    ids, rows, owners = index.draw(count, seed)
    rng = np.random.default_rng(seed)
    high = max(threshold, min(threshold + _EDGE, _MOST_COSINE))
    cosines = rng.uniform(threshold, high, len(rows)).clip(-_MOST_COSINE, _MOST_COSINE)
    moved = move_rows(rows, cosines, rows[:_MIXED], rng)
    several = np.isin(owners, _find_several(index.get_owners()))
    edge = [_ask(index, moved, people, None)]
    # Of a person with one row the moved row is the probe.
    pairs = [_ask(index, rows[several], people, ids[several])]
    single = [_pick(pair, ~several) for pair in edge]
    return _compare(threshold, pairs + single, edge, int(np.count_nonzero(~several)))


def find_share(found: int, compared: int) -> Share:
    """Return a share and its interval.

    Args:
        found: in [0, compared].
        compared: at least 0.
    """
    if not compared:
        return Share(0, 0, 1.0, 0.0, 1.0)
    share = found / compared
    scale = 1 + _Z**2 / compared
    centre = (share + _Z**2 / (2 * compared)) / scale
    half = _Z * math.sqrt(share * (1 - share) / compared + (_Z / (2 * compared)) ** 2) / scale
    low = max(0.0, centre - half) if found else 0.0
    high = min(1.0, centre + half) if found < compared else 1.0
    return Share(found, compared, share, low, high)


def _find_several(owners: NDArray[np.int64]) -> NDArray[np.int64]:
    people, rows = np.unique(owners, return_counts=True)
    return people[rows > 1]


def _ask(
    index: VectorIndex, probes: NDArray[np.float32], people: int, skip: NDArray[np.int64] | None
) -> tuple[Ranked, Ranked]:
    """Return the index's answers and the exact ones, in parts that a change cannot tear much."""
    parts: tuple[list[Ranked], list[Ranked]] = ([], [])
    for start in range(0, len(probes), _QUERIES_AT_ONCE):
        part = slice(start, start + _QUERIES_AT_ONCE)
        for exact, answers in zip((False, True), parts, strict=True):
            if skip is None or not isinstance(index, FlatIndex):
                answers.append(index.search(probes[part], people, exact=exact))
            else:
                ranked = index.search_without(probes[part], people, skip[part], exact=exact)
                answers.append(ranked)
    return _join(parts[0], people), _join(parts[1], people)


def _join(parts: list[Ranked], people: int) -> Ranked:
    return Ranked(
        np.concatenate([np.zeros((0, people), np.float32), *(part.scores for part in parts)]),
        np.concatenate([np.zeros((0, people), np.int64), *(part.owners for part in parts)]),
        np.concatenate([np.zeros((0, people), np.int64), *(part.ids for part in parts)]),
    )


def _pick(pair: tuple[Ranked, Ranked], which: NDArray[np.bool_]) -> tuple[Ranked, Ranked]:
    first, second = (Ranked(r.scores[which], r.owners[which], r.ids[which]) for r in pair)
    return first, second


def _compare(
    threshold: float,
    pairs: list[tuple[Ranked, Ranked]],
    edge: list[tuple[Ranked, Ranked]],
    moved: int,
) -> Recall:
    same = asked = 0
    for given, exact in pairs:
        named = exact.owners[:, 0] != NOBODY
        asked += int(named.sum())
        same += int((given.owners[:, 0] == exact.owners[:, 0])[named].sum())
    return Recall(
        threshold,
        sum(len(given.owners) for given, _ in pairs),
        moved,
        _count_accepted(threshold, pairs),
        _count_accepted(threshold, edge),
        find_share(same, asked),
    )


def _count_accepted(threshold: float, pairs: list[tuple[Ranked, Ranked]]) -> Share:
    found = compared = 0
    for given, exact in pairs:
        accepted = (exact.scores >= threshold) & (exact.owners != NOBODY)
        hits = (exact.owners[:, :, None] == given.owners[:, None, :]).any(axis=2)
        compared += int(accepted.sum())
        found += int((accepted & hits).sum())
    return find_share(found, compared)
