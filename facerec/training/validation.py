"""Scores a backbone on people it was not trained on: all pairs of chips, or listed ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from facerec.data.bins import ChipPairs
from facerec.data.chip_dataset import ChipDataset
from facerec.data.datasets import ChipSet
from facerec.metrics.verification import OperatingPoint, kfold_accuracy, tar_at_far
from facerec.training.state import prepare_images

_BATCH = 128
_FOLDS = 10


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

    @property
    def score(self) -> float:
        """Return what decides which weights are best: the TAR."""
        return self.tar

    def named(self) -> dict[str, float | int | bool]:
        """Return plain values for a log line."""
        return {f"validation_{name}": value for name, value in asdict(self).items()}


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
        vectors = embed_chips(backbone, self.dataset, self.indices, device, self.channels_last)
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


@dataclass(frozen=True)
class PairResult:
    """What one validation on a list of pairs found.

    Attributes:
        name: of the list.
        accuracy: mean over ten folds, the threshold chosen on the other nine.
        tar: at the target FAR over all pairs.
        pairs: comparisons made.
    """

    name: str
    accuracy: float
    tar: float
    pairs: int

    @property
    def score(self) -> float:
        """Return what decides which weights are best: the accuracy."""
        return self.accuracy

    def named(self) -> dict[str, float | int | bool]:
        """Return plain values for a log line."""
        values = {"accuracy": self.accuracy, "tar": self.tar, "pairs": self.pairs}
        return {f"validation_{self.name}_{key}": value for key, value in values.items()}


class PairValidator:
    """Scores a list of pairs, such as a `.bin` pack of LFW, CFP-FP or AgeDB.

    Args:
        name: in logs.
        pairs: chips and which of them are compared.
        input_size: of the backbone, pixels.
        far: target false accept rate.
        channels_last: memory layout of the pictures.
    """

    def __init__(
        self, name: str, pairs: ChipPairs, input_size: int, far: float, channels_last: bool
    ) -> None:
        self.name = name
        self.pairs = pairs
        self.dataset = ChipDataset(pairs.chips, input_size)
        self.far = far
        self.channels_last = channels_last

    def run(self, backbone: nn.Module, device: torch.device) -> PairResult:
        """Return the figures; the backbone's mode is left as it was."""
        rows = np.arange(len(self.dataset))
        vectors = embed_chips(backbone, self.dataset, rows, device, self.channels_last)
        pairs = self.pairs
        scores = np.einsum("nd,nd->n", vectors[pairs.first], vectors[pairs.second])
        # Packs list their folds one after the other, as LFW does: ten equal blocks.
        folds = np.arange(len(scores)) * _FOLDS // len(scores)
        return PairResult(
            self.name,
            kfold_accuracy(scores, pairs.same, folds).mean,
            tar_at_far(scores, pairs.same, [self.far])[0].tar,
            len(scores),
        )


def embed_chips(
    backbone: nn.Module,
    dataset: ChipDataset,
    rows: NDArray[np.int64],
    device: torch.device,
    channels_last: bool,
) -> NDArray[np.float32]:
    """Return unit embeddings float32 (n, d) of chips; the backbone's mode is left as it was."""
    parts = [
        nn.functional.normalize(found.float(), dim=1).cpu().numpy()
        for _, found in iter_embeddings(backbone, dataset, rows, device, channels_last)
    ]
    embedded: NDArray[np.float32] = np.concatenate(parts)
    return embedded


def iter_embeddings(
    backbone: nn.Module,
    dataset: ChipDataset,
    rows: NDArray[np.int64],
    device: torch.device,
    channels_last: bool,
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Yield (rows, raw embeddings (n, d) on the device) of chips, a batch at a time.

    The net is asked as it is used, without gradient; its mode is left as it was.
    """
    training = backbone.training
    backbone.eval()
    try:
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            images = np.stack([dataset.read(row) for row in part.tolist()])
            with torch.no_grad():
                found = backbone(prepare_images(images, device, channels_last))
            yield part, found
    finally:
        backbone.train(training)
