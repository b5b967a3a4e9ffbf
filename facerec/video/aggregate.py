"""One template a track: outlier frames removed, one vote a distinct view (METHODS 8.5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_embeddings, check_range

RHO = 10.0
"""The published multiple of the IQR; very lenient, Tukey's is 1.5."""

MIN_IQR = 0.01
"""Least distance IQR: at rho 10 nothing within a duplicate's distance (0.1) of Q3 is dropped."""

MIN_NORM_IQR = 0.01
"""Least norm IQR, relative to the median norm."""

DUPLICATE_DISTANCE = 0.1
"""Frames nearer than this are one view: |u - v| < 0.1 is cos > 0.995."""


@dataclass(frozen=True)
class Aggregate:
    """A track's template and how it came about.

    Attributes:
        template: float32 (d,), unit norm.
        dropped: position of a frame -> why it does not count.
        views: int64 (t,), which distinct view a frame belongs to, from 0; -1 = dropped.
    """

    template: NDArray[np.float32]
    dropped: dict[int, str]
    views: NDArray[np.int64]


def aggregate_published(
    embeddings: NDArray[np.float32],
    norms: NDArray[np.float32],
    rho: float = RHO,
    min_iqr: float = MIN_IQR,
    min_norm_iqr: float = MIN_NORM_IQR,
) -> Aggregate:
    """Return the template of a track by the published rule (METHODS 8.5).

    Up to 4 frames: the normalised mean. More: drop frames with norm < Q1 - rho IQR, or with
    distance to the mean > Q3 + rho IQR; join near-duplicates; normalise the mean of the groups'
    normalised means. Quantiles interpolate linearly. Two repairs: the groups are those of a true
    union-find, and the IQRs have a floor, without which a track of equal frames would drop any
    frame that differs (0 for both floors is the rule to the letter).

    Args:
        embeddings: float32 (t, d), unit norm, t at least 1.
        norms: float32 (t,), raw norms.
        rho: multiple of the IQR.
        min_iqr: floor of the distance IQR.
        min_norm_iqr: floor of the norm IQR, relative to the median norm.

    Raises:
        InputError: no frames, or arrays of another form.
    """
    check_embeddings(embeddings, "track embeddings")
    count = len(embeddings)
    if not count or norms.shape != (count,):
        raise InputError(
            f"a track needs at least 1 frame and as many norms, got {count} and {norms.shape}"
        )
    check_range(rho, "rho", 0, np.inf)
    # Frames in an order of their own, so that the sums do not depend on the order given.
    order = np.lexsort((*embeddings.T[::-1], norms))
    units = embeddings[order].astype(np.float64)
    if count <= 4:
        views = np.empty(count, np.int64)
        views[order] = np.arange(count)
        return Aggregate(_unit(units.mean(axis=0)).astype(np.float32), {}, views)
    reasons = find_outliers(units, norms[order].astype(np.float64), rho, min_iqr, min_norm_iqr)
    kept = np.array([i for i in range(count) if i not in reasons])
    groups = group_duplicates(units[kept])
    means = [_unit(units[kept[groups == g]].mean(axis=0)) for g in range(groups.max() + 1)]
    views = np.full(count, -1, np.int64)
    views[order[kept]] = groups
    dropped = {int(order[i]): reason for i, reason in reasons.items()}
    template = _unit(np.mean(means, axis=0)).astype(np.float32)
    return Aggregate(template, dict(sorted(dropped.items())), views)


def find_outliers(
    units: NDArray[np.float64],
    norms: NDArray[np.float64],
    rho: float = RHO,
    min_iqr: float = MIN_IQR,
    min_norm_iqr: float = MIN_NORM_IQR,
) -> dict[int, str]:
    """Return position -> reason for the frames that the rule drops.

    Some frames always stay: each test drops at most ceil((t - 1) / 4) of them.

    Args:
        units: float64 (t, d), unit norm.
        norms: float64 (t,), raw norms.
        rho: multiple of the IQR.
        min_iqr: floor of the distance IQR.
        min_norm_iqr: floor of the norm IQR, relative to the median norm.
    """
    distances = np.linalg.norm(units.mean(axis=0) - units, axis=1)
    floor = norm_floor(norms, rho, min_norm_iqr)
    q1, q3 = np.quantile(distances, (0.25, 0.75))
    ceiling = q3 + rho * max(q3 - q1, min_iqr)
    reasons: dict[int, str] = {}
    for i, (norm, distance) in enumerate(zip(norms, distances, strict=True)):
        why = []
        if norm < floor:
            why.append(f"norm {norm:.3g} below {floor:.3g}")
        if distance > ceiling:
            why.append(f"distance {distance:.3g} from the track's centre above {ceiling:.3g}")
        if why:
            reasons[i] = "; ".join(why)
    return reasons


def norm_floor(
    norms: NDArray[np.float64], rho: float = RHO, min_norm_iqr: float = MIN_NORM_IQR
) -> float:
    """Return Q1 - rho IQR of the norms, under which a frame is dropped."""
    q1, median, q3 = np.quantile(norms, (0.25, 0.5, 0.75))
    return float(q1 - rho * max(q3 - q1, min_norm_iqr * median))


def group_duplicates(
    units: NDArray[np.float64], distance: float = DUPLICATE_DISTANCE
) -> NDArray[np.int64]:
    """Return the connected groups of near-duplicates, int64 (t,), numbered by first member.

    Args:
        units: (t, d), unit norm.
        distance: frames nearer than this are linked; links are transitive.
    """
    parent = list(range(len(units)))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    limit = 1 - distance * distance / 2
    for i in range(1, len(units)):
        for j in np.flatnonzero(units[:i] @ units[i] > limit):
            # The lower number wins, so that a group is named by its first member.
            low, high = sorted((find(i), find(int(j))))
            parent[high] = low
    roots = np.array([find(i) for i in range(len(units))], dtype=np.int64)
    _, groups = np.unique(roots, return_inverse=True)
    return groups.astype(np.int64)


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12))
