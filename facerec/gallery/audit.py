"""The record of who searched and changed what: append-only, each entry chained to the one before.

The hash of an entry is sha256(previous hash + canonical JSON of the entry). A changed, removed or
reordered entry breaks the chain. Cutting the tail leaves a valid shorter chain: SQLite's own
sequence counter shows that, and a head hash noted elsewhere proves it.
"""

from __future__ import annotations

import datetime
import getpass
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from facerec.checks import InputError

GENESIS = "0" * 64

SCHEMA = (
    """CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        entry TEXT NOT NULL,
        previous TEXT NOT NULL,
        hash TEXT NOT NULL UNIQUE
    ) STRICT""",
    """CREATE TRIGGER audit_is_not_updated BEFORE UPDATE ON audit
       BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
    """CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
       BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
)


@dataclass(frozen=True)
class AuditEntry:
    """One thing that was done.

    Attributes:
        number: from 1, without gaps.
        created: UTC, ISO 8601.
        operator: who did it.
        action: "create", "enrol", "search" or "threshold".
        purpose: why, as the operator stated it; may be empty.
        details: what the action touched, plain JSON values.
        hash: 64 hex digits.
    """

    number: int
    created: str
    operator: str
    action: str
    purpose: str
    details: dict[str, Any]
    hash: str


def current_operator() -> str:
    """Return the user name of this process, "unknown" where there is none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # no login name, as in some containers
        return "unknown"


def utc_now() -> str:
    """Return the time in UTC, ISO 8601 with microseconds."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds")


def append_entry(
    connection: sqlite3.Connection,
    action: str,
    details: dict[str, Any],
    operator: str = "",
    purpose: str = "",
) -> str:
    """Append one entry inside the caller's write transaction and return its hash.

    Args:
        connection: holds a write transaction (BEGIN IMMEDIATE), so that no other writer can
            append between the reading of the last hash and the insertion.
        action: what was done.
        details: plain JSON values; NaN and infinity are refused.
        operator: who; the process's user when empty.
        purpose: why.
    """
    assert connection.in_transaction, "audit entries belong to the transaction of their action"
    last = connection.execute("SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1").fetchone()
    number, previous = (last[0] + 1, last[1]) if last else (1, GENESIS)
    entry = json.dumps(
        {
            "number": number,
            "created": utc_now(),
            "operator": operator or current_operator(),
            "action": action,
            "purpose": purpose,
            "details": details,
        },
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )
    digest = _chain(previous, entry)
    connection.execute(
        "INSERT INTO audit (id, entry, previous, hash) VALUES (?, ?, ?, ?)",
        (number, entry, previous, digest),
    )
    return digest


def iter_entries(connection: sqlite3.Connection) -> Iterator[AuditEntry]:
    """Yield the entries in order; the chain is not checked here."""
    for number, entry, digest in connection.execute(
        "SELECT id, entry, hash FROM audit ORDER BY id"
    ):
        try:
            values = json.loads(entry)
            yield AuditEntry(
                number,
                str(values["created"]),
                str(values["operator"]),
                str(values["action"]),
                str(values["purpose"]),
                dict(values["details"]),
                digest,
            )
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"audit entry {number} is not readable; run `facerec-gallery audit`"
            ) from None


def verify_chain(connection: sqlite3.Connection, noted_head: str = "") -> list[str]:
    """Return what is wrong with the log, nothing when every entry is as it was written.

    Args:
        connection: an open gallery.
        noted_head: a head hash that was noted earlier and must still be in the chain.
    """
    faults: list[str] = []
    previous, expected = GENESIS, 1
    seen_head = not noted_head
    for number, entry, linked, digest in connection.execute(
        "SELECT id, entry, previous, hash FROM audit ORDER BY id"
    ):
        if number != expected:
            faults.append(f"entries {expected} to {number - 1} are missing")
        if linked != previous:
            faults.append(f"entry {number} does not follow the one before it")
        if _chain(linked, entry) != digest:
            faults.append(f"entry {number} was changed after it was written")
        seen_head = seen_head or digest == noted_head
        previous, expected = digest, number + 1
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'audit'").fetchone()
    if row is not None and row[0] != expected - 1:
        faults.append(f"entries {expected} to {row[0]} are missing at the end")
    if not seen_head:
        faults.append(f"the noted head {noted_head[:16]}… is not in the log")
    return faults


def read_head(connection: sqlite3.Connection) -> tuple[int, str]:
    """Return the number of entries and the last hash; note both elsewhere to prove the end."""
    row = connection.execute("SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1").fetchone()
    return (int(row[0]), str(row[1])) if row else (0, GENESIS)


def _chain(previous: str, entry: str) -> str:
    return hashlib.sha256(previous.encode() + entry.encode()).hexdigest()
