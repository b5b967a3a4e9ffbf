"""Overlap of a training set with an evaluation set: the same people, or the very same pictures.

People are found by name and by centre, pictures by bytes, hash and cosine. A leak into a test is
worse than the loss of an identity, so the centre's threshold is set by the false matches that one
is ready to pay for, expected over all comparisons; likeness of names alone is for review.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.centres import Array, Labels, Mask, Vectors, scale_to_unit, sum_members
from data_tools.duplicate_cut import CopyCut, score_pairs
from data_tools.hashes import Hashes, Pairs, find_near_between
from data_tools.overlap_names import MIDDLE_NAME, compare_names
from data_tools.stranger_tails import SIZES, StrangerTail, fit_tails
from facerec.checks import InputError, check_embeddings, check_range

LISTED_FALSE = 100.0
"""Expected false matches up to which pairs of identities are listed."""

_PRODUCTS = 1 << 22


@dataclass(frozen=True)
class FaceSet:
    """The faces of a set and what is known of their pictures.

    Attributes:
        vectors: float32 (n, d), unit norm.
        labels: int64 (n,), identities 0, 1, ...; -1 for rows that belong to no centre.
        names: one an identity; empty where they have none.
        hashes: uint64 (n,), of `data_tools.hashes.hash_chips`, or None.
        mirrors: uint64 (n,), the same of the mirrored chips, or None.
        sha: (n,), of any fixed width, hashes of the picture files, zero or "" if unknown, or None.
    """

    vectors: Vectors
    labels: Labels
    names: Sequence[str] = ()
    hashes: Hashes | None = None
    mirrors: Hashes | None = None
    sha: NDArray[Any] | None = None

    def count_identities(self) -> int:
        """Return the number of identities."""
        return max(int(self.labels.max(initial=-1)) + 1, len(self.names))


@dataclass(frozen=True)
class Overlap:
    """What two sets may have in common, before anything is decided.

    Attributes:
        pairs: int64 (p, 2), own identity, evaluation identity, sorted: whatever is listed for one
            of the three reasons below.
        centres: float64 (p,), cosine of the two centres; NaN where one has no rows.
        names: float64 (p,), 1 for the same name, below for a like one, 0 for another.
        pictures: int64 (p,), own rows that show a picture of the evaluation identity.
        sizes: int64 (p,), class of the evaluation identity among `tails`.
        row: int64 (n,), the evaluation row whose picture each own row shows, -1 for none.
        kind: int8 (n,), of the evidence, place in `data_tools.duplicates.KINDS`.
        cosine: float32 (n,), to that row; NaN without one.
        identities: number of own identities.
        comparisons: pairs of centres that were compared.
        tails: what strangers reach, by the size of the evaluation identity.
    """

    pairs: Pairs
    centres: Array
    names: Array
    pictures: Labels
    sizes: Labels
    row: Labels
    kind: NDArray[np.int8]
    cosine: Vectors
    identities: int
    comparisons: int
    tails: tuple[StrangerTail, ...]

    def find_limits(self, expected_false: float = 1.0) -> tuple[float, ...]:
        """Return the least cosine of centres of one person, one a class of sizes.

        Args:
            expected_false: false matches expected over all comparisons, in (0, 100].
        """
        check_range(expected_false, "expected_false", 1e-6, LISTED_FALSE)
        rate = expected_false / max(1, self.comparisons)
        return tuple(tail.find_threshold(rate) for tail in self.tails)


def find_overlap(
    own: FaceSet,
    evaluation: FaceSet,
    cut: CopyCut,
    *,
    nearest: tuple[NDArray[np.int32], Vectors] | None = None,
    least_name: float = 0.85,
) -> Overlap:
    """Score a training set against an evaluation set.

    Args:
        own: the training set.
        evaluation: what must not be in it.
        cut: from where on two pictures are copies (`find_copy_cut` of the training set).
        nearest: each own row's nearest evaluation row, int32 (n,), and its cosine, float32 (n,),
            where a search found them; None: all are compared here.
        least_name: the least likeness of names that is listed, in [0.5, 1].

    Raises:
        InputError: arrays that are no embeddings or do not fit together.
    """
    _check_set(own, "own")
    _check_set(evaluation, "evaluation", own.vectors.shape[1])
    tails = fit_tails(own.vectors, own.labels)
    mine, _ = _find_centres(own)
    theirs, members = _find_centres(evaluation)
    sizes = np.asarray(np.searchsorted(SIZES, np.maximum(members, 1), side="right") - 1, np.int64)
    comparisons = int(mine.any(axis=1).sum()) * int((members > 0).sum())
    rate = LISTED_FALSE / max(1, comparisons)
    least = np.array([tail.find_threshold(rate) for tail in tails])[sizes]
    row, kind, cosine = _match_rows(own, evaluation, cut, nearest)
    seen = np.flatnonzero(row >= 0)
    shown = np.stack([own.labels[seen], evaluation.labels[row[seen]]], axis=1)
    shown = shown[(shown >= 0).all(axis=1)]
    named = compare_names(own.names, evaluation.names, least=least_name)
    listed = np.concatenate([_pair_centres(mine, theirs, least), named.pairs, shown])
    pairs = np.unique(listed, axis=0)
    return Overlap(
        pairs,
        _score_centres(mine, theirs, pairs),
        _spread(pairs, named.pairs, named.scores),
        _spread(pairs, shown, np.ones(len(shown))).astype(np.int64),
        sizes[pairs[:, 1]],
        row,
        kind,
        cosine,
        len(mine),
        comparisons,
        tails,
    )


def decide_overlap(overlap: Overlap, *, expected_false: float = 1.0) -> tuple[Mask, Mask]:
    """Return which own identities and which own rows must go.

    An identity goes when its centre reaches the threshold, or when it has the name, perhaps with a
    word more, or a picture of an evaluation identity and its centre reaches halfway from the median
    stranger.

    Args:
        overlap: the scores.
        expected_false: false matches of centres expected over all comparisons, in (0, 100].

    Returns:
        bool (c,) and bool (n,); the rows are those that show an evaluation picture, whoever's
        they are said to be.
    """
    limits = np.array(overlap.find_limits(expected_false))
    halfway = [tail.find_halfway(limit) for tail, limit in zip(overlap.tails, limits, strict=True)]
    known = np.isfinite(overlap.centres)
    centres = np.where(known, overlap.centres, -np.inf)
    hinted = (overlap.names >= MIDDLE_NAME) | (overlap.pictures > 0)
    same = centres >= limits[overlap.sizes]
    same |= hinted & (centres >= np.array(halfway)[overlap.sizes])
    # Without pictures to compare, the name is all there is.
    same |= ~known & (overlap.names == 1)
    identities = np.zeros(overlap.identities, bool)
    identities[overlap.pairs[same, 0]] = True
    return identities, np.asarray(overlap.row >= 0, bool)


def _check_set(faces: FaceSet, name: str, dim: int | None = None) -> None:
    check_embeddings(faces.vectors, f"{name} embeddings", dim)
    shape = (len(faces.vectors),)
    for field in ("labels", "hashes", "mirrors", "sha"):
        array = getattr(faces, field)
        if array is not None and array.shape != shape:
            raise InputError(f"{name} {field} must have shape {shape}, got {array.shape}")
    if len(faces.names) and faces.count_identities() != len(faces.names):
        raise InputError(
            f"{name} names must be one an identity, {faces.count_identities()}, "
            f"got {len(faces.names)}"
        )


def _find_centres(faces: FaceSet) -> tuple[Vectors, Labels]:
    count = faces.count_identities()
    members = np.bincount(faces.labels[faces.labels >= 0], minlength=count)
    return scale_to_unit(sum_members(faces.vectors, faces.labels, count)), members.astype(np.int64)


def _pair_centres(mine: Vectors, theirs: Vectors, least: Array) -> Pairs:
    found = [np.zeros((0, 2), np.int64)]
    step = max(1, _PRODUCTS // max(1, len(theirs)))
    for first in range(0, len(mine), step):
        one, two = np.nonzero(mine[first : first + step] @ theirs.T >= least)
        found.append(np.stack([one + first, two], axis=1))
    return np.concatenate(found)


def _score_centres(mine: Vectors, theirs: Vectors, pairs: Pairs) -> Array:
    scores = score_pairs(mine, pairs[:, 0], pairs[:, 1], theirs).astype(np.float64)
    given = mine[pairs[:, 0]].any(axis=1) & theirs[pairs[:, 1]].any(axis=1)
    return np.where(given, scores, np.nan)


def _spread(pairs: Pairs, some: Pairs, values: Array) -> Array:
    """Return the sum of the values that belong to each of the sorted pairs."""
    wide = int(pairs[:, 1].max(initial=0)) + 1
    places = np.searchsorted(pairs[:, 0] * wide + pairs[:, 1], some[:, 0] * wide + some[:, 1])
    return np.bincount(places, weights=values, minlength=len(pairs)).astype(np.float64)


def _match_rows(
    own: FaceSet,
    evaluation: FaceSet,
    cut: CopyCut,
    nearest: tuple[NDArray[np.int32], Vectors] | None,
) -> tuple[Labels, NDArray[np.int8], Vectors]:
    """Return each own row's evaluation picture, the evidence and the cosine: the strongest."""
    found = [_pair_bytes(own, evaluation), _pair_hashes(own, evaluation, cut.bits)]
    near = nearest if nearest is not None else _search(own.vectors, evaluation.vectors)
    rows = np.flatnonzero((near[0] >= 0) & (near[1] >= cut.cosine - 1e-4))
    found.append(np.stack([rows, near[0][rows]], axis=1).astype(np.int64))
    pairs = np.concatenate(found)
    kinds = np.repeat(np.arange(1, 4, dtype=np.int8), [len(part) for part in found])
    cosines = score_pairs(own.vectors, pairs[:, 0], pairs[:, 1], evaluation.vectors)
    kept = cosines >= np.where(kinds == 3, cut.cosine, cut.agree)
    pairs, kinds, cosines = pairs[kept], kinds[kept], cosines[kept]
    order = np.lexsort((pairs[:, 1], -cosines, kinds, pairs[:, 0]))
    rows, first = np.unique(pairs[order, 0], return_index=True)
    best = order[first]
    row = np.full(len(own.vectors), -1, np.int64)
    kind, cosine = np.zeros(len(row), np.int8), np.full(len(row), np.nan, np.float32)
    row[rows], kind[rows], cosine[rows] = pairs[best, 1], kinds[best], cosines[best]
    return row, kind, cosine


def _pair_bytes(own: FaceSet, evaluation: FaceSet) -> Pairs:
    if own.sha is None or evaluation.sha is None:
        return np.zeros((0, 2), np.int64)
    one, two = own.sha, evaluation.sha
    known = np.flatnonzero(one != np.zeros(1, one.dtype))
    theirs = np.flatnonzero(two != np.zeros(1, two.dtype))
    _, codes = np.unique(np.concatenate([one[known], two[theirs]]), return_inverse=True)
    numbers = codes.astype(np.uint64)
    pairs = find_near_between(numbers[: len(known)], numbers[len(known) :], 0)
    return np.stack([known[pairs[:, 0]], theirs[pairs[:, 1]]], axis=1)


def _pair_hashes(own: FaceSet, evaluation: FaceSet, bits: int) -> Pairs:
    if own.hashes is None or evaluation.hashes is None or bits < 0:
        return np.zeros((0, 2), np.int64)
    found = [find_near_between(own.hashes, evaluation.hashes, bits)]
    if own.mirrors is not None:
        found.append(find_near_between(own.mirrors, evaluation.hashes, bits))
    return np.concatenate(found)


def _search(vectors: Vectors, others: Vectors) -> tuple[NDArray[np.int32], Vectors]:
    """Return each row's nearest row of others, -1 without any, and its cosine."""
    near = np.full(len(vectors), -1, np.int32)
    scores = np.full(len(vectors), -np.inf, np.float32)
    if not len(others):
        return near, scores
    step = max(1, _PRODUCTS // len(others))
    for first in range(0, len(vectors), step):
        block = slice(first, first + step)
        cosines = vectors[block] @ others.T
        near[block] = np.argmax(cosines, axis=1)
        scores[block] = np.max(cosines, axis=1)
    return near, scores
