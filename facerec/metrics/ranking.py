"""Ranking of a gallery by distance: CMC and mAP as in person re-identification.

The definitions of Market-1501 (Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV
2015) that public code follows. Of a query, gallery rows of its own person taken by its own camera
are junk, and so are gallery rows with id -1 (bad boxes): they are removed from the list and are
neither right nor wrong. All other gallery rows of another id, the background's included (id 0 in
Market-1501), are wrong. CMC at k is the share of queries with a right row among the k nearest;
average precision is the mean, over the right rows, of the precision at their ranks. Equal
distances rank by position. A query without a right row is left out of both and counted.

The rank of a right row is one more than the number of rows before it, so no row of distances is
sorted: the rows before each right one are counted, or, for a person of very many gallery rows,
found in the sorted distances.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facerec.checks import InputError, check_whole
from facerec.dist import cpu_count

JUNK = -1

_BLOCK = 32
# Up to so many right rows counting beats sorting.
_MOST_COUNTED = 64

# So many right rows at once: their flags stay in the cache.
_FLAGGED = 24

Places = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """CMC and mAP of a set of queries.

    Attributes:
        cmc: float64 (n,), share of queries with a right row among the k nearest, rank 1 first; n
            is the number of gallery rows that are not junk for every query.
        mean_ap: mean of the average precisions.
        average_precisions: float64 (q,), one a query; NaN for one that was left out.
        first_ranks: int64 (q,), rank from 1 of the nearest right row; 0 for a query left out.
        queries: how many queries count.
        left_out: how many had no right row in the gallery.
    """

    cmc: NDArray[np.float64]
    mean_ap: float
    average_precisions: NDArray[np.float64]
    first_ranks: Places
    queries: int
    left_out: int


def cmc_map(
    distances: NDArray[Any],
    query_ids: ArrayLike,
    gallery_ids: ArrayLike,
    query_cameras: ArrayLike | None = None,
    gallery_cameras: ArrayLike | None = None,
    *,
    threads: int | None = None,
) -> Ranking:
    """Return CMC and mAP of queries against a gallery.

    Args:
        distances: (q, n), smaller is nearer (for cosines pass 1 - scores); a memory map is read
            row by row. Positive infinity is a comparison that could not be made.
        query_ids: (q,), whole numbers or text.
        gallery_ids: (n,), of the same kind; the number -1 is junk.
        query_cameras: (q,), whole numbers or text; without cameras no row is junk by camera.
        gallery_cameras: (n,), given with `query_cameras` or not at all.
        threads: how many, all cores when None; the figures do not depend on it.

    Raises:
        InputError: shapes that do not fit, ids that are neither whole numbers nor text, cameras of
            one side only, NaN or negative infinity among the distances, no query with a right row.
    """
    matrix = np.asanyarray(distances)
    if matrix.ndim != 2 or not (
        np.issubdtype(matrix.dtype, np.integer) or np.issubdtype(matrix.dtype, np.floating)
    ):
        raise InputError(
            "distances must be a matrix of real numbers (queries, gallery rows), "
            f"got {matrix.dtype} {matrix.shape}"
        )
    people, kept = _code_ids(query_ids, gallery_ids, matrix.shape)
    cameras = _code_cameras(query_cameras, gallery_cameras, matrix.shape)
    pool_size = check_whole(cpu_count() if threads is None else threads, "threads", 1, 4096)
    search = _Search(matrix, people, cameras, kept)
    starts = range(0, len(matrix), _BLOCK)
    with ThreadPoolExecutor(pool_size, "ranking") as pool:
        blocks = list(pool.map(search.rank_block, starts))
    first = np.concatenate([block[0] for block in blocks] or [np.zeros(0, np.int64)])
    precisions = np.concatenate([block[1] for block in blocks] or [np.zeros(0)])
    counted = int(np.count_nonzero(first))
    if not counted:
        raise InputError(
            f"none of {len(matrix)} queries has a gallery row of its own person"
            + (" from another camera" if cameras else "")
            + "; are query_ids and gallery_ids numbered alike?"
        )
    found = np.bincount(first, minlength=search.columns + 1)[1:]
    return Ranking(
        cmc=np.cumsum(found) / counted,
        mean_ap=float(np.nanmean(precisions)),
        average_precisions=precisions,
        first_ranks=first,
        queries=counted,
        left_out=len(matrix) - counted,
    )


class _Search:
    """Ranks the right gallery rows of each query."""

    def __init__(
        self,
        matrix: NDArray[Any],
        people: tuple[Places, Places],
        cameras: tuple[Places, Places] | None,
        kept: Places | None,
    ) -> None:
        self._matrix, self._kept = matrix, kept
        gallery = people[1] if kept is None else people[1][kept]
        self.columns = gallery.size
        # Columns by person, rising within one person.
        self._order = np.argsort(gallery, kind="stable")
        grouped = gallery[self._order]
        self._starts = np.searchsorted(grouped, people[0], side="left")
        self._ends = np.searchsorted(grouped, people[0], side="right")
        self._query_cameras = self._cameras = None
        if cameras is not None:
            self._query_cameras = cameras[0]
            self._cameras = (cameras[1] if kept is None else cameras[1][kept])[self._order]

    def rank_block(self, start: int) -> tuple[Places, Floats]:
        """Return first ranks and average precisions of `_BLOCK` queries from `start` on."""
        stop = min(start + _BLOCK, len(self._matrix))
        first, precisions = np.zeros(stop - start, np.int64), np.full(stop - start, np.nan)
        ranked = self._rank_queries(start, stop)
        if not ranked:
            return first, precisions
        places, counts = np.array([(place, row.size) for place, row in ranked]).T
        ranks = np.concatenate([row for _, row in ranked])
        # Queries one behind the other, the ranks of each rising.
        ranks = ranks[np.lexsort((ranks, np.repeat(places, counts)))]
        starts = np.cumsum(counts) - counts
        right = np.arange(1, ranks.size + 1) - np.repeat(starts, counts)
        first[places] = ranks[starts]
        precisions[places] = np.add.reduceat(right / ranks, starts) / counts
        return first, precisions

    def _rank_queries(self, start: int, stop: int) -> list[tuple[int, Places]]:
        """Return place in the block and ranks from 1, for each query with a right row."""
        block = self._matrix[start:stop]
        # Of NaN and any number the minimum is NaN.
        if block.size and not block.min() > -np.inf:
            raise InputError(
                "distances must be numbers, got NaN or negative infinity; were the embeddings "
                "finite?"
            )
        # Whole numbers and half precision are compared in a type that holds them exactly.
        row = np.empty(self.columns, np.result_type(block.dtype, np.float32))
        flags = np.empty(_FLAGGED * (self.columns + 8), np.bool_)
        ranked = []
        for place, query in enumerate(range(start, stop)):
            own = slice(self._starts[query], self._ends[query])
            right = junk = self._order[own]
            if self._cameras is not None and self._query_cameras is not None:
                same = self._cameras[own] == self._query_cameras[query]
                right, junk = right[~same], junk[same]
            else:
                junk = junk[:0]
            if right.size:
                row[:] = block[place] if self._kept is None else block[place].take(self._kept)
                # NaN lies before nothing: junk leaves the list.
                row[junk] = np.nan
                ranked.append((place, rank_columns(row, right, flags)))
        return ranked


def rank_columns(row: NDArray[Any], columns: Places, flags: NDArray[np.bool_]) -> Places:
    """Return the ranks from 1 of some columns of a row of distances, int64 (m,) in any order.

    Args:
        row: floating (n,); NaN is no part of the list.
        columns: int64 (m,), rising, m >= 1, none of them NaN.
        flags: boolean, room to work in.
    """
    wanted = row[columns]
    near = np.less_equal(row, wanted.max(), out=flags[: row.size])
    if 3 * np.count_nonzero(near) < row.size:
        # Nothing beyond the farthest right row matters, and of a good list that is most of it.
        places = np.flatnonzero(near)
        row, columns = row[places], np.searchsorted(places, columns)
    if columns.size > _MOST_COUNTED:
        return _rank_sorted(row, columns)
    ranks = np.empty(columns.size, np.int64)
    width = -(-row.size // 8) * 8
    for start in range(0, columns.size, _FLAGGED):
        part = slice(start, start + _FLAGGED)
        values = wanted[part, None]
        table = flags[: values.size * width].reshape(values.size, width)
        table[:, row.size :] = False
        np.equal(row, values, out=table[:, : row.size])
        tied = np.flatnonzero(_count_lines(table) > 1) + start
        np.less(row, values, out=table[:, : row.size])
        ranks[part] = _count_lines(table) + 1
        for place in tied:
            # Of equal distances those at earlier positions come first.
            ranks[place] += np.count_nonzero(row[: columns[place]] == wanted[place])
    return ranks


def _count_lines(table: NDArray[np.bool_]) -> Places:
    """Return how many flags of each line are set, int64 (m,); lines are a multiple of 8 long."""
    words = table.view(np.uint64)
    # Eight flags are added as one number; of 255 such words no byte carries into the next.
    sums = np.add.reduceat(words, np.arange(0, words.shape[1], 255), axis=1)
    found: Places = sums.view(np.uint8).sum(axis=1, dtype=np.int64)
    return found


def _rank_sorted(row: NDArray[Any], columns: Places) -> Places:
    rising, wanted = np.sort(row), np.sort(row[columns])
    before = np.searchsorted(rising, wanted, side="left")
    if (np.searchsorted(rising, wanted, side="right") - before == 1).all():
        ranks: Places = before.astype(np.int64) + 1
        return ranks
    every = np.empty(row.size, np.int64)
    every[np.argsort(row, kind="stable")] = np.arange(1, row.size + 1)
    found: Places = every[columns]
    return found


def _code_ids(
    query_ids: ArrayLike, gallery_ids: ArrayLike, shape: tuple[int, ...]
) -> tuple[tuple[Places, Places], Places | None]:
    """Return ids as numbers from 0 and the columns that are not junk, None when all are kept."""
    codes, numeric = _code(query_ids, gallery_ids, "ids", shape)
    if not numeric:
        return codes, None
    junk = np.asarray(gallery_ids) == JUNK
    return codes, np.flatnonzero(~junk) if junk.any() else None


def _code_cameras(
    query_cameras: ArrayLike | None, gallery_cameras: ArrayLike | None, shape: tuple[int, ...]
) -> tuple[Places, Places] | None:
    if query_cameras is None and gallery_cameras is None:
        return None
    if query_cameras is None or gallery_cameras is None:
        given = "gallery_cameras" if query_cameras is None else "query_cameras"
        raise InputError(f"cameras must be given for both sides or for none, got only {given}")
    return _code(query_cameras, gallery_cameras, "cameras", shape)[0]


def _code(
    of_queries: ArrayLike, of_gallery: ArrayLike, what: str, shape: tuple[int, ...]
) -> tuple[tuple[Places, Places], bool]:
    """Return the labels of both sides as numbers from 0, and whether they were numbers."""
    sides, kinds = [], []
    for labels, name, count in (
        (of_queries, f"query_{what}", shape[0]),
        (of_gallery, f"gallery_{what}", shape[1]),
    ):
        row = np.asarray(labels)
        if row.dtype == object:  # text read from a table
            row = np.asarray(row.tolist())
        if row.shape != (count,):
            raise InputError(
                f"{name} must be ({count},) for distances of shape {shape}, got {row.shape}"
            )
        if count and row.dtype.kind not in "iuU":
            raise InputError(f"{name} must be whole numbers or text, got {row.dtype}")
        sides.append(row)
        kinds.append(row.dtype.kind == "U" if count else None)
    if None not in kinds and kinds[0] != kinds[1]:
        raise InputError(
            f"query_{what} and gallery_{what} must be of one kind, got {sides[0].dtype} and "
            f"{sides[1].dtype}"
        )
    # Each side with its own type: a common one of signed and unsigned numbers is a float.
    names = np.unique(sides[1])
    places = np.searchsorted(names, sides[0]) if names.size else np.zeros(shape[0], np.int64)
    known = places < names.size
    known[known] = names[places[known]] == sides[0][known]
    queries = np.where(known, places, -1).astype(np.int64)
    return (queries, np.searchsorted(names, sides[1]).astype(np.int64)), True not in kinds
