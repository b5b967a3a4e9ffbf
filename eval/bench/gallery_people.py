"""People that never were, for the measurements of the watch list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facerec.gallery.gallery import Gallery
from facerec.gallery.vault import GalleryKey
from facerec.models.weights import ModelInfo


def make_people(people: int, dim: int, seed: int) -> tuple[list[str], NDArray[np.float32]]:
    """Return names and one random unit vector each, float32 (people, dim)."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((people, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [f"person {number:07d}" for number in range(people)], vectors


def open_gallery(folder: Path, dim: int, key: GalleryKey | None = None) -> Gallery:
    """Make an empty gallery for such vectors, encrypted with a key."""
    info = ModelInfo(name="synthetic", sha256="0" * 64, embedding_dim=dim)
    return Gallery.create(folder, info, threshold=0.5, key=key)
