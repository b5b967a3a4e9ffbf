"""The disposable index: FAISS flat inner product, one rank a person, exact."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_embeddings, require

_SLACK = 1e-5
"""More than float32 rounding of a dot product of unit vectors, whatever the summation order."""

_BLOCK_VALUES = 8_000_000


class FlatIndex:
    """Exact search over samples, answered per person.

    Args:
        vectors: float32 (n, d), unit norm.
        owners: int64 (n,), which person each sample belongs to.
    """

    def __init__(self, vectors: NDArray[np.float32], owners: NDArray[np.int64]) -> None:
        check_embeddings(vectors, "index vectors")
        if owners.shape != (len(vectors),):
            raise InputError(f"owners must have shape ({len(vectors)},), got {owners.shape}")
        faiss = require("faiss")
        self.owners = owners.astype(np.int64)
        self.dim = int(vectors.shape[1])
        self._people = len(np.unique(owners))
        self._index = faiss.IndexFlatIP(self.dim)
        self._index.add(np.ascontiguousarray(vectors))

    def __len__(self) -> int:
        return len(self.owners)

    def search(
        self, queries: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return each query's k best people by their best sample.

        Exact, and independent of the batch: the candidates that FAISS finds are scored again in
        float64, so equal vectors have equal scores. Ties go to the lower owner number.

        Args:
            queries: float32 (m, d), unit norm.
            k: people a query, at least 1.

        Returns:
            scores: float32 (m, k), descending, -inf where there are fewer than k people.
            rows: int64 (m, k), the sample that gave the score, -1 = none.
        """
        check_embeddings(queries, "queries", self.dim)
        if k < 1:
            raise InputError(f"k must be at least 1, got {k}")
        scores = np.full((len(queries), k), -np.inf, np.float32)
        rows = np.full((len(queries), k), -1, np.int64)
        if not len(self):
            return scores, rows
        pending: NDArray[np.int64] = np.arange(len(queries))
        width = min(len(self), max(4 * k, 16))
        while len(pending):
            pending = self._fill(queries, pending, width, k, scores, rows)
            width = min(len(self), 4 * width)
        return scores, rows

    def _fill(
        self,
        queries: NDArray[np.float32],
        pending: NDArray[np.int64],
        width: int,
        k: int,
        scores: NDArray[np.float32],
        rows: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Answer the pending queries from `width` samples each; return those that need more."""
        again: list[int] = []
        block = max(1, _BLOCK_VALUES // (width * self.dim))
        for start in range(0, len(pending), block):
            chosen = pending[start : start + block]
            rough, found = self._index.search(np.ascontiguousarray(queries[chosen]), width)
            vectors = self._index.reconstruct_batch(found.ravel())
            vectors = vectors.reshape(len(chosen), width, self.dim)
            exact = np.einsum(
                "mwd,md->mw", vectors, queries[chosen], dtype=np.float64, casting="same_kind"
            ).astype(np.float32)
            for query, row, score, last in zip(chosen, found, exact, rough[:, -1], strict=True):
                best, best_scores = self._rank_people(row, score, k)
                wanted = min(k, self._people)
                # A person outside the candidates can reach at most the last rough score.
                complete = len(best) >= wanted and best_scores[-1] > last + _SLACK
                if width < len(self) and not complete:
                    again.append(int(query))
                    continue
                scores[query, : len(best)] = best_scores
                rows[query, : len(best)] = best
        return np.array(again, dtype=np.int64)

    def _rank_people(
        self, row: NDArray[np.int64], score: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        owner = self.owners[row]
        order = np.lexsort((row, owner, -score))
        _, first = np.unique(owner[order], return_index=True)
        kept = order[np.sort(first)][:k]
        return row[kept], score[kept]
