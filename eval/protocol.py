"""From files to figures: one call runs a whole verification."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.embedding import EmbeddedPictures, embed_files
from eval.pairs import identities_of, read_pairs
from eval.verify import Verification, thin_curve, verify_all_pairs, verify_pairs
from facerec.checks import InputError
from facerec.detection import build_detector, hash_detector
from facerec.embedder import Embedder
from facerec.io import sha256_file
from facerec.structures import Detector


@dataclass(frozen=True)
class VerifySettings:
    """How to verify.

    Attributes:
        policy: which face of a picture counts, "central" or "largest".
        flip: average each face with its mirror image.
        runtime: "auto", "onnxruntime", "openvino" or "torch".
        batch_size: faces a call of the model.
        all_pairs: also over all pairs of the pictures.
        resamples: of the subject bootstrap, 0 for no intervals.
        seed: of the bootstrap.
        cache: folder of kept embeddings, None for none.

    Raises:
        InputError: resamples is negative or 1.
    """

    policy: str = "central"
    flip: bool = False
    runtime: str = "auto"
    batch_size: int = 32
    all_pairs: bool = False
    resamples: int = 1000
    seed: int = 0
    cache: Path | None = None

    def __post_init__(self) -> None:
        if self.resamples < 0 or self.resamples == 1:
            raise InputError(f"resamples must be 0 or at least 2, got {self.resamples}")


@dataclass(frozen=True)
class VerifyRun:
    """What a verification gave.

    Attributes:
        result: plain JSON values, the keys of `--json`.
        pairs: figures and curves over the list.
        all_pairs: the same over all pairs, None when not asked for.
        hashes: name of an input -> sha256.
    """

    result: dict[str, Any]
    pairs: Verification
    all_pairs: Verification | None = None
    hashes: dict[str, str] = field(default_factory=dict)


def run_verify(
    pairs_file: Path,
    images: Path,
    model: str | Path,
    detector_spec: str,
    settings: VerifySettings | None = None,
) -> VerifyRun:
    """Return the figures of a model over a list of pairs.

    Args:
        pairs_file: see `eval.pairs.read_pairs`.
        images: the folder that the pairs' paths are relative to.
        model: store name, artefact folder or .onnx file.
        detector_spec: see `facerec.detection.build_detector`.
        settings: how to verify.

    Raises:
        InputError: anything wrong with the input, or no picture gave a face.
    """
    settings = settings or VerifySettings()
    if settings.seed < 0:
        raise InputError(f"seed must not be negative, got {settings.seed}")
    started = time.monotonic()
    pairs = read_pairs(pairs_file, images)
    names = pairs.images()
    if settings.all_pairs:
        identities_of(names)
    detector = build_detector(detector_spec)
    embedder = Embedder(model, settings.runtime, settings.batch_size, settings.flip)
    detector_hash = hash_detector(detector_spec, detector)
    pictures = embed_files(
        images,
        names,
        detector,
        embedder,
        policy=settings.policy,
        cache=settings.cache,
        detector_hash=detector_hash,
    )
    _check_faces(pictures)
    embedded = time.monotonic()
    listed = verify_pairs(pairs, pictures, resamples=settings.resamples, seed=settings.seed)
    every = verify_all_pairs(pictures) if settings.all_pairs else None
    scored = time.monotonic()
    result = {
        "task": "verify",
        "pairs_file": pairs.name,
        "embedded": len(names) - len(pictures.failed),
        "failures": len(pictures.failed),
        "failure_rule": "a pair with a failed picture scores -inf: rejected at every threshold",
        **listed.figures,
        **_describe_means(embedder, detector, settings),
        "seconds": {"embed": round(embedded - started, 2), "score": round(scored - embedded, 2)},
        "newly_embedded": pictures.computed,
        "failed_files": pictures.failed,
        "roc": _describe_curve(listed),
    }
    if every is not None:
        result["all_pairs"] = every.figures
    hashes = {"pairs": sha256_file(pairs_file), "model": embedder.info.sha256}
    return VerifyRun(result, listed, every, {**hashes, "detector": detector_hash})


def _check_faces(pictures: EmbeddedPictures) -> None:
    if len(pictures.failed) == len(pictures.names):
        name, reason = next(iter(pictures.failed.items()))
        raise InputError(
            f"none of {len(pictures.names)} pictures gave a face (first: {name}: {reason}); "
            "check --images and --detector"
        )


def _describe_means(
    embedder: Embedder, detector: Detector, settings: VerifySettings
) -> dict[str, Any]:
    return {
        "model": embedder.info.name,
        "model_sha256": embedder.info.sha256,
        "detector": detector.name,
        "policy": settings.policy,
        "flip": settings.flip,
        "runtime": embedder.runtime_name,
    }


def _describe_curve(found: Verification) -> dict[str, list[float]]:
    curve = thin_curve(found.curve)
    return {"far": curve.far.tolist(), "tar": curve.tar.tolist()}
