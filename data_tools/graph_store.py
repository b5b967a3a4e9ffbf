"""A table that is computed shard by shard, in memory or in a folder where a killed run goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError
from facerec.io import atomic_path, read_json, write_json

SHARD_ROWS = 1 << 16
HEAD = "graph.json"
INDEX = "index.faiss"
FORMAT = "facerec-graph-1"

Table = NDArray[np.int32]
Column = tuple[slice, type[np.generic]]
"""Which columns of a table, and what their 32 bits are."""


class ShardTable:
    """An int32 table (n, columns), filled a shard of rows at a time, then split into arrays.

    Args:
        folder: where shards are kept, each written all or nothing; None: in memory.
        name: of the table's shards.
        rows: n.
        columns: int32 values a row.
        splits: name of an array -> which columns it takes.
    """

    def __init__(
        self,
        folder: Path | None,
        name: str,
        rows: int,
        columns: int,
        splits: Mapping[str, Column],
    ) -> None:
        self.folder = folder
        self.rows = rows
        self._name = name
        self.columns = columns
        self._splits = splits
        self._held: dict[int, Table] = {}

    def fill(
        self, compute: Callable[[int, int], Table], advance: Callable[[int], Any]
    ) -> dict[str, NDArray[Any]]:
        """Compute what is missing and return the arrays, memory-mapped where there is a folder.

        Args:
            compute: gives rows first to last - 1, int32 (last - first, columns).
            advance: is told how many more rows were there already.
        """
        if (joined := self.load()) is not None:
            return joined
        for first in range(0, self.rows, SHARD_ROWS):
            last = min(first + SHARD_ROWS, self.rows)
            if self._read(first, last) is None:
                self._write(first, compute(first, last))
            else:
                advance(last - first)
        return self._join()

    def load(self) -> dict[str, NDArray[Any]] | None:
        """Return the arrays of a table that was filled earlier, None where one is missing."""
        if self.folder is None:
            return None
        found: dict[str, NDArray[Any]] = {}
        for name, (columns, dtype) in self._splits.items():
            width = columns.stop - columns.start
            values = _map_array(self.folder / f"{name}.npy", (self.rows, width), dtype)
            if values is None:
                return None
            found[name] = values
        return found

    def _path(self, folder: Path, first: int) -> Path:
        return folder / f"{self._name}-{first // SHARD_ROWS:06d}.npy"

    def _read(self, first: int, last: int) -> Table | None:
        if self.folder is None:
            return self._held.pop(first, None)
        return _map_array(self._path(self.folder, first), (last - first, self.columns), np.int32)

    def _write(self, first: int, values: Table) -> None:
        if self.folder is None:
            self._held[first] = values
            return
        with atomic_path(self._path(self.folder, first)) as temporary:
            np.save(temporary, values, allow_pickle=False)

    def _join(self) -> dict[str, NDArray[Any]]:
        """Turn the shards into the arrays, one after another, and drop them."""
        if self.folder is None:
            arrays = {
                name: np.empty((self.rows, columns.stop - columns.start), dtype)
                for name, (columns, dtype) in self._splits.items()
            }
            self._copy(arrays)
            return arrays
        with contextlib.ExitStack() as files:
            arrays = {
                name: np.lib.format.open_memmap(
                    files.enter_context(atomic_path(self.folder / f"{name}.npy")),
                    mode="w+",
                    dtype=dtype,
                    shape=(self.rows, columns.stop - columns.start),
                )
                for name, (columns, dtype) in self._splits.items()
            }
            self._copy(arrays)
            del arrays  # unmapped, and so written, before the files are synced and renamed
        joined = self.load()
        if joined is None:
            raise InputError(f"{self.folder} was changed while a graph was written to it")
        for first in range(0, self.rows, SHARD_ROWS):
            self._path(self.folder, first).unlink(missing_ok=True)
        return joined

    def _copy(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        for first in range(0, self.rows, SHARD_ROWS):
            last = min(first + SHARD_ROWS, self.rows)
            values = self._read(first, last)
            if values is None:
                raise InputError(f"{self.folder} lost a shard of a graph; run the same again")
            for name, (columns, dtype) in self._splits.items():
                arrays[name][first:last] = np.ascontiguousarray(values[:, columns]).view(dtype)


def open_head(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the head of the graph in a folder; a graph of other settings is removed.

    Nothing else in the folder is touched.

    Args:
        folder: made when missing.
        settings: what the graph depends on, plain JSON values.
    """
    fresh = {"format": FORMAT, "settings": settings}
    with contextlib.suppress(InputError):
        head = read_json(folder / HEAD)
        if isinstance(head, dict) and {**head, **fresh} == head:
            return head
    (folder / HEAD).unlink(missing_ok=True)  # first: without it nothing else counts
    drop_files(folder, ("graph", "base", "row", "index", "neighbours", "scores"))
    write_json(folder / HEAD, fresh)
    return fresh


def drop_files(folder: Path, names: Iterable[str]) -> None:
    """Remove arrays, their shards and the temporary files that a killed run left of them."""
    for name in names:
        for pattern in (f"{name}-??????.npy", f"{name}.npy", f"{name}.faiss", f".{name}*"):
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)


def _map_array(path: Path, shape: tuple[int, int], dtype: Any) -> NDArray[Any] | None:
    """Return a memory-mapped array, None where it is missing, torn or another."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    found: NDArray[Any] = values
    return found if values.shape == shape and values.dtype == dtype else None
