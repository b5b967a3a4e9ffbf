"""Heads with one fixed margin, and those without (METHODS sections 1, 3.6 and 11)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from facerec.checks import InputError, check_range
from facerec.losses.angles import add_angle, find_angle, find_sine, multiply_angle
from facerec.losses.head import Head, Rows, pool_sub_centers
from facerec.registry import HEADS


@HEADS.register("softmax")
class Softmax(Head):
    """z_j = s (w_j · x + b_j): a plain linear classifier of raw embeddings.

    What its batches call cosines are these inner products before the scale. METHODS 1 says why
    the other heads compare directions instead.

    Args:
        num_classes: c.
        embedding_dim: d.
        scale: s.
        bias: learn b (c,), which starts at 0. A head that sees only some of its classes at a
            time (PartialFC) needs false.
        options: see Head; filter_cosine has no meaning here and is refused.

    Raises:
        InputError: an argument out of range.
    """

    bounded = False

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        scale: float = 1.0,
        bias: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, embedding_dim, scale, **options)
        if self.filter_cosine is not None:
            raise InputError(
                "filter_cosine must be null for the head 'softmax', which has no cosines, "
                f"got {self.filter_cosine}; take normface"
            )
        self.bias = nn.Parameter(torch.zeros(num_classes)) if bias else None

    def compare(self, embeddings: Tensor, weight: Tensor) -> Tensor:
        """Return w_j · x + b_j (n, c) from raw embeddings (n, d) and weights (c * K, d).

        Raises:
            InputError: a bias is learned, and `weight` is not that of all classes.
        """
        products = pool_sub_centers(embeddings @ weight.to(embeddings.dtype).T, self.sub_centers)
        if self.bias is None:
            return products
        if products.shape[1] != self.num_classes:
            raise InputError(
                "bias must be false where the head 'softmax' sees only some of its classes, "
                "got true; set it, or sample no classes"
            )
        return products + self.bias.to(products.dtype)


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
        margin: m, a difference of cosines in [-1, 2]. A negative one loosens the classes, which
            helps embeddings that must tell apart people of another kind (Liu et al. 2020,
            METHODS 3.5).
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
        self.margin = check_range(margin, "margin", -1, 2)

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


@HEADS.register("subcenter")
class SubCenterArcFace(ArcFace):
    """ArcFace with K centres a class, of which the nearest counts (Deng et al. 2020; METHODS 11).

    Wrong and odd pictures of a person gather at centres of their own instead of bending the
    main one.

    Args:
        num_classes: c.
        embedding_dim: d.
        scale: s.
        margin: m, radians in [0, π/2].
        sub_centers: K; 1 is ArcFace.
        options: see Head: grad, filter_cosine.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        scale: float = 64.0,
        margin: float = 0.5,
        sub_centers: int = 3,
        **options: Any,
    ) -> None:
        super().__init__(
            num_classes, embedding_dim, scale, margin, sub_centers=sub_centers, **options
        )


@HEADS.register("combined")
class CombinedMargin(Head):
    """z_y = s (cos(m1 θ_y + m2) - m3), the three margins of METHODS 1 in one (Deng et al. 2019).

    Past π the cosine is continued monotonically, as in SphereFace.

    Args:
        num_classes: c.
        embedding_dim: d.
        scale: s.
        m1: factor of the angle in [1, 4].
        m2: angle in radians in [0, π/2].
        m3: difference of cosines in [0, 2].
        options: see Head.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        scale: float = 64.0,
        m1: float = 1.0,
        m2: float = 0.3,
        m3: float = 0.2,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, embedding_dim, scale, **options)
        self.m1 = check_range(m1, "m1", 1, 4)
        self.m2 = check_range(m2, "m2", 0, math.pi / 2)
        self.m3 = check_range(m3, "m3", 0, 2)

    def modify_target(self, rows: Rows) -> Tensor:
        """Return cos(m1 θ + m2) - m3."""
        return multiply_angle(rows.target, self.m1, self.m2) - self.m3


@HEADS.register("sphereface")
class SphereFace(Head):
    """z_y = s ((-1)^k cos(m θ_y) - 2k), k = floor(m θ_y / π) (Liu et al. 2017), at a fixed scale.

    Args:
        num_classes: c.
        embedding_dim: d.
        scale: s.
        margin: m, factor of the angle in [1, 4]; 1 is NormFace.
        options: see Head.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        scale: float = 64.0,
        margin: float = 1.35,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, embedding_dim, scale, **options)
        self.margin = check_range(margin, "margin", 1, 4)

    def modify_target(self, rows: Rows) -> Tensor:
        """Return cos(m θ), extended monotonically."""
        return multiply_angle(rows.target, self.margin)


@HEADS.register("arcsin")
class ArcSin(Head):
    """z_y = s cos(θ_y + m (1 - sin min(θ_y, π/2)) + m0) (METHODS 3.6).

    The margin is m0 for samples at right angles or further, which are hard or mislabelled, and
    grows to m + m0 as θ goes to 0. Past π the cosine is continued monotonically.

    Args:
        num_classes: c.
        embedding_dim: d.
        scale: s.
        margin: m, radians in [0, 1]; above 1 the angle would fall where θ rises.
        offset: m0, radians; m + m0 at most π/2.
        options: see Head.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        scale: float = 64.0,
        margin: float = 0.5,
        offset: float = 0.3,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, embedding_dim, scale, **options)
        self.margin = check_range(margin, "margin", 0, 1)
        self.offset = check_range(offset, "offset", 0, math.pi / 2 - margin)

    def modify_target(self, rows: Rows) -> Tensor:
        """Return cos(θ + m (1 - sin min(θ, π/2)) + m0)."""
        sine = torch.where(rows.target > 0, find_sine(rows.target), 1.0)
        return add_angle(rows.target, self.margin * (1 - sine) + self.offset)


@HEADS.register("liarcface")
class LiArcFace(Head):
    """z_j = s (π - 2 (θ_j + m [j = y])) / π: linear in the angle (Li et al. 2019, AirFace).

    Args:
        num_classes: c.
        embedding_dim: d.
        scale: s.
        margin: m, radians in [0, π/2]. The logits are linear in θ also without a margin, so
            that 0 is not NormFace.
        options: see Head.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        scale: float = 64.0,
        margin: float = 0.45,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, embedding_dim, scale, **options)
        self.margin = check_range(margin, "margin", 0, math.pi / 2)

    def modify_target(self, rows: Rows) -> Tensor:
        """Return 1 - 2 (θ + m) / π."""
        return 1 - (find_angle(rows.target) + self.margin) * (2 / math.pi)

    def modify_negatives(self, rows: Rows, shifted: Tensor) -> Tensor:
        """Return 1 - 2 θ / π."""
        return 1 - find_angle(rows.cosine) * (2 / math.pi)
