"""Embeddings at rest: the gallery's key, a data key a person, AES-256-GCM for values and files.

Two levels of keys. The gallery key, from a file or the environment, wraps data keys and nothing
else; each person has one data key, which seals that person's values. Changing the gallery key
rewraps the data keys and leaves the values as they are. Where every copy of a person's wrapped
data key is gone, that person's values are unreadable wherever copies of them are left.

Values and wraps are AES-256-GCM (NIST SP 800-38D): nonce 12 bytes, ciphertext, tag 16 bytes. The
nonce is random, which is safe for up to 2**32 uses of one key (section 8.3: a repeat is then less
likely than 2**-32). A data key seals one person's values, at most thousands; a gallery key wraps
one data key a person, and each rotation brings a fresh one. Streams, whose chunks are many, take
a key of their own each and count their nonces.

What is sealed is bound to where it belongs by a context string (the additional data of GCM): a
value moved to another row, person or collection does not open there.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any, BinaryIO

from facerec.checks import InputError, check_whole, require
from facerec.gallery.vault_key import (
    KEY_BYTES,
    KEY_VARIABLE,
    GalleryKey,
    make_key,
    read_key,
    write_key,
)
from facerec.gallery.vault_stream import (
    HEADER_BYTES,
    INFO,
    LARGEST_CHUNK,
    MAGIC,
    SALT_BYTES,
    chunk_nonce,
    cut_chunks,
    derive_key,
    iter_blocks,
    make_header,
    read_fully,
    read_header,
    write_fully,
)

__all__ = ["KEY_VARIABLE", "GalleryKey", "Vault", "make_key", "read_key", "write_key"]

NONCE_BYTES = 12
TAG_BYTES = 16
CHUNK_BYTES = 1 << 20

# Different purposes never share a context, whatever the caller's strings are.
_WRAP, _VALUE, _STREAM = b"facerec wrap\0", b"facerec value\0", INFO

_WRAP_REFUSED = (
    "a data key does not open with this gallery key: the key is another gallery's, or the data "
    "were changed, cut short or swapped; give the key that this gallery was made with, or restore "
    "the gallery from a backup"
)
_VALUE_REFUSED = (
    "a sealed value does not open with its data key: it was changed, cut short, or swapped with "
    "another's; restore the gallery from a backup"
)
_STREAM_REFUSED = (
    "a sealed file does not open with its data key: it was changed, cut short, reordered, or "
    "swapped with another's; delete it if it is a cache, else restore it from a backup"
)
_KEY_MISSING = (
    f"this gallery is encrypted, but no key was given; give its key file or set {KEY_VARIABLE}"
)


class Vault:
    """Seals and opens under a gallery key, or, without one, passes everything through.

    The plain vault's data keys, wraps and contexts are empty or ignored, so that callers need no
    second path. All methods may be called from several threads at once.

    Args:
        key: the gallery's key; None: nothing is encrypted.

    Attributes:
        encrypted: whether there is a key.
        key_id: the key's id, "" when plain.

    Raises:
        MissingPackageError: a key is given and cryptography is not installed.
    """

    def __init__(self, key: GalleryKey | None) -> None:
        self.encrypted = key is not None
        self.key_id = "" if key is None else key.id
        if key is not None:
            self._cipher = require("cryptography.hazmat.primitives.ciphers.aead").AESGCM
            self._invalid_tag: type[Exception] = require("cryptography.exceptions").InvalidTag
            self._wrapper = self._cipher(key.value)

    def make_data_key(self) -> bytes:
        """Return 32 random bytes for one person or one file; b"" when plain."""
        return secrets.token_bytes(KEY_BYTES) if self.encrypted else b""

    def wrap(self, data_key: bytes, context: str) -> bytes:
        """Return a data key sealed by the gallery key (60 bytes); b"" when plain.

        Args:
            data_key: from `make_data_key`.
            context: whose key it is; the same must be given to `unwrap`.

        Raises:
            InputError: the data key is not this kind of vault's.
        """
        if not self._takes(data_key):
            return b""
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed: bytes = self._wrapper.encrypt(nonce, data_key, _WRAP + context.encode())
        return nonce + sealed

    def unwrap(self, wrapped: bytes, context: str) -> bytes:
        """Return the data key in a wrap.

        Raises:
            InputError: the gallery key is another, the wrap was changed, or the context is
                another's; or a plain vault is given the wrap of an encrypted gallery.
        """
        if not self.encrypted:
            if wrapped:
                raise InputError(_KEY_MISSING)
            return b""
        return self._open(self._wrapper, wrapped, _WRAP + context.encode(), _WRAP_REFUSED)

    def seal(self, data_key: bytes, value: bytes, context: str) -> bytes:
        """Return a value sealed by a data key, 28 bytes longer; the value itself when plain.

        Args:
            data_key: from `make_data_key`.
            value: any bytes.
            context: what the value is and where it belongs; the same must be given to `open`.

        Raises:
            InputError: the data key is not this kind of vault's.
        """
        if not self._takes(data_key):
            return value
        nonce = secrets.token_bytes(NONCE_BYTES)
        aad = _VALUE + context.encode()
        sealed: bytes = self._cipher(data_key).encrypt(nonce, value, aad)
        return nonce + sealed

    def open(self, data_key: bytes, sealed: bytes, context: str) -> bytes:
        """Return the value in a sealed one.

        Raises:
            InputError: the data key or the context is another's, or a byte was changed.
        """
        if not self._takes(data_key):
            return sealed
        aad = _VALUE + context.encode()
        # A cipher costs 1 us to set up: cheaper than a cache that would outlive an erased key.
        return self._open(self._cipher(data_key), sealed, aad, _VALUE_REFUSED)

    def seal_stream(
        self,
        data_key: bytes,
        source: BinaryIO | Iterable[bytes],
        target: BinaryIO,
        context: str,
        *,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> int:
        """Seal a file or blocks of bytes, in the memory of two chunks; a copy when plain.

        The STREAM construction (Hoang, Reyhanitabar, Rogaway and Vizár 2015) with a key of its own
        for each stream, by HKDF-SHA256 (RFC 5869) from the data key and a random salt: chunk i is
        sealed with the nonce (i as 11 bytes, 1 if it is the last else 0) and the header and the
        context as additional data. Cutting, appending, reordering and mixing all fail to open.

        Args:
            data_key: from `make_data_key`.
            source: a binary file, read to its end, or an iterable of bytes.
            target: a binary file that is written to.
            context: as for `seal`.
            chunk_bytes: bytes of source in a chunk, in [1, 2**26]; written into the header.

        Returns:
            Bytes written.
        """
        check_whole(chunk_bytes, "chunk_bytes", 1, LARGEST_CHUNK)
        chunks = cut_chunks(iter_blocks(source, chunk_bytes), chunk_bytes)
        if not self._takes(data_key):
            return sum(write_fully(target, chunk) for chunk, _ in chunks)
        salt = secrets.token_bytes(SALT_BYTES)
        header = make_header(chunk_bytes, salt)
        cipher = self._cipher(derive_key(data_key, salt))
        aad = _STREAM + header + context.encode()
        written = write_fully(target, header)
        for count, (chunk, last) in enumerate(chunks):
            written += write_fully(target, cipher.encrypt(chunk_nonce(count, last), chunk, aad))
        return written

    def open_stream(self, data_key: bytes, source: BinaryIO, target: BinaryIO, context: str) -> int:
        """Open a sealed file into another; a copy when plain.

        Every chunk written is authentic and in its place, but only the return says that none is
        missing: after an exception, throw away what was written.

        Args:
            data_key: the one it was sealed with.
            source: a binary file that stands at the start of the sealed bytes and ends with them.
            target: a binary file that is written to.
            context: the one it was sealed with.

        Returns:
            Bytes written.

        Raises:
            InputError: the key or the context is another's, or the file was changed, cut short,
                extended or reordered; or a plain vault is given a sealed file.
        """
        if not self._takes(data_key):
            start = read_fully(source, len(MAGIC))
            if start == MAGIC:
                raise InputError(_KEY_MISSING)
            rest = iter_blocks(source, CHUNK_BYTES)
            return write_fully(target, start) + sum(write_fully(target, block) for block in rest)
        header = read_fully(source, HEADER_BYTES)
        parts = read_header(header)
        if parts is None:
            raise InputError(_STREAM_REFUSED)
        chunk_bytes, salt = parts
        cipher = self._cipher(derive_key(data_key, salt))
        aad = _STREAM + header + context.encode()
        whole = chunk_bytes + TAG_BYTES
        written = 0
        for count, (chunk, last) in enumerate(cut_chunks(iter_blocks(source, whole), whole)):
            nonce = chunk_nonce(count, last)
            value = self._decrypt(cipher, nonce, chunk, aad, _STREAM_REFUSED)
            written += write_fully(target, value)
        return written

    def _takes(self, data_key: bytes) -> bool:
        """Return whether to encrypt; refuse a data key of the other kind of vault."""
        if not self.encrypted:
            if data_key:
                raise InputError(_KEY_MISSING)
            return False
        if len(data_key) != KEY_BYTES:  # AES would also take 16 and 24
            raise InputError(f"a data key must be {KEY_BYTES} bytes, got {len(data_key)}")
        return True

    def _open(self, cipher: Any, sealed: bytes, aad: bytes, refused: str) -> bytes:
        return self._decrypt(cipher, sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], aad, refused)

    def _decrypt(self, cipher: Any, nonce: bytes, data: bytes, aad: bytes, refused: str) -> bytes:
        if len(nonce) != NONCE_BYTES or len(data) < TAG_BYTES:
            raise InputError(refused)
        try:
            value: bytes = cipher.decrypt(nonce, data, aad)
        except self._invalid_tag:
            raise InputError(refused) from None
        return value
