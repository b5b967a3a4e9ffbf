"""Erasing people: their rows, the index, the caches, the free pages; and the proof that it is so.

What is removed is overwritten by SQLite itself (secure_delete), the write-ahead log is emptied, and
every file of the gallery is read through for the bytes that were there. Where some are left, in the
slack of a page, the file is rewritten. In an encrypted collection the person's data key goes with
them: whatever a disk or a backup still holds of their embeddings cannot be opened any more with
what this gallery holds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from facerec.checks import JobError
from facerec.gallery import audit
from facerec.gallery.cache import drop_caches
from facerec.gallery.people import PersonKeys, remove_samples
from facerec.gallery.results import Receipt
from facerec.gallery.sealing import sample_context
from facerec.gallery.store import SCRUB_PENDING, Store

_WINDOW = 32
"""Bytes of a row that are looked for at a time; SQLite may have split a row over pages."""
_READ_BYTES = 8 << 20
_STRIDE = 256


def erase_samples(
    store: Store,
    targets: Sequence[tuple[PersonKeys, Sequence[int]]],
    action: str,
    operator: str,
    purpose: str = "",
    forget: Callable[[], None] = lambda: None,
) -> list[Receipt]:
    """Remove samples for good and prove it; a person without samples is gone.

    Args:
        store: open.
        targets: people and which rows of theirs.
        action: "erase", "remove" or "expire", for the log.
        operator: for the log.
        purpose: for the log.
        forget: drops what is held in memory, between the removal and the proof.

    Raises:
        InputError: a row is not theirs.
        JobError: bytes could not be removed from a file; the rows are gone.
    """
    receipts = []
    patterns: list[bytes] = []
    for person, rows in targets:
        with store.transaction() as connection:
            patterns += _collect(store, connection, person, rows)
            templates = connection.execute(
                "SELECT COUNT(*) FROM templates WHERE person_id = ?", (person.id,)
            ).fetchone()[0]
            remove_samples(store, connection, person, rows)
            left = connection.execute(
                "SELECT COUNT(*) FROM people WHERE id = ?", (person.id,)
            ).fetchone()[0]
            details = {
                "person": person.uid,
                "samples": list(rows),
                "people_gone": [] if left else [person.uid],
            }
            _set_pending(store, connection, True)
            head = store.log(connection, action, details, operator, purpose)
            entry = audit.read_head(connection)[0]
        receipts.append((person.uid, list(rows), templates, entry, head))
    if not receipts:
        return []
    forget()
    files, traces, compacted = scrub(store, patterns)
    now = _log_proof(store, [r[0] for r in receipts], files, traces, operator)
    if traces:
        raise JobError(
            f"the rows were removed, but their bytes are still in {traces[0]}; close every other "
            "program that has the gallery open and run `facerec-gallery scrub`"
        )
    return [
        Receipt(uid, rows, templates, files, traces, compacted, entry, head, now)
        for uid, rows, templates, entry, head in receipts
    ]


def finish_erasure(store: Store, operator: str) -> bool:
    """Clean up behind an erasure that was killed before its proof; True where there was one."""
    if store.read_setting(SCRUB_PENDING) != "yes":
        return False
    files, traces, _ = scrub(store)
    _log_proof(store, [], files, traces, operator)
    return True


def scrub(store: Store, patterns: Sequence[bytes] = ()) -> tuple[dict[str, int], list[str], bool]:
    """Empty the write-ahead log and free pages, and look for what must not be there.

    Args:
        store: open.
        patterns: byte strings; with none the file is rewritten without looking.

    Returns:
        The files that were read with their bytes, where patterns were found, and whether the file
        was rewritten.
    """
    drop_caches(store.folder)
    compacted = False
    _empty_log(store)
    files, traces = find_traces(store.folder, patterns)
    if traces or not patterns:
        with store.writing_alone() as connection:
            connection.execute("VACUUM")
        compacted = True
        _empty_log(store)
        files, traces = find_traces(store.folder, patterns)
    return files, traces, compacted


def find_traces(folder: Path, patterns: Sequence[bytes]) -> tuple[dict[str, int], list[str]]:
    """Read every file of a gallery through for byte strings of `_WINDOW` bytes.

    Returns:
        The files with their sizes, and "file at byte n" for each first find in a file.
    """
    wanted = {pattern[:_WINDOW] for pattern in patterns if len(pattern) >= _WINDOW}
    files: dict[str, int] = {}
    traces: list[str] = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        files[str(path.relative_to(folder))] = path.stat().st_size
        place = _search_file(path, wanted) if wanted else None
        if place is not None:
            traces.append(f"{path.relative_to(folder)} at byte {place}")
    return files, traces


def _collect(
    store: Store, connection: sqlite3.Connection, person: PersonKeys, rows: Sequence[int]
) -> list[bytes]:
    """Return windows of everything that stands in the rows: sealed and plain."""
    found: list[bytes] = []
    marks = ",".join("?" * len(rows))
    for embedding, picture, sha in connection.execute(
        "SELECT embedding, picture, picture_sha256 FROM samples "
        f"WHERE person_id = ? AND id IN ({marks})",  # rows of others are refused further on
        [person.id, *rows],
    ):
        context = sample_context(store, person.uid, sha)
        found += _windows(embedding)
        found += _windows(store.vault.open(person.data_key, embedding, context))
        found += _windows(picture or b"")
    held = connection.execute(
        "SELECT COUNT(*) FROM samples WHERE person_id = ?", (person.id,)
    ).fetchone()[0]
    if held == len(rows):
        (wrapped,) = connection.execute(
            "SELECT data_key FROM people WHERE id = ?", (person.id,)
        ).fetchone()
        found += _windows(wrapped)
        found += _windows(person.data_key)
    for (template,) in connection.execute(
        "SELECT embedding FROM templates WHERE person_id = ?", (person.id,)
    ):
        found += _windows(template)
    return found


def _windows(value: bytes) -> list[bytes]:
    """Return pieces of a value all along it; constant ones say nothing and are left out."""
    starts = range(0, len(value) - _WINDOW + 1, _STRIDE)
    pieces = [value[start : start + _WINDOW] for start in starts]
    return [piece for piece in pieces if len(set(piece)) > 4]


def _search_file(path: Path, wanted: set[bytes]) -> int | None:
    """Return where one of the byte strings stands in a file, None when none does."""
    import re

    pattern = re.compile(b"|".join(re.escape(piece) for piece in sorted(wanted)))
    tail, offset = b"", 0
    with path.open("rb") as source:
        while block := source.read(_READ_BYTES):
            match = pattern.search(tail + block)
            if match:
                return offset - len(tail) + match.start()
            offset += len(block)
            tail = (tail + block)[-(_WINDOW - 1) :]
    return None


def _empty_log(store: Store) -> None:
    with store.writing_alone() as connection:
        busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    if busy:
        raise JobError(
            f"{store.path} is being read by another process, so that its write-ahead log cannot be "
            "emptied; the rows are removed: run `facerec-gallery scrub` when that one has ended"
        )


def _log_proof(
    store: Store,
    people: list[str],
    files: dict[str, int],
    traces: list[str],
    operator: str,
) -> str:
    details = {"people": people, "files": files, "traces": traces}
    with store.transaction() as connection:
        _set_pending(store, connection, bool(traces))
        store.log(connection, "scrub", details, operator)
        return audit.read_clock(connection)


def _set_pending(store: Store, connection: sqlite3.Connection, pending: bool) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO settings (collection_id, key, value) VALUES (?, ?, ?)",
        (store.collection.id, SCRUB_PENDING, "yes" if pending else "no"),
    )
