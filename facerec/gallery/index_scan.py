"""Exact search over raw rows: one pass, every core, each person once."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.checks import require
from facerec.gallery.index import (
    NOBODY,
    Ranked,
    build_empty,
    group_people,
    rank_people,
    score_pairs,
)
from facerec.gallery.index_rows import Rows
from facerec.gallery.index_threads import Workers

_FEW_QUERIES = 8  # below this FAISS is faster than BLAS: both wait for memory, and it reads once
_QUERIES_AT_ONCE = 256
_FIRST_ROWS = 256
_BLOCK_SCORES = 1_600_000  # of one product: they stay in the cache until they are compared
_BLOCK_ROWS = 4096, 65536
_ROWS_A_THREAD = 4096
_PAIRS_A_THREAD = 1024


def search_rows(
    rows: Rows,
    queries: NDArray[np.float32],
    k: int,
    workers: Workers,
    *,
    allowed: NDArray[np.bool_] | None = None,
    skip: NDArray[np.int64] | None = None,
) -> Ranked:
    """Return each query's k best people by exact scores of every row.

    Args:
        rows: to search; the caller holds its lock.
        queries: float32 (m, d), unit norm.
        k: people a query.
        workers: to share the work.
        allowed: bool (rows.used,), the slots that count; all live ones when None.
        skip: int64 (m,), a slot that does not count for that query, -1 = none.
    """
    ranked = build_empty(len(queries), k)
    pending: NDArray[np.int64] = np.arange(len(queries))
    if allowed is None and len(queries) < _FEW_QUERIES:
        ranked, complete = _search_few(rows, queries, k, workers, skip)
        pending = np.flatnonzero(~complete)
    if allowed is None and rows.dead:
        allowed = rows.owners != NOBODY
    for start in range(0, len(pending), _QUERIES_AT_ONCE):
        chosen = pending[start : start + _QUERIES_AT_ONCE]
        scan = _Scan(rows, len(chosen), k, None if skip is None else skip[chosen])
        scan.run(queries[chosen], allowed)
        # Already in the order of the queries: the scan groups by query.
        part = rank_slots(rows, queries[chosen], scan.asked, scan.slots, k, workers)
        place(ranked, chosen, part)
    return ranked


def rank_slots(
    rows: Rows,
    queries: NDArray[np.float32],
    asked: NDArray[np.int64],
    slots: NDArray[np.int64],
    k: int,
    workers: Workers,
) -> Ranked:
    """Score candidate slots exactly and rank them as people.

    Args:
        rows: that hold them.
        queries: float32 (m, d).
        asked: int64 (c,), the query of each candidate, ascending.
        slots: int64 (c,), live.
        k: people a query.
        workers: to share the work, some queries each.
    """
    vectors, owners, ids = rows.vectors, rows.owners, rows.ids

    def rank(span: tuple[int, int]) -> Ranked:
        first, last = span
        start, stop = np.searchsorted(asked, span)
        local, found = asked[start:stop] - first, slots[start:stop]
        scores = score_pairs(vectors, queries[first:last], local, found)
        return rank_people(local, owners[found], scores, ids[found], (last - first, k))

    parts = max(1, min(workers.count, len(queries), len(asked) // _PAIRS_A_THREAD))
    cuts = [len(queries) * part // parts for part in range(parts + 1)]
    ranked = workers.map(rank, list(itertools.pairwise(cuts)))
    if parts == 1:
        return ranked[0]
    return Ranked(
        np.concatenate([part.scores for part in ranked]),
        np.concatenate([part.owners for part in ranked]),
        np.concatenate([part.ids for part in ranked]),
    )


def place(ranked: Ranked, queries: NDArray[np.int64], part: Ranked) -> None:
    """Put the answers to some queries among all."""
    ranked.scores[queries] = part.scores
    ranked.owners[queries] = part.owners
    ranked.ids[queries] = part.ids


def find_slack(dim: int) -> float:
    """Return how far a float32 dot product of unit vectors may lie from the exact one.

    The classical bound dim * 2**-24 for any order of summation, and one rounding of the result.
    """
    return (1.01 * dim + 4) * 2.0**-24


def keep_widest(
    scores: NDArray[np.float32], slots: NDArray[np.int64], width: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Keep each query's `width` best of the candidates that several threads found.

    Args:
        scores: float32 (m, c), -inf = none.
        slots: int64 (m, c).
        width: candidates to keep a query.

    Returns:
        scores and slots (m, at most width), and float32 (m,): the best score left out.
    """
    if scores.shape[1] <= width:
        return scores, slots, np.full(len(scores), -np.inf, np.float32)
    order = np.argpartition(-scores, width, axis=1)
    query = np.arange(len(scores))[:, None]
    kept = order[:, :width]
    return scores[query, kept], slots[query, kept], scores[query[:, 0], order[:, width]]


def flatten(
    rows: Rows,
    slots: NDArray[np.int64],
    skip: NDArray[np.int64] | None,
    wanted: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the live (and wanted) ones of (m, w) slots as pairs: queries, ascending; slots."""
    live = slots != NOBODY
    if wanted is not None:
        live &= wanted
    if rows.dead:
        live &= rows.owners[slots] != NOBODY
    if skip is not None:
        live &= slots != skip[:, None]
    asked = np.nonzero(live)[0]
    return asked, slots[live]


def _search_few(
    rows: Rows,
    queries: NDArray[np.float32],
    k: int,
    workers: Workers,
    skip: NDArray[np.int64] | None,
) -> tuple[Ranked, NDArray[np.bool_]]:
    """Rank the best rows that FAISS finds in each thread's share; which answers are complete."""
    faiss = require("faiss")
    vectors = rows.vectors
    width = max(4 * k, 16)
    parts = max(1, min(workers.count, rows.used // _ROWS_A_THREAD))
    cuts = [rows.used * part // parts for part in range(parts + 1)]

    def find(part: int) -> tuple[Any, Any]:
        start, stop = cuts[part], cuts[part + 1]
        share = vectors[start:stop]
        metric = faiss.METRIC_INNER_PRODUCT
        scores, found = faiss.knn(queries, share, min(width, stop - start), metric)
        return scores, found + start

    found = workers.map(find, range(parts))
    # A row that is not among a share's candidates scores at most its last one.
    bound = np.full(len(queries), -np.inf, np.float32)
    for part, (scores, _) in enumerate(found):
        if scores.shape[1] < cuts[part + 1] - cuts[part]:
            bound = np.maximum(bound, scores[:, -1])
    _, slots, left_out = keep_widest(
        np.concatenate([scores for scores, _ in found], axis=1),
        np.concatenate([slots for _, slots in found], axis=1),
        width,
    )
    bound = np.maximum(bound, left_out)
    asked, kept = flatten(rows, slots, skip)
    ranked = rank_slots(rows, queries, asked, kept, k, workers)
    complete = ranked.scores[:, -1] > bound + find_slack(rows.dim)
    return ranked, complete | np.isneginf(bound)


class _Scan:
    """The rows that may be among each query's k best people, found in one pass.

    Args:
        rows: to scan.
        queries: how many, m.
        k: people a query.
        skip: int64 (m,), a slot that does not count for that query.

    Attributes:
        asked: int64 (c,), the query of each candidate.
        slots: int64 (c,).
    """

    def __init__(
        self, rows: Rows, queries: int, k: int, skip: NDArray[np.int64] | None = None
    ) -> None:
        self._rows = rows
        self._k = k
        self._skip = skip
        self._margin = np.float32(2 * find_slack(rows.dim))
        # What a row must reach: a little less than the k-th best person so far.
        self._floor = np.full(queries, -np.inf, np.float32)
        self.asked = np.zeros(0, np.int64)
        self.slots = np.zeros(0, np.int64)
        self._rough = np.zeros(0, np.float32)
        self._fresh: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
        self._waiting = 0

    def run(self, queries: NDArray[np.float32], allowed: NDArray[np.bool_] | None) -> None:
        """Scan the allowed slots, all when None."""
        vectors = self._rows.vectors
        chosen = None if allowed is None else np.flatnonzero(allowed)
        picked = chosen is not None and 2 * len(chosen) < len(vectors)
        total = len(chosen) if chosen is not None and picked else len(vectors)
        most = int(np.clip(_BLOCK_SCORES // len(queries), *_BLOCK_ROWS))
        turned = np.ascontiguousarray(queries.T)
        scores = np.empty((min(most, total), len(queries)), np.float32)
        start, size = 0, _FIRST_ROWS
        while start < total:
            stop = min(start + size, total)
            if chosen is not None and picked:
                slots = chosen[start:stop]
                block = vectors[slots]
            else:
                slots = np.arange(start, stop)
                block = vectors[start:stop]
            part = np.matmul(block, turned, out=scores[: stop - start])
            self._take(part, slots, None if picked else allowed)
            start, size = stop, min(2 * size, most)
        self._tighten()

    def _take(
        self,
        scores: NDArray[np.float32],
        slots: NDArray[np.int64],
        allowed: NDArray[np.bool_] | None,
    ) -> None:
        hits = np.flatnonzero(scores >= self._floor)
        if not len(hits):
            return
        local, asked = np.divmod(hits, scores.shape[1])
        found = slots[local]
        rough = scores.ravel()[hits]
        if allowed is not None or self._skip is not None:
            counts = np.ones(len(found), bool) if allowed is None else allowed[found]
            if self._skip is not None:
                counts &= found != self._skip[asked]
            asked, found, rough = asked[counts], found[counts], rough[counts]
        self._fresh.append((asked, found, rough))
        self._waiting += len(found)
        if self._waiting >= max(len(self._floor) * self._k, len(self.slots)):
            self._tighten()

    def _tighten(self) -> None:
        """Raise the floors to the k-th best person so far and drop what lies below."""
        parts = [(self.asked, self.slots, self._rough), *self._fresh]
        self._fresh, self._waiting = [], 0
        asked = np.concatenate([part[0] for part in parts])
        slots = np.concatenate([part[1] for part in parts])
        rough = np.concatenate([part[2] for part in parts])
        order, first = group_people(asked, self._rows.owners[slots], rough, slots)
        asked, slots, rough = asked[order], slots[order], rough[order]
        best, people = rough[first], asked[first]
        by_rank = np.lexsort((-best, people))
        ranked = people[by_rank]
        last = by_rank[np.arange(len(ranked)) - np.searchsorted(ranked, ranked) == self._k - 1]
        self._floor[people[last]] = best[last] - self._margin
        # Of a person only rows that may be the best one: thousands of rows of one stay few.
        kept = rough >= best[np.cumsum(first) - 1] - self._margin
        kept &= rough >= self._floor[asked]
        self.asked, self.slots, self._rough = asked[kept], slots[kept], rough[kept]
