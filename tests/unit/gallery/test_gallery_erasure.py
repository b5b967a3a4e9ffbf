import json
import multiprocessing

import numpy as np
import pytest
from gallery_cases import faces, holds, ones, toy

from facerec.checks import InputError, JobError
from facerec.gallery import connection as connection_module
from facerec.gallery import erasure
from facerec.gallery.gallery import Gallery
from facerec.gallery.vault import make_key


def fill(gallery, people=40):
    names = [f"person {n:03d}" for n in range(people) for _ in range(3)]
    gallery.enrol_many(names, faces(3 * people), ones(3 * people))


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("fusion", ["max", "mean"])
def test_no_byte_of_an_erased_person_is_left(tmp_path, encrypted, fusion):
    key = make_key() if encrypted else None
    folder = tmp_path / "g"
    with toy(folder, key=key, fusion=fusion) as gallery:
        fill(gallery)
        gallery.search(faces(3))
        with gallery.store.reading() as connection:
            stored = [
                row[0]
                for query in (
                    "SELECT embedding FROM samples WHERE person_id = 5",
                    "SELECT embedding FROM templates WHERE person_id = 5",
                    "SELECT salt FROM people WHERE id = 5",
                    "SELECT data_key FROM people WHERE id = 5 AND data_key <> x''",
                )
                for row in connection.execute(query)
            ]
        assert all(holds(folder, value[:16]) for value in stored)
        receipt = gallery.erase("person 004", "asked to")
        assert not any(holds(folder, value[:16]) for value in stored)
        assert not any(holds(folder, v.tobytes()[:16]) for v in faces(120)[12:15])
        assert not holds(folder, b"person 004") and holds(folder, b"person 005")
        assert receipt.traces == [] and len(receipt.samples) == 3
        assert gallery.verify_audit() == []
        answers = gallery.search(faces(120)[12:15], top=40)
        assert all(m.person != "person 004" for a in answers for m in a.matches)
    with Gallery.open(folder, key=key) as gallery:
        assert len(gallery.people()) == 39 and gallery.verify_audit() == []


def test_the_receipt_names_nobody_and_points_into_the_log(tmp_path):
    with toy(tmp_path) as gallery:
        fill(gallery, 3)
        receipt = gallery.erase("person 001")
        assert "person 001" not in json.dumps(receipt.to_json())
        entry = gallery.list_audit()[receipt.entry - 1]
        assert (entry.action, entry.hash) == ("erase", receipt.head)
        assert entry.details["people_gone"] == [receipt.person]
        assert set(receipt.files) >= {"gallery.sqlite"}


def test_some_samples_leave_and_the_person_stays(tmp_path):
    with toy(tmp_path, fusion="mean") as gallery:
        gallery.enrol("ann", faces(3), ones(3))
        rows = [sample.id for sample in gallery.samples("ann")]
        gallery.remove("ann", rows[:1])
        assert [sample.id for sample in gallery.samples("ann")] == rows[1:]
        assert not holds(tmp_path, faces(3)[0].tobytes()[:16])
        assert gallery.verify_audit() == []
        mean = faces(3)[1:].mean(axis=0)
        mean /= np.linalg.norm(mean)
        (answer,) = gallery.search(mean[None])
        assert answer.matches[0].score == pytest.approx(1, abs=1e-6)
        with pytest.raises(InputError, match="has no sample 99"):
            gallery.remove("ann", [99])
        gallery.remove("ann", rows[1:])
        assert gallery.people() == [] and gallery.verify_audit() == []


def test_nobody_of_that_name(tmp_path):
    with toy(tmp_path) as gallery, pytest.raises(InputError, match="nobody called 'eve'"):
        gallery.erase("eve")


def test_an_index_of_another_process_forgets_too(tmp_path):
    with toy(tmp_path) as gallery, Gallery.open(tmp_path) as other:
        fill(gallery, 3)
        assert other.search(faces(1))[0].person == "person 000"
        gallery.erase("person 000")
        assert all(m.person != "person 000" for m in other.search(faces(1))[0].matches)
        gallery.enrol("person 000", faces(1, seed=4), ones(1))  # the name again: a new person
        assert other.search(faces(1, seed=4))[0].person == "person 000"
        assert gallery.verify_audit() == []


def _erase_and_die(folder):
    import os

    with Gallery.open(folder) as gallery:
        erasure.scrub = lambda *_: os._exit(9)
        gallery.erase("person 001")


def test_an_erasure_that_was_killed_is_finished_at_the_next_opening(tmp_path):
    with toy(tmp_path) as gallery:
        fill(gallery)
    process = multiprocessing.get_context("spawn").Process(target=_erase_and_die, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 9
    with Gallery.open(tmp_path) as gallery:
        assert not any(holds(tmp_path, v.tobytes()[:16]) for v in faces(120)[3:6])
        assert [e.action for e in gallery.list_audit()][-2:] == ["erase", "scrub"]
        assert gallery.verify_audit() == []
        before = gallery.audit_head()
    with Gallery.open(tmp_path) as gallery:
        assert gallery.audit_head() == before  # once is enough


def test_a_reader_that_holds_the_log_is_named_not_waited_for(tmp_path, monkeypatch):
    with toy(tmp_path) as gallery, Gallery.open(tmp_path) as other:
        fill(gallery, 3)
        monkeypatch.setattr(connection_module, "BUSY_MS", 1)
        with other.store.snapshot() as connection:
            connection.execute("SELECT COUNT(*) FROM people").fetchone()
            with pytest.raises(JobError, match="being read by another process"):
                gallery.erase("person 001")
        assert gallery.scrub()
        assert not any(holds(tmp_path, v.tobytes()[:16]) for v in faces(9)[3:6])
        assert gallery.verify_audit() == []
