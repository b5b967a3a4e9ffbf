"""Wider and deeper MobileFaceNets of other code lines (METHODS section 10)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from facerec.checks import check_range, check_whole
from facerec.models.mobilefacenet import Plan, PlannedMobileFaceNet, Style, check_blocks
from facerec.registry import BACKBONES

_SCALED_BLOCKS = (1, 4, 8, 2)


@BACKBONES.register("mbf")
class WideMobileFaceNet(PlannedMobileFaceNet):
    """The MobileFaceNet of InsightFace's arcface_torch: wider between the units, not inside them.

    `scale` multiplies the channels that units pass on (64 and 128); those inside (128, 256, 512)
    and the last map (512) stay. The first stage is one 3x3 convolution in 64 groups, or residual
    units of 128 channels inside.

    Args:
        embedding_dim: d.
        blocks: units of the first stage and residual units of the three others; a first entry
            of 1 is the grouped convolution.
        scale: whole multiplier, 1 to 16.
        input_size: side of the square input, pixels.
        activation: "prelu" or "relu".
        attention: in every bottleneck: "none", "se", "se_x2" or "cbam"; see `build_attention`.
        reduction: of the attention, 1 to 256.

    Raises:
        InputError: an argument out of range.
    """

    def __init__(
        self,
        embedding_dim: int = 512,
        blocks: Sequence[int] = (1, 4, 6, 2),
        scale: int = 2,
        input_size: int = 112,
        activation: str = "prelu",
        attention: str = "none",
        reduction: int = 4,
    ) -> None:
        counts = check_blocks(blocks)
        factor = check_whole(scale, "scale", 1, 16)
        plan = Plan(
            blocks=counts,
            narrow=64 * factor,
            middle=128 * factor,
            expanded=(128, 128, 256, 512),
            top=512,
            first_groups=64 if counts[0] == 1 else None,
        )
        super().__init__(plan, embedding_dim, input_size, Style(activation, attention, reduction))


@BACKBONES.register("mbf_large")
def mbf_large(
    embedding_dim: int = 512,
    blocks: Sequence[int] = (2, 8, 12, 4),
    scale: int = 4,
    input_size: int = 112,
    activation: str = "prelu",
    attention: str = "none",
    reduction: int = 4,
) -> WideMobileFaceNet:
    """Return the large one of arcface_torch; see WideMobileFaceNet for the arguments."""
    return WideMobileFaceNet(
        embedding_dim, blocks, scale, input_size, activation, attention, reduction
    )


@BACKBONES.register("mobilefacenet_scaled")
class ScaledMobileFaceNet(PlannedMobileFaceNet):
    """MobileFaceNet by width and depth: the grid of luzai's entry to the LFR challenge (2019).

    The base is (1, 4, 8, 2) units, the first a residual unit too. Counts of units are rounded up,
    channels up to multiples of 8, all of them (`MobileFaceNet` rounds its channels to the
    nearest).

    Args:
        embedding_dim: d; `width` leaves it alone.
        width: multiplier of every channel count, 0.1 to 8.
        depth: multiplier of every count of units, 0.1 to 16.
        input_size: side of the square input, pixels.
        activation: "prelu" or "relu".
        attention: in every bottleneck: "none", "se", "se_x2" or "cbam"; see `build_attention`.
        reduction: of the attention, 1 to 256.

    Raises:
        InputError: an argument out of range.
    """

    def __init__(
        self,
        embedding_dim: int = 512,
        width: float = 1.0,
        depth: float = 1.0,
        input_size: int = 112,
        activation: str = "prelu",
        attention: str = "none",
        reduction: int = 4,
    ) -> None:
        check_range(width, "width", 0.1, 8)
        check_range(depth, "depth", 0.1, 16)
        # The bases are powers of two, times a float exact: nothing whole is rounded up.
        first, second, third, last = (math.ceil(count * depth) for count in _SCALED_BLOCKS)
        narrow, middle, wide, top = (math.ceil(c * width / 8) * 8 for c in (64, 128, 256, 512))
        plan = Plan(
            blocks=(first, second, third, last),
            narrow=narrow,
            middle=middle,
            expanded=(narrow, middle, wide, top),
            top=top,
            first_groups=None,
        )
        super().__init__(plan, embedding_dim, input_size, Style(activation, attention, reduction))
