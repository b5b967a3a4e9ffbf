"""The tables against the log: what the hash chain alone cannot see, a changed or removed row."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from facerec.checks import InputError
from facerec.gallery.audit import AuditEntry, iter_entries
from facerec.gallery.fusion import fuse
from facerec.gallery.people import PersonKeys, load_vectors
from facerec.gallery.records import SAMPLE_FIELDS, commit_person, commit_sample, hash_threshold
from facerec.gallery.sealing import (
    person_context,
    picture_context,
    sample_context,
    template_context,
)
from facerec.gallery.store import SCRUB_PENDING, Store, read_collections

_SHOWN = 20


@dataclass
class _Logged:
    """What a collection must hold, by its entries in the log.

    Attributes:
        people: uid -> commitment.
        samples: row -> uid and commitment.
        settings: as set last.
        thresholds: row -> hash of its values; the first one's value beside.
    """

    model: str = ""
    fusion: str = ""
    key_id: str = ""
    threshold: float | None = None
    people: dict[str, str] = field(default_factory=dict)
    samples: dict[int, tuple[str, str]] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    thresholds: dict[int, str] = field(default_factory=dict)
    cohort: int = 0

    def read(self, entry: AuditEntry) -> None:
        """Take one entry in."""
        said = entry.details
        if entry.action in ("create", "migrate"):
            self.model, self.fusion = said["model_sha256"], said["fusion"]
            self.key_id, self.threshold = said["key_id"], said["threshold"]
            self.settings = dict(said["settings"])
        if entry.action == "migrate":
            self.people = dict(said["people"])
            self.samples = {int(row): (v[0], v[1]) for row, v in said["samples"].items()}
        elif entry.action == "enrol":
            if "record" in said:
                self.people[said["person"]] = said["record"]
            for row, text in said["added"].items():
                self.samples[int(row)] = (said["person"], text)
        elif entry.action == "rename":
            self.people[said["person"]] = said["record"]
        elif entry.action in ("remove", "erase", "expire"):
            for row in said["samples"]:
                self.samples.pop(int(row), None)
            for uid in said["people_gone"]:
                self.people.pop(uid, None)
        else:
            self._read_settings(entry.action, said)

    def _read_settings(self, action: str, said: dict[str, Any]) -> None:
        if action == "threshold":
            self.thresholds[said["row"]] = said["values"]
        elif action == "setting":
            self.settings[said["key"]] = said["value"]
        elif action == "cohort":
            self.cohort = said["rows"]
        elif action == "rotate":
            self.key_id = said["key_id"]


def find_mismatches(store: Store, connection: sqlite3.Connection) -> list[str]:
    """Return where the tables of a collection differ from what the log says was put there.

    Looked at: SQLite's own check, the model, thresholds, settings, the cohort's size, and every
    person, sample and template. A locked collection's embeddings cannot be looked at.

    Args:
        store: open.
        connection: reads one snapshot of it, whose log is whole.
    """
    faults = [f"SQLite: {row[0]}" for row in connection.execute("PRAGMA integrity_check")]
    faults = [fault for fault in faults if fault != "SQLite: ok"]
    logged = _Logged()
    for entry in iter_entries(connection):
        if entry.collection == store.collection.name:
            logged.read(entry)
    faults += _compare_collection(store, connection, logged)
    faults += _compare_people(store, connection, logged)
    more = len(faults) - _SHOWN
    return [*faults[:_SHOWN], f"and {more} more"] if more > 0 else faults


def _compare_collection(store: Store, connection: sqlite3.Connection, logged: _Logged) -> list[str]:
    (held,) = (c for c in read_collections(connection) if c.id == store.collection.id)
    faults = []
    if held.model.hash != logged.model:
        faults.append("the model is not the one that the log names")
    if held.fusion != logged.fusion:
        faults.append(f"the fusion is {held.fusion!r}, the log says {logged.fusion!r}")
    if held.key_id != logged.key_id:
        faults.append(f"the key is {held.key_id!r}, the log says {logged.key_id!r}")
    rows = connection.execute(
        "SELECT id, value, kind, normalisation, details FROM thresholds "
        "WHERE collection_id = ? ORDER BY id",
        (held.id,),
    ).fetchall()
    given = next((row for row in rows if row[0] not in logged.thresholds), None)
    if given is None or given[1] != logged.threshold:
        got = "none" if given is None else f"{given[1]:g}"
        faults.append(f"the threshold is {got}, the log says {logged.threshold:g}")
    found = {row[0]: hash_threshold(*row[1:]) for row in rows if row is not given}
    for row in sorted(found.keys() | logged.thresholds.keys()):
        if found.get(row) != logged.thresholds.get(row):
            faults.append(f"threshold {row} is not what the log says")
    settings = dict(
        connection.execute("SELECT key, value FROM settings WHERE collection_id = ?", (held.id,))
    )
    settings.pop(SCRUB_PENDING, None)
    for key in sorted(settings.keys() | logged.settings.keys()):
        value, said = settings.get(key), logged.settings.get(key)
        if value != said:
            faults.append(f"setting {key!r} is {value!r}, the log says {said!r}")
    (cohort,) = connection.execute(
        "SELECT COUNT(*) FROM cohort WHERE collection_id = ?", (held.id,)
    ).fetchone()
    if cohort != logged.cohort:
        faults.append(f"the cohort has {cohort} rows, the log says {logged.cohort}")
    return faults


def _compare_people(store: Store, connection: sqlite3.Connection, logged: _Logged) -> list[str]:
    faults: list[str] = []
    people, samples = dict(logged.people), dict(logged.samples)
    for row in connection.execute(
        "SELECT id, uid, name, kind, created, salt, data_key FROM people WHERE collection_id = ? "
        "ORDER BY id",
        (store.collection.id,),
    ).fetchall():
        number, uid, name, kind, created, salt, wrapped = row
        said = people.pop(uid, None)
        if said is None:
            faults.append(f"{name!r} is not in the log")
        elif said != commit_person(salt, name, kind, created):
            faults.append(f"{name!r} was changed after the enrolment")
        try:
            key = b"" if store.locked else store.vault.unwrap(wrapped, person_context(uid))
            person = PersonKeys(number, uid, name, kind, created, salt, key)
            faults += _compare_samples(store, connection, person, samples)
        except (InputError, ValueError) as error:
            faults.append(f"{name!r}: {error}")
        if len(faults) > _SHOWN:
            break
    else:
        faults += [f"a person ({uid[:8]}…) is in the log, but not in the gallery" for uid in people]
        faults += [f"sample {row} is in the log, but not in the gallery" for row in samples]
    return faults


def _compare_samples(
    store: Store,
    connection: sqlite3.Connection,
    person: PersonKeys,
    left: dict[int, tuple[str, str]],
) -> list[str]:
    faults = []
    for row, sealed, picture, *fields in connection.execute(
        f"SELECT id, embedding, picture, {', '.join(SAMPLE_FIELDS)} FROM samples "
        "WHERE person_id = ? ORDER BY id",
        (person.id,),
    ):
        said = left.pop(row, None)
        if said is None or said[0] != person.uid:
            faults.append(f"sample {row} of {person.name!r} is not in the log")
            continue
        if store.locked:
            continue
        text = _commit_row(store, person, sealed, picture, fields)
        if said[1] != text:
            faults.append(f"sample {row} of {person.name!r} was changed after it was enrolled")
    return faults or _compare_template(store, connection, person)


def _commit_row(
    store: Store,
    person: PersonKeys,
    sealed: bytes,
    picture: bytes | None,
    fields: list[Any],
) -> str:
    sha = str(fields[SAMPLE_FIELDS.index("picture_sha256")])
    vault = store.vault
    value = vault.open(person.data_key, sealed, sample_context(store, person.uid, sha))
    if picture is not None:
        picture = vault.open(person.data_key, picture, picture_context(person.uid, sha))
    return commit_sample(person.salt, value, picture, fields)


def _compare_template(
    store: Store, connection: sqlite3.Connection, person: PersonKeys
) -> list[str]:
    """Fuse the samples again: a template is worth what they are, not more."""
    if store.locked or store.collection.fusion == "max":
        return []
    row = connection.execute(
        "SELECT embedding, version FROM templates WHERE person_id = ?", (person.id,)
    ).fetchone()
    if row is None:
        return [f"the template of {person.name!r} is missing"]
    vectors, norms, qualities = load_vectors(store, connection, person)
    value = store.vault.open(person.data_key, row[0], template_context(person.uid, row[1]))
    wanted = fuse(vectors, norms, qualities, fusion=store.collection.fusion).vector
    held = np.frombuffer(value, "<f4")
    if held.shape != wanted.shape or float(np.abs(held - wanted).max()) > 1e-5:
        return [f"the template of {person.name!r} is not made of their samples"]
    return []
