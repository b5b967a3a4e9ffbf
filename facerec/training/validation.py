"""Scores a backbone on people it was not trained on: all pairs of their chips."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from facerec.data.datasets import ChipSet
from facerec.data.loader import ChipDataset
from facerec.metrics.verification import OperatingPoint, tar_at_far
from facerec.training.state import prepare_images

_BATCH = 128


@dataclass(frozen=True)
class ValidationResult:
    """What one validation found.

    Attributes:
        tar: share of same-person pairs accepted at the threshold.
        far: target share of other pairs accepted.
        threshold: cosine.
        supported: whether the FAR rests on at least ten possible false accepts.
        pairs: comparisons made.
        images: chips embedded.
        identities: people among them.
    """

    tar: float
    far: float
    threshold: float
    supported: bool
    pairs: int
    images: int
    identities: int

    def as_dict(self) -> dict[str, float | int | bool]:
        """Return plain values for a log line."""
        return asdict(self)


class Validator:
    """Embeds chips of known people and compares all pairs.

    Args:
        chips: at least two identities, one of them with two chips.
        input_size: of the backbone, pixels.
        far: target false accept rate.
        max_images: more chips than this are thinned to every k-th, which keeps the identities
            mixed alike.
        channels_last: memory layout of the pictures.
    """

    def __init__(
        self, chips: ChipSet, input_size: int, far: float, max_images: int, channels_last: bool
    ) -> None:
        self.dataset = ChipDataset(chips, input_size)
        self.far = far
        self.channels_last = channels_last
        step = -(-len(chips) // max_images)
        self.indices = np.arange(0, len(chips), step)

    def run(self, backbone: nn.Module, device: torch.device) -> ValidationResult:
        """Return the figures; the backbone's mode is left as it was."""
        vectors = self._embed(backbone, device)
        labels = self.dataset.chips.labels[self.indices]
        first, second = np.triu_indices(len(vectors), 1)
        scores = (vectors @ vectors.T)[first, second]
        same = labels[first] == labels[second]
        point: OperatingPoint = tar_at_far(scores, same, [self.far])[0]
        return ValidationResult(
            tar=point.tar,
            far=self.far,
            threshold=point.threshold,
            supported=point.supported,
            pairs=len(scores),
            images=len(vectors),
            identities=len(np.unique(labels)),
        )

    def _embed(self, backbone: nn.Module, device: torch.device) -> NDArray[np.float32]:
        training = backbone.training
        backbone.eval()
        parts = []
        try:
            with torch.inference_mode():
                for start in range(0, len(self.indices), _BATCH):
                    rows = self.indices[start : start + _BATCH].tolist()
                    images = np.stack([self.dataset.read(row) for row in rows])
                    batch = prepare_images(images, device, self.channels_last)
                    unit = nn.functional.normalize(backbone(batch).float(), dim=1)
                    parts.append(unit.cpu().numpy())
        finally:
            backbone.train(training)
        embedded: NDArray[np.float32] = np.concatenate(parts)
        return embedded
