"""Second people of a folder: rows that were turned away and yet agree with each other.

One folder may hold two people of one name, or one person young and old. Among the rows of a folder
that are unlike its centre, those that hang together by pairs no two strangers reach, and then are
like their own common centre, form a community. Whether it is the same person after all, another
known one or a new one is decided where identities are compared (`data_tools.merges`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from data_tools.centres import Labels, Mask, Vectors, group_rows
from data_tools.outliers import MIN_PICTURES, count_sizes

_PAIRS = 400_000
_BLOCK = 1 << 14
_LARGEST = 4096
_PASSES = 3
_SHARE = 0.15
"""Of a folder's rows: fewer are chance likenesses rather than a second person of that name."""


def find_communities(
    vectors: Vectors, labels: Labels, rejected: Mask, threshold: float, seed: int = 0
) -> tuple[Labels, int]:
    """Return the community of each row, int64 (n,), -1 for none, and how many there are.

    Args:
        vectors: float32 (n, d), unit norm.
        labels: int64 (n,), identities 0, 1, ..., -1 for none.
        rejected: bool (n,), rows unlike their own identity's centre; the others tell what
            strangers reach.
        threshold: least cosine of a row to its community's centre, itself left out.
        seed: of the pairs of strangers that are sampled.

    Communities are numbered in the order of their identity and of their first row.
    """
    link = find_link(vectors, np.where(rejected, -1, labels), seed)
    community = np.full(len(vectors), -1, np.int64)
    least = np.maximum(_SHARE * count_sizes(labels), MIN_PICTURES)
    count = 0
    for rows in group_rows(np.where(rejected, labels, -1)):
        if len(rows) < MIN_PICTURES:
            continue
        for members in _find_groups(vectors[rows[:_LARGEST]], link):
            kept = _hold_together(vectors[rows[members]], threshold)
            if len(kept) >= least[rows[0]]:
                community[rows[members[kept]]] = count
                count += 1
    return community, count


def find_link(vectors: Vectors, labels: Labels, seed: int = 0) -> float:
    """Return the cosine that two rows of different identities reach once in ten thousand pairs.

    Carried on from once in a hundred and in a thousand: farther out, one person under two names
    passes for two strangers.

    Args:
        vectors: float32 (n, d), unit norm.
        labels: int64 (n,), of rows that surely show their identity; -1 for the others.
        seed: of the pairs that are sampled.
    """
    rng = np.random.default_rng(seed)
    sure = np.flatnonzero(labels >= 0)
    if not len(sure):
        return 1.0
    one, two = sure[rng.integers(len(sure), size=(2, _PAIRS))]
    apart = labels[one] != labels[two]
    one, two = one[apart], two[apart]
    cosines = [
        np.einsum("nd,nd->n", vectors[one[at : at + _BLOCK]], vectors[two[at : at + _BLOCK]])
        for at in range(0, len(one), _BLOCK)
    ]
    if not cosines:
        return 1.0
    often, seldom = np.quantile(np.concatenate(cosines), [0.99, 0.999])
    return float(min(1.0, seldom + (seldom - often)))


def _find_groups(vectors: Vectors, link: float) -> list[NDArray[np.int64]]:
    """Return the connected groups of at least MIN_PICTURES rows, by their first rows."""
    near = csr_array(vectors @ vectors.T >= link)
    count, group = connected_components(near, directed=False)
    sizes = np.bincount(group, minlength=count)
    return [np.flatnonzero(group == g) for g in np.flatnonzero(sizes >= MIN_PICTURES)]


def _hold_together(vectors: Vectors, threshold: float) -> NDArray[np.int64]:
    """Return the rows that stay at or above the threshold to the centre of the others that do."""
    kept = np.arange(len(vectors))
    for _ in range(_PASSES):
        mine = vectors[kept].astype(np.float64)
        rest = mine.sum(axis=0) - mine
        cosines = np.einsum("nd,nd->n", rest, mine) / np.maximum(
            np.linalg.norm(rest, axis=1), 1e-12
        )
        good = cosines >= threshold
        if good.all():
            break
        kept = kept[good]
        if len(kept) < MIN_PICTURES:
            break
    return kept
