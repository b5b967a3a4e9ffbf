"""Attention inside convolutional units: squeeze-and-excitation and CBAM."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from facerec.checks import check_one_of, check_whole

ATTENTIONS = ("none", "se", "se_x2", "cbam")


class ChannelGate(nn.Module):
    """The two-layer perceptron that turns pooled channels into one logit a channel.

    Two linear layers without biases, PReLU between them (METHODS section 4).

    Args:
        channels: c.
        reduction: r; c / r values lie in between, at least one.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.squeeze = nn.Linear(channels, hidden, bias=False)
        self.activation = nn.PReLU(hidden)
        self.excite = nn.Linear(hidden, channels, bias=False)

    def forward(self, pooled: Tensor) -> Tensor:
        """Map (n, c) to logits (n, c)."""
        logits: Tensor = self.excite(self.activation(self.squeeze(pooled)))
        return logits


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018): each channel times a weight from all their means.

    Args:
        channels: c.
        reduction: r of the gate; 16 in IResNet, 4 in mobile nets.
        gain: the weight is gain * sigmoid(logit), in (0, gain). With 2 a gate whose logits are
            zero is the identity; with 1 it halves.
    """

    def __init__(self, channels: int, reduction: int, gain: float = 1.0) -> None:
        super().__init__()
        self.gate = ChannelGate(channels, reduction)
        self.gain = gain

    def forward(self, features: Tensor) -> Tensor:
        """Map (n, c, h, w) to the same shape."""
        weights = torch.sigmoid(self.gate(features.mean((2, 3)))) * self.gain
        return features * weights[:, :, None, None]


class CBAM(nn.Module):
    """Convolutional block attention module (Woo et al. 2018): channels first, then places.

    Channels: sigmoid of the gate's logits of means plus those of maxima. Places: sigmoid of a
    7x7 convolution with batch norm over the mean and the maximum of all channels.

    Args:
        channels: c.
        reduction: r of the gate.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.gate = ChannelGate(channels, reduction)
        self.places = nn.Sequential(nn.Conv2d(2, 1, 7, 1, 3, bias=False), nn.BatchNorm2d(1))

    def forward(self, features: Tensor) -> Tensor:
        """Map (n, c, h, w) to the same shape."""
        logits = self.gate(features.mean((2, 3))) + self.gate(features.amax((2, 3)))
        features = features * torch.sigmoid(logits)[:, :, None, None]
        seen = torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], 1)
        return features * torch.sigmoid(self.places(seen))


def check_attention(attention: str, reduction: int) -> None:
    """Raise InputError unless `build_attention` can take these."""
    check_one_of(attention, "attention", ATTENTIONS)
    check_whole(reduction, "reduction", 1, 256)


def build_attention(attention: str, channels: int, reduction: int) -> nn.Module | None:
    """Return the module called `attention` for `channels` channels, None for "none".

    Args:
        attention: "none", "se", "se_x2" (weights up to 2: identity where logits are zero) or
            "cbam".
        channels: of the maps it will see.
        reduction: r, 1 to 256.

    Raises:
        InputError: another name, or `reduction` out of range.
    """
    check_attention(attention, reduction)
    if attention == "none":
        return None
    if attention == "cbam":
        return CBAM(channels, reduction)
    return SqueezeExcite(channels, reduction, gain=2.0 if attention == "se_x2" else 1.0)
