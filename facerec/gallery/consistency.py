"""The tables against the log: what the hash chain alone cannot see, a changed or removed row."""

from __future__ import annotations

import sqlite3
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.gallery.audit import iter_entries
from facerec.io import sha256_bytes

_SHOWN = 20


def hash_embedding(vector: NDArray[np.float32]) -> str:
    """Return the sha256 of an embedding as it is stored, 64 hex digits."""
    return sha256_bytes(vector.astype("<f4").tobytes())


def find_mismatches(connection: sqlite3.Connection) -> list[str]:
    """Return where the tables differ from what the log says was put there.

    Looked at: SQLite's own check, the model, its threshold, the settings, and every sample with
    its person, picture and embedding.

    Args:
        connection: reads one snapshot of an open gallery whose log is whole.
    """
    faults = [f"SQLite: {row[0]}" for row in connection.execute("PRAGMA integrity_check")]
    faults = [fault for fault in faults if fault != "SQLite: ok"]
    logged: dict[tuple[str, str], str] = {}
    for entry in iter_entries(connection):
        if entry.action == "create":
            faults += _compare_creation(connection, entry.details)
        elif entry.action == "enrol":
            person = entry.details["person"]
            for picture, digest in entry.details["added"].items():
                logged[person, picture] = digest
    faults += _compare_samples(connection, logged)
    more = len(faults) - _SHOWN
    return [*faults[:_SHOWN], f"and {more} more"] if more > 0 else faults


def _compare_creation(connection: sqlite3.Connection, details: dict[str, Any]) -> list[str]:
    models = [row[0] for row in connection.execute("SELECT hash FROM models")]
    cut = connection.execute("SELECT value FROM thresholds ORDER BY id DESC LIMIT 1").fetchone()
    held = dict(connection.execute("SELECT key, value FROM settings WHERE key <> 'version'"))
    faults = []
    if models != [details["model_sha256"]]:
        faults.append("the model is not the one that the log names")
    if cut is None or cut[0] != details["threshold"]:
        got = "none" if cut is None else f"{cut[0]:g}"
        faults.append(f"the threshold is {got}, the log says {details['threshold']:g}")
    for key in sorted(held.keys() | details["settings"].keys()):
        said = details["settings"].get(key)
        if held.get(key) != said:
            faults.append(f"setting {key!r} is {held.get(key)!r}, the log says {said!r}")
    return faults


def _compare_samples(
    connection: sqlite3.Connection, logged: dict[tuple[str, str], str]
) -> list[str]:
    faults = []
    left = dict(logged)
    for person, picture, embedding in connection.execute(
        "SELECT people.name, picture_sha256, embedding FROM samples "
        "JOIN people ON people.id = person_id ORDER BY samples.id"
    ):
        digest = left.pop((person, picture), None)
        name = f"the sample of {person!r} from picture {picture[:16]}…"
        if digest is None:
            faults.append(f"{name} is not in the log")
        elif digest != sha256_bytes(embedding):
            faults.append(f"{name} was changed after it was enrolled")
    for person, picture in left:
        name = f"the sample of {person!r} from picture {picture[:16]}…"
        faults.append(f"{name} is in the log, but not in the gallery")
    return faults
