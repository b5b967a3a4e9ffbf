import re
import sqlite3

import numpy as np
import pytest

from facerec.checks import InputError
from facerec.gallery import audit
from facerec.gallery.gallery import Gallery
from facerec.models.weights import ModelInfo


@pytest.fixture
def gallery(tmp_path):
    info = ModelInfo(name="toy", sha256="a" * 64, embedding_dim=4)
    with Gallery.create(tmp_path, info, operator="meg") as gallery:
        gallery.enrol("ann", np.eye(4, dtype=np.float32)[:1], np.ones(1, np.float32))
        gallery.search(np.eye(4, dtype=np.float32)[:2], purpose="case 7", probes=["f1", "f2"])
        yield gallery


def tamper(gallery, *statements):
    """Change the log as somebody with the file would: past the triggers."""
    connection = sqlite3.connect(gallery.store.path, isolation_level=None)
    for name in ("audit_is_not_updated", "audit_is_not_deleted"):
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.executescript(statement)
    connection.close()


def test_every_action_is_recorded_in_order(gallery):
    entries = gallery.list_audit()
    assert [e.action for e in entries] == ["create", "enrol", "search", "search"]
    assert [e.number for e in entries] == [1, 2, 3, 4]
    assert {e.operator for e in entries} == {"meg"}
    search = entries[2]
    assert search.purpose == "case 7" and search.details["probe"] == "f1"
    (ann,) = gallery.people()
    assert search.details["threshold"] == 0.4 and search.details["person"] == ann.uid
    assert search.details["candidates"] == [[ann.uid, 1.0]]
    assert entries[3].details["person"] is None
    assert gallery.verify_audit() == []


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE audit SET entry = replace(entry, 'case 7', 'case 8') WHERE id = 3", "entry 3 was"),
        ("UPDATE audit SET hash = 'x' || substr(hash, 2) WHERE id = 2", "entry 2 was changed"),
        ("UPDATE audit SET previous = 'x' WHERE id = 4", "entry 4 does not follow"),
        ("DELETE FROM audit WHERE id = 2", "entries 2 to 2 are missing"),
        ("DELETE FROM audit WHERE id = 4", "entries 4 to 4 are missing at the end"),
        ("DELETE FROM audit", "entries 1 to 4 are missing at the end"),
    ],
)
def test_a_change_is_found(gallery, statement, fault):
    tamper(gallery, statement)
    assert any(fault in text for text in gallery.verify_audit())


def test_a_noted_head_proves_the_end_even_against_a_forged_counter(gallery):
    _, head = gallery.audit_head()
    assert gallery.verify_audit(head) == []
    tamper(gallery, "DELETE FROM audit WHERE id = 4", "UPDATE sqlite_sequence SET seq = 3")
    assert gallery.verify_audit() == []
    assert "noted head" in gallery.verify_audit(head)[0]


def test_a_reforged_chain_is_found_by_the_noted_head(gallery):
    _, head = gallery.audit_head()
    with gallery.store.reading() as connection:
        (entry, previous) = connection.execute(
            "SELECT entry, previous FROM audit WHERE id = 4"
        ).fetchone()
    forged = entry.replace("case 7", "case 9")
    digest = audit._chain(previous, forged)
    tamper(gallery, f"UPDATE audit SET entry = '{forged}', hash = '{digest}' WHERE id = 4")
    assert gallery.verify_audit() == []
    assert gallery.verify_audit(head) != []


@pytest.mark.parametrize("statement", ["UPDATE audit SET entry = ''", "DELETE FROM audit"])
def test_the_log_is_append_only(gallery, statement):
    with (
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
        gallery.store.transaction() as connection,
    ):
        connection.execute(statement)
    assert gallery.verify_audit() == []


def test_a_search_that_cannot_be_logged_gives_no_answer(gallery, monkeypatch):
    def fail(*_args, **_more):
        raise sqlite3.OperationalError("attempt to write a readonly database")

    monkeypatch.setattr(audit, "append_entry", fail)
    with pytest.raises(InputError, match="cannot be written"):
        gallery.search(np.eye(4, dtype=np.float32)[:1])


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE people SET name = 'eve'", "'eve' was changed after the enrolment"),
        ("UPDATE people SET kind = 'stranger'", "'ann' was changed after the enrolment"),
        ("UPDATE people SET uid = 'u'", "'ann' is not in the log"),
        ("UPDATE samples SET embedding = zeroblob(16)", "sample 1 of 'ann' was changed after"),
        ("UPDATE samples SET created = '2099'", "sample 1 of 'ann' was changed after"),
        ("UPDATE people SET created = '2099'", "'ann' was changed after the enrolment"),
        ("UPDATE samples SET norm = 2", "sample 1 of 'ann' was changed after"),
        ("UPDATE samples SET picture_sha256 = 'x'", "sample 1 of 'ann' was changed after"),
        ("UPDATE samples SET source = 'x'", "sample 1 of 'ann' was changed after"),
        ("DELETE FROM samples", "sample 1 is in the log, but not in the gallery"),
        ("PRAGMA foreign_keys = OFF; DELETE FROM people", "a person .* is in the log, but not"),
        ("UPDATE thresholds SET value = 0.1", "threshold is 0.1, the log says 0.4"),
        ("UPDATE models SET hash = 'f'", "model is not the one"),
        ("UPDATE collections SET fusion = 'mean'", "fusion is 'mean', the log says 'max'"),
        ("INSERT INTO settings VALUES (1, 'detector', 'x')", "setting 'detector' is 'x'"),
    ],
)
def test_a_change_behind_the_log_is_found(gallery, statement, fault):
    tamper(gallery, statement)
    assert any(re.search(fault, text) for text in gallery.verify_audit())


def test_many_faults_are_counted_not_listed(tmp_path):
    info = ModelInfo(name="toy", sha256="a" * 64, embedding_dim=32)
    with Gallery.create(tmp_path, info) as gallery:
        gallery.enrol("ann", np.eye(32, dtype=np.float32), np.ones(32, np.float32))
        assert gallery.verify_audit() == []
        tamper(gallery, "DELETE FROM samples")
        faults = gallery.verify_audit()
    assert len(faults) == 21 and faults[-1] == "and 12 more"
