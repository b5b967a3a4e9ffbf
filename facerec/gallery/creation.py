"""A new collection, in a gallery that is there or a new one."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from facerec.checks import InputError
from facerec.gallery import audit
from facerec.gallery.connection import connect, explain_sqlite, write_transaction
from facerec.gallery.migrations import migrate
from facerec.gallery.records import make_uid
from facerec.gallery.schema import (
    APPLICATION_ID,
    FILE_NAME,
    MAIN,
    SCHEMA,
    SCHEMA_VERSION,
    StoredModel,
    check_collection,
)
from facerec.gallery.store import Store, read_collections, secret_context
from facerec.gallery.vault import GalleryKey, Vault


def create_store(
    folder: Path,
    model: StoredModel,
    settings: dict[str, str],
    threshold: float,
    *,
    collection: str = MAIN,
    fusion: str = "max",
    key: GalleryKey | None = None,
    operator: str = "",
    purpose: str = "",
) -> Store:
    """Make an empty collection in the gallery of `folder`, and the gallery where there is none.

    Args:
        folder: made where it is missing; its file is readable by its owner only.
        model: the recogniser.
        settings: what enrolment and search use unless told otherwise.
        threshold: cosine in [-1, 1] from which a candidate is accepted.
        collection: its name.
        fusion: how samples become templates.
        key: encrypts the embeddings; None: they are stored plain.
        operator: for the audit log.
        purpose: for the audit log.

    Raises:
        InputError: there is such a collection already, or another file in the gallery's place, or
            the folder cannot be made.
    """
    path = folder / FILE_NAME
    name = check_collection(collection)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise InputError(f"cannot make a gallery in {folder}: {error.strerror}") from error
    with contextlib.closing(connect(path, new=True)) as connection, explain_sqlite(path):
        migrate(connection, path)
        with write_transaction(connection):
            if not connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
                for statement in SCHEMA:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            if name in [found.name for found in read_collections(connection)]:
                raise InputError(
                    f"{folder} holds a gallery with a collection {name!r} already; give another "
                    "folder, or another --collection"
                )
            _insert_collection(
                connection, name, model, settings, threshold, fusion, key, (operator, purpose)
            )
    return Store(path, name, key, locked=False)


def _insert_collection(
    connection: sqlite3.Connection,
    name: str,
    model: StoredModel,
    settings: dict[str, str],
    threshold: float,
    fusion: str,
    key: GalleryKey | None,
    who: tuple[str, str],
) -> None:
    uid, now, vault = make_uid(), audit.read_clock(connection), Vault(key)
    secret = vault.make_data_key()
    run = connection.execute
    run(
        "INSERT OR IGNORE INTO models (name, hash, dim, created) VALUES (?, ?, ?, ?)",
        (model.name, model.hash, model.dim, now),
    )
    (model_id, dim) = run("SELECT id, dim FROM models WHERE hash = ?", (model.hash,)).fetchone()
    if dim != model.dim:
        raise InputError(
            f"model {model.name} has {dim} dimensions in this gallery, got {model.dim}; "
            "a model's hash names one file"
        )
    wrapped = vault.wrap(secret, secret_context(uid)) if key else b""
    collection_id = run(
        "INSERT INTO collections (uid, name, model_id, fusion, key_id, secret, version, created) "
        "VALUES (?, ?, ?, ?, ?, ?, 0, ?)",
        (uid, name, model_id, fusion, vault.key_id, wrapped, now),
    ).lastrowid
    connection.executemany(
        "INSERT INTO settings (collection_id, key, value) VALUES (?, ?, ?)",
        [(collection_id, *setting) for setting in sorted(settings.items())],
    )
    run(
        "INSERT INTO thresholds (collection_id, value, kind, normalisation, details, created) "
        "VALUES (?, ?, 'given', 'none', '{}', ?)",
        (collection_id, threshold, now),
    )
    details = {
        "uid": uid,
        "model": model.name,
        "model_sha256": model.hash,
        "fusion": fusion,
        "key_id": vault.key_id,
        "settings": settings,
        "threshold": threshold,
    }
    audit.append_entry(connection, "create", details, *who, name, secret)
