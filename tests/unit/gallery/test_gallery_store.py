import sqlite3
import stat
import threading

import numpy as np
import pytest

from facerec.checks import InputError
from facerec.gallery import store as store_module
from facerec.gallery.changes import load_changes
from facerec.gallery.gallery import Gallery
from facerec.gallery.schema import FILE_NAME
from facerec.models.weights import ModelInfo

HASH = "a" * 64
OTHER = "b" * 64


def info(dim=8):
    return ModelInfo(name="toy", sha256=HASH, embedding_dim=dim)


def axes(*numbers, dim=8):
    return np.eye(dim, dtype=np.float32)[list(numbers)]


def norms(n):
    return np.full(n, 20, np.float32)


@pytest.fixture
def gallery(tmp_path):
    with Gallery.create(tmp_path / "g", info(), operator="tester") as gallery:
        yield gallery


def test_settings_and_people_survive_reopening(tmp_path):
    settings = {"detector": "aligned", "policy": "largest"}
    with Gallery.create(tmp_path / "g", info(), settings=settings, threshold=0.3) as gallery:
        result = gallery.enrol("Åsa", axes(0, 1), norms(2), sources=["a.jpg", "b.jpg"])
        assert result.added == [0, 1] and result.reasons == ["", ""]
    with Gallery.open(tmp_path / "g") as gallery:
        assert [(p.name, p.samples) for p in gallery.people()] == [("Åsa", 2)]
        assert gallery.store.read_setting("detector") == "aligned"
        assert gallery.store.read_threshold() == 0.3
        assert (gallery.model.name, gallery.model.hash, gallery.model.dim) == ("toy", HASH, 8)
        found = load_changes(gallery.store)
        np.testing.assert_array_equal(found.vectors, axes(0, 1))
        assert found.owners.tolist() == [1, 1]
        assert [name for name, _ in found.people.values()] == ["Åsa"]


def test_the_file_is_durable_private_and_versioned(gallery):
    path = gallery.store.path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with gallery.store.writing_alone() as connection:
        pragma = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "user_version")
        }
    assert pragma == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "user_version": 2}


def test_the_same_picture_again_is_a_no_op_that_says_so(gallery):
    gallery.enrol("ann", axes(0), norms(1), pictures=["p1"])
    version = gallery.store.read_version()
    again = gallery.enrol("ann", axes(0), norms(1), pictures=["p1"])
    assert again.added == [] and again.reasons == ["already enrolled"]
    assert gallery.store.read_version() == version
    assert gallery.people()[0].samples == 1


def test_a_picture_of_somebody_else_is_refused_with_the_name(gallery):
    gallery.enrol("ann", axes(0), norms(1), pictures=["p1"])
    result = gallery.enrol("bob", axes(0, 1), norms(2), pictures=["p1", "p2"])
    assert result.added == [1]
    assert result.reasons == ["this picture is already enrolled for 'ann'", ""]


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.full((1, 8), np.nan, np.float32), "finite"),
        (np.zeros((1, 8), np.float32), "unit norm"),
        (axes(0) * 2, "unit norm"),
        (axes(0, dim=16), "8 dimensions"),
    ],
)
def test_bad_vectors_change_nothing(gallery, vectors, message):
    head = gallery.audit_head()
    with pytest.raises(InputError, match=message):
        gallery.enrol("ann", vectors, norms(1))
    assert gallery.people() == [] and gallery.audit_head() == head


@pytest.mark.parametrize("bad", [np.nan, 0.0, -1.0])
def test_bad_norms_are_refused(gallery, bad):
    with pytest.raises(InputError, match="norms must be"):
        gallery.enrol("ann", axes(0), np.array([bad], np.float32))


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 201])
def test_a_name_must_be_printable(gallery, name):
    with pytest.raises(InputError, match="printable"):
        gallery.enrol(name, axes(0), norms(1))


def test_another_model_is_refused_in_one_sentence(gallery):
    for call in (
        lambda: gallery.enrol("ann", axes(0), norms(1), model_hash=OTHER),
        lambda: gallery.search(axes(0), model_hash=OTHER),
    ):
        with pytest.raises(InputError, match=r"toy .*another gallery") as caught:
            call()
        assert "\n" not in str(caught.value)
    assert gallery.people() == []


def test_an_action_is_whole_or_not_at_all(gallery, monkeypatch):
    def fail(*_args, **_more):
        raise RuntimeError("power cut")

    monkeypatch.setattr(store_module.audit, "append_entry", fail)
    with pytest.raises(RuntimeError):
        gallery.enrol("ann", axes(0), norms(1))
    monkeypatch.undo()
    assert gallery.people() == []
    assert gallery.search(axes(0))[0].matches == []


def test_a_folder_holds_one_gallery(tmp_path):
    Gallery.create(tmp_path, info()).close()
    with pytest.raises(InputError, match="already"):
        Gallery.create(tmp_path, info())


def test_a_creation_that_was_killed_can_be_repeated(tmp_path):
    (tmp_path / FILE_NAME).touch()  # what a kill before the transaction leaves
    Gallery.create(tmp_path, info()).close()
    Gallery.open(tmp_path).close()


def test_what_is_no_gallery_is_said_in_one_sentence(tmp_path):
    with pytest.raises(InputError, match="holds no gallery; make one"):
        Gallery.open(tmp_path)
    path = tmp_path / FILE_NAME
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(InputError, match="not a usable gallery"):
        Gallery.open(tmp_path)
    path.unlink()
    sqlite3.connect(path).execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(InputError, match="is not a gallery"):
        Gallery.open(tmp_path)


def test_a_newer_schema_is_refused(gallery):
    with gallery.store.transaction() as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(InputError, match="schema version 99"):
        Gallery.open(gallery.store.path.parent)


def test_the_dimension_must_be_known(tmp_path):
    bare = ModelInfo(name="bare", sha256=HASH)
    with pytest.raises(InputError, match="dimension"):
        Gallery.create(tmp_path, bare)
    Gallery.create(tmp_path, bare, dim=8).close()


def test_readers_go_on_while_a_writer_writes(gallery):
    gallery.enrol("ann", axes(0), norms(1))
    folder = gallery.store.path.parent
    with gallery.store.transaction() as connection:
        connection.execute("UPDATE people SET name = 'half'")
        with Gallery.open(folder) as reader:  # neither waits nor sees what is not committed
            assert [p.name for p in reader.people()] == ["ann"]
            assert len(load_changes(reader.store).vectors) == 1


def test_threads_share_a_gallery(gallery):
    def work(number):
        rng = np.random.default_rng(number)
        for i in range(5):
            vector = rng.standard_normal((1, 8))
            vector = (vector / np.linalg.norm(vector)).astype(np.float32)
            gallery.enrol(f"person {number}", vector, norms(1), pictures=[f"{number}-{i}"])
            assert gallery.search(vector, threshold=0.99)[0].person == f"person {number}"

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    failures = []
    hook, threading.excepthook = threading.excepthook, failures.append
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        threading.excepthook = hook
    assert not failures
    assert [p.samples for p in gallery.people()] == [5, 5, 5, 5]
    assert gallery.verify_audit() == []


def test_composed_and_decomposed_names_are_one_person(gallery):
    gallery.enrol("Zoe\u0308 ", axes(0), norms(1))
    gallery.enrol("Zo\u00eb", axes(1), norms(1))
    assert [(p.name, p.samples) for p in gallery.people()] == [("Zo\u00eb", 2)]
    assert gallery.verify_audit() == []


def test_another_programs_file_is_refused_and_stays_as_it_is(tmp_path):
    path = tmp_path / FILE_NAME
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = path.read_bytes()
    for attempt in (lambda: Gallery.create(tmp_path, info()), lambda: Gallery.open(tmp_path)):
        with pytest.raises(InputError, match="is not a gallery"):
            attempt()
    assert path.read_bytes() == before


def test_a_damaged_page_is_one_sentence(tmp_path):
    with Gallery.create(tmp_path, info()) as gallery:
        gallery.enrol("ann", axes(*range(8)), norms(8))
    path = tmp_path / FILE_NAME
    data = bytearray(path.read_bytes())
    data[8192:] = b"\xa5" * (len(data) - 8192)
    path.write_bytes(data)
    for ask in (Gallery.people, Gallery.verify_audit, lambda g: g.search(axes(0))):
        with pytest.raises(InputError, match="is damaged"), Gallery.open(tmp_path) as gallery:
            ask(gallery)


def test_a_damaged_embedding_is_not_the_users_fault(gallery):
    gallery.enrol("ann", axes(0), norms(1))
    with gallery.store.transaction() as connection:
        connection.execute("UPDATE samples SET embedding = zeroblob(32)")
    with pytest.raises(InputError, match=r"is damaged: .* norm 0; see"):
        gallery.search(axes(0))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot make a gallery in"):
        Gallery.create(tmp_path / "file" / "g", info())


def test_a_question_is_checked_before_the_work(gallery):
    assert gallery.check_question(1) == 0.4 and gallery.check_question(9, -1) == -1
    for top, threshold in ((0, None), (1, 2.0), (1, float("nan"))):
        with pytest.raises(InputError, match=r"top must|threshold must"):
            gallery.check_question(top, threshold)
