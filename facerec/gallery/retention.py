"""Retention clocks: how long a sample may be kept, and when it stops being searched."""

from __future__ import annotations

import datetime
import sqlite3
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from facerec.checks import check_whole
from facerec.gallery.audit import read_clock
from facerec.gallery.people import PersonKeys, read_keys
from facerec.gallery.store import RETENTION_DAYS, Store

MAX_DAYS = 36_500


def check_days(days: int) -> int:
    """Return a retention in days, 0 = without end, or raise InputError."""
    return check_whole(days, "retention_days", 0, MAX_DAYS)


def find_cutoff(now: str, days: int) -> str:
    """Return the moment before which a sample is overdue, "" where nothing ever is."""
    if not days:
        return ""
    moment = datetime.datetime.fromisoformat(now) - datetime.timedelta(days=days)
    return moment.isoformat(timespec="microseconds")


class Clock:
    """Says what is overdue; time is that of the log where the machine's was set back.

    Overdue samples are never searched, from the moment they are overdue; `facerec-gallery expire`
    erases them.

    Args:
        store: open.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._days = int(store.read_setting(RETENTION_DAYS, "0"))
        self._next = ""

    def cutoff(self) -> str:
        """Return the moment before which nothing may be searched, "" = no such moment."""
        if not self._days:
            return ""
        with self._store.reading() as connection:
            return find_cutoff(read_clock(connection), self._days)

    def take_overdue(self) -> NDArray[np.int64]:
        """Return the rows that became overdue; cheap while none did."""
        cutoff = self.cutoff()
        if not cutoff or cutoff < self._next:
            return np.empty(0, np.int64)
        held = self._store.collection.id
        with self._store.reading() as connection:
            if self._store.collection.fusion == "max":
                query = "SELECT id FROM samples WHERE collection_id = ? AND created < ?"
            else:
                query = (
                    "SELECT person_id FROM samples WHERE collection_id = ? GROUP BY person_id "
                    "HAVING MAX(created) < ?"
                )
            rows = [row[0] for row in connection.execute(query, (held, cutoff))]
            found = connection.execute(
                "SELECT MIN(created) FROM samples WHERE collection_id = ? AND created >= ?",
                (held, cutoff),
            ).fetchone()
        self._next = str(found[0]) if found[0] else ""
        return np.array(rows, np.int64)


def iter_overdue(
    store: Store, connection: sqlite3.Connection, cutoff: str
) -> Iterator[tuple[PersonKeys, list[int]]]:
    """Yield every person with overdue samples, and which."""
    rows = connection.execute(
        "SELECT person_id, id FROM samples WHERE collection_id = ? AND created < ? "
        "ORDER BY person_id, id",
        (store.collection.id, cutoff),
    ).fetchall()
    by_person: dict[int, list[int]] = {}
    for person, row in rows:
        by_person.setdefault(person, []).append(row)
    for person, samples in by_person.items():
        yield read_keys(store, connection, person), samples
