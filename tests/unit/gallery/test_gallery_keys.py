import sqlite3

import numpy as np
import pytest
from gallery_cases import faces, holds, ones, toy

from facerec.checks import InputError
from facerec.gallery.gallery import Gallery
from facerec.gallery.schema import FILE_NAME
from facerec.gallery.vault import make_key

pytest.importorskip("cryptography")


@pytest.fixture
def key():
    return make_key()


@pytest.fixture
def sealed(tmp_path, key):
    with toy(tmp_path / "g", key=key, settings={"keep_pictures": "yes"}) as gallery:
        gallery.enrol("ann", faces(2), ones(2), chips=[b"a picture of ann" * 9, b"another" * 30])
        gallery.enrol("bob", faces(1, seed=1), ones(1))
    return tmp_path / "g"


def change(folder, statement, *values):
    connection = sqlite3.connect(folder / FILE_NAME, isolation_level=None)
    connection.execute(statement, values)
    connection.close()


def test_no_embedding_and_no_picture_stands_in_the_files(sealed, key, tmp_path):
    for vector in faces(2):
        assert not holds(sealed, vector.tobytes()[:16])
    assert not holds(sealed, b"a picture of ann") and not holds(sealed, key.value)
    with toy(tmp_path / "plain") as gallery:
        gallery.enrol("ann", faces(2), ones(2))
    assert holds(tmp_path / "plain", faces(2)[0].tobytes()[:16])  # the look does find them


def test_the_key_opens_and_answers_as_a_plain_gallery_does(sealed, key):
    with Gallery.open(sealed, key=key) as gallery:
        assert gallery.search(faces(2))[0].person == "ann"
        assert gallery.compare("bob", faces(1, seed=1))[0].accepted
        assert gallery.verify_audit() == []


def test_a_missing_and_a_wrong_key_are_one_sentence(sealed):
    with pytest.raises(InputError, match=r"is encrypted with key \w+; give the key file"):
        Gallery.open(sealed)
    with pytest.raises(InputError, match=r"encrypted with key \w+, got key \w+; give the key"):
        Gallery.open(sealed, key=make_key())


def test_a_locked_collection_shows_its_log_and_changes_nothing(sealed):
    with Gallery.open(sealed, locked=True) as gallery:
        assert [person.name for person in gallery.people()] == ["ann", "bob"]
        assert gallery.verify_audit() == []
        for act in (
            lambda: gallery.enrol("eve", faces(1), ones(1)),
            lambda: gallery.search(faces(1)),
            lambda: gallery.compare("ann", faces(1)),
        ):
            with pytest.raises(InputError, match=r"locked|no key was given"):
                act()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE samples SET embedding = (SELECT embedding FROM samples WHERE id = 2) WHERE id = 1",
        "UPDATE samples SET embedding = substr(embedding, 1, 60) WHERE id = 1",
        "UPDATE samples SET person_id = 2 WHERE id = 1",
        "UPDATE people SET data_key = (SELECT data_key FROM people WHERE id = 2) WHERE id = 1",
        "UPDATE people SET data_key = zeroblob(60) WHERE id = 1",
    ],
)
def test_a_swapped_or_cut_row_is_one_sentence_and_a_fault(sealed, key, statement):
    change(sealed, statement)
    with Gallery.open(sealed, key=key) as gallery:
        with pytest.raises(InputError, match=r"does not open|was changed"):
            gallery.search(faces(1))
        assert gallery.verify_audit() != []


def test_a_seal_that_was_made_without_the_key_is_found(sealed, key):
    connection = sqlite3.connect(sealed / FILE_NAME, isolation_level=None)
    connection.execute("DROP TRIGGER audit_is_not_updated")
    connection.execute("UPDATE audit SET seal = replace(seal, substr(seal, 1, 1), 'x')")
    connection.close()
    with Gallery.open(sealed, key=key) as gallery:
        assert any("wrong seal" in fault for fault in gallery.verify_audit())


def test_another_key_leaves_everything_but_the_old_key(sealed, key):
    with Gallery.open(sealed, key=key) as gallery:
        (before,) = gallery.compare("ann", faces(1))
        with gallery.store.reading() as connection:
            wraps = [row[0] for row in connection.execute("SELECT data_key FROM people")]
        new = make_key()
        assert gallery.change_key(new) == 2
    with pytest.raises(InputError, match="got key"):
        Gallery.open(sealed, key=key)
    with Gallery.open(sealed, key=new) as gallery:
        assert gallery.compare("ann", faces(1)) == [before]
        assert gallery.verify_audit() == []
        gallery.enrol("cem", faces(1, seed=3), ones(1))
        assert gallery.verify_audit() == []
        assert [e.action for e in gallery.list_audit()].count("rotate") == 1
    assert not any(holds(sealed, wrap) for wrap in wraps)
    with Gallery.open(sealed, key=new) as gallery, pytest.raises(InputError, match="already"):
        gallery.change_key(new)


def test_a_plain_gallery_becomes_an_encrypted_one(tmp_path, key):
    folder = tmp_path / "g"
    with toy(folder, fusion="mean") as gallery:
        gallery.enrol("ann", faces(2), ones(2))
        gallery.set_cohort(faces(30, seed=7))
        gallery.change_key(key)
    for vector in [*faces(2), *faces(30, seed=7)]:
        assert not holds(folder, vector.tobytes()[:16])
    with Gallery.open(folder, key=key) as gallery:
        assert gallery.search(faces(1))[0].person == "ann"
        assert gallery.verify_audit() == []


def test_collections_have_keys_of_their_own(tmp_path, key):
    folder = tmp_path / "g"
    other = make_key()
    with toy(folder, key=key) as gallery:
        gallery.enrol("ann", faces(1), ones(1))
    with toy(folder, collection="staff", key=other) as gallery:
        gallery.enrol("ann", faces(1, seed=1), ones(1))
        names = [collection.name for collection in gallery.store.list_collections()]
        assert names == ["main", "staff"]
    with Gallery.open(folder, key=key) as gallery:
        assert gallery.search(faces(1, seed=1), threshold=0.9)[0].person is None
        assert gallery.verify_audit() == []
    with Gallery.open(folder, collection="staff", key=other) as gallery:
        assert gallery.search(faces(1, seed=1), threshold=0.9)[0].person == "ann"
        assert gallery.verify_audit() == []
    with pytest.raises(InputError, match="no collection 'staf'; did you mean 'staff'"):
        Gallery.open(folder, collection="staf")


def test_the_vectors_come_back_bit_for_bit(sealed, key):
    from facerec.gallery.changes import load_changes

    with Gallery.open(sealed, key=key) as gallery:
        found = load_changes(gallery.store)
    np.testing.assert_array_equal(found.vectors, np.concatenate([faces(2), faces(1, seed=1)]))
