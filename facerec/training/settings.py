"""What a training recipe may say: every key, its unit and its default (see configs/base.yaml)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from facerec.config import Section

NEUTRAL = frozenset(
    {"run", "device", "log_every_steps", "checkpoint_every_steps", "tensorboard"}
    | {"data.workers", "data.cache"}
)
"""Dotted keys that may differ when a run is resumed."""


class DataSettings(Section):
    """Where the chips are and how they are varied."""

    manifest: Path | None = None
    folder: Path | None = None
    split: str = ""
    min_images: int = Field(default=2, ge=1)
    flip: float = Field(default=0.5, ge=0, le=1)
    brightness: float = Field(default=0.2, ge=0, le=1)
    contrast: float = Field(default=0.2, ge=0, le=1)
    blur: float = Field(default=0.1, ge=0, le=1)
    cache: Literal["auto", "ram", "none"] = "auto"
    workers: int = Field(default=2, ge=0, le=64)


class BackboneSettings(Section):
    """A backbone's name and constructor arguments."""

    name: str = "mobilefacenet"
    args: dict[str, Any] = Field(default_factory=dict)


class HeadSettings(Section):
    """A head's name and parameters."""

    name: str = "arcface"
    params: dict[str, Any] = Field(default_factory=dict)


class OptimSettings(Section):
    """Stochastic gradient descent and its learning rate."""

    lr: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    clip_norm: float = Field(default=5.0, ge=0)
    warmup_epochs: float = Field(default=1.0, ge=0)
    schedule: Literal["cosine", "step"] = "cosine"
    final_lr_share: float = Field(default=0.01, ge=0, le=1)
    milestones_epochs: tuple[float, ...] = (10, 18, 22)
    gamma: float = Field(default=0.1, gt=0, le=1)


class ValidationSettings(Section):
    """People the net never trains on, scored while it runs."""

    holdout: float = Field(default=0.0, ge=0, le=0.9)
    manifest: Path | None = None
    folder: Path | None = None
    split: str = ""
    max_images: int = Field(default=2000, ge=4)
    far: float = Field(default=1e-3, gt=0, lt=1)
    every_epochs: int = Field(default=1, ge=1)


class TrainSettings(Section):
    """A whole recipe."""

    run: Path | None = None
    name: str = ""
    licence: str = "unknown"
    training_data: str = "unknown"
    seed: int = Field(default=0, ge=0)
    epochs: int = Field(default=25, ge=1)
    batch_size: int = Field(default=128, ge=2)
    device: str = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = True
    log_every_steps: int = Field(default=20, ge=1)
    checkpoint_every_steps: int = Field(default=500, ge=1)
    tensorboard: bool = True
    artefact_from: Literal["best", "last"] = "best"
    data: DataSettings = Field(default_factory=DataSettings)
    backbone: BackboneSettings = Field(default_factory=BackboneSettings)
    head: HeadSettings = Field(default_factory=HeadSettings)
    optim: OptimSettings = Field(default_factory=OptimSettings)
    validation: ValidationSettings = Field(default_factory=ValidationSettings)


def find_change(old: dict[str, Any], new: dict[str, Any], parent: str = "") -> str | None:
    """Return the first dotted key whose value differs and matters on resuming, or None.

    Args:
        old: resolved settings of the run folder, plain values.
        new: resolved settings now.
        parent: dotted key of both, for the recursion.
    """
    for key in dict.fromkeys([*old, *new]):
        dotted = f"{parent}.{key}" if parent else key
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            if found := find_change(before, after, dotted):
                return found
        elif dotted not in NEUTRAL and before != after:
            return dotted
    return None
