"""Heads with one fixed margin (METHODS section 1)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from facerec.checks import check_range
from facerec.losses.head import Head, Rows
from facerec.registry import HEADS


@HEADS.register("normface")
class NormFace(Head):
    """z_j = s cos θ_j: no margin (Wang et al. 2017, NormFace).

    Args:
        num_classes: c.
        embedding_dim: d.
        scale: s; below log((c - 1) p / (1 - p)) no sample can reach probability p.
        options: see Head.
    """


@HEADS.register("cosface")
class CosFace(Head):
    """z_y = s (cos θ_y - m) (Wang et al. 2018, CosFace; AM-Softmax).

    Args:
        num_classes: c.
        embedding_dim: d.
        scale: s.
        margin: m, a difference of cosines in [0, 2].
        options: see Head.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        scale: float = 64.0,
        margin: float = 0.35,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, embedding_dim, scale, **options)
        self.margin = check_range(margin, "margin", 0, 2)

    def modify_target(self, rows: Rows) -> Tensor:
        """Return cos θ - m."""
        return rows.target - self.margin


@HEADS.register("arcface")
class ArcFace(Head):
    """z_y = s cos(θ_y + m), continued monotonically past π (Deng et al. 2019; METHODS 0.2).

    Args:
        num_classes: c.
        embedding_dim: d.
        scale: s.
        margin: m, radians in [0, π/2].
        options: see Head: grad, sub_centers, filter_cosine.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        scale: float = 64.0,
        margin: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, embedding_dim, scale, **options)
        self.margin = check_range(margin, "margin", 0, math.pi / 2)

    def modify_target(self, rows: Rows) -> Tensor:
        """Return cos(θ + m)."""
        return add_angle(rows.target, self.margin)


def add_angle(cosine: Tensor, margin: float) -> Tensor:
    """Return cos(θ + m) from cos θ, or -2 - cos(θ + m) where θ + m passes π.

    Continuous, with slope 0 on both sides of π, and never rising with θ. It is the addition
    theorem and needs no arccos: margin 0 returns the input bit for bit, and gradients are finite
    at cos θ = ±1, where the derivative of sin θ is taken as 0.

    Args:
        cosine: any shape, float32 or float64, in [-1, 1].
        margin: m in radians, in [0, π/2].
    """
    square = (1 - cosine) * (1 + cosine)  # exact near ±1, unlike 1 - cos²
    inside = square > 0
    sine = torch.where(inside, square, 1).sqrt() * inside
    shifted = cosine * math.cos(margin) - sine * math.sin(margin)
    return torch.where(cosine >= -math.cos(margin), shifted, -2 - shifted)
