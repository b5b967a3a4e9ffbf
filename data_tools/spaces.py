"""A model's view of a set: the embeddings of its rows and the graph of which lie near which."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_tools.embed_parts import embed_missing
from data_tools.round_rows import Usable
from data_tools.sets import SetFolder
from data_tools.workers import Crew
from facerec.checks import InputError
from facerec.data.embedding_cache import EmbeddingCache
from facerec.embedder import Embedder, embed_cached
from facerec.io import sha256_bytes

if TYPE_CHECKING:
    from data_tools.graph import Graph

NEIGHBOURS = 32


@dataclass(frozen=True)
class Embedded:
    """What a model says of the usable rows of a set.

    Attributes:
        vectors: float32 (n, d), unit norm; 0 where the norm is 0.
        norms: float32 (n,).
        model: the model's hash.
        name: the model's name.
        runtime: what computed it.
    """

    vectors: NDArray[np.float32]
    norms: NDArray[np.float32]
    model: str
    name: str
    runtime: str


def embed_rows(
    folder: SetFolder,
    manifest: pa.Table,
    usable: Usable,
    embedder: Embedder,
    crew: Crew | None = None,
) -> Embedded:
    """Return the embeddings of the usable rows, computing those that the set's cache lacks.

    Args:
        folder: of the set.
        manifest: all rows.
        usable: the rows wanted.
        embedder: the model.
        crew: who computes; this process when None.

    Raises:
        InputError: a chip is missing or damaged, or the model gives every chip a zero vector.
    """
    cache = EmbeddingCache(folder.embeddings, embedder.model_hash, embedder.dim)
    if crew is not None and (crew.ray is not None or crew.abreast > 1):
        embed_missing(folder, manifest, usable, embedder, cache, crew)
    chips = manifest["chip"].take(pa.array(usable.rows))

    def load(positions: list[int]) -> NDArray[np.uint8]:
        names = chips.take(pa.array(positions)).to_pylist()
        return np.stack([read_chip(folder.root / name) for name in names])

    vectors, norms = embed_cached(embedder, cache, usable.ids, load)
    if not norms.any():
        raise InputError(f"{embedder.info.name} gives every chip a zero vector; take another model")
    name, runtime = embedder.info.name, embedder.runtime_name
    return Embedded(vectors, norms, embedder.model_hash, name, runtime)


def connect_rows(
    folder: SetFolder, usable: Usable, embedded: Embedded, threads: int | None
) -> Graph:
    """Return the graph of the rows, from the set folder where it is there already."""
    from data_tools.graph import build_graph

    key = sha256_bytes("\n".join([embedded.model, *usable.ids]).encode())
    k = min(NEIGHBOURS, max(1, len(usable.ids) - 1))
    place = folder.root / "graphs" / embedded.model[:16]
    return build_graph(embedded.vectors, k, folder=place, key=key, threads=threads)


def read_chip(path: Path) -> NDArray[np.uint8]:
    """Return a chip of a set, uint8 RGB (112, 112, 3).

    Raises:
        InputError: it is missing or damaged.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None or image.shape != (112, 112, 3):
        raise InputError(f"chip {path} is missing or damaged; ingest the source into a new folder")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
