"""A remote index kept as new as the store: what it holds is said there, last of all."""

from __future__ import annotations

from facerec.gallery.changes import Changes
from facerec.gallery.history import has_point, read_point
from facerec.gallery.index import VectorIndex
from facerec.gallery.remote import RemoteIndex
from facerec.gallery.store import Store


def find_version(store: Store, index: VectorIndex) -> int:
    """Return which version of the store a remote index holds, -1 when it must be filled anew.

    An index that was left half done, or that follows another history of this gallery, is cleared.
    One that is not remote says nothing of itself and is filled from the start.
    """
    if not isinstance(index, RemoteIndex):
        return -1
    mark = index.read_mark()
    if mark is not None and has_point(store, mark.head):
        return mark.version
    index.clear()
    return -1


def send_changes(store: Store, index: VectorIndex, changes: Changes) -> None:
    """Bring an index to the version of the changes; a remote one says so last of all.

    Done twice, or by two processes, it has the same result: while changes are on their way the
    older mark stands, and whoever reads it sends them again.

    Raises:
        InputError: a remote index does not hold as many rows afterwards as the store.
    """
    point = read_point(store)
    index.remove(changes.removed)
    if len(changes.ids):
        index.upsert(changes.ids, changes.vectors, changes.owners)
    if isinstance(index, RemoteIndex):
        index.write_mark(changes.version, point, changes.total)
