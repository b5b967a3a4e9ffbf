"""Exact cosines of pairs of rows, the ranking by them, and the exact search of every row."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_embeddings, require

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]
Near = tuple[NDArray[np.int32], Vectors]
"""Neighbours int32 (m, k) and their cosines float32 (m, k), best first, -1 and -inf for none."""

_SLACK = 1e-5
"""More than float32 rounding of a dot product of unit vectors, whatever the summation order."""
_MARGIN = 16
_BLOCK_ROWS = 1 << 16
_FULL_VALUES = 1 << 26


class Crew:
    """Threads that each work on a block of rows, one core apiece.

    The blocks do not depend on the number of threads, and so nor does what is computed.
    """

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    def map_rows(
        self,
        work: Callable[[Rows], Near],
        rows: Rows,
        *,
        block: int = 1024,
        advance: Callable[[int], None] | None = None,
    ) -> Near:
        """Return what `work` says of `rows`, int64 (m,), block by block.

        Args:
            work: finds the neighbours of some rows.
            rows: the rows, at least one.
            block: rows a call.
            advance: is told how many more rows are done.
        """
        blocks = [rows[first : first + block] for first in range(0, len(rows), block)]
        parts: list[Near] = []
        for part in self._pool.map(work, blocks):
            parts.append(part)
            if advance is not None:
                advance(len(part[0]))
        near, scores = zip(*parts, strict=True)
        return np.concatenate(near), np.concatenate(scores)


@contextmanager
def gather_crew(threads: int) -> Iterator[Crew]:
    """Hold `threads` threads for the work on blocks of rows."""
    with hold_threads(threads, 1) as pool:
        yield Crew(pool)


@contextmanager
def hold_threads(workers: int, cores: int) -> Iterator[ThreadPoolExecutor]:
    """Hold threads in which FAISS uses `cores` cores; what the caller's thread uses is kept."""
    faiss = require("faiss")
    pool = ThreadPoolExecutor(workers, initializer=faiss.omp_set_num_threads, initargs=(cores,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def check_layout(vectors: Vectors) -> Vectors:
    """Return the vectors as a plain array, nothing copied.

    Raises:
        InputError: not float32 (n, d) with rows one after another in memory.
    """
    plain: Vectors = np.asarray(vectors)
    check_embeddings(plain[:0], "vectors")
    if not plain.flags.c_contiguous:
        raise InputError(
            "vectors must lie row after row in memory, but are a slice or transposed; "
            "pass numpy.ascontiguousarray(vectors)"
        )
    return plain


def check_vectors(vectors: Vectors) -> None:
    """Raise InputError unless all rows are finite and of unit norm; block by block."""
    for first in range(0, len(vectors), _BLOCK_ROWS):
        block = vectors[first : first + _BLOCK_ROWS]
        check_embeddings(block, f"vectors from row {first} on" if first else "vectors")


def hash_rows(vectors: Vectors) -> str:
    """Return the sha256 of the vectors' bytes, 64 hex digits; block by block."""
    digest = hashlib.sha256()
    for first in range(0, len(vectors), _BLOCK_ROWS):
        digest.update(vectors[first : first + _BLOCK_ROWS].data)
    return digest.hexdigest()


def rank_candidates(vectors: Vectors, queries: Vectors, candidates: Rows, k: int) -> Near:
    """Return the k best candidates of each query by their exact cosine, ties by the lower row.

    The cosine of a pair is one float32 dot product: the same from both ends, and for equal
    vectors. It may pass 1 by rounding.

    Args:
        vectors: float32 (n, d), unit norm.
        queries: float32 (m, d), unit norm.
        candidates: int64 (m, w), rows of `vectors`, -1 for none, no row twice.
        k: neighbours a query.
    """
    faiss = require("faiss")
    ids = np.sort(candidates, axis=1)
    scores = np.full(ids.shape, -np.inf, np.float32)
    # Only pointers pass, so the candidates' vectors are never gathered in a copy.
    faiss.fvec_inner_products_by_idx(
        *map(faiss.swig_ptr, (scores, queries, vectors, ids)), vectors.shape[1], *ids.shape
    )
    scores[ids < 0] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    near = np.full((len(ids), k), -1, np.int32)
    exact = np.full((len(ids), k), -np.inf, np.float32)
    near[:, : best.shape[1]] = np.take_along_axis(ids, best, axis=1)
    exact[:, : best.shape[1]] = np.take_along_axis(scores, best, axis=1)
    return near, exact


def search_exact(vectors: Vectors, rows: Rows, k: int) -> Near:
    """Return the k nearest other rows of each of `rows`, int64 (m,): every pair is compared."""
    faiss = require("faiss")
    n = len(vectors)
    width = min(n, k + 1 + _MARGIN)
    queries = np.ascontiguousarray(vectors[rows])
    rough, found = faiss.knn(queries, vectors, width, metric=faiss.METRIC_INNER_PRODUCT)
    found[found == rows[:, None]] = -1
    near, scores = rank_candidates(vectors, queries, found, k)
    if width < n:
        # What was not found scores at most the last rough score: where that comes close to the
        # last neighbour, as among copies of one picture, a tie may have been cut.
        unsure = np.flatnonzero(scores[:, -1] <= rough[:, -1] + _SLACK)
        _settle_ties(vectors, queries, rows, unsure, near, scores)
    return near, scores


def _settle_ties(
    vectors: Vectors, queries: Vectors, rows: Rows, unsure: Any, near: Any, scores: Vectors
) -> None:
    """Rank, for the unsure queries, every row that reaches their last score."""
    k = near.shape[1]
    step = max(1, _FULL_VALUES // len(vectors))
    for first in range(0, len(unsure), step):
        chosen = unsure[first : first + step]
        every = queries[chosen] @ vectors.T
        for query, row_scores in zip(chosen, every, strict=True):
            reach = np.flatnonzero(row_scores >= scores[query, -1] - _SLACK)
            reach = reach[reach != rows[query]]
            asked = np.ascontiguousarray(queries[query : query + 1])
            best = rank_candidates(vectors, asked, reach[None], k)
            near[query], scores[query] = best[0][0], best[1][0]
