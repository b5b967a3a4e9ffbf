"""Sums and centres of identities, and the cosines of rows to them, a row never against itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Vectors = NDArray[np.float32]
Labels = NDArray[np.int64]
Mask = NDArray[np.bool_]
Array = NDArray[np.float64]

_BLOCK = 1 << 14
_TINY = 1e-12
_CANDIDATES = 3


def group_rows(labels: Labels) -> list[Labels]:
    """Return the rows of identity 0, 1, ..., ascending; rows labelled -1 are in none."""
    order = np.argsort(labels, kind="stable")
    order = order[np.searchsorted(labels[order], 0) :]
    count = int(labels.max(initial=-1)) + 1
    ends = np.searchsorted(labels[order], np.arange(1, count))
    return [np.asarray(rows, np.int64) for rows in np.split(order, ends)] if count else []


def sum_members(vectors: Vectors, assigned: Labels, count: int) -> NDArray[np.float32]:
    """Return the sum of each identity's members, float32 (count, d).

    Args:
        vectors: float32 (n, d).
        assigned: int64 (n,), whose member each row is, -1 for nobody's.
        count: number of identities.
    """
    rows = np.flatnonzero(assigned >= 0)
    sums = np.zeros((count, vectors.shape[1]), np.float32)
    for first in range(0, len(rows), _BLOCK):
        part = rows[first : first + _BLOCK]
        places, local = np.unique(assigned[part], return_inverse=True)
        shape = (len(places), len(part))
        chooser = csr_array((np.ones(len(part), np.float32), (local, np.arange(len(part)))), shape)
        sums[places] += chooser @ vectors[part]
    return sums


def count_members(assigned: Labels, count: int) -> Labels:
    """Return how many members each of `count` identities has, int64 (count,)."""
    return np.asarray(np.bincount(assigned[assigned >= 0], minlength=count), np.int64)


def scale_to_unit(sums: NDArray[np.float32]) -> Vectors:
    """Return the unit vectors of sums, float32; a zero sum stays zero."""
    norms = np.sqrt(np.einsum("cd,cd->c", sums, sums, dtype=np.float64))
    return np.asarray(sums / np.maximum(norms, _TINY)[:, None], np.float32)


def score_against(
    vectors: Vectors,
    identities: Labels,
    assigned: Labels,
    sums: NDArray[np.float32],
    members: Labels,
) -> Array:
    """Return the cosine of each row to one identity's centre, the row itself left out of it.

    Args:
        vectors: float32 (n, d), unit norm.
        identities: int64 (n,), against whom, -1 for nobody.
        assigned: int64 (n,), whose member each row is.
        sums: float32 (c, d), of `sum_members`.
        members: int64 (c,), of `count_members`; of the whole set where the rows are a part of it.

    Returns:
        float64 (n,); NaN against nobody, and where nobody else is a member.
    """
    out = np.full(len(vectors), np.nan)
    rows = np.flatnonzero(identities >= 0)
    for first in range(0, len(rows), _BLOCK):
        part = rows[first : first + _BLOCK]
        whom = identities[part]
        mine = assigned[part] == whom
        own = np.asarray(vectors[part], np.float64)
        rest = sums[whom] - own * mine[:, None]
        norms = np.sqrt(np.einsum("nd,nd->n", rest, rest))
        cosines = np.einsum("nd,nd->n", rest, own) / np.maximum(norms, _TINY)
        out[part] = np.where(members[whom] - mine > 0, cosines, np.nan)
    return out


def find_others(
    vectors: Vectors,
    labels: Labels,
    assigned: Labels,
    sums: NDArray[np.float32],
    neighbours: NDArray[np.int32] | None,
) -> tuple[Array, Labels]:
    """Return each row's best cosine to the centre of another identity, and whose.

    Args:
        vectors: float32 (n, d), unit norm.
        labels: int64 (n,), the identity that does not count, -1 for none.
        assigned: int64 (n,), whose member each row is.
        sums: float32 (c, d), of `sum_members`.
        neighbours: int32 (n, k), the rows nearest to each, -1 for none: candidates are the first
            three other identities among those whose members they are. None: all identities.

    Returns:
        float64 (n,), NaN without a candidate, and int64 (n,), -1 without one.
    """
    best, whose = np.full(len(vectors), np.nan), np.full(len(vectors), -1, np.int64)
    if not len(sums):
        return best, whose
    if neighbours is None:
        return _search_all(vectors, labels, scale_to_unit(sums))
    members = count_members(assigned, len(sums))
    for first in range(0, len(vectors), _BLOCK):
        block = slice(first, min(first + _BLOCK, len(vectors)))
        near = neighbours[block]
        candidates = np.where(near >= 0, assigned[near], -1)
        candidates[candidates == labels[block, None]] = -1
        for _ in range(_CANDIDATES):
            given = candidates >= 0
            if not given.any():
                break
            column = np.argmax(given, axis=1)
            taken = candidates[np.arange(len(near)), column]
            candidates[candidates == taken[:, None]] = -1
            cosines = score_against(vectors[block], taken, assigned[block], sums, members)
            better = cosines > np.where(np.isnan(best[block]), -np.inf, best[block])
            best[block] = np.where(better, cosines, best[block])
            whose[block] = np.where(better, taken, whose[block])
    return best, whose


def _search_all(vectors: Vectors, labels: Labels, units: Vectors) -> tuple[Array, Labels]:
    best, whose = np.full(len(vectors), -np.inf), np.full(len(vectors), -1, np.int64)
    step = max(1, (1 << 22) // len(units))
    empty = ~units.any(axis=1)
    for first in range(0, len(vectors), step):
        block = slice(first, min(first + step, len(vectors)))
        cosines = np.asarray(vectors[block] @ units.T)
        cosines[:, empty] = -np.inf
        held = np.flatnonzero(labels[block] >= 0)
        cosines[held, labels[block][held]] = -np.inf
        whose[block] = np.argmax(cosines, axis=1)
        best[block] = np.max(cosines, axis=1)
    none = ~np.isfinite(best)
    whose[none], best[none] = -1, np.nan
    return best, whose
