"""Classification heads and auxiliary losses; importing this loads no torch."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from facerec.checks import check_known
from facerec.registry import HEADS

if TYPE_CHECKING:
    from facerec.losses.head import Head

_MODULES = ("margins", "adaptive", "quality", "negative")


def head_names() -> list[str]:
    """Return the names `build_head` knows, sorted; loads torch."""
    for module in _MODULES:
        importlib.import_module(f"{__name__}.{module}")
    return HEADS.names()


def build_head(name: str, *, num_classes: int, embedding_dim: int, **params: Any) -> Head:
    """Return a classification head with fresh class weights.

    Args:
        name: one of `head_names`: without a margin "softmax" (raw inner products) and
            "normface"; with a fixed one "cosface", "arcface", "combined", "sphereface",
            "arcsin", "liarcface" and "subcenter"; that find scale or margins themselves
            "adacos", "adamargin" and "adaptiveface"; led by the norm "adaface" and "magface";
            that change other classes too "negative_arcface", "sv_arcface", "mv_arcface",
            "curricularface", "arcnegface" and "npcface".
        num_classes: c.
        embedding_dim: d.
        params: the head's own arguments, such as `scale`, `margin`, `grad`.

    Raises:
        InputError: unknown name or parameter (with the nearest), or a value out of range.
    """
    head_names()
    build = HEADS.get(name)
    check_known(params, _list_parameters(build), f"head {name!r}")
    head: Head = build(num_classes=num_classes, embedding_dim=embedding_dim, **params)
    return head


def _list_parameters(build: Callable[..., Any]) -> list[str]:
    """Return what a head takes, the base's options after its own."""
    from facerec.losses.head import Head

    names = dict.fromkeys(
        [*inspect.signature(build).parameters, *inspect.signature(Head).parameters]
    )
    return [name for name in names if name not in _FIXED]


_FIXED = ("num_classes", "embedding_dim", "options")
