"""How protocols get their embeddings: a model over pictures, or stored features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.protocol_embedding import CropDetector, ListedFaces, embed_listed
from eval.protocol_files import read_features
from eval.protocol_results import Draws
from facerec.checks import InputError
from facerec.detection import build_detector, hash_detector
from facerec.embedder import Embedder
from facerec.io import sha256_file
from facerec.structures import Detector


@dataclass(frozen=True)
class ProtocolSettings:
    """How faces become embeddings, and how intervals are made.

    Attributes:
        model: store name, artefact folder or .onnx file; None where `features` are given.
        features: stored embeddings, a row a face in the protocol's order; None with a model.
        runtime: "auto", "onnxruntime", "openvino" or "torch".
        batch_size: faces a call of the model.
        flip: average each face with its mirror image.
        cache: folder of kept embeddings, None for none.
        resamples: of people, for 95 % intervals; 0 for none.
        seed: of the resamples.

    Raises:
        InputError: neither a model nor features, or both; resamples negative or 1; a negative
            seed.
    """

    model: str | None = None
    features: Path | None = None
    runtime: str = "auto"
    batch_size: int = 32
    flip: bool = False
    cache: Path | None = None
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.model is None) == (self.features is None):
            raise InputError("give a model or stored features, one of the two")
        if self.resamples < 0 or self.resamples == 1:
            raise InputError(f"resamples must be 0 or at least 2, got {self.resamples}")
        if self.seed < 0:
            raise InputError(f"seed must not be negative, got {self.seed}")

    def draws(self) -> Draws:
        """Return the arguments of every protocol's intervals."""
        return {"resamples": self.resamples, "seed": self.seed}


@dataclass(frozen=True)
class ProtocolRun:
    """What a protocol gave.

    Attributes:
        result: plain JSON values, the keys of `--json`.
        hashes: name of an input -> sha256.
    """

    result: dict[str, Any]
    hashes: dict[str, str]


def embed_or_read(
    settings: ProtocolSettings, images: Path, names: Sequence[str], detector: Detector, key: str
) -> tuple[ListedFaces, dict[str, Any], dict[str, str]]:
    """Return the embeddings of listed pictures, what made them, and hashes of the inputs.

    Args:
        settings: a model to embed with, or stored features, a row a name.
        images: the pictures' folder.
        names: paths below it.
        detector: finds the faces.
        key: the detector's hash.

    Raises:
        InputError: features with another number of rows, or a model that cannot be loaded.
    """
    if settings.features is not None:
        vectors, norms = read_features(settings.features)
        if len(vectors) != len(names):
            raise InputError(
                f"{settings.features} must hold a row a listed face, {len(names)}, got "
                f"{len(vectors)}"
            )
        failed = {names[row]: "no feature" for row in np.flatnonzero(norms == 0).tolist()}
        means = {"features": settings.features.name}
        hashes = {"features": sha256_file(settings.features)}
        return ListedFaces(vectors, norms, failed), means, hashes
    embedder = build_embedder(settings)
    faces = embed_listed(images, names, detector, embedder, cache=settings.cache, detector_hash=key)
    return faces, describe_model(embedder, settings), {"model": embedder.info.sha256}


def build_embedder(settings: ProtocolSettings) -> Embedder:
    """Return the model of the settings.

    Raises:
        InputError: no model, or one that cannot be loaded.
    """
    if settings.model is None:
        raise InputError("this needs a model, not features")
    return Embedder(settings.model, settings.runtime, settings.batch_size, settings.flip)


def choose_detector(spec: str) -> tuple[Detector, str]:
    """Return a detector and the hash that its embeddings are kept under.

    Args:
        spec: "crop", or see `facerec.detection.build_detector`.
    """
    detector: Detector = CropDetector() if spec == "crop" else build_detector(spec)
    return detector, hash_detector("aligned" if spec == "crop" else spec, detector)


def describe_model(embedder: Embedder, settings: ProtocolSettings) -> dict[str, Any]:
    """Return what made the embeddings, plain JSON values."""
    return {
        "model": embedder.info.name,
        "model_sha256": embedder.info.sha256,
        "runtime": embedder.runtime_name,
        "flip": settings.flip,
    }
