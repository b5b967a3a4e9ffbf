"""Values and data keys: what was sealed opens where it belongs, and nowhere else."""

import sys

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from facerec.checks import InputError, MissingPackageError
from facerec.gallery.vault import GalleryKey, Vault, make_key

VAULT = Vault(GalleryKey(bytes(range(32))))
PLAIN = Vault(None)
DATA_KEY = bytes(range(32, 64))


@given(st.binary(max_size=300), st.text(max_size=40))
def test_a_value_opens_as_it_was_sealed(value, context):
    sealed = VAULT.seal(DATA_KEY, value, context)
    assert len(sealed) == len(value) + 28
    assert VAULT.open(DATA_KEY, sealed, context) == value


def test_a_data_key_opens_as_it_was_wrapped():
    data_key = VAULT.make_data_key()
    wrapped = VAULT.wrap(data_key, "person 7")
    assert (len(data_key), len(wrapped)) == (32, 60)
    assert data_key not in wrapped
    assert VAULT.unwrap(wrapped, "person 7") == data_key


def test_the_format_is_that_of_aes_gcm_with_the_context_as_additional_data():
    sealed = VAULT.seal(DATA_KEY, b"value", "row 3")
    opened = AESGCM(DATA_KEY).decrypt(sealed[:12], sealed[12:], b"facerec value\0row 3")
    assert opened == b"value"


def test_no_two_seals_of_one_value_are_alike():
    sealed = {VAULT.seal(DATA_KEY, b"same", "row") for _ in range(200)}
    assert len({s[:12] for s in sealed}) == 200
    assert len({s[12:] for s in sealed}) == 200
    assert len({VAULT.make_data_key() for _ in range(200)}) == 200


def test_every_flipped_bit_of_a_sealed_value_is_noticed():
    sealed = VAULT.seal(DATA_KEY, b"an embedding", "row 1")
    for position in range(len(sealed)):
        for bit in range(8):
            changed = bytearray(sealed)
            changed[position] ^= 1 << bit
            with pytest.raises(InputError, match="sealed value does not open"):
                VAULT.open(DATA_KEY, bytes(changed), "row 1")


def test_every_flipped_byte_of_a_wrap_is_noticed():
    wrapped = VAULT.wrap(DATA_KEY, "person 1")
    for position in range(len(wrapped)):
        changed = bytearray(wrapped)
        changed[position] ^= 0xFF
        with pytest.raises(InputError, match="data key does not open"):
            VAULT.unwrap(bytes(changed), "person 1")


@pytest.mark.parametrize("more", [False, True])
def test_every_other_length_is_noticed(more):
    sealed = VAULT.seal(DATA_KEY, b"an embedding", "row 1")
    wrapped = VAULT.wrap(DATA_KEY, "person 1")
    lengths = [1, 7] if more else range(len(sealed))
    for length in lengths:
        value = sealed + b"x" * length if more else sealed[:length]
        with pytest.raises(InputError, match="sealed value does not open"):
            VAULT.open(DATA_KEY, value, "row 1")
        with pytest.raises(InputError, match="data key does not open"):
            VAULT.unwrap(wrapped + value if more else wrapped[:length], "person 1")


def test_swapped_contexts_and_keys_are_noticed():
    first, second = VAULT.seal(DATA_KEY, b"a", "row 1"), VAULT.seal(DATA_KEY, b"b", "row 2")
    assert VAULT.open(DATA_KEY, first, "row 1") == b"a"
    with pytest.raises(InputError, match="swapped with another's"):
        VAULT.open(DATA_KEY, second, "row 1")
    with pytest.raises(InputError, match="sealed value does not open"):
        VAULT.open(VAULT.make_data_key(), first, "row 1")
    with pytest.raises(InputError, match="swapped"):
        VAULT.unwrap(VAULT.wrap(DATA_KEY, "person 2"), "person 1")


def test_a_wrap_is_no_value_under_the_same_key_and_context():
    key = GalleryKey(DATA_KEY)
    with pytest.raises(InputError, match="sealed value does not open"):
        VAULT.open(DATA_KEY, Vault(key).wrap(DATA_KEY, "same"), "same")


def test_another_gallery_key_opens_nothing_and_the_sentence_says_what_to_do():
    wrapped = VAULT.wrap(DATA_KEY, "person 1")
    with pytest.raises(InputError, match=r"key is another gallery's.*give the key that this"):
        Vault(make_key()).unwrap(wrapped, "person 1")


def test_a_rotation_rewraps_the_data_keys_and_leaves_the_values():
    new = Vault(make_key())
    sealed = VAULT.seal(DATA_KEY, b"value", "row")
    wrapped = new.wrap(VAULT.unwrap(VAULT.wrap(DATA_KEY, "p"), "p"), "p")
    assert new.open(new.unwrap(wrapped, "p"), sealed, "row") == b"value"


def test_refusals_tell_the_causes_apart_by_nothing():
    sealed = VAULT.seal(DATA_KEY, b"value", "row")
    attempts = [
        (DATA_KEY, sealed, "other"),
        (DATA_KEY, sealed[:-1], "row"),
        (DATA_KEY, b"", "row"),
        (bytes(32), sealed, "row"),
    ]
    sentences = set()
    for data_key, value, context in attempts:
        with pytest.raises(InputError) as caught:
            VAULT.open(data_key, value, context)
        assert caught.value.__cause__ is None
        sentences.add(str(caught.value))
    assert len(sentences) == 1


def test_the_plain_vault_passes_everything_through():
    assert not PLAIN.encrypted
    assert PLAIN.key_id == ""
    assert PLAIN.make_data_key() == b""
    assert PLAIN.wrap(b"", "p") == b""
    assert PLAIN.unwrap(b"", "p") == b""
    assert PLAIN.seal(b"", b"value", "row") == b"value"
    assert PLAIN.open(b"", b"value", "other") == b"value"


def test_an_encrypted_vault_knows_its_key():
    key = make_key()
    vault = Vault(key)
    assert vault.encrypted
    assert vault.key_id == key.id
    assert key.value not in [v for v in vars(vault).values() if isinstance(v, bytes)]


def test_the_plain_vault_says_that_a_key_is_missing():
    with pytest.raises(InputError, match=r"encrypted, but no key was given.*FACEREC_GALLERY_KEY"):
        PLAIN.unwrap(VAULT.wrap(DATA_KEY, "p"), "p")
    for call in (PLAIN.seal, PLAIN.open):
        with pytest.raises(InputError, match="no key was given"):
            call(DATA_KEY, b"value", "row")


@pytest.mark.parametrize("size", [0, 16, 24, 31, 33])
def test_data_keys_of_another_size_are_refused(size):
    for call in (VAULT.seal, VAULT.open):
        with pytest.raises(InputError, match=f"data key must be 32 bytes, got {size}"):
            call(bytes(size), bytes(40), "row")
    with pytest.raises(InputError, match="data key must be 32 bytes"):
        VAULT.wrap(bytes(size), "person")


def test_without_the_package_only_the_encrypted_vault_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers", None)
    monkeypatch.delitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", raising=False)
    assert Vault(None).seal(b"", b"v", "c") == b"v"
    with pytest.raises(MissingPackageError, match="pip install cryptography"):
        Vault(make_key())
