"""Near-duplicates, within and across identities: equal bytes, near pictures, near embeddings.

Two pictures are copies when their bytes agree, when their hashes nearly do, or when their cosine
is one that different photos of a person practically never reach. Near hashes alone are not
believed, since dark or blank chips of two people have them too: the cosine must agree. A duplicate
is always within the thresholds of the very row that stands for it: chains make no groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.centres import Array, Labels, Mask, Vectors
from data_tools.duplicate_cut import (
    DIFFERENT_BITS,
    CopyCut,
    count_mirrored,
    find_copy_cut,
    score_pairs,
)
from data_tools.hashes import (
    MOST_EQUAL,
    Hashes,
    Pairs,
    count_bits,
    find_near_hashes,
    find_near_mirrors,
    pair_equal,
    sort_pairs,
)
from facerec.checks import InputError, check_embeddings

KINDS = ("", "same bytes", "near picture", "near embedding")
"""What `Duplicates.kind` numbers, the strongest evidence first."""

_BLOCK = 1 << 14
_HUBS = 16


@dataclass(frozen=True)
class CopyTable:
    """What is known of p pairs that may be copies, before anything is decided.

    Attributes:
        pairs: int64 (p, 2), the lower row first, sorted.
        cosines: float32 (p,).
        bits: int16 (p,), differing bits of the hashes, as they are or mirrored; -1 unknown.
        mirrored: bool (p,), one is nearer to the other's mirror image.
        same_bytes: bool (p,).
    """

    pairs: Pairs
    cosines: Vectors
    bits: NDArray[np.int16]
    mirrored: Mask
    same_bytes: Mask


@dataclass(frozen=True)
class Duplicates:
    """Which of n rows are copies of which other rows.

    Attributes:
        kept_row: int64 (n,), the row that stands for this one; -1: not a duplicate. Within an
            identity it has the better quality. It may itself be an `across` duplicate.
        kind: int8 (n,), place in KINDS of the evidence.
        across: bool (n,), the kept row has another label: `settle_across` says who stays.
        cosine: float32 (n,), to the kept row; NaN where there is none.
        bits: int16 (n,), differing hash bits to it; -1 unknown.
        mirrored: bool (n,), it shows the mirror image.
        labels: int64 (n,), the labels that were given.
        cut: the thresholds.
    """

    kept_row: Labels
    kind: NDArray[np.int8]
    across: Mask
    cosine: Vectors
    bits: NDArray[np.int16]
    mirrored: Mask
    labels: Labels
    cut: CopyCut


def find_duplicates(
    vectors: Vectors,
    labels: Labels,
    neighbours: NDArray[np.int32],
    scores: Vectors,
    hashes: Hashes | None = None,
    sha: NDArray[Any] | None = None,
    quality: Array | None = None,
    *,
    mirrors: Hashes | None = None,
    cosine: float | None = None,
    bits: int | None = None,
) -> Duplicates:
    """Find the near-duplicates of a set, with thresholds of its own.

    Args:
        vectors: float32 (n, d), unit norm.
        labels: int64 (n,), -1 for none; rows without identity count as one.
        neighbours: int32 (n, k), the rows nearest to each, best first, -1 for none.
        scores: float32 (n, k), their cosines.
        hashes: uint64 (n,), of `hash_chips`.
        sha: (n,), of any fixed width, a hash of each row's picture file; zero or "" if unknown.
        quality: float64 (n,), the best row of an identity's copies is kept, ties by lowest row.
        mirrors: uint64 (n,), hashes of the mirrored chips.
        cosine: to use instead of the threshold that the set suggests, in [-1, 1].
        bits: to use likewise, in [0, MAX_BITS].

    Raises:
        InputError: arrays that are no embeddings or do not fit together, or values out of range.
    """
    check_embeddings(vectors)
    _check_rows(len(vectors), labels=labels, neighbours=neighbours, scores=scores)
    _check_rows(len(vectors), hashes=hashes, sha=sha, quality=quality, mirrors=mirrors)
    if mirrors is not None and hashes is None:
        raise InputError("mirrors are of use beside hashes only; give hashes too")
    cut = find_copy_cut(
        vectors, labels, neighbours, scores, hashes, mirrors, cosine=cosine, bits=bits
    )
    order = _rank_rows(len(vectors), quality)
    table = compare_copies(vectors, neighbours, scores, cut, hashes, sha, mirrors, order)
    return choose_kept(table, cut, vectors, labels, quality, (sha, hashes))


def compare_copies(
    vectors: Vectors,
    neighbours: NDArray[np.int32],
    scores: Vectors,
    cut: CopyCut,
    hashes: Hashes | None = None,
    sha: NDArray[Any] | None = None,
    mirrors: Hashes | None = None,
    order: Labels | None = None,
) -> CopyTable:
    """Return the scores of all pairs that reach one of the thresholds, before they are combined.

    Arguments as `find_duplicates`, and `order`, int64 (n,), the rows, best first; None: as they
    stand. Rows of one hash or of equal bytes beyond the 64 best are paired with the best only.
    """
    found = [_pair_neighbours(neighbours, scores, cut.cosine)]
    if order is None:
        order = np.arange(len(vectors), dtype=np.int64)
    if hashes is not None:
        found.append(order[find_near_hashes(hashes[order], cut.bits)])
    if hashes is not None and mirrors is not None:
        found.append(order[find_near_mirrors(hashes[order], mirrors[order], cut.bits)])
    if sha is not None:
        known = order[sha[order] != np.zeros(1, sha.dtype)]
        found.append(known[pair_equal(sha[known])])
    pairs = sort_pairs(np.concatenate(found))
    one, two = pairs.T
    bits, mirrored = np.full(len(pairs), -1, np.int16), np.zeros(len(pairs), bool)
    if hashes is not None:
        bits = count_bits(hashes[one], hashes[two]).astype(np.int16)
    if hashes is not None and mirrors is not None:
        turned = count_mirrored(hashes, mirrors, one, two).astype(np.int16)
        mirrored, bits = turned < bits, np.minimum(turned, bits)
    same = np.zeros(len(pairs), bool)
    if sha is not None:
        same = (sha[one] == sha[two]) & (sha[one] != np.zeros(1, sha.dtype))
    return CopyTable(pairs, score_pairs(vectors, one, two), bits, mirrored, same)


def choose_kept(
    table: CopyTable,
    cut: CopyCut,
    vectors: Vectors,
    labels: Labels,
    quality: Array | None = None,
    keys: tuple[NDArray[Any] | None, ...] = (),
) -> Duplicates:
    """Decide which rows are duplicates of which.

    First within identities: from the best row down, each one still there takes all its copies.
    Then the rows that are left across identities likewise.

    Args:
        table: the scores of pairs.
        cut: the thresholds; at least as strict as those that the table was made with.
        vectors: float32 (n, d), unit norm.
        labels: int64 (n,).
        quality: float64 (n,), NaN counts as worst; None: all are alike.
        keys: hashes of bytes and of pictures, (n,) each or None, in the order of KINDS: of rows
            of one key that are more than the table pairs in full, each is held against the best.
    """
    n = len(labels)
    rank = np.empty(n, np.int64)
    rank[_rank_rows(n, quality)] = np.arange(n)
    near = (table.bits >= 0) & (table.bits <= cut.bits)
    agree = table.cosines >= cut.agree
    # A net that learnt a set by heart gives all photos of a person nearly one embedding: where the
    # pictures are plainly different, its word does not count.
    alike = table.bits <= DIFFERENT_BITS  # -1: unknown
    kinds = np.where(alike & (table.cosines >= cut.cosine), 3, 0)
    kinds = np.where(agree & table.same_bytes, 1, np.where(agree & near, 2, kinds))
    same = labels[table.pairs[:, 0]] == labels[table.pairs[:, 1]]
    out = Duplicates(
        np.full(n, -1, np.int64),
        np.zeros(n, np.int8),
        np.zeros(n, bool),
        np.full(n, np.nan, np.float32),
        np.full(n, -1, np.int16),
        np.zeros(n, bool),
        labels,
        cut,
    )
    for across in (False, True):
        left = (out.kept_row[table.pairs] < 0).all(axis=1)
        edges = np.flatnonzero((kinds > 0) & (same != across) & left)
        _cover(table, edges, kinds, rank, out)
        for number, key in enumerate(keys, start=1):
            if key is not None:
                _sweep(key, number, across, vectors, rank, out)
    out.across[:] = (out.kept_row >= 0) & (labels[out.kept_row] != labels)
    return out


def settle_across(duplicates: Duplicates, right: Array) -> Mask:
    """Return the rows to drop so that a picture stays with one identity only, bool (n,).

    Of each kept row and its duplicates across identities the row most probably right stays, ties
    by lowest row, and with it the other rows of its identity, which are no copies of each other.

    Args:
        duplicates: what `find_duplicates` gave; its duplicates within identities are not marked.
        right: float64 (n,), the probability of each row to show the identity of its label; NaN
            counts as least.
    """
    _check_rows(len(duplicates.labels), right=right)
    rows = np.flatnonzero(duplicates.across)
    hubs = np.unique(duplicates.kept_row[rows])
    groups = np.concatenate([duplicates.kept_row[rows], hubs])
    rows = np.concatenate([rows, hubs])
    worth = np.nan_to_num(right[rows], nan=-np.inf)
    order = np.lexsort((rows, -worth, groups))
    rows, groups = rows[order], groups[order]
    _, first, place = np.unique(groups, return_index=True, return_inverse=True)
    dropped = np.zeros(len(duplicates.labels), bool)
    dropped[rows] = duplicates.labels[rows] != duplicates.labels[rows[first]][place]
    return dropped


def _check_rows(n: int, **arrays: NDArray[Any] | None) -> None:
    for name, array in arrays.items():
        wide = 2 if name in ("neighbours", "scores") else 1
        if array is not None and (array.ndim != wide or len(array) != n):
            shape = f"({n}, k)" if wide == 2 else f"({n},)"
            raise InputError(f"{name} must have shape {shape}, got {array.shape}")


def _rank_rows(n: int, quality: Array | None) -> Labels:
    """Return the rows, best quality first, ties by lowest row, NaN last; int64 (n,)."""
    worth = np.zeros(n) if quality is None else np.nan_to_num(quality, nan=-np.inf)
    return np.lexsort((np.arange(n), -worth)).astype(np.int64)


def _pair_neighbours(neighbours: NDArray[np.int32], scores: Vectors, least: float) -> Pairs:
    """Return the pairs of the graph that score at least so, int64 (p, 2), some of them twice."""
    found = [np.zeros((0, 2), np.int64)]
    for first in range(0, len(neighbours), _BLOCK):
        near = neighbours[first : first + _BLOCK]
        rows, places = np.nonzero((scores[first : first + _BLOCK] >= least) & (near >= 0))
        pairs = np.stack([rows + first, near[rows, places]], axis=1).astype(np.int64)
        found.append(pairs[pairs[:, 0] != pairs[:, 1]])
    return np.concatenate(found)


def _cover(
    table: CopyTable, edges: Labels, kinds: NDArray[np.int64], rank: Labels, out: Duplicates
) -> None:
    """Let each row of the edges, best first, take all its free copies; written into `out`."""
    one, two = table.pairs[edges].T
    ends, mates = np.concatenate([one, two]), np.concatenate([two, one])
    which = np.concatenate([edges, edges])
    order = np.argsort(rank[ends], kind="stable")
    ends, mates, which = ends[order], mates[order], which[order]
    starts = np.flatnonzero(np.append(np.ones(min(1, len(ends)), bool), ends[1:] != ends[:-1]))
    stops = np.append(starts[1:], len(ends))[: len(starts)]
    kept = out.kept_row
    for start, stop in zip(starts, stops, strict=True):
        row = ends[start]
        if kept[row] >= 0:
            continue
        free = kept[mates[start:stop]] < 0
        taken, pairs = mates[start:stop][free], which[start:stop][free]
        kept[taken] = row
        out.kind[taken] = kinds[pairs]
        out.cosine[taken] = table.cosines[pairs]
        out.bits[taken] = table.bits[pairs]
        out.mirrored[taken] = table.mirrored[pairs]


def _sweep(
    key: NDArray[Any],
    kind: int,
    across: bool,
    vectors: Vectors,
    rank: Labels,
    out: Duplicates,
) -> None:
    """Hold what is left of each large group of one key against its best rows, in turn."""
    order = np.argsort(key, kind="stable")
    new = np.append(np.ones(min(1, len(key)), bool), key[order][1:] != key[order][:-1])
    starts = np.flatnonzero(new)
    sizes = np.diff(np.append(starts, len(key)))
    heads = np.zeros(len(key), bool)
    held = np.flatnonzero(out.kept_row >= 0)
    if across:
        held = held[out.labels[held] != out.labels[out.kept_row[held]]]
    heads[out.kept_row[held]] = True
    for start, size in zip(starts[sizes > MOST_EQUAL], sizes[sizes > MOST_EQUAL], strict=True):
        rows = order[start : start + size]
        if kind == 1 and key[rows[0]] == np.zeros(1, key.dtype)[0]:
            continue
        rows = rows[out.kept_row[rows] < 0]
        if across:
            _take_in_turn(rows[np.argsort(rank[rows])], kind, across, heads, vectors, out)
            continue
        for name in np.unique(out.labels[rows]):
            mine = rows[out.labels[rows] == name]
            _take_in_turn(mine[np.argsort(rank[mine])], kind, across, heads, vectors, out)


def _take_in_turn(
    rows: Labels, kind: int, across: bool, heads: Mask, vectors: Vectors, out: Duplicates
) -> None:
    """Let each of the best rows, best first, take all that agree with it and head no others."""
    for _ in range(_HUBS):
        if len(rows) < 2:
            return
        hub, rest = rows[0], rows[1:]
        cosines = vectors[rest] @ vectors[hub]
        fits = (cosines >= out.cut.agree) & ~heads[rest]
        if across:
            fits &= out.labels[rest] != out.labels[hub]
        taken = rest[fits]
        out.kept_row[taken], out.kind[taken] = hub, kind
        out.cosine[taken], out.bits[taken] = cosines[fits], 0 if kind == 2 else -1
        rows = rest[~fits]
