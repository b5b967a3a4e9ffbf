"""The disposable index: what every backend answers, and how rows are ranked as people."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_embeddings

NOBODY = -1
"""Owner and id where there is no candidate."""

_ROWS_AT_ONCE = 128


@dataclass(frozen=True)
class Ranked:
    """The k best people of each query, each person once, by their best row.

    Attributes:
        scores: float32 (m, k), cosines, descending; -inf = none.
        owners: int64 (m, k), the people; -1 = none.
        ids: int64 (m, k), the row that gave the score; -1 = none.
    """

    scores: NDArray[np.float32]
    owners: NDArray[np.int64]
    ids: NDArray[np.int64]


class VectorIndex(Protocol):
    """Rows of vectors with owners, answered per person: one interface for every backend.

    Ids and owners are non-negative int64 (SQLite row ids; a person has many rows). Strict grouped
    top-k: each person once, by their best row; ties go to the lowest owner, then the lowest id.
    Scores are float32 of float64 dot products of the stored float32 vectors, the same whatever
    the batch or backend. Searches may run in several threads at once; changes exclude them.

    Attributes:
        name: of the backend or rung, such as "flat" or "pq4+exact".
        dim: values of a vector.
        exact: whether every answer is exact, also without `exact=True`.
    """

    @property
    def name(self) -> str:
        """Of the backend or rung."""

    @property
    def dim(self) -> int:
        """Values of a vector."""

    @property
    def exact(self) -> bool:
        """Whether every answer is exact, also without `exact=True`."""

    def __len__(self) -> int:
        """Return the number of live rows."""

    def upsert(
        self, ids: NDArray[np.int64], vectors: NDArray[np.float32], owners: NDArray[np.int64]
    ) -> None:
        """Add rows; a known id is replaced.

        Args:
            ids: int64 (n,), non-negative, each once.
            vectors: float32 (n, d), unit norm.
            owners: int64 (n,), non-negative: which person each row belongs to.

        Raises:
            InputError: an array does not fit this; nothing has changed then.
        """

    def remove(self, ids: NDArray[np.int64]) -> int:
        """Remove rows; unknown ids are passed over.

        Returns:
            How many went.
        """

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        exact: bool = False,
        people: NDArray[np.int64] | None = None,
    ) -> Ranked:
        """Return each query's k best people.

        Args:
            queries: float32 (m, d), unit norm.
            k: people a query, at least 1; more than there are is fine.
            exact: answer exactly whatever the backend.
            people: only these owners; None for all.

        Raises:
            InputError: the queries are no unit vectors of this dimension, or k is below 1.
        """

    def close(self) -> None:
        """Let go of memory, threads and connections; the index is not used afterwards."""


def check_rows(
    ids: NDArray[np.int64], vectors: NDArray[np.float32], owners: NDArray[np.int64], dim: int
) -> None:
    """Refuse rows that no index takes.

    Raises:
        InputError: NaN, zero or un-normalised vectors, another dimension, lengths that differ,
            negative ids or owners, an id given twice.
    """
    check_embeddings(vectors, "index vectors", dim)
    for name, values in (("ids", ids), ("owners", owners)):
        check_numbers(values, name)
        if values.shape != (len(vectors),):
            raise InputError(f"{name} must have shape ({len(vectors)},), got {values.shape}")
    ordered = np.sort(ids)
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if twice.size:
        raise InputError(f"ids must differ, but {ordered[twice[0]]} is given twice; give it once")


def check_numbers(values: NDArray[np.int64], name: str) -> None:
    """Raise InputError unless `values` are non-negative int64 (n,)."""
    if not isinstance(values, np.ndarray) or values.dtype != np.int64 or values.ndim != 1:
        got = f"{getattr(values, 'dtype', type(values).__name__)} {np.shape(values)}"
        raise InputError(f"{name} must be int64 (n,), got {got}")
    if values.size and int(values.min()) < 0:
        raise InputError(f"{name} must be at least 0, got {int(values.min())}")


def check_search(
    queries: NDArray[np.float32], k: int, dim: int, people: NDArray[np.int64] | None
) -> None:
    """Raise InputError unless a search can be answered: see `VectorIndex.search`."""
    check_embeddings(queries, "queries", dim)
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
    if people is not None:
        check_numbers(people, "people")


def build_empty(queries: int, k: int) -> Ranked:
    """Return the answer that names nobody."""
    return Ranked(
        np.full((queries, k), -np.inf, np.float32),
        np.full((queries, k), NOBODY, np.int64),
        np.full((queries, k), NOBODY, np.int64),
    )


def score_pairs(
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    asked: NDArray[np.int64],
    slots: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Return float32 of the float64 dot product of each (query, row) pair.

    One dot product a pair, always summed in the same order: equal vectors have equal scores,
    whatever else is in the batch.

    Args:
        vectors: float32 (n, d), the stored rows.
        queries: float32 (m, d).
        asked: int64 (c,), the query of each pair, ascending.
        slots: int64 (c,), the row of each pair, in [0, n).
    """
    scores = np.empty(len(asked), np.float32)
    wide = queries.astype(np.float64)
    bounds = np.searchsorted(asked, np.arange(len(queries) + 1)).tolist()
    narrow = np.empty((min(_ROWS_AT_ONCE, len(asked)), vectors.shape[1]), np.float32)
    rows = np.empty(narrow.shape, np.float64)
    for query, (start, stop) in enumerate(itertools.pairwise(bounds)):
        for first in range(start, stop, _ROWS_AT_ONCE):
            last = min(stop, first + _ROWS_AT_ONCE)
            count = last - first
            # Into buffers that stay in the cache; "clip" because "raise" would copy once more.
            np.take(vectors, slots[first:last], axis=0, out=narrow[:count], mode="clip")
            rows[:count] = narrow[:count]
            scores[first:last] = np.vecdot(rows[:count], wide[query])
    return scores


def group_people(
    asked: NDArray[np.int64],
    owners: NDArray[np.int64],
    scores: NDArray[np.float32],
    ids: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Order candidate rows by query, person, falling score, id.

    Returns:
        order: int64 (c,).
        first: bool (c,), whether the row in that place of the order is its person's best.
    """
    order = np.lexsort((ids, -scores, owners, asked))
    ordered, people = asked[order], owners[order]
    first = np.ones(len(order), bool)
    first[1:] = (ordered[1:] != ordered[:-1]) | (people[1:] != people[:-1])
    return order, first


def rank_people(
    asked: NDArray[np.int64],
    owners: NDArray[np.int64],
    scores: NDArray[np.float32],
    ids: NDArray[np.int64],
    shape: tuple[int, int],
) -> Ranked:
    """Rank candidate rows as people.

    Args:
        asked: int64 (c,), the query of each candidate row.
        owners: int64 (c,), its person.
        scores: float32 (c,).
        ids: int64 (c,).
        shape: queries and people a query, (m, k).
    """
    ranked = build_empty(*shape)
    order, first = group_people(asked, owners, scores, ids)
    best = order[first]
    # Stable: within a query, people of equal score stay in the order of their numbers.
    best = best[np.lexsort((-scores[best], asked[best]))]
    queries = asked[best]
    ranks = np.arange(len(best)) - np.searchsorted(queries, queries)
    kept = ranks < shape[1]
    best, where = best[kept], (queries[kept], ranks[kept])
    ranked.scores[where] = scores[best]
    ranked.owners[where] = owners[best]
    ranked.ids[where] = ids[best]
    return ranked
