"""The gallery's key: shown by nothing, read from a file of its owner's or the environment."""

import base64
import copy
import dataclasses
import hashlib
import pickle

import pytest

from facerec.checks import InputError
from facerec.gallery.vault import KEY_VARIABLE, GalleryKey, make_key, read_key, write_key

VALUE = bytes(range(224, 256))
KEY = GalleryKey(VALUE)
FORMS = {
    "hex": VALUE.hex(),
    "upper hex": VALUE.hex().upper(),
    "base64": base64.b64encode(VALUE).decode(),
    "unpadded": base64.b64encode(VALUE).decode().rstrip("="),
    "url-safe": base64.urlsafe_b64encode(VALUE).decode(),
}


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


def write(path, text, mode=0o600):
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_key_is_shown_by_neither_repr_nor_text_nor_pickle():
    for shown in (repr(KEY), str(KEY), f"{KEY}", repr({"key": KEY})):
        assert VALUE.hex() not in shown
        assert repr(VALUE) not in shown
        assert KEY.id in shown
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(KEY, protocol)
    assert copy.deepcopy(KEY) is copy.copy(KEY) is KEY


def test_a_key_is_frozen_and_equal_by_value():
    assert GalleryKey(VALUE) == KEY
    assert hash(GalleryKey(VALUE)) == hash(KEY)
    assert make_key() != KEY
    assert KEY != VALUE
    with pytest.raises(dataclasses.FrozenInstanceError):
        KEY.value = bytes(32)


def test_an_id_is_a_domain_separated_hash():
    assert KEY.id == hashlib.sha256(b"facerec gallery key id\0" + VALUE).hexdigest()[:16]
    assert len({make_key().id for _ in range(100)}) == 100


@pytest.mark.parametrize("value", [b"", bytes(31), bytes(33), "0" * 32, bytearray(32)])
def test_only_32_bytes_are_a_key(value):
    with pytest.raises(InputError, match="gallery key must be 32 bytes"):
        GalleryKey(value)


def test_a_written_key_is_its_owners_alone_and_reads_back(tmp_path):
    path = tmp_path / "gallery.key"
    write_key(KEY, path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["gallery.key"]
    header, digits = path.read_text().splitlines()
    assert header.startswith(f"# facerec gallery key {KEY.id}")
    assert digits == VALUE.hex()
    assert read_key(path) == KEY


def test_no_key_file_is_ever_overwritten(tmp_path):
    path = tmp_path / "gallery.key"
    write_key(KEY, path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="exists already and may be the only copy"):
        write_key(make_key(), path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_key_file_is_not_written_where_there_is_no_folder(tmp_path):
    with pytest.raises(InputError, match="cannot be written: No such file"):
        write_key(KEY, tmp_path / "absent" / "gallery.key")


def test_nothing_is_left_where_a_link_cannot_be_made(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    with pytest.raises(InputError, match="cannot be written: Operation not permitted"):
        write_key(KEY, tmp_path / "gallery.key")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", FORMS)
def test_hex_and_base64_are_read_from_file_and_environment(form, tmp_path, monkeypatch):
    text = FORMS[form]
    assert read_key(write(tmp_path / "k", f"# note\n\n  {text}  \n\n")) == KEY
    monkeypatch.setenv(KEY_VARIABLE, text)
    assert read_key(None) == KEY


def test_the_file_comes_before_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, make_key().value.hex())
    assert read_key(write(tmp_path / "k", VALUE.hex())) == KEY


def test_no_file_and_no_variable_are_no_key():
    assert read_key(None) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_a_file_open_to_others_is_refused(mode, tmp_path):
    path = write(tmp_path / "k", VALUE.hex(), mode)
    with pytest.raises(InputError, match=rf"mode {mode:04o}; run: chmod 600"):
        read_key(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold one key, got none"),
        ("# only a note\n", "must hold one key, got none"),
        (f"{'ab' * 32}\n{'cd' * 32}\n", "must hold one key, got 2"),
        ("ab" * 31, "key of 62 hex digits"),
        ("ab" * 33, "key of 66 hex digits"),
        (base64.b64encode(b"sixteen bytes ok").decode(), "key of 16 bytes"),
        ("pass phrase!", "neither hex digits nor base64"),
        ("ü" * 64, "neither hex digits nor base64"),
    ],
)
def test_what_is_no_key_is_said_in_one_sentence_that_does_not_quote_it(
    text, message, tmp_path, monkeypatch
):
    path = tmp_path / "k"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    monkeypatch.setenv(KEY_VARIABLE, text)
    for source, name in ((path, f"key file {path}"), (None, f"variable {KEY_VARIABLE}")):
        with pytest.raises(InputError, match=message) as caught:
            read_key(source)
        said = str(caught.value)
        assert name in said
        assert "expected 64 hex digits or base64 of 32 bytes" in said
        assert not any(line and line in said for line in text.splitlines())


def test_missing_and_unreadable_files_are_told_apart(tmp_path):
    with pytest.raises(InputError, match=r"absent does not exist; check the path"):
        read_key(tmp_path / "absent")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_key(tmp_path)
    with pytest.raises(InputError, match="too long to be one"):
        read_key(write(tmp_path / "big", "a" * 5000))
