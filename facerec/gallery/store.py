"""The gallery's one authority: a SQLite file, one transaction an action, nothing ever torn."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_embeddings
from facerec.gallery import audit
from facerec.gallery.connection import connect, explain_sqlite, write_transaction
from facerec.gallery.schema import (
    APPLICATION_ID,
    FILE_NAME,
    SCHEMA,
    SCHEMA_VERSION,
    Person,
    Sample,
    StoredModel,
    check_person,
)

_ADD_THRESHOLD = (
    "INSERT INTO thresholds (model_id, value, kind, people, created) VALUES (?, ?, ?, ?, ?)"
)


class Store:
    """An open gallery file; use `create_store` or `open_store`.

    One connection behind one lock: threads are welcome, processes too (WAL: readers never wait
    for the writer). Every write is in `transaction`, which holds the only write lock.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.path = path
        self._connection = connection
        self._lock = threading.RLock()
        row = connection.execute("SELECT id, name, hash, dim FROM models").fetchone()
        if row is None:
            raise InputError(f"{path} holds no model; create the gallery again")
        self._model_id = int(row[0])
        self.model = StoredModel(str(row[1]), str(row[2]), int(row[3]))

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock; all of the block is committed, or on any exception none of it."""
        with (
            self._lock,
            explain_sqlite(self.path),
            write_transaction(self._connection),
        ):
            yield self._connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection for reading."""
        with self._lock, explain_sqlite(self.path):
            yield self._connection

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

    def add_samples(self, person: str, samples: Sequence[Sample]) -> tuple[list[int], list[str]]:
        """Add pictures of a person inside the caller's transaction.

        A picture that this person already has is passed over. A picture that another person has
        is refused, because one of the two names is wrong.

        Returns:
            The positions that were added, and for each sample "" or why it was not added.
        """
        assert self._connection.in_transaction, "call within `with store.transaction()`"
        name = check_person(person)
        if samples:
            check_embeddings(np.stack([s.embedding for s in samples]), "samples", self.model.dim)
        reasons = [self._refusal(name, sample) for sample in samples]
        added: list[int] = []
        for position, sample in enumerate(samples):
            if not reasons[position]:
                reasons[position] = self._insert_sample(name, sample)
                if not reasons[position]:
                    added.append(position)
        if added:
            self._connection.execute(
                "UPDATE settings SET value = CAST(value AS INTEGER) + 1 WHERE key = 'version'"
            )
        return added, reasons

    def find_owner(self, picture_sha256: str) -> str:
        """Return who a picture is enrolled for, "" when it is not in the gallery."""
        with self.reading() as connection:
            row = connection.execute(
                "SELECT people.name FROM samples JOIN people ON people.id = person_id "
                "WHERE picture_sha256 = ? AND model_id = ? ORDER BY samples.id",
                (picture_sha256, self._model_id),
            ).fetchone()
        return str(row[0]) if row else ""

    def load_samples(self) -> tuple[int, NDArray[np.float32], NDArray[np.int64], list[str]]:
        """Return what the index is built from, as one consistent snapshot.

        Returns:
            version: see `read_version`.
            vectors: float32 (n, d), in the order of enrolment.
            owners: int64 (n,), positions in names.
            names: the people, sorted, so that position order is name order.
        """
        with self.snapshot() as connection:
            version = self.read_version()
            people = connection.execute("SELECT id, name FROM people ORDER BY name").fetchall()
            rows = connection.execute(
                "SELECT person_id, embedding FROM samples WHERE model_id = ? ORDER BY id",
                (self._model_id,),
            ).fetchall()
        position = {person_id: i for i, (person_id, _) in enumerate(people)}
        owners = np.array([position[row[0]] for row in rows], dtype=np.int64)
        size = 4 * self.model.dim
        if any(len(row[1]) != size for row in rows):
            raise InputError(f"{self.path} is damaged: an embedding has a wrong length")
        values = np.frombuffer(b"".join(row[1] for row in rows), dtype="<f4")
        vectors = values.reshape(-1, self.model.dim).astype(np.float32, copy=False)
        try:
            check_embeddings(vectors, "embeddings")
        except InputError as error:
            raise InputError(
                f"{self.path} is damaged: {str(error).split(';')[0]}; "
                "see `facerec-gallery audit`, and restore it from a backup"
            ) from error
        return (
            version,
            vectors,
            owners,
            [str(row[1]) for row in people],
        )

    def list_people(self) -> list[Person]:
        """Return the people with their number of samples, by name."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT people.name, COUNT(samples.id), people.created FROM people "
                "LEFT JOIN samples ON samples.person_id = people.id "
                "GROUP BY people.id ORDER BY people.name"
            ).fetchall()
        return [Person(str(row[0]), int(row[1]), str(row[2])) for row in rows]

    def read_version(self) -> int:
        """Return a number that grows with every change of the samples."""
        return int(self.read_setting("version"))

    def read_setting(self, key: str, default: str = "") -> str:
        """Return a setting, such as the detector that enrolment uses."""
        with self.reading() as connection:
            row = connection.execute("SELECT value FROM settings WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else default

    def read_threshold(self) -> float:
        """Return the latest threshold of this gallery's model, a cosine."""
        with self.reading() as connection:
            row = connection.execute(
                "SELECT value FROM thresholds WHERE model_id = ? ORDER BY id DESC LIMIT 1",
                (self._model_id,),
            ).fetchone()
        return float(row[0])

    def _refusal(self, person: str, sample: Sample) -> str:
        owner = self.find_owner(sample.picture_sha256)
        if owner and owner != person:
            return f"this picture is already enrolled for {owner!r}"
        return ""

    def _insert_sample(self, person: str, sample: Sample) -> str:
        now = audit.utc_now()
        run = self._connection.execute
        run("INSERT OR IGNORE INTO people (name, created) VALUES (?, ?)", (person, now))
        (person_id,) = run("SELECT id FROM people WHERE name = ?", (person,)).fetchone()
        cursor = run(
            "INSERT OR IGNORE INTO samples (person_id, model_id, embedding, norm, det_score, "
            "picture_sha256, source, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                person_id,
                self._model_id,
                sample.embedding.astype("<f4").tobytes(),
                float(sample.norm),
                None if sample.det_score is None else float(sample.det_score),
                sample.picture_sha256,
                sample.source,
                now,
            ),
        )
        return "" if cursor.rowcount else "already enrolled"


def create_store(
    folder: Path,
    model: StoredModel,
    settings: dict[str, str],
    threshold: float,
    operator: str = "",
) -> Store:
    """Make an empty gallery in `folder`, readable by its owner only.

    Args:
        folder: made where it is missing.
        model: the recogniser.
        settings: what enrolment and search use unless told otherwise.
        threshold: cosine in [-1, 1] from which a candidate is accepted.
        operator: for the audit log.

    Raises:
        InputError: there is a gallery already, or another file in its place, or the folder cannot
            be made.
    """
    path = folder / FILE_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise InputError(f"cannot make a gallery in {folder}: {error.strerror}") from error
    connection = connect(path, new=True)
    try:
        with write_transaction(connection):
            if connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
                raise InputError(f"{folder} holds a gallery already; give another folder")
            for statement in SCHEMA:
                connection.execute(statement)
            connection.execute(
                "INSERT INTO models (id, name, hash, dim, created) VALUES (1, ?, ?, ?, ?)",
                (model.name, model.hash, model.dim, audit.utc_now()),
            )
            connection.executemany(
                "INSERT INTO settings (key, value) VALUES (?, ?)",
                [("version", "0"), *sorted(settings.items())],
            )
            connection.execute(_ADD_THRESHOLD, (1, threshold, "given", 0, audit.utc_now()))
            details = {
                "model": model.name,
                "model_sha256": model.hash,
                "settings": settings,
                "threshold": threshold,
            }
            audit.append_entry(connection, "create", details, operator)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        return Store(connection, path)
    except BaseException:
        connection.close()
        raise


def open_store(folder: Path) -> Store:
    """Open the gallery in `folder`.

    Raises:
        InputError: there is none, or it was written by a newer facerec, or it is damaged.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise InputError(
            f"{folder} holds no gallery; make one with `facerec-gallery create {folder} --model M`"
        )
    connection = connect(path)
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != SCHEMA_VERSION:
            raise InputError(
                f"{path} has schema version {version}, this facerec reads {SCHEMA_VERSION}; "
                "update facerec"
            )
        with explain_sqlite(path):
            return Store(connection, path)
    except BaseException:
        connection.close()
        raise
