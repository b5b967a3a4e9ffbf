import datetime

import pytest
from gallery_cases import faces, holds, ones, toy

from facerec.checks import InputError
from facerec.gallery import audit

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)


@pytest.fixture
def clock(monkeypatch):
    now = [START]

    def move(days):
        now[0] += datetime.timedelta(days=days)

    monkeypatch.setattr(audit, "utc_now", lambda: now[0].isoformat(timespec="microseconds"))
    return move


@pytest.mark.parametrize("fusion", ["max", "mean"])
def test_what_is_overdue_is_not_searched_and_can_be_erased(tmp_path, clock, fusion):
    with toy(tmp_path, fusion=fusion, retention_days=30) as gallery:
        gallery.enrol("ann", faces(1), ones(1))
        clock(20)
        gallery.enrol("bob", faces(1, seed=1), ones(1))
        assert gallery.search(faces(1), threshold=0.9)[0].person == "ann"
        assert gallery.expire() == []
        clock(11)
        assert gallery.search(faces(1), threshold=0.9)[0].person is None
        assert gallery.search(faces(1, seed=1), threshold=0.9)[0].person == "bob"
        assert [p.name for p in gallery.people()] == ["ann", "bob"]
        (receipt,) = gallery.expire("clock")
        assert len(receipt.samples) == 1
        assert [p.name for p in gallery.people()] == ["bob"]
        assert not holds(tmp_path, faces(1).tobytes()[:16])
        assert gallery.verify_audit() == []


def test_a_gallery_that_is_opened_late_does_not_search_what_is_overdue(tmp_path, clock):
    from facerec.gallery.gallery import Gallery

    with toy(tmp_path, retention_days=30) as gallery:
        gallery.enrol("ann", faces(1), ones(1))
    clock(31)
    with Gallery.open(tmp_path) as gallery:
        assert gallery.search(faces(1), threshold=0.9)[0].matches == []


def test_a_clock_that_is_set_back_stretches_nothing_and_keeps_the_order(tmp_path, clock):
    with toy(tmp_path, retention_days=30) as gallery:
        gallery.enrol("ann", faces(1), ones(1))
        clock(31)
        gallery.search(faces(1), threshold=0.9)  # the log has seen the later day
        clock(-31)
        assert gallery.search(faces(1), threshold=0.9)[0].person is None
        gallery.enrol("bob", faces(1, seed=1), ones(1))
        entries = gallery.list_audit()
        assert [e.created for e in entries] == sorted(e.created for e in entries)
        assert entries[-1].details["clock_said"] == START.isoformat(timespec="microseconds")
        assert gallery.samples("bob")[0].created > gallery.samples("ann")[0].created
        assert gallery.verify_audit() == []


def test_a_retention_counts_for_what_is_there(tmp_path, clock):
    with toy(tmp_path) as gallery:
        gallery.enrol("ann", faces(1), ones(1))
        clock(400)
        assert gallery.search(faces(1), threshold=0.9)[0].person == "ann"
        gallery.keep_for(365, "policy 4")
        assert gallery.search(faces(1), threshold=0.9)[0].person is None
        gallery.keep_for(0)
        assert gallery.verify_audit() == []
        with pytest.raises(InputError, match="retention_days"):
            gallery.keep_for(-1)
