"""What an index has to learn since it last looked: rows that came, rows that went, names.

An index that knows version v asks for what is newer, whoever wrote it: other threads and other
processes are followed without a rebuild.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_embeddings
from facerec.gallery.schema import STRANGER
from facerec.gallery.sealing import (
    cohort_context,
    person_context,
    sample_context,
    template_context,
)
from facerec.gallery.store import Store, read_version


@dataclass(frozen=True)
class Changes:
    """What is new in a collection since a version.

    Attributes:
        version: that this brings an index to.
        ids: int64 (n,), rows to put in: samples, or with a fusion people's templates.
        vectors: float32 (n, d).
        owners: int64 (n,), the person's row.
        removed: int64 (r,), rows to take out, of the same kind as ids.
        people: person's row -> name and uid, new or renamed.
        strangers: rows of people that are strangers, among `people`.
        gone: rows of people that are not there any more.
        total: how many rows there are in all at that version.
    """

    version: int
    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    owners: NDArray[np.int64]
    removed: NDArray[np.int64]
    people: dict[int, tuple[str, str]]
    strangers: set[int]
    gone: list[int]
    total: int


def load_changes(store: Store, since: int = -1, cutoff: str = "") -> Changes:
    """Return what changed after version `since`, everything by default, as one snapshot.

    Args:
        store: open.
        since: the version that is known.
        cutoff: samples from before this moment are overdue and left out; see `retention`.

    Raises:
        InputError: an embedding is damaged, or was sealed for another row.
    """
    store.check_unlocked()
    fused = store.collection.fusion != "max"
    with store.snapshot() as connection:
        version = read_version(connection, store.collection.id)
        ids, vectors, owners = _load_rows(store, connection, since, fused, cutoff)
        removed = _load_removed(store, connection, since, "template" if fused else "sample")
        gone = _load_removed(store, connection, since, "person").tolist()
        people, strangers = _load_people(store, connection, since)
        total = len(ids) if since < 0 else _count_rows(store, connection, fused, cutoff)
    return Changes(version, ids, vectors, owners, removed, people, strangers, gone, total)


def load_people(store: Store) -> tuple[dict[int, tuple[str, str]], set[int]]:
    """Return every person's row -> name and uid, and the rows of strangers."""
    with store.reading() as connection:
        return _load_people(store, connection, -1)


def load_cohort(store: Store) -> NDArray[np.float32]:
    """Return the cohort of a collection, float32 (c, d), empty where there is none."""
    with store.reading() as connection:
        rows = connection.execute(
            "SELECT embedding FROM cohort WHERE collection_id = ? ORDER BY id",
            (store.collection.id,),
        ).fetchall()
    context = cohort_context(store)
    values = [store.vault.open(store.secret, row[0], context) for row in rows]
    vectors = np.frombuffer(b"".join(values), "<f4").reshape(len(rows), store.model.dim)
    return vectors.astype(np.float32)


def _load_rows(
    store: Store, connection: sqlite3.Connection, since: int, fused: bool, cutoff: str
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    table, where, given = _select(store, since, fused, cutoff)
    (count,) = connection.execute(f"SELECT COUNT(*) {where}", given).fetchone()
    dim = store.model.dim
    ids, owners = np.empty(count, np.int64), np.empty(count, np.int64)
    vectors = np.empty((count, dim), np.float32)
    columns = (
        "templates.person_id, templates.person_id, embedding, templates.version"
        if fused
        else "samples.id, samples.person_id, embedding, picture_sha256"
    )
    keys = _Keys(store, connection)
    rows = connection.execute(
        f"SELECT {columns} {where} ORDER BY {table}.{'person_id' if fused else 'id'}", given
    )
    for position, (row, owner, sealed, bound) in enumerate(rows):
        value = keys.open(owner, sealed, bound, fused)
        if len(value) != 4 * dim:
            raise InputError(f"{store.path} is damaged: an embedding has a wrong length")
        ids[position], owners[position] = row, owner
        vectors[position] = np.frombuffer(value, "<f4")
    if count:
        _check(store, vectors)
    return ids, vectors, owners


def _load_people(
    store: Store, connection: sqlite3.Connection, since: int
) -> tuple[dict[int, tuple[str, str]], set[int]]:
    rows = connection.execute(
        "SELECT id, name, uid, kind FROM people WHERE collection_id = ? AND version > ?",
        (store.collection.id, since),
    ).fetchall()
    people = {int(row[0]): (str(row[1]), str(row[2])) for row in rows}
    return people, {int(row[0]) for row in rows if row[3] == STRANGER}


def _select(
    store: Store, since: int, fused: bool, cutoff: str
) -> tuple[str, str, tuple[int | str, ...]]:
    """Return the table, and what follows SELECT with its values, of the rows that are searched."""
    table = "templates" if fused else "samples"
    where = f"FROM {table} WHERE {table}.collection_id = ? AND {table}.version > ?"
    given: tuple[int | str, ...] = (store.collection.id, since)
    if not cutoff:
        return table, where, given
    created = "samples.created"
    if fused:  # a template is searched while one of its samples may be
        created = "(SELECT MAX(created) FROM samples WHERE samples.person_id = templates.person_id)"
    return table, f"{where} AND {created} >= ?", (*given, cutoff)


def _count_rows(store: Store, connection: sqlite3.Connection, fused: bool, cutoff: str) -> int:
    _, where, given = _select(store, -1, fused, cutoff)
    return int(connection.execute(f"SELECT COUNT(*) {where}", given).fetchone()[0])


class _Keys:
    """Opens embeddings; the key of the person that was last asked for is kept."""

    def __init__(self, store: Store, connection: sqlite3.Connection) -> None:
        self._store, self._connection = store, connection
        self._owner, self._uid, self._key = -1, "", b""

    def open(self, owner: int, sealed: bytes, bound: str | int, fused: bool) -> bytes:
        store = self._store
        if not store.vault.encrypted:
            return sealed
        if owner != self._owner:
            self._uid, wrapped = self._connection.execute(
                "SELECT uid, data_key FROM people WHERE id = ?", (owner,)
            ).fetchone()
            self._key = store.vault.unwrap(wrapped, person_context(self._uid))
            self._owner = owner
        if fused:
            context = template_context(self._uid, int(bound))
        else:
            context = sample_context(store, self._uid, str(bound))
        return store.vault.open(self._key, sealed, context)


def _check(store: Store, vectors: NDArray[np.float32]) -> None:
    try:
        check_embeddings(vectors, "embeddings")
    except InputError as error:
        raise InputError(
            f"{store.path} is damaged: {str(error).split(';')[0]}; "
            "see `facerec-gallery audit`, and restore it from a backup"
        ) from error


def _load_removed(
    store: Store, connection: sqlite3.Connection, since: int, kind: str
) -> NDArray[np.int64]:
    if since < 0:  # whoever knows nothing has nothing to forget
        return np.empty(0, np.int64)
    rows = connection.execute(
        "SELECT row FROM removed WHERE collection_id = ? AND version > ? AND kind = ?",
        (store.collection.id, since, kind),
    ).fetchall()
    return np.array([row[0] for row in rows], np.int64)
