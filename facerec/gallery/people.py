"""Who is in a collection: people and their samples, added, listed, renamed and removed.

Every function works inside the caller's transaction, so that the change and its entry in the log
are one write.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_embeddings, check_one_of
from facerec.gallery import audit
from facerec.gallery.fusion import fuse
from facerec.gallery.listing import find_owner
from facerec.gallery.records import (
    SAMPLE_FIELDS,
    commit_person,
    commit_sample,
    make_salt,
    make_uid,
)
from facerec.gallery.schema import (
    KINDS,
    PERSON,
    SOURCE_CLASSES,
    Sample,
    check_captured,
    check_person,
)
from facerec.gallery.sealing import (
    person_context,
    picture_context,
    sample_context,
    template_context,
)
from facerec.gallery.store import Store

ALREADY = "already enrolled"


@dataclass(frozen=True)
class PersonKeys:
    """What is needed to read and write a person's rows.

    Attributes:
        id: the row.
        uid: what the log calls them.
        name: as enrolled.
        kind: PERSON or STRANGER.
        created: when they were first enrolled.
        salt: of their commitments.
        data_key: opens their embeddings, b"" where the collection is plain.
    """

    id: int
    uid: str
    name: str
    kind: str
    created: str
    salt: bytes
    data_key: bytes = field(repr=False)


@dataclass(frozen=True)
class Added:
    """What became of samples.

    Attributes:
        person: whom they were given for.
        new: whether the person was new.
        positions: of those that were added.
        commitments: sample row -> what the log says of it.
        reasons: one a sample: "" = added, else why not.
    """

    person: PersonKeys
    new: bool
    positions: list[int]
    commitments: dict[int, str]
    reasons: list[str]

    def to_log(self) -> dict[str, object]:
        """Return what goes into the log: nobody's name, no file's name."""
        details: dict[str, object] = {
            "person": self.person.uid,
            "added": {str(row): text for row, text in self.commitments.items()},
            "refused": len(self.reasons) - len(self.positions),
        }
        if self.new:
            details["kind"] = self.person.kind
            details["record"] = commit_person(
                self.person.salt, self.person.name, self.person.kind, self.person.created
            )
        return details


def find_person(store: Store, connection: sqlite3.Connection, name: str) -> PersonKeys | None:
    """Return a person's keys, None when nobody has that name."""
    row = connection.execute(
        "SELECT id, uid, name, kind, created, salt, data_key FROM people "
        "WHERE collection_id = ? AND name = ?",
        (store.collection.id, name),
    ).fetchone()
    return _read_keys(store, row) if row else None


def get_person(store: Store, connection: sqlite3.Connection, name: str) -> PersonKeys:
    """Return a person's keys, or raise InputError when nobody has that name."""
    found = find_person(store, connection, check_person(name))
    if found is None:
        raise InputError(
            f"nobody called {name!r} is in collection {store.collection.name!r}; see "
            "`facerec-gallery list`"
        )
    return found


def read_keys(store: Store, connection: sqlite3.Connection, person_id: int) -> PersonKeys:
    """Return the keys of a person by their row."""
    row = connection.execute(
        "SELECT id, uid, name, kind, created, salt, data_key FROM people WHERE id = ?", (person_id,)
    ).fetchone()
    return _read_keys(store, row)


def add_samples(
    store: Store,
    connection: sqlite3.Connection,
    name: str,
    samples: Sequence[Sample],
    kind: str = PERSON,
) -> Added:
    """Add pictures of a person.

    A picture that this person already has is passed over. A picture that another person has is
    refused, because one of the two names is wrong.

    Args:
        store: open.
        connection: within `store.transaction()`.
        name: as `check_person` returned it.
        samples: vectors of unit norm.
        kind: PERSON or STRANGER; that of the person where they are there already.

    Raises:
        InputError: bad vectors, or the person is there as the other kind.
    """
    assert connection.in_transaction, "call within `with store.transaction()`"
    _check_samples(store, samples, kind)
    person = find_person(store, connection, name)
    if person is not None and person.kind != kind:
        raise InputError(
            f"{name!r} is in the collection as a {person.kind}, got pictures of a {kind}; give "
            "another name, or erase that one first"
        )
    reasons = [_refuse(store, connection, name, sample) for sample in samples]
    if all(reasons):
        unknown = person or PersonKeys(-1, "", name, kind, "", b"", b"")
        return Added(unknown, False, [], {}, reasons)
    version = store.next_version(connection)
    new = person is None
    person = person or _insert_person(store, connection, name, kind, version)
    now = audit.read_clock(connection)
    positions: list[int] = []
    commitments: dict[int, str] = {}
    for position, sample in enumerate(samples):
        if reasons[position]:
            continue
        row, text = _insert_sample(store, connection, person, sample, version, now)
        if row is None:  # twice in one call
            reasons[position] = ALREADY
        else:
            positions.append(position)
            commitments[row] = text
    refresh_template(store, connection, person, version)
    return Added(person, new, positions, commitments, reasons)


def remove_samples(
    store: Store, connection: sqlite3.Connection, person: PersonKeys, rows: Sequence[int]
) -> None:
    """Remove some of a person's samples; the last one takes the person along.

    Raises:
        InputError: a row is not theirs.
    """
    held = [
        row[0]
        for row in connection.execute("SELECT id FROM samples WHERE person_id = ?", (person.id,))
    ]
    strange = sorted(set(rows) - set(held))
    if strange:
        raise InputError(f"{person.name!r} has no sample {strange[0]}; see `facerec-gallery show`")
    version = store.next_version(connection)
    _note_removed(store, connection, version, "sample", rows)
    connection.executemany("DELETE FROM samples WHERE id = ?", [(row,) for row in rows])
    if set(held) == set(rows):
        _note_removed(store, connection, version, "template", [person.id])
        _note_removed(store, connection, version, "person", [person.id])
        connection.execute("DELETE FROM people WHERE id = ?", (person.id,))
    else:
        refresh_template(store, connection, person, version)


def rename_person(
    store: Store, connection: sqlite3.Connection, person: PersonKeys, name: str
) -> str:
    """Give a person another name and return what the log says of it.

    Raises:
        InputError: somebody has that name.
    """
    if find_person(store, connection, name) is not None:
        raise InputError(f"somebody called {name!r} is in the collection; give another name")
    connection.execute(
        "UPDATE people SET name = ?, version = ? WHERE id = ?",
        (name, store.next_version(connection), person.id),
    )
    return commit_person(person.salt, name, person.kind, person.created)


def refresh_template(
    store: Store, connection: sqlite3.Connection, person: PersonKeys, version: int
) -> None:
    """Fuse a person's samples anew, where the collection searches templates."""
    if store.collection.fusion == "max":
        return
    vectors, norms, qualities = load_vectors(store, connection, person)
    template = fuse(vectors, norms, qualities, fusion=store.collection.fusion).vector
    value = template.astype("<f4").tobytes()
    sealed = store.vault.seal(person.data_key, value, template_context(person.uid, version))
    connection.execute(
        "INSERT OR REPLACE INTO templates (person_id, collection_id, samples, version, embedding) "
        "VALUES (?, ?, ?, ?, ?)",
        (person.id, store.collection.id, len(vectors), version, sealed),
    )


def load_vectors(
    store: Store, connection: sqlite3.Connection, person: PersonKeys
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return a person's vectors (n, d), norms (n,) and qualities (n,), NaN = unknown."""
    store.check_unlocked()
    rows = connection.execute(
        "SELECT embedding, picture_sha256, norm, quality FROM samples WHERE person_id = ? "
        "ORDER BY id",
        (person.id,),
    ).fetchall()
    values = [
        store.vault.open(person.data_key, row[0], sample_context(store, person.uid, row[1]))
        for row in rows
    ]
    vectors = np.frombuffer(b"".join(values), "<f4").reshape(len(rows), -1).astype(np.float32)
    norms = np.array([row[2] for row in rows], np.float32)
    qualities = [np.nan if row[3] is None else row[3] for row in rows]
    return vectors, norms, np.array(qualities, np.float32)


def _read_keys(store: Store, row: tuple[int, str, str, str, str, bytes, bytes]) -> PersonKeys:
    number, uid, name, kind, created, salt, wrapped = row
    key = b"" if store.locked else store.vault.unwrap(wrapped, person_context(uid))
    return PersonKeys(number, uid, name, kind, created, salt, key)


def _check_samples(store: Store, samples: Sequence[Sample], kind: str) -> None:
    check_one_of(kind, "kind", KINDS)
    if samples:
        check_embeddings(np.stack([s.embedding for s in samples]), "samples", store.model.dim)
    for sample in samples:
        check_one_of(sample.source_class, "source class", SOURCE_CLASSES)
        check_captured(sample.captured)


def _refuse(store: Store, connection: sqlite3.Connection, name: str, sample: Sample) -> str:
    owner = find_owner(store, connection, sample.picture_sha256)
    if not owner:
        return ""
    return ALREADY if owner == name else f"this picture is already enrolled for {owner!r}"


def _insert_person(
    store: Store, connection: sqlite3.Connection, name: str, kind: str, version: int
) -> PersonKeys:
    uid, salt, data_key = make_uid(), make_salt(), store.vault.make_data_key()
    now = audit.read_clock(connection)
    wrapped = store.vault.wrap(data_key, person_context(uid))
    cursor = connection.execute(
        "INSERT INTO people (uid, collection_id, name, kind, salt, data_key, version, created) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            uid,
            store.collection.id,
            name,
            kind,
            salt,
            wrapped,
            version,
            now,
        ),
    )
    assert cursor.lastrowid is not None
    return PersonKeys(cursor.lastrowid, uid, name, kind, now, salt, data_key)


def _insert_sample(
    store: Store,
    connection: sqlite3.Connection,
    person: PersonKeys,
    sample: Sample,
    version: int,
    now: str,
) -> tuple[int | None, str]:
    value = sample.embedding.astype("<f4").tobytes()
    sha = sample.picture_sha256
    fields = (
        float(sample.norm),
        None if sample.quality is None else float(sample.quality),
        None if sample.det_score is None else float(sample.det_score),
        sample.source_class,
        sample.document_class,
        sample.captured,
        int(sample.print_scan),
        sha,
        sample.source,
        version,
        now,
    )
    vault = store.vault
    sealed = vault.seal(person.data_key, value, sample_context(store, person.uid, sha))
    picture = None
    if sample.picture is not None:
        picture = vault.seal(person.data_key, sample.picture, picture_context(person.uid, sha))
    cursor = connection.execute(
        f"INSERT OR IGNORE INTO samples (collection_id, person_id, {', '.join(SAMPLE_FIELDS)}, "
        f"embedding, picture) VALUES ({', '.join('?' * (4 + len(fields)))})",
        (store.collection.id, person.id, *fields, sealed, picture),
    )
    if not cursor.rowcount:
        return None, ""
    return cursor.lastrowid, commit_sample(person.salt, value, sample.picture, fields)


def _note_removed(
    store: Store,
    connection: sqlite3.Connection,
    version: int,
    kind: str,
    rows: Sequence[int],
) -> None:
    connection.executemany(
        "INSERT INTO removed (collection_id, version, kind, row) VALUES (?, ?, ?, ?)",
        [(store.collection.id, version, kind, row) for row in rows],
    )
