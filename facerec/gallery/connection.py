"""How a gallery file is opened and written, and what SQLite's complaints mean to a user."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from facerec.checks import InputError
from facerec.gallery.schema import APPLICATION_ID

BUSY_MS = 30_000
_RETRY_S = (0.0005, 0.003)
"""Between two tries for the write lock, drawn at random; SQLite's own waits grow to 100 ms, and
with many writers some of them wait for seconds."""


@contextlib.contextmanager
def explain_sqlite(path: Path) -> Iterator[None]:
    """Turn what SQLite says of a damaged, full or locked-up file into one sentence.

    Our own constraints pass unchanged: the file is not to blame.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is damaged (a text in it is no text); restore it from a backup"
        ) from error
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
        if any(
            word in text
            for word in ("malformed", "no such table", "no such column", "decode to UTF-8")
        ):
            raise InputError(f"{path} is damaged ({text}); restore it from a backup") from error
        if "disk is full" in text or "disk I/O error" in text:
            raise InputError(
                f"{path} cannot be written ({text}); nothing of this action was kept: make room "
                "and do it again"
            ) from error
        if "is locked" in text:
            raise InputError(
                f"{path} was kept busy by another process for {BUSY_MS // 1000} s; nothing of "
                "this action was kept: do it again later"
            ) from error
        raise


@contextlib.contextmanager
def write_transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit the block as one write, or roll all of it back."""
    _begin(connection)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _begin(connection: sqlite3.Connection) -> None:
    """Take the write lock; `BUSY_MS` after the first try give up as SQLite does."""
    until = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
        time.sleep(random.uniform(*_RETRY_S))


def set_patience(connection: sqlite3.Connection, patient: bool) -> None:
    """Set whether SQLite itself waits for other processes; not where we do."""
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS if patient else 0}")


def connect(path: Path, new: bool = False, synchronous: str = "FULL") -> sqlite3.Connection:
    """Open a gallery file, or with `new` an empty one.

    Args:
        path: the file.
        new: whether it may be empty.
        synchronous: FULL: what was committed survives a power cut; NORMAL: it survives a kill,
            and a power cut may take the last commits, never tear one.

    Raises:
        InputError: it is another program's file, damaged, or cannot be written.
    """
    with explain_sqlite(path):
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            set_patience(connection, True)
            (found,) = connection.execute("PRAGMA application_id").fetchone()
            (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
            # Before anything is written: another program's file stays as it is.
            if found != APPLICATION_ID and not (new and not tables):
                raise InputError(
                    f"{path} is not a gallery; make one in another folder with "
                    "`facerec-gallery create`"
                )
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            connection.execute("PRAGMA foreign_keys = ON")
            # What is deleted is overwritten: an erased person leaves no bytes on free pages.
            connection.execute("PRAGMA secure_delete = ON")
        except BaseException:
            connection.close()
            raise
    return connection
