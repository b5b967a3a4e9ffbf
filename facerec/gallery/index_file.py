"""The index as one file: written whole or not at all, and read back only where it fits.

Layout: a line that names the format, then the body: the header's length (8 bytes, little-endian),
the header (JSON), and the arrays that it lists. A plain file ends with the body's sha256; a sealed
one holds the body as the caller's seal wrote it, whose tags vouch for it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError
from facerec.gallery.index_codes import CodeError, Recipe
from facerec.gallery.index_compressed import CompressedIndex
from facerec.gallery.index_flat import FlatIndex
from facerec.io import atomic_path

Seal = Callable[[Iterable[bytes], BinaryIO], object]
"""Takes the plain blocks and a binary file, and writes them sealed."""

Open = Callable[[BinaryIO, BinaryIO], object]
"""Takes the sealed file and a binary file, and writes the plain bytes; InputError if it cannot."""

_PLAIN = b"facerec index 1, plain\n"
_SEALED = b"facerec index 1, sealed\n"
_BLOCK = 1 << 18  # stays in the cache between reading, hashing and copying
_LENGTH = 8
_DIGEST = 32
_MOST_HEADER = 1 << 24


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What `read_index` found.

    Attributes:
        index: None where it must be built again.
        meta: everything that was given when it was written; empty without an index.
        reason: one sentence that says why there is none, empty with one.
    """

    index: FlatIndex | None
    meta: dict[str, Any]
    reason: str


def write_index(
    index: FlatIndex, path: Path, *, meta: dict[str, Any], seal: Seal | None = None
) -> None:
    """Write an index to a file that only its owner may read, all or nothing.

    Changes wait until it is written; searches go on.

    Args:
        index: a local one.
        path: where to; an older file stays until the new one is whole.
        meta: plain JSON by which a reader tells whether it fits: model hash, collection, store
            version.
        seal: writes the blocks encrypted; without it they are plain.
    """
    with index.lock.read(), atomic_path(path) as temporary:
        temporary.chmod(0o600)
        blocks = _list_blocks(index, meta)
        with temporary.open("wb") as file:
            if seal is not None:
                file.write(_SEALED)
                seal(blocks, file)
                return
            file.write(_PLAIN)
            digest = hashlib.sha256()
            for block in blocks:
                digest.update(block)
                file.write(block)
            file.write(digest.digest())


def read_index(
    path: Path,
    *,
    meta: dict[str, Any],
    open: Open | None = None,  # noqa: A002 - the counterpart of `seal`
    threads: int | None = None,
) -> Loaded:
    """Read an index, if the file is whole and is the one that is wanted.

    Args:
        path: of the file.
        meta: keys and values that it must have been written with, among others.
        open: opens a sealed file; a plain one is then refused, and a sealed one without it.
        threads: see `FlatIndex`.
    """
    sink = _Sink(meta, threads)
    try:
        with path.open("rb") as file:
            start = file.readline(len(_SEALED))
            if start not in (_PLAIN, _SEALED):
                raise _Misfit("is no index of this version")
            if open is None:
                if start == _SEALED:
                    raise _Misfit("is sealed, but there is nothing to open it with")
                _read_plain(file, path.stat().st_size - len(_PLAIN), sink)
            elif start == _PLAIN:
                raise _Misfit("is not sealed, as this gallery's index must be")
            else:
                open(file, cast(BinaryIO, sink))
        return Loaded(sink.build(), sink.meta, "")
    except FileNotFoundError:
        return Loaded(None, {}, f"{path} does not exist yet")
    except _Misfit as misfit:
        reason = f"{path} {misfit}"
    except (InputError, OSError, RuntimeError, ValueError, LookupError, TypeError) as error:
        said = " ".join(str(error).split())
        reason = f"{path} cannot be read as an index: {said or type(error).__name__}"
    sink.forget()
    return Loaded(None, {}, reason)


class _Misfit(Exception):
    """The file is not the one that is wanted; the message goes on after its name."""


class _Sink:
    """Takes the body in blocks and builds the index from it."""

    def __init__(self, meta: dict[str, Any], threads: int | None) -> None:
        self._threads = threads
        self._wanted = json.loads(json.dumps(meta))
        self.meta: dict[str, Any] = {}
        self._start = bytearray()
        self._header: dict[str, Any] | None = None
        self._index: FlatIndex | None = None
        self._arrays: dict[str, NDArray[Any]] = {}
        self._rooms: list[memoryview] = []
        self.size_limit: int | None = None

    def write(self, data: bytes) -> int:
        """Take the next bytes."""
        view = memoryview(data)
        if self._header is None:
            self._start += view
            if not self._parse_start():
                return len(data)
            view = memoryview(bytes(self._start))
            self._start.clear()
        while len(view):
            if not self._rooms:
                raise _Misfit("is longer than it says; it was changed")
            room = self._rooms[0]
            count = min(len(room), len(view))
            room[:count] = view[:count]
            view = view[count:]
            if count == len(room):
                self._rooms.pop(0)
            else:
                self._rooms[0] = room[count:]
        return len(data)

    def build(self) -> FlatIndex:
        """Return the index; everything must have been taken."""
        if self._header is None or self._index is None or self._rooms:
            raise _Misfit("is truncated")
        index, arrays = self._index, self._arrays
        self._arrays = {}  # a view that is kept would keep the rows from growing in place
        index.rows.adopt(arrays["ids"], arrays["owners"])
        if isinstance(index, CompressedIndex):
            parts = [arrays[f"codes {number}"] for number in range(len(arrays) - 3)]
            error = CodeError(**self._header["error"])
            index.restore(parts, error, self._header["trained_on"])
        return index

    def forget(self) -> None:
        """Overwrite what was read."""
        self._rooms = []
        self._arrays = {}
        if self._index is not None:
            self._index.close()

    def _parse_start(self) -> bool:
        """Read the header once it is there, and make room for what it lists."""
        if len(self._start) < _LENGTH:
            return False
        length = int.from_bytes(self._start[:_LENGTH], "little")
        if length > _MOST_HEADER:
            raise _Misfit("is damaged")
        if len(self._start) < _LENGTH + length:
            return False
        header = json.loads(self._start[_LENGTH : _LENGTH + length])
        del self._start[: _LENGTH + length]
        self._check(header, _LENGTH + length)
        self._index = _make_index(header, self._threads)
        vectors = self._index.rows.prepare(header["used"])
        for name, size in header["arrays"]:
            kind: type[Any] = np.int64 if name in ("ids", "owners") else np.uint8
            whole = vectors if name == "vectors" else np.empty(size // kind(0).nbytes, kind)
            self._arrays[name] = whole
            if size:
                self._rooms.append(_view_bytes(whole))
        self._header = header
        return True

    def _check(self, header: dict[str, Any], start: int) -> None:
        """Refuse a header before room is made for what it lists."""
        used, dim = header["used"], header["dim"]
        sizes = dict(header["arrays"])
        rows = {"ids": 8 * used, "owners": 8 * used, "vectors": 4 * used * dim}
        damaged = any(sizes.get(name) != size for name, size in rows.items())
        if self.size_limit is not None:
            damaged |= start + sum(sizes.values()) != self.size_limit
        if damaged:
            raise _Misfit("is damaged or truncated")
        self.meta = header["meta"]
        other = [key for key in self._wanted if self.meta.get(key) != self._wanted[key]]
        if other:
            raise _Misfit(f"was written for another gallery or state: {', '.join(other)} differs")


def _read_plain(file: BinaryIO, size: int, sink: _Sink) -> None:
    left = size - _DIGEST
    if left < _LENGTH:
        raise _Misfit("is truncated")
    sink.size_limit = left
    digest = hashlib.sha256()
    while left:
        block = file.read(min(_BLOCK, left))
        if not block:
            raise _Misfit("is truncated")
        digest.update(block)
        sink.write(block)
        left -= len(block)
    if file.read(_DIGEST) != digest.digest():
        raise _Misfit("is damaged: its sha256 does not match")


def _make_index(header: dict[str, Any], threads: int | None) -> FlatIndex:
    if header["recipe"] is None:
        return FlatIndex(header["dim"], threads)
    settings = tuple((name, value) for name, value in header["recipe"].pop("settings"))
    recipe = Recipe(**header["recipe"], settings=settings)
    return CompressedIndex(header["dim"], recipe, threads, header["floor"])


def _view_bytes(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _list_blocks(index: FlatIndex, meta: dict[str, Any]) -> Iterator[bytes]:
    rows = index.rows
    arrays: dict[str, NDArray[Any]] = {
        "ids": rows.ids,
        "owners": rows.owners,
        "vectors": rows.vectors,
    }
    header: dict[str, Any] = {
        "name": index.name,
        "dim": index.dim,
        "used": rows.used,
        "recipe": None,
        "meta": meta,
    }
    if isinstance(index, CompressedIndex):
        header["recipe"] = dataclasses.asdict(index.recipe)
        header["floor"] = index.floor
        header["trained_on"] = index.trained_on
        error = CodeError() if index.codes is None else index.codes.error
        header["error"] = dataclasses.asdict(error)
        for number, part in enumerate(index.dump()):
            arrays[f"codes {number}"] = part
    header["arrays"] = [(name, array.nbytes) for name, array in arrays.items()]
    text = json.dumps(header, allow_nan=False).encode()
    yield len(text).to_bytes(_LENGTH, "little") + text
    for array in arrays.values():
        view = _view_bytes(array)
        for start in range(0, len(view), _BLOCK):
            yield bytes(view[start : start + _BLOCK])
