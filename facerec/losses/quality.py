"""Heads whose margin follows the norm of the embedding (METHODS sections 2.5 and 2.6).

The raw norm of an embedding rises with the quality of its picture.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from facerec.checks import InputError, check_range
from facerec.losses.adaptive import LearnedMarginHead
from facerec.losses.angles import add_angle, add_angle_clipped
from facerec.losses.batch_statistics import blend, deviation_of_batch, mean_of_batch
from facerec.losses.head import Head, Rows
from facerec.registry import HEADS

_NORM_RANGE = (1e-3, 100.0)


@HEADS.register("adaface")
class AdaFace(Head):
    """z_y = s (cos(clip(θ_y - m q, 0, π)) - m - m q) with a quality q (Kim et al. 2022).

    q = clip(h (‖x‖ - mean) / (std + eps), -1, 1) compares the norm, clipped to [0.001, 100], with
    running statistics; no gradient passes through it. Good pictures (q = 1) are pressed where
    they are hard, poor ones (q = -1) where they are easy, as by ArcFace; q = 0 is CosFace.

    Args:
        num_classes: c.
        embedding_dim: d.
        scale: s.
        margin: m, radians in [0, π/2].
        h: slope of q in [0, 10]; 1/3 leaves most norms inside the clip.
        t_alpha: weight of a training batch in the running statistics, in [0, 1].
        mean: start value, of norms.
        std: start value, of norms.
        eps: keeps the divisor from 0.
        options: see Head.

    Attributes:
        mean: float32 scalar buffer.
        std: float32 scalar buffer.

    Raises:
        InputError: an argument out of range.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        scale: float = 64.0,
        margin: float = 0.4,
        h: float = 0.333,
        t_alpha: float = 0.01,
        mean: float = 20.0,
        std: float = 100.0,
        eps: float = 1e-3,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, embedding_dim, scale, **options)
        self.margin = check_range(margin, "margin", 0, math.pi / 2)
        self.h = check_range(h, "h", 0, 10)
        self.t_alpha = check_range(t_alpha, "t_alpha", 0, 1)
        self.eps = check_range(eps, "eps", 1e-9, 1)
        for name, value in (("mean", mean), ("std", std)):
            start = float(check_range(value, name, 0, 1e6))
            self.register_buffer(name, torch.tensor(start, dtype=torch.float32))

    def observe(self, rows: Rows) -> None:
        """Move the running statistics towards those of a training batch, of all ranks.

        One row has no standard deviation, and moves the mean only.
        """
        norms = _need_norms(rows, "adaface").clamp(*_NORM_RANGE)
        mean, count = mean_of_batch(norms)
        std = deviation_of_batch(norms, mean, count)
        blend(self.mean, mean, 1 - self.t_alpha, count > 0)
        blend(self.std, std, 1 - self.t_alpha, count > 1)

    def modify_target(self, rows: Rows) -> Tensor:
        """Return cos(clip(θ - m q, 0, π)) - m - m q.

        Raises:
            InputError: the rows have no norms.
        """
        norms = _need_norms(rows, "adaface").detach().clamp(*_NORM_RANGE)
        quality = (self.h * (norms - self.mean) / (self.std + self.eps)).clamp(-1, 1)
        moved = add_angle_clipped(rows.target, -self.margin * quality)
        return moved - (self.margin + self.margin * quality)


@HEADS.register("magface")
class MagFace(LearnedMarginHead):
    """z_y = s cos(θ_y + m(a)), the margin growing linearly with the norm a (Meng et al. 2021).

    a = clip(‖x‖, norm_low, norm_high), and m(a) goes from margin_low to margin_high. The penalty
    λ mean(a / norm_high² + 1 / a) rewards a large norm, the margin a small one where the cosine
    is poor: both differentiate through a, so that the norm comes to tell how good a picture is.
    With grad "straight_through" the logit's slope is s in the cosine only.

    Args:
        num_classes: c.
        embedding_dim: d.
        scale: s.
        norm_low: l_a in [0.001, 10⁴].
        norm_high: u_a in [norm_low, 10⁴], and above it.
        margin_low: l_m, radians in [0, π/2].
        margin_high: u_m, radians in [margin_low, π/2].
        penalty_weight: λ in [0, 10⁴].
        options: see Head.

    Raises:
        InputError: an argument out of range.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        scale: float = 64.0,
        norm_low: float = 10.0,
        norm_high: float = 110.0,
        margin_low: float = 0.45,
        margin_high: float = 0.8,
        penalty_weight: float = 35.0,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, embedding_dim, scale, **options)
        self.norm_low = check_range(norm_low, "norm_low", 1e-3, 1e4)
        self.norm_high = check_range(norm_high, "norm_high", norm_low, 1e4)
        if norm_high == norm_low:
            raise InputError(f"norm_high must be above norm_low, got {norm_high} for both")
        self.margin_low = check_range(margin_low, "margin_low", 0, math.pi / 2)
        self.margin_high = check_range(margin_high, "margin_high", margin_low, math.pi / 2)
        self.penalty_weight = check_range(penalty_weight, "penalty_weight", 0, 1e4)

    def modify_target(self, rows: Rows) -> Tensor:
        """Return cos(θ + m(a)).

        Raises:
            InputError: the rows have no norms.
        """
        slope = (self.margin_high - self.margin_low) / (self.norm_high - self.norm_low)
        margin = self.margin_low + slope * (self._clip_norms(rows) - self.norm_low)
        return add_angle(self.target_source(rows), margin)

    def penalty(self, rows: Rows) -> Tensor:
        """Return λ mean(a / norm_high² + 1 / a).

        Raises:
            InputError: the rows have no norms.
        """
        norms = self._clip_norms(rows)
        worth = norms / self.norm_high**2 + 1 / norms
        return self.penalty_weight * worth.sum() / max(1, len(norms))

    def _clip_norms(self, rows: Rows) -> Tensor:
        """Return a (n, 1); outside the clip it has no gradient."""
        return _need_norms(rows, "magface").clamp(self.norm_low, self.norm_high)


def _need_norms(rows: Rows, head: str) -> Tensor:
    """Return the norms (n, 1) or raise InputError."""
    if rows.norms is None:
        raise InputError(
            f"norms must be given to the head {head!r}, got None; pass the raw norms (n,) of "
            "the embeddings"
        )
    return rows.norms
