"""A teacher's embeddings of every chip of a set: computed once, then looked up by position.

They are kept as one file a teacher and set: `NAME.npy`, (n, d) float16 or float32 in the order of
the set, mapped into memory, with a card `NAME.json` beside it that says of which chips they are.
Such a pair can be carried to a machine that has no runtime for the teacher.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from facerec import dist
from facerec.checks import InputError, check_range
from facerec.data.chip_dataset import read_square
from facerec.data.chip_set import ChipSet
from facerec.data.embedding_cache import EmbeddingCache
from facerec.data.images import UnreadableImageError
from facerec.io import atomic_path, read_json, sha256_bytes, write_json
from facerec.progress import Progress

if TYPE_CHECKING:
    from facerec.embedder import Embedder

_FORMAT = "facerec-teacher-1"
_SIDE = 112
_SAMPLE = 64
_SLICE = 512
_THREADS = 4
_KEY_DIGITS = 16
_ID_DIGITS = 32
_LEAST_NORM = 1e-12


class TeacherEmbeddings:
    """The unit embeddings of a set's chips by one teacher.

    Args:
        values: (n, d) float16 or float32, raw or unit, in the order of the set; a row of zeros
            is a chip of which the teacher says nothing.
        name: of the teacher, for messages.

    Attributes:
        embedding_dim: d.

    Raises:
        InputError: values of another shape or type.
    """

    def __init__(self, values: NDArray[Any], name: str) -> None:
        if values.ndim != 2 or values.dtype not in (np.float16, np.float32):
            raise InputError(
                f"teacher embeddings of {name} must be (n, d) float16 or float32, "
                f"got {values.shape} {values.dtype}"
            )
        self.name = name
        self.embedding_dim = int(values.shape[1])
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def lookup(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return float32 (k, d), unit norm or 0, of the chips at `indices` (k,) int64.

        Raises:
            InputError: a position outside the set, or a row that holds NaN or infinity.
        """
        wanted = np.asarray(indices)
        if wanted.size and not (wanted.min() >= 0 and wanted.max() < len(self)):
            raise InputError(
                f"chip positions must lie in [0, {len(self)}), got {wanted.min()} to "
                f"{wanted.max()}; are the teacher's embeddings of this set?"
            )
        rows: NDArray[np.float32] = self._values[wanted].astype(np.float32)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        if not np.isfinite(norms).all():
            row = int(wanted[np.flatnonzero(~np.isfinite(norms[:, 0]))[0]])
            raise InputError(
                f"teacher embeddings of {self.name} must be finite, but that of chip {row} holds "
                "NaN or infinity; compute them again"
            )
        rows /= np.maximum(norms, _LEAST_NORM)
        return rows


def load_teacher(
    source: str | Path,
    chips: ChipSet,
    cache_folder: Path,
    batch_size: int = 64,
    *,
    runtime: str = "auto",
    threads: int | None = None,
    max_corrupt: int = 100,
) -> TeacherEmbeddings:
    """Return a teacher's embeddings of all chips, computing what is not there yet.

    What is computed is kept by the content of each chip's file, so that a killed run goes on
    where it was and another set of the same chips costs no more than reading them. Under torchrun
    every process embeds its share, and all have to call this.

    Args:
        source: a .npy file that `save_teacher` wrote, or a teacher to be run: a store name, an
            artefact folder or a .onnx file. Chips are brought to the teacher's own input size.
        chips: the set.
        cache_folder: where embeddings are kept; several sets and teachers may share it.
        batch_size: chips a call of the teacher.
        runtime: of the teacher, see `facerec.embedder.Embedder`.
        threads: cores for the teacher, all when None.
        max_corrupt: largest number of chips that cannot be read, or to which the teacher gives no
            direction; their rows are 0.

    Raises:
        InputError: no such teacher, a .npy file of other chips, or more corrupt chips.
    """
    check_range(max_corrupt, "max_corrupt", 0, 10**9)
    path = Path(source).expanduser()
    if path.suffix == ".npy":
        return open_teacher(path, chips)
    # Only here: a machine that gets a .npy file needs no runtime.
    from facerec.embedder import Embedder

    embedder = Embedder(source, runtime, batch_size, threads=threads)
    cache_folder = Path(cache_folder)
    key = f"{embedder.model_hash[:_KEY_DIGITS]}-{chips.digest()[:_KEY_DIGITS]}"
    path = cache_folder / f"{key}.npy"
    if _is_anywhere(bool(_find_fault(path, chips))):
        _compute(embedder, chips, cache_folder, path, max_corrupt)
    return open_teacher(path, chips)


def open_teacher(path: Path, chips: ChipSet) -> TeacherEmbeddings:
    """Return the embeddings in a .npy file, mapped into memory.

    Raises:
        InputError: the file or its card is missing or unreadable, or belongs to other chips.
    """
    fault = _find_fault(path, chips)
    if fault:
        raise InputError(fault)
    return TeacherEmbeddings(np.load(path, mmap_mode="r", allow_pickle=False), path.name)


def save_teacher(path: Path, vectors: NDArray[Any], chips: ChipSet, model: str) -> None:
    """Write embeddings and their card, all or nothing, for `load_teacher` on another machine.

    Args:
        path: a .npy file; the card is put beside it as .json.
        vectors: (n, d) float16 or float32, raw or unit, in the order of `chips`.
        chips: the set.
        model: what made them, for whoever reads the card.

    Raises:
        InputError: another suffix, or vectors that do not fit the set.
    """
    if path.suffix != ".npy":
        raise InputError(f"teacher embeddings go into a .npy file, got {path.name}")
    found = TeacherEmbeddings(np.asarray(vectors), model)
    if len(found) != len(chips):
        raise InputError(f"the set has {len(chips)} chips, but got {len(found)} embeddings")
    shape = (len(found), found.embedding_dim)
    _write(path, chips, model, shape, vectors.dtype, iter([vectors]))


def _find_fault(path: Path, chips: ChipSet) -> str:
    """Return why a file does not hold the embeddings of these chips, "" when it does."""
    card_path = path.with_suffix(".json")
    for one in (path, card_path):
        if not one.is_file():
            return f"{one} does not exist; teacher embeddings are a .npy file with a .json card"
    try:
        card = read_json(card_path)
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (InputError, OSError, ValueError, EOFError) as error:
        return f"{path} or its card cannot be read ({error}); compute it again"
    if not isinstance(card, dict) or card.get("format") != _FORMAT:
        return f"{card_path} must be a card of format {_FORMAT}; write it with save_teacher"
    if card.get("shape") != list(values.shape) or len(values) != len(chips):
        return (
            f"{path} must hold the {len(chips)} chips of the set, got {values.shape} and a card "
            f"that says {card.get('shape')}; compute it for this set"
        )
    for key, value, what in (
        ("chips", chips.digest(), "file names or labels"),
        ("sample", _hash_sample(chips), "files"),
    ):
        if card.get(key) != value:
            return (
                f"{path} is of another chip set: the {what} differ "
                f"({key} {str(card.get(key))[:12]}… instead of {value[:12]}…); "
                "compute it for this set"
            )
    return ""


def _compute(
    embedder: Embedder, chips: ChipSet, cache_folder: Path, path: Path, max_corrupt: int
) -> None:
    """Embed all chips and write `path`; each process takes a share of what is missing."""
    cache = EmbeddingCache(cache_folder, embedder.model_hash, embedder.dim)
    if dist.world_size() > 1:
        own = range(0, len(chips), _SLICE)[dist.rank() :: dist.world_size()]
        for _ in _iter_vectors(embedder, cache, chips, own):
            pass
        dist.barrier()
        cache.refresh()
    if dist.local_rank() == 0:
        every = range(0, len(chips), _SLICE)
        vectors = _iter_vectors(embedder, cache, chips, every)
        parts = _count_corrupt(vectors, max_corrupt, embedder.info.name)
        shape = (len(chips), embedder.dim)
        _write(path, chips, embedder.info.name, shape, np.dtype(np.float16), parts)
    dist.barrier()


def _iter_vectors(
    embedder: Embedder, cache: EmbeddingCache, chips: ChipSet, starts: range
) -> Iterator[NDArray[np.float32]]:
    """Yield the unit vectors (k, d) of the chips from each start on, a slice at a time."""
    slices = [range(start, min(start + _SLICE, len(chips))) for start in starts]
    with (
        ThreadPoolExecutor(min(_THREADS, dist.cpu_count()), "teacher") as pool,
        Progress("teacher", sum(map(len, slices)), "chips") as progress,
    ):
        for rows in slices:
            yield _embed_rows(embedder, cache, chips, rows, pool)
            progress.advance(len(rows))


def _count_corrupt(
    parts: Iterator[NDArray[np.float32]], max_corrupt: int, name: str
) -> Iterator[NDArray[np.float32]]:
    """Yield the parts, raising InputError when more rows than allowed are 0."""
    corrupt = 0
    for vectors in parts:
        corrupt += int((~vectors.any(axis=1)).sum())
        if corrupt > max_corrupt:
            raise InputError(
                f"more than {max_corrupt} chips cannot be read or get no direction from {name}; "
                "clean the set or raise data.max_corrupt"
            )
        yield vectors
    if corrupt:
        logging.getLogger(__name__).warning(
            "%d chips have no teacher: unreadable or without direction", corrupt
        )


def _embed_rows(
    embedder: Embedder,
    cache: EmbeddingCache,
    chips: ChipSet,
    rows: range,
    pool: ThreadPoolExecutor,
) -> NDArray[np.float32]:
    """Return unit vectors (len(rows), d), 0 for corrupt chips; new ones are kept in the cache.

    Not `embed_cached`: a training set's result does not fit memory, and its corrupt chips are
    passed over.
    """
    files = list(pool.map(lambda row: _read_bytes(chips, row), rows))
    ids = [sha256_bytes(data)[:_ID_DIGITS] for data in files]
    fresh = {ids[i]: int(i) for i in np.flatnonzero(~cache.has(ids))}
    chip_of = pool.map(lambda i: _decode(files[i], chips.name(rows[i])), fresh.values())
    read = {key: chip for key, chip in zip(fresh, chip_of, strict=True) if chip is not None}
    if read:
        found = embedder.embed(np.stack(list(read.values())))
        cache.append(list(read), found.vectors, found.norms)
    vectors = np.zeros((len(rows), embedder.dim), np.float32)
    there = cache.has(ids)
    vectors[there] = cache.load([key for key, here in zip(ids, there, strict=True) if here])[0]
    return vectors


def _write(
    path: Path,
    chips: ChipSet,
    model: str,
    shape: tuple[int, int],
    dtype: np.dtype[Any],
    parts: Iterator[NDArray[Any]],
) -> None:
    """Write the values part by part, then the card, without which they do not count."""
    card = path.with_suffix(".json")
    card.unlink(missing_ok=True)
    with atomic_path(path) as temporary:
        values = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
        start = 0
        for part in parts:
            values[start : start + len(part)] = part
            start += len(part)
        values.flush()
        del values
    write_json(
        card,
        {
            "format": _FORMAT,
            "model": model,
            "shape": list(shape),
            "chips": chips.digest(),
            "sample": _hash_sample(chips),
        },
    )


def _hash_sample(chips: ChipSet) -> str:
    """Return the sha256 over some chips' files, spread over the set.

    Names alone would not tell a set from one that was aligned anew under the same names.
    """
    rows = np.unique(np.linspace(0, len(chips) - 1, _SAMPLE).astype(np.int64)).tolist()
    return sha256_bytes("".join(sha256_bytes(_read_bytes(chips, row)) for row in rows).encode())


def _read_bytes(chips: ChipSet, row: int) -> bytes:
    """Return an encoded chip, nothing where it cannot be read."""
    try:
        return chips.read_bytes(row)
    except UnreadableImageError:
        return b""


def _decode(data: bytes, name: str) -> NDArray[np.uint8] | None:
    """Return a chip, uint8 RGB (112, 112, 3), None when it is damaged or not square."""
    try:
        return read_square(data, name, _SIDE)
    except UnreadableImageError:
        return None


def _is_anywhere(flag: bool) -> bool:
    """Return whether `flag` holds in any process: all take the same way."""
    if dist.world_size() == 1:
        return flag
    import torch

    return bool(dist.max_over_ranks(torch.tensor(int(flag))))
