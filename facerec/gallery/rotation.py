"""Another key for a collection: data keys are wrapped anew, embeddings stay as they are."""

from __future__ import annotations

import sqlite3

from facerec.checks import InputError
from facerec.gallery.erasure import scrub
from facerec.gallery.sealing import (
    cohort_context,
    person_context,
    picture_context,
    sample_context,
    template_context,
)
from facerec.gallery.store import Store, secret_context
from facerec.gallery.vault import GalleryKey, Vault


def rotate_key(
    store: Store,
    key: GalleryKey,
    operator: str,
    purpose: str = "",
    settings: dict[str, str] | None = None,
) -> int:
    """Bind a collection to another key, in one transaction, and return how many people it has.

    A plain collection becomes an encrypted one. Afterwards the file is rewritten, so that nothing
    that the old key opens is left in it; the caller opens the store again.

    Args:
        store: open, with the present key.
        key: the new one.
        operator: for the log.
        purpose: for the log.
        settings: what is recorded with it, such as where the key lies.

    Raises:
        InputError: it is the key that the collection has.
    """
    if key.id == store.collection.key_id:
        raise InputError(
            f"collection {store.collection.name!r} has key {key.id} already; give another"
        )
    vault, uid = Vault(key), store.collection.uid
    plain = not store.vault.encrypted
    with store.transaction() as connection:
        rows = connection.execute(
            "SELECT id, uid, data_key FROM people WHERE collection_id = ?", (store.collection.id,)
        ).fetchall()
        secret = vault.make_data_key() if plain else store.secret
        for number, person, wrapped in rows:
            context = person_context(person)
            if plain:
                data_key = vault.make_data_key()
                _seal_person(store, connection, vault, number, person, data_key)
            else:
                data_key = store.vault.unwrap(wrapped, context)
            connection.execute(
                "UPDATE people SET data_key = ? WHERE id = ?",
                (vault.wrap(data_key, context), number),
            )
        if plain:
            _seal_cohort(store, connection, vault, secret)
        connection.execute(
            "UPDATE collections SET key_id = ?, secret = ? WHERE id = ?",
            (key.id, vault.wrap(secret, secret_context(uid)), store.collection.id),
        )
        store.secret = secret
        store.log(connection, "rotate", {"key_id": key.id, "people": len(rows)}, operator, purpose)
        for name, value in sorted((settings or {}).items()):
            connection.execute(
                "INSERT OR REPLACE INTO settings (collection_id, key, value) VALUES (?, ?, ?)",
                (store.collection.id, name, value),
            )
            store.log(connection, "setting", {"key": name, "value": value}, operator, purpose)
    scrub(store)
    return len(rows)


def _seal_person(
    store: Store,
    connection: sqlite3.Connection,
    vault: Vault,
    number: int,
    uid: str,
    data_key: bytes,
) -> None:
    """Seal what stood in the file plainly."""
    for row, sha, embedding, picture in connection.execute(
        "SELECT id, picture_sha256, embedding, picture FROM samples WHERE person_id = ?", (number,)
    ).fetchall():
        sealed = vault.seal(data_key, embedding, sample_context(store, uid, sha))
        kept = None
        if picture is not None:
            kept = vault.seal(data_key, picture, picture_context(uid, sha))
        connection.execute(
            "UPDATE samples SET embedding = ?, picture = ? WHERE id = ?", (sealed, kept, row)
        )
    for version, embedding in connection.execute(
        "SELECT version, embedding FROM templates WHERE person_id = ?", (number,)
    ).fetchall():
        connection.execute(
            "UPDATE templates SET embedding = ? WHERE person_id = ?",
            (vault.seal(data_key, embedding, template_context(uid, version)), number),
        )


def _seal_cohort(store: Store, connection: sqlite3.Connection, vault: Vault, secret: bytes) -> None:
    rows = connection.execute(
        "SELECT id, embedding FROM cohort WHERE collection_id = ?", (store.collection.id,)
    ).fetchall()
    context = cohort_context(store)
    connection.executemany(
        "UPDATE cohort SET embedding = ? WHERE id = ?",
        [(vault.seal(secret, value, context), row) for row, value in rows],
    )
