"""A file of events, one JSON line each, that only grows: an event is there whole or not at all.

Each line carries the hash of the line before it, so that a line that was changed, removed or put in
is noticed. What a killed writer left behind the last whole line is ignored, and cut off by the next
one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facerec.checks import InputError
from facerec.io import sha256_bytes, sync_folder, write_bytes

_CHAIN = "previous"


@dataclass(frozen=True)
class Events:
    """What a file of events says.

    Attributes:
        entries: the events in order, without the chain.
        committed_bytes: length of the file up to the end of its last whole line.
        digest: sha256 of the last whole line, "" when there is none.
    """

    entries: list[dict[str, Any]] = field(default_factory=list)
    committed_bytes: int = 0
    digest: str = ""


def read_events(path: Path) -> Events:
    """Return the events of a file; a missing file has none, a torn end is ignored.

    Raises:
        InputError: a whole line is damaged, or does not follow the one before it.
    """
    entries: list[dict[str, Any]] = []
    committed, digest = 0, ""
    if not path.exists():
        return Events()
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):  # only the last can be so
                break
            entry = _decode(line)
            if entry is None:
                raise InputError(f"{path}, line {number} is damaged; restore the file from a copy")
            if "event" not in entry:
                raise InputError(
                    f"{path} is of an older facerec, with a decision on each line, which is no "
                    "longer read; move it away and run: facerec-clean run SET --model MODEL"
                )
            if entry.pop(_CHAIN, None) != digest:
                raise InputError(
                    f"{path}, line {number} does not follow the line before it: a line was changed "
                    "or removed; restore the file from a copy"
                )
            entries.append(entry)
            committed, digest = committed + len(line), sha256_bytes(line)
    return Events(entries, committed, digest)


def append_event(path: Path, event: dict[str, Any]) -> None:
    """Add an event, durable on return; killed at any moment, it is there whole or not at all.

    Args:
        path: the file; made with its folder when missing.
        event: plain JSON values with a text `event`, its kind.

    Raises:
        InputError: as `read_events`.
    """
    found = read_events(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.truncate(found.committed_bytes)
        file.write(_encode(event, found.digest))
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def replace_events(path: Path, events: Iterable[dict[str, Any]]) -> None:
    """Write a file of events anew, chained from the first on, all or nothing.

    Only for an erasure, which must take a name out of what was logged.
    """
    lines: list[bytes] = []
    digest = ""
    for event in events:
        lines.append(_encode(event, digest))
        digest = sha256_bytes(lines[-1])
    write_bytes(path, b"".join(lines))


def _encode(event: dict[str, Any], digest: str) -> bytes:
    text = json.dumps(
        {**event, _CHAIN: digest}, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _decode(line: bytes) -> dict[str, Any] | None:
    """Return a line's entry, None when it is damaged."""
    try:
        entry = json.loads(line)
    except (UnicodeDecodeError, json.JSONDecodeError):
        return None
    return entry if isinstance(entry, dict) else None
