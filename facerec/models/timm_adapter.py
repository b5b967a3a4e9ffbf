"""Any classifier of the optional package timm as a face backbone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from facerec.checks import InputError, nearest, require
from facerec.models.arguments import check_sizes
from facerec.registry import BACKBONES


@BACKBONES.register("timm")
class TimmBackbone(nn.Module):
    """A timm net up to its pooled features, a linear layer without bias, and batch norm.

    The net starts from random weights: nothing is downloaded. timm is imported when one is built.

    Args:
        model: a name from `timm.list_models()`, such as "resnet18" or "vit_small_patch16_224".
        embedding_dim: d.
        input_size: side of the square input, pixels; nets made for one size, as most vision
            transformers are, are built for this one, whatever their name says.
        pretrained: must be False.

    Raises:
        MissingPackageError: timm is not installed.
        InputError: no such model, pretrained weights asked for, or a net that cannot take
            pictures of that size.
    """

    def __init__(
        self,
        model: str = "",
        embedding_dim: int = 512,
        input_size: int = 112,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.embedding_dim, self.input_size = check_sizes(embedding_dim, input_size)
        if pretrained:
            raise InputError(
                "pretrained must be False: a backbone downloads nothing; train it, or start from "
                "a checkpoint of your own"
            )
        timm: Any = require("timm")
        _check_name(timm, model)
        self.trunk, width = _build_trunk(timm, model, self.input_size)
        self.project = nn.Linear(width, self.embedding_dim, bias=False)
        self.norm = nn.BatchNorm1d(self.embedding_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, 3, s, s) in [-1, 1] to embeddings (n, embedding_dim), any norm."""
        embeddings: Tensor = self.norm(self.project(self.trunk(images)))
        return embeddings


def _check_name(timm: Any, model: str) -> None:
    # Names such as hf-hub:... would be looked up online.
    if not isinstance(model, str) or ":" in model or not timm.is_model(model):
        raise InputError(
            f"model must be a name from timm.list_models(), got {model!r}"
            f"{nearest(str(model), timm.list_models())}"
        )


def _build_trunk(timm: Any, model: str, size: int) -> tuple[nn.Module, int]:
    """Return the net without its classifier, in training mode, and the width of its features."""
    config = timm.get_pretrained_cfg(model, allow_unregistered=True)
    fixed = bool(getattr(config, "fixed_input_size", False))
    problems: list[str] = []
    # Some of the fixed ones take no size and resize what they get.
    for options in ({"img_size": size}, {}) if fixed else ({},):
        try:
            trunk: nn.Module = timm.create_model(model, pretrained=False, num_classes=0, **options)
            shape = _read_shape(trunk, size)
        except Exception as error:  # asserts, shapes and types: each family complains in its way
            problems.append(" ".join(f"{type(error).__name__} {error}".split())[:200])
            continue
        if len(shape) == 2:
            return trunk.train(), shape[1]
        problems.append(f"features of shape {shape}, not one vector a picture")
    raise InputError(
        f"the timm model {model!r} cannot be built for pictures of {size}x{size}: {problems[0]}; "
        "choose another model or input_size"
    )


def _read_shape(trunk: nn.Module, size: int) -> tuple[int, ...]:
    """Return the shape of the features of one picture; names and attributes do not say it."""
    weight = next(trunk.parameters())
    with torch.no_grad():
        features = trunk.eval()(torch.zeros(1, 3, size, size, device=weight.device))
    return tuple(features.shape)
