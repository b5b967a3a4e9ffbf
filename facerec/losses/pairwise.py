"""Losses on pairs inside a batch: hard triplets (METHODS section 4).

Batches need several chips of a person. Distances are Euclidean between unit vectors, so they lie
in [0, 2]. A row is an anchor when the batch holds another row of its person (itself does not
count) and a row of somebody else.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize, relu, softplus

from facerec.checks import InputError, check_range
from facerec.losses.head import SMALLEST_NORM, promote

_SMALLEST_SQUARE = 1e-12
_LARGEST_WEIGHT = 1e9


def batch_hard_triplet(embeddings: Tensor, labels: Tensor, margin: float | None = 0.3) -> Tensor:
    """Return the mean over anchors of [m + farthest positive - nearest negative]_+.

    Hermans et al. 2017, METHODS section 4. Of equally far rows the gradient goes to one.

    Args:
        embeddings: (n, d), raw or unit; half precision is widened, float64 stays.
        labels: (n,) int64.
        margin: m, a distance in [0, 2]; None takes the soft margin, softplus instead of [·]_+.

    Returns:
        A scalar; 0 with a gradient of 0 where the batch has no anchor.

    Raises:
        InputError: shapes that do not fit, or a margin out of range.
    """
    if margin is not None:
        check_range(margin, "margin", 0, 2)
    _check(embeddings, labels)
    with torch.autocast(embeddings.device.type, enabled=False):
        pairs = _measure(embeddings, labels)
        if not len(pairs.distance):  # a maximum over no columns is an error
            return _average(pairs.distance)
        positive = pairs.distance.masked_fill(~pairs.same, -torch.inf).max(dim=1).values
        negative = pairs.distance.masked_fill(~pairs.other, torch.inf).min(dim=1).values
        gap = positive - negative
        return _average(softplus(gap) if margin is None else relu(gap + margin))


def soft_weighted_triplet(
    embeddings: Tensor,
    labels: Tensor,
    scale: float = 64.0,
    positive_weight: float = 1.0,
    negative_weight: float = 1.0,
) -> Tensor:
    """Return the mean over anchors of softplus(D_ap - D_an), each a weighted mean of distances.

    D = scale * distance; D_ap = Σ_p softmax_p(w_pos D) D over the anchor's positives and
    D_an = Σ_n softmax_n(-w_neg D) D over its negatives, weights detached. With both w growing
    without bound it is the soft-margin `batch_hard_triplet` of scaled distances; with w = 0 all
    pairs count alike. The variant of METHODS section 4, with self-pairs left out.

    Args:
        embeddings: (n, d), raw or unit; half precision is widened, float64 stays.
        labels: (n,) int64.
        scale: by which distances are multiplied.
        positive_weight: w_pos.
        negative_weight: w_neg.

    Returns:
        A scalar; 0 with a gradient of 0 where the batch has no anchor.

    Raises:
        InputError: shapes that do not fit, or an argument out of range.
    """
    check_range(scale, "scale", 1e-3, 1e4)
    check_range(positive_weight, "positive_weight", 0, _LARGEST_WEIGHT)
    check_range(negative_weight, "negative_weight", 0, _LARGEST_WEIGHT)
    _check(embeddings, labels)
    with torch.autocast(embeddings.device.type, enabled=False):
        pairs = _measure(embeddings, labels)
        distance = scale * pairs.distance
        positive = _weigh(distance, pairs.same, positive_weight)
        negative = _weigh(distance, pairs.other, -negative_weight)
        return _average(softplus(positive - negative))


@dataclass(frozen=True)
class _Pairs:
    """The a anchors of a batch against all its n rows.

    Attributes:
        distance: (a, n).
        same: bool (a, n), another row of the anchor's person; at least one each.
        other: bool (a, n), a row of another person; at least one each.
    """

    distance: Tensor
    same: Tensor
    other: Tensor


def _measure(embeddings: Tensor, labels: Tensor) -> _Pairs:
    directions = normalize(promote(embeddings), dim=1, eps=SMALLEST_NORM)
    square = 2 - 2 * directions @ directions.T
    # The gradient of a root at 0 is infinite; below the floor it is 0.
    distance = square.clamp_min(_SMALLEST_SQUARE).sqrt()
    same = labels[:, None] == labels
    other = ~same
    same = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    anchors = same.any(dim=1) & other.any(dim=1)
    return _Pairs(distance[anchors], same[anchors], other[anchors])


def _weigh(distance: Tensor, mask: Tensor, weight: float) -> Tensor:
    """Return the mean distance (a,) over `mask`, weighted by softmax(weight * distance)."""
    exponent = (weight * distance.detach()).masked_fill(~mask, -torch.inf)
    return (exponent.softmax(dim=1) * distance).sum(dim=1)


def _average(losses: Tensor) -> Tensor:
    return losses.sum() / max(1, len(losses))


def _check(embeddings: Tensor, labels: Tensor) -> None:
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        raise InputError(
            "embeddings must have shape (n, d) and labels (n,), "
            f"got {tuple(embeddings.shape)} and {tuple(labels.shape)}"
        )
