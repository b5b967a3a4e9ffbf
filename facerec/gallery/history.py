"""Whether something kept outside the store was made of this very store: a point in its log."""

from __future__ import annotations

from facerec.gallery.audit import read_head
from facerec.gallery.store import Store


def read_point(store: Store) -> str:
    """Return the present end of the log as text."""
    with store.reading() as connection:
        number, digest = read_head(connection)
    return f"{number}:{digest}"


def has_point(store: Store, point: str) -> bool:
    """Return whether the log went through a point; not so after a restored backup went on."""
    number, _, digest = point.partition(":")
    if not number.isdigit():
        return False
    with store.reading() as connection:
        row = connection.execute("SELECT hash FROM audit WHERE id = ?", (int(number),)).fetchone()
    return row is not None and row[0] == digest
