"""Small galleries for the tests of what happens to them."""

import numpy as np

from facerec.gallery.gallery import Gallery
from facerec.models.weights import ModelInfo

DIM = 32


def toy(folder, dim=DIM, **more):
    """A new gallery of a model that is not there."""
    info = ModelInfo(name="toy", sha256="a" * 64, embedding_dim=dim)
    return Gallery.create(folder, info, operator="meg", **more)


def faces(count, seed=0, dim=DIM):
    """Random unit vectors."""
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def ones(count):
    return np.ones(count, np.float32)


def holds(folder, value):
    """Whether the bytes stand in any file of a folder."""
    return any(value in path.read_bytes() for path in folder.rglob("*") if path.is_file())
