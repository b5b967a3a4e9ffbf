"""Sealed files: cut, reordered, extended or mixed, none opens."""

import io
import random

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.gallery.vault import GalleryKey, Vault
from facerec.gallery.vault_stream import HEADER_BYTES, MAGIC, derive_key

VAULT = Vault(GalleryKey(bytes(range(32))))
PLAIN = Vault(None)
DATA_KEY = bytes(range(32, 64))
CHUNK = 16
SEALED_CHUNK = CHUNK + 16


def seal(data, context="index", chunk_bytes=CHUNK, data_key=DATA_KEY):
    target = io.BytesIO()
    written = VAULT.seal_stream(
        data_key, io.BytesIO(data), target, context, chunk_bytes=chunk_bytes
    )
    assert written == len(target.getvalue())
    return target.getvalue()


def unseal(sealed, context="index", data_key=DATA_KEY, vault=VAULT):
    target = io.BytesIO()
    written = vault.open_stream(data_key, io.BytesIO(sealed), target, context)
    assert written == len(target.getvalue())
    return target.getvalue()


def refuses(sealed, **arguments):
    with pytest.raises(InputError, match="sealed file does not open"):
        unseal(sealed, **arguments)


@given(st.binary(max_size=120), st.integers(1, 40), st.text(max_size=10))
def test_a_stream_opens_as_it_was_sealed(data, chunk_bytes, context):
    assert unseal(seal(data, context, chunk_bytes), context) == data


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_a_whole_number_of_chunks_needs_no_empty_one(size):
    chunks = max(1, -(-size // CHUNK))
    assert len(seal(bytes(size))) == HEADER_BYTES + size + 16 * chunks


def test_the_streams_key_is_hkdf_of_the_data_key():
    salt = bytes(range(32))
    expected = HKDF(SHA256(), 32, salt, b"facerec stream\0").derive(DATA_KEY)
    assert derive_key(DATA_KEY, salt) == expected


def test_two_streams_of_one_file_share_nothing_but_the_fixed_header():
    first, second = seal(bytes(64)), seal(bytes(64))
    fixed = len(MAGIC) + 4
    assert first[:fixed] == second[:fixed]
    assert first[fixed:HEADER_BYTES] != second[fixed:HEADER_BYTES]
    assert first[HEADER_BYTES : HEADER_BYTES + 32] != second[HEADER_BYTES : HEADER_BYTES + 32]


@pytest.mark.parametrize("size", [0, CHUNK, 3 * CHUNK, 3 * CHUNK + 5])
def test_every_shorter_file_is_refused(size):
    sealed = seal(random.Random(3).randbytes(size))
    for length in range(len(sealed)):
        refuses(sealed[:length])


def test_every_flipped_byte_is_noticed():
    sealed = seal(random.Random(4).randbytes(3 * CHUNK + 5))
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 0x01
        refuses(bytes(changed))


def test_chunks_that_are_reordered_repeated_left_out_or_appended_are_noticed():
    sealed = seal(random.Random(5).randbytes(4 * CHUNK))
    header = sealed[:HEADER_BYTES]
    parts = [sealed[i : i + SEALED_CHUNK] for i in range(HEADER_BYTES, len(sealed), SEALED_CHUNK)]
    assert len(parts) == 4
    assert unseal(header + b"".join(parts)) == unseal(sealed)
    orders = [(1, 0, 2, 3), (0, 2, 1, 3), (3, 1, 2, 0), (0, 0, 2, 3), (0, 2, 3), (1, 2, 3)]
    orders += [(0, 1, 2, 3, 3), (0, 1, 2, 2), (0, 1, 3), (3,), ()]
    for order in orders:
        refuses(header + b"".join(parts[i] for i in order))
    refuses(sealed + b"x")
    refuses(sealed + bytes(SEALED_CHUNK))


def test_chunks_of_another_stream_under_the_same_key_are_noticed():
    first, second = seal(bytes(4 * CHUNK)), seal(bytes(4 * CHUNK))
    cut = HEADER_BYTES + SEALED_CHUNK
    refuses(first[:cut] + second[cut:])
    refuses(first[:HEADER_BYTES] + second[HEADER_BYTES:])


def test_another_key_or_context_opens_nothing():
    sealed = seal(b"index of collection 1", "collection 1")
    refuses(sealed, context="collection 2")
    refuses(sealed, context="collection 1", data_key=bytes(32))
    refuses(b"a plain file that was never sealed, long enough for a header", context="collection 1")


def test_a_header_with_a_monstrous_chunk_takes_no_memory():
    sealed = seal(b"data")
    refuses(MAGIC + b"\xff\xff\xff\xff" + sealed[len(MAGIC) + 4 :])
    refuses(MAGIC + bytes(4) + sealed[len(MAGIC) + 4 :])


class OneByteFile(io.BytesIO):
    """Gives and takes a byte at a time, as unbuffered files and pipes may."""

    def read(self, size=-1):
        return super().read(min(size, 1))

    def write(self, data):
        return super().write(bytes(data[:1]))


def test_files_that_give_and_take_little_at_once_are_enough():
    data = random.Random(6).randbytes(3 * CHUNK + 1)
    sealed, opened = OneByteFile(), OneByteFile()
    VAULT.seal_stream(DATA_KEY, OneByteFile(data), sealed, "c", chunk_bytes=CHUNK)
    VAULT.open_stream(DATA_KEY, OneByteFile(sealed.getvalue()), opened, "c")
    assert opened.getvalue() == data


@pytest.mark.parametrize("vault", [VAULT, PLAIN], ids=["encrypted", "plain"])
def test_blocks_of_any_size_make_the_same_stream(vault):
    data_key = DATA_KEY if vault.encrypted else b""
    blocks = [b"", b"a" * 5, memoryview(b"b" * 70), bytearray(b"c"), b""]
    target = io.BytesIO()
    vault.seal_stream(data_key, blocks, target, "c", chunk_bytes=CHUNK)
    assert unseal(target.getvalue(), "c", data_key, vault) == b"a" * 5 + b"b" * 70 + b"c"


@pytest.mark.parametrize("data", [b"", b"short", b"faiss index bytes" * 9])
def test_the_plain_vault_copies(data):
    target = io.BytesIO()
    assert PLAIN.seal_stream(b"", io.BytesIO(data), target, "c") == len(data)
    assert target.getvalue() == data
    assert unseal(data, data_key=b"", vault=PLAIN) == data


def test_the_plain_vault_says_that_a_key_is_missing():
    for data_key in (b"", DATA_KEY):
        with pytest.raises(InputError, match="encrypted, but no key was given"):
            unseal(seal(b"data"), data_key=data_key, vault=PLAIN)


def test_what_is_written_before_a_refusal_is_authentic():
    data = random.Random(7).randbytes(3 * CHUNK)
    target = io.BytesIO()
    with pytest.raises(InputError, match="cut short"):
        VAULT.open_stream(DATA_KEY, io.BytesIO(seal(data)[:-1]), target, "index")
    assert target.getvalue() == data[: 2 * CHUNK]


@pytest.mark.parametrize("chunk_bytes", [0, -1, 1.5, (1 << 26) + 1])
def test_chunks_of_no_size_are_refused(chunk_bytes):
    with pytest.raises(InputError, match="chunk_bytes"):
        seal(b"data", chunk_bytes=chunk_bytes)


def test_a_data_key_of_another_size_is_refused():
    with pytest.raises(InputError, match="data key must be 32 bytes"):
        seal(b"data", data_key=b"short")
