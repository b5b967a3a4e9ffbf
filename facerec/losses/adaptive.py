"""Heads that find their scale or their margins in training (METHODS sections 2.1 to 2.3)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from facerec import dist
from facerec.checks import InputError, check_one_of, check_range
from facerec.losses.angles import add_angle
from facerec.losses.batch_statistics import blend
from facerec.losses.head import Head, Rows
from facerec.registry import HEADS

_SCALE_RANGE = (0.1, 1e4)
# For each kind of AdaptiveFace: smallest and largest margin, range of start values.
_KINDS = {"cosine": (0.0, 1.0, 0.3, 0.4), "angular": (0.0, 0.8, 0.5, 0.5)}


@HEADS.register("adacos")
class AdaCos(Head):
    """z_j = s cos θ_j with s found by itself (Zhang et al. 2019; METHODS 2.1); no margin.

    The scale starts at √2 log(c - 1). When dynamic, each training batch sets it to
    log B / cos(min(π/4, θ)) before its logits are made: B is the mean over the batch of
    Σ_{j≠y} exp(s cos θ_j) at the scale so far, θ the median angle of samples with their own
    class (the lower of two in the middle). It is kept within [0.1, 10⁴], which only matters where
    nearly all other classes lie opposite.

    Args:
        num_classes: c; the formula gives 0 for two classes, which start as three do.
        embedding_dim: d.
        scale: start value, None for the formula above.
        dynamic: follow the batches; false keeps the start value.
        options: see Head.

    Attributes:
        scale: float32 scalar buffer.

    Raises:
        InputError: an argument out of range.
    """

    whole_row = True

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        scale: float | None = None,
        dynamic: bool = True,
        **options: Any,
    ) -> None:
        if scale is None:
            scale = math.sqrt(2) * math.log(max(num_classes - 1, 2))
        if not isinstance(dynamic, bool):
            raise InputError(f"dynamic must be true or false, got {dynamic!r}")
        super().__init__(num_classes, embedding_dim, scale, **options)
        self.dynamic = dynamic
        del self.scale
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))

    def observe(self, rows: Rows) -> None:
        """Set the scale from a training batch, of all ranks; an empty one changes nothing."""
        if not self.dynamic:
            return
        found = _survey(rows, self.scale)
        if found is None:
            return
        log_sum, angle = found
        scale = log_sum / angle.clamp_max(math.pi / 4).cos()
        assert isinstance(self.scale, Tensor)
        blend(self.scale, scale.clamp(*_SCALE_RANGE), 0.0, log_sum.isfinite())


@HEADS.register("adamargin")
class AdaMargin(Head):
    """ArcFace with the margin at which the median sample has probability k (METHODS 2.2).

    Each training batch asks for m = arccos(log(B k / (1 - k)) / s) - min(θ, k π/2), with B and θ
    as in AdaCos, clamped to [min_margin, max_margin]; the margin used is the running mean of
    these. As samples come nearer to their classes the margin grows.

    Args:
        num_classes: c.
        embedding_dim: d.
        scale: s.
        margin: start value, radians in [0, π/2].
        k: probability in [0.01, 0.99].
        decay: share of the running mean that each training batch leaves, in [0, 1].
        min_margin: radians in [0, π/2].
        max_margin: radians in [min_margin, π/2].
        options: see Head.

    Attributes:
        margin: float32 scalar buffer.

    Raises:
        InputError: an argument out of range.
    """

    whole_row = True
    margin: Tensor

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        scale: float = 64.0,
        margin: float = 0.5,
        k: float = 0.5,
        decay: float = 0.99,
        min_margin: float = 0.1,
        max_margin: float = 0.8,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, embedding_dim, scale, **options)
        start = float(check_range(margin, "margin", 0, math.pi / 2))
        self.k = check_range(k, "k", 0.01, 0.99)
        self.decay = check_range(decay, "decay", 0, 1)
        self.min_margin = check_range(min_margin, "min_margin", 0, math.pi / 2)
        self.max_margin = check_range(max_margin, "max_margin", min_margin, math.pi / 2)
        self.register_buffer("margin", torch.tensor(start, dtype=torch.float32))

    def observe(self, rows: Rows) -> None:
        """Move the margin towards what a training batch, of all ranks, asks for."""
        found = _survey(rows, self.scale)
        if found is None:
            return
        log_sum, angle = found
        odds = math.log(self.k / (1 - self.k))
        # More classes than the scale can hold apart would leave no such angle: then 0.
        wanted = ((log_sum + odds) / self.scale).clamp(-1, 1).acos()
        margin = wanted - angle.clamp_max(self.k * math.pi / 2)
        margin = margin.clamp(self.min_margin, self.max_margin)
        blend(self.margin, margin, self.decay, log_sum.isfinite())

    def modify_target(self, rows: Rows) -> Tensor:
        """Return cos(θ + m)."""
        return add_angle(rows.target, self.margin.to(rows.target.dtype))


class LearnedMarginHead(Head):
    """A head whose margins get a gradient, which "straight_through" must not cut.

    Only the slope of the target's cosine is made s there; `modify_target` starts from
    `target_source`.
    """

    def target_source(self, rows: Rows) -> Tensor:
        """Return the target cosine (n, 1), detached where its gradient is added afterwards."""
        return rows.target if self.grad == "exact" else rows.target.detach()

    def pass_through(self, changed: Tensor, original: Tensor) -> Tensor:
        """Return `changed` with the gradient of `original` added when straight_through."""
        if self.grad == "exact" or changed is original:
            return changed
        return changed + (original - original.detach())


@HEADS.register("adaptiveface")
class AdaptiveFace(LearnedMarginHead):
    """z_y = s (cos θ_y - m_y) or s cos(θ_y + m_y) with a learned margin for each class.

    The penalty -(λ / c) Σ_j m_j draws every margin up by the same amount each step, and a class's
    samples draw it down while they are not yet certain, so that rare classes end with large
    margins (Liu et al. 2019, AdaptiveFace; METHODS 2.3). A sample's share in the loss is 1 / n,
    so the balance holds for any number of classes and any batch only if λ = strength * c / n:
    that is what is done, and a margin rises by lr * strength / n a step where nothing holds it.
    n counts the rows of all ranks, taken as equally many on each.

    Margins are clamped at the start of each training step. As a vector they get no weight decay.

    Args:
        num_classes: c.
        embedding_dim: d.
        scale: s.
        kind: "cosine", with margins in [0, 1] that start evenly in [0.3, 0.4], or "angular",
            radians in [0, 0.8] that start at 0.5.
        strength: λ n / c in [0, 100]; 0.5 is λ 70 at 72 778 classes and a batch of 512.
        options: see Head.

    Attributes:
        margins: float32 parameter (c,).

    Raises:
        InputError: an argument out of range.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        scale: float = 30.0,
        kind: str = "cosine",
        strength: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, embedding_dim, scale, **options)
        self.kind = check_one_of(kind, "kind", _KINDS)
        self.strength = check_range(strength, "strength", 0, 100)
        low, high = _KINDS[kind][2:]
        self.margins = nn.Parameter(torch.empty(num_classes).uniform_(low, high))

    def observe(self, rows: Rows) -> None:
        """Bring margins that the last update drove out of their range back to its ends."""
        self.margins.clamp_(*_KINDS[self.kind][:2])

    def modify_target(self, rows: Rows) -> Tensor:
        """Return cos θ - m_y, or cos(θ + m_y)."""
        cosine = self.target_source(rows)
        margin = self.margins[rows.labels][:, None].to(cosine.dtype)
        margin = margin.clamp(*_KINDS[self.kind][:2])
        return cosine - margin if self.kind == "cosine" else add_angle(cosine, margin)

    def penalty(self, rows: Rows) -> Tensor:
        """Return -(strength / n) Σ_j m_j."""
        batch = len(rows.labels) * dist.world_size()
        return -self.strength / max(1, batch) * self.margins.sum()


def _survey(rows: Rows, scale: float | Tensor) -> tuple[Tensor, Tensor] | None:
    """Return (log B, median θ) over the rows of all ranks; None where there are none.

    B is the mean over rows of Σ_{j≠y} exp(s cos θ_j), in logarithms because exp(s) can overflow.
    """
    others = (scale * rows.cosine).masked_fill(rows.target_mask(), -torch.inf)
    own = torch.stack([others.logsumexp(dim=1), rows.target[:, 0].acos()], dim=1)
    every = dist.gather_rows(own)
    if not len(every):
        return None
    log_sums, angles = every.unbind(dim=1)
    return log_sums.logsumexp(dim=0) - math.log(len(every)), angles.median()
