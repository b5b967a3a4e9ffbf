"""Within-identity outliers: a robust centre each, scores first, the decision apart.

Every identity starts from its densest half, so that neither its mean nor a stranger decides what
it looks like; then centre, scores and threshold are refined in turn (METHODS section 8.4, step 3).
A row never votes on itself: its own score is taken with it left out of the centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_tools.thresholds import (
    BINS,
    NEAR_SHARES,
    Array,
    Counts,
    Threshold,
    count_scores,
    find_threshold,
    keep_threshold,
)
from facerec.checks import InputError, check_embeddings, check_range

MIN_PICTURES = 3
"""Fewer usable pictures than this cannot outvote each other."""

_ROUNDS = 8
_BLOCK = 1 << 22
_MAX_STRANGERS = 50_000_000

Vectors = NDArray[np.float32]
Labels = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class ScoreTable:
    """What is known of n rows before anything is decided.

    Attributes:
        own: float64 (n,), cosine to the robust centre of the row's own identity, the row itself
            left out; NaN for an identity of one row and for rows without identity.
        other: float64 (n,), cosine to the nearest centre of another identity; NaN without one.
        other_identity: int64 (n,), whose centre that is, -1 without one.
        size: int64 (n,), rows of the row's identity, 0 without identity.
        core: bool (n,), whether the row is part of its identity's centre.
    """

    own: Array
    other: Array
    other_identity: Labels
    size: Labels
    core: Mask


def score_rows(
    vectors: Vectors, labels: Labels, threshold: float | None = None
) -> tuple[ScoreTable, Threshold]:
    """Score every row against the robust centres and find the threshold.

    Args:
        vectors: float32 (n, d), unit norm. The result does not depend on their order, except
            where more than 50 M row-centre pairs are sampled.
        labels: int64 (n,), identities 0, 1, ... (every number used), -1 for none.
        threshold: a cosine to use instead of the one that the scores suggest.

    Raises:
        InputError: vectors that are no embeddings, labels of another length, or fewer than two
            identities to learn from and no threshold given.
    """
    check_embeddings(vectors)
    if labels.shape != (len(vectors),):
        raise InputError(f"labels must have shape ({len(vectors)},), got {labels.shape}")
    if threshold is not None:
        check_range(threshold, "threshold", -1.0, 1.0)
    groups = _group_rows(labels)
    size = np.zeros(len(labels), np.int64)
    for rows in groups:
        size[rows] = len(rows)
    judged = size >= MIN_PICTURES
    start = _find_dense_halves(vectors, groups)
    core, grown = start, start
    for _ in range(_ROUNDS):
        core = grown
        own, units = _score_own(vectors, groups, core)
        strangers = _count_strangers(vectors, groups, core, units)
        mine = count_scores(own[judged])
        if threshold is None:
            cut = find_threshold(mine, strangers)
        else:
            cut = keep_threshold(threshold, mine, strangers)
        grown = _cut_core(own, judged, cut.value, groups, start)
        if np.array_equal(grown, core):
            break
    other, other_identity = _score_others(vectors, labels, units)
    return ScoreTable(own, other, other_identity, size, core), cut


def flag_rows(scores: ScoreTable, threshold: float) -> Mask:
    """Return which rows can be judged and fall below the threshold, bool (n,)."""
    return np.asarray((scores.size >= MIN_PICTURES) & (scores.own < threshold), bool)


def cap_drops(flagged: Mask, scores: ScoreTable, labels: Labels, max_drop: float) -> Mask:
    """Return the flagged rows that may be dropped: the worst of each identity, up to a cap.

    Args:
        flagged: bool (n,).
        scores: the score table of the same rows.
        labels: int64 (n,), as for `score_rows`.
        max_drop: the greatest share of an identity that may be dropped, in [0, 1].
    """
    check_range(max_drop, "max_drop", 0.0, 1.0)
    allowed: Mask = flagged.copy()
    for rows in _group_rows(labels):
        bad = rows[flagged[rows]]
        room = int(max_drop * len(rows) + 1e-9)
        if len(bad) > room:
            worst_first = bad[np.argsort(scores.own[bad], kind="stable")]
            allowed[worst_first[room:]] = False
    return allowed


def _group_rows(labels: Labels) -> list[Labels]:
    """Return the rows of identity 0, 1, ..., ascending."""
    order = np.argsort(labels, kind="stable")
    order = order[np.searchsorted(labels[order], 0) :]
    count = int(labels.max(initial=-1)) + 1
    ends = np.searchsorted(labels[order], np.arange(1, count))
    return [np.asarray(rows, np.int64) for rows in np.split(order, ends)] if count else []


def _find_dense_halves(vectors: Vectors, groups: list[Labels]) -> Mask:
    """Mark, for each identity, the row closest to half of its fellows, and that half."""
    core = np.zeros(len(vectors), bool)
    for rows in groups:
        n = len(rows)
        if n < MIN_PICTURES:
            core[rows] = True
            continue
        similar = vectors[rows] @ vectors[rows].T
        np.fill_diagonal(similar, -2.0)
        half = max(1, (n - 1) // 2)
        nearest = -np.partition(-similar, half - 1, axis=1)[:, :half]
        middle = int(np.argmax(nearest.mean(axis=1)))
        core[rows[middle]] = True
        core[rows[np.argsort(-similar[middle], kind="stable")[:half]]] = True
    return core


def _score_own(vectors: Vectors, groups: list[Labels], core: Mask) -> tuple[Array, Vectors]:
    """Return cosines to the own centre without the row itself, and unit centres (c, d)."""
    own = np.full(len(vectors), np.nan)
    units = np.zeros((len(groups), vectors.shape[1]), np.float32)
    for identity, rows in enumerate(groups):
        members = vectors[rows].astype(np.float64)
        weights = core[rows].astype(np.float64)
        total = weights @ members
        units[identity] = total / max(float(np.linalg.norm(total)), 1e-12)
        if len(rows) < 2:
            continue
        rest = total - weights[:, None] * members
        norms = np.linalg.norm(rest, axis=1)
        own[rows] = np.einsum("nd,nd->n", rest, members) / np.maximum(norms, 1e-12)
    return own, units


def _cut_core(
    own: Array, judged: Mask, threshold: float, groups: list[Labels], start: Mask
) -> Mask:
    """Return the rows at or above the threshold; an identity with under two keeps its start."""
    core = np.asarray(judged & (own >= threshold), bool)
    for rows in groups:
        if np.count_nonzero(core[rows]) < 2:
            core[rows] = start[rows]
    return core


def _count_strangers(vectors: Vectors, groups: list[Labels], core: Mask, units: Vectors) -> Counts:
    """Return the histograms of core rows against others' centres, int64 (3, 400)."""
    counts = np.zeros((len(NEAR_SHARES), BINS), np.int64)
    others = len(units) - 1
    if others < 1:
        return counts
    stride = max(1, -(-int(core.sum()) * len(units) // _MAX_STRANGERS))
    for identity, rows in enumerate(groups):
        members = rows[core[rows]][::stride]
        cosines = (vectors[members] @ units.T).astype(np.float64)
        likeness = units @ units[identity]
        likeness[identity] = -np.inf
        nearest_first = np.argsort(-likeness, kind="stable")
        for place, share in enumerate(NEAR_SHARES):
            near = nearest_first[: max(1, round(share * others))]
            counts[place] += count_scores(cosines[:, near].ravel())
    return counts


def _score_others(vectors: Vectors, labels: Labels, units: Vectors) -> tuple[Array, Labels]:
    """Return each row's best cosine to another identity's centre, and whose; NaN and -1 if none."""
    n, identities = len(vectors), len(units)
    best = np.full(n, -np.inf)
    whose = np.full(n, -1, np.int64)
    step = max(1, _BLOCK // max(1, identities))
    for first in range(0, n if identities else 0, step):
        block = slice(first, min(first + step, n))
        cosines = vectors[block] @ units.T
        mine = labels[block]
        held = np.flatnonzero(mine >= 0)
        cosines[held, mine[held]] = -np.inf
        whose[block] = np.argmax(cosines, axis=1)
        best[block] = np.max(cosines, axis=1)
    none = ~np.isfinite(best)
    whose[none] = -1
    best[none] = np.nan
    return best, whose
