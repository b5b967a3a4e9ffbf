"""The near-exact search of the kNN graph: inverted lists, then the neighbours of neighbours.

Rows are put into about sqrt(n) lists by k-means; a row is compared to the rows of the lists whose
centres are nearest to it, by 4-bit product codes that fit in registers (FAISS fast scan). The best
few times k are compared exactly. A row on the edge of its list misses some of its own kind, but
those who find it, or whom it finds, know the others: so the neighbours of its nearest neighbours
are compared exactly too, which costs little and finds what would take several times as many lists.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.graph_exact import Near, Rows, Vectors, rank_candidates
from facerec.checks import require

MIN_ROWS = 512
"""Fewer rows than this are not worth lists, nor enough to train them."""

SPAN = 16
"""The neighbours of a row whose neighbours are looked at, and how many of those."""

_ROUNDS = 6
_PER_LIST = 30
_MIN_TRAINING = 20_000
_ADDED_ROWS = 1 << 16
_CODED_DIMS = (8, 4, 2, 1)


@dataclass(frozen=True)
class Plan:
    """How the neighbours are searched.

    Attributes:
        method: "flat" (every pair), "ivf" (lists of vectors) or "ivfpq" (lists of codes).
        lists: number of lists, 0 for flat.
        probes: lists searched for a row, 0 for flat.
        width: candidates of the lists that are compared exactly, 0 for flat.
    """

    method: str
    lists: int = 0
    probes: int = 0
    width: int = 0

    def describe(self, dim: int) -> str:
        """Say in words what is done."""
        if self.method == "flat":
            return "exact: every pair of rows compared (flat)"
        codes = f"{dim // _pick_part(dim) / 2:g}-byte product codes (PQ, 4 bits)"
        held = codes if self.method == "ivfpq" else "float32 vectors"
        return (
            f"near-exact: {self.lists} inverted lists (IVF) of {held}, {self.probes} searched a "
            f"row, the best {self.width} and the neighbours of the {SPAN} nearest compared exactly"
        )


def count_lists(rows: int) -> int:
    """Return how many lists: the power of two next to sqrt(n).

    Finding the nearest centres then costs about as much as scanning codes, see
    `data_tools.bench.knn_graph`.
    """
    return int(2 ** round(math.log2(math.sqrt(rows))))


def train_lists(vectors: Vectors, method: str, seed: int) -> Any:
    """Return the FAISS index of all rows, trained on a seeded sample; memory: see `build_graph`.

    Args:
        vectors: float32 (n, d), unit norm, n at least MIN_ROWS.
        method: "ivf" or "ivfpq".
        seed: of the sample and of k-means.
    """
    faiss = require("faiss")
    n, dim = vectors.shape
    lists = count_lists(n)
    quantizer = faiss.IndexFlatIP(dim)
    inner = faiss.METRIC_INNER_PRODUCT
    if method == "ivf":
        index = faiss.IndexIVFFlat(quantizer, dim, lists, inner)
    else:
        parts = dim // _pick_part(dim)
        index = faiss.IndexIVFPQFastScan(quantizer, dim, lists, parts, 4, inner)
        index.by_residual = False  # one table of distances a row, not one a row and list
        index.pq.cp.seed = seed
        index.pq.cp.min_points_per_centroid = 1
    index.cp.seed = seed
    index.cp.niter = _ROUNDS
    index.cp.max_points_per_centroid = _PER_LIST
    index.cp.min_points_per_centroid = 1
    rng = np.random.default_rng((seed, 1))
    count = min(n, max(_PER_LIST * lists, _MIN_TRAINING))
    index.train(vectors[np.sort(rng.choice(n, count, replace=False))])
    for first in range(0, n, _ADDED_ROWS):
        index.add(vectors[first : first + _ADDED_ROWS])
    return index


def search_lists(vectors: Vectors, index: Any, plan: Plan, rows: Rows, k: int) -> Near:
    """Return the k nearest other rows of each of `rows` among what the lists offer."""
    faiss = require("faiss")
    queries = np.ascontiguousarray(vectors[rows])
    # The row itself is found too, and takes a place.
    width = min(len(vectors), plan.width + 1)
    probes = faiss.SearchParametersIVF(nprobe=plan.probes)
    _, found = index.search(queries, width, params=probes)
    found[found == rows[:, None]] = -1
    return rank_candidates(vectors, queries, found, k)


def expand(
    vectors: Vectors, rows: Rows, near: NDArray[np.int32], second: NDArray[np.int32], k: int
) -> Near:
    """Return the k nearest other rows among the neighbours and their neighbours.

    Args:
        vectors: float32 (n, d), unit norm.
        rows: int64 (m,).
        near: int32 (m, w), their neighbours, -1 for none.
        second: int32 (m, s, t), neighbours of the first s of those, -1 for none.
        k: neighbours a row.
    """
    pool = np.concatenate([near, second.reshape(len(rows), -1)], axis=1).astype(np.int32)
    pool[pool == rows[:, None]] = -1
    pool.sort(axis=1)
    pool[:, 1:][pool[:, 1:] == pool[:, :-1]] = -1
    # Most are the same few rows: what is left takes far less room, moved to the front.
    pool = -np.sort(-pool, axis=1)
    used = int(np.count_nonzero(pool >= 0, axis=1).max(initial=1))
    queries = np.ascontiguousarray(vectors[rows])
    return rank_candidates(vectors, queries, pool[:, :used].astype(np.int64), k)


def look_up(base: NDArray[np.int32], near: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the neighbours of the nearest neighbours, int32 (m, SPAN, SPAN), -1 for none.

    Args:
        base: int32 (n, w), neighbours of every row.
        near: int32 (m, w), row numbers of `base`, -1 for none.
    """
    first = near[:, :SPAN]
    second: NDArray[np.int32] = np.array(base[first, :SPAN])
    second[first < 0] = -1
    return second


def _pick_part(dim: int) -> int:
    """Return how many dimensions share a 4-bit code: 8 where vectors are long, else fewer."""
    fits = [part for part in _CODED_DIMS if dim % part == 0 and dim // part >= 32]
    return fits[0] if fits else 1
