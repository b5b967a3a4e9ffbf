"""The record of who searched and changed what: append-only, each entry chained to the one before.

The hash of an entry is sha256(previous hash + canonical JSON of the entry). A changed, removed or
reordered entry breaks the chain. Cutting the tail leaves a valid shorter chain: SQLite's own
sequence counter shows that, and a head hash noted elsewhere proves it. Entries about an encrypted
collection are sealed beside with its secret, so that nobody without the key can forge a chain.

The log outlives the people in it: it names them by a random uid, and what it says of their rows is
a hash salted with a secret of theirs (`records`). When the person is erased the salt goes, and
nothing in the log can be tied to them any more; the chain still holds.
"""

from __future__ import annotations

import datetime
import getpass
import hashlib
import hmac
import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from facerec.checks import InputError

GENESIS = "0" * 64

SCHEMA = (
    """CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        entry TEXT NOT NULL,
        previous TEXT NOT NULL,
        hash TEXT NOT NULL,
        created TEXT NOT NULL DEFAULT '',
        seal TEXT NOT NULL DEFAULT ''
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
        created: UTC, ISO 8601; never before the entry before it.
        operator: who did it.
        action: "create", "enrol", "search", "compare", "threshold", "erase", ...
        purpose: why, as the operator stated it; may be empty.
        collection: which watch list; "" in entries of schema 1.
        details: what the action touched, plain JSON values; people by uid.
        hash: 64 hex digits.
    """

    number: int
    created: str
    operator: str
    action: str
    purpose: str
    collection: str
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


def read_clock(connection: sqlite3.Connection) -> str:
    """Return the time, or that of the last entry where the clock was set back behind it.

    Retention must not be stretched, nor the log put out of order, by a wrong clock.
    """
    row = connection.execute("SELECT created FROM audit ORDER BY id DESC LIMIT 1").fetchone()
    return max(utc_now(), str(row[0]) if row else "")


def append_entry(
    connection: sqlite3.Connection,
    action: str,
    details: dict[str, Any],
    operator: str = "",
    purpose: str = "",
    collection: str = "",
    secret: bytes = b"",
) -> str:
    """Append one entry inside the caller's write transaction and return its hash.

    Args:
        connection: holds a write transaction (BEGIN IMMEDIATE), so that no other writer can
            append between the reading of the last hash and the insertion.
        action: what was done.
        details: plain JSON values; NaN and infinity are refused.
        operator: who; the process's user when empty.
        purpose: why.
        collection: the watch list's name.
        secret: of an encrypted collection; seals the entry.
    """
    assert connection.in_transaction, "audit entries belong to the transaction of their action"
    last = connection.execute(
        "SELECT id, hash, created FROM audit ORDER BY id DESC LIMIT 1"
    ).fetchone()
    number, previous, before = (last[0] + 1, last[1], last[2]) if last else (1, GENESIS, "")
    now = utc_now()
    if now < before:
        details = {**details, "clock_said": now}
        now = before
    entry = _encode(
        {
            "number": number,
            "created": now,
            "operator": operator or current_operator(),
            "action": action,
            "purpose": purpose,
            "collection": collection,
            "details": details,
        }
    )
    digest = _chain(previous, entry)
    connection.execute(
        "INSERT INTO audit (id, entry, previous, hash, created, seal) VALUES (?, ?, ?, ?, ?, ?)",
        (number, entry, previous, digest, now, make_seal(secret, digest)),
    )
    return digest


def make_seal(secret: bytes, digest: str) -> str:
    """Return the seal of an entry's hash, "" without a secret."""
    return hmac.digest(secret, digest.encode(), "sha256").hex() if secret else ""


def iter_entries(connection: sqlite3.Connection, last: int | None = None) -> Iterator[AuditEntry]:
    """Yield the entries in order, all or the last so many; the chain is not checked here."""
    start = 0
    if last is not None:
        start = max(0, read_head(connection)[0] - last)
    for number, entry, digest in connection.execute(
        "SELECT id, entry, hash FROM audit WHERE id > ? ORDER BY id", (start,)
    ):
        try:
            values = json.loads(entry)
            yield AuditEntry(
                number,
                str(values["created"]),
                str(values["operator"]),
                str(values["action"]),
                str(values["purpose"]),
                str(values.get("collection", "")),
                dict(values["details"]),
                digest,
            )
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"audit entry {number} is not readable; run `facerec-gallery audit`"
            ) from None


def verify_chain(
    connection: sqlite3.Connection,
    noted_head: str = "",
    secret_of: Callable[[str], bytes] | None = None,
) -> list[str]:
    """Return what is wrong with the log, nothing when every entry is as it was written.

    Args:
        connection: an open gallery.
        noted_head: a head hash that was noted earlier and must still be in the chain.
        secret_of: gives the secret of a collection by its name, b"" where there is none or its
            key is not at hand; seals are checked with it.
    """
    faults: list[str] = []
    sealed: set[str] = set()
    previous, expected = GENESIS, 1
    seen_head = not noted_head
    # As bytes: text that was tampered with need not be text any more.
    for number, *columns in connection.execute(
        "SELECT id, CAST(entry AS BLOB), CAST(previous AS BLOB), CAST(hash AS BLOB), "
        "CAST(created AS BLOB), CAST(seal AS BLOB) FROM audit ORDER BY id"
    ):
        entry, linked, digest, created, seal = (_decode(column) for column in columns)
        if number != expected:
            faults.append(f"entries {expected} to {number - 1} are missing")
        if linked != previous:
            faults.append(f"entry {number} does not follow the one before it")
        if _chain(linked, entry) != digest or not _agrees(entry, number, created):
            faults.append(f"entry {number} was changed after it was written")
        elif secret_of is not None and not _is_sealed(entry, digest, seal, secret_of, sealed):
            faults.append(f"entry {number} carries a wrong seal: it was not written with the key")
        seen_head = seen_head or digest == noted_head
        previous, expected = digest, number + 1
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'audit'").fetchone()
    if row is None and expected > 1:
        faults.append("the counter of the log was removed")
    if row is not None and row[0] != expected - 1:
        faults.append(f"entries {expected} to {row[0]} are missing at the end")
    if not seen_head:
        faults.append(f"the noted head {noted_head[:16]}… is not in the log")
    return faults


def read_head(connection: sqlite3.Connection) -> tuple[int, str]:
    """Return the number of entries and the last hash; note both elsewhere to prove the end."""
    row = connection.execute("SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1").fetchone()
    return (int(row[0]), str(row[1])) if row else (0, GENESIS)


def _encode(values: dict[str, Any]) -> str:
    return json.dumps(
        values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def _chain(previous: str, entry: str) -> str:
    text = (previous + entry).encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()


def _decode(column: bytes | None) -> str:
    return (column or b"").decode("utf-8", "surrogateescape")


def _agrees(entry: str, number: int, created: str) -> bool:
    """Return whether the columns beside an entry say what it says itself."""
    try:
        values = json.loads(entry)
        said = values["created"] if "collection" in values else ""  # schema 1 had no such column
        return bool(values["number"] == number and created == said)
    except (ValueError, KeyError, TypeError):
        return False


def _is_sealed(
    entry: str, digest: str, seal: str, secret_of: Callable[[str], bytes], sealed: set[str]
) -> bool:
    """Return whether a seal is right; `sealed` are the collections that have one, from then on."""
    collection = str(json.loads(entry).get("collection", ""))
    secret = secret_of(collection)
    if not secret:
        return True
    if not seal and collection not in sealed:
        return True  # it became an encrypted one later; the seals of what follows cover this too
    sealed.add(collection)
    return hmac.compare_digest(seal, make_seal(secret, digest))
