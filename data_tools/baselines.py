"""What others do with a face folder, to be beaten on the same embeddings and labels.

Each takes float32 (n, d) unit vectors and int64 (n,) labels 0, 1, ... with -1 for none, and says
which rows to keep. Rows without a label are kept: none of these rules has anything to say on them.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.centres import (
    Array,
    Labels,
    Mask,
    Vectors,
    group_rows,
    scale_to_unit,
    sum_members,
)
from facerec.checks import (
    InputError,
    MissingPackageError,
    check_embeddings,
    check_range,
    check_whole,
    require,
)

_ROUNDS = 25
_SCALES = (4.0, 8.0, 16.0, 32.0, 64.0)
_BYTES_A_CELL = 40
"""Of probabilities and what is made of them on the way; the peak measured is 28."""


def mean_cosine(vectors: Vectors, labels: Labels, least: float = 0.6) -> Mask:
    """Keep rows whose cosine to the normalised mean of their identity reaches `least`.

    InsightFace, `dataset_clean` mode 1 (CLEANING section 2.6). The mean is over all rows, the row
    itself included, as there.

    Returns:
        bool (n,).

    Raises:
        InputError: vectors that are no embeddings, labels of another length, a cosine out of
            [-1, 1].
    """
    _check(vectors, labels)
    check_range(least, "least", -1.0, 1.0)
    keep: Mask = np.ones(len(labels), bool)
    held = np.flatnonzero(labels >= 0)
    if len(held):
        units = scale_to_unit(sum_members(vectors, labels, int(labels.max()) + 1))
        for rows in np.array_split(held, -(-len(held) // 65536)):
            keep[rows] = np.einsum("nd,nd->n", vectors[rows], units[labels[rows]]) >= least
    return keep


def largest_cluster(
    vectors: Vectors, labels: Labels, eps: float = 0.6, min_samples: int = 2
) -> Mask:
    """Keep each identity's largest DBSCAN cluster; a folder of nothing but noise loses all.

    InsightFace, `dataset_clean` mode 2: Euclidean distance of unit vectors, where 0.6 is a cosine
    of 0.82. Of clusters of one size the one that is found first counts.

    Returns:
        bool (n,).

    Raises:
        InputError: see `mean_cosine`; eps out of (0, 2], or min_samples under 1.
    """
    from sklearn.cluster import DBSCAN

    _check(vectors, labels)
    check_range(eps, "eps", 1e-6, 2.0)
    check_whole(min_samples, "min_samples", 1, 2**31)
    keep: Mask = np.ones(len(labels), bool)
    for rows in group_rows(labels):
        if not len(rows):
            continue
        found = DBSCAN(eps=eps, min_samples=min_samples, algorithm="brute").fit_predict(
            vectors[rows]
        )
        sizes = np.bincount(found[found >= 0], minlength=1)
        keep[rows] = np.asarray(found == int(np.argmax(sizes)), bool)
    return keep


def sub_centre(
    vectors: Vectors, labels: Labels, k: int = 3, degrees: float = 75.0, seed: int = 0
) -> Mask:
    """Keep rows within an angle of their identity's dominant sub-centre.

    InsightFace, `subcenter_arcface/drop.py` (METHODS section 8.4, step 3): all rows are tested
    against the dominant centre alone. There the centres are weights of a trained head; here they
    come from spherical k-means of the identity's own rows, which needs no training.

    Args:
        vectors: float32 (n, d).
        labels: int64 (n,).
        k: sub-centres an identity.
        degrees: greatest angle, in [0, 180].
        seed: of each identity's first centre.

    Returns:
        bool (n,).

    Raises:
        InputError: see `mean_cosine`; k under 1 or an angle out of range.
    """
    _check(vectors, labels)
    check_whole(k, "k", 1, 1000)
    check_range(degrees, "degrees", 0.0, 180.0)
    least = math.cos(math.radians(degrees))
    keep: Mask = np.ones(len(labels), bool)
    for identity, rows in enumerate(group_rows(labels)):
        if len(rows):
            own = np.asarray(vectors[rows])
            centre = _find_dominant(own, k, np.random.default_rng([seed, identity]))
            keep[rows] = own @ centre > least
    return keep


def _find_dominant(own: Vectors, k: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the spherical k-means centre that most rows belong to, the first of equals.

    The first start is drawn, each further one is the row least like those before.
    """
    starts = [int(rng.integers(len(own)))]
    nearest = own @ own[starts[0]]
    while len(starts) < min(k, len(own)):
        starts.append(int(np.argmin(nearest)))
        nearest = np.maximum(nearest, own @ own[starts[-1]])
    centres = own[starts]
    member = np.full(len(own), -1)
    for _ in range(_ROUNDS):
        now = np.argmax(own @ centres.T, axis=1)
        if np.array_equal(now, member):
            break
        member = now
        sums = np.stack([own[member == place].sum(axis=0) for place in range(len(centres))])
        moved = scale_to_unit(sums)
        filled = np.linalg.norm(moved, axis=1, keepdims=True) > 0
        centres = np.where(filled, moved, centres)
    sizes = np.bincount(member, minlength=len(centres))
    return np.asarray(centres[int(np.argmax(sizes))], np.float32)


def cleanlab_issues(
    vectors: Vectors, labels: Labels, max_bytes: int = 4 << 30
) -> tuple[Mask | None, str]:
    """Keep what `cleanlab.filter.find_label_issues` finds no fault with.

    It needs the probability of every class for every row, from a model that did not see the row.
    That is softmax(s * cosine to each identity's normalised mean) here, the row left out of its
    own identity's mean (leave-one-out cross-validation), with the s of 4, 8, 16, 32 or 64 under
    which the given labels are likeliest. An identity of one row has no centre without it: its
    cosine counts as 0. cleanlab's own settings are its defaults ("prune_by_noise_rate").

    Args:
        vectors: float32 (n, d).
        labels: int64 (n,), every number from 0 used.
        max_bytes: memory it may take, about 40 bytes a row and identity.

    Returns:
        bool (n,) and "", or None and why there is no answer.

    Raises:
        InputError: see `mean_cosine`.
    """
    _check(vectors, labels)
    held = np.flatnonzero(labels >= 0)
    count = int(labels.max(initial=-1)) + 1
    if count < 2:
        return None, "cleanlab needs at least two identities"
    needed = len(held) * count * _BYTES_A_CELL
    if needed > max_bytes:
        return None, (
            f"{len(held):,} rows x {count:,} identities need about {needed / 2**30:.1f} GiB, "
            f"more than {max_bytes / 2**30:.1f}"
        )
    try:
        cleanlab: Any = require("cleanlab.filter")
    except MissingPackageError as error:
        return None, str(error)
    chances = _predict_left_out(vectors[held], labels[held], count)
    with warnings.catch_warnings():  # one for every small identity
        warnings.simplefilter("ignore")
        issues = cleanlab.find_label_issues(labels[held], chances, n_jobs=1)
    keep: Mask = np.ones(len(labels), bool)
    keep[held] = ~np.asarray(issues, bool)
    return keep, ""


def _predict_left_out(vectors: Vectors, labels: Labels, count: int) -> Array:
    """Return the probability of each identity for each row, float64 (n, count)."""
    sums = sum_members(vectors, labels, count)
    cosines = np.asarray(vectors @ scale_to_unit(sums).T, np.float64)
    rows = np.arange(len(labels))
    rest = scale_to_unit(sums[labels] - vectors)
    alone = np.bincount(labels, minlength=count)[labels] == 1
    cosines[rows, labels] = np.where(alone, 0.0, np.einsum("nd,nd->n", rest, vectors))
    own = cosines[rows, labels]
    highest = cosines.max(axis=1)
    best, likeliest = _SCALES[0], -np.inf
    for scale in _SCALES:
        spread = np.exp(scale * (cosines - highest[:, None])).sum(axis=1)
        likelihood = float((scale * (own - highest) - np.log(spread)).mean())
        if likelihood > likeliest:
            best, likeliest = scale, likelihood
    cosines -= highest[:, None]
    cosines *= best
    np.exp(cosines, out=cosines)
    cosines /= cosines.sum(axis=1, keepdims=True)
    return cosines


def _check(vectors: Vectors, labels: Labels) -> None:
    check_embeddings(vectors)
    if labels.shape != (len(vectors),):
        raise InputError(f"labels must have shape ({len(vectors)},), got {labels.shape}")
