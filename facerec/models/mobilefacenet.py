"""MobileFaceNet: the small backbone (METHODS section 10)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from facerec.checks import InputError, check_one_of, check_range
from facerec.registry import BACKBONES

_STRIDE = 16


def _round_channels(channels: int, width: float) -> int:
    """Return `channels * width` rounded to a multiple of 8, at least 8."""
    return max(8, int(channels * width / 8 + 0.5) * 8)


def _build_activation(name: str, channels: int) -> nn.Module:
    return nn.PReLU(channels) if name == "prelu" else nn.ReLU(inplace=True)


class ConvUnit(nn.Sequential):
    """Convolution without bias, batch norm and, unless linear, an activation.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: side of the kernel, pixels.
        stride: 1 or 2.
        padding: pixels on each side.
        groups: 1, or `inputs` for a depth-wise convolution.
        activation: "prelu", "relu", or None for a linear unit.
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
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        ]
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
        activation: "prelu" or "relu".
    """

    def __init__(
        self, inputs: int, outputs: int, expanded: int, stride: int, activation: str
    ) -> None:
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            ConvUnit(inputs, expanded, activation=activation),
            ConvUnit(
                expanded,
                expanded,
                kernel=3,
                stride=stride,
                padding=1,
                groups=expanded,
                activation=activation,
            ),
            ConvUnit(expanded, outputs),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        out: Tensor = self.body(features)
        return features + out if self.residual else out


@BACKBONES.register("mobilefacenet")
class MobileFaceNet(nn.Module):
    """MobileFaceNet (Chen et al. 2018): y1 is blocks (1, 4, 6, 2), y2 is (2, 8, 16, 4).

    A global depth-wise convolution over the last map, then a linear layer and batch norm.

    Args:
        embedding_dim: d.
        blocks: units after the stem and residual units of the three stages; a first entry of 1
            is a plain depth-wise convolution, more are residual bottlenecks.
        width: multiplier of every channel count, rounded to multiples of 8.
        input_size: side of the square input, pixels; 112 ends in a 7x7 map, 56 in 4x4.
        activation: "prelu", or "relu", which runtimes fuse into the convolution.

    Raises:
        InputError: an argument out of range.
    """

    def __init__(
        self,
        embedding_dim: int = 512,
        blocks: Sequence[int] = (1, 4, 6, 2),
        width: float = 1.0,
        input_size: int = 112,
        activation: str = "prelu",
    ) -> None:
        super().__init__()
        counts = list(blocks) if isinstance(blocks, (list, tuple)) else []
        whole = [isinstance(count, int) and count >= 0 for count in counts]
        if whole != [True] * 4 or blocks[0] < 1:
            raise InputError(f"blocks must be four counts, the first at least 1, got {blocks!r}")
        check_range(width, "width", 0.1, 8)
        check_range(embedding_dim, "embedding_dim", 2, 8192)
        check_range(input_size, "input_size", 32, 512)
        check_one_of(activation, "activation", ("prelu", "relu"))
        self.embedding_dim = embedding_dim
        self.input_size = input_size
        narrow, middle, wide, top = (_round_channels(c, width) for c in (64, 128, 256, 512))
        self.stem = ConvUnit(3, narrow, kernel=3, stride=2, padding=1, activation=activation)
        self.stages = nn.Sequential(
            self._build_first(blocks[0], narrow, activation),
            Bottleneck(narrow, narrow, middle, 2, activation),
            *(Bottleneck(narrow, narrow, middle, 1, activation) for _ in range(blocks[1])),
            Bottleneck(narrow, middle, wide, 2, activation),
            *(Bottleneck(middle, middle, wide, 1, activation) for _ in range(blocks[2])),
            Bottleneck(middle, middle, top, 2, activation),
            *(Bottleneck(middle, middle, wide, 1, activation) for _ in range(blocks[3])),
        )
        self.top = ConvUnit(middle, top, activation=activation)
        last = math.ceil(input_size / _STRIDE)
        self.pool = ConvUnit(top, top, kernel=last, groups=top)
        self.project = nn.Linear(top, embedding_dim, bias=False)
        self.norm = nn.BatchNorm1d(embedding_dim)
        _initialise(self)

    @staticmethod
    def _build_first(count: int, narrow: int, activation: str) -> nn.Module:
        if count == 1:
            return ConvUnit(
                narrow, narrow, kernel=3, padding=1, groups=narrow, activation=activation
            )
        # y2's first stage expands by 1 (64 channels inside), not by 2 as the later ones.
        return nn.Sequential(
            *(Bottleneck(narrow, narrow, narrow, 1, activation) for _ in range(count))
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, 3, s, s) in [-1, 1] to embeddings (n, embedding_dim), any norm."""
        features = self.top(self.stages(self.stem(images)))
        embeddings: Tensor = self.norm(self.project(self.pool(features).flatten(1)))
        return embeddings


def _initialise(model: nn.Module) -> None:
    """Kaiming fan-out for convolutions and linear layers; batch norm at identity."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
