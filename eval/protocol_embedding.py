"""Embeddings of what protocols list: packed chips, pictures listed twice, bare crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.embedding import embed_files
from facerec.data.align import ARCFACE_TEMPLATE, CHIP_SIZE, align_faces
from facerec.data.bins import PairPack
from facerec.data.images import UnreadableImageError, decode_image
from facerec.detection import AlignedDetector
from facerec.embedder import Embedder
from facerec.io import sha256_bytes
from facerec.progress import Progress
from facerec.structures import Detector, Faces

_BATCH = 256


@dataclass(frozen=True)
class ListedFaces:
    """Embeddings of n listed faces.

    Attributes:
        vectors: float32 (n, d), unit norm; zeros for a failure.
        norms: float32 (n,); 0 for a failure.
        failed: name -> why it has no embedding.
    """

    vectors: NDArray[np.float32]
    norms: NDArray[np.float32]
    failed: dict[str, str]


class CropDetector:
    """Pictures that are tight crops of one face, without landmarks: SurvFace, TinyFace.

    The template's landmarks are laid into the middle square of the crop's longer side, so that the
    whole crop is kept and not stretched.
    """

    name = "crop"

    def detect(self, image: NDArray[np.uint8], key: str = "") -> Faces:
        """Return one face that fills a uint8 RGB picture (h, w, 3)."""
        height, width = image.shape[:2]
        side = max(height, width)
        corner = np.array([width - side, height - side], np.float32) / 2
        points = (ARCFACE_TEMPLATE + 0.5) * (side / CHIP_SIZE) - 0.5 + corner
        return Faces(
            np.array([[0, 0, width, height]], np.float32),
            points[None].astype(np.float32),
            np.ones(1, np.float32),
        )


def embed_listed(
    images: Path,
    names: Sequence[str],
    detector: Detector,
    embedder: Embedder,
    *,
    policy: str = "central",
    cache: Path | None = None,
    detector_hash: str = "",
) -> ListedFaces:
    """Return the embedding of each listed picture; one that is listed twice is embedded once.

    Args:
        images: the pictures' folder.
        names: paths below it. A missing one is a failure.
        detector: finds the faces.
        embedder: embeds them.
        policy: "central" or "largest".
        cache: folder that keeps embeddings, None for none.
        detector_hash: see `eval.embedding.embed_files`.
    """
    every, places = np.unique(np.asarray(names, np.str_), return_inverse=True)
    there = [name for name in every.tolist() if (images / name).is_file()]
    known = set(there)
    found = embed_files(
        images, there, detector, embedder, policy=policy, cache=cache, detector_hash=detector_hash
    )
    vectors = np.zeros((every.size, embedder.dim), np.float32)
    norms = np.zeros(every.size, np.float32)
    rows = np.searchsorted(every, np.asarray(there, np.str_))
    vectors[rows], norms[rows] = found.vectors, found.norms
    missing = {name: "no such file" for name in every.tolist() if name not in known}
    return ListedFaces(vectors[places], norms[places], {**missing, **found.failed})


def embed_pack(pack: PairPack, embedder: Embedder, name: str) -> ListedFaces:
    """Return the embedding of each chip of a verification pack.

    Args:
        pack: encoded square chips.
        embedder: embeds them.
        name: of the pack; a failure is named NAME#POSITION.
    """
    detector = AlignedDetector()
    count = len(pack.images)
    vectors, norms = np.zeros((count, embedder.dim), np.float32), np.zeros(count, np.float32)
    failed: dict[str, str] = {}
    with Progress("embed", count, "chips") as progress:
        for start in range(0, count, _BATCH):
            rows, chips = [], []
            for row in range(start, min(start + _BATCH, count)):
                key = f"{name}#{row}"
                try:
                    image = decode_image(pack.images[row], key)
                    chips.append(align_faces(image, detector.detect(image, key))[1])
                    rows.append(row)
                except UnreadableImageError as error:
                    failed[key] = error.reason
            if rows:
                found = embedder.embed(np.concatenate(chips))
                vectors[rows], norms[rows] = found.vectors, found.norms
            progress.advance(min(_BATCH, count - start))
    for row in np.flatnonzero(norms == 0).tolist():
        failed.setdefault(f"{name}#{row}", "no direction: embedding of norm 0")
    return ListedFaces(vectors, norms, failed)


def number_pictures(images: Sequence[bytes]) -> NDArray[np.int64]:
    """Return a number for each distinct content, int64 (n,): a picture packed twice is one."""
    digests = np.array([sha256_bytes(data) for data in images], np.str_)
    numbers: NDArray[np.int64] = np.unique(digests, return_inverse=True)[1].astype(np.int64)
    return numbers
