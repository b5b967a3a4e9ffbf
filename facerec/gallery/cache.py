"""A built index beside the store, so that a large gallery opens without building it again.

The cache is no authority: it is used only if it was made of this very store, and whatever changed
since is put on top. In an encrypted collection it is sealed with the collection's secret. Erasing
somebody drops it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import BinaryIO

from facerec.gallery.history import has_point, read_point
from facerec.gallery.index import VectorIndex
from facerec.gallery.index_file import Open, read_index, write_index
from facerec.gallery.index_flat import FlatIndex
from facerec.gallery.index_ladder import AUTO
from facerec.gallery.store import Store

LEAST_ROWS = 20_000
"""Below this an index is built faster than anybody would notice."""

_SUFFIX = ".index"


def read_cache(store: Store, rung: str) -> tuple[VectorIndex | None, int]:
    """Return the cached index and the version it holds; None and -1 where there is no good one.

    Args:
        store: open.
        rung: the one that is asked for; "auto" takes any.
    """
    unseal: Open | None = None
    if store.vault.encrypted:
        unseal = partial(_open, store)
    found = read_index(_find_path(store), meta=_describe(store), open=unseal)
    if found.index is None:
        return None, -1
    if not has_point(store, str(found.meta["point"])) or rung not in (AUTO, found.index.name):
        found.index.close()
        return None, -1
    return found.index, int(found.meta["version"])


def write_cache(store: Store, index: VectorIndex, version: int) -> None:
    """Keep a large index as it was built from a version of the store."""
    if isinstance(index, FlatIndex) and len(index) >= LEAST_ROWS:
        meta = {**_describe(store), "version": version, "point": read_point(store)}
        seal = partial(_seal, store) if store.vault.encrypted else None
        write_index(index, _find_path(store), meta=meta, seal=seal)


def drop_caches(folder: Path) -> None:
    """Remove the caches of every collection of a gallery."""
    for path in folder.glob(f"*{_SUFFIX}"):
        path.unlink(missing_ok=True)


def _seal(store: Store, blocks: Iterable[bytes], target: BinaryIO) -> None:
    store.vault.seal_stream(store.secret, blocks, target, _context(store))


def _open(store: Store, source: BinaryIO, target: BinaryIO) -> None:
    store.vault.open_stream(store.secret, source, target, _context(store))


def _context(store: Store) -> str:
    return f"index {store.collection.uid}"


def _find_path(store: Store) -> Path:
    return store.folder / f"{store.collection.uid}{_SUFFIX}"


def _describe(store: Store) -> dict[str, str | int]:
    return {
        "collection": store.collection.uid,
        "model": store.model.hash,
        "fusion": store.collection.fusion,
    }
