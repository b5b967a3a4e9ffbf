"""Embeddings kept on disk by model and picture: nothing is embedded twice, no shard is torn.

A shard is two files. `NAME.npy` is float32 (n, d + 1): the unit vectors and, as last column, the
raw norms. `NAME.ids` names its rows and carries a checksum; it is written last, so a shard without
it does not count. Names are unique: processes may append to one cache at the same time.
"""

from __future__ import annotations

import time
import uuid
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_embeddings
from facerec.io import atomic_path, read_json, sync_folder, write_json, write_text

CACHE_NAME = "cache.json"
_FORMAT = "facerec-embeddings-1"
_HASH_DIGITS = 16


@dataclass(frozen=True)
class _Shard:
    path: Path
    rows: int
    checksum: int
    """crc32 of the whole .npy file."""


class EmbeddingCache:
    """The embeddings of one model, in `folder`/(first 16 digits of the model's hash).

    Not for use by several threads at once; by several processes it is: each sees what the others
    have appended after `refresh`. Where two shards hold one id, the one of the lower name, which
    is the older one, counts.

    Args:
        folder: of all caches; made when the first embeddings are appended.
        model_hash: sha256 of the model, 64 hex digits (`facerec.models.weights.hash_model`).
        dim: d, the embedding's length.

    Attributes:
        damaged: shards that were passed over because a file is torn, missing or unreadable.

    Raises:
        InputError: the folder holds embeddings of another model or length.
    """

    def __init__(self, folder: Path, model_hash: str, dim: int) -> None:
        if len(model_hash) < _HASH_DIGITS or not set(model_hash) <= set("0123456789abcdef"):
            raise InputError(f"model hash must be hex digits of a sha256, got {model_hash!r}")
        if dim < 1:
            raise InputError(f"embedding dim must be at least 1, got {dim}")
        self.folder = Path(folder) / model_hash[:_HASH_DIGITS]
        self.model_hash = model_hash
        self.dim = dim
        self.damaged: list[Path] = []
        self._shards: list[_Shard] = []
        self._rows: dict[str, tuple[int, int]] = {}
        self._seen: set[str] = set()
        self._check_model()
        self.refresh()

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, embedding_id: object) -> bool:
        return embedding_id in self._rows

    def ids(self) -> list[str]:
        """Return the id of every embedding, sorted."""
        return sorted(self._rows)

    def has(self, ids: Iterable[str]) -> NDArray[np.bool_]:
        """Return for each id whether its embedding is there, bool (n,)."""
        return np.fromiter((one in self._rows for one in ids), bool)

    def refresh(self) -> None:
        """Take in shards that other processes have appended since."""
        if not self.folder.is_dir():
            return
        # Names with a dot in front are temporary files, of a run that goes on or was killed.
        for path in sorted(self.folder.glob("[!.]*.ids")):
            if path.name in self._seen:
                continue
            self._seen.add(path.name)
            self._take_in(path)

    def append(self, ids: Sequence[str], vectors: NDArray[Any], norms: NDArray[Any]) -> None:
        """Write the embeddings that are not there yet as one shard, flushed to disk.

        Of an id given twice the first counts.

        Args:
            ids: n ids, for a face f"{image_id}-{face}"; no line break in them.
            vectors: float32 (n, d), unit norm; 0 where the raw norm is 0: it is known, and need
                not be computed again, that such a face has no direction.
            norms: float32 (n,), raw norms.

        Raises:
            InputError: lengths differ, or values are not what they should be; nothing is written.
        """
        if np.shape(norms) != (len(vectors),) or len(ids) != len(vectors):
            raise InputError(
                f"ids and norms must be as many as the {len(vectors)} embeddings, "
                f"got {len(ids)} and {np.shape(norms)}"
            )
        if not np.isfinite(norms).all():
            raise InputError("raw norms must be finite, but hold NaN or infinity")
        zero = np.asarray(norms) == 0
        check_embeddings(np.asarray(vectors)[~zero], "embeddings to cache", self.dim)
        if np.any(np.asarray(vectors)[zero]):
            raise InputError("an embedding of raw norm 0 has no direction: its vector must be 0")
        wanted: dict[str, int] = {}
        for row, one in enumerate(ids):
            if not one or one != one.strip() or len(one.splitlines()) != 1:
                raise InputError(f"an embedding id must be one line of text, got {one!r}")
            if one not in self._rows:
                wanted.setdefault(one, row)
        if wanted:
            rows = list(wanted.values())
            values = np.column_stack([vectors[rows], np.asarray(norms)[rows]])
            self._write_shard(list(wanted), values.astype(np.float32))

    def load(self, ids: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the embeddings of ids: float32 (n, d) unit vectors and (n,) raw norms.

        Shards are memory-mapped, so only the rows asked for are read.

        Raises:
            InputError: an id is not there, or its shard has gone.
        """
        vectors = np.empty((len(ids), self.dim), np.float32)
        norms = np.empty(len(ids), np.float32)
        places: dict[int, list[tuple[int, int]]] = {}
        for position, one in enumerate(ids):
            if one not in self._rows:
                raise InputError(f"{self.folder} has no embedding of {one!r}; embed it first")
            shard, row = self._rows[one]
            places.setdefault(shard, []).append((position, row))
        for shard, pairs in sorted(places.items()):
            where, rows = np.array(pairs).T
            values = self._map(self._shards[shard])[rows]
            vectors[where] = values[:, :-1]
            norms[where] = values[:, -1]
        return vectors, norms

    def remove(self, ids: Iterable[str]) -> int:
        """Take embeddings out for good, and return how many of `ids` were there.

        Shards that hold one are written anew without it. Deleted as well is what does not count
        and might hold one: damaged shards, halves and temporary files of killed writers. No other
        process may append meanwhile. After a kill, call it again.
        """
        gone = set(ids)
        self.refresh()
        count = len(gone & self._rows.keys())
        for shard in tuple(self._shards):
            names = _read_names(shard.path.with_suffix(".ids"))
            kept = [row for row, one in enumerate(names) if one not in gone]
            if len(kept) == len(names):
                continue
            if kept:
                self._write_shard([names[row] for row in kept], self._map(shard)[kept])
            # Without its names a shard does not count: they go first.
            shard.path.with_suffix(".ids").unlink()
            shard.path.unlink()
        self._delete_strays()
        self._shards, self._rows, self._seen, self.damaged = [], {}, set(), []
        self.refresh()
        return count

    def verify(self) -> list[Path]:
        """Return the shards whose content no longer fits its checksum; reads every byte."""
        return [
            shard.path
            for shard in self._shards
            if not shard.path.is_file() or zlib.crc32(shard.path.read_bytes()) != shard.checksum
        ]

    def _check_model(self) -> None:
        expected = {"format": _FORMAT, "model_sha256": self.model_hash, "dim": self.dim}
        path = self.folder / CACHE_NAME
        if not path.is_file():
            return
        found = read_json(path)
        for key, value in expected.items():
            if not isinstance(found, dict) or found.get(key) != value:
                got = found.get(key) if isinstance(found, dict) else found
                raise InputError(
                    f"{path} is the cache of another model: {key} must be {value!r}, "
                    f"got {got!r}; take another folder"
                )

    def _write_shard(self, ids: list[str], values: NDArray[np.float32]) -> None:
        card = self.folder / CACHE_NAME
        if not card.is_file():
            write_json(card, {"format": _FORMAT, "model_sha256": self.model_hash, "dim": self.dim})
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:12]}"
        path = self.folder / f"{name}.npy"
        with atomic_path(path) as temporary:
            np.save(temporary, values, allow_pickle=False)
            checksum = zlib.crc32(temporary.read_bytes())
        head = f"{_FORMAT} {len(ids)} {checksum}"
        write_text(self.folder / f"{name}.ids", "\n".join([head, *ids]) + "\n")
        self._seen.add(f"{name}.ids")
        self._enter(_Shard(path, len(ids), checksum), ids)

    def _delete_strays(self) -> None:
        if not self.folder.is_dir():
            return
        for path in self.damaged:
            path.with_suffix(".ids").unlink(missing_ok=True)
        for path in self.folder.iterdir():
            half = path.suffix == ".npy" and not path.with_suffix(".ids").is_file()
            if half or path.name.startswith("."):
                path.unlink()
        sync_folder(self.folder)

    def _take_in(self, names: Path) -> None:
        """Enter a shard from disk, or count it as damaged."""
        path = names.with_suffix(".npy")
        try:
            head, *ids = _read_names(names, with_head=True)
            form, rows, checksum = head.split(" ")
            shard = _Shard(path, int(rows), int(checksum))
            if form != _FORMAT or len(ids) != shard.rows:
                raise ValueError("not the names of a shard")
            self._map(shard)
        except (OSError, ValueError):  # torn by something else than us: embed those again
            self.damaged.append(path)
            return
        self._enter(shard, ids)

    def _enter(self, shard: _Shard, ids: list[str]) -> None:
        number = len(self._shards)
        self._shards.append(shard)
        for row, one in enumerate(ids):
            held = self._rows.get(one)
            if held is None or shard.path.name < self._shards[held[0]].path.name:
                self._rows[one] = (number, row)

    def _map(self, shard: _Shard) -> NDArray[np.float32]:
        """Return a shard's rows, float32 (rows, d + 1), memory-mapped.

        Raises:
            ValueError: the file is torn or of another shape; InputError, one of these, if it went.
        """
        try:
            values = np.load(shard.path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise InputError(f"{shard.path} has gone; open the cache again") from None
        if values.dtype != np.float32 or values.shape != (shard.rows, self.dim + 1):
            raise ValueError(f"{shard.path} holds {values.dtype} {values.shape}")
        rows: NDArray[np.float32] = values
        return rows


def _read_names(path: Path, *, with_head: bool = False) -> list[str]:
    """Return the ids of a shard from its names file, behind its first line if wanted."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return lines if with_head else lines[1:]
