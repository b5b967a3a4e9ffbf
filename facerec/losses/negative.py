"""Heads that also change the logits of other classes (METHODS sections 2.4 and 3)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from facerec.checks import check_one_of, check_range, check_whole
from facerec.losses.angles import add_angle, subtract_angle
from facerec.losses.batch_statistics import blend, mean_of_batch
from facerec.losses.head import Head, Rows
from facerec.losses.margins import ArcFace
from facerec.registry import HEADS


@HEADS.register("negative_arcface")
class NegativeArcFace(ArcFace):
    """ArcFace, and a margin the other way on the k most similar other classes (METHODS 3.1).

    Those get z_j = s cos(θ_j - m2), or s (cos θ_j + 1 - cos m2) where θ_j < m2. The boundary to
    them is θ_j - θ_y = m + m2, so that the two margins together do best at about 0.4 to 0.5
    radians. Which classes those are is not differentiated. Classes beyond `filter_cosine` are
    never among them.

    Args:
        num_classes: c.
        embedding_dim: d.
        scale: s.
        margin: m, radians in [0, π/2], on the own class.
        negative_margin: m2, radians in [0, π/2]; 0 is ArcFace.
        top_k: k, at least 1; all other classes where there are fewer.
        options: see Head.
    """

    whole_row = True

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        scale: float = 64.0,
        margin: float = 0.5,
        negative_margin: float = 0.2,
        top_k: int = 3,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, embedding_dim, scale, margin, **options)
        self.negative_margin = check_range(negative_margin, "negative_margin", 0, math.pi / 2)
        self.top_k = check_whole(top_k, "top_k", 1, 10**9)

    def modify_negatives(self, rows: Rows, shifted: Tensor) -> Tensor:
        """Return ψ(θ_j) in the k most similar other classes of each row."""
        barred = rows.target_mask()
        if self.filter_cosine is not None:
            barred = barred | (rows.cosine > self.filter_cosine)
        others = rows.cosine.detach().masked_fill(barred, -torch.inf)
        # Where fewer are left, barred columns are drawn too; what becomes of those is not read.
        nearest = others.topk(min(self.top_k, others.shape[1] - 1), dim=1).indices
        moved = subtract_angle(rows.cosine.gather(1, nearest), self.negative_margin)
        return rows.cosine.scatter(1, nearest, moved)


class _HardNegatives(ArcFace):
    """ArcFace that changes other classes nearer than the own one with its margin: c_j > z_y / s."""

    def modify_negatives(self, rows: Rows, shifted: Tensor) -> Tensor:
        """Return what `harden` makes of hard negatives, and the others unchanged."""
        return torch.where(rows.cosine > shifted, self.harden(rows.cosine), rows.cosine)

    def harden(self, cosine: Tensor) -> Tensor:
        """Return what takes the place of cos θ_j (n, c) where class j is a hard negative."""
        raise NotImplementedError


@HEADS.register("sv_arcface")
class SVArcFace(_HardNegatives):
    """Hard negatives get z_j = s (c_j + (t - 1) (c_j + 1)) (Wang et al. 2018, SV-Softmax).

    Args:
        num_classes: c.
        embedding_dim: d.
        scale: s.
        margin: m, radians in [0, π/2].
        t: at least 1, up to 5; 1 is ArcFace.
        options: see Head.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        scale: float = 64.0,
        margin: float = 0.5,
        t: float = 1.2,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, embedding_dim, scale, margin, **options)
        self.t = check_range(t, "t", 1, 5)

    def harden(self, cosine: Tensor) -> Tensor:
        """Return c + (t - 1) (c + 1)."""
        return cosine + (self.t - 1) * (cosine + 1)


@HEADS.register("mv_arcface")
class MVArcFace(_HardNegatives):
    """Hard negatives get z_j = s ((t + 1) c_j + t) or s (c_j + t) (Wang et al. 2020, MV-Softmax).

    Args:
        num_classes: c.
        embedding_dim: d.
        scale: s.
        margin: m, radians in [0, π/2].
        t: in [0, 4]; 0 is ArcFace.
        mode: "adaptive" for (t + 1) c_j + t, "fixed" for c_j + t.
        options: see Head.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        scale: float = 64.0,
        margin: float = 0.5,
        t: float = 0.12,
        mode: str = "adaptive",
        **options: Any,
    ) -> None:
        super().__init__(num_classes, embedding_dim, scale, margin, **options)
        self.t = check_range(t, "t", 0, 4)
        self.mode = check_one_of(mode, "mode", ("adaptive", "fixed"))

    def harden(self, cosine: Tensor) -> Tensor:
        """Return (t + 1) c + t, or c + t."""
        return (self.t + 1) * cosine + self.t if self.mode == "adaptive" else cosine + self.t


@HEADS.register("curricularface")
class CurricularFace(_HardNegatives):
    """Hard negatives get z_j = s c_j (t + c_j) (Huang et al. 2020; METHODS 2.4).

    t follows the mean cosine of samples with their own class, before the margin: at first hard
    negatives count less than their cosine says, later more. There is no t that leaves all of
    them as they are.

    Args:
        num_classes: c.
        embedding_dim: d.
        scale: s.
        margin: m, radians in [0, π/2].
        t: start value of the running mean, in [-1, 1].
        decay: share of the running mean that each training batch leaves, in [0, 1].
        options: see Head.

    Attributes:
        t: float32 scalar buffer.
    """

    t: Tensor

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        scale: float = 64.0,
        margin: float = 0.5,
        t: float = 0.0,
        decay: float = 0.99,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, embedding_dim, scale, margin, **options)
        self.decay = check_range(decay, "decay", 0, 1)
        start = float(check_range(t, "t", -1, 1))
        self.register_buffer("t", torch.tensor(start, dtype=torch.float32))

    def observe(self, rows: Rows) -> None:
        """Move t towards the mean target cosine of the batch, of all ranks."""
        mean, count = mean_of_batch(rows.target)
        blend(self.t, mean, self.decay, count > 0)

    def harden(self, cosine: Tensor) -> Tensor:
        """Return c (t + c)."""
        return cosine * (self.t + cosine)


@HEADS.register("arcnegface")
class ArcNegFace(ArcFace):
    """Every other class gets z_j = s (w_j (c_j + 1) - 1) (Liu et al. 2019; METHODS 3.3).

    The weight w_j = alpha exp(-(c_j - z_y / s)² / sigma) is largest for classes as near as the own
    one with its margin; z_y is constant in it. There is no neutral setting.

    Args:
        num_classes: c.
        embedding_dim: d.
        scale: s.
        margin: m, radians in [0, π/2].
        alpha: in [0.1, 10].
        sigma: in [0.01, 100]; the paper writes it as twice a square.
        options: see Head.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        scale: float = 64.0,
        margin: float = 0.5,
        alpha: float = 1.2,
        sigma: float = 2.0,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, embedding_dim, scale, margin, **options)
        self.alpha = check_range(alpha, "alpha", 0.1, 10)
        self.sigma = check_range(sigma, "sigma", 0.01, 100)

    def modify_negatives(self, rows: Rows, shifted: Tensor) -> Tensor:
        """Return w (c + 1) - 1."""
        distance = rows.cosine - shifted.detach()
        weight = self.alpha * torch.exp(-distance.square() / self.sigma)
        return weight * (rows.cosine + 1) - 1


@HEADS.register("npcface")
class NPCFace(Head):
    """The margin grows with the hard negatives, which get z_j = s (t c_j + a) (METHODS 3.4).

    A class is a hard negative of a row where c_j > cos(θ_y + m0). The row's own margin is
    m = m0 + m1 * (mean cosine of its hard negatives), 0 at least, and not differentiated
    (Zeng et al. 2020).

    Args:
        num_classes: c.
        embedding_dim: d.
        scale: s.
        margin: m0, radians in [0, π/2].
        growth: m1, radians in [0, π/2]; m0 + m1 at most π/2.
        t: in [0.1, 5].
        a: in [-1, 2].
        options: see Head.
    """

    whole_row = True

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        scale: float = 64.0,
        margin: float = 0.4,
        growth: float = 0.2,
        t: float = 1.1,
        a: float = 0.2,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, embedding_dim, scale, **options)
        self.margin = check_range(margin, "margin", 0, math.pi / 2)
        self.growth = check_range(growth, "growth", 0, math.pi / 2 - margin)
        self.t = check_range(t, "t", 0.1, 5)
        self.a = check_range(a, "a", -1, 2)

    def modify_target(self, rows: Rows) -> Tensor:
        """Return cos(θ + m)."""
        with torch.no_grad():
            hard = self._find_hard(rows)
            total = torch.where(hard, rows.cosine, 0.0).sum(dim=1, keepdim=True)
            mean = total / hard.sum(dim=1, keepdim=True).clamp_min(1)
            margin = (self.margin + self.growth * mean).clamp(0, math.pi / 2)
        return add_angle(rows.target, margin)

    def modify_negatives(self, rows: Rows, shifted: Tensor) -> Tensor:
        """Return t c + a for hard negatives."""
        return torch.where(self._find_hard(rows), self.t * rows.cosine + self.a, rows.cosine)

    def _find_hard(self, rows: Rows) -> Tensor:
        """Return bool (n, c)."""
        bound = add_angle(rows.target.detach(), self.margin)
        return (rows.cosine > bound) & ~rows.target_mask()
