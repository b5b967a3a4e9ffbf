"""The gallery's one authority: a SQLite file, one transaction an action, nothing ever torn."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from facerec.checks import InputError, nearest
from facerec.gallery import audit
from facerec.gallery.connection import (
    connect,
    explain_sqlite,
    set_patience,
    write_transaction,
)
from facerec.gallery.migrations import migrate
from facerec.gallery.records import hash_threshold
from facerec.gallery.schema import (
    FILE_NAME,
    MAIN,
    Collection,
    StoredModel,
    Threshold,
)
from facerec.gallery.vault import GalleryKey, Vault

KEEP_PICTURES, RETENTION_DAYS, NORMALISATION = "keep_pictures", "retention_days", "normalisation"
CHECK, COHORT_TOP = "check", "cohort_top"
"""Settings that the store and the search themselves read; commands add their own."""

SCRUB_PENDING = "scrub_pending"
"""A mark of our own among the settings: rows were removed, and their bytes not yet looked for."""


class Store:
    """One collection of an open gallery file; use `create_store` or `open_store`.

    Threads are welcome, processes too (WAL: readers never wait for the writer). Three connections:
    one writes (each commit survives a power cut), one reads, one logs searches (each survives a
    kill; see `connect`).
    """

    def __init__(self, path: Path, collection: str, key: GalleryKey | None, locked: bool) -> None:
        self.path = path
        self._write_lock, self._read_lock, self._log_lock = (threading.RLock() for _ in range(3))
        with contextlib.ExitStack() as opened:
            self._writer = opened.enter_context(contextlib.closing(connect(path)))
            with explain_sqlite(path):
                migrate(self._writer, path)
            self._reader = opened.enter_context(contextlib.closing(connect(path)))
            self._logger = opened.enter_context(
                contextlib.closing(connect(path, synchronous="NORMAL"))
            )
            set_patience(self._writer, False)
            set_patience(self._logger, False)
            with explain_sqlite(path):
                self.collection, wrapped = _find_collection(self._reader, path, collection)
            self.locked = locked and key is None and bool(self.collection.key_id)
            self.vault, self.secret = Vault(None), b""
            if not self.locked:
                self._unlock(key, wrapped)
            opened.pop_all()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def folder(self) -> Path:
        """The folder of the gallery."""
        return self.path.parent

    @property
    def model(self) -> StoredModel:
        """The recogniser whose embeddings the collection holds."""
        return self.collection.model

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        for lock, connection in (
            (self._write_lock, self._writer),
            (self._read_lock, self._reader),
            (self._log_lock, self._logger),
        ):
            with lock:
                connection.close()

    def check_unlocked(self) -> None:
        """Raise InputError where an encrypted collection was opened without its key."""
        if self.locked:
            raise InputError(
                f"collection {self.collection.name!r} is locked: it was opened without its key; "
                "give the key file with --key-file"
            )

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock; all of the block is committed, or on any exception none of it."""
        self.check_unlocked()
        with self._write_lock, explain_sqlite(self.path), write_transaction(self._writer):
            yield self._writer

    @contextlib.contextmanager
    def logging(self) -> Iterator[sqlite3.Connection]:
        """Hold a write transaction for the log alone; what is committed survives a kill."""
        with self._log_lock, explain_sqlite(self.path), write_transaction(self._logger):
            yield self._logger

    @contextlib.contextmanager
    def writing_alone(self) -> Iterator[sqlite3.Connection]:
        """Lend the writing connection outside a transaction, for maintenance."""
        with self._write_lock, explain_sqlite(self.path):
            set_patience(self._writer, True)
            try:
                yield self._writer
            finally:
                set_patience(self._writer, False)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection for reading."""
        with self._read_lock, explain_sqlite(self.path):
            yield self._reader

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection for several reads of one and the same state."""
        with self.reading() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def log(
        self,
        connection: sqlite3.Connection,
        action: str,
        details: dict[str, Any],
        operator: str,
        purpose: str = "",
    ) -> str:
        """Append an entry about this collection inside the caller's transaction."""
        name = self.collection.name
        return audit.append_entry(connection, action, details, operator, purpose, name, self.secret)

    def next_version(self, connection: sqlite3.Connection) -> int:
        """Return a number that is greater than all before, inside the caller's transaction."""
        (version,) = connection.execute(
            "UPDATE collections SET version = version + 1 WHERE id = ? RETURNING version",
            (self.collection.id,),
        ).fetchone()
        return int(version)

    def read_version(self) -> int:
        """Return a number that grows with every change of what is searched."""
        with self.reading() as connection:
            return read_version(connection, self.collection.id)

    def read_setting(self, key: str, default: str = "") -> str:
        """Return a setting, such as the detector that enrolment uses."""
        with self.reading() as connection:
            row = connection.execute(
                "SELECT value FROM settings WHERE collection_id = ? AND key = ?",
                (self.collection.id, key),
            ).fetchone()
        return str(row[0]) if row else default

    def find_threshold(
        self, normalisation: str = "none", one_to_one: bool = False
    ) -> Threshold | None:
        """Return the latest threshold for such scores, None where there is none.

        Args:
            normalisation: of the scores.
            one_to_one: for comparing with one person, not for searching all.
        """
        found = self.list_thresholds(normalisation)
        return next((t for t in reversed(found) if (t.kind == "fmr") == one_to_one), None)

    def read_threshold(self) -> float:
        """Return the latest threshold for 1:N of the collection's scores.

        Raises:
            InputError: there is none for such scores.
        """
        kind = self.read_setting(NORMALISATION, "none")
        found = self.find_threshold(kind)
        if found is None:
            raise InputError(
                f"the collection has no threshold for scores with normalisation {kind!r}; "
                "run `facerec-gallery calibrate`"
            )
        return found.value

    def list_thresholds(self, normalisation: str | None = None) -> list[Threshold]:
        """Return the thresholds, oldest first, all or those for such scores."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT id, value, kind, normalisation, details, created FROM thresholds "
                "WHERE collection_id = ? ORDER BY id",
                (self.collection.id,),
            ).fetchall()
        found = [
            Threshold(row[0], row[1], row[2], row[3], json.loads(row[4]), row[5]) for row in rows
        ]
        return [t for t in found if normalisation is None or t.normalisation == normalisation]

    def change_setting(self, key: str, value: str, operator: str, purpose: str = "") -> None:
        """Set a setting, and log it; every open index looks at it again."""
        with self.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO settings (collection_id, key, value) VALUES (?, ?, ?)",
                (self.collection.id, key, value),
            )
            self.next_version(connection)
            self.log(connection, "setting", {"key": key, "value": value}, operator, purpose)

    def add_threshold(
        self,
        value: float,
        kind: str,
        normalisation: str,
        details: dict[str, Any],
        operator: str,
        purpose: str = "",
    ) -> None:
        """Store a threshold as the latest of its kind, and log it."""
        text = json.dumps(details, sort_keys=True, allow_nan=False)
        with self.transaction() as connection:
            row = connection.execute(
                "INSERT INTO thresholds (collection_id, value, kind, normalisation, details, "
                "created) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    self.collection.id,
                    value,
                    kind,
                    normalisation,
                    text,
                    audit.read_clock(connection),
                ),
            ).lastrowid
            self.next_version(connection)
            said = {
                "row": row,
                "value": value,
                "kind": kind,
                "values": hash_threshold(value, kind, normalisation, text),
            }
            self.log(connection, "threshold", said, operator, purpose)

    def list_collections(self) -> list[Collection]:
        """Return the collections of this file, by name."""
        with self.reading() as connection:
            return read_collections(connection)

    def _unlock(self, key: GalleryKey | None, wrapped: bytes) -> None:
        wanted, name = self.collection.key_id, self.collection.name
        if not wanted:
            return
        if key is None:
            raise InputError(
                f"collection {name!r} of {self.folder} is encrypted with key {wanted}; give the "
                "key file with --key-file, or the key in FACEREC_GALLERY_KEY"
            )
        if key.id != wanted:
            raise InputError(
                f"collection {name!r} of {self.folder} is encrypted with key {wanted}, got key "
                f"{key.id}; give the key that it was made with, or last changed to"
            )
        self.vault = Vault(key)
        self.secret = self.vault.unwrap(wrapped, secret_context(self.collection.uid))


def secret_context(uid: str) -> str:
    """Return what a collection's secret is bound to when it is sealed."""
    return f"collection {uid}"


def read_version(connection: sqlite3.Connection, collection_id: int) -> int:
    """Return the version of a collection as this connection sees it."""
    row = connection.execute(
        "SELECT version FROM collections WHERE id = ?", (collection_id,)
    ).fetchone()
    return int(row[0])


def open_store(
    folder: Path, collection: str = MAIN, key: GalleryKey | None = None, locked: bool = False
) -> Store:
    """Open a collection of the gallery in `folder`.

    Args:
        folder: of the gallery.
        collection: its name.
        key: of an encrypted one.
        locked: without a key an encrypted one is opened for its log and lists alone.

    Raises:
        InputError: there is none, or it was written by a newer facerec, or it is damaged, or the
            key is missing or another.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise InputError(
            f"{folder} holds no gallery; make one with `facerec-gallery create {folder} --model M`"
        )
    return Store(path, collection, key, locked)


def _find_collection(
    connection: sqlite3.Connection, path: Path, name: str
) -> tuple[Collection, bytes]:
    found = {collection.name: collection for collection in read_collections(connection)}
    if name not in found:
        raise InputError(
            f"{path.parent} has no collection {name!r}{nearest(name, found)}; there are: "
            f"{', '.join(found) or 'none'}"
        )
    (wrapped,) = connection.execute(
        "SELECT secret FROM collections WHERE name = ?", (name,)
    ).fetchone()
    return found[name], bytes(wrapped)


def read_collections(connection: sqlite3.Connection) -> list[Collection]:
    """Return the collections of a file, by name."""
    rows = connection.execute(
        "SELECT collections.id, uid, collections.name, models.name, hash, dim, fusion, key_id "
        "FROM collections JOIN models ON models.id = model_id ORDER BY collections.name"
    )
    return [
        Collection(row[0], row[1], row[2], StoredModel(row[3], row[4], row[5]), row[6], row[7])
        for row in rows
    ]
