"""The parts of a sealed file: header, key, nonces and chunks; facerec.gallery.vault seals them."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator
from typing import BinaryIO

MAGIC = b"facerec sealed 1"
SALT_BYTES = 32
INFO = b"facerec stream\0"
HEADER_BYTES = len(MAGIC) + 4 + SALT_BYTES
LARGEST_CHUNK = 1 << 26


def make_header(chunk_bytes: int, salt: bytes) -> bytes:
    """Return what a sealed file begins with: magic, bytes of a chunk, salt."""
    return MAGIC + chunk_bytes.to_bytes(4, "big") + salt


def read_header(header: bytes) -> tuple[int, bytes] | None:
    """Return bytes of a chunk and salt, None if this is no header of ours."""
    chunk_bytes = int.from_bytes(header[len(MAGIC) :][:4], "big")
    whole = len(header) == HEADER_BYTES and header.startswith(MAGIC)
    if not whole or not 1 <= chunk_bytes <= LARGEST_CHUNK:
        return None
    return chunk_bytes, header[-SALT_BYTES:]


def derive_key(data_key: bytes, salt: bytes) -> bytes:
    """Return a stream's own key, 32 bytes: HKDF-SHA256 (RFC 5869), one block."""
    extracted = hmac.digest(salt, data_key, "sha256")
    return hmac.digest(extracted, INFO + b"\x01", "sha256")


def chunk_nonce(count: int, last: bool) -> bytes:
    """Return the nonce of a chunk, 12 bytes: its number, then 1 if it is the last, else 0."""
    return count.to_bytes(11, "big") + bytes([last])


def write_fully(target: BinaryIO, data: bytes) -> int:
    """Write all of `data`, whatever an unbuffered file takes at once; return how much that is."""
    view = memoryview(data)
    done = 0
    while done < len(view):
        done += target.write(view[done:])
    return done


def read_fully(source: BinaryIO, size: int) -> bytes:
    """Read `size` bytes, fewer only at the end: unbuffered files may give less at once."""
    parts = []
    while size and (block := source.read(size)):
        parts.append(block)
        size -= len(block)
    return b"".join(parts)


def iter_blocks(source: BinaryIO | Iterable[bytes], size: int) -> Iterator[bytes]:
    """Yield what a file or an iterable holds; empty blocks may be among them."""
    read = getattr(source, "read", None)
    if read is None:
        yield from source
        return
    while block := read(size):
        yield block


def cut_chunks(blocks: Iterable[bytes], size: int) -> Iterator[tuple[bytes, bool]]:
    """Yield chunks of `size` bytes and whether each is the last; no bytes are one empty chunk."""
    pending = bytearray()
    for block in blocks:
        view = memoryview(block).cast("B")
        for start in range(0, len(view), size):
            pending += view[start : start + size]
            # One byte more than a chunk: only then is it known not to be the last.
            while len(pending) > size:
                yield bytes(pending[:size]), False
                del pending[:size]
    yield bytes(pending), True
