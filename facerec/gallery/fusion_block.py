"""The kernel of fusion: weights, outliers and sums of people with equally many samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facerec.checks import check_range

OUTLIER_COSINE = 0.3
"""A sample whose mean cosine to the person's core reaches this is never an outlier."""

OUTLIER_SHARE = 0.5
"""Below this part of the median of the core's own means a sample is an outlier."""

WEIGHT_RATIO = 2.0
"""A weight lies between the median over this and the median times this."""

_LEAST_LENGTH = 0.01
"""Mean vectors shorter than this have no direction: the samples cancel out."""

_STEPS = float(1 << 42)
"""Sums are of whole numbers of 1 / _STEPS, so that the order of the samples changes no bit."""

_ROUND = 9

_CAP_VALUES = 1 << 22

_Array = NDArray[np.float64]
_Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Trimming:
    """When a sample is an outlier among the samples of a person.

    The core of a person is the closest lying majority of the samples, or of the media. Looked at
    is a sample's mean cosine to the core. Below both bounds it goes; the core always stays:
    outliers are a minority, or it cannot be told who they are.

    Attributes:
        cosine: at or above it nothing is an outlier, in [-1, 1].
        share: of the median of the core's own means, in [0, 1]: it follows the model and the
            person, whose pictures may all be poor.
    """

    cosine: float = OUTLIER_COSINE
    share: float = OUTLIER_SHARE

    def __post_init__(self) -> None:
        check_range(self.cosine, "trimming cosine", -1, 1)
        check_range(self.share, "trimming share", 0, 1)


@dataclass(frozen=True)
class Samples:
    """Checked samples of any number of people: vectors (n, d), the rest (n,).

    A medium's number is its person's alone. Qualities may be NaN.
    """

    vectors: NDArray[np.float32]
    norms: _Array
    qualities: _Array | None
    media: NDArray[np.int64] | None


@dataclass(frozen=True)
class Block:
    """p people of s samples each: vectors (p, d), cancelled (p,), the rest (p, s).

    Means and bounds are those that a dropped sample was dropped for, 0 for the others.
    """

    vectors: NDArray[np.float32]
    weights: _Array
    dropped: _Mask
    means: _Array
    bounds: _Array
    cancelled: _Mask


def fuse_block(
    samples: Samples, places: NDArray[np.int64], fusion: str, trimming: Trimming
) -> Block:
    """Fuse people of equally many samples.

    Args:
        samples: all there are.
        places: int64 (p, s), the positions of each person's samples.
        fusion: "mean", "quality" or "trimmed".
        trimming: bounds.
    """
    found = samples.vectors[places]
    people, width = places.shape
    nothing = np.zeros(places.shape, bool), np.zeros(places.shape), np.zeros(places.shape)
    if width == 1:
        ones = np.ones(places.shape)
        return Block(_repair_units(found[:, 0]), ones, *nothing, np.zeros(people, bool))
    units = found.astype(np.float64)
    media = None if samples.media is None else samples.media[places]
    dropped, means, bounds = nothing
    if fusion == "trimmed":
        dropped, means, bounds = _find_outliers(units, _share(media, ~dropped), trimming)
    weights = _share(media, ~dropped)
    if fusion != "mean":
        weights = weights * _weigh(samples, places, ~dropped)
    total = _sum(units, weights)
    lengths = np.linalg.norm(total, axis=1)
    sums = _sum(weights[:, :, None], np.ones(places.shape))[:, 0]
    cancelled = lengths < _LEAST_LENGTH * sums
    vectors = total / np.where(cancelled, 1.0, lengths)[:, None]
    weights = weights / sums[:, None]
    for person in np.flatnonzero(cancelled):
        chosen = _choose_one(found[person], weights[person])
        vectors[person] = units[person, chosen] / np.linalg.norm(units[person, chosen])
        weights[person] = np.arange(width) == chosen
    return Block(vectors.astype(np.float32), weights, dropped, means, bounds, cancelled)


def _find_outliers(
    units: _Array, shares: _Array, trimming: Trimming
) -> tuple[_Mask, _Array, _Array]:
    """Return who is dropped, the mean cosines that decided and their bounds, each (p, s).

    Args:
        units: float64 (p, s, d), unit norm.
        shares: float64 (p, s), one over the number of samples of the same medium.
        trimming: bounds.
    """
    core = _find_core(units, shares)
    part = shares * core
    weight = _sum(part[:, :, None], np.ones_like(part))
    dots = np.einsum("psd,pd->ps", units, _sum(units, part))
    # Without the sample itself, where it is of the core.
    means = np.round((dots - part) / np.maximum(weight - part, 1e-9), _ROUND)
    middle = np.nanmedian(np.where(core, means, np.nan), axis=1, keepdims=True)
    bounds = np.minimum(trimming.cosine, trimming.share * middle)
    dropped = ~core & (means < bounds) & (middle > 0)
    return dropped, np.where(dropped, means, 0.0), np.where(dropped, bounds, 0.0)


def _find_core(units: _Array, shares: _Array) -> _Mask:
    """Return the samples in the smallest cap about one of them that holds over half of the media.

    The least median of squares (Rousseeuw 1984) on the sphere: whatever a minority looks like, it
    cannot pull the core to itself, as it can pull a mean or the medoid. Two of two are the core.

    Args:
        units: float64 (p, s, d), unit norm.
        shares: float64 (p, s), one over the number of samples of the same medium.

    Returns:
        bool (p, s).
    """
    people, width, _ = units.shape
    half = _sum(shares[:, :, None], np.ones_like(shares)) / 2 + 1e-6
    radii, means = np.empty((people, width)), np.empty((people, width))
    step = max(1, _CAP_VALUES // (people * width))
    for start in range(0, width, step):
        rows = slice(start, start + step)
        near = np.round(units[:, rows] @ units.transpose(0, 2, 1), _ROUND)
        order = np.argsort(-near, axis=2)
        held = np.cumsum(np.take_along_axis(shares[:, None], order, axis=2), axis=2)
        last = np.argmax(held > half[:, :, None], axis=2)[:, :, None]
        edge = np.take_along_axis(order, last, axis=2)
        radii[:, rows] = np.take_along_axis(near, edge, axis=2)[:, :, 0]
        means[:, rows] = np.round(near.mean(axis=2), _ROUND)
    best = np.ones((people, width), bool)
    for values in (radii, means, units[:, :, 0]):  # the first decides, the others part equals
        best &= values == np.where(best, values, -np.inf).max(axis=1, keepdims=True)
    chosen = np.argmax(best, axis=1)
    every = np.arange(people)
    near = np.round(np.einsum("psd,pd->ps", units, units[every, chosen]), _ROUND)
    return np.asarray(near >= radii[every, chosen][:, None] - 2 * 10.0**-_ROUND, bool)


def _share(media: NDArray[np.int64] | None, kept: _Mask) -> _Array:
    """Return one over the kept samples of the same medium, 0 for those that are not kept."""
    if media is None:
        return kept.astype(np.float64)
    _, numbers = np.unique(media, return_inverse=True)
    numbers = numbers.reshape(media.shape)
    counts = np.bincount(numbers[kept], minlength=int(numbers.max()) + 1)
    return np.asarray(kept / np.maximum(counts[numbers], 1), np.float64)


def _weigh(samples: Samples, places: NDArray[np.int64], kept: _Mask) -> _Array:
    """Return weights (p, s): quality, where unknown norm, over the median of the person's."""
    weights = _compare_median(np.where(kept, samples.norms[places], np.nan))
    if samples.qualities is not None:
        worth = _compare_median(np.where(kept, samples.qualities[places], np.nan))
        weights = np.where(np.isnan(worth), weights, worth)
    return np.where(kept, weights, 0.0)


def _compare_median(values: _Array) -> _Array:
    """Return values over the median of their row, within bounds; NaN where unknown."""
    known = np.isfinite(values).any(axis=1)
    middle = np.ones(len(values))
    middle[known] = np.nanmedian(values[known], axis=1)
    ratios = np.where(middle[:, None] > 0, values / np.where(middle > 0, middle, 1)[:, None], 1.0)
    clipped = np.clip(ratios, 1 / WEIGHT_RATIO, WEIGHT_RATIO)
    return np.where(np.isnan(values), np.nan, clipped)


def _sum(values: _Array, weights: _Array) -> _Array:
    """Return the weighted sums over samples, (p, s, k) and (p, s) -> (p, k), in any order alike."""
    steps = np.rint(values * (weights * _STEPS)[:, :, None]).astype(np.int64)
    return np.asarray(steps.sum(axis=1) / _STEPS, np.float64)


def _choose_one(vectors: NDArray[np.float32], weights: _Array) -> int:
    """Return the sample nearest to the others; of equals the heavier, then the greater vector."""
    units = vectors.astype(np.float64)
    near = np.round(units @ _sum(units[None], weights[None])[0], _ROUND)
    return int(np.lexsort((*units.T[::-1], weights, near))[-1])


def _repair_units(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the vectors as they are, but divided by their norm where it is not 1 in float32."""
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    off = np.abs(lengths - 1) > 1e-6
    if off.any():
        vectors = vectors.copy()
        vectors[off] = vectors[off] / lengths[off, None]
    return vectors
