"""What is remembered of erased people: a salted hash of the name, never the name.

`erasures.jsonl` holds events: the set's salt, each erasure's begin, and its end with the counts of
what was removed. The hash lets a later ingest or round refuse to bring a person back. It hides the
name from who reads the file, not from who tries a list of names on it: that is what it is for.
"""

from __future__ import annotations

import hashlib
import secrets
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_tools.log_events import append_event, read_events
from data_tools.sets import SetFolder
from facerec.checks import InputError

RECEIPTS_NAME = "erasures.jsonl"
PLAN_NAME = "erasing.parquet"
"""What an erasure that is under way has to remove; gone when it is done."""


def receipts_path(folder: SetFolder) -> Path:
    """Return where a set keeps its receipts."""
    return folder.root / RECEIPTS_NAME


def read_receipts(folder: SetFolder) -> list[dict[str, Any]]:
    """Return the finished erasures of a set, oldest first: their id, date, hash and counts."""
    entries = read_events(receipts_path(folder)).entries
    return [entry for entry in entries if entry["event"] == "done"]


def is_erased(folder: SetFolder, identity: str) -> bool:
    """Return whether a person was erased from a set, or is being erased."""
    return bool(find_erased(folder, [identity]))


def find_erased(folder: SetFolder, identities: Iterable[str]) -> set[str]:
    """Return those of `identities` that were erased from a set, or are being erased.

    One hash an identity, however many were erased; none when nobody was.

    Raises:
        InputError: the receipts are damaged.
    """
    entries = read_events(receipts_path(folder)).entries
    known = {entry["identity_sha256"] for entry in entries if entry["event"] == "begin"}
    if not known:
        return set()
    salt = _find_salt(entries)
    return {name for name in identities if hash_name(name, salt) in known}


def begin_erasure(folder: SetFolder, identity: str, number: str, date: str) -> None:
    """Note, once, that erasure `number` of a person begins; from now on the person is erased."""
    path = receipts_path(folder)
    entries = read_events(path).entries
    if not entries:
        append_event(path, {"event": "salt", "salt": secrets.token_hex(16)})
        entries = read_events(path).entries
    if not any(e["event"] == "begin" and e["id"] == number for e in entries):
        hashed = hash_name(identity, _find_salt(entries))
        append_event(
            path, {"event": "begin", "id": number, "date": date, "identity_sha256": hashed}
        )


def end_erasure(folder: SetFolder, number: str, figures: dict[str, Any]) -> None:
    """Note, once, that erasure `number` is done, with what was removed."""
    path = receipts_path(folder)
    if not any(entry["id"] == number for entry in read_receipts(folder)):
        append_event(path, {"event": "done", "id": number, **figures})


def check_finished(folder: SetFolder) -> None:
    """Raise InputError when an erasure of a set was begun and not brought to its end."""
    if (folder.root / PLAN_NAME).is_file():
        raise InputError(
            f"an erasure of {folder.root} was not finished; finish it with: facerec-clean erase "
            f"{folder.root}"
        )


def hash_name(identity: str, salt: str) -> str:
    """Return the salted sha256 of a name as 64 hex digits; NFC: equal text, equal hash."""
    name = unicodedata.normalize("NFC", identity)
    return hashlib.sha256(f"{salt}\0{name}".encode("utf-8", "backslashreplace")).hexdigest()


def _find_salt(entries: list[dict[str, Any]]) -> str:
    for entry in entries:
        if entry["event"] == "salt":
            return str(entry["salt"])
    raise InputError("the receipts of erasures have lost their salt; restore them from a copy")
