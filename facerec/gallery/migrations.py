"""A gallery of an older schema, brought to the present one in a single transaction."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from facerec.checks import InputError
from facerec.gallery import audit
from facerec.gallery.connection import write_transaction
from facerec.gallery.records import commit_person, commit_sample, make_salt, make_uid
from facerec.gallery.schema import MAIN, SCHEMA_VERSION, TABLES

_OLD = ("samples", "thresholds", "settings", "people", "models")


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring an open gallery file to `SCHEMA_VERSION`; an empty file and a present one stay.

    A kill in the middle leaves the old schema, whole. The move is logged, and the log says from
    then on of every row what `records` says of it.

    Raises:
        InputError: it was written by a newer facerec.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    if version == SCHEMA_VERSION or not tables:
        return
    if version != 1:
        raise InputError(
            f"{path} has schema version {version}, this facerec reads {SCHEMA_VERSION}; "
            "update facerec"
        )
    with write_transaction(connection):
        if connection.execute("PRAGMA user_version").fetchone()[0] == 1:  # not by another process
            _from_1_to_2(connection)
            connection.execute("PRAGMA user_version = 2")


def _from_1_to_2(connection: sqlite3.Connection) -> None:
    """Schema 2: collections, uids and salts, templates, cohorts, a log without names."""
    run = connection.execute
    run("DROP INDEX samples_by_picture")
    for table in _OLD:
        run(f"ALTER TABLE {table} RENAME TO old_{table}")
    for statement in TABLES:
        run(statement)
    run("ALTER TABLE audit ADD COLUMN created TEXT NOT NULL DEFAULT ''")
    run("ALTER TABLE audit ADD COLUMN seal TEXT NOT NULL DEFAULT ''")
    run("INSERT INTO models SELECT * FROM old_models")
    uid = make_uid()
    settings = dict(run("SELECT key, value FROM old_settings").fetchall())
    version = int(settings.pop("version"))
    collection_id = run(
        "INSERT INTO collections (uid, name, model_id, fusion, key_id, secret, version, created) "
        "SELECT ?, ?, id, 'max', '', x'', ?, created FROM models ORDER BY id LIMIT 1",
        (uid, MAIN, version),
    ).lastrowid
    connection.executemany(
        "INSERT INTO settings (collection_id, key, value) VALUES (?, ?, ?)",
        [(collection_id, *setting) for setting in sorted(settings.items())],
    )
    run(
        "INSERT INTO thresholds (collection_id, value, kind, normalisation, details, created) "
        "SELECT ?, value, kind, 'none', '{}', created FROM old_thresholds ORDER BY id",
        (collection_id,),
    )
    assert collection_id is not None
    people = _move_people(connection, collection_id, version)
    samples = _move_samples(connection, collection_id, version)
    for table in _OLD:
        run(f"DROP TABLE old_{table}")
    threshold = run("SELECT value FROM thresholds ORDER BY id DESC LIMIT 1").fetchone()[0]
    details = {
        "from": 1,
        "to": 2,
        "uid": uid,
        "model_sha256": run("SELECT hash FROM models ORDER BY id LIMIT 1").fetchone()[0],
        "fusion": "max",
        "key_id": "",
        "settings": settings,
        "threshold": threshold,
        "people": people,
        "samples": samples,
    }
    audit.append_entry(connection, "migrate", details, collection=MAIN)


def _move_people(
    connection: sqlite3.Connection, collection_id: int, version: int
) -> dict[str, str]:
    said: dict[str, str] = {}
    rows = connection.execute("SELECT id, name, created FROM old_people ORDER BY id").fetchall()
    for number, name, created in rows:
        uid, salt = make_uid(), make_salt()
        connection.execute(
            "INSERT INTO people (id, uid, collection_id, name, kind, salt, data_key, version, "
            "created) VALUES (?, ?, ?, ?, 'person', ?, x'', ?, ?)",
            (number, uid, collection_id, name, salt, version, created),
        )
        said[uid] = commit_person(salt, name, "person", created)
    return said


def _move_samples(
    connection: sqlite3.Connection, collection_id: int, version: int
) -> dict[str, list[str]]:
    said: dict[str, list[str]] = {}
    rows = connection.execute(
        "SELECT old_samples.id, person_id, embedding, norm, det_score, picture_sha256, source, "
        "old_samples.created, uid, salt FROM old_samples JOIN people ON people.id = person_id "
        "ORDER BY old_samples.id"
    )
    reader = iter(rows.fetchall())
    for row, person, embedding, norm, det_score, sha, source, created, uid, salt in reader:
        connection.execute(
            "INSERT INTO samples (id, collection_id, person_id, norm, quality, det_score, "
            "source_class, document_class, captured, print_scan, picture_sha256, source, version, "
            "created, embedding) VALUES (?, ?, ?, ?, NULL, ?, 'scene', '', '', 0, ?, ?, ?, ?, ?)",
            (row, collection_id, person, norm, det_score, sha, source, version, created, embedding),
        )
        fields = (norm, None, det_score, "scene", "", "", 0, sha, source, version, created)
        said[str(row)] = [uid, commit_sample(salt, embedding, None, fields)]
    return said
