"""Encoded pictures that lie in big files or in memory, read by number from any thread."""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from facerec.data.images import MAX_BYTES, UnreadableImageError

_MAX_OPEN = 256
_MAX_NAMED = 100


class ChipFiles(Protocol):
    """Where the encoded pictures of n chips lie."""

    def __len__(self) -> int:
        """Return n."""

    def name(self, index: int) -> str:
        """Return what messages call a chip."""

    def read_bytes(self, index: int) -> bytes:
        """Return an encoded picture; raise UnreadableImageError when that fails."""

    def take(self, rows: NDArray[np.int64]) -> ChipFiles:
        """Return some of the chips, in the order of `rows` (m,)."""

    def digest(self) -> str:
        """Return a sha256 of where they lie, the folder left out."""


class FilePool:
    """Files kept open and read by position: threads share no file position and no lock.

    At most 256 stay open; what lies in others is read by opening them each time. A copy in
    another process opens its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._handles: dict[Path, int] = {}
        weakref.finalize(self, _close_all, self._handles)

    def __reduce__(self) -> tuple[type[FilePool], tuple[()]]:
        return FilePool, ()

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`, fewer only where the file ends.

        Raises:
            OSError: it cannot be opened or read.
        """
        handle = self._handles.get(path)
        if handle is not None:
            return _read_at(handle, offset, length)
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with self._lock:
            keep = path not in self._handles and len(self._handles) < _MAX_OPEN
            if keep:
                self._handles[path] = handle
        try:
            return _read_at(handle, offset, length)
        finally:
            if not keep:
                os.close(handle)


@dataclass(frozen=True, eq=False)
class ByteRanges:
    """Pictures that are byte ranges of a few big files; 20 bytes of memory each, and a key.

    Attributes:
        files: f files.
        file_of: int32 (n,), positions in `files`.
        offsets: int64 (n,), bytes.
        lengths: int64 (n,), bytes.
        keys: what names a chip inside its file: int64 (n,), or n texts as an Arrow array.
        pool: the open files, shared with every part that `take` makes.
    """

    files: tuple[Path, ...]
    file_of: NDArray[np.int32]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    keys: Any
    pool: FilePool = field(default_factory=FilePool, repr=False)

    joint: ClassVar[str] = "/"

    def __len__(self) -> int:
        return len(self.offsets)

    def name(self, index: int) -> str:
        """Return the file's name and the key in it, such as `shard.tar/a.jpg`."""
        return f"{self.files[self.file_of[index]].name}{self.joint}{self.keys[index]}"

    def read_bytes(self, index: int) -> bytes:
        """Return the bytes of a range.

        Raises:
            UnreadableImageError: the file is gone, cannot be read, or ends before the range.
        """
        path, length = self.files[self.file_of[index]], int(self.lengths[index])
        if length > MAX_BYTES:
            raise UnreadableImageError(
                self.name(index), "too large", f"has {length:,} bytes, more than {MAX_BYTES:,}"
            )
        try:
            data = self.pool.read(path, int(self.offsets[index]), length)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            raise UnreadableImageError(
                self.name(index),
                "missing file" if missing else "no permission",
                f"in {path.parent} cannot be read: {error.strerror or error}",
            ) from error
        if len(data) < length:
            raise UnreadableImageError(
                self.name(index), "truncated", f"ends early: {path} was cut; fetch it again"
            )
        return data

    def take(self, rows: NDArray[np.int64]) -> ByteRanges:
        """Return some of the ranges, in the order of `rows` (m,)."""
        keys = self.keys[rows] if isinstance(self.keys, np.ndarray) else self.keys.take(rows)
        return type(self)(
            self.files,
            self.file_of[rows],
            self.offsets[rows],
            self.lengths[rows],
            keys,
            self.pool,
        )

    def digest(self) -> str:
        """Return the sha256 of file names and ranges."""
        digest = hashlib.sha256("\n".join(path.name for path in self.files).encode())
        for column in (self.file_of, self.offsets, self.lengths):
            digest.update(column.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class MemoryFiles:
    """Encoded pictures in memory.

    Attributes:
        images: n encoded pictures.
        origin: the file they come from, for messages.
        keys: int64 (n,), their numbers in it.
    """

    images: tuple[bytes, ...]
    origin: str
    keys: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        """Return the origin and the number in it, such as `lfw.bin#12`."""
        return f"{self.origin}#{self.keys[index]}"

    def read_bytes(self, index: int) -> bytes:
        """Return an encoded picture."""
        return self.images[index]

    def take(self, rows: NDArray[np.int64]) -> MemoryFiles:
        """Return some of the pictures, in the order of `rows` (m,)."""
        chosen = tuple(self.images[row] for row in rows.tolist())
        return MemoryFiles(chosen, self.origin, self.keys[rows])

    def digest(self) -> str:
        """Return the sha256 of all pictures."""
        digest = hashlib.sha256()
        for image in self.images:
            digest.update(hashlib.sha256(image).digest())
        return digest.hexdigest()


def name_some(sentences: Sequence[str]) -> tuple[str, ...]:
    """Return the sentences, of more than 100 the first ones and one that counts the others."""
    if len(sentences) <= _MAX_NAMED:
        return tuple(sentences)
    return (*sentences[:_MAX_NAMED], f"and {len(sentences) - _MAX_NAMED:,} more like these")


def _read_at(handle: int, offset: int, length: int) -> bytes:
    data = os.pread(handle, length, offset)
    if len(data) == length or not data:
        return data
    parts = [data]
    left = length - len(data)
    while left and (data := os.pread(handle, left, offset + length - left)):
        parts.append(data)
        left -= len(data)
    return b"".join(parts)


def _close_all(handles: dict[Path, int]) -> None:
    for handle in handles.values():
        os.close(handle)
