"""Who is in a collection and what is kept of them; nothing here opens an embedding."""

from __future__ import annotations

import sqlite3

from facerec.gallery.schema import Person, SampleRow
from facerec.gallery.store import Store


def list_people(store: Store, connection: sqlite3.Connection) -> list[Person]:
    """Return the people with their number of samples, by name."""
    rows = connection.execute(
        "SELECT people.name, COUNT(samples.id), people.created, kind, uid FROM people "
        "LEFT JOIN samples ON samples.person_id = people.id WHERE people.collection_id = ? "
        "GROUP BY people.id ORDER BY people.name",
        (store.collection.id,),
    )
    return [Person(str(row[0]), int(row[1]), str(row[2]), str(row[3]), str(row[4])) for row in rows]


def list_samples(store: Store, connection: sqlite3.Connection, name: str) -> list[SampleRow]:
    """Return a person's samples, oldest first."""
    rows = connection.execute(
        "SELECT samples.id, people.name, norm, quality, det_score, source_class, document_class, "
        "captured, print_scan, picture_sha256, source, samples.created FROM samples "
        "JOIN people ON people.id = person_id "
        "WHERE people.collection_id = ? AND people.name = ? ORDER BY samples.id",
        (store.collection.id, name),
    )
    return [
        SampleRow(
            id=row[0],
            person=row[1],
            norm=row[2],
            quality=row[3],
            det_score=row[4],
            source_class=row[5],
            document_class=row[6],
            captured=row[7],
            print_scan=bool(row[8]),
            picture_sha256=row[9],
            source=row[10],
            created=row[11],
        )
        for row in rows
    ]


def find_owner(store: Store, connection: sqlite3.Connection, picture_sha256: str) -> str:
    """Return who a picture is enrolled for, "" when it is not in the collection."""
    row = connection.execute(
        "SELECT people.name FROM samples JOIN people ON people.id = person_id "
        "WHERE picture_sha256 = ? AND samples.collection_id = ? ORDER BY samples.id",
        (picture_sha256, store.collection.id),
    ).fetchone()
    return str(row[0]) if row else ""
