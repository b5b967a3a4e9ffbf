"""Pictures of a protocol, each decoded, searched and embedded once, failures named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError
from facerec.data.sources import SourceItem
from facerec.detection import DetectedPicture, iter_pictures
from facerec.embedder import Embedder, embed_pictures
from facerec.io import sha256_bytes, sha256_file
from facerec.progress import Progress
from facerec.structures import Detector

if TYPE_CHECKING:
    from facerec.data.embedding_cache import EmbeddingCache

_SHARD = 512


@dataclass(frozen=True)
class EmbeddedPictures:
    """Embeddings of n pictures, one face each.

    Attributes:
        names: paths relative to the pictures' folder.
        vectors: float32 (n, d), unit norm; zeros where there is no face.
        norms: float32 (n,), raw norms; 0 where there is no face.
        failed: name -> why it has no embedding.
        computed: how many were embedded now and not taken from the cache.
    """

    names: list[str]
    vectors: NDArray[np.float32]
    norms: NDArray[np.float32]
    failed: dict[str, str] = field(default_factory=dict)
    computed: int = 0

    def made(self) -> NDArray[np.bool_]:
        """Return which pictures have an embedding, bool (n,)."""
        return np.array([name not in self.failed for name in self.names], np.bool_)


def embed_files(
    images: Path,
    names: Sequence[str],
    detector: Detector,
    embedder: Embedder,
    *,
    policy: str = "central",
    cache: Path | None = None,
    detector_hash: str = "",
) -> EmbeddedPictures:
    """Return the embedding of the one face that a policy takes from each picture.

    Args:
        images: the pictures' folder.
        names: paths below it, each once.
        detector: finds the faces.
        embedder: embeds them.
        policy: "central" or "largest".
        cache: folder that keeps embeddings, keyed by the files' content, the model, the detector
            and the policy; None keeps nothing.
        detector_hash: from `facerec.detection.hash_detector`, the detector's name when empty.

    Raises:
        InputError: the policy takes several faces.
    """
    if policy == "all":
        raise InputError("a comparison needs one face a picture: policy must be central or largest")
    vectors = np.zeros((len(names), embedder.dim), np.float32)
    norms = np.zeros(len(names), np.float32)
    failed: dict[str, str] = {}
    items = [SourceItem(images / name, name) for name in names]
    ids = [""] * len(names)
    store = None
    todo = list(range(len(names)))
    if cache is not None:
        store = _open_cache(cache, detector_hash or detector.name, embedder, policy)
        ids = [f"{sha256_file(item.path)[:16]}-0" for item in items]
        known = store.has(ids)
        hits = np.flatnonzero(known)
        vectors[hits], norms[hits] = store.load([ids[i] for i in hits])
        todo = [int(i) for i in np.flatnonzero(~known)]

    with Progress("embed", len(todo), "pictures") as progress:
        pictures = iter_pictures((items[i] for i in todo), detector, policy)
        found = embed_pictures(embedder, _note_failures(pictures, failed, progress.advance))
        waiting: list[int] = []
        for position, (picture, embeddings) in zip(todo, found, strict=True):
            if picture.reason:
                continue
            vectors[position], norms[position] = embeddings.vectors[0], embeddings.norms[0]
            waiting.append(position)
            if len(waiting) == _SHARD:
                _keep(store, ids, waiting, vectors, norms)
                waiting = []
        _keep(store, ids, waiting, vectors, norms)
    computed = len(todo) - len(failed)
    for row in np.flatnonzero(norms == 0).tolist():
        failed.setdefault(names[row], "no direction: embedding of norm 0")
    return EmbeddedPictures(list(names), vectors, norms, failed, computed)


def _keep(
    store: EmbeddingCache | None,
    ids: list[str],
    positions: list[int],
    vectors: NDArray[np.float32],
    norms: NDArray[np.float32],
) -> None:
    # Two files of the same content have one id.
    fresh = {ids[i]: i for i in positions}
    if store is not None and fresh:
        rows = list(fresh.values())
        store.append(list(fresh), vectors[rows], norms[rows])


def _note_failures(
    pictures: Iterator[DetectedPicture], failed: dict[str, str], advance: Callable[[], None]
) -> Iterator[DetectedPicture]:
    for picture in pictures:
        if picture.reason:
            failed[picture.item.key] = picture.reason
        advance()
        yield picture


def _open_cache(folder: Path, key: str, embedder: Embedder, policy: str) -> EmbeddingCache:
    from facerec.data.embedding_cache import EmbeddingCache

    way = sha256_bytes(f"{key} {policy}".encode())[:16]
    return EmbeddingCache(folder / way, embedder.model_hash, embedder.dim)
