"""IResNet 18 to 200, plain or with attention: the large backbones (METHODS section 10)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from facerec.checks import check_range
from facerec.models.arguments import check_sizes
from facerec.models.attention import build_attention, check_attention
from facerec.registry import BACKBONES

UNITS: dict[int, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 14, 3),
    100: (3, 13, 30, 3),
    200: (6, 26, 60, 6),
}
_WIDTHS = (64, 128, 256, 512)
_STRIDE = 16


class ResidualUnit(nn.Module):
    """BN, conv3x3, BN, PReLU, conv3x3 (carrying the stride), BN, attention; plus the shortcut.

    Args:
        inputs: channels in.
        outputs: channels out.
        stride: of the second convolution; the shortcut is 1x1 + BN when it is 2 or the width
            changes, else the identity.
        attention: see `build_attention`; after the last batch norm, before the addition.
        reduction: of the attention.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        attention: str = "none",
        reduction: int = 16,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        attend = build_attention(attention, outputs, reduction)
        self.body = nn.Sequential(*layers, *([] if attend is None else [attend]))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, features: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        out: Tensor = self.body(features) + self.shortcut(features)
        return out


class IResNet(nn.Module):
    """Improved residual network of the ArcFace code line (Deng et al. 2019).

    Args:
        units: residual units of the four stages (64, 128, 256, 512 channels).
        embedding_dim: d.
        input_size: side of the square input, pixels.
        dropout: probability before the last linear layer, in [0, 0.9].
        attention: in every unit: "none", "se", "se_x2" or "cbam"; see `build_attention`.
        reduction: of the attention, 1 to 256.

    Raises:
        InputError: an argument out of range.
    """

    def __init__(
        self,
        units: Sequence[int],
        embedding_dim: int = 512,
        input_size: int = 112,
        dropout: float = 0.0,
        attention: str = "none",
        reduction: int = 16,
    ) -> None:
        super().__init__()
        self.embedding_dim, self.input_size = check_sizes(embedding_dim, input_size)
        check_range(dropout, "dropout", 0, 0.9)
        check_attention(attention, reduction)
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        )
        layers: list[nn.Module] = []
        inputs = 64
        for count, outputs in zip(units, _WIDTHS, strict=True):
            for position in range(count):
                stride = 2 if position == 0 else 1
                layers.append(ResidualUnit(inputs, outputs, stride, attention, reduction))
                inputs = outputs
        self.stages = nn.Sequential(*layers)
        last = math.ceil(self.input_size / _STRIDE)
        self.last_norm = nn.BatchNorm2d(inputs)
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(inputs * last * last, self.embedding_dim)
        self.norm = nn.BatchNorm1d(self.embedding_dim)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.1)
        # The scale of the embedding is the head's business: this weight stays at 1.
        self.norm.weight.requires_grad = False

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, 3, s, s) in [-1, 1] to embeddings (n, embedding_dim), any norm."""
        features = self.last_norm(self.stages(self.stem(images)))
        embeddings: Tensor = self.norm(self.project(self.dropout(features.flatten(1))))
        return embeddings


def _register(name: str, depth: int, attention: str = "none") -> Callable[..., IResNet]:
    def build(
        embedding_dim: int = 512,
        input_size: int = 112,
        dropout: float = 0.0,
        attention: str = attention,
        reduction: int = 16,
    ) -> IResNet:
        return IResNet(UNITS[depth], embedding_dim, input_size, dropout, attention, reduction)

    build.__doc__ = f"Return an IResNet-{depth}; see IResNet for the arguments."
    BACKBONES.register(name)(build)
    return build


iresnet18, iresnet34, iresnet50, iresnet100, iresnet200 = (
    _register(f"iresnet{depth}", depth) for depth in UNITS
)
irse50, irse100 = (_register(f"irse{depth}", depth, "se") for depth in (50, 100))
