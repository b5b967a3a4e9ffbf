"""Aligned chips -> unit embeddings, by whichever runtime is there."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_chips
from facerec.models.runtimes import build_session
from facerec.models.store import resolve_model
from facerec.models.weights import Artefact, ModelInfo
from facerec.progress import Progress

_LEAST_NORM = 1e-12
"""Below it a raw embedding has no direction and counts as 0."""

_STANDARD = ("rgb", 127.5, 127.5, 112, 112)


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of n faces.

    Attributes:
        vectors: float32 (n, d), unit norm; a row whose raw norm is 0 is 0.
        norms: float32 (n,), the norms before they were made 1.
    """

    vectors: NDArray[np.float32]
    norms: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.vectors)


class HasChips(Protocol):
    """A picture after detection, as `facerec.detection.iter_pictures` gives it."""

    @property
    def chips(self) -> NDArray[np.uint8]:
        """Aligned chips, uint8 RGB (n, 112, 112, 3)."""
        ...


class Cache(Protocol):
    """What `embed_cached` needs of `facerec.data.embedding_cache.EmbeddingCache`."""

    model_hash: str

    def has(self, ids: Sequence[str]) -> NDArray[np.bool_]:
        """Return for each id whether its embedding is there."""
        ...

    def append(
        self, ids: Sequence[str], vectors: NDArray[np.float32], norms: NDArray[np.float32]
    ) -> None:
        """Keep embeddings, durable on return."""
        ...

    def load(self, ids: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return vectors (n, d) and norms (n,) of ids that are there."""
        ...


P = TypeVar("P", bound=HasChips)


class Embedder:
    """A recogniser with its preprocessing.

    Args:
        model: a store name, an artefact folder, a bare .onnx file, or an Artefact.
        runtime: "auto" (the fastest that is installed), "onnxruntime", "openvino" or "torch".
        batch_size: chips a call.
        flip: average the raw embedding of each chip with that of its mirror image.
        threads: cores to use, all that this process may use when None.

    Attributes:
        info: what model.json says.
        dim: d.
        model_hash: 64 hex digits over everything that decides an embedding: the weights' own
            sha256 for the standard preprocessing without flip, else a hash over it, the
            preprocessing and flip. Key caches and galleries by it.
        runtime_name: the runtime taken.
        note: why the batch stayed fixed at one, "" otherwise; logged as a warning too.

    Raises:
        InputError: no such model, or one that contradicts its model.json.
    """

    def __init__(
        self,
        model: str | Path | Artefact,
        runtime: str = "auto",
        batch_size: int = 32,
        flip: bool = False,
        threads: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        artefact = model if isinstance(model, Artefact) else resolve_model(model)
        self.model = model.graph if isinstance(model, Artefact) else model
        self.info = artefact.info
        self.batch_size = batch_size
        self.flip = flip
        self._session = build_session(artefact, runtime, threads)
        self.runtime_name = self._session.name
        self.note = self._session.note
        if self.note:
            logging.getLogger(__name__).warning("%s: %s", self.info.name, self.note)
        self.model_hash = _hash_settings(artefact.info, flip)
        self.dim = self._measure_dim()

    def embed(self, chips: NDArray[np.uint8]) -> Embeddings:
        """Return the embeddings of aligned chips, uint8 RGB (n, 112, 112, 3); n may be 0.

        Raises:
            InputError: chips of another form, or a model that gives NaN or infinity.
        """
        check_chips(chips)
        raw = np.empty((len(chips), self.dim), np.float32)
        for start in range(0, len(chips), self.batch_size):
            part = chips[start : start + self.batch_size]
            out = self._session.run(self._preprocess(part))
            if self.flip:
                mirrored = np.ascontiguousarray(part[:, :, ::-1])
                out = (out + self._session.run(self._preprocess(mirrored))) * np.float32(0.5)
            raw[start : start + len(part)] = out
        return self._normalise(raw)

    def _normalise(self, raw: NDArray[np.float32]) -> Embeddings:
        finite = np.isfinite(raw).all(axis=1)
        if not finite.all():
            row = int(np.flatnonzero(~finite)[0])
            raise InputError(
                f"{self.info.name} gives NaN or infinity for chip {row}; its weights are unusable"
            )
        norms = np.linalg.norm(raw.astype(np.float64), axis=1)
        norms[norms < _LEAST_NORM] = 0
        vectors = np.zeros_like(raw)
        np.divide(raw, norms[:, None], out=vectors, where=norms[:, None] > 0, casting="same_kind")
        return Embeddings(vectors, norms.astype(np.float32))

    def _preprocess(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return chips as the network wants them, float32 (n, 3, h, w)."""
        info = self.info
        blob = cv2.dnn.blobFromImages(
            list(self._resize(chips)),
            scalefactor=1 / info.std,
            mean=(info.mean,) * 3,
            swapRB=info.channel_order == "bgr",
        )
        return np.asarray(blob, np.float32)

    def _resize(self, chips: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
        size = (self.info.input_width, self.info.input_height)
        for chip in chips:
            if chip.shape[1::-1] == size:
                yield chip
            else:
                yield cv2.resize(chip, size, interpolation=cv2.INTER_AREA).astype(np.uint8)

    def _measure_dim(self) -> int:
        shape = (1, 3, self.info.input_height, self.info.input_width)
        out = self._session.run(np.zeros(shape, np.float32))
        if out.ndim != 2 or len(out) != 1:
            raise InputError(f"{self.info.name} must give (n, d), but gives {out.shape} for n = 1")
        dim = int(out.shape[1])
        if self.info.embedding_dim not in (None, dim):
            raise InputError(
                f"{self.info.name} gives {dim} dimensions, but its model.json says "
                f"{self.info.embedding_dim}; correct model.json"
            )
        return dim


def _hash_settings(info: ModelInfo, flip: bool) -> str:
    settings = (info.channel_order, info.mean, info.std, info.input_height, info.input_width)
    if settings == _STANDARD and not flip:
        return info.sha256
    return hashlib.sha256(repr((info.sha256, settings, flip)).encode()).hexdigest()


def embed_pictures(embedder: Embedder, pictures: Iterable[P]) -> Iterator[tuple[P, Embeddings]]:
    """Yield each picture with the embeddings of its chips, in order.

    Chips are batched across pictures. An iterator that reads ahead in threads
    (`facerec.detection.iter_pictures`) goes on decoding while a batch is computed.

    Args:
        embedder: the recogniser.
        pictures: anything with `.chips`; none, one or several each.
    """
    waiting: list[P] = []
    count = 0
    for picture in pictures:
        waiting.append(picture)
        count += len(picture.chips)
        if count >= embedder.batch_size:
            yield from _embed_group(embedder, waiting)
            waiting, count = [], 0
    yield from _embed_group(embedder, waiting)


def _embed_group(embedder: Embedder, pictures: list[P]) -> Iterator[tuple[P, Embeddings]]:
    if not pictures:
        return
    found = embedder.embed(np.concatenate([picture.chips for picture in pictures]))
    start = 0
    for picture in pictures:
        stop = start + len(picture.chips)
        yield picture, Embeddings(found.vectors[start:stop], found.norms[start:stop])
        start = stop


def embed_cached(
    embedder: Embedder,
    cache: Cache,
    ids: Sequence[str],
    load_chips: Callable[[list[int]], NDArray[np.uint8]],
    shard: int = 1024,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the embeddings of `ids`, computing only those that the cache lacks.

    What is computed is kept shard by shard, so a killed run goes on at the shard it was in.

    Args:
        embedder: the recogniser; the cache must be keyed by its `model_hash`.
        cache: where embeddings are kept.
        ids: one id an embedding; an id that comes twice is computed once.
        load_chips: positions in `ids` -> their chips, uint8 RGB (len, 112, 112, 3).
        shard: embeddings a shard.

    Returns:
        vectors, float32 (n, d), unit norm, and raw norms, float32 (n,), in the order of `ids`; a
        chip without direction has vector 0 and norm 0.

    Raises:
        InputError: the cache is another model's.
    """
    if cache.model_hash != embedder.model_hash:
        raise InputError(
            f"this cache is of the model {cache.model_hash[:16]}…, but the embedder is "
            f"{embedder.model_hash[:16]}… (weights, preprocessing and flip); open another cache"
        )
    known = cache.has(ids)
    missing: dict[str, int] = {}
    for position in np.flatnonzero(~known):
        missing.setdefault(ids[int(position)], int(position))
    positions = list(missing.values())
    if positions:
        with Progress("embed", len(positions), "faces") as progress:
            for start in range(0, len(positions), shard):
                part = positions[start : start + shard]
                found = embedder.embed(load_chips(part))
                cache.append([ids[i] for i in part], found.vectors, found.norms)
                progress.advance(len(part))
    return cache.load(ids)
