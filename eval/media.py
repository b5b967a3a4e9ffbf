"""Templates of several faces: weighted sums within a medium, then over media.

The rule of IJB-B and IJB-C (Whitelam et al. 2017, Maze et al. 2018) as public evaluations apply
it. A face counts with its embedding times a weight: the raw norm, which is low for bad pictures
(N1), times the detector's score (D1), or 1 for unit embeddings. The faces of one medium (the frames
of one video; a still is a medium of its own) are averaged, so that a long video weighs like a
still; the media are summed and the sum is brought to unit norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.protocol_results import check_faces, check_row, check_same_width
from facerec.checks import InputError

_LEAST_NORM = 1e-12
# So many faces are weighed at once, in float64.
_BLOCK = 16_384


@dataclass(frozen=True)
class Templates:
    """t templates.

    Attributes:
        ids: (t,), rising, each once.
        vectors: float32 (t, d), unit norm; zeros where no face of the template has an embedding.
        faces: int64 (t,), faces that count.
        failed_faces: int64 (t,), faces without an embedding, which do not.
        media: int64 (t,), media with at least one face that counts.
    """

    ids: NDArray[Any]
    vectors: NDArray[np.float32]
    faces: NDArray[np.int64]
    failed_faces: NDArray[np.int64]
    media: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    def made(self) -> NDArray[np.bool_]:
        """Return which templates have an embedding, bool (t,)."""
        made: NDArray[np.bool_] = np.any(self.vectors != 0, axis=1)
        return made

    def find(self, ids: ArrayLike, name: str = "template ids") -> NDArray[np.int64]:
        """Return the position of each id, int64.

        Raises:
            InputError: an id is not among the templates, or of another kind.
        """
        return find_ids(self.ids, ids, name)


def find_ids(known: NDArray[Any], ids: ArrayLike, name: str) -> NDArray[np.int64]:
    """Return the position of each of `ids` among rising `known`, int64.

    Raises:
        InputError: one is missing; the message names the first three.
    """
    wanted = np.asarray(ids)
    if wanted.size and (wanted.dtype.kind == "U") != (known.dtype.kind == "U"):
        raise InputError(
            f"{name} must be of one kind with the templates' own, got {wanted.dtype} and "
            f"{known.dtype}"
        )
    places = np.searchsorted(known, wanted)
    places[places == known.size] = 0
    lost = np.unique(wanted[known[places] != wanted])
    if lost.size:
        shown = ", ".join(str(value) for value in lost[:3].tolist())
        raise InputError(
            f"{lost.size} {name} have no face (first: {shown}); are the two files of one set?"
        )
    return places.astype(np.int64)


def pool_templates(
    vectors: NDArray[Any],
    norms: ArrayLike,
    template_ids: ArrayLike,
    media_ids: ArrayLike,
    *,
    use_norms: bool = True,
    detector_scores: ArrayLike | None = None,
) -> Templates:
    """Return one embedding a template.

    Args:
        vectors: float (n, d), unit embeddings of the faces; zero is a failure.
        norms: (n,), their raw norms; 0 is a failure. With flipped embeddings both are those of the
            sum of the two raw ones, as `facerec.embedder.Embedder(flip=True)` gives them.
        template_ids: (n,), whole numbers or text; a face of two templates has two rows.
        media_ids: (n,), likewise; they count within a template only.
        use_norms: weigh by the raw norm (N1) or not (N0).
        detector_scores: (n,), at least 0, to weigh by too (D1); None for none (D0).

    Raises:
        InputError: as `check_faces`, rows of unequal length, a detector score that is negative or
            not finite.
    """
    rows, made = check_faces(vectors, norms)
    count = len(rows)
    templates = check_row(template_ids, "template_ids", count)
    media = check_row(media_ids, "media_ids", count)
    weights = made.astype(np.float64)
    if use_norms:
        weights *= np.asarray(norms, np.float64)
    if detector_scores is not None:
        weights *= _check_scores(detector_scores, count)
    ids, owners = np.unique(templates, return_inverse=True)
    _, shots = np.unique(media, return_inverse=True)
    order = np.lexsort((shots, owners))
    # Only faces with an embedding stand in a medium's mean.
    kept = order[made[order]]
    starts = np.flatnonzero(
        np.diff(owners[kept], prepend=-1).astype(bool)
        | np.diff(shots[kept], prepend=-1).astype(bool)
    )
    sums = _sum_media(rows, weights, kept, starts, owners, ids.size)
    lengths = np.linalg.norm(sums, axis=1)
    lengths[lengths < _LEAST_NORM] = np.inf
    faces = np.bincount(owners, made, ids.size).astype(np.int64)
    return Templates(
        ids,
        (sums / lengths[:, None]).astype(np.float32),
        faces,
        np.bincount(owners, minlength=ids.size) - faces,
        np.bincount(owners[kept[starts]], minlength=ids.size),
    )


def pool_frames(
    vectors: NDArray[Any],
    norms: ArrayLike,
    video_ids: ArrayLike,
    *,
    use_norms: bool = False,
) -> Templates:
    """Return one embedding a video: each frame's unit embedding, summed, brought to unit norm.

    The rule of the baseline of the Lightweight Face Recognition challenge (ICCV 2019), which drops
    the norms; `use_norms` weighs each frame by its norm instead.

    Args:
        vectors: float (n, d), unit embeddings of the frames; zero is a failure.
        norms: (n,), their raw norms; 0 is a failure.
        video_ids: (n,), whole numbers or text.
        use_norms: weigh by the raw norm.

    Raises:
        InputError: as `pool_templates`.
    """
    frames = np.arange(len(np.asarray(vectors)))
    return pool_templates(vectors, norms, video_ids, frames, use_norms=use_norms)


def add_flipped(
    vectors: NDArray[Any],
    norms: ArrayLike,
    flipped_vectors: NDArray[Any],
    flipped_norms: ArrayLike,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return unit vectors and norms of the sums of raw embeddings and their mirror images' (F1).

    For embeddings that were stored apart; `facerec.embedder.Embedder(flip=True)` averages them
    itself, which is the same direction and half the norm. Where one of the two is a failure, the
    other stands alone.

    Args:
        vectors: float (n, d), unit or zero.
        norms: (n,).
        flipped_vectors: float (n, d), of the mirrored faces.
        flipped_norms: (n,).
    """
    plain, _ = check_faces(vectors, norms)
    mirrored, _ = check_faces(flipped_vectors, flipped_norms, "flipped embeddings")
    check_same_width(plain, mirrored, ("embeddings", "flipped embeddings"))
    if len(plain) != len(mirrored):
        raise InputError(f"each face needs its mirror image, got {len(plain)} and {len(mirrored)}")
    total = plain * np.asarray(norms, np.float64)[:, None]
    total += mirrored * np.asarray(flipped_norms, np.float64)[:, None]
    lengths = np.linalg.norm(total, axis=1)
    lengths[lengths < _LEAST_NORM] = 0
    units = np.zeros_like(plain)
    np.divide(total, lengths[:, None], out=units, where=lengths[:, None] > 0, casting="same_kind")
    return units, lengths.astype(np.float32)


def _sum_media(
    rows: NDArray[np.float32],
    weights: NDArray[np.float64],
    kept: NDArray[np.int64],
    starts: NDArray[np.int64],
    owners: NDArray[np.int64],
    templates: int,
) -> NDArray[np.float64]:
    """Return the sum over media of the weighted mean within each, float64 (templates, d)."""
    sums = np.zeros((templates, rows.shape[1]))
    ends = np.append(starts[1:], kept.size)
    first = 0
    while first < starts.size:
        # Whole media, at least one.
        last = max(int(np.searchsorted(ends, starts[first] + _BLOCK, side="right")), first + 1)
        part = kept[starts[first] : ends[last - 1]]
        weighed = rows[part] * weights[part, None]
        means = np.add.reduceat(weighed, starts[first:last] - starts[first], axis=0)
        means /= (ends[first:last] - starts[first:last])[:, None]
        whose = owners[kept[starts[first:last]]]
        groups = np.flatnonzero(np.diff(whose, prepend=-1))
        # A template may go on in the next block.
        sums[whose[groups]] += np.add.reduceat(means, groups, axis=0)
        first = last
    return sums


def _check_scores(scores: ArrayLike, count: int) -> NDArray[np.float64]:
    values = np.asarray(scores, np.float64)
    if values.shape != (count,):
        raise InputError(f"detector_scores must be ({count},), one a face, got {values.shape}")
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if bad.size:
        raise InputError(
            f"detector_scores must be finite and at least 0, but row {bad[0]} is {values[bad[0]]}"
        )
    return values
