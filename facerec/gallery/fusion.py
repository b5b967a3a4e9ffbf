"""Several samples of a person -> what is searched: every sample, or one fused template."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_embeddings, check_one_of
from facerec.gallery.fusion_block import Samples, Trimming, fuse_block

__all__ = ["FUSIONS", "Template", "Templates", "Trimming", "fuse", "fuse_groups"]

FUSIONS = ("max", "mean", "quality", "trimmed")
"""max: every sample is a row of its own, a person scores by the best; the others: one template."""

_BLOCK_VALUES = 1 << 21

_Array = NDArray[np.float64]
_Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Template:
    """One person's template and how it came about.

    Attributes:
        vector: float32 (d,), unit norm.
        weights: float64 (n,), each sample's part in it, sum 1; 0 for those that do not count.
        dropped: position of a sample -> why it does not count.
        note: why the vector is one sample although several were given, "" where it is not.
    """

    vector: NDArray[np.float32]
    weights: _Array
    dropped: dict[int, str]
    note: str = ""


@dataclass(frozen=True)
class Templates:
    """The templates of t people; with fusion "max" there is one row a sample.

    Attributes:
        vectors: float32 (t, d), unit norm.
        owners: int64 (t,), ascending.
        rows: int64 (t,), position of each row's first sample.
        weights: float64 (n,), each sample's part in its person's template; 1 with "max".
        dropped: bool (n,), samples that were left out as outliers.
        cancelled: int64, owners whose samples cancel out: one sample stands for all.
    """

    vectors: NDArray[np.float32]
    owners: NDArray[np.int64]
    rows: NDArray[np.int64]
    weights: _Array
    dropped: _Mask
    cancelled: NDArray[np.int64]


def fuse(
    vectors: NDArray[np.float32],
    norms: NDArray[np.float32],
    qualities: NDArray[np.float32] | None = None,
    media: NDArray[np.int64] | None = None,
    fusion: str = "trimmed",
    *,
    trimming: Trimming | None = None,
) -> Template:
    """Return the template of one person's samples; their order does not matter.

    mean: unit mean, first within a medium, then over media. quality: weighted by the quality of
    each sample over the median of the person's, else by the norm over its median, between 1/2 and
    2 so that no sample rules; a medium counts by the mean weight of its samples. trimmed: the
    same without outliers, see `Trimming`. One sample is its own template. GALLERY section 3.

    Args:
        vectors: float32 (n, d), unit norm, n at least 1.
        norms: (n,), raw norms, positive.
        qualities: (n,), of any one unit, 0 or more, NaN = unknown; None where nobody measured.
        media: (n,), equal numbers for frames of one video or pictures of one document; None:
            every sample is a medium of its own.
        fusion: "mean", "quality" or "trimmed".
        trimming: bounds for "trimmed", the defaults when None.

    Raises:
        InputError: no samples, arrays that do not fit, or fusion "max", which has no template.
    """
    check_one_of(fusion, "fusion", FUSIONS)
    if fusion == "max":
        raise InputError("fusion 'max' makes no template; search each of the samples itself")
    if not len(vectors):
        raise InputError("a template needs at least 1 sample, got 0")
    samples = _check_samples(vectors, norms, qualities, media, np.zeros(len(vectors), np.int64))
    places = np.arange(len(vectors))[None]
    block = fuse_block(samples, places, fusion, trimming or Trimming())
    reasons = {
        int(place): f"mean cosine {block.means[0, place]:.2f} to most of this person's samples, "
        f"at least {block.bounds[0, place]:.2f} asked"
        for place in np.flatnonzero(block.dropped[0])
    }
    note = ""
    if block.cancelled[0]:
        note = "the samples cancel out, so that the one nearest to the others stands for all"
    return Template(block.vectors[0], block.weights[0], reasons, note)


def fuse_groups(
    vectors: NDArray[np.float32],
    owners: NDArray[np.int64],
    norms: NDArray[np.float32],
    qualities: NDArray[np.float32] | None = None,
    media: NDArray[np.int64] | None = None,
    fusion: str = "trimmed",
    *,
    trimming: Trimming | None = None,
) -> Templates:
    """Return the templates of many people, each the same as `fuse` of their samples.

    People with equally many samples are fused together, in blocks of bounded memory.

    Args:
        vectors: float32 (n, d), unit norm.
        owners: int64 (n,), which person each sample is of.
        norms: as for `fuse`, like `qualities` and `media`; a medium is one person's.
        qualities: as for `fuse`.
        media: as for `fuse`; equal numbers of two people are two media.
        fusion: one of FUSIONS.
        trimming: as for `fuse`.

    Raises:
        InputError: arrays that do not fit.
    """
    check_one_of(fusion, "fusion", FUSIONS)
    samples = _check_samples(vectors, norms, qualities, media, owners)
    order = np.argsort(owners, kind="stable")
    if fusion == "max":
        none: NDArray[np.int64] = np.zeros(0, np.int64)
        weights, dropped = np.ones(len(order)), np.zeros(len(order), bool)
        return Templates(vectors[order], owners[order], order, weights, dropped, none)
    people, starts, counts = np.unique(owners[order], return_index=True, return_counts=True)
    out = np.empty((len(people), vectors.shape[1]), np.float32)
    weights, dropped = np.empty(len(order)), np.zeros(len(order), bool)
    cancelled = np.zeros(len(people), bool)
    rule = trimming or Trimming()
    for those, width in _iter_blocks(counts, vectors.shape[1]):
        places = order[starts[those][:, None] + np.arange(width)]
        block = fuse_block(samples, places, fusion, rule)
        out[those], cancelled[those] = block.vectors, block.cancelled
        weights[places], dropped[places] = block.weights, block.dropped
    return Templates(out, people, order[starts], weights, dropped, people[cancelled])


def _check_samples(
    vectors: NDArray[np.float32],
    norms: NDArray[np.float32],
    qualities: NDArray[np.float32] | None,
    media: NDArray[np.int64] | None,
    owners: NDArray[np.int64],
) -> Samples:
    check_embeddings(vectors, "samples")
    given = {"norms": norms, "qualities": qualities, "media": media, "owners": owners}
    for name, values in given.items():
        if values is not None and np.shape(values) != (len(vectors),):
            raise InputError(f"{name} must have shape ({len(vectors)},), got {np.shape(values)}")
    lengths = np.asarray(norms, np.float64)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise InputError("norms must be positive numbers; give the raw norms of the embeddings")
    worth = None if qualities is None else np.asarray(qualities, np.float64)
    if worth is not None and not (np.isnan(worth) | (np.isfinite(worth) & (worth >= 0))).all():
        raise InputError("qualities must be numbers of 0 or more, NaN where unknown")
    numbers = None
    if media is not None:  # a number a pair of person and medium
        pairs = np.stack([np.asarray(owners, np.int64), np.asarray(media, np.int64)])
        numbers = np.unique(pairs, axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return Samples(vectors, lengths, worth, numbers)


def _iter_blocks(counts: NDArray[np.int64], dim: int) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Yield people of equally many samples, as many at once as memory allows, and that number."""
    order = np.argsort(counts, kind="stable")
    for those in np.split(order, np.flatnonzero(np.diff(counts[order])) + 1):
        if not len(those):
            continue
        width = int(counts[those[0]])
        step = max(1, _BLOCK_VALUES // (width * dim))
        for start in range(0, len(those), step):
            yield those[start : start + step], width
