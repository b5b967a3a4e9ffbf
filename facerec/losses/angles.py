"""Sums of angles in terms of cosines: monotone, with finite gradients also at cos θ = ±1.

Where the addition theorem does, no arccos is taken: a margin of 0 then returns its input bit for
bit, and nothing is lost near ±1. A function of θ that is monotone keeps a stronger pull for what
lies further from its class, whatever the margin (METHODS 0.2).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def find_angle(cosine: Tensor) -> Tensor:
    """Return θ in [0, π]; where |cos θ| >= 1 the angle is 0 or π and its gradient 0.

    The next smaller float32 has a gradient of about 2900, the largest there is.

    Args:
        cosine: any shape, float32 or float64; rounding may have left [-1, 1].
    """
    inside = cosine.abs() < 1
    angle = torch.where(inside, cosine, 0.0).acos()
    ends = torch.where(cosine > 0, torch.zeros_like(cosine), math.pi)
    return torch.where(inside, angle, ends)


def find_sine(cosine: Tensor) -> Tensor:
    """Return sin θ >= 0; where |cos θ| >= 1 it is 0 and its derivative is taken as 0.

    Args:
        cosine: any shape, float32 or float64; rounding may have left [-1, 1].
    """
    square = (1 - cosine) * (1 + cosine)  # exact near ±1, unlike 1 - cos²
    inside = square > 0
    return torch.where(inside, square, 1).sqrt() * inside


def add_angle(cosine: Tensor, margin: float | Tensor) -> Tensor:
    """Return cos(θ + m) from cos θ, or -2 - cos(θ + m) where θ + m passes π.

    Continuous, with slope 0 on both sides of π, and never rising with θ. Margin 0 returns the
    input bit for bit.

    Args:
        cosine: any shape, float32 or float64, in [-1, 1].
        margin: m in radians, in [0, π/2]; a tensor is broadcast and gets its gradient.
    """
    along, across = _split_margin(margin)
    shifted = cosine * along - find_sine(cosine) * across
    return torch.where(cosine >= -along, shifted, -2 - shifted)


def add_angle_clipped(cosine: Tensor, angle: Tensor) -> Tensor:
    """Return cos(clip(θ + a, 0, π)): flat where the sum leaves [0, π]. Angle 0 changes no bit.

    Args:
        cosine: any shape, float32 or float64, in [-1, 1].
        angle: a in radians, in [-π/2, π/2]; broadcast.
    """
    along, across = angle.cos(), angle.sin()
    turned = cosine * along - find_sine(cosine) * across
    turned = torch.where((angle < 0) & (cosine > along), 1.0, turned)
    return torch.where((angle > 0) & (cosine < -along), -1.0, turned)


def subtract_angle(cosine: Tensor, margin: float) -> Tensor:
    """Return ψ(θ) = cos(θ - m) for θ >= m, else cos θ + 1 - cos m (METHODS 3.1).

    Continuous and never rising with θ, where cos(θ - m) alone would turn back below m and draw
    a wrong class closer. It exceeds 1 below m. Margin 0 returns the input bit for bit.

    Args:
        cosine: any shape, float32 or float64; rounding may have left [-1, 1].
        margin: m in radians, in [0, π/2].
    """
    along, across = math.cos(margin), math.sin(margin)
    shifted = cosine * along + find_sine(cosine) * across
    return torch.where(cosine > along, cosine + (1 - along), shifted)


def multiply_angle(cosine: Tensor, factor: float, margin: float = 0.0) -> Tensor:
    """Return (-1)^k cos(f θ + m) - 2k with k = floor((f θ + m) / π) (Liu et al. 2017).

    The monotone extension of cos(f θ + m): it falls with θ all the way, with slope 0 where the
    angle is a multiple of π. Factor 1 is `add_angle`, which needs no arccos.

    Args:
        cosine: any shape, float32 or float64, in [-1, 1].
        factor: f, at least 1.
        margin: m in radians, in [0, π/2].
    """
    if factor == 1:
        return add_angle(cosine, margin)
    total = factor * find_angle(cosine) + margin
    turns = (total.detach() / math.pi).floor()
    sign = 1 - 2 * (turns % 2)
    return sign * total.cos() - 2 * turns


def _split_margin(margin: float | Tensor) -> tuple[float | Tensor, float | Tensor]:
    """Return (cos m, sin m)."""
    if isinstance(margin, Tensor):
        return margin.cos(), margin.sin()
    return math.cos(margin), math.sin(margin)
