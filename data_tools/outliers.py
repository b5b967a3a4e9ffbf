"""Within-identity outliers: a robust centre each, scores first, the decision apart.

Every identity starts from its densest half, so that neither its mean nor a stranger decides what
it looks like; then centre, scores and threshold are refined in turn (METHODS section 8.4, step 3).
A row never votes on itself: its own score is taken with it left out of the centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_tools.centres import (
    Array,
    Labels,
    Mask,
    Vectors,
    count_members,
    find_others,
    group_rows,
    scale_to_unit,
    score_against,
    sum_members,
)
from data_tools.thresholds import (
    BINS,
    NEAR_SHARES,
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
_FEW = 4
_MAX_STRANGERS = 50_000_000
_LARGEST_SQUARE = 4096


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
    vectors: Vectors,
    labels: Labels,
    threshold: float | None = None,
    neighbours: NDArray[np.int32] | None = None,
) -> tuple[ScoreTable, Threshold]:
    """Score every row against the robust centres and find the threshold.

    Args:
        vectors: float32 (n, d), unit norm. The result does not depend on their order, except
            where more than 50 M row-centre pairs are sampled.
        labels: int64 (n,), identities 0, 1, ... (every number used), -1 for none.
        threshold: a cosine to use instead of the one that the scores suggest.
        neighbours: int32 (n, k), the rows nearest to each: see `find_others`.

    Raises:
        InputError: vectors that are no embeddings, labels of another length, or fewer than two
            identities to learn from and no threshold given.
    """
    check_embeddings(vectors)
    if labels.shape != (len(vectors),):
        raise InputError(f"labels must have shape ({len(vectors)},), got {labels.shape}")
    if threshold is not None:
        check_range(threshold, "threshold", -1.0, 1.0)
    size = count_sizes(labels)
    judged = size >= MIN_PICTURES
    start = _find_dense_halves(vectors, group_rows(labels))
    core, grown = start, start
    for _ in range(_ROUNDS):
        core = grown
        assigned = np.where(core, labels, -1)
        own, cut, sums = _score_own(vectors, labels, assigned, judged, threshold)
        grown = _cut_core(own, judged, cut.value, labels, start)
        if np.array_equal(grown, core):
            break
    other, other_identity = find_others(vectors, labels, assigned, sums, neighbours)
    return ScoreTable(own, other, other_identity, size, core), cut


def rescore_rows(
    vectors: Vectors,
    labels: Labels,
    assigned: Labels,
    threshold: float | None = None,
    neighbours: NDArray[np.int32] | None = None,
) -> tuple[ScoreTable, Threshold]:
    """Score every row against centres whose members are known: as `score_rows`, without its search.

    Args:
        vectors: float32 (n, d), unit norm.
        labels: int64 (n,), the identity that each row is scored against.
        assigned: int64 (n,), whose member each row is, -1 for nobody's; may be another identity
            than the row's label.
        threshold: as for `score_rows`.
        neighbours: as for `score_rows`.
    """
    size = count_sizes(labels)
    judged = size >= MIN_PICTURES
    own, cut, sums = _score_own(vectors, labels, assigned, judged, threshold)
    other, other_identity = find_others(vectors, labels, assigned, sums, neighbours)
    return ScoreTable(own, other, other_identity, size, assigned == labels), cut


def count_sizes(labels: Labels) -> Labels:
    """Return how many rows share each row's label, int64 (n,); 0 for rows without one."""
    counts = np.append(np.bincount(labels[labels >= 0], minlength=1), 0)
    return np.asarray(counts[np.where(labels >= 0, labels, -1)], np.int64)


def _find_dense_halves(vectors: Vectors, groups: list[Labels]) -> Mask:
    """Mark, for each identity, the row closest to half of its fellows, and that half.

    Of an identity too large for a square of cosines an even sample of rows is compared.
    """
    core = np.zeros(len(vectors), bool)
    for rows in groups:
        if len(rows) < MIN_PICTURES:
            core[rows] = True
            continue
        sample = np.asarray(vectors[rows[:: -(-len(rows) // _LARGEST_SQUARE)]])
        similar = sample @ sample.T
        np.fill_diagonal(similar, -2.0)
        near = max(1, (len(sample) - 1) // 2)
        nearest = -np.partition(-similar, near - 1, axis=1)[:, :near]
        middle = sample[int(np.argmax(nearest.mean(axis=1)))]
        closest = np.argsort(-(vectors[rows] @ middle), kind="stable")
        core[rows[closest[: 1 + max(1, (len(rows) - 1) // 2)]]] = True
    return core


def _score_own(
    vectors: Vectors, labels: Labels, assigned: Labels, judged: Mask, threshold: float | None
) -> tuple[Array, Threshold, Vectors]:
    """Return cosines to the own centre, the threshold they suggest, and the sums of members."""
    sums = sum_members(vectors, assigned, int(labels.max(initial=-1)) + 1)
    own = score_against(vectors, labels, assigned, sums, count_members(assigned, len(sums)))
    judged = judged & np.isfinite(own)
    mine = count_scores(own[judged])
    strangers = _count_strangers(vectors, assigned, scale_to_unit(sums))
    if threshold is None:
        return own, find_threshold(mine, strangers), sums
    return own, keep_threshold(threshold, mine, strangers), sums


def _cut_core(own: Array, judged: Mask, threshold: float, labels: Labels, start: Mask) -> Mask:
    """Return the rows at or above the threshold; an identity with under two keeps its start."""
    core = np.asarray(judged & (own >= threshold), bool)
    members = np.bincount(labels[core], minlength=int(labels.max(initial=-1)) + 1)
    held = labels >= 0
    core[held] = np.where(members[labels[held]] < 2, start[held], core[held])
    return core


def _count_strangers(vectors: Vectors, assigned: Labels, units: Vectors) -> Counts:
    """Return the histograms of members against others' centres, int64 (3, 400).

    Of a large set a share of the identities, evenly spaced, and four members of each.
    """
    counts = np.zeros((len(NEAR_SHARES), BINS), np.int64)
    filled = np.flatnonzero(units.any(axis=1))
    others = len(filled) - 1
    if others < 1:
        return counts
    groups = group_rows(assigned)
    members = sum(len(rows) for rows in groups)
    if members * others > _MAX_STRANGERS:
        groups = [rows[:: max(1, -(-len(rows) // _FEW))] for rows in groups]
        members = sum(len(rows) for rows in groups)
    stride = max(1, -(-members * others // _MAX_STRANGERS))
    centres = units[filled]
    for number in range(0, len(filled), stride):
        cosines = np.asarray(vectors[groups[filled[number]]] @ centres.T, np.float64)
        likeness = centres @ centres[number]
        likeness[number] = -np.inf
        nearest_first = np.argsort(-likeness, kind="stable")
        for place, share in enumerate(NEAR_SHARES):
            near = nearest_first[: max(1, round(share * others))]
            counts[place] += count_scores(cosines[:, near].ravel())
    return counts
