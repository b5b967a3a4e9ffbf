import json
import sqlite3

import numpy as np
import pytest
from gallery_cases import faces, ones

from facerec.checks import InputError
from facerec.gallery import audit, migrations
from facerec.gallery.gallery import Gallery
from facerec.gallery.schema import APPLICATION_ID, FILE_NAME
from facerec.io import sha256_bytes

OLD_SCHEMA = (
    """CREATE TABLE models (id INTEGER PRIMARY KEY, name TEXT NOT NULL, hash TEXT NOT NULL UNIQUE,
        dim INTEGER NOT NULL CHECK (dim > 0), created TEXT NOT NULL) STRICT""",
    """CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE CHECK (name <> ''),
        created TEXT NOT NULL) STRICT""",
    """CREATE TABLE samples (id INTEGER PRIMARY KEY,
        person_id INTEGER NOT NULL REFERENCES people (id) ON DELETE CASCADE,
        model_id INTEGER NOT NULL REFERENCES models (id), embedding BLOB NOT NULL,
        norm REAL NOT NULL, det_score REAL, picture_sha256 TEXT NOT NULL, source TEXT NOT NULL,
        created TEXT NOT NULL, UNIQUE (person_id, model_id, picture_sha256)) STRICT""",
    "CREATE INDEX samples_by_picture ON samples (picture_sha256)",
    """CREATE TABLE thresholds (id INTEGER PRIMARY KEY,
        model_id INTEGER NOT NULL REFERENCES models (id),
        value REAL NOT NULL CHECK (value BETWEEN -1 AND 1), kind TEXT NOT NULL,
        people INTEGER NOT NULL, created TEXT NOT NULL) STRICT""",
    "CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
    """CREATE TABLE audit (id INTEGER PRIMARY KEY AUTOINCREMENT, entry TEXT NOT NULL,
        previous TEXT NOT NULL, hash TEXT NOT NULL UNIQUE) STRICT""",
    """CREATE TRIGGER audit_is_not_updated BEFORE UPDATE ON audit
       BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
    """CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
       BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
)
NOW = "2026-11-01T00:00:00.000000+00:00"


def append_old(connection, action, details):
    row = connection.execute("SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1").fetchone()
    number, previous = (row[0] + 1, row[1]) if row else (1, audit.GENESIS)
    entry = json.dumps(
        {
            "number": number,
            "created": NOW,
            "operator": "old",
            "action": action,
            "purpose": "",
            "details": details,
        },
        sort_keys=True,
        separators=(",", ":"),
    )
    digest = sha256_bytes((previous + entry).encode())
    connection.execute("INSERT INTO audit VALUES (?, ?, ?, ?)", (number, entry, previous, digest))


@pytest.fixture
def old(tmp_path):
    """A gallery as schema 1 wrote it."""
    connection = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    for statement in OLD_SCHEMA:
        connection.execute(statement)
    run = connection.execute
    run("INSERT INTO models VALUES (1, 'toy', ?, 32, ?)", ("a" * 64, NOW))
    run("INSERT INTO settings VALUES ('version', '7'), ('detector', 'aligned')")
    run("INSERT INTO thresholds VALUES (1, 1, 0.45, 'given', 0, ?)", (NOW,))
    details = {"model_sha256": "a" * 64, "settings": {"detector": "aligned"}, "threshold": 0.45}
    append_old(connection, "create", {"model": "toy", **details})
    for number, vector in enumerate(faces(3)):
        name, value = ("ann", "bob")[number > 1], vector.tobytes()
        run("INSERT OR IGNORE INTO people (name, created) VALUES (?, ?)", (name, NOW))
        run(
            "INSERT INTO samples VALUES (?, (SELECT id FROM people WHERE name = ?), 1, ?, 9.5, "
            "NULL, ?, ?, ?)",
            (number + 1, name, value, f"p{number}", f"{name}.jpg", NOW),
        )
        added = {"person": name, "added": {f"p{number}": sha256_bytes(value)}}
        append_old(connection, "enrol", added)
    run(f"PRAGMA application_id = {APPLICATION_ID}")
    run("PRAGMA user_version = 1")
    connection.close()
    return tmp_path


def test_an_old_gallery_answers_as_before(old):
    with Gallery.open(old) as gallery:
        assert [(p.name, p.samples) for p in gallery.people()] == [("ann", 2), ("bob", 1)]
        assert gallery.store.read_threshold() == 0.45
        assert gallery.store.read_setting("detector") == "aligned"
        assert gallery.store.read_version() == 7
        assert [a.person for a in gallery.search(faces(3))] == ["ann", "ann", "bob"]
        assert [s.source for s in gallery.samples("ann")] == ["ann.jpg"] * 2
        actions = [e.action for e in gallery.list_audit()][:5]
        assert actions == ["create", "enrol", "enrol", "enrol", "migrate"]
        assert gallery.verify_audit() == []
        gallery.enrol("cem", faces(1, seed=3), ones(1))
        gallery.erase("bob")
        assert gallery.verify_audit() == []
    with Gallery.open(old) as gallery:
        assert [p.name for p in gallery.people()] == ["ann", "cem"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE people SET name = 'eve' WHERE id = 1",
        "DELETE FROM samples WHERE id = 3",
        "UPDATE samples SET embedding = zeroblob(128)",
        "UPDATE thresholds SET value = 0.1",
    ],
)
def test_what_was_moved_is_watched_from_then_on(old, statement):
    Gallery.open(old).close()
    connection = sqlite3.connect(old / FILE_NAME, isolation_level=None)
    connection.execute(statement)
    connection.close()
    with Gallery.open(old) as gallery:
        assert gallery.verify_audit() != []


def test_a_migration_that_fails_leaves_the_old_file(old, monkeypatch):
    before = (old / FILE_NAME).read_bytes()

    def fail(*_):
        raise RuntimeError("power cut")

    monkeypatch.setattr(migrations, "_move_samples", fail)
    with pytest.raises(RuntimeError):
        Gallery.open(old)
    monkeypatch.undo()
    connection = sqlite3.connect(old / FILE_NAME)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert connection.execute("SELECT COUNT(*) FROM samples").fetchone() == (3,)
    connection.close()
    assert len(before) == len((old / FILE_NAME).read_bytes())
    with Gallery.open(old) as gallery:
        np.testing.assert_equal(len(gallery.people()), 2)


def test_a_newer_schema_is_refused(old):
    connection = sqlite3.connect(old / FILE_NAME)
    connection.execute("PRAGMA user_version = 3")
    connection.close()
    with pytest.raises(InputError, match="schema version 3, this facerec reads 2; update"):
        Gallery.open(old)
