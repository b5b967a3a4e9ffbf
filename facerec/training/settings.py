"""What a training recipe may say: every key, its unit and its default (see configs/base.yaml)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from facerec.config import Section

NEUTRAL = frozenset(
    {"run", "device", "log_every_steps", "checkpoint_every_steps", "tensorboard"}
    | {"data.workers", "data.cache"}
)
"""Dotted keys that may differ when a run is resumed."""


class SamplerSettings(Section):
    """The order in which chips are shown."""

    name: str = "shuffle"
    params: dict[str, Any] = Field(default_factory=dict)


class DegradeSettings(Section):
    """Surveillance degradation of the chips, and its curriculum."""

    preset: Literal["none", "surveillance", "document"] = "none"
    severity: float = Field(default=0.5, ge=0, le=1)
    params: dict[str, Any] = Field(default_factory=dict)


class DataSettings(Section):
    """Where the chips are and how they are varied."""

    manifest: Path | None = None
    folder: Path | None = None
    records: Path | None = None
    tars: Path | None = None
    split: str = ""
    exclude: Path | None = None
    label_noise: float = Field(default=0.0, ge=0, lt=1)
    sampler: SamplerSettings = Field(default_factory=SamplerSettings)
    degrade: DegradeSettings = Field(default_factory=DegradeSettings)
    photometric: dict[str, Any] = Field(default_factory=dict)
    max_corrupt: int = Field(default=100, ge=0)
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
    """A head's name and parameters, and how many of its classes take part in a step."""

    name: str = "arcface"
    params: dict[str, Any] = Field(default_factory=dict)
    partial: dict[str, Any] = Field(default_factory=dict)


class InitSettings(Section):
    """Where the weights come from before the first step."""

    artefact: Path | None = None
    head: Literal["random", "centroids"] = "random"


class MiningSettings(Section):
    """Which rows of a batch teach: the hard ones."""

    name: Literal["none", "ohem", "importance"] = "none"
    keep: float = Field(default=0.8, gt=0, le=1)
    presample: float = Field(default=2.0, gt=1, le=8)


class NoiseSettings(Section):
    """Training on labels of which some are wrong."""

    name: Literal["none", "coteaching", "comining", "mutual"] = "none"
    tau: Annotated[float, Field(ge=0, le=0.9)] | Literal["auto"] = "auto"
    schedule: Literal["linear", "growing"] = "linear"
    mode: Literal["plain", "disagreement", "either_wrong"] = "plain"
    gradual_epochs: float = Field(default=4.0, gt=0)
    warmup_epochs: float = Field(default=2.0, ge=0)
    constant_batch: bool = True
    floor_per_identity: int = Field(default=0, ge=0)
    mutual_weight: float = Field(default=0.0, ge=0)
    temperature: float = Field(default=32.0, gt=0)


class CenterSettings(Section):
    """Center loss."""

    weight: float = Field(default=0.0, ge=0)
    alpha: float = Field(default=0.5, gt=0, le=1)


class TripletSettings(Section):
    """Triplet loss inside a batch."""

    weight: float = Field(default=0.0, ge=0)
    kind: Literal["batch_hard", "soft_weighted"] = "batch_hard"
    margin: float | None = Field(default=0.3, ge=0, le=2)


class DistillSettings(Section):
    """Learning from a teacher's embeddings."""

    teacher: str = ""
    cache: Path | None = None
    weight: float = Field(default=0.0, ge=0)
    kind: Literal["cosine", "l2", "relational", "logits"] = "cosine"
    temperature: float = Field(default=24.0, gt=0)


class LossSettings(Section):
    """What is added to the head's own loss, each with its weight; 0 leaves it out."""

    center: CenterSettings = Field(default_factory=CenterSettings)
    triplet: TripletSettings = Field(default_factory=TripletSettings)
    distill: DistillSettings = Field(default_factory=DistillSettings)


class UnlabelledSettings(Section):
    """Faces of unknown people, pushed away from every known one (UIR)."""

    folder: Path | None = None
    manifest: Path | None = None
    weight: float = Field(default=0.1, ge=0)
    form: Literal["log", "released"] = "log"
    rows: int = Field(default=32, ge=1)
    start_epochs: float = Field(default=2.0, ge=0)
    refresh_epochs: int = Field(default=1, ge=1)
    quantile: float = Field(default=0.1, gt=0, lt=1)
    ceiling: float = Field(default=0.5, gt=0, le=1)


class AverageSettings(Section):
    """Weights averaged over steps, which are what is scored and exported."""

    kind: Literal["none", "ema", "swa"] = "none"
    decay: float = Field(default=0.999, gt=0, lt=1)
    start_share: float = Field(default=0.5, ge=0, lt=1)
    recalibrate_batches: int = Field(default=50, ge=0)


class OptimSettings(Section):
    """Stochastic gradient descent and its learning rate."""

    lr: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    accumulate: int = Field(default=1, ge=1)
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
    bins: tuple[Path, ...] = ()
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
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    channels_last: bool = True
    compile: Literal["auto", "always", "never"] = "auto"
    log_every_steps: int = Field(default=20, ge=1)
    checkpoint_every_steps: int = Field(default=500, ge=1)
    tensorboard: bool = True
    artefact_from: Literal["best", "last"] = "best"
    data: DataSettings = Field(default_factory=DataSettings)
    backbone: BackboneSettings = Field(default_factory=BackboneSettings)
    head: HeadSettings = Field(default_factory=HeadSettings)
    init: InitSettings = Field(default_factory=InitSettings)
    mining: MiningSettings = Field(default_factory=MiningSettings)
    noise: NoiseSettings = Field(default_factory=NoiseSettings)
    loss: LossSettings = Field(default_factory=LossSettings)
    unlabelled: UnlabelledSettings = Field(default_factory=UnlabelledSettings)
    average: AverageSettings = Field(default_factory=AverageSettings)
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
