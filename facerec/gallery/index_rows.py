"""The raw rows of an index in memory: vectors, ids, owners, and where each id lies."""

from __future__ import annotations

import mmap

import numpy as np
from numpy.typing import NDArray

from facerec.gallery.index import NOBODY

_GROWTH = 1.25
_LEAST_ROWS = 1024
_TABLE_SPARE = 1 << 16
_TABLE_RATIO = 8


class Rows:
    """Rows in slots 0 to `used` - 1; a dead slot has owner -1 and a zero vector.

    The vectors lie in one block of memory of their own that grows in place where the system can
    move pages (no copy, no second block), and are zero wherever no live row lies.

    Args:
        dim: values of a vector.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.used = 0
        self.live = 0
        self._memory = _Memory(dim)
        self._ids = np.zeros(0, np.int64)
        self._owners = np.zeros(0, np.int64)
        self._places = _Places()

    @property
    def vectors(self) -> NDArray[np.float32]:
        """float32 (used, dim), a view: not to be kept beyond the lock."""
        return self._memory.view(self.used)

    @property
    def ids(self) -> NDArray[np.int64]:
        """int64 (used,), -1 in dead slots; a view."""
        return self._ids[: self.used]

    @property
    def owners(self) -> NDArray[np.int64]:
        """int64 (used,), -1 in dead slots; a view."""
        return self._owners[: self.used]

    @property
    def dead(self) -> int:
        """Slots that hold no row."""
        return self.used - self.live

    @property
    def memory_bytes(self) -> int:
        """Bytes that vectors, ids, owners and places take."""
        small = self._ids.nbytes + self._owners.nbytes + self._places.memory_bytes
        return self.used * self.dim * 4 + small

    def reserve(self, rows: int) -> None:
        """Make room for `rows` slots in all."""
        if rows <= len(self._ids):
            return
        self._memory.resize(rows)
        self._ids = _grow(self._ids, rows)
        self._owners = _grow(self._owners, rows)

    def find(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the slot of each id, -1 where it is unknown."""
        return self._places.find(ids)

    def append(
        self, ids: NDArray[np.int64], vectors: NDArray[np.float32], owners: NDArray[np.int64]
    ) -> None:
        """Add rows of unknown ids at the end."""
        start, stop = self.used, self.used + len(ids)
        if stop > len(self._ids):
            self.reserve(stop if not start else max(stop, int(_GROWTH * start), _LEAST_ROWS))
        self._memory.view(stop)[start:] = vectors
        self._ids[start:stop] = ids
        self._owners[start:stop] = owners
        self._places.put(ids, np.arange(start, stop), stop)
        self.used = stop
        self.live += len(ids)

    def prepare(self, slots: int) -> NDArray[np.float32]:
        """Return room for the vectors of a store that is read back, float32 (slots, dim)."""
        self.reserve(slots)
        return self._memory.view(slots)

    def adopt(self, ids: NDArray[np.int64], owners: NDArray[np.int64]) -> None:
        """Take the prepared vectors as rows.

        Args:
            ids: int64 (slots,), -1 in dead slots.
            owners: int64 (slots,), -1 in dead slots.
        """
        self._ids[: len(ids)] = ids
        self._owners[: len(owners)] = owners
        slots = np.flatnonzero(owners != NOBODY)
        self.used, self.live = len(ids), len(slots)
        self._places.put(ids[slots], slots, self.live)

    def overwrite(
        self,
        slots: NDArray[np.int64],
        vectors: NDArray[np.float32],
        owners: NDArray[np.int64],
    ) -> None:
        """Give known rows another vector and owner."""
        self.vectors[slots] = vectors
        self._owners[slots] = owners

    def clear(self, slots: NDArray[np.int64]) -> None:
        """Kill live rows; their vectors are overwritten now."""
        self._places.drop(self._ids[slots])
        self.vectors[slots] = 0
        self._ids[slots] = NOBODY
        self._owners[slots] = NOBODY
        self.live -= len(slots)

    def close_gaps(self) -> None:
        """Move the last rows into dead slots until none is left."""
        gaps = np.flatnonzero(self.owners[: self.live] == NOBODY)
        last = self.live + np.flatnonzero(self.owners[self.live :] != NOBODY)
        vectors = self.vectors
        for start in range(0, len(gaps), _LEAST_ROWS):
            part = slice(start, start + _LEAST_ROWS)
            vectors[gaps[part]] = vectors[last[part]]
            vectors[last[part]] = 0
        self._ids[gaps] = self._ids[last]
        self._owners[gaps] = self._owners[last]
        self._places.put(self._ids[gaps], gaps, self.live)
        self.used = self.live

    def close(self) -> None:
        """Overwrite every vector and let go of the memory."""
        self.vectors[:] = 0
        self.used = self.live = 0
        self._memory = _Memory(self.dim)
        self._ids = self._owners = np.zeros(0, np.int64)
        self._places = _Places()


class _Memory:
    """Zeroed rows of float32 in an anonymous mapping that grows without a copy."""

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._map: mmap.mmap | None = None
        self._array: NDArray[np.float32] = np.zeros((0, dim), np.float32)

    def view(self, rows: int) -> NDArray[np.float32]:
        return self._array[:rows]

    def resize(self, rows: int) -> None:
        """Grow to `rows` rows; the new ones are zero."""
        size = max(1, rows * self._dim * 4)
        held: mmap.mmap | None = self._map
        old: NDArray[np.float32] = self._array
        self._array = np.zeros((0, self._dim), np.float32)
        if held is not None and old.base is not None:
            shape = old.shape
            del old
            try:
                held.resize(size)
            except (BufferError, OSError, SystemError):
                # Someone still looks at the old block, or this system cannot move pages.
                old = np.frombuffer(held, np.float32, shape[0] * shape[1]).reshape(shape)
            else:
                self._attach(held, rows)
                return
        self._attach(_map_memory(size), rows)
        self._array[: len(old)] = old
        old[:] = 0

    def _attach(self, block: mmap.mmap, rows: int) -> None:
        self._map = block
        count = rows * self._dim
        self._array = np.frombuffer(block, np.float32, count).reshape(rows, self._dim)


def _map_memory(size: int) -> mmap.mmap:
    if not hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, size)
    # Private: a shared mapping cannot grow past the object behind it.
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for advice in ("MADV_HUGEPAGE", "MADV_DONTDUMP"):  # faster scans; no faces in a core dump
        if hasattr(mmap, advice):
            try:
                block.madvise(getattr(mmap, advice))
            except OSError:  # a kernel without it: only advice
                continue
    return block


class _Places:
    """Id -> slot: a table while ids are dense, as row numbers are; else a dictionary."""

    def __init__(self) -> None:
        self._table: NDArray[np.int64] = np.zeros(0, np.int64)
        self._dict: dict[int, int] | None = None

    @property
    def memory_bytes(self) -> int:
        return self._table.nbytes if self._dict is None else 100 * len(self._dict)

    def find(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        if self._dict is not None:
            get = self._dict.get
            return np.array([get(i, NOBODY) for i in ids.tolist()], np.int64)
        slots = np.full(len(ids), NOBODY, np.int64)
        known = (ids >= 0) & (ids < len(self._table))
        slots[known] = self._table[ids[known]]
        return slots

    def put(self, ids: NDArray[np.int64], slots: NDArray[np.int64], rows: int) -> None:
        if not len(ids):
            return
        top = int(ids.max())
        if self._dict is None and top >= max(len(self._table), _TABLE_RATIO * rows + _TABLE_SPARE):
            known = np.flatnonzero(self._table != NOBODY)
            self._dict = dict(zip(known.tolist(), self._table[known].tolist(), strict=True))
            self._table = np.zeros(0, np.int64)
        if self._dict is not None:
            self._dict.update(zip(ids.tolist(), slots.tolist(), strict=True))
            return
        if top >= len(self._table):
            size = max(top + 1, int(_GROWTH * len(self._table)), _LEAST_ROWS)
            self._table = _grow(self._table, size)
        self._table[ids] = slots

    def drop(self, ids: NDArray[np.int64]) -> None:
        if self._dict is None:
            self._table[ids] = NOBODY
            return
        for i in ids.tolist():
            del self._dict[i]


def _grow(values: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    grown = np.full(size, NOBODY, np.int64)
    grown[: len(values)] = values
    return grown
