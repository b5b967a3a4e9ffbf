"""Where the files in a tar file lie, found by its headers alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO, NamedTuple

_BLOCK = 512
_REGULAR = b"07\0"
_BODILESS = b"123456"  # links, devices and folders, whatever size they state
# Bytes that are no UTF-8 become text that every table can hold.
_ESCAPE = "backslashreplace"


class TarMember(NamedTuple):
    """A regular file in a tar file.

    Attributes:
        name: with /.
        offset: of its bytes.
        length: bytes.
    """

    name: str
    offset: int
    length: int


class TarFaultError(ValueError):
    """Where a tar file stops being one; the message says in a few words why."""


def iter_members(file: IO[bytes]) -> Iterator[TarMember]:
    """Yield the regular files of an uncompressed tar file in order: ustar, GNU and pax.

    Raises:
        TarFaultError: after the last whole member, when what follows is no tar header.
    """
    handle, size, position = file.fileno(), os.fstat(file.fileno()).st_size, 0
    long_name, fields = "", dict[str, str]()
    while position < size:
        header = os.pread(handle, _BLOCK, position)
        if not header.strip(b"\0") and len(header) == _BLOCK:
            return
        name, length, kind = _read_tar_header(header)
        if kind in _BODILESS:
            length = 0
        elif kind not in b"xgLK":
            length = int(fields.get("size", length))
        start = position + _BLOCK
        if start + length > size:
            raise TarFaultError("it was cut inside a member")
        position = start + length + -length % _BLOCK
        if kind == b"L":
            long_name = os.pread(handle, length, start).rstrip(b"\0").decode("utf-8", _ESCAPE)
        elif kind == b"x":
            fields = _read_pax(os.pread(handle, length, start))
        elif kind not in b"gK":
            if kind in _REGULAR and not name.endswith("/"):
                yield TarMember(fields.get("path", long_name or name), start, length)
            long_name, fields = "", {}
    raise TarFaultError("it was cut: its end marker is missing")


def _read_tar_header(header: bytes) -> tuple[str, int, bytes]:
    """Return (name, length, kind) of a header block."""
    if len(header) < _BLOCK:
        raise TarFaultError("it was cut inside a header")
    try:
        expected = int(header[148:156].strip(b"\0 ") or b"0", 8)
        length = _read_number(header[124:136])
    except ValueError:
        raise TarFaultError("a header is damaged") from None
    if sum(header) - sum(header[148:156]) + 8 * 32 != expected or length < 0:
        raise TarFaultError("a header is damaged")
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    whole = prefix + b"/" + name if prefix else name
    return whole.decode("utf-8", _ESCAPE), length, header[156:157]


def _read_number(text: bytes) -> int:
    """Return an octal number, or a big one as GNU writes it."""
    if text[0] & 0x80:
        return int.from_bytes(bytes([text[0] & 0x7F]) + text[1:], "big")
    return int(text.strip(b"\0 ") or b"0", 8)


def _read_pax(data: bytes) -> dict[str, str]:
    """Return path and size of a pax header: lines `LENGTH KEY=VALUE`."""
    found: dict[str, str] = {}
    position = 0
    while position < len(data):
        count, space, _ = data[position : position + 20].partition(b" ")
        if not count.isdigit() or not space or int(count) <= len(count) + 2:
            raise TarFaultError("a pax header is damaged")
        line = data[position + len(count) + 1 : position + int(count) - 1]
        key, _, value = line.partition(b"=")
        if key == b"path" or (key == b"size" and value.isdigit()):
            found[key.decode()] = value.decode("utf-8", _ESCAPE)
        position += int(count)
    return found
