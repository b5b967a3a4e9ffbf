"""Backbones, their cost, and the artefacts that carry them; importing this loads no torch."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from facerec.checks import check_known
from facerec.registry import BACKBONES

if TYPE_CHECKING:
    from torch import nn

_MODULES = ("mobilefacenet", "mobilefacenet_variants", "iresnet", "timm_adapter")


def backbone_names() -> list[str]:
    """Return the names `build_backbone` knows, sorted; loads torch."""
    for module in _MODULES:
        importlib.import_module(f"{__name__}.{module}")
    return BACKBONES.names()


def build_backbone(name: str, **args: Any) -> nn.Module:
    """Return a fresh backbone: float32 (n, 3, s, s) -> float32 (n, embedding_dim), not normalised.

    Every backbone has the attributes `embedding_dim` and `input_size` (s, pixels).

    Args:
        name: a registered name, such as "mobilefacenet" or "iresnet18".
        args: the constructor arguments of that backbone.

    Raises:
        InputError: unknown name or argument (with the nearest), or a value out of range.
    """
    backbone_names()
    build = BACKBONES.get(name)
    check_known(args, list(inspect.signature(build).parameters), f"backbone {name!r}")
    backbone: nn.Module = build(**args)
    return backbone
