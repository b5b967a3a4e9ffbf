"""How a gallery file is opened and written, and what SQLite's complaints mean to a user."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from facerec.checks import InputError
from facerec.gallery.schema import APPLICATION_ID

_BUSY_MS = 30_000


@contextlib.contextmanager
def explain_sqlite(path: Path) -> Iterator[None]:
    """Turn what SQLite says of a damaged or locked-up file into one sentence.

    A full disk, a busy file and our own constraints pass unchanged: the file is not to blame.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        text = str(error)
        if any(word in text for word in ("readonly", "unable to open")):
            raise InputError(
                f"{path} cannot be written ({text}); a gallery logs every use, so it must lie "
                "where you may write"
            ) from error
        if "not a database" in text:
            raise InputError(
                f"{path} is not a usable gallery: {text}; restore it from a backup or take another "
                "folder"
            ) from error
        if any(word in text for word in ("malformed", "no such table")):
            raise InputError(f"{path} is damaged ({text}); restore it from a backup") from error
        raise


@contextlib.contextmanager
def write_transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit the block as one write, or roll all of it back."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def connect(path: Path, new: bool = False) -> sqlite3.Connection:
    """Open a gallery file, or with `new` an empty one.

    Raises:
        InputError: it is another program's file, damaged, or cannot be written.
    """
    with explain_sqlite(path):
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
            (found,) = connection.execute("PRAGMA application_id").fetchone()
            (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
            # Before anything is written: another program's file stays as it is.
            if found != APPLICATION_ID and not (new and not tables):
                raise InputError(
                    f"{path} is not a gallery; make one in another folder with "
                    "`facerec-gallery create`"
                )
            connection.execute("PRAGMA journal_mode = WAL")
            # FULL: what was acknowledged survives a power cut, not only a kill.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
    return connection
