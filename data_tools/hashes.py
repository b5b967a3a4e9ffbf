"""Perceptual hashes of chips: 64 bits a picture, and all pairs of millions that nearly agree.

The hash is the sign pattern of the low frequencies of the picture's grey (the discrete cosine
transform of 32 x 32 means) against their median: recoding, resizing and a change of brightness
leave it nearly alone. Near pairs are found without comparing all: two hashes within b bits agree
exactly in at least m - b of m bands, so rows are sorted by each choice of m - b bands and only
those that share it are compared (Manku, Jain and Das Sarma 2007).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_chips, check_whole

Hashes = NDArray[np.uint64]
Pairs = NDArray[np.int64]

MAX_BITS = 10
"""Beyond it nearly as many strangers as copies agree, and the search costs as much as all pairs."""

MOST_EQUAL = 64
"""Rows of one and the same hash that are paired with each other in full."""

_GRID, _LOW = 32, 8
_SIDE = 112
_GREY = np.array([0.299, 0.587, 0.114], np.float32)
_GRAIN = 1 / 64
_BATCH = 64
_CHUNK = 1 << 22
_SORT_COST = 8.0


def hash_chips(chips: NDArray[np.uint8], *, mirrored: bool = False) -> Hashes:
    """Return the perceptual hash of each chip.

    Of the 8 x 8 lowest frequencies all but the mean are compared with their median: 63 bits are
    used, 31 of them set, so two hashes mostly differ in an even number. A chip without any
    structure, such as a blank one, hashes to 0.

    Args:
        chips: uint8 RGB (n, 112, 112, 3).
        mirrored: hash the left-right mirror image of each chip instead.

    Returns:
        uint64 (n,).

    Raises:
        InputError: other arrays than such chips.
    """
    check_chips(chips)
    matrix = _low_frequencies()
    out = np.empty(len(chips), np.uint64)
    powers = np.uint64(1) << np.arange(_LOW * _LOW - 1, dtype=np.uint64)
    # The cosine of an odd frequency changes its sign under a mirror, that of an even one does not.
    signs = np.where(np.arange(_LOW) % 2, -1.0, 1.0) if mirrored else np.ones(_LOW)
    for first in range(0, len(chips), _BATCH):
        grey = chips[first : first + _BATCH].astype(np.float32) @ _GREY
        grey -= grey.mean(axis=(1, 2), keepdims=True)
        waves = (matrix @ grey @ matrix.T) * signs.astype(np.float32)
        # Rounded, lest the noise of the arithmetic decide where there is nothing.
        waves = np.round(waves.reshape(len(grey), -1)[:, 1:] / _GRAIN)
        above = waves > np.median(waves, axis=1, keepdims=True)
        out[first : first + _BATCH] = (above * powers).sum(axis=1, dtype=np.uint64)
    return out


def count_bits(one: Hashes, two: Hashes) -> NDArray[np.uint8]:
    """Return in how many bits two arrays of hashes differ, uint8, shapes broadcast."""
    return np.asarray(np.bitwise_count(one ^ two), np.uint8)


def find_near_hashes(hashes: Hashes, bits: int, *, most: int = MOST_EQUAL) -> Pairs:
    """Return all pairs of rows whose hashes differ in at most `bits` bits.

    Rows of equal hash are first grouped: of a group beyond `most` rows (blank pictures) the
    further rows are paired with its lowest row only.

    Args:
        hashes: uint64 (n,).
        bits: at most MAX_BITS.
        most: rows of a group that are paired in full.

    Returns:
        int64 (p, 2), the lower row first, sorted.
    """
    check_whole(bits, "bits", 0, MAX_BITS)
    values, order, starts, counts = _group(hashes)
    near = _join(values, None, bits)
    few = np.minimum(counts, most)
    across = _expand(near, order, starts, few, order, starts, few)
    return sort_pairs(np.concatenate([across, pair_equal(hashes, most)]))


def find_near_mirrors(
    hashes: Hashes, mirrors: Hashes, bits: int, *, most: int = MOST_EQUAL
) -> Pairs:
    """Return the pairs of rows of which one nearly is the mirror image of the other.

    Args:
        hashes: uint64 (n,).
        mirrors: uint64 (n,), of the mirrored chips; a row that equals its own mirror image is in
            no pair, since `find_near_hashes` gives it.
        bits: at most MAX_BITS.
        most: rows of one hash that are paired with each other row.

    Returns:
        int64 (p, 2), the lower row first, sorted.
    """
    rows = np.flatnonzero(hashes != mirrors)
    near = rows[find_near_between(hashes[rows], mirrors[rows], bits, most=most)]
    return sort_pairs(near[near[:, 0] != near[:, 1]])


def find_near_between(
    hashes: Hashes, others: Hashes, bits: int, *, most: int = MOST_EQUAL
) -> Pairs:
    """Return the pairs of a row of one set and a row of another within `bits` bits.

    Args:
        hashes: uint64 (n,).
        others: uint64 (m,).
        bits: at most MAX_BITS.
        most: rows of `others` of one and the same hash that are paired; the lowest ones.

    Returns:
        int64 (p, 2), row of `hashes`, row of `others`, sorted.
    """
    check_whole(bits, "bits", 0, MAX_BITS)
    left, left_order, left_starts, left_counts = _group(hashes)
    right, order, starts, counts = _group(others)
    near = _join(left, right, bits)
    few = np.minimum(counts, most)
    pairs = _expand(near, left_order, left_starts, left_counts, order, starts, few)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def pair_equal(keys: NDArray[Any], most: int = MOST_EQUAL) -> Pairs:
    """Return the pairs of rows with equal keys, int64 (p, 2), the lower row first, sorted.

    Args:
        keys: (n,), of any type that sorts.
        most: rows of a group that are paired in full; a further one with the lowest row only.
    """
    _, order, starts, counts = _group(keys)
    place = np.arange(len(order)) - np.repeat(starts, counts)
    # Each row is paired with those before it in its group: all, or the first alone.
    before = np.where(place < most, place, 1)
    first = np.repeat(np.repeat(starts, counts), before)
    offset = np.arange(len(first)) - np.repeat(np.cumsum(before) - before, before)
    return sort_pairs(np.stack([order[first + offset], np.repeat(order, before)], axis=1))


@lru_cache(maxsize=1)
def _low_frequencies() -> NDArray[np.float32]:
    """Return the matrix (8, 112) of area means over 32 cells and their lowest 8 cosines."""
    edges = np.arange(_GRID + 1) * (_SIDE / _GRID)
    pixels = np.arange(_SIDE)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    means = np.maximum(overlap, 0.0) * (_GRID / _SIDE)
    angles = np.pi * np.outer(np.arange(_LOW), np.arange(_GRID) + 0.5) / _GRID
    cosines = np.sqrt(2 / _GRID) * np.cos(angles)
    cosines[0] /= np.sqrt(2)
    return np.asarray(cosines @ means, np.float32)


def _group(keys: NDArray[Any]) -> tuple[NDArray[Any], Pairs, Pairs, Pairs]:
    """Return the distinct keys, rows by key and ascending, where each key's begin, how many."""
    if keys.ndim != 1:
        raise InputError(f"hashes and keys must have shape (n,), got {keys.shape}")
    order = np.argsort(keys, kind="stable").astype(np.int64)
    ranked = keys[order]
    new = np.flatnonzero(np.append(np.ones(min(1, len(keys)), bool), ranked[1:] != ranked[:-1]))
    counts = np.diff(np.append(new, len(keys)))
    return ranked[new], order, new.astype(np.int64), counts.astype(np.int64)


def _expand(
    near: Pairs, order: Pairs, starts: Pairs, few: Pairs, order2: Pairs, starts2: Pairs, few2: Pairs
) -> Pairs:
    """Return the pairs of rows behind pairs of distinct hashes, int64 (p, 2), as they come."""
    wide = few2[near[:, 1]]
    total = few[near[:, 0]] * wide
    which = np.repeat(np.arange(len(near)), total)
    place = np.arange(len(which)) - np.repeat(np.cumsum(total) - total, total)
    one = order[starts[near[which, 0]] + place // wide[which]]
    two = order2[starts2[near[which, 1]] + place % wide[which]]
    return np.stack([one, two], axis=1)


def sort_pairs(pairs: Pairs) -> Pairs:
    """Return the pairs with the lower row first, sorted, each once."""
    pairs = np.sort(pairs, axis=1)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    new = np.append(np.ones(min(1, len(pairs)), bool), (pairs[1:] != pairs[:-1]).any(axis=1))
    return np.asarray(pairs[new], np.int64)


def _join(left: Hashes, right: Hashes | None, bits: int) -> Pairs:
    """Return the pairs of places, of distinct hashes, within `bits` bits; None: of `left` alone."""
    bands = _choose_bands(left, right, bits)
    found = [np.zeros((0, 2), np.int64)]
    for chosen in combinations(range(len(bands)), len(bands) - bits):
        mask = np.bitwise_or.reduce(bands[list(chosen)])
        # A pair is taken where its first agreeing bands are the chosen ones: only once.
        passed = [bands[band] for band in range(chosen[-1]) if band not in chosen]
        for one, two in _iter_equal(left, right, mask):
            other = left if right is None else right
            differs = left[one] ^ other[two]
            kept = np.bitwise_count(differs) <= bits
            for band in passed:
                kept &= (differs & band) != 0
            found.append(np.stack([one[kept], two[kept]], axis=1))
    return np.concatenate(found)


def _choose_bands(left: Hashes, right: Hashes | None, bits: int) -> Hashes:
    """Return the masks of the bands that make for the least work on these hashes.

    More bands: more sorts, but longer keys and so fewer strangers compared.
    """
    best, least = _make_bands(bits + 1), np.inf
    for count in range(bits + 1, bits + 5):
        bands = _make_bands(count)
        mask = np.bitwise_or.reduce(bands[: count - bits])
        compared = sum(int(ends.sum()) for ends in _count_equal(left, right, mask)[2:])
        work = comb(count, bits) * (compared + _SORT_COST * (len(left) + 1))
        if work < least:
            best, least = bands, work
        if not bits:
            break
    return best


def _make_bands(count: int) -> Hashes:
    """Return masks that share the 64 bits out in turn: low frequencies vary most."""
    bit = np.uint64(1) << np.arange(64, dtype=np.uint64)
    return np.array([np.bitwise_or.reduce(bit[band::count]) for band in range(count)], np.uint64)


def _count_equal(left: Hashes, right: Hashes | None, mask: np.uint64) -> tuple[Pairs, ...]:
    """Return left places by masked key, where each right place's equals begin, how many."""
    keys = left & mask
    order = np.argsort(keys, kind="stable").astype(np.int64)
    ranked = keys[order]
    if right is None:
        begins = np.arange(1, len(left) + 1)
        ends = np.searchsorted(ranked, ranked, side="right")
    else:
        begins = np.searchsorted(ranked, right & mask)
        ends = np.searchsorted(ranked, right & mask, side="right")
    return order, begins.astype(np.int64), (ends - begins).astype(np.int64)


def _iter_equal(
    left: Hashes, right: Hashes | None, mask: np.uint64
) -> Iterator[tuple[Pairs, Pairs]]:
    """Yield the pairs of places with equal masked keys, a bounded number at a time."""
    order, begins, counts = _count_equal(left, right, mask)
    places = order if right is None else np.arange(len(begins))
    busy = np.flatnonzero(counts)
    begins, counts, places = begins[busy], counts[busy], places[busy]
    total = np.cumsum(counts)
    first = 0
    while first < len(busy):
        done = int(total[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(total, done + _CHUNK, side="right")))
        part = slice(first, last)
        two = np.repeat(places[part], counts[part])
        start = np.repeat(begins[part] - (total[part] - counts[part] - done), counts[part])
        yield order[start + np.arange(len(two))], two
        first = last
