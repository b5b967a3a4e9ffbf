"""From where on two pictures of a set are copies of each other, found from the set itself.

Different photos of a person are known without any truth: their hashes are far apart. What their
cosines practically never reach is the threshold. What strangers' hashes and cosines reach is known
from pairs of rows of two identities, of which there are plenty.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_tools.centres import Array, Labels, Vectors
from data_tools.hashes import MAX_BITS, Hashes, count_bits
from facerec.checks import check_range, check_whole

FALLBACK_COSINE, FALLBACK_BITS, FALLBACK_AGREE = 0.97, 4, 0.8
"""Taken, with the reason, where a set is too small to say (METHODS section 8.4, step 0)."""

_LEAST_COSINE, _MOST_COSINE = 0.9, 0.999
_EXCEEDED = 1e-3
_LEAST_PHOTOS = 2000
DIFFERENT_BITS = 20
"""Hashes that differ in more are of different photos, whatever a model says of them."""
_FALSE_HASHES, _LEAST_STRANGERS = 1e-5, 500_000
_SEARCHED_BITS = 6
_STRANGERS, _COSINES = 4_000_000, 200_000
_LEAST_COSINES, _LEAST_AGREE = 10_000, 200
_AGREE_PHOTOS, _AGREE_STRANGERS = 0.9, 0.999
_BLOCK = 1 << 14


@dataclass(frozen=True)
class CopyCut:
    """From where on two pictures count as copies.

    Attributes:
        cosine: at or above it they are copies whatever the hashes say.
        bits: at or below it they are, if the cosine reaches `agree`; -1 without hashes.
        agree: cosine that pictures of equal bytes or near hashes must reach: what the nearest
            different photo of the identity reaches in 1 of 10 rows, and in 1 of 1000 a stranger.
        photos: rows whose nearest surely different photo of the same identity was known.
        strangers: pairs of rows of two identities that were compared.
        reason: where each figure comes from, one sentence.
    """

    cosine: float
    bits: int
    agree: float
    photos: int
    strangers: int
    reason: str


def find_copy_cut(
    vectors: Vectors,
    labels: Labels,
    neighbours: NDArray[np.int32],
    scores: Vectors,
    hashes: Hashes | None = None,
    mirrors: Hashes | None = None,
    *,
    cosine: float | None = None,
    bits: int | None = None,
) -> CopyCut:
    """Return the thresholds that the set's own pictures suggest, which row order does not change.

    The cosine is what the nearest photo of the same identity reaches in 1 of 1000 rows, photos
    that may be copies (hashes within 20 bits) left out, in [0.9, 0.999]. The bits are the most
    that under 1 in 100,000 pairs of strangers keep to, and of all pairs no more than there are
    rows, at most 6. Arguments as `find_duplicates`.
    """
    photos = np.zeros(0)  # without hashes any near photo may be a copy
    if hashes is not None:
        photos = _score_photos(labels, neighbours, scores, hashes, mirrors)
    one, two = _pair_strangers(vectors, labels)
    agree, why_agree = _choose_agree(vectors, one, two, photos)
    if cosine is not None:
        found, why = float(check_range(cosine, "cosine", -1.0, 1.0)), "given"
    else:
        found, why = _choose_cosine(photos, hashes is not None)
    if hashes is None:
        few, why_few = -1, "no hashes"
    elif bits is not None:
        few, why_few = check_whole(bits, "bits", 0, MAX_BITS), "given"
    else:
        few, why_few = _choose_bits(vectors, hashes, mirrors, one, two, agree)
    reason = f"cosine {found:.3f}: {why}; bits {few}: {why_few}; agree {agree:.3f}: {why_agree}"
    return CopyCut(found, few, min(agree, found), len(photos), len(one), reason)


def score_pairs(
    vectors: Vectors, one: Labels, two: Labels, others: Vectors | None = None
) -> Vectors:
    """Return the cosines of rows and of rows of the same or of other vectors, float32 (p,)."""
    there = vectors if others is None else others
    out = np.empty(len(one), np.float32)
    for first in range(0, len(one), _BLOCK):
        block = slice(first, first + _BLOCK)
        out[block] = np.einsum("pd,pd->p", vectors[one[block]], there[two[block]])
    return out


def count_mirrored(hashes: Hashes, mirrors: Hashes, one: Labels, two: Labels) -> NDArray[np.uint8]:
    """Return the bits by which one of a pair differs from the other's mirror image, uint8 (p,)."""
    there = count_bits(hashes[one], mirrors[two])
    return np.minimum(there, count_bits(mirrors[one], hashes[two]))


def _score_photos(
    labels: Labels,
    neighbours: NDArray[np.int32],
    scores: Vectors,
    hashes: Hashes,
    mirrors: Hashes | None,
) -> Array:
    """Return the cosine of each row's nearest photo of its identity that is surely another one."""
    found = [np.zeros(0)]
    for first in range(0, len(labels), _BLOCK):
        block = slice(first, first + _BLOCK)
        near = neighbours[block]
        fits = (near >= 0) & (labels[near] == labels[block, None]) & (labels[block, None] >= 0)
        fits &= count_bits(hashes[block, None], hashes[near]) > DIFFERENT_BITS
        if mirrors is not None:
            fits &= count_bits(mirrors[block, None], hashes[near]) > DIFFERENT_BITS
        rows = np.flatnonzero(fits.any(axis=1))
        found.append(scores[block][rows, np.argmax(fits[rows], axis=1)].astype(np.float64))
    return np.concatenate(found)


def _pair_strangers(vectors: Vectors, labels: Labels) -> tuple[Labels, Labels]:
    """Return rows of two identities, paired by chance that hangs on their content alone."""
    n = len(labels)
    content = np.ascontiguousarray(vectors[:, [0, -1]]).view(np.uint32).astype(np.uint64)
    mixed = content[:, 0] << np.uint64(32) | content[:, 1]
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    order = np.argsort(mixed ^ (mixed >> np.uint64(31)), kind="stable")
    turns = min((n - 1) // 2, -(-_STRANGERS // n)) if n else 0
    one = np.tile(order, turns)[:_STRANGERS]
    two = np.concatenate([order[:0], *(np.roll(order, -t) for t in range(1, turns + 1))])
    two = two[: len(one)]
    kept = labels[one] != labels[two]
    return np.asarray(one[kept], np.int64), np.asarray(two[kept], np.int64)


def _choose_agree(vectors: Vectors, one: Labels, two: Labels, photos: Array) -> tuple[float, str]:
    """Return what is asked of pairs whose hashes are near by chance once in thousands of times."""
    cosines = score_pairs(vectors, one[:_COSINES], two[:_COSINES])
    if len(cosines) < _LEAST_COSINES or len(photos) < _LEAST_AGREE:
        return FALLBACK_AGREE, "the set is too small to say, a fixed value"
    strangers = float(np.quantile(cosines, _AGREE_STRANGERS))
    found = float(np.quantile(photos, _AGREE_PHOTOS))
    if found <= strangers:
        return strangers, "1 in 1000 pairs of strangers reaches it"
    return found, "1 in 10 nearest different photos of an identity reaches it"


def _choose_cosine(photos: Array, hashed: bool) -> tuple[float, str]:
    if not hashed:
        return FALLBACK_COSINE, "without hashes no photo is known to be another, a fixed value"
    if len(photos) < _LEAST_PHOTOS:
        return FALLBACK_COSINE, (
            f"only {len(photos)} rows have another photo of their identity near, "
            f"{_LEAST_PHOTOS} are needed, a fixed value"
        )
    found = float(np.quantile(photos, 1 - _EXCEEDED, method="higher"))
    kept = min(max(found, _LEAST_COSINE), _MOST_COSINE)
    why = f"1 in 1000 of {len(photos)} nearest different photos of an identity reaches {found:.3f}"
    return kept, why


def _choose_bits(
    vectors: Vectors,
    hashes: Hashes,
    mirrors: Hashes | None,
    one: Labels,
    two: Labels,
    agree: float,
) -> tuple[int, str]:
    if len(one) < _LEAST_STRANGERS:
        return FALLBACK_BITS, (
            f"only {len(one)} pairs of strangers, {_LEAST_STRANGERS} are needed, a fixed value"
        )
    bits = count_bits(hashes[one], hashes[two])
    if mirrors is not None:
        bits = np.minimum(bits, count_mirrored(hashes, mirrors, one, two))
    near = np.flatnonzero(bits <= MAX_BITS)
    # Copies under two names are no strangers, and blank chips have no hash to speak of.
    alike = score_pairs(vectors, one[near], two[near]) >= agree
    alike |= (hashes[one[near]] == 0) | (hashes[two[near]] == 0)
    counts = np.bincount(bits[near[~alike]], minlength=MAX_BITS + 1)
    rates = np.cumsum(counts) / len(one)
    fit = np.flatnonzero(rates[: _SEARCHED_BITS + 1] < min(_FALSE_HASHES, 2 / len(hashes)))
    # Most distances are even: an odd threshold finds what the even one below it does.
    best = int(fit[-1]) // 2 * 2 if len(fit) else 0
    return best, f"{rates[best]:.1e} of {len(one)} pairs of strangers keep to it"
