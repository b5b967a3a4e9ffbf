"""MobileFaceNet: the small backbone (METHODS section 10)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from facerec.checks import InputError, check_one_of, check_range
from facerec.models.arguments import check_sizes
from facerec.models.attention import build_attention, check_attention
from facerec.registry import BACKBONES

Y1 = (1, 4, 6, 2)
Y2 = (2, 8, 16, 4)

_STRIDE = 16


def _round_channels(channels: int, width: float) -> int:
    """Return `channels * width` rounded to a multiple of 8, at least 8."""
    return max(8, int(channels * width / 8 + 0.5) * 8)


def _build_activation(name: str, channels: int) -> nn.Module:
    return nn.PReLU(channels) if name == "prelu" else nn.ReLU(inplace=True)


@dataclass(frozen=True)
class Style:
    """What all units of a net have in common.

    Attributes:
        activation: "prelu", or "relu", which runtimes fuse into the convolution.
        attention: in every bottleneck: "none", "se", "se_x2" or "cbam"; see `build_attention`.
        reduction: of the attention.

    Raises:
        InputError: an unknown name, or a reduction out of range.
    """

    activation: str = "prelu"
    attention: str = "none"
    reduction: int = 4

    def __post_init__(self) -> None:
        check_one_of(self.activation, "activation", ("prelu", "relu"))
        check_attention(self.attention, self.reduction)


@dataclass(frozen=True)
class Plan:
    """Channels and units of a MobileFaceNet.

    Attributes:
        blocks: units of the first stage, and residual units of the three others.
        narrow: channels after the stem, the first and the second stage.
        middle: channels after the third and the last stage.
        expanded: channels inside the units of the first, second and third stage and inside the
            last one that halves the map; residual units of the last stage are as the third's.
        top: channels of the last map.
        first_groups: the first stage is one 3x3 convolution in so many groups; None: it is
            `blocks[0]` residual units.
    """

    blocks: tuple[int, int, int, int]
    narrow: int
    middle: int
    expanded: tuple[int, int, int, int]
    top: int
    first_groups: int | None


def check_blocks(blocks: Sequence[int]) -> tuple[int, int, int, int]:
    """Return four counts of units, the first at least 1, else raise InputError."""
    counts = list(blocks) if isinstance(blocks, (list, tuple)) else []
    whole = [isinstance(count, int) and count >= 0 for count in counts]
    if whole != [True] * 4 or counts[0] < 1:
        raise InputError(f"blocks must be four counts, the first at least 1, got {blocks!r}")
    first, second, third, last = counts
    return first, second, third, last


class StridedDepthwise(nn.Conv2d):
    """A depth-wise convolution with a stride, never in bfloat16 on a CPU.

    oneDNN has only its reference code for the gradient of this one by bfloat16 inputs: fifteen
    times the time of float32, more than all other convolutions of a MobileFaceNet together.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Map (n, c, h, w) to (n, c, h / stride, w / stride), float32 where autocast is off."""
        if features.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(features)
        with torch.autocast("cpu", enabled=False):
            return super().forward(features.float())


class ConvUnit(nn.Sequential):
    """Convolution without bias, batch norm and, where given, attention and an activation.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: side of the kernel, pixels.
        stride: 1 or 2.
        padding: pixels on each side.
        groups: 1, or `inputs` for a depth-wise convolution.
        activation: "prelu", "relu", or None for a linear unit.
        attend: attention between batch norm and activation.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        activation: str | None = None,
        attend: nn.Module | None = None,
    ) -> None:
        conv = StridedDepthwise if stride > 1 and groups > 1 else nn.Conv2d
        layers: list[nn.Module] = [
            conv(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        if attend is not None:
            layers.append(attend)
        if activation is not None:
            layers.append(_build_activation(activation, outputs))
        super().__init__(*layers)


class Bottleneck(nn.Module):
    """1x1 expansion, 3x3 depth-wise, linear 1x1 projection; residual where shapes allow.

    Args:
        inputs: channels in.
        outputs: channels out.
        expanded: channels between the two 1x1 convolutions.
        stride: 1 or 2; the residual is added at stride 1 with equal widths.
        style: activation and attention; the attention sees the expanded channels.
    """

    def __init__(self, inputs: int, outputs: int, expanded: int, stride: int, style: Style) -> None:
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            ConvUnit(inputs, expanded, activation=style.activation),
            ConvUnit(
                expanded,
                expanded,
                kernel=3,
                stride=stride,
                padding=1,
                groups=expanded,
                activation=style.activation,
                attend=build_attention(style.attention, expanded, style.reduction),
            ),
            ConvUnit(expanded, outputs),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        out: Tensor = self.body(features)
        return features + out if self.residual else out


class PlannedMobileFaceNet(nn.Module):
    """A MobileFaceNet of any plan: what all variants have in common.

    Stem, four stages, 1x1 convolution, a global depth-wise convolution over the last map, then a
    linear layer without bias and batch norm.

    Args:
        plan: channels and units.
        embedding_dim: d.
        input_size: side of the square input, pixels; 112 ends in a 7x7 map, 56 in 4x4.
        style: activation and attention.

    Raises:
        InputError: an argument out of range.
    """

    def __init__(self, plan: Plan, embedding_dim: int, input_size: int, style: Style) -> None:
        super().__init__()
        self.embedding_dim, self.input_size = check_sizes(embedding_dim, input_size)
        _, second, third, last = plan.blocks
        narrow, middle, (_, small, wide, widest) = plan.narrow, plan.middle, plan.expanded
        act = style.activation
        self.stem = ConvUnit(3, narrow, kernel=3, stride=2, padding=1, activation=act)
        self.stages = nn.Sequential(
            _build_first(plan, style),
            Bottleneck(narrow, narrow, small, 2, style),
            *(Bottleneck(narrow, narrow, small, 1, style) for _ in range(second)),
            Bottleneck(narrow, middle, wide, 2, style),
            *(Bottleneck(middle, middle, wide, 1, style) for _ in range(third)),
            Bottleneck(middle, middle, widest, 2, style),
            *(Bottleneck(middle, middle, wide, 1, style) for _ in range(last)),
        )
        self.top = ConvUnit(middle, plan.top, activation=act)
        side = math.ceil(self.input_size / _STRIDE)
        self.pool = ConvUnit(plan.top, plan.top, kernel=side, groups=plan.top)
        self.project = nn.Linear(plan.top, self.embedding_dim, bias=False)
        self.norm = nn.BatchNorm1d(self.embedding_dim)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, 3, s, s) in [-1, 1] to embeddings (n, embedding_dim), any norm."""
        features = self.top(self.stages(self.stem(images)))
        embeddings: Tensor = self.norm(self.project(self.pool(features).flatten(1)))
        return embeddings


def _build_first(plan: Plan, style: Style) -> nn.Module:
    narrow, groups = plan.narrow, plan.first_groups
    if groups is not None:
        act = style.activation
        return ConvUnit(narrow, narrow, kernel=3, padding=1, groups=groups, activation=act)
    units = (Bottleneck(narrow, narrow, plan.expanded[0], 1, style) for _ in range(plan.blocks[0]))
    return nn.Sequential(*units)


def _initialise(model: nn.Module) -> None:
    """Kaiming fan-out for convolutions and linear layers; batch norm at identity."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")


@BACKBONES.register("mobilefacenet")
class MobileFaceNet(PlannedMobileFaceNet):
    """MobileFaceNet (Chen et al. 2018): y1 is blocks (1, 4, 6, 2), y2 is (2, 8, 16, 4).

    Args:
        embedding_dim: d.
        blocks: units after the stem and residual units of the three stages; a first entry of 1
            is a plain depth-wise convolution, more are residual bottlenecks.
        width: multiplier of every channel count, rounded to multiples of 8.
        input_size: side of the square input, pixels; 112 ends in a 7x7 map, 56 in 4x4.
        activation: "prelu", or "relu", which runtimes fuse into the convolution.
        attention: in every bottleneck, between the depth-wise convolution's batch norm and its
            activation: "none", "se", "se_x2" or "cbam"; see `build_attention`.
        reduction: of the attention, 1 to 256.

    Raises:
        InputError: an argument out of range.
    """

    def __init__(
        self,
        embedding_dim: int = 512,
        blocks: Sequence[int] = Y1,
        width: float = 1.0,
        input_size: int = 112,
        activation: str = "prelu",
        attention: str = "none",
        reduction: int = 4,
    ) -> None:
        counts = check_blocks(blocks)
        check_range(width, "width", 0.1, 8)
        narrow, middle, wide, top = (_round_channels(c, width) for c in (64, 128, 256, 512))
        plan = Plan(
            blocks=counts,
            narrow=narrow,
            middle=middle,
            # The first stage expands by 1 (64 channels inside), not by 2 as the later ones.
            expanded=(narrow, middle, wide, top),
            top=top,
            first_groups=narrow if counts[0] == 1 else None,
        )
        super().__init__(plan, embedding_dim, input_size, Style(activation, attention, reduction))


def _register(name: str, blocks: tuple[int, int, int, int]) -> Callable[..., MobileFaceNet]:
    def build(
        embedding_dim: int = 512,
        width: float = 1.0,
        input_size: int = 112,
        activation: str = "prelu",
        attention: str = "none",
        reduction: int = 4,
    ) -> MobileFaceNet:
        return MobileFaceNet(
            embedding_dim, blocks, width, input_size, activation, attention, reduction
        )

    build.__doc__ = f"Return a MobileFaceNet of blocks {blocks}; see there for the arguments."
    BACKBONES.register(name)(build)
    return build


mobilefacenet_y1 = _register("mobilefacenet_y1", Y1)
mobilefacenet_y2 = _register("mobilefacenet_y2", Y2)
