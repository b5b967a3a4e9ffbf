"""The exact index: raw rows in memory, scanned by every core."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facerec.checks import check_whole, require
from facerec.gallery.index import (
    NOBODY,
    Ranked,
    build_empty,
    check_numbers,
    check_rows,
    check_search,
)
from facerec.gallery.index_rows import Rows
from facerec.gallery.index_scan import search_rows
from facerec.gallery.index_threads import ReadWriteLock, Workers

MOST_DIM = 65536


class FlatIndex:
    """Exact search over raw float32 rows; see `VectorIndex` for what every method answers.

    A single query is scanned by FAISS, the rows shared out to threads; 8 or more go through
    numpy's matrix product, whose threads OMP_NUM_THREADS sets. What either finds is scored again
    in float64, so that an answer is the same whatever the batch. Rows are removed at once: the
    last row moves into the gap and the bytes behind it are overwritten.

    Args:
        dim: values of a vector, in [1, 65536].
        threads: for single queries and coding; the cores this process may use when None.
    """

    name = "flat"
    exact = True

    def __init__(self, dim: int, threads: int | None = None) -> None:
        require("faiss")
        self.dim = check_whole(dim, "dim", 1, MOST_DIM)
        self.rows = Rows(self.dim)
        self.workers = Workers(threads)
        self.lock = ReadWriteLock()

    def __len__(self) -> int:
        return self.rows.live

    @property
    def memory_bytes(self) -> int:
        """Bytes that the index takes in memory."""
        with self.lock.read():
            return self.rows.memory_bytes

    def upsert(
        self, ids: NDArray[np.int64], vectors: NDArray[np.float32], owners: NDArray[np.int64]
    ) -> None:
        """Add rows; a known id is replaced. See `VectorIndex.upsert`."""
        check_rows(ids, vectors, owners, self.dim)
        with self.lock.write():
            slots = self.rows.find(ids)
            known = slots != NOBODY
            self._replace(slots[known], ids[known], vectors[known], owners[known])
            if not known.all():
                fresh = ~known if known.any() else slice(None)
                self.rows.append(ids[fresh], vectors[fresh], owners[fresh])
            self._added()

    def remove(self, ids: NDArray[np.int64]) -> int:
        """Remove rows; unknown ids are passed over; return how many went."""
        check_numbers(ids, "ids")
        with self.lock.write():
            slots = np.unique(self.rows.find(ids))
            slots = slots[slots != NOBODY]
            self.rows.clear(slots)
            self._removed(slots)
        return len(slots)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        exact: bool = False,
        people: NDArray[np.int64] | None = None,
    ) -> Ranked:
        """Return each query's k best people. See `VectorIndex.search`."""
        check_search(queries, k, self.dim, people)
        with self.lock.read():
            if not len(queries) or not len(self):
                return build_empty(len(queries), k)
            allowed = None if people is None else np.isin(self.rows.owners, people)
            return self._answer(np.ascontiguousarray(queries), k, exact, allowed, None)

    def search_without(
        self, queries: NDArray[np.float32], k: int, ids: NDArray[np.int64], *, exact: bool = False
    ) -> Ranked:
        """Search as if one row a query were not there: what a row itself would find.

        Args:
            queries: float32 (m, d), unit norm.
            k: people a query.
            ids: int64 (m,), the row to leave out for each query.
            exact: see `search`.
        """
        check_search(queries, k, self.dim, ids)
        with self.lock.read():
            if not len(queries) or not len(self):
                return build_empty(len(queries), k)
            skip = self.rows.find(ids)
            return self._answer(np.ascontiguousarray(queries), k, exact, None, skip)

    def draw(
        self, count: int, seed: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
        """Return ids, vectors and owners of `count` rows drawn at random, all if there are fewer.

        Args:
            count: rows.
            seed: of the draw; the same seed and rows give the same draw.
        """
        with self.lock.read():
            live = np.flatnonzero(self.rows.owners != NOBODY)
            rng = np.random.default_rng(seed)
            slots = np.sort(rng.choice(live, min(count, len(live)), replace=False))
            return self.rows.ids[slots], self.rows.vectors[slots], self.rows.owners[slots]

    def get_owners(self) -> NDArray[np.int64]:
        """Return the owner of every live row, int64 (n,), in no order."""
        with self.lock.read():
            owners = self.rows.owners
            return np.asarray(owners[owners != NOBODY], np.int64)

    def close(self) -> None:
        """Overwrite the rows, let go of the memory and of the threads."""
        with self.lock.write():
            self.rows.close()
            self.workers.close()

    def _answer(
        self,
        queries: NDArray[np.float32],
        k: int,
        exact: bool,
        allowed: NDArray[np.bool_] | None,
        skip: NDArray[np.int64] | None,
    ) -> Ranked:
        return search_rows(self.rows, queries, k, self.workers, allowed=allowed, skip=skip)

    def _replace(
        self,
        slots: NDArray[np.int64],
        ids: NDArray[np.int64],
        vectors: NDArray[np.float32],
        owners: NDArray[np.int64],
    ) -> None:
        self.rows.overwrite(slots, vectors, owners)

    def _added(self) -> None:
        """Rows have come; there is nothing beside them."""

    def _removed(self, slots: NDArray[np.int64]) -> None:
        self.rows.close_gaps()
